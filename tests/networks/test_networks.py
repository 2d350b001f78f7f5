from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.networks import ConceptPooling, HierarchicalHead, M2Net, M2UNetDecoder, M2UNetEncoder
from m2net.networks.memory import run


def bag(sizes: list[int], channels: int = 1, size: int = 32, seed: int = 0) -> BagBatch:
    torch.manual_seed(seed)
    total = sum(sizes)
    return BagBatch(
        instances=torch.randn(total, channels, size, size),
        bag_index=torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        position=torch.zeros(total, 3),
        position_known=torch.ones(total, 3, dtype=torch.bool),
        position_step=torch.zeros(total, 2, 3),
        corner=torch.zeros(total, 3, dtype=torch.int64),
        side=torch.full((total,), 32),
        study_ids=[f"s{i}" for i in range(len(sizes))],
        draws=torch.arange(len(sizes)),
    )


def network(encoder: dict | None = None, **options: object) -> M2Net:
    torch.manual_seed(1)
    heads = {"lobes": {"name": "dense", "classes": 6}, "severity": {"name": "hierarchical", "concepts": [16, 8], "classes": 2}}
    decoder = {"name": "m2unet", "width": 8}
    return M2Net(1, encoder or {"name": "m2unet", "width": 8}, heads, **{"decoder": decoder, **options})


def count(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1024


def test_parameters_are_those_of_the_papers_table() -> None:
    """He et al. 2021, table 1, in units of 1024."""
    encoder, decoder = M2UNetEncoder(1), M2UNetDecoder((64, 64, 64, 64, 512))
    assert [round(count(b)) for b in encoder.blocks] == [37, 72, 72, 72, 2595]
    assert [round(count(b), 2) for b in encoder.blocks] == [36.94, 72.38, 72.38, 72.38, 2595.0]
    assert [round(count(b), 2) for b in decoder.blocks] == [396.56, 144.56, 144.56, 144.56]
    head = HierarchicalHead(encoder.channels, 64, 2)
    embedding = count(head.embed_concepts) + count(head.embed)
    image = count(head.image_concepts) + count(head.image)
    assert (embedding, image, round(count(head.classify), 2)) == (192.5, 48.25, 0.25)


def test_table_holds_in_the_assembled_network() -> None:
    heads = {"lobes": {"name": "dense", "classes": 6}, "severity": {"name": "hierarchical", "classes": 2}}
    whole = M2Net(1, {"name": "m2unet"}, heads, decoder={"name": "m2unet"})
    table = 36.94 + 3 * 72.375 + 2595.0 + 192.5 + 48.25 + 0.252 + 396.5625 + 3 * 144.5625
    assert count(whole) == pytest.approx(table + (64 * 6 + 6) / 1024, abs=0.01)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunked_reading_is_the_same_in_evaluation(chunk: int) -> None:
    whole = network(chunk=100).eval()
    parts = network(chunk=chunk).eval()
    parts.load_state_dict(whole.state_dict())
    batch = bag([4, 1, 6])
    with torch.no_grad():
        a, b = whole(batch), parts(batch)
    for task in a:
        torch.testing.assert_close(a[task].logits, b[task].logits, rtol=1e-4, atol=1e-5)


def test_checkpointing_keeps_gradients_and_batch_statistics() -> None:
    plain, saving = network(), network(checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    batch = bag([3, 4])
    for net in (plain, saving):
        outputs = net.train()(batch)
        (outputs["lobes"].logits.square().mean() + outputs["severity"].logits.square().sum()).backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6, msg=name)
    for (name, a), (_, b) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_recomputation_without_the_guard_would_count_batches_twice() -> None:
    norm = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).train()
    run(norm, torch.randn(4, 1, 3, 3, requires_grad=True), saving=True).sum().backward()
    assert int(norm[1].num_batches_tracked) == 1


def test_order_of_instances_does_not_matter() -> None:
    net, batch = network().eval(), bag([5, 3])
    order = torch.tensor([4, 2, 0, 1, 3, 7, 5, 6])
    with torch.no_grad():
        a, b = net(batch), net(replace(batch, instances=batch.instances[order]))
    torch.testing.assert_close(a["severity"].logits, b["severity"].logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a["severity"].instance_weight[order], b["severity"].instance_weight, rtol=1e-3, atol=1e-4)


def test_bags_do_not_see_each_other_in_evaluation() -> None:
    net, batch = network().eval(), bag([5, 3])
    alone = replace(batch, instances=batch.instances[:5], bag_index=batch.bag_index[:5], study_ids=["s0"])
    with torch.no_grad():
        a, b = net(batch), net(alone)
    torch.testing.assert_close(a["severity"].logits[:1], b["severity"].logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_concept_pooling_against_a_loop(pool: str) -> None:
    layer = ConceptPooling(6, 4, pool).eval()
    maps = torch.randn(3, 6, 2, 5)
    weight, bias = layer.similarity.weight, layer.similarity.bias
    for n in range(3):
        answers = [torch.sigmoid(weight @ maps[n, :, i, j] + bias) for i in range(2) for j in range(5)]
        stacked = torch.stack(answers)
        expected = stacked.mean(0) if pool == "mean" else stacked.max(0).values
        torch.testing.assert_close(layer.over_places(maps)[n] * (1 + 1e-5) ** 0.5, expected, rtol=1e-4, atol=1e-5)
    rows, index = torch.randn(7, 4), torch.tensor([0, 0, 0, 1, 2, 2, 2])
    pooled = layer.over_bags(rows, index, 3)
    for b in range(3):
        mine = rows[index == b]
        torch.testing.assert_close(pooled[b], mine.mean(0) if pool == "mean" else mine.max(0).values)
        if len(mine) > 1:
            left_out = layer.without_each(mine)
            for n in range(len(mine)):
                rest = torch.cat([mine[:n], mine[n + 1 :]])
                torch.testing.assert_close(left_out[n], rest.mean(0) if pool == "mean" else rest.max(0).values)


def test_weights_of_instances_sum_to_one_and_find_the_odd_one() -> None:
    net = network().eval()
    with torch.no_grad():
        weights = net(bag([5, 1, 4]))["severity"].instance_weight
    for members in (slice(0, 5), slice(5, 6), slice(6, 10)):
        assert float(weights[members].sum()) == pytest.approx(1, abs=1e-5)
    assert (weights >= 0).all()


def test_a_bag_of_one_trains() -> None:
    outputs = network().train()(bag([1]))
    assert torch.isfinite(outputs["severity"].logits).all()


@pytest.mark.parametrize("name", ["resnet18", "timm-mobilenetv3_small_minimal_100", "efficientnet-b0"])
def test_library_encoders_behind_the_same_interface(name: str) -> None:
    net = network({"name": "smp", "encoder": name}, decoder={"name": "smp_unet", "channels": [32, 16, 16, 8, 8]}, chunk=2).eval()
    with torch.no_grad():
        outputs = net(bag([2, 1], size=64))
    assert outputs["lobes"].logits.shape == (3, 6, 64, 64)
    assert outputs["severity"].logits.shape == (2, 2)


def test_papers_decoder_stands_on_a_library_encoder() -> None:
    net = network({"name": "smp", "encoder": "resnet18"}).eval()
    with torch.no_grad():
        assert net(bag([2], size=64))["lobes"].logits.shape == (2, 6, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"name": "vgg"}}, "encoder 'vgg' is unknown; expected one of hu, m2unet, residual, smp"),
        ({"encoder": {"width": 3}}, "the encoder has no name"),
        ({"encoder": {"name": "m2unet", "depth": 3}}, "encoder m2unet: .*'depth'"),
        ({"encoder": {"name": "smp", "encoder": "resnet17"}}, "cannot build the encoder 'resnet17'"),
        ({"decoder": None}, "a dense head has no decoder"),
    ],
)
def test_wrong_parts_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**options)
