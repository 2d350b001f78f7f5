"""A voxel grid in millimetres and smooth random fields on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_NOTHING = 1e-30  # too little to change a sum of float32; weights below it may be denormalized, which slows products down


@dataclass(frozen=True)
class Grid:
    """An axis-aligned LPS grid.

    Attributes:
        shape: voxels along (z, y, x).
        spacing_mm: their distance along (z, y, x).
        start_mm: (z, y, x) of the first voxel's centre; x = 0 is the midline, z = 0 the height of the diaphragm's domes.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    start_mm: tuple[float, float, float]

    def axis(self, number: int) -> Field:
        """Coordinates in mm along one axis (0 z, 1 y, 2 x), shaped to broadcast in three dimensions."""
        values = self.start_mm[number] + self.spacing_mm[number] * np.arange(self.shape[number])
        form = [1, 1, 1]
        form[number] = -1
        return values.astype(np.float32).reshape(form)

    def index(self, point_mm: NDArray[Any]) -> NDArray[np.float64]:
        """Voxel coordinates (z, y, x) of points (..., 3) in mm (z, y, x)."""
        return np.asarray((np.asarray(point_mm) - self.start_mm) / self.spacing_mm, dtype=np.float64)

    def noise(self, rng: np.random.Generator, scale_mm: float) -> Field:
        """A smooth Gaussian field (Z, Y, X), mean 0, variance about 1, correlated over about ``scale_mm``.

        White noise on a coarse lattice, spread by a Gaussian kernel one axis at a time.
        """
        field: Field = np.zeros(0, np.float32)
        lattice = []
        for size, spacing in zip(self.shape, self.spacing_mm, strict=True):
            length = max(size * spacing, scale_mm)
            nodes = int(np.ceil(length / scale_mm)) + 3
            place = np.arange(size) * spacing / scale_mm + 1.0
            weight = np.exp(-0.5 * ((place[:, None] - np.arange(nodes)[None]) / 0.6) ** 2)
            weight[weight < _NOTHING] = 0
            lattice.append((weight / np.sqrt((weight**2).sum(axis=1, keepdims=True))).astype(np.float32))
        nodes_zyx = tuple(w.shape[1] for w in lattice)
        field = rng.standard_normal(nodes_zyx, dtype=np.float32)
        field = np.tensordot(lattice[0], field, axes=(1, 0))  # (Z, ny, nx)
        field = np.matmul(lattice[1], field)  # (Z, Y, nx)
        return np.asarray(np.matmul(field, lattice[2].T), dtype=np.float32)  # (Z, Y, X)

    def spread(self, coarse: Field, strides: list[int]) -> Field:
        """Linear interpolation of values taken at every ``strides``-th voxel onto the whole grid."""
        field = np.asarray(coarse, dtype=np.float32)
        weights = []
        for size, nodes, stride in zip(self.shape, coarse.shape, strides, strict=True):
            place = np.clip(np.arange(size) / stride, 0, nodes - 1)
            weights.append(np.clip(1 - np.abs(place[:, None] - np.arange(nodes)[None]), 0, 1).astype(np.float32))
        field = np.tensordot(weights[0], field, axes=(1, 0))
        return np.asarray(np.matmul(np.matmul(weights[1], field), weights[2].T), dtype=np.float32)
