"""Body and lungs by classical means: thresholds, connected components and closing on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.errors import StudyError
from m2net.studies.picture_lungs import find_picture_lungs, inside_frame, middles
from m2net.studies.volume import Volume
from m2net.vocabulary import Intensity, LungCode, Modality

_COARSE_MM = 4.0
_AIR_HU = -400.0
_BODY_HU = -300.0
_ROOM_HU = -960.0  # lung holds blood and is denser
_CLIPPED_HU = -975.0
_MIN_LUNG_ML = 150.0
_CLOSING_MM = 12.0  # bridges vessels and consolidated patches

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Box:
    """Half-open voxel bounds (z0, z1, y0, y1, x0, x1)."""

    z0: int
    z1: int
    y0: int
    y1: int
    x0: int
    x1: int

    @staticmethod
    def of(mask: Mask) -> Box:
        """The tightest box around the true voxels of a non-empty (Z, Y, X) mask."""
        bounds = []
        for axis in range(3):
            along = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            bounds += [int(along[0]), int(along[-1]) + 1]
        return Box(*bounds)


@dataclass(frozen=True)
class Thorax:
    """What the finder saw.

    Attributes:
        lungs: (Z, Y, X) uint8, 1 right, 2 left, 3 side unknown.
        lung_box: box of the lungs.
        body_box: box of the body over the lungs' slices.
        found: False where a picture showed no lungs and all of it is taken.
    """

    lungs: NDArray[np.uint8]
    lung_box: Box
    body_box: Box
    found: bool = True


def find_thorax(volume: Volume, spacing_mm: tuple[float, float, float] | None) -> Thorax:
    """Find the body and the lungs.

    The airways are in where they are wide; consolidated patches are bridged up to about two centimetres. The result
    places patches and coordinates; it is not a segmentation to measure on.

    Args:
        volume: CT in HU, a single slice of relative intensity, or a radiograph (where no lungs are looked for: all within the frame).
        spacing_mm: (z, y, x) of the volume's array; None for a picture.

    Raises:
        StudyError: no lung found.
    """
    if volume.modality is Modality.CXR:
        return _whole_radiograph(volume)
    if volume.intensity is Intensity.RELATIVE or spacing_mm is None:
        return _find_in_picture(volume)
    strides = [max(1, round(_COARSE_MM / mm)) for mm in spacing_mm]
    coarse = volume.array[np.ix_(*map(middles, volume.array.shape, strides))].astype(np.float32)
    coarse_mm = [mm * s for mm, s in zip(spacing_mm, strides, strict=True)]
    body = _find_body(coarse)
    lungs = _find_lungs(coarse, body, coarse_mm)
    if lungs is None:
        raise StudyError(
            "no lung was found (no enclosed air of lung size)",
            expected="a chest CT in HU with the lungs in view",
            remedy="Check the window, the units and the field of view",
        )
    fine = _refine(lungs, volume.array, strides)
    lung_box = Box.of(_without_thin_ends(fine > 0))
    body_box = _body_box(body, strides, volume.array.shape, lung_box)
    return Thorax(fine, lung_box, body_box)


def _without_thin_ends(lungs: Mask) -> Mask:
    """Only slices with at least 3 % of the widest slice's lung: a piece of trachea must not stretch the box."""
    area = lungs.sum(axis=(1, 2))
    return np.asarray(lungs & (area >= 0.03 * area.max())[:, None, None])


def _find_body(coarse: NDArray[np.float32]) -> Mask:
    """The largest dense component, holes filled slice by slice, without the table.

    A small field of view cuts the chest wall: it goes on beyond the picture as it meets the edge, and closes around lung that lies there.
    """
    cross = np.zeros((3, 3, 3), bool)
    cross[1] = ndimage.generate_binary_structure(2, 1)
    beyond = np.pad(coarse, ((0, 0), (2, 2), (2, 2)), mode="edge")
    dense = ndimage.binary_opening(beyond > _BODY_HU, cross)[:, 1:-1, 1:-1]
    labels, count = ndimage.label(dense)
    if count == 0:
        return np.zeros(coarse.shape, bool)
    body = labels == (np.bincount(labels.ravel())[1:].argmax() + 1)
    seen = beyond[:, 1:-1, 1:-1]
    clipped = coarse.min() > _CLIPPED_HU  # air of the room cannot be told from lung
    closed = body if clipped else [_close_edges(plane, values) for plane, values in zip(body, seen, strict=True)]
    return np.stack([ndimage.binary_fill_holes(plane)[1:-1, 1:-1] for plane in closed])


def _close_edges(body: Mask, values: NDArray[np.float32]) -> Mask:
    """The plane with its edges closed between body and body where lung lies there, not the air of the room."""
    out = body.copy()
    for edge in (np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]):
        ends = np.flatnonzero(body[edge])
        if len(ends) < 2:
            continue
        between = slice(ends[0], ends[-1] + 1)
        gap = values[edge][between][~body[edge][between]]
        if len(gap) and float(np.median(gap)) > _ROOM_HU:
            out[edge][between] = True
    return out


def _find_lungs(coarse: NDArray[np.float32], body: Mask, coarse_mm: list[float]) -> NDArray[np.uint8] | None:
    """Air inside the body in pieces of lung size, told from bowel gas by density; sides by the body's midline."""
    voxel_ml = float(np.prod(coarse_mm)) / 1000.0
    inside = ndimage.binary_erosion(body, iterations=1) | (body & (coarse < -700))
    air = inside & (coarse < _AIR_HU)
    # opened in-plane so that the airways let go of the lungs
    plus = np.zeros((3, 3, 3), bool)
    plus[1] = ndimage.generate_binary_structure(2, 1)
    core = ndimage.binary_opening(air, plus)
    labels, count = ndimage.label(core)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_ml
    largest = float(sizes.max())
    if largest < _MIN_LUNG_ML:
        return None
    keep = [i + 1 for i in range(count) if sizes[i] >= max(_MIN_LUNG_ML / 3, 0.12 * largest)]
    core = np.isin(labels, _lungs_not_bowel(labels, keep, coarse))
    radius = [max(1, round(_CLOSING_MM / mm / 2)) for mm in coarse_mm]
    padded = np.pad(core, [(r, r) for r in radius])
    closed = ndimage.binary_closing(padded, np.ones([2 * r + 1 for r in radius], bool))
    closed = closed[tuple(slice(r, -r) for r in radius)] & body
    return _sides(closed, body)


def _lungs_not_bowel(labels: NDArray[np.int32], keep: list[int], coarse: NDArray[np.float32]) -> list[int]:
    """Lung parenchyma holds blood: its median is denser than that of bowel gas."""
    chosen = []
    for label in keep:
        median = float(np.median(coarse[labels == label]))
        if median > -975.0:
            chosen.append(label)
    return chosen or keep


def _sides(lungs: Mask, body: Mask) -> NDArray[np.uint8]:
    """1 right, 2 left: pieces by their centre against the body's midline, a joined piece cut at the midline."""
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) / 2.0
    labels, count = ndimage.label(lungs)
    out = np.zeros(lungs.shape, np.uint8)
    x = np.arange(lungs.shape[2])[None, None, :]
    left_half = np.broadcast_to(x > middle, lungs.shape)
    for label in range(1, count + 1):
        piece = labels == label
        share_left = float(left_half[piece].mean())
        if 0.15 < share_left < 0.85:
            out[piece & left_half] = LungCode.LEFT
            out[piece & ~left_half] = LungCode.RIGHT
        else:
            out[piece] = LungCode.LEFT if share_left >= 0.5 else LungCode.RIGHT
    return out


def _refine(lungs: NDArray[np.uint8], array: NDArray[np.int16], strides: list[int]) -> NDArray[np.uint8]:
    """The coarse mask on the full grid."""
    fine = lungs
    for axis, stride in enumerate(strides):
        fine = np.repeat(fine, stride, axis=axis)
    return np.ascontiguousarray(fine[: array.shape[0], : array.shape[1], : array.shape[2]])


def _body_box(body: Mask, strides: list[int], shape: tuple[int, ...], lung_box: Box) -> Box:
    z0, z1 = lung_box.z0 // strides[0], max(lung_box.z0 // strides[0] + 1, lung_box.z1 // strides[0])
    box = Box.of(body[z0:z1])
    return Box(
        lung_box.z0, lung_box.z1,
        box.y0 * strides[1], min(shape[1], box.y1 * strides[1]),
        box.x0 * strides[2], min(shape[2], box.x1 * strides[2]),
    )  # fmt: skip


def _whole_radiograph(volume: Volume) -> Thorax:
    """Everything within a printed frame or collimation."""
    frame = inside_frame(volume.array[0].astype(np.float32))[None]
    return Thorax(np.where(frame, LungCode.SIDE_UNKNOWN, 0).astype(np.uint8), Box.of(frame), Box.of(frame))


def _find_in_picture(volume: Volume) -> Thorax:
    """Lungs by their darkness, sides unknown; the whole picture within its frame where none are found."""
    lungs, body, found = find_picture_lungs(volume.array[0].astype(np.float32))
    coded = np.where(lungs, LungCode.SIDE_UNKNOWN, 0).astype(np.uint8)[None]
    return Thorax(coded, Box.of(lungs[None]), Box.of(body[None]), found)
