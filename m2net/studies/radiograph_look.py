"""Whether a grey picture may be a frontal chest radiograph: a rule of three measures, for a warning only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SIDE = 64  # every picture is judged at this many rows and columns
_GREYS = 255  # grey steps told apart
_FLAT = 0.03  # a row or column whose greys span less of the picture's range is margin
_LUNGS = 0.13  # least rank of grey by which the middle is brighter than the lungs beside it
_SMOOTH = 0.18  # up to this share of fine detail a picture is as smooth as a projection
_DETAIL = 3.0  # weight of the share of fine detail against the rank of grey by which the lower part is brighter
_BELLY = -0.5  # least of: lower over upper part, less weighted fine detail

_EVEN = "hardly any differences of grey"
_NO_LUNGS = "no two dark lungs beside a bright middle, as in a photograph"
_NO_BELLY = "too many sharp edges for a picture no brighter below the lungs, as in a CT slice or a photograph"


def unlike_radiograph(plane: NDArray[np.float32]) -> str:
    """Return '' if a grey picture may be a frontal chest radiograph, else a short reason why not."""
    small = _small(plane) if min(plane.shape) >= _SIDE // 4 else None
    if small is None:
        return _EVEN
    lungs, below, detail = _measures(_ranks(small))
    if lungs < _LUNGS:
        return _NO_LUNGS
    return _NO_BELLY if detail > _SMOOTH and below - _DETAIL * detail < _BELLY else ""


def _measures(rank: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return middle over lungs, lower over upper part, and the share of detail finer than some 3 % of the picture."""
    sides = (rank[16:40, 8:24].mean() + rank[16:40, 40:56].mean()) / 2
    below = rank[40:, 12:52].mean() - rank[8:40, 12:52].mean()
    fine = (rank - ndimage.gaussian_filter(rank, 1.0)).std() / max(rank.std(), 1e-12)
    return float(rank[20:44, 28:36].mean() - sides), float(below), float(fine)


def _ranks(small: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each pixel's rank of grey, 0 to 1, which brightness, contrast and gamma leave alone."""
    low, high = np.percentile(small, [1, 99])
    step = np.clip((small - low) / max(high - low, 1e-12), 0, 1) * _GREYS
    _, where, count = np.unique(step.round(), return_inverse=True, return_counts=True)
    return ((np.cumsum(count) - count / 2) / small.size)[where].reshape(small.shape)


def _small(plane: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return the picture without its uniform margins at 64 x 64, or None where nothing is left."""
    k = max(1, min(plane.shape) // (4 * _SIDE))
    rows, columns = plane.shape[0] // k, plane.shape[1] // k
    small: NDArray[np.float64] = plane[: rows * k, : columns * k].astype(np.float64).reshape(rows, k, columns, k).mean((1, 3))
    least = _FLAT * np.ptp(small)
    for axis in (0, 1, 0, 1):
        span = np.subtract(*np.percentile(small, [98, 2], axis=1 - axis))
        kept = np.flatnonzero(span > least)
        if len(kept) < _SIDE // 4:
            return None
        small = small.take(range(kept[0], kept[-1] + 1), axis)
    for axis in (0, 1):
        size = small.shape[axis] / _SIDE
        at = ((np.arange(_SIDE) + 0.5) * size).astype(int)
        small = ndimage.uniform_filter1d(small, max(1, round(size)), axis, mode="nearest").take(at, axis)
    return small
