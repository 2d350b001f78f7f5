from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.networks import HierarchicalHead, M2Net, M2UNetDecoder, M2UNetEncoder, SmpEncoder
from m2net.networks.memory import run
from m2net.networks.smp import SmpUnetDecoder


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


_SMP = {"encoder": {"name": "smp", "encoder": "resnet18"}, "decoder": {"name": "smp_unet", "channels": [32, 16, 16, 8, 8]}}


@pytest.mark.parametrize("parts", [{}, _SMP, {"encoder": {"name": "residual", "width": 8}, "decoder": {"name": "grid", "depth": 2}}])
def test_checkpointing_keeps_gradients_and_batch_statistics(parts: dict[str, Any]) -> None:
    plain, saving = network(**parts), network(**parts, checkpointing=True)
    calls = {"encoder": 0, "decoder": 0}
    for name in calls:
        first = next(m for m in getattr(saving, name).modules() if isinstance(m, torch.nn.Conv2d))
        first.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    saving.load_state_dict(plain.state_dict())
    batch = bag([3, 4])
    for net in (plain, saving):
        outputs = net.train()(batch)
        (outputs["lobes"].logits.square().mean() + outputs["severity"].logits.square().sum()).backward()
    assert calls == {"encoder": 2, "decoder": 2}
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6, msg=name)
    for (name, a), (_, b) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_recomputation_without_the_guard_would_count_batches_twice() -> None:
    norm = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).train()
    run(norm, torch.randn(4, 1, 3, 3, requires_grad=True), saving=True).sum().backward()
    assert int(norm[1].num_batches_tracked) == 1


def test_a_checkpointed_part_can_be_computed_again_for_every_task() -> None:
    """As balancing by gradient norm does: a backward pass a task, then one of the sum."""
    norm = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).double().train()
    plain = copy.deepcopy(norm)
    x = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    for net, saving in ((norm, True), (plain, False)):
        y = run(net, x.clone().requires_grad_(), saving=saving)
        weight = net[0].weight
        first = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (y.relu().sum(), y.pow(3).sum())]
        (y.relu().sum() + y.pow(3).sum()).backward()
        torch.testing.assert_close(weight.grad, first[0] + first[1])
    torch.testing.assert_close(norm[0].weight.grad, plain[0].weight.grad)
    for one, other in zip(norm.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)


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


@pytest.mark.parametrize("name", ["resnet18", "timm-mobilenetv3_small_minimal_100", "efficientnet-b0"])
def test_library_encoders_behind_the_same_interface(name: str) -> None:
    net = network({"name": "smp", "encoder": name}, decoder={"name": "smp_unet", "channels": [32, 16, 16, 8, 8]}, chunk=2).eval()
    with torch.no_grad():
        outputs = net(bag([2, 1], size=64))
    assert outputs["lobes"].logits.shape == (3, 6, 64, 64)
    assert outputs["severity"].logits.shape == (2, 2)


@pytest.mark.parametrize("encoder", ["densenet121", "inceptionv4", "resnet50", "tu-dla34"])
@pytest.mark.parametrize("decoder", ["smp_unet", "smp_unetplusplus", "smp_linknet"])
def test_networks_of_the_infection_maps(encoder: str, decoder: str) -> None:
    widths = {"width": 8} if decoder == "smp_linknet" else {"channels": [16, 16, 8, 8, 8]}
    net = network({"name": "smp", "encoder": encoder}, decoder={"name": decoder, **widths}).eval()
    with torch.no_grad():
        assert net(bag([1], size=96))["lobes"].logits.shape == (1, 6, 96, 96)


def test_a_decoder_of_one_stage_less_stops_at_half_size() -> None:
    net = network({"name": "residual", "width": 4}, decoder={"name": "smp_unet", "channels": [16, 8, 8, 8]}).eval()
    with torch.no_grad():
        images = bag([1], size=64).instances
        assert net.features(images).decoded.shape == (1, 8, 32, 32)
        assert net(bag([1], size=64))["lobes"].logits.shape == (1, 6, 64, 64)


def test_weights_from_a_local_file(tmp_path: Path) -> None:
    """Weights made for colour answer to grey as they did; a file that lacks some is refused, a name that is unknown too."""
    colour, grey = SmpEncoder(3, "resnet18").eval(), SmpEncoder(1, "resnet18").eval()
    save_file(colour.encoder.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"encoder.{k}": v for k, v in colour.encoder.state_dict().items()}}, tmp_path / "w.pt")
    image = torch.randn(1, 1, 64, 64)
    for name in ("w.safetensors", "w.pt"):
        grey.load_weights(str(tmp_path / name))
        with torch.no_grad():
            torch.testing.assert_close(grey(image)[-1], colour(image.expand(-1, 3, -1, -1))[-1], rtol=1e-3, atol=1e-4)
    short = dict(list(colour.encoder.state_dict().items())[:-6])
    save_file(short, tmp_path / "short.safetensors")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for given, message in (("short.safetensors", "lacks"), ("none.pt", "do not exist"), ("junk.pt", "cannot be read as weights")):
        with pytest.raises(ConfigError, match=message):
            grey.load_weights(str(tmp_path / given))
    with pytest.raises(ConfigError, match="Wrong pretrained weights"):
        grey.load_weights("marsnet")


@pytest.mark.parametrize(
    ("encoder", "renamed"),
    [
        ("densenet121", lambda k: re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", k)),  # as torchvision's files have it
        ("densenet121", lambda k: "module.densenet121." + k),  # as CheXNet's
        ("tu-dla34", lambda k: k.removeprefix("model.")),  # as timm's
        ("inceptionv4", lambda k: k),
        ("resnet18", lambda k: "encoder." + k),  # as the library's whole networks
    ],
)
def test_weights_under_the_names_that_files_have(tmp_path: Path, encoder: str, renamed: Callable[[str], str]) -> None:
    given, taken = SmpEncoder(3, encoder), SmpEncoder(1, encoder).eval()
    state = {renamed(k): torch.randn_like(v) if v.is_floating_point() else v for k, v in given.encoder.state_dict().items()}
    assert encoder == "inceptionv4" or set(state) != set(given.encoder.state_dict())
    others = {f"decoder.blocks.{k}.conv.weight": torch.zeros(1) for k in range(2 * len(state))}
    torch.save({**state, **others}, tmp_path / "w.pth")
    taken.load_weights(str(tmp_path / "w.pth"))
    for name, tensor in taken.encoder.state_dict().items():
        file = state[renamed(name)]
        assert torch.allclose(tensor, file if file.shape == tensor.shape else file.sum(1, keepdim=True)), name


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    encoder = SmpEncoder(1, "resnet18")
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline, raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ConfigError, match="could not be downloaded.*give the file's path"):
        encoder.load_weights("imagenet")


def test_a_frozen_encoder_stays_as_it_is() -> None:
    net = network({"name": "residual", "width": 4}, decoder={"name": "smp_unet", "channels": [16, 8, 8, 8]}, freeze_encoder=True).train()
    before = {k: v.clone() for k, v in net.encoder.state_dict().items()}
    outputs = net(bag([3], size=64))
    sum(o.logits.sum() for o in outputs.values()).backward()
    torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0).step()
    assert all(torch.equal(v, before[k]) for k, v in net.encoder.state_dict().items())
    assert all(p.grad is not None for p in net.decoder.parameters())


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


@pytest.mark.parametrize("stages", [5, 4, 3, 1])
def test_a_unet_ends_where_its_widths_do(stages: int) -> None:
    torch.manual_seed(0)
    encoder = M2Net(1, {"name": "residual", "width": 4}, {}, None).encoder
    maps = encoder(torch.randn(2, 1, 80, 48))  # no multiple of 32: the deepest map is rounded up
    decoder = SmpUnetDecoder((4, 4, 8, 16, 32), [16, 16, 8, 8, 8][:stages])
    sizes = [(80, 48), *(m.shape[2:] for m in maps)]
    assert decoder(maps).shape == (2, [16, 16, 8, 8, 8][stages - 1], *sizes[5 - stages])
