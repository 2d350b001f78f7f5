"""Intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def patient_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], patients: Sequence[str], *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a statistic over resampled patients.

    Args:
        statistic: from indices of studies (with repeats) to a number; NaN draws are left out.
        patients: patient of each study; a patient's studies are drawn together.
        draws: resamples.
        level: share of resamples inside.
        seed: seeds the resampling.

    Returns:
        Lower and upper bound; NaN where no resample is defined.
    """
    values = resampled(statistic, patients, draws=draws, seed=seed)
    defined = values[np.isfinite(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled(
    statistic: Callable[[NDArray[np.int64]], float], patients: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """A statistic over resampled patients (draws,), NaN where a draw leaves it undefined; empty without patients."""
    if not len(patients):
        return np.empty(0)
    names, codes = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(codes == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        chosen = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[k] for k in chosen])))
    return np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class Interval:
    """A figure with its bounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``0.913 (0.867 to 0.948)``."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def intervals(
    statistics: Mapping[str, Callable[[NDArray[np.int64]], float]], patients: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Each figure over all studies with its patient-bootstrap interval."""
    everyone = np.arange(len(patients))
    if not len(everyone):
        return {name: Interval(float("nan"), float("nan"), float("nan")) for name in statistics}
    return {
        name: Interval(statistic(everyone), *patient_bootstrap(statistic, patients, draws=draws, seed=seed))
        for name, statistic in statistics.items()
    }
