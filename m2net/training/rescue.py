"""The last weights of a fit that no checkpoint has kept."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn


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
