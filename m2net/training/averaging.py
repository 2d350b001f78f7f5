"""How much of an average of weights is still the start of the run."""

from __future__ import annotations

import math
from typing import Any

MOST_OF_FIRST = 0.05


def updates(steps: int, every: int = 1) -> int:
    """How often Lightning's ``EMAWeightAveraging`` takes weights in: at step 0 and every ``every`` steps of a run of ``steps``.

    The first time it copies them; each later one multiplies what it has by its decay, so that ``decay ** (updates - 1)`` of the average is
    still the first.
    """
    return math.ceil(steps / every)


def short_average(callbacks: Any, steps: int) -> str | None:
    """What is wrong with the averaging of weights that is configured for a run, if anything.

    Averages that are updated by epochs are not judged.

    Args:
        callbacks: as Lightning's configuration holds them: None, one, or a list of ``class_path`` and ``init_args``.
        steps: of the run, -1 if unknown.
    """
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if steps < 1 or not str(getattr(callback, "class_path", "")).endswith("EMAWeightAveraging"):
            continue
        given = callback.init_args
        decay, every = given["decay"], given["update_every_n_steps"]
        if (given["update_starting_at_step"] or 0) >= steps:
            return (
                f"EMAWeightAveraging begins at step {given['update_starting_at_step']} of a run of {steps}: the averaged weights, that are "
                "judged and kept, are those it began with. Begin earlier, or take more steps."
            )
        if given["update_starting_at_step"]:
            return (
                f"EMAWeightAveraging begins at step {given['update_starting_at_step']}: until then validation judges and checkpoints hold "
                "the network as it was made. Leave update_starting_at_step out: the first update copies what was learnt."
            )
        if every < 1 or given["update_starting_at_epoch"] is not None:
            continue
        later = updates(steps, every) - 1
        share = decay**later
        if share > MOST_OF_FIRST:
            remedy = f"a decay of at most {math.floor(1000 * MOST_OF_FIRST ** (1 / later)) / 1000}" if later else "more updates"
            return (
                f"EMAWeightAveraging with a decay of {decay} and {later + 1} updates: {share:.0%} of the averaged weights that are judged "
                f"and kept are those of the first step. Take {remedy}, or more steps."
            )
    return None
