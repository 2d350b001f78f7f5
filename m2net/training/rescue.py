"""No fit without weights: places that can be written, and the last weights where no checkpoint has kept any."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from m2net.errors import ConfigError
from m2net.files import standing


@rank_zero_only
def check_writable(trainer: pl.Trainer) -> None:
    """Try the local folders that a ModelCheckpoint names, before hours go by; of one that is not there what it would lie in.

    Raises:
        ConfigError: one cannot be written into.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return  # which keeps no checkpoint
    for keeper in trainer.checkpoint_callbacks:
        folder = keeper.dirpath if isinstance(keeper, ModelCheckpoint) else None
        if not folder or "://" in str(folder):
            continue
        try:
            with tempfile.TemporaryFile(dir=standing(Path(folder))):
                pass
        except OSError as error:
            raise ConfigError(
                f"checkpoints cannot be kept in {folder} ({error.strerror})", expected="a folder that can be written",
                remedy="Change dirpath of the ModelCheckpoint",
            ) from error  # fmt: skip


def nothing_kept(trainer: pl.Trainer) -> bool:
    """Whether none of the fit's checkpoints has kept anything."""
    return not any(getattr(keeper, "best_model_path", "") for keeper in trainer.checkpoint_callbacks)


def keep_last(trainer: pl.Trainer) -> Path:
    """Write the weights as they are to ``last.ckpt`` of the run's folder; returns its path."""
    path = Path(trainer.default_root_dir) / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


class LastWeights(Callback):
    """Keeps the last weights when an error ends the fit before anything was kept.

    Of several processes one may be the only one with the error, and a checkpoint waits for all of them, so that none is written there.
    """

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write them."""
        if trainer.state.fn == TrainerFn.FITTING and nothing_kept(trainer) and trainer.global_step and trainer.world_size == 1:
            told = f"The fit ended before a checkpoint was kept: the weights of step {trainer.global_step} are in {keep_last(trainer)}."
            rank_zero_warn(told)
