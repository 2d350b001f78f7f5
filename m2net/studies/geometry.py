"""Where voxels lie in the patient: spacing, origin, direction, and the exact way to LPS axes and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from m2net.errors import GeometryError

Array = NDArray[Any]


@dataclass(frozen=True)
class Geometry:
    """Grid of a volume in patient space (LPS, mm).

    Attributes:
        spacing_mm: distance between voxel centres along the array's axes (z, y, x).
        origin_mm: LPS coordinates (x, y, z) of the centre of voxel [0, 0, 0].
        direction: 3 x 3; column c is the LPS unit vector of the array's x, y, z axis for c = 0, 1, 2.
    """

    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

    @staticmethod
    def of(image: sitk.Image) -> Geometry:
        """The geometry of a three-dimensional SimpleITK image."""
        x, y, z = image.GetSpacing()
        return Geometry.build((z, y, x), image.GetOrigin(), np.asarray(image.GetDirection()).reshape(3, 3))

    @staticmethod
    def build(spacing_mm: Any, origin_mm: Any, direction: Array) -> Geometry:
        """A geometry from any sequences of numbers."""
        rows = [tuple(float(v) for v in row) for row in np.asarray(direction)]
        return Geometry(
            tuple(float(v) for v in spacing_mm),  # type: ignore[arg-type]
            tuple(float(v) for v in origin_mm),  # type: ignore[arg-type]
            tuple(rows),  # type: ignore[arg-type]
        )

    @property
    def axes(self) -> Array:
        """Direction as a (3, 3) array, columns x, y, z."""
        return np.asarray(self.direction)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def place(self, image: sitk.Image) -> sitk.Image:
        """Give ``image`` this geometry and return it."""
        z, y, x = self.spacing_mm
        image.SetSpacing((x, y, z))
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.axes.ravel().tolist())
        return image

    def matches(self, other: Geometry, shape: tuple[int, ...]) -> bool:
        """Whether both grids put every corner voxel of ``shape`` (z, y, x) within a tenth of a voxel of each other."""
        last = np.array([shape[2] - 1, shape[1] - 1, shape[0] - 1], dtype=float)
        tolerance = 0.1 * min(self.spacing_mm)
        for pick in np.ndindex(2, 2, 2):
            index = last * pick
            if np.abs(self.point(index) - other.point(index)).max() > tolerance:
                return False
        return True

    def point(self, index_xyz: Array) -> Array:
        """LPS coordinates (x, y, z) in mm of a voxel index (x, y, z)."""
        z, y, x = self.spacing_mm
        place: Array = np.asarray(self.origin_mm) + self.axes @ (np.asarray(index_xyz) * np.array([x, y, z]))
        return place


@dataclass(frozen=True)
class Orientation:
    """The exact transposition and flips between a study's own array and its LPS array; no value is interpolated.

    Attributes:
        order: axis of the study's own array (z, y, x) that becomes each LPS axis (z, y, x).
        flipped: whether each LPS axis (z, y, x) runs against the study's own.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    def to_lps(self, array: Array) -> Array:
        """The study's own (z, y, x) array as an LPS (z, y, x) array."""
        moved = np.transpose(array, self.order)
        return np.ascontiguousarray(moved[self._slices()])

    def from_lps(self, array: Array) -> Array:
        """An LPS (z, y, x) array on the study's own axes."""
        back = np.argsort(self.order)
        return np.ascontiguousarray(np.transpose(array[self._slices()], back))

    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)


def to_lps(array: Array, geometry: Geometry) -> tuple[Array, Geometry, Orientation]:
    """Permute and flip an array so that x grows left, y posterior and z superior, as nearly as its grid allows.

    Args:
        array: (Z, Y, X) on the study's own axes.
        geometry: its geometry.

    Returns:
        The LPS array, its geometry and the orientation that leads back.

    Raises:
        GeometryError: if the direction is no rotation or reflection (axes not at right angles).
    """
    axes = geometry.axes
    if not np.allclose(axes.T @ axes, np.eye(3), atol=2e-2):
        raise GeometryError(
            f"the image's axes are not at right angles (direction {np.round(axes, 3).tolist()})",
            expected="three perpendicular axes",
            remedy="Re-export the series, or resample it to a regular grid first",
        )
    # own axis (x, y, z) nearest to each of L, P, S, all three chosen together
    best = max(permutations(range(3)), key=lambda p: sum(abs(axes[row, p[row]]) for row in range(3)))
    signs = [1 if axes[row, best[row]] >= 0 else -1 for row in range(3)]
    order = tuple(2 - best[2 - k] for k in range(3))  # array axes run z, y, x: array axis k is spatial axis 2 - k
    flipped = tuple(signs[2 - k] < 0 for k in range(3))
    orientation = Orientation(order, flipped)  # type: ignore[arg-type]

    last = np.array(array.shape[::-1]) - 1
    start = np.array([last[a] if a in [best[r] for r in range(3) if signs[r] < 0] else 0 for a in range(3)])
    new_axes = np.stack([axes[:, best[row]] * signs[row] for row in range(3)], axis=1)
    spacing = tuple(geometry.spacing_mm[axis] for axis in order)
    return orientation.to_lps(array), Geometry.build(spacing, geometry.point(start), new_axes), orientation
