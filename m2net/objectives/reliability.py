"""Whether probabilities can be trusted: calibration error, Brier score, conformal sets, selective risk."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from m2net.objectives.calibration import at_or_above

Values = NDArray[np.float64]
_BINS = 10
_BAND_DRAWS = 500


def calibration_error(probability: Values, happened: NDArray[np.bool_] | Values, bins: int = _BINS) -> float:
    """Expected calibration error over bins of equal size: mean over studies of |mean probability - frequency| of their bin.

    Studies of one probability have no order: a bin that ends among them takes their frequency.

    Args:
        probability: (n,) of the event.
        happened: (n,) whether it happened, or the chance that it does where that is known, as of phantoms.
        bins: groups of equal size, by rank of the probability.

    Returns:
        NaN without studies.
    """
    if not len(probability):
        return float("nan")
    order = np.argsort(probability, kind="stable")
    groups = np.array_split(order, min(bins, len(order)))
    frequency = _alike(probability, happened)
    return float(sum(abs(float(probability[g].sum()) - float(frequency[g].sum())) for g in groups) / len(order))


def _alike(values: Values, happened: NDArray[np.bool_] | Values) -> Values:
    """How often it happened among all of the same value, (n,)."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(place, happened, len(count)) / count)[place])


def cut_error(probability: Values, grade: NDArray[np.int64]) -> float:
    """Calibration error of P(grade >= k), mean over the cuts, of (n, K) grade probabilities."""
    above = at_or_above(probability)
    return float(np.mean([calibration_error(above[:, k], grade > k) for k in range(above.shape[1])]))


def class_error(probability: Values, label: NDArray[np.int64]) -> float:
    """Calibration error of (n, K) class probabilities, mean over the classes, each against the rest."""
    return float(np.mean([calibration_error(probability[:, k], label == k) for k in range(probability.shape[1])]))


def calibration_band(
    probability: Values,
    patient: NDArray[np.int64] | None = None,
    error: Callable[[Values, NDArray[np.int64]], float] = cut_error,
) -> float:
    """Error that a perfectly calibrated model with these (n, K) probabilities of grades or classes stays below with a chance of 95 %.

    Grades are drawn from the probabilities themselves (consistency resampling, Broecker and Smith 2007); those of one patient's studies
    together, since they are not so many answers.

    Args:
        probability: (n, K) of the grades.
        patient: (n,) of each study; each has its own by default.
        error: ``cut_error`` of ordered grades, ``class_error`` of classes.
    """
    if not len(probability):
        return float("nan")
    rng = np.random.default_rng(0)
    below = probability.cumsum(1)[:, :-1]
    whose = np.arange(len(below)) if patient is None else np.unique(patient, return_inverse=True)[1]
    drawn = [error(probability, (rng.random((whose.max() + 1, 1))[whose] >= below).sum(1)) for _ in range(_BAND_DRAWS)]
    return float(np.quantile(drawn, 0.95))


def brier(probability: Values, grade: NDArray[np.int64]) -> float:
    """Brier score: mean over studies of the squared distance of (n, K) probabilities from the grade; half of it for two grades."""
    if not len(grade):
        return float("nan")
    truth = np.eye(probability.shape[1])[grade]
    squared = ((probability - truth) ** 2).sum(1)
    return float(squared.mean() / (2 if probability.shape[1] == 2 else 1))


def conformal_threshold(probability: Values, grade: NDArray[np.int64], coverage: float) -> float:
    """Least probability of a grade in a conformal set (split conformal prediction, Vovk et al. 2005; Sadinle et al. 2019).

    Args:
        probability: (n, K) of calibration studies that the model was not fitted on.
        grade: (n,) their grades.
        coverage: wanted share of new studies whose set holds the true grade.

    Returns:
        0 (every grade is in) where there are too few studies to promise the coverage.
    """
    rank = math.ceil((len(grade) + 1) * coverage)
    if rank > len(grade):
        return 0.0
    return float(np.sort(probability[np.arange(len(grade)), grade])[::-1][rank - 1])


def conformal_set(probability: Values, threshold: float) -> NDArray[np.bool_]:
    """Grades (n, K) in each study's set; an empty set is an answer too: no grade is likely enough."""
    return np.asarray(probability >= threshold)


def selective_risk(confidence: Values, wrong: NDArray[np.bool_]) -> Values:
    """Error rate among the k most confident studies, k = 1..n, (n,); where k ends among equally confident ones, theirs is expected."""
    order = np.argsort(-confidence, kind="stable")
    return np.asarray(np.cumsum(_alike(confidence, wrong)[order]) / np.arange(1, len(order) + 1), dtype=np.float64)
