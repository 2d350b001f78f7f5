"""Before and after: a model, the same recalibrated only, and the same fine-tuned, on the same held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.objectives import Interval, Objective, patient_bootstrap, ranks, within_folds
from m2net.objectives.base import Statistic
from m2net.objectives.bootstrap import too_few
from m2net.objectives.calibration import calibrated, fit_shift
from m2net.objectives.reliability import brier

Rows = list[dict[str, Any]]
_MORE = ("brier", "mae")
_LESS_IS_BETTER = frozenset(_MORE)
_UNDEFINED = 0.02  # of draws without the figure; with more nothing is concluded: fewer than some four labelled patients (of a class)


class Outcome(StrEnum):
    """What fine-tuning did."""

    BETTER = "better"
    SAME = "not distinguishable"
    WORSE = "worse than base"
    UNKNOWN = "nothing to compare"


@dataclass(frozen=True)
class Repeat:
    """Held-out studies of one repeat.

    Attributes:
        rows: predictions of the fine-tuned models.
        folds: (studies,) the fold that held each out; all 0 for a held-out part.
        recalibrated: predictions of the base, recalibrated fold by fold on the patients that these models learnt from; None if impossible.
    """

    rows: Rows
    folds: NDArray[np.int64]
    recalibrated: Rows | None


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
    known, allowed = objective.judged(fitting), objective.allowed(fitting)
    if known is None or allowed is None:
        return None
    probability = known[0]
    labelled = allowed.any(1) & ~allowed.all(1) & np.isfinite(probability).all(1)
    if len(np.unique(allowed[labelled], axis=0)) < 2:
        return None
    calibration = fit_shift(_log(probability[labelled]), allowed[labelled])
    own = objective.judged(applied)
    assert own is not None
    return objective.rewritten(applied, calibrated(_log(own[0]), calibration))


def _log(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.clip(probability, 1e-6, 1.0)))


def compare(task: str, objective: Objective, base: Rows | None, tuned: Sequence[Repeat], *, seed: int = 0) -> list[Comparison]:
    """Compare the primary figure of a task, and its errors of probability where it has them.

    Args:
        task: its name.
        objective: of the fine-tuned model.
        base: rows of the base model, None where it does not know the task.
        tuned: one repeat or more.
        seed: of the resampling.

    All tables hold the same studies in the same order. Figures of ranking (AUC, Spearman's rho) are taken within each fold, for all models
    alike (``m2net.objectives.folds``). Where a figure rests on fewer than ten patients nothing is called better.
    """
    patients = [str(row["patient_id"]) for row in tuned[0].rows]
    after = [_figures(objective, repeat.rows) for repeat in tuned]
    before = None if base is None else [_figures(objective, base)] * len(tuned)
    right = [_figures(objective, r.recalibrated) for r in tuned if r.recalibrated is not None] if base is not None else []
    found, known, bearing = [], objective.known(tuned[0].rows), objective.bearing(tuned[0].rows)
    for name in [objective.primary, *(n for n in _MORE if n in after[0] and n != objective.primary)]:

        def mean(tables: Sequence[Mapping[str, Statistic]], name: str = name) -> Statistic:
            each = [within_folds(t[name], r.folds, known) if ranks(name) else t[name] for t, r in zip(tables, tuned, strict=True)]
            return lambda chosen: float(np.mean([statistic(chosen) for statistic in each]))

        sign = -1.0 if name in _LESS_IS_BETTER else 1.0
        now = mean(after)
        was, put = (None if not tables else mean(tables) for tables in (before, right if len(right) == len(tuned) else None))
        gain = None
        if references := [statistic for statistic in (was, put) if statistic is not None]:
            everyone = np.arange(len(patients))
            best = max(references, key=lambda statistic: np.nan_to_num(sign * statistic(everyone), nan=-np.inf))
            gain = _interval(_difference(now, best, sign), patients, seed)
        own = [None if statistic is None else _interval(statistic, patients, seed) for statistic in (was, put)]
        outcome = Outcome.UNKNOWN if gain is None else judge(gain)
        if outcome is Outcome.BETTER and too_few(patients, bearing.get(name, known)):
            outcome = Outcome.SAME  # resamples of so few are too alike to praise by; a loss is said all the same
        found.append(Comparison(task, name, name == objective.primary, own[0], own[1], _interval(now, patients, seed), gain, outcome))
    return found


def _figures(objective: Objective, rows: Rows) -> dict[str, Statistic]:
    """The objective's figures, and the Brier score of every task with probabilities."""
    figures = dict(objective.statistics(rows))
    judged = objective.judged(rows)
    if judged is not None and "brier" not in figures:
        probability, label = judged

        def of(chosen: NDArray[np.int64]) -> float:
            known = chosen[label[chosen] >= 0]
            return brier(probability[known], label[known])

        figures["brier"] = of
    return figures


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


def _difference(one: Statistic, other: Statistic, sign: float) -> Statistic:
    return lambda chosen: sign * (one(chosen) - other(chosen))


def _interval(statistic: Statistic, patients: Sequence[str], seed: int) -> Interval:
    return Interval(statistic(np.arange(len(patients))), *patient_bootstrap(statistic, patients, seed=seed, undefined=_UNDEFINED))
