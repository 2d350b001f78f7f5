"""Cross-validation: each fold trained, chosen on the next fold, judged on its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from m2net.bags.datamodule import BagDataModule
from m2net.errors import ConfigError
from m2net.training.module import M2NetModule


def run_fold(trainer: pl.Trainer, module: M2NetModule, data: BagDataModule, folder: Path) -> None:
    """Train one fold and test its best checkpoint; everything is written below ``folder``.

    Raises:
        ConfigError: the trainer keeps no checkpoint that validation chooses.
    """
    keepers = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]
    if not any(k.monitor for k in keepers):
        raise ConfigError(
            "no ModelCheckpoint with a monitor is configured", expected="one, so that validation chooses the checkpoint",
            remedy="Add it under trainer.callbacks, as experiments/demo/joint.yaml does",
        )  # fmt: skip
    for keeper in keepers:
        keeper.dirpath = str(folder)
    trainer.loggers = [CSVLogger(folder, name="csv", version="")]
    trainer.fit(module, datamodule=data)
    best = next(k.best_model_path for k in keepers if k.monitor)
    trainer.test(module, datamodule=data, ckpt_path=best or None, weights_only=True, verbose=False)


def pool_rows(tables: Iterable[tuple[int, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Out-of-fold rows of all folds in one table, with their fold."""
    return [{"fold": fold, **row} for fold, rows in tables for row in rows]
