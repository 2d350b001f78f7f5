"""Before and after: a model, the same recalibrated only, and the same fine-tuned, on the same held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.objectives import Interval, Objective, patient_bootstrap
from m2net.objectives.base import Statistic
from m2net.objectives.calibration import calibrated, fit_shift

Rows = list[dict[str, Any]]
_MORE = ("brier", "ece", "mae")
_LESS_IS_BETTER = frozenset(_MORE)


class Outcome(StrEnum):
    """What fine-tuning did."""

    BETTER = "better"
    SAME = "not distinguishable"
    WORSE = "worse than base"
    UNKNOWN = "nothing to compare"


@dataclass(frozen=True)
class Comparison:
    """One figure of one task.

    Attributes:
        task: its name.
        figure: its name.
        primary: whether the outcome hangs on it.
        base: of the model as it was, None where it does not know the task.
        recalibrated: of the same with new temperature and biases, None where a task has no probabilities.
        tuned: after fine-tuning, mean over repeats.
        gain: tuned against the better of base and recalibrated; above 0 is better, whatever the figure; paired by patient.
        outcome: what the interval of the gain says.
    """

    task: str
    figure: str
    primary: bool
    base: Interval | None
    recalibrated: Interval | None
    tuned: Interval
    gain: Interval | None
    outcome: Outcome


def recalibrate(objective: Objective, fitting: Rows, applied: Rows) -> Rows | None:
    """Rows of a model with temperature and class biases fitted on other rows of the same model.

    Returns:
        None where the task gives no probabilities, or too few classes are labelled to fit on.
    """
    known = objective.judged(fitting)
    if known is None:
        return None
    probability, label = known
    labelled = (label >= 0) & np.isfinite(probability).all(1)
    if len(set(label[labelled].tolist())) < 2:
        return None
    calibration = fit_shift(_log(probability[labelled]), label[labelled])
    own = objective.judged(applied)
    assert own is not None
    return objective.rewritten(applied, calibrated(_log(own[0]), calibration))


def _log(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.clip(probability, 1e-6, 1.0)))


def compare(
    task: str, objective: Objective, base: Rows | None, recalibrated: Rows | None, tuned: Sequence[Rows], *, seed: int = 0
) -> list[Comparison]:  # fmt: skip
    """Compare the primary figure of a task, and its errors of probability where it has them.

    Args:
        task: its name.
        objective: of the fine-tuned model.
        base: rows of the base model, None where it does not know the task.
        recalibrated: rows of the same, recalibrated.
        tuned: rows of the fine-tuned model, one table a repeat.
        seed: of the resampling.

    All tables hold the same studies in the same order.
    """
    patients = [str(row["patient_id"]) for row in tuned[0]]
    tables = [objective.statistics(rows) for rows in tuned]
    before = None if base is None else objective.statistics(base)
    put_right = None if recalibrated is None else objective.statistics(recalibrated)
    found = []
    for name in [objective.primary, *(n for n in _MORE if n in tables[0] and n != objective.primary)]:
        after = _mean([table[name] for table in tables])
        sign = -1.0 if name in _LESS_IS_BETTER else 1.0
        everyone = np.arange(len(patients))
        references = [table[name] for table in (before, put_right) if table is not None]
        gain, outcome = None, Outcome.UNKNOWN
        if references:  # folds that are put right one by one can spoil a ranking over all of them: the better one counts
            best = max(references, key=lambda statistic: np.nan_to_num(sign * statistic(everyone), nan=-np.inf))
            gain = _interval(_difference(after, best, sign), patients, seed)
            outcome = judge(gain)
        was, right = (None if table is None else _interval(table[name], patients, seed) for table in (before, put_right))
        found.append(Comparison(task, name, name == objective.primary, was, right, _interval(after, patients, seed), gain, outcome))
    return found


def judge(gain: Interval) -> Outcome:
    """Better or worse where the interval of the gain leaves out 0."""
    if not np.isfinite([gain.low, gain.high]).all():
        return Outcome.UNKNOWN
    return Outcome.BETTER if gain.low > 0 else Outcome.WORSE if gain.high < 0 else Outcome.SAME


def verdict(comparisons: Sequence[Comparison]) -> Outcome:
    """Worse if any primary figure is; else better if any is; else not distinguishable."""
    said = [c.outcome for c in comparisons if c.primary]
    order = (Outcome.WORSE, Outcome.BETTER, Outcome.SAME)
    return next((outcome for outcome in order if outcome in said), Outcome.UNKNOWN)


def aligned(rows: Rows, studies: Sequence[str]) -> Rows:
    """Rows in the order of these studies."""
    by_study: Mapping[str, dict[str, Any]] = {row["study_id"]: row for row in rows}
    return [by_study[study] for study in studies]


def _mean(statistics: Sequence[Statistic]) -> Statistic:
    return lambda chosen: float(np.mean([statistic(chosen) for statistic in statistics]))


def _difference(one: Statistic, other: Statistic, sign: float) -> Statistic:
    return lambda chosen: sign * (one(chosen) - other(chosen))


def _interval(statistic: Statistic, patients: Sequence[str], seed: int) -> Interval:
    return Interval(statistic(np.arange(len(patients))), *patient_bootstrap(statistic, patients, seed=seed))
