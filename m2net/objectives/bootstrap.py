"""Intervals by resampling patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 10
"""Patients below which there is no interval: resampled, fewer give one that is too narrow (of two the span between them)."""
_UNBOUNDED = frozenset({"ece"})
"""Figures without an interval: resampled studies lie farther from any curve than the studies do, a calibration error only grows."""

Bearing = Mapping[str, NDArray[np.bool_]]
"""Studies (n,) that a figure rests on, by its name: of a sensitivity those with the finding."""


def fewer(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of two groups of studies (n,) the smaller, on which the AUC between them rests."""
    return one if one.sum() <= other.sum() else other


def of_two(positive: NDArray[np.bool_], negative: NDArray[np.bool_], suffix: str = "") -> dict[str, NDArray[np.bool_]]:
    """What sensitivity, specificity and AUC of two groups of studies (n,) rest on."""
    return {f"sensitivity{suffix}": positive, f"specificity{suffix}": negative, f"auc{suffix}": fewer(positive, negative)}


def too_few(patients: Sequence[str], told: NDArray[np.bool_]) -> bool:
    """Whether the studies (n,) that tell something are of fewer than ten patients."""
    return len({patient for patient, one in zip(patients, told, strict=True) if one}) < FEWEST


def patient_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], patients: Sequence[str], *, draws: int = 1000, level: float = 0.95, seed: int = 0,
    undefined: float = 1.0,
) -> tuple[float, float]:  # fmt: skip
    """Percentile interval of a statistic over resampled patients.

    Args:
        statistic: from indices of studies (with repeats) to a number; NaN draws are left out.
        patients: patient of each study; a patient's studies are drawn together.
        draws: resamples.
        level: share of resamples inside.
        seed: seeds the resampling.
        undefined: share of NaN draws above which there is no interval.

    Returns:
        Lower and upper bound; NaN where no resample is defined, or too many are not.
    """
    if not len(patients):
        return float("nan"), float("nan")
    names, codes = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(codes == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        chosen = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[k] for k in chosen])))
    defined = np.array([v for v in values if np.isfinite(v)])
    if not len(defined) or len(defined) < (1 - undefined) * draws:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Interval:
    """A figure with its bounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``0.913 (0.867 to 0.948)``, or ``0.913`` where there is no interval."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})" if math.isfinite(self.low) else f"{self.value:.3f}"


def intervals(
    statistics: Mapping[str, Callable[[NDArray[np.int64]], float]], patients: Sequence[str], known: NDArray[np.bool_] | None = None, *,
    bearing: Bearing | None = None, draws: int = 1000, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Each figure over all studies with its patient-bootstrap interval; ``ece`` has none, nor has one of fewer than ten patients.

    Args:
        statistics: the figures.
        patients: patient of each study.
        known: (studies,) whether the figures' truth is known of it, for patients of whom it is not count for nothing; of all by default.
        bearing: studies that a figure rests on, by its name, where it does not rest on all that are known.
        draws: resamples.
        seed: seeds the resampling.
    """
    everyone, none = np.arange(len(patients)), (float("nan"), float("nan"))
    if not len(everyone):
        return {name: Interval(float("nan"), float("nan"), float("nan")) for name in statistics}
    known = np.ones(len(patients), bool) if known is None else known
    few = {name: too_few(patients, (bearing or {}).get(name, known)) for name in statistics}
    return {
        name: Interval(
            statistic(everyone),
            *(none if few[name] or name in _UNBOUNDED else patient_bootstrap(statistic, patients, draws=draws, seed=seed)),
        )
        for name, statistic in statistics.items()
    }
