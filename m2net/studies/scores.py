"""Severity scores of radiographs from the share of each lung that is infected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXTENT = "geographic_extent"
OPACITY = "opacity"
SCORE_LIMITS = {EXTENT: 8.0, OPACITY: 6.0}
"""Highest value of each score; both begin at 0."""

SCORE_TITLES = {
    EXTENT: "geographic extent, 0 to 8 (Cohen et al. 2020: each lung 0 none, 1 below 25 %, 2 25-50 %, 3 50-75 %, 4 above 75 %)",
    OPACITY: "opacity, 0 to 6 (Cohen et al. 2020: each lung 0 none, 1 ground glass, 2 consolidation, 3 white-out)",
}

LEAST_SHARE = 0.005
"""Less of a lung than this is not counted as infected: outlines are not drawn that exactly."""

_SOLID_SHARE = 0.25  # of the infection; then the lung is called consolidated
_WHITE_OUT = 0.75  # of the lung, consolidated

Shares = NDArray[np.float64]


def geographic_extent(infected: Shares) -> Shares:
    """Score 0 to 8 from the infected share of the two lungs, (..., 2) -> (...).

    Each lung: 0 none, 1 below a quarter, 2 below a half, 3 below three quarters, 4 above (Cohen et al. 2020).
    """
    grade = np.where(infected < LEAST_SHARE, 0, np.digitize(infected, [0.25, 0.5, 0.75]) + 1)
    return np.asarray(grade.sum(-1), dtype=np.float64)


def opacity(infected: Shares, solid: Shares) -> Shares:
    """Score 0 to 6 from the infected and the consolidated share of the two lungs, (..., 2) each -> (...).

    Each lung: 0 none, 1 ground glass, 2 consolidation, 3 white-out (Cohen et al. 2020); where the second and third begin (a quarter of
    the infection, three quarters of the lung) is ours, since readers are not given numbers.
    """
    grade = np.select([infected < LEAST_SHARE, solid >= _WHITE_OUT, solid >= _SOLID_SHARE * infected], [0, 3, 2], 1)
    return np.asarray(grade.sum(-1), dtype=np.float64)
