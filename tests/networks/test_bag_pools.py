"""Pools over instances, and from instances over lobes to patients: against loops, and whatever order or company they come in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.networks import BAG_POOLS, Features, LobeAwareHead, M2Net
from tests.networks.test_networks import bag

SIZES = [5, 1, 3]
INDEX = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
HEADS = {
    "lobes": {"name": "dense", "classes": 6},
    "pooled": {"name": "pooled", "classes": 2},
    "attended": {"name": "pooled", "pool": "gated_attention", "classes": 2},
    "transformed": {"name": "pooled", "pool": {"name": "transformer", "hidden": 16, "heads": 2}, "classes": 2},
    "instances": {"name": "pooled", "pool": {"name": "top", "top": 0.5}, "level": "instance", "classes": 2},
    "infection": {"name": "dense", "classes": 3},
    "two_levels": {"name": "hierarchical", "concepts": [8, 4], "classes": 2},
    "shares": {"name": "shares", "classes": 2},
    "shares_of_lobes": {"name": "shares", "classes": 2, "lobes": "lobes"},
    "aware": {"name": "lobe_aware", "classes": 2, "width": 8},
    "aware_attended": {"name": "lobe_aware", "classes": 2, "width": 8, "pool": "attention"},
}
BAGS = sorted(set(HEADS) - {"lobes", "infection"})


def network(**heads: dict[str, object]) -> M2Net:
    torch.manual_seed(3)
    return M2Net(1, {"name": "residual", "width": 4}, heads or HEADS, {"name": "smp_unet", "channels": [16, 8, 8, 8]}, chunk=4)


@pytest.mark.parametrize("name", sorted(BAG_POOLS))
def test_order_and_company_do_not_matter(name: str) -> None:
    torch.manual_seed(0)
    pool, vectors = BAG_POOLS[name](8).eval(), torch.randn(9, 8)
    with torch.no_grad():
        together = pool(vectors, INDEX, 3)[0]
        order = torch.cat([torch.randperm(5), torch.tensor([5]), 6 + torch.randperm(3)])
        torch.testing.assert_close(pool(vectors[order], INDEX, 3)[0], together, rtol=1e-4, atol=1e-5)
        for k, rows in enumerate((slice(0, 5), slice(5, 6), slice(6, 9))):
            alone = pool(vectors[rows], torch.zeros(SIZES[k], dtype=torch.int64), 1)[0]
            torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-5)


def test_simple_pools_against_loops() -> None:
    vectors = torch.randn(9, 4)
    mine = [vectors[INDEX == k] for k in range(3)]
    for name, expected in (
        ("mean", [m.mean(0) for m in mine]),
        ("max", [m.max(0).values for m in mine]),
        ("top", [m.sort(0, descending=True).values[: max(1, round(0.25 * len(m)))].mean(0) for m in mine]),
    ):
        torch.testing.assert_close(BAG_POOLS[name](4)(vectors, INDEX, 3)[0], torch.stack(expected))


def test_gated_attention_is_the_published_formula() -> None:
    torch.manual_seed(1)
    pool, vectors = BAG_POOLS["gated_attention"](6, hidden=5), torch.randn(9, 6)
    pooled, weight = pool(vectors, INDEX, 3)
    for k in range(3):
        x = vectors[INDEX == k]
        hidden = torch.tanh(x @ pool.hide.weight.T + pool.hide.bias) * torch.sigmoid(x @ pool.gate.weight.T + pool.gate.bias)
        a = (hidden @ pool.weigh.weight.T + pool.weigh.bias).softmax(0)
        torch.testing.assert_close(weight[INDEX == k], a)
        torch.testing.assert_close(pooled[k], (a * x).sum(0))


def test_every_head_in_chunks_in_any_order_and_alone() -> None:
    net, batch = network().eval(), bag(SIZES, size=64)
    order = torch.tensor([4, 2, 0, 1, 3, 5, 8, 7, 6])
    with torch.no_grad():
        chunked, turned = net(batch), net(replace(batch, instances=batch.instances[order]))
        single = [net(of_one(batch, rows)) for rows in (slice(0, 5), slice(5, 6), slice(6, 9))]
        net.chunk = 100
        whole = net(batch)
    for task in BAGS:
        for kind in ("logits", "lobe_logits"):
            told = getattr(chunked[task], kind)
            if told is not None:
                torch.testing.assert_close(told, getattr(whole[task], kind), rtol=1e-4, atol=1e-5, equal_nan=True)
                torch.testing.assert_close(told, getattr(turned[task], kind), rtol=1e-4, atol=1e-5, equal_nan=True)
                alone = torch.cat([getattr(one[task], kind) for one in single])  # the second bag is of one instance
                torch.testing.assert_close(told, alone, rtol=1e-4, atol=1e-5, equal_nan=True)
        weight = chunked[task].instance_weight
        if weight is not None:
            sums = torch.zeros(3).index_add(0, INDEX, weight)
            torch.testing.assert_close(sums, torch.ones(3), rtol=1e-4, atol=1e-4)
    assert {task for task in BAGS if chunked[task].lobe_logits is not None} == {"aware", "aware_attended", "shares_of_lobes"}


def of_one(batch: BagBatch, rows: slice) -> BagBatch:
    """These instances as the only bag."""
    count = len(batch.instances[rows])
    return replace(batch, instances=batch.instances[rows], bag_index=torch.zeros(count, dtype=torch.int64), study_ids=["s"])


def test_bags_are_judged_in_full_precision() -> None:
    """What one of many instances adds is lost in bfloat16, and with it what weighed most."""
    net, batch = network().eval(), bag(SIZES, size=64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = net(batch)
    for task in BAGS:
        logits = outputs[task].logits
        assert logits.dtype == torch.float32
        assert bool((logits.bfloat16().float() != logits).any()), task


def test_sums_over_lobes_are_in_full_precision() -> None:
    head, given = LobeAwareHead((4,), 3, 2, source="decoder", width=5).eval(), features(torch.randint(0, 6, (4, 8, 8)), 4)
    seen: list[torch.Tensor] = []
    head.embed.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        sums = head.instance(given).reshape(4, 5, 6)[..., :5]
    membership = given.dense["lobes"].double().softmax(1)[:, 1:]
    expected = torch.einsum("nlhw,nchw->nlc", membership, seen[0].double()) / 64
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-7)


def features(lobes: torch.Tensor, count: int) -> Features:
    """Instances (N, 8, 8) that belong to these lobes (codes) for certain."""
    torch.manual_seed(2)
    logits = torch.nn.functional.one_hot(lobes, 6).permute(0, 3, 1, 2).float() * 30
    return Features([torch.randn(count, 4, 4, 4)], torch.randn(count, 3, 8, 8), (8, 8), {"lobes": logits})


def one_bag(count: int) -> BagBatch:
    return bag([count], size=16)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_lobes_against_a_loop(pool: str) -> None:
    lobes = torch.randint(0, 6, (4, 8, 8), generator=torch.Generator().manual_seed(0))
    head = LobeAwareHead((4,), 3, 2, source="decoder", width=5, pool=pool).eval()
    given = features(lobes, 4)
    output = head.bag(head.instance(given), one_bag(4))
    x = torch.relu(torch.einsum("nchw,dc->nhwd", given.decoded, head.embed[0].weight[:, :, 0, 0]) + head.embed[0].bias)
    score = []
    for code in range(1, 6):
        inside = [x[n][lobes[n] == code] for n in range(4)]
        size = torch.tensor([float(len(i)) for i in inside])
        mean = torch.stack([i.mean(0) if len(i) else torch.zeros(5) for i in inside])
        weight = size / size.sum()
        if pool == "attention":
            weight = size * head.within.logits(mean).exp()
            weight = weight / weight.sum()
        score.append((weight[:, None] * mean).sum(0))
    v = torch.stack(score)
    scored = v @ head.classify.weight.T + head.classify.bias + head.of_lobe
    beta = head.across.logits(v).softmax(0)
    torch.testing.assert_close(output.lobe_logits[0], scored, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits[0], (beta[:, None] * scored).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_an_absent_lobe_has_no_score_and_no_say(pool: str) -> None:
    """As after a lobectomy; and a bag without any lung still answers, and trains."""
    lobes = torch.tensor([1, 2, 3, 5]).repeat(2, 8, 2)
    head = LobeAwareHead((4,), 3, 2, source="decoder", width=5, pool=pool).eval()
    output = head.bag(head.instance(features(lobes, 2)), one_bag(2))
    assert output.lobe_logits is not None
    assert output.lobe_logits[0, 3].isnan().all()
    assert not output.lobe_logits[0, [0, 1, 2, 4]].isnan().any()
    before = output.logits
    head.of_lobe.data[3] += 100
    torch.testing.assert_close(head.bag(head.instance(features(lobes, 2)), one_bag(2)).logits, before)
    nothing = head.bag(head.instance(features(torch.zeros(2, 8, 8, dtype=torch.int64), 2)), one_bag(2))
    assert torch.isfinite(nothing.logits).all()
    (before + nothing.logits).sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in head.parameters())


@pytest.mark.parametrize("gradient", [True, False])
def test_the_membership_is_trained_through_only_if_asked(gradient: bool) -> None:
    net = network(
        lobes={"name": "dense", "classes": 6}, aware={"name": "lobe_aware", "classes": 2, "width": 8, "gradient": gradient}
    ).train()
    net(bag([3], size=64))["aware"].logits.sum().backward()
    reached = net.heads["lobes"].classify.weight.grad
    assert (reached is not None and bool(reached.abs().sum() > 0)) is gradient
    assert net.encoder.stages[0][0].weight.grad is not None


def test_what_a_head_reads_must_be_there() -> None:
    with pytest.raises(ConfigError, match="the head of aware reads the task lobes; expected a task with a dense head"):
        network(aware={"name": "lobe_aware", "classes": 2}, lobes={"name": "pooled", "classes": 6})
    for wrong in ({"pool": "median"}, {"level": "patient"}, {"source": "neck"}, {"pool": {"name": "top", "top": 2.0}}):
        with pytest.raises(ConfigError):
            network(pooled={"name": "pooled", "classes": 2, **wrong})
