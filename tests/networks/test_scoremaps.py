from __future__ import annotations

import pytest
import torch

from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.networks import HuEncoder, M2Net, ResidualEncoder, ScoreMapHead
from m2net.networks.pooling import segment_softmax, segment_top

CHANNELS = (32, 64, 128, 256, 256)


def batch_of(sizes: list[int], side: int = 32) -> BagBatch:
    total = sum(sizes)
    return BagBatch(
        instances=torch.randn(total, 1, side, side, generator=torch.Generator().manual_seed(3)),
        bag_index=torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        position=torch.zeros(total, 3), position_known=torch.ones(total, 3, dtype=torch.bool), position_step=torch.zeros(total, 2, 3),
        corner=torch.zeros(total, 3, dtype=torch.int64), side=torch.full((total,), side),
        study_ids=[f"s{i}" for i in range(len(sizes))], draws=torch.arange(len(sizes)),
    )  # fmt: skip


def network(**head: object) -> M2Net:
    torch.manual_seed(0)
    spec = {"name": "score_maps", "classes": 3, **head}
    return M2Net(1, {"name": "hu", "width": 0.125}, {"diagnosis": spec}, chunk=4).eval()


def test_the_published_encoder_layer_by_layer() -> None:
    """2x32, 2x64, 3x128, 3x256, 3x256 {3x3 conv, BN}: counted here by hand, and the maps that the heads sit on."""
    encoder = HuEncoder(1)
    layers = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 256), (256, 256)] + [
        (256, 256)
    ] * 3
    assert sum(p.numel() for p in encoder.parameters()) == sum(9 * i * o + 2 * o for i, o in layers)
    maps = encoder(torch.zeros(1, 1, 224, 224))
    assert [m.shape[1:] for m in maps] == [(c, s, s) for c, s in zip(CHANNELS, (112, 56, 28, 14, 7), strict=True)]
    head = ScoreMapHead(CHANNELS, 0, 3)
    assert sum(p.numel() for p in head.parameters()) == sum(c * 3 + 3 + 6 for c in (128, 256, 256))


def test_the_small_encoder_halves_at_every_stage() -> None:
    maps = ResidualEncoder(3, width=8)(torch.zeros(2, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)]


def test_slice_scores_are_maxima_of_the_maps_and_bags_the_mean_over_depths() -> None:
    net, batch = network(bag_pool="max"), batch_of([3, 1])
    with torch.no_grad():
        output = net(batch)["diagnosis"]
        head = net.heads["diagnosis"]
        maps = head.maps(net.features(batch.instances))
    by_hand = torch.stack([m.flatten(2).max(2).values for m in maps])  # (depths, slices, classes)
    torch.testing.assert_close(output.deep, torch.stack([by_hand[:, :3].max(1).values, by_hand[:, 3]], dim=1))
    torch.testing.assert_close(output.logits, output.deep.mean(0))
    torch.testing.assert_close(output.instance_logits, by_hand.mean(0))


@pytest.mark.parametrize("pool", ["max", "top", "mean", "attention"])
def test_pools(pool: str) -> None:
    """Bags of one are what their slice says; order of slices and other bags do not matter; weights sum to 1; chunks change nothing."""
    net = network(bag_pool=pool, activation="none")
    batch = batch_of([1, 5, 6])
    with torch.no_grad():
        output = net(batch)["diagnosis"]
        net.chunk = 64
        torch.testing.assert_close(net(batch)["diagnosis"].logits, output.logits)
        torch.testing.assert_close(output.logits[0], output.instance_logits[0])
        order = torch.tensor([0, 5, 4, 3, 2, 1, 11, 6, 7, 10, 9, 8])
        mixed = batch_of([1, 5, 6])
        mixed.instances = batch.instances[order]
        torch.testing.assert_close(net(mixed)["diagnosis"].logits, output.logits)
        alone = batch_of([5])
        alone.instances = batch.instances[1:6]
        torch.testing.assert_close(net(alone)["diagnosis"].logits[0], output.logits[1])
    torch.testing.assert_close(torch.zeros(3).index_add(0, batch.bag_index, output.instance_weight), torch.ones(3))


def test_segments_against_plain_loops() -> None:
    values, index = torch.randn(9, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    weight = segment_top(values, index, 3, 0.5)
    for bag, keep in ((0, 2), (1, 1), (2, 2)):
        rows = values[index == bag]
        torch.testing.assert_close((weight * values)[index == bag].sum(0), rows.sort(0, descending=True).values[:keep].mean(0))
    for bag in range(3):
        torch.testing.assert_close(segment_softmax(values[:, 0], index, 3)[index == bag], values[index == bag, 0].softmax(0))


@pytest.mark.parametrize("wrong", [{"bag_pool": "median"}, {"depths": [6]}, {"top": 0.0}, {"activation": "tanh"}, {"place_pool": "sum"}])
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ScoreMapHead(CHANNELS, 0, 3, **wrong)


def test_it_rides_on_other_encoders_beside_other_heads() -> None:
    heads = {
        "diagnosis": {"name": "score_maps", "classes": 3, "depths": [3, 4, 5], "bag_pool": "attention"},
        "severity": {"name": "hierarchical", "classes": 2, "concepts": [8, 4]},
        "lobes": {"name": "dense", "classes": 6},
    }
    net = M2Net(1, {"name": "m2unet", "width": 4}, heads, {"name": "m2unet", "width": 4})
    outputs = net(batch_of([2, 3]))
    sum(o.logits.sum() for o in outputs.values()).backward()
    assert all(p.grad is not None for p in net.encoder.parameters())
    assert outputs["diagnosis"].logits.shape == (2, 3)


@pytest.mark.parametrize(("encoder", "depths"), [("resnet18", [3, 4, 5]), ("efficientnet-b0", [4, 5])])
def test_it_rides_on_encoders_of_the_library(encoder: str, depths: list[int]) -> None:
    """On an encoder of segmentation-models-pytorch its score maps have the size of the stages asked for, and the encoder learns by them."""
    heads = {"diagnosis": {"name": "score_maps", "classes": 3, "depths": depths}}
    net = M2Net(1, {"name": "smp", "encoder": encoder}, heads)
    batch = batch_of([2, 1], 64)
    features = net.features(batch.instances)
    assert [tuple(m.shape[1:]) for m in net.heads["diagnosis"].maps(features)] == [(3, 64 >> d, 64 >> d) for d in depths]
    net(batch)["diagnosis"].deep.sum().backward()
    first = next(net.encoder.parameters())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in (first, *net.heads["diagnosis"].score[-1][0].parameters()))
