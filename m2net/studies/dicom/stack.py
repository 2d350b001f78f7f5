"""From planes of one series to a regular stack: order, distance, duplicates, gaps, tilt, and their repair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.errors import GeometryError
from m2net.studies.dicom.headers import Frame
from m2net.studies.geometry import Geometry
from m2net.studies.remarks import Remark

_SAME_PLACE_MM = 1e-3
_UNEVEN = 0.05  # share of the usual slice distance by which a gap may differ
_TILT_MM = 0.5  # in-plane drift of the slice positions over the whole stack
_AIR_HU = -1024
_LARGEST_GAP = 4.0  # a wider hole, in slice distances, is not filled: there is nothing to interpolate from


@dataclass(frozen=True)
class Stack:
    """Planes in order along their normal, and where a regular grid would lie.

    Attributes:
        frames: sorted, one a place.
        along_mm: (n,) place of each plane along the normal.
        drift_mm: (n, 2) in-plane shift of each plane against the first, along columns (x) and rows (y).
        spacing_mm: usual distance of the planes.
        remarks: what was found.
    """

    frames: tuple[Frame, ...]
    along_mm: NDArray[np.float64]
    drift_mm: NDArray[np.float64]
    spacing_mm: float
    remarks: tuple[Remark, ...]

    @property
    def sheared(self) -> bool:
        """Whether the planes drift sideways (gantry tilt)."""
        return bool(np.abs(self.drift_mm).max() > _TILT_MM)

    @property
    def uneven(self) -> bool:
        """Whether the distances differ."""
        return bool(np.abs(np.diff(self.along_mm) - self.spacing_mm).max() > _UNEVEN * self.spacing_mm)


def build_stack(path: Path, frames: tuple[Frame, ...]) -> Stack:
    """Sort planes by position along the normal; file names and instance numbers are never looked at.

    Raises:
        GeometryError: two different planes at one place. Identical copies are left out with a remark (``same_pixels``).
    """
    normal = frames[0].normal
    places = np.array([f.position for f in frames])
    order = np.argsort(places @ normal, kind="stable")
    ordered = [frames[i] for i in order]
    ordered, remarks = _without_copies(path, ordered, normal)
    if len(ordered) == 1:
        raise GeometryError(f"{path} holds a single slice", expected="at least two", remedy="Give the whole series")
    positions = np.array([f.position for f in ordered])
    along = positions @ normal
    assert frames[0].orientation is not None
    axes = frames[0].orientation.reshape(2, 3)
    drift = (positions - positions[0]) @ axes.T
    spacing = float(np.median(np.diff(along)))
    if np.abs(np.diff(along) - spacing).max() <= _UNEVEN * spacing:
        spacing = float((along[-1] - along[0]) / (len(along) - 1))
    thickness = ordered[0].thickness_mm
    if thickness and abs(thickness - spacing) > 0.1 * spacing:
        said = f"Slices lie {spacing:.2f} mm apart while SliceThickness says {thickness:.2f} mm; positions are used."
        remarks.append(Remark("spacing", said, harmless=True))
    return Stack(tuple(ordered), along, drift, spacing, tuple(remarks))


def _without_copies(path: Path, ordered: list[Frame], normal: NDArray[np.float64]) -> tuple[list[Frame], list[Remark]]:
    from m2net.studies.dicom.pixels import same_pixels

    kept: list[Frame] = []
    copies = 0
    for frame in ordered:
        if kept and abs(float((frame.position - kept[-1].position) @ normal)) < _SAME_PLACE_MM:  # type: ignore[operator]
            if not same_pixels(kept[-1], frame):
                raise GeometryError(
                    f"{path} has two different slices at the same place "
                    f"({float(frame.position @ normal):.2f} mm: {kept[-1].path.name}, {frame.path.name})",  # type: ignore[operator]
                    expected="one slice a place", remedy="Remove one of them, or choose a series with --series",
                )  # fmt: skip
            copies += 1
            continue
        kept.append(frame)
    said = f"{copies} {'copy' if copies == 1 else 'copies'} of slices with identical pixels left out."
    return kept, [Remark("duplicates", said, "Remove the copies")] if copies else []


def refuse_irregular(path: Path, stack: Stack) -> None:
    """Raise GeometryError with the numbers if the stack is sheared or uneven."""
    again = "Export the series again, or resample it with --repair"
    if stack.uneven:
        gaps = np.diff(stack.along_mm)
        holes = int(np.rint(gaps / stack.spacing_mm - 1).clip(min=0).sum())
        told = f", {holes} missing" if holes else ""
        raise GeometryError(
            f"{path} has uneven slice distances ({gaps.min():.2f} to {gaps.max():.2f} mm, usually {stack.spacing_mm:.2f}{told})",
            expected="even distances", remedy=again,
        )  # fmt: skip
    if stack.sheared:
        drift = float(np.abs(stack.drift_mm).max())
        angle = float(np.degrees(np.arctan2(drift, stack.along_mm[-1] - stack.along_mm[0])))
        raise GeometryError(
            f"{path} is sheared by {drift:.1f} mm over the stack (gantry tilt of about {angle:.1f} degrees)",
            expected="slices stacked along their normal", remedy=again,
        )  # fmt: skip


def geometry_of(stack: Stack) -> Geometry:
    """Grid of a regular stack."""
    first = stack.frames[0]
    return _geometry(stack, np.asarray(first.position), stack.spacing_mm)


def _geometry(stack: Stack, origin: NDArray[np.float64], distance: float) -> Geometry:
    first = stack.frames[0]
    assert first.orientation is not None
    assert first.spacing_mm is not None
    axes = np.column_stack([*first.orientation.reshape(2, 3), first.normal])
    return Geometry.build((distance, *first.spacing_mm), origin, axes)


def repair(path: Path, array: NDArray[np.int16], stack: Stack) -> tuple[NDArray[np.int16], Geometry, Remark]:
    """Resample a sheared or uneven stack to a regular grid, linearly.

    Each plane is first shifted back by its drift on a canvas that holds them all (what no plane covers is air, -1024 HU), then
    planes are interpolated between their neighbours at even distances.

    Args:
        path: for messages.
        array: (n, rows, columns) HU in the order of the stack.
        stack: where the planes lie.

    Raises:
        GeometryError: a hole wider than four slice distances.
    """
    gaps = np.diff(stack.along_mm)
    if gaps.max() > _LARGEST_GAP * stack.spacing_mm:
        raise GeometryError(
            f"{path} has a hole of {gaps.max():.1f} mm between slices that usually lie {stack.spacing_mm:.2f} mm apart",
            expected=f"holes of at most {_LARGEST_GAP:.0f} slice distances",
            remedy="Export the whole series; there is nothing to interpolate from",
        )  # fmt: skip
    done = []
    origin = np.asarray(stack.frames[0].position, dtype=np.float64)
    if stack.sheared:
        array, offset = _unshear(array, stack)
        assert stack.frames[0].orientation is not None
        origin = origin + offset @ stack.frames[0].orientation.reshape(2, 3)
        done.append(f"a shear of {np.abs(stack.drift_mm).max():.1f} mm undone")
    if stack.uneven:
        before = len(array)
        array = _even(array, stack)
        done.append(f"{before} uneven slices resampled to {len(array)} at {stack.spacing_mm:.2f} mm")
    said = f"Repaired by linear interpolation: {', '.join(done)}. Results lie on the repaired grid."
    return array, _geometry(stack, origin, stack.spacing_mm), Remark("geometry", said, "Prefer the original series")


def _unshear(array: NDArray[np.int16], stack: Stack) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Shift planes back; returns the canvas and its corner against the first plane's, mm along (x, y) of the plane."""
    assert stack.frames[0].spacing_mm is not None
    row_mm, column_mm = stack.frames[0].spacing_mm
    pixels = stack.drift_mm / (column_mm, row_mm)  # x, y
    low, high = np.floor(pixels.min(axis=0)).astype(int), np.ceil(pixels.max(axis=0)).astype(int)
    rows, columns = array.shape[1:]
    out = np.empty((len(array), rows + int(high[1] - low[1]), columns + int(high[0] - low[0])), np.int16)
    for k, plane in enumerate(array):
        wide = np.full(out.shape[1:], _AIR_HU, np.float32)
        wide[:rows, :columns] = plane
        moved = ndimage.shift(wide, (pixels[k, 1] - low[1], pixels[k, 0] - low[0]), order=1, mode="constant", cval=_AIR_HU)
        out[k] = np.rint(moved)
    return out, low * (column_mm, row_mm)


def _even(array: NDArray[np.int16], stack: Stack) -> NDArray[np.int16]:
    """Planes at even distances from the first to (at most) the last, each between its two neighbours."""
    count = int(np.floor((stack.along_mm[-1] - stack.along_mm[0]) / stack.spacing_mm + 1e-6)) + 1
    wanted = stack.along_mm[0] + stack.spacing_mm * np.arange(count)
    above = np.clip(np.searchsorted(stack.along_mm, wanted), 1, len(array) - 1)
    span = stack.along_mm[above] - stack.along_mm[above - 1]
    share = np.clip((wanted - stack.along_mm[above - 1]) / span, 0, 1)
    out = np.empty((count, *array.shape[1:]), np.int16)
    for k in range(count):
        out[k] = np.rint((1 - share[k]) * array[above[k] - 1].astype(np.float32) + share[k] * array[above[k]])
    return out
