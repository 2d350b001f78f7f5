"""How much of an average of weights is still the start of the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MOST_OF_FIRST = 0.05


def share_of_first(decay: float, steps: int, every: int = 1, start: int = 0) -> float:
    """Share of the weights after the first update in an exponential average of those of a run.

    Lightning's ``EMAWeightAveraging`` begins with a copy of the weights of its first update, and multiplies what it has by ``decay`` at
    each later one.

    Args:
        decay: of the average.
        steps: of the run.
        every: steps from one update to the next.
        start: first step that may update; Lightning counts ``every`` from step 0.
    """
    updates = len(range(math.ceil(start / every) * every, steps, every))
    return float(decay ** max(0, updates - 1))


def short_average(callbacks: Iterable[Any], steps: int) -> str | None:
    """What is wrong with the averaging of weights that is configured for a run, if anything.

    Args:
        callbacks: as the configuration holds them, ``class_path`` and ``init_args``.
        steps: of the run, -1 if unknown.
    """
    for callback in callbacks:
        if steps > 0 and str(getattr(callback, "class_path", "")).endswith("EMAWeightAveraging"):
            given = callback.init_args
            share = share_of_first(given.decay, steps, given.update_every_n_steps, given.update_starting_at_step or 0)
            if share > MOST_OF_FIRST:
                better = math.floor(1000 * 0.01 ** (given.update_every_n_steps / steps)) / 1000
                return (
                    f"EMAWeightAveraging with decay {given.decay} over {steps} steps: {share:.0%} of the averaged weights that are judged "
                    f"and kept, are those of the first step. Take {better} at most, or more steps."
                )
    return None
