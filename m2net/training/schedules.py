"""Learning rate over the progress of a run, whether its end is set in steps, epochs or time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from m2net.errors import ConfigError

if TYPE_CHECKING:
    import pytorch_lightning as pl

SCHEDULES = ("cosine", "polynomial", "constant")


def factor(schedule: str, progress: float, warmup: float) -> float:
    """Share of the base learning rate.

    Args:
        schedule: cosine, polynomial (power 0.9) or constant.
        progress: 0 at the start of the run, 1 at its end.
        warmup: share of the run over which the rate rises from a tenth to the full.

    Raises:
        ConfigError: unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"the schedule {schedule!r} is unknown", expected=f"one of {', '.join(SCHEDULES)}")
    if warmup and progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    rest = min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return max(0.0, 1 - rest) ** 0.9 if schedule == "polynomial" else 1.0


def progress(trainer: pl.Trainer) -> float:
    """How far a run is, 0 to 1: by steps or by time, whichever is further."""
    from pytorch_lightning.callbacks import Timer

    total = trainer.estimated_stepping_batches
    shares = [trainer.global_step / total if math.isfinite(total) and total > 0 else 0.0]
    for timer in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(timer, Timer) and timer.time_remaining() is not None:
            spent = timer.time_elapsed()
            shares.append(spent / max(1e-9, spent + float(timer.time_remaining() or 0.0)))
    return min(1.0, max(shares))
