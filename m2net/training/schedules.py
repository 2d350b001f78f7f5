"""Learning rate over the progress of a run."""

from __future__ import annotations

import math

from m2net.errors import ConfigError

SCHEDULES = ("cosine", "polynomial", "staircase", "constant")


def factor(schedule: str, progress: float, warmup: float) -> float:
    """Share of the base learning rate.

    Args:
        schedule: cosine, polynomial (power 0.9), staircase (x0.1 at 30, 60 and 90 % of the run; of 10,000 steps that is every 3,000, as
            Hu et al. 2020 published) or constant.
        progress: 0 at the start of the run, 1 at its end.
        warmup: share of the run over which the rate rises from a tenth to the full.

    Raises:
        ConfigError: unknown schedule, or a warm-up that is no share.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"the schedule {schedule!r} is unknown", expected=f"one of {', '.join(SCHEDULES)}")
    if not 0 <= warmup < 1:
        raise ConfigError(f"a warm-up of {warmup:g}", expected="a share of the run, from 0 to below 1")
    if warmup and progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    rest = min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))
    if schedule == "staircase":
        return 0.1 ** int(min(1.0, progress) / 0.3 + 1e-9)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return max(0.0, 1 - rest) ** 0.9 if schedule == "polynomial" else 1.0


def run_length(steps: float, schedule: str, *shares: float) -> float:
    """Steps of the run, checked to be known where something is told in shares of it.

    Raises:
        ConfigError: a run without an end in steps or epochs, and a schedule that decays towards it or ``shares`` (warm-up, frozen start).
    """
    if (schedule != "constant" or any(shares)) and not (math.isfinite(steps) and steps > 0):
        raise ConfigError(
            f"the run of the {schedule} schedule has no end, and decay, warm-up and a frozen start are shares of it",
            expected="trainer.max_steps or trainer.max_epochs", remedy="Set one, or schedule: constant, warmup: 0 and tuning.frozen: 0",
        )  # fmt: skip
    return steps
