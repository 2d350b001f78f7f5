"""Heads and what they pool with: against loops and numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from m2net.errors import ConfigError
from m2net.networks import ConceptPooling, Features, HierarchicalHead, M2Net, PooledHead
from m2net.networks.pooling import Standardise
from m2net.networks.shares import ShareHead
from tests.networks.test_networks import bag, network


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
    head = HierarchicalHead([4], 0, 2, concepts=(6, 4)).eval()
    torch.nn.init.zeros_(head.classify.weight)
    torch.nn.init.constant_(head.classify.weight[1], 1.0)
    torch.nn.init.constant_(head.image.weight, 1.0)
    torch.nn.init.constant_(head.image_concepts.similarity.weight, 1.0)  # every number of an embedding pulls towards the higher grade
    embedded = torch.full((5, 6), 0.1)
    embedded[3] = 3.0
    with torch.no_grad():
        odd = head.bag(embedded, bag([5])).instance_weight
    assert odd is not None
    assert odd.argmax() == 3
    assert float(odd[3]) == pytest.approx(1)  # left out, one of the others raises the grade


def test_a_bag_of_one_trains() -> None:
    outputs = network().train()(bag([1]))
    assert torch.isfinite(outputs["severity"].logits).all()


@pytest.mark.parametrize("layer", [ConceptPooling(6, 4), ShareHead([4], 4, 2)])
def test_a_row_alone_is_trained_as_it_is_judged(layer: torch.nn.Module) -> None:
    standardise = layer.standardise
    standardise.running_mean.uniform_()
    standardise.running_var.uniform_(0.5, 1)
    rows = torch.rand(1, standardise.num_features)
    torch.testing.assert_close(standardise.train()(rows), standardise.eval()(rows))
    two = torch.rand(2, standardise.num_features)
    torch.testing.assert_close(standardise.train()(two), (two - two.mean(0)) / (two.var(0, correction=0) + 1e-5).sqrt())


@pytest.mark.parametrize(("source", "width"), [("encoder", 32), ("decoder", 8), ("both", 40)])
def test_pooled_head_is_linear_in_the_means(source: str, width: int) -> None:
    head = PooledHead((4, 32), 8, 1, source=source).eval()
    features = Features([torch.randn(3, 4, 8, 8), torch.randn(3, 32, 4, 4)], torch.randn(3, 8, 8, 8), (16, 16))
    batch = bag([2, 1], size=16)
    parts = {"encoder": [features.maps[-1]], "decoder": [features.decoded], "both": [features.maps[-1], features.decoded]}[source]
    pooled = torch.cat([p.mean((2, 3)) for p in parts], dim=1)
    expected = head.answer(torch.stack([pooled[:2].mean(0), pooled[2]]))
    torch.testing.assert_close(head.bag(head.instance(features), batch).logits, expected)
    assert head.answer.in_features == width


def test_shares_are_read_off_the_map() -> None:
    """Against numpy, with the instances read in chunks; and the map learns from the answer only where it may."""
    heads = {
        "infection": {"name": "dense", "classes": 3},
        "severity": {"name": "shares", "classes": 2, "reads": "infection"},
        "apart": {"name": "shares", "classes": 2, "reads": "infection", "gradient": False},
    }
    torch.manual_seed(0)
    network = M2Net(1, {"name": "residual", "width": 4}, heads, {"name": "grid", "depth": 2, "width": 8}, chunk=2).eval()
    batch = bag([3, 2])
    outputs = network(batch)
    p = outputs["infection"].logits.softmax(1).detach().numpy()[:, 1:].mean((2, 3))
    share = np.stack([p[:3].mean(0), p[3:].mean(0)])
    told = np.concatenate([np.sqrt(share), np.log(share + 1e-3)], axis=1) / np.sqrt(1 + 1e-5)  # fresh batch statistics: mean 0, variance 1
    head = network.heads["severity"]
    expected = told @ head.classify.weight.detach().numpy().T + head.classify.bias.detach().numpy()  # type: ignore[union-attr, operator]
    np.testing.assert_allclose(outputs["severity"].logits.detach().numpy(), expected, atol=1e-4)
    for task, moves in (("severity", True), ("apart", False)):
        network.zero_grad()
        network(batch)[task].logits.sum().backward()
        gradient = network.heads["infection"].classify.weight.grad  # type: ignore[union-attr]
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) is moves
    wrong = {**heads, "severity": {"name": "shares", "classes": 2, "reads": "infection", "answers": 5}}
    with pytest.raises(ConfigError, match="reads 5 classes of infection; expected answers: 2"):
        M2Net(1, {"name": "residual", "width": 4}, wrong, {"name": "grid", "depth": 2})


def test_a_subpixel_head_learns_what_half_size_cannot_hold() -> None:
    """A chequered pattern of single pixels; bilinear raising of half-size answers cannot tell its two colours apart."""
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    truth = ((rows + columns) % 2)[None].expand(2, -1, -1)
    batch = replace(bag([2]), instances=truth[:, None].float() + 0.01 * torch.randn(2, 1, 32, 32))
    right = {}
    for subpixel in (0, 8):
        torch.manual_seed(0)
        heads = {"a": {"name": "dense", "classes": 2, "subpixel": subpixel}}
        net = M2Net(1, {"name": "residual", "width": 8}, heads, {"name": "smp_unet", "channels": [16, 16, 8, 8]}).train()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(batch)["a"].logits, truth).backward()
            optimizer.step()
        logits = net(batch)["a"].logits
        assert logits.shape == (2, 2, 32, 32)
        right[subpixel] = float((logits.argmax(1) == truth).float().mean())
    assert right[0] < 0.7
    assert right[8] > 0.99
    assert list(net.class_axes()) == ["heads.a.classify.weight", "heads.a.classify.bias"]
    with pytest.raises(ConfigError, match="subpixel is -1"):
        M2Net(1, {"name": "residual", "width": 8}, {"a": {"name": "dense", "classes": 2, "subpixel": -1}}, {"name": "grid"})


def test_one_bag_alone_trains_shares() -> None:
    heads = {"infection": {"name": "dense", "classes": 3}, "severity": {"name": "shares", "classes": 2, "reads": "infection"}}
    model = M2Net(1, {"name": "residual", "width": 8}, heads, decoder={"name": "grid", "depth": 3, "width": 8}).train()
    answer = model(bag([3]))["severity"].logits + model(bag([2]))["severity"].logits
    answer.sum().backward()
    assert bool(torch.isfinite(answer).all())
    assert float(model.heads["severity"].standardise.running_mean.abs().max()) > 0  # type: ignore[union-attr, operator]


def test_rows_one_by_one_are_standardised_by_what_they_have_in_common() -> None:
    """Against numpy's weighted mean and variance over all rows so far, newer ones weighing more."""
    rows = np.random.default_rng(0).normal([3.0, -1.0], [2.0, 0.1], size=(200, 2))
    norm = Standardise(2).train()
    answers = np.concatenate([norm(torch.from_numpy(row[None].astype(np.float32))).numpy() for row in rows])
    weight = 0.9 ** np.arange(len(rows), -1, -1.0)
    weight[1:] *= 0.1
    mean = weight[1:] @ rows  # it began with mean 0, variance 1 and weight[0]
    square = weight[0] * (1 + 0.0**2) + weight[1:] @ rows**2
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-4)  # type: ignore[arg-type]
    np.testing.assert_allclose(norm.running_var, square - mean**2, rtol=1e-3)  # type: ignore[arg-type]
    assert np.abs(answers[100:].mean(0)).max() < 0.3
    assert (np.abs(answers[100:].std(0) - 1) < 0.3).all()
    np.testing.assert_allclose(
        norm.eval()(torch.from_numpy(rows.astype(np.float32))), norm.remembered(torch.from_numpy(rows.astype(np.float32)))
    )


def test_shares_of_lobes_against_numpy() -> None:
    """Shares within each lobe, their learnt weights over the lobes that are there, and each lobe's own answer; chunks change nothing."""
    heads = {
        "lobes": {"name": "dense", "classes": 6},
        "infection": {"name": "dense", "classes": 3},
        "severity": {"name": "shares", "classes": 2, "lobes": "lobes", "least": 0.02},
    }
    torch.manual_seed(0)
    network = M2Net(1, {"name": "residual", "width": 4}, heads, {"name": "grid", "depth": 2, "width": 8}, chunk=2).eval()
    head = network.heads["severity"]
    with torch.no_grad():
        network.heads["lobes"].classify.bias[3] = -20.0  # type: ignore[union-attr, index, operator]  # the right upper lobe was taken out
        head.of_lobe.copy_(torch.tensor([0.3, -0.2, 5.0, 0.1, 0.6]))  # type: ignore[union-attr, operator]
    batch = bag([3, 2])
    outputs = network(batch)
    lobes = outputs["lobes"].logits.softmax(1).detach().double().numpy()[:, 1:]
    classes = outputs["infection"].logits.softmax(1).detach().double().numpy()[:, 1:]
    weight = np.exp([0.3, -0.2, -np.inf, 0.1, 0.6])
    w, b = (v.detach().double().numpy() for v in (head.classify.weight, head.classify.bias))  # type: ignore[union-attr]

    def answer(share: np.ndarray) -> np.ndarray:
        told = np.concatenate([np.sqrt(share), np.log(share + 1e-3)]) / np.sqrt(1 + 1e-5)  # fresh batch statistics: mean 0, variance 1
        return np.asarray(told @ w.T + b)

    for k, which in enumerate((slice(0, 3), slice(3, 5))):
        each = np.einsum("nlhw,nchw->lc", lobes[which], classes[which]) / lobes[which].sum((0, 2, 3))[:, None]
        np.testing.assert_allclose(outputs["severity"].logits[k].detach().numpy(), answer(weight @ each / weight.sum()), atol=1e-4)
        for lobe in (0, 1, 3, 4):
            np.testing.assert_allclose(outputs["severity"].lobe_logits[k, lobe].numpy(), answer(each[lobe]), atol=1e-4)  # type: ignore[index]
        assert bool(outputs["severity"].lobe_logits[k, 2].isnan().all())  # type: ignore[index]
    wrong = {**heads, "severity": {"name": "shares", "classes": 2, "lobes": "infection"}}
    with pytest.raises(ConfigError, match="severity reads infection, which draws no lobes"):
        M2Net(1, {"name": "residual", "width": 4}, wrong, {"name": "grid", "depth": 2})


def test_a_momentum_of_0_remembers_nothing() -> None:
    """As for the hidden pictures of a restoration; a single row, too, leaves what is remembered alone."""
    norm = Standardise(2).train()
    norm.momentum = 0.0
    for rows in (torch.full((1, 2), 5.0), torch.tensor([[5.0, 5.0], [7.0, 9.0]])):
        norm(rows)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.running_mean.tolist() == [0, 0]
        assert norm.running_var.tolist() == [1, 1]
