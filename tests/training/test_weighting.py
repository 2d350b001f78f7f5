"""Tasks share an encoder: none starves, none drowns the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from m2net.bags.dataset import EpochSampler, balanced_chances
from m2net.cli.main import main
from m2net.training import load_model
from m2net.training.weighting import WEIGHTINGS

TASKS = {"a": 1.0, "b": 2.0}


def test_fixed_weights_are_a_sum() -> None:
    shared = torch.ones(1, requires_grad=True)
    total = WEIGHTINGS["fixed"](TASKS)({"a": shared.sum() * 3, "b": shared.sum() * 5}, {"a", "b"}, [shared])
    assert float(total) == 13


def test_uncertainty_finds_the_inverse_of_the_loss() -> None:
    """At the optimum exp(-s) = 1 / L."""
    torch.manual_seed(0)
    shared, weighting, x = torch.nn.Parameter(torch.randn(4, 4)), WEIGHTINGS["uncertainty"](TASKS), torch.randn(64, 4)
    optimizer = torch.optim.SGD([shared, *weighting.parameters()], lr=0.01)
    for _ in range(500):
        losses = {"a": ((x @ shared)[:, 0] ** 2).mean() + 1.0, "b": 10 * (((x @ shared)[:, 1] - 1) ** 2).mean() + 10}
        optimizer.zero_grad()
        weighting(losses, {"a", "b"}, [shared]).backward()
        optimizer.step()
    assert weighting.now() == pytest.approx({task: w / float(losses[task].detach()) for task, w in TASKS.items()}, rel=0.05)


def test_gradient_norms_are_evened_out() -> None:
    shared, weighting = torch.randn(3, 3, requires_grad=True), WEIGHTINGS["gradient_norm"]({"a": 1.0, "b": 1.0})
    for _ in range(5):
        losses = {"a": (shared**2).sum(), "b": 50 * (shared**2).sum()}
        weighting(losses, {"a", "b"}, [shared])
    now = weighting.now()
    assert now["a"] / now["b"] == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_a_task_without_a_label_moves_nothing(name: str) -> None:
    shared, weighting = torch.randn(2, 2, requires_grad=True), WEIGHTINGS[name](TASKS)
    before = weighting.now()
    total = weighting({"a": (shared**2).sum(), "b": shared.sum() * 0.0}, {"a"}, [shared])
    total.backward()
    torch.testing.assert_close(shared.grad, 2 * shared.detach() * (before["a"] if name != "gradient_norm" else 1.0))
    assert weighting.now()["b"] == pytest.approx(before["b"])
    assert all(float(p.grad or 0) == 0 for key, p in weighting.named_parameters() if key.endswith("b"))


def test_a_pull_is_measured_wherever_a_head_stands() -> None:
    """Two heads on different maps; a map that a task does not reach adds nothing to its norm."""
    maps = [torch.randn(2, 2, requires_grad=True), torch.randn(2, 2, requires_grad=True)]
    weighting = WEIGHTINGS["gradient_norm"]({"a": 1.0, "b": 1.0})
    weighting({"a": 3 * maps[0].sum(), "b": 12 * maps[1].sum()}, {"a", "b"}, maps)
    assert weighting.norms.tolist() == pytest.approx([6.0, 24.0])


def test_a_task_that_pulls_at_nothing_keeps_its_weight() -> None:
    """Its map is read without a gradient, or all of its labels leave every class open."""
    shared, apart = torch.randn(2, 2, requires_grad=True), torch.randn(2, requires_grad=True)
    weighting = WEIGHTINGS["gradient_norm"]({"a": 1.0, "b": 1.0})
    for loss in (apart.sum(), (shared * 0).sum()):
        weighting({"a": 3 * shared.sum(), "b": loss}, {"a", "b"}, [shared])
    assert weighting.now() == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("name", ["uncertainty", "gradient_norm"])
def test_weightings_through_the_front_door(configure: Callable[..., Path], tmp_path: Path, name: str) -> None:
    config = configure(tmp_path, data={"balance": ["lobes", "severity:binary"]})
    assert main(["fit", "--config", str(config), "--model.weighting", name]) == 0
    model = load_model(tmp_path / "best.ckpt")
    assert model.weighting.now() != {"lobes": 1.0, "severity": 1.0}
    words = ["fit", "--config", str(config)]
    assert main([*words, "--ckpt_path", str(tmp_path / "best.ckpt")]) == 2  # resumed with fixed weights
    assert main([*words, "--model.weighting", "luck"]) == 2
    assert main([*words, "--model.weighting", "gradient_norm", "--model.network.freeze_encoder", "true"]) == 2
    assert main(["fit", "--config", str(config), "--data.balance", "[liver]"]) == 2


def test_rare_labels_weigh_as_much_as_common_ones() -> None:
    """500 outcomes, 40 lobe masks (20 with both): each label gives half of the draws, and is in some of the other's."""
    labels = [{"severity"} | ({"lobes"} if k < 20 else set()) for k in range(500)] + [{"lobes"}] * 20
    chances = balanced_chances(labels, ["lobes", "severity"])
    assert sum(chances) == pytest.approx(1)
    drawn = [index for epoch in range(40) for index, _ in draws(len(labels), chances, epoch)]
    for target, expected in (("lobes", 0.5 + 0.5 * 20 / 500), ("severity", 0.5 + 0.5 * 20 / 40)):
        assert sum(c for c, own in zip(chances, labels, strict=True) if target in own) == pytest.approx(expected)
        assert np.mean([target in labels[k] for k in drawn]) == pytest.approx(expected, abs=0.02)


def test_studies_without_the_rare_labels_are_drawn_as_before() -> None:
    """Where only masks and outcomes are balanced, a study that brings another task its labels is not left out."""
    labels = [{"severity"}] * 60 + [{"lobes"}] * 20 + [{"diagnosis"}] * 20
    chances = balanced_chances(labels, ["lobes", "severity"])
    assert chances == pytest.approx([0.4 / 60] * 60 + [0.4 / 20] * 20 + [1 / 100] * 20)


def draws(size: int, chances: list[float], epoch: int) -> list[tuple[int, int]]:
    sampler = EpochSampler(size, 0, chances)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_task_that_is_kept_has_no_variance_to_learn() -> None:
    """Several processes would wait for its gradient."""
    weighting = WEIGHTINGS["uncertainty"]({"a": 1.0, "kept": 0.0})
    assert [name for name, s in weighting.named_parameters() if s.requires_grad] == ["log_variance.a"]
    assert weighting.now() == {"a": 1.0, "kept": 0.0}


def test_an_empty_map_pulls_at_nothing() -> None:
    """The first stage of some encoders of segmentation-models-pytorch has no channel."""
    shared = torch.randn(2, 3, requires_grad=True)
    weighting = WEIGHTINGS["gradient_norm"]({"a": 1.0, "b": 1.0})
    weighting({"a": shared.sum(), "b": 4 * shared.sum()}, {"a", "b"}, [torch.zeros(2, 0), shared]).backward()
    now = weighting.now()
    assert now["a"] / now["b"] == pytest.approx(4)


def test_an_average_of_weights_forgets_that_a_norm_was_unknown() -> None:
    weighting = WEIGHTINGS["gradient_norm"]({"a": 1.0, "b": 1.0})
    average = weighting.norms.clone()
    shared = torch.randn(2, 3, requires_grad=True)
    weighting({"a": shared.sum(), "b": 4 * shared.sum()}, {"a", "b"}, [shared])
    assert torch.isfinite(0.9 * average + 0.1 * weighting.norms).all()


def test_a_norm_that_is_not_finite_is_passed_over() -> None:
    """As of a step that overflowed: taken into the average it would stay there for ever."""
    shared = torch.ones(2, requires_grad=True)
    weighting = WEIGHTINGS["gradient_norm"]({"a": 1.0, "b": 1.0})
    for factor in (float("inf"), float("nan"), 2.0):
        weighting({"a": factor * shared.sum(), "b": shared.sum()}, {"a", "b"}, [shared])
    assert weighting.norms.tolist() == pytest.approx([2 * 2**0.5, 2**0.5])


def test_float16_takes_small_gradients_for_none(configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path, model={"weighting": "gradient_norm"}, trainer={"precision": "16-true"})
    assert main(["fit", "--config", str(config)]) == 2
    assert "weighting gradient_norm with precision 16-true" in capsys.readouterr().err
