"""Where instances are cut: random patches for training, full coverage for evaluation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2net.bags.inputs import InputSpec, View
from m2net.bags.prepared import Prepared
from m2net.studies import Box

_OVERLAP = 0.25  # least share of a patch that neighbours share in full coverage
_TRIES = 6
_MARGIN = 0.06  # around the lungs, as a share of their longer side
_NEAR_SLICES = 2  # a slice within this many slices of lung is covered too


@dataclass(frozen=True)
class Cut:
    """Places of N instances.

    Attributes:
        corner: (N, 3) int64, z, y, x of the first pixel; may lie outside the image.
        owned: (N, 4) int64 half-open pixel range (row0, row1, column0, column1) that an instance stands for, or None.
        side: store pixels along each side of an instance where that is not the patch size; the instance is resized.
    """

    corner: NDArray[np.int64]
    owned: NDArray[np.int64] | None = None
    side: int | None = None


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` of ``count`` things, evenly spread, ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def random_cut(study: Prepared, patch: int, count: int, rng: np.random.Generator) -> Cut:
    """Patches in and around the lungs, spread evenly over z.

    The lungs' height is divided into ``count`` bands of equal size, one slice is drawn from each; in the slice the patch is
    laid anywhere over the lungs' box as far as it touches a lung.
    """
    box = study.lung_box
    slices = _one_a_band(box, count, rng)
    lungs = study.masks["found_lungs"]
    corners = [_lay(lungs[z], box.y0, box.y1, box.x0, box.x1, patch, rng) for z in slices]
    return Cut(np.column_stack([slices, np.array(corners, dtype=np.int64)]))


def _one_a_band(box: Box, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A slice from each of ``count`` bands of equal height over the lungs."""
    edges = np.linspace(box.z0, box.z1, count + 1)
    return np.clip(np.floor(rng.uniform(edges[:-1], edges[1:])).astype(np.int64), box.z0, box.z1 - 1)


def _lay(lungs: NDArray[np.uint8], y0: int, y1: int, x0: int, x1: int, patch: int, rng: np.random.Generator) -> tuple[int, int]:
    row = column = 0
    for _ in range(_TRIES):
        row, column = _offset(y0, y1, patch, rng), _offset(x0, x1, patch, rng)
        seen = lungs[max(0, row) : max(0, row + patch), max(0, column) : max(0, column + patch)]
        if seen.any():
            break
    return row, column


def _offset(low: int, high: int, patch: int, rng: np.random.Generator) -> int:
    """A first pixel so that the patch lies over [low, high) with up to an eighth of it outside on each side."""
    slack = patch // 8
    first, last = sorted((low - slack, high + slack - patch))
    return int(rng.integers(first, last + 1))


def random_slices(study: Prepared, patch: int, count: int, rng: np.random.Generator) -> Cut:
    """Whole slices spread evenly over the lungs' height, one drawn from each of ``count`` bands (fewer in a study of fewer slices)."""
    box = study.lung_box
    return _whole(study, _one_a_band(box, min(count, box.z1 - box.z0), rng))


def full_slices(study: Prepared, patch: int) -> Cut:
    """Every slice of the lungs' height, whole."""
    cut = _whole(study, np.arange(study.lung_box.z0, study.lung_box.z1))
    return Cut(cut.corner, np.tile(np.array([[0, patch, 0, patch]]), (len(cut.corner), 1)), cut.side)


def _whole(study: Prepared, slices: NDArray[np.int64]) -> Cut:
    """The square around the study's lungs, with a margin, in these slices."""
    box = study.lung_box
    side = int(np.ceil(max(box.y1 - box.y0, box.x1 - box.x0) * (1 + _MARGIN)))
    row, column = (box.y0 + box.y1 - side) // 2, (box.x0 + box.x1 - side) // 2
    return Cut(np.column_stack([slices, np.full(len(slices), row), np.full(len(slices), column)]).astype(np.int64), side=side)


def full_cut(study: Prepared, patch: int) -> Cut:
    """Every patch that touches the lungs, slice by slice, overlapping; each pixel is owned by the nearest patch."""
    box = study.lung_box
    lungs = np.asarray(study.masks["found_lungs"]).astype(bool)
    rows, columns = _tiles(box.y0, box.y1, patch), _tiles(box.x0, box.x1, patch)
    corners, owned = [], []
    for z in range(max(0, box.z0 - _NEAR_SLICES), min(len(lungs), box.z1 + _NEAR_SLICES)):
        near = np.asarray(lungs[max(0, z - _NEAR_SLICES) : z + _NEAR_SLICES + 1].any(axis=0))
        for row, row0, row1 in rows:
            for column, column0, column1 in columns:
                if near[max(0, row) : max(0, row + patch), max(0, column) : max(0, column + patch)].any():
                    corners.append((z, row, column))
                    owned.append((row0, row1, column0, column1))
    return Cut(np.array(corners, dtype=np.int64), np.array(owned, dtype=np.int64))


def _tiles(low: int, high: int, patch: int) -> list[tuple[int, int, int]]:
    """First pixels of tiles along one axis with the range of their own pixels that each stands for."""
    margin = patch // 16
    low, high = low - margin, high + margin
    length = high - low
    if length <= patch:
        return [(low - (patch - length) // 2, 0, patch)]
    count = int(np.ceil((length - _OVERLAP * patch) / ((1 - _OVERLAP) * patch)))
    starts = np.rint(np.linspace(low, high - patch, count)).astype(int)
    borders = [(int(a) + int(b) + patch) // 2 for a, b in itertools.pairwise(starts)]
    first = [int(starts[0]), *borders]
    last = [*borders, int(starts[-1]) + patch]
    return [(int(s), f - int(s), e - int(s)) for s, f, e in zip(starts, first, last, strict=True)]


_RANDOM = {View.PATCHES: random_cut, View.SLICES: random_slices}
_FULL = {View.PATCHES: full_cut, View.SLICES: full_slices}


def sample(study: Prepared, spec: InputSpec, count: int, rng: np.random.Generator) -> Cut:
    """Draw at most ``count`` instances of the input's view for training."""
    return _RANDOM[View(spec.view)](study, spec.patch, count, rng)


def cover(study: Prepared, spec: InputSpec) -> Cut:
    """All instances of the input's view, for evaluation."""
    return _FULL[View(spec.view)](study, spec.patch)
