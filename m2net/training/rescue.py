"""What is left of a fit that an error ends."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn


class LastWeights(Callback):
    """Weights that no checkpoint has kept when an error ends the fit are written to ``last.ckpt`` of the run's folder.

    Of several processes one may be the only one with the error, and a checkpoint waits for all of them, so that none is written there.
    """

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write them."""
        kept = any(getattr(keeper, "best_model_path", "") for keeper in trainer.checkpoint_callbacks)
        if trainer.state.fn != TrainerFn.FITTING or kept or not trainer.global_step or trainer.world_size > 1:
            return
        path = Path(trainer.default_root_dir) / "last.ckpt"
        trainer.save_checkpoint(path)
        rank_zero_warn(f"The fit ended before a checkpoint was kept: the weights of step {trainer.global_step} are in {path}.")
