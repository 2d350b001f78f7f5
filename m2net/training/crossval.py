"""Cross-validation: each fold trained, chosen on the next fold, judged on its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import CSVLogger

from m2net.bags.datamodule import BagDataModule
from m2net.errors import ConfigError
from m2net.training.module import M2NetModule


def run_fold(trainer: pl.Trainer, module: M2NetModule, data: BagDataModule, folder: Path) -> None:
    """Train one fold and test its checkpoint; everything is written below ``folder``, and only there.

    Raises:
        ConfigError: see ``fit_below``.
    """
    trainer.loggers = [CSVLogger(folder, name="csv", version="")]
    kept = fit_below(trainer, module, data, folder)
    trainer.test(module, datamodule=data, ckpt_path=kept, weights_only=True, verbose=False)


def fit_below(trainer: pl.Trainer, module: M2NetModule, data: BagDataModule, folder: Path) -> str:
    """Train with every checkpoint below ``folder``; returns the one that validation chose, or the last where nothing validates.

    Averages of weights are taken off the trainer afterwards: Lightning's would answer a checkpoint's loading by laying the last step's own
    weights over the averaged ones that were chosen, calibrated and kept.

    Raises:
        ConfigError: the trainer keeps no checkpoint, or none that validation chooses where it should or could.
    """
    keepers = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]
    keeper = next((k for k in keepers if bool(k.monitor) == data.validate), None)
    if keeper is None:
        wanted = "with a monitor, so that validation chooses the checkpoint" if data.validate else "without a monitor: nothing validates"
        raise ConfigError(
            f"no ModelCheckpoint {wanted.partition(',')[0].partition(':')[0]} is configured", expected=f"one {wanted}",
            remedy="Add it under trainer.callbacks, as experiments/demo/joint.yaml does",
        )  # fmt: skip
    batches, every = trainer.max_steps * trainer.accumulate_grad_batches, trainer.val_check_interval
    if data.validate and isinstance(every, int) and trainer.check_val_every_n_epoch is None and 0 < batches < every:
        raise ConfigError(
            f"a validation every {every} batches in a run of {batches}", expected="one within the run, which chooses the checkpoint",
            remedy="Lower trainer.val_check_interval, or raise trainer.max_steps",
        )  # fmt: skip
    for each in keepers:
        each.dirpath = str(folder)
    trainer.fit(module, datamodule=data)
    warnings.filterwarnings("ignore", message="Be aware that when using .ckpt_path.")  # it asks for them back
    trainer.callbacks[:] = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    if not keeper.best_model_path:
        raise ConfigError(
            "the run ended before a checkpoint was written", expected="a validation within it",
            remedy="Lower trainer.val_check_interval, or raise trainer.max_steps",
        )  # fmt: skip
    if undefined(keeper):
        raise ConfigError(
            f"{keeper.monitor} was undefined in every validation, so that nothing chose a checkpoint",
            expected="a validation part with labels of two classes or more (or masks) of a task",
            remedy="Give it more patients, other folds, or set data.validate to false: the last weights are judged then",
        )  # fmt: skip
    return keeper.best_model_path


def undefined(keeper: ModelCheckpoint) -> bool:
    """Whether what a checkpoint is chosen by was NaN each time: Lightning keeps the first then, whatever came later."""
    return bool(keeper.monitor) and keeper.best_model_score is not None and not bool(torch.isfinite(keeper.best_model_score))


def pool_rows(tables: Iterable[tuple[int, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Out-of-fold rows of all folds in one table, with their fold."""
    return [{"fold": fold, **row} for fold, rows in tables for row in rows]
