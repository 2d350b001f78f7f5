"""An average of weights that is still the start of the run is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from m2net.cli.main import main
from m2net.training.averaging import short_average, updates


@pytest.mark.parametrize(("decay", "steps", "every"), [(0.998, 1000, 1), (0.9, 7, 3), (0.8, 10, 2), (0.9, 1, 1), (0.9, 5, 9)])
def test_share_is_that_of_lightnings_average(decay: float, steps: int, every: int) -> None:
    """Weights of 1 at the first update and 0 afterwards: what the average has in the end."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    average = AveragedModel(model, avg_fn=get_ema_avg_fn(decay))
    when = EMAWeightAveraging(decay=decay, update_every_n_steps=every)
    value = 1.0
    for step in range(steps):
        if when.should_update(step_idx=step):
            torch.nn.init.constant_(model.weight, value)
            average.update_parameters(model)
            value = 0.0
    assert decay ** (updates(steps, every) - 1) == pytest.approx(float(average.module.weight))


def averaging(**given: object) -> SimpleNamespace:
    settings = {"decay": 0.99, "update_every_n_steps": 1, "update_starting_at_step": None, "update_starting_at_epoch": None}
    return SimpleNamespace(class_path="pytorch_lightning.callbacks.EMAWeightAveraging", init_args=settings | given)


def test_the_remedy_is_one() -> None:
    told = short_average(averaging(), 200)
    assert told is not None
    better = float(told.split("at most ")[1].split(",")[0])
    assert short_average([averaging(decay=better)], 200) is None
    assert short_average([averaging(decay=better + 0.002)], 200) is not None


@pytest.mark.parametrize("given", [{"update_every_n_steps": 0}, {"update_starting_at_epoch": 1}, {"decay": 0.9}])
def test_what_is_not_judged(given: dict[str, object]) -> None:
    assert short_average([averaging(**given)], 100) is None
    assert short_average(None, 100) is None
    assert short_average(averaging(), -1) is None


@pytest.mark.parametrize(("decay", "said"), [(0.5, True), (0.02, False)])
def test_fit_tells_it(configure: Callable[..., Path], tmp_path: Path, decay: float, said: bool) -> None:
    average = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": decay}}
    network = {"encoder": {"name": "residual", "width": 4}}
    tasks = {"severity": {"head": {"name": "pooled"}, "objective": {"name": "severity", "scheme": "binary"}}}
    trainer = {"max_steps": 2, "callbacks": [average], "limit_val_batches": 0}
    path = configure(tmp_path, model={"network": network, "tasks": tasks}, data={"masks": []}, trainer=trainer)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert main(["fit", "--config", str(path)]) == 0
    assert any("50% of the averaged weights" in str(warning.message) for warning in heard) is said


def test_an_average_that_never_begins_is_told() -> None:
    told = short_average(averaging(update_starting_at_step=200), 200)
    assert told is not None
    assert "begins at step 200 of a run of 200" in told
    told = short_average(averaging(update_starting_at_step=20), 200)
    assert told is not None  # until then every checkpoint holds what the network was made with
    assert "until then validation judges" in told
