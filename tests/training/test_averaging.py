"""An average of weights that is still the start of the run is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from m2net.cli.main import main
from m2net.training.averaging import share_of_first


@pytest.mark.parametrize(
    ("decay", "steps", "every", "start"), [(0.998, 1000, 1, 0), (0.9, 7, 3, 0), (0.8, 10, 2, 3), (0.9, 1, 1, 0), (0.9, 5, 1, 9)]
)
def test_share_is_that_of_lightnings_average(decay: float, steps: int, every: int, start: int) -> None:
    """Weights of 1 at the first update and 0 afterwards: what the average has in the end."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    average = AveragedModel(model, avg_fn=get_ema_avg_fn(decay))
    when = EMAWeightAveraging(decay=decay, update_every_n_steps=every, update_starting_at_step=start)
    value = 1.0
    for step in range(steps):
        if when.should_update(step_idx=step):
            torch.nn.init.constant_(model.weight, value)
            average.update_parameters(model)
            value = 0.0
    expected = 1.0 if value else float(average.module.weight)  # never updated: all start
    assert share_of_first(decay, steps, every, start) == pytest.approx(expected)


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
