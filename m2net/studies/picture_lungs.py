"""Lungs in a picture of one CT slice: no HU and no millimetres, perhaps a frame, letters and a tight crop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

Mask = NDArray[np.bool_]
_COARSE = 256  # longest side on which pieces are looked for
_FRAME_SHARE = 0.95  # a margin row or column this uniform, white or black, is paper and not a patient
_CORNER = 0.04
_LEAST_LUNG = 0.015  # of the picture; smaller dark pieces are airways, bowel or letters
_LEAST_SHARE = 0.12  # of the largest piece
_LEAST_SHARE_CUT = 0.4  # the same of a piece at the picture's edge: a tight crop cuts both lungs; what is smaller is air beside the patient
_MOST_LUNG = 0.6  # of the picture
_FLOOR = 0.8  # of the picture's height; a piece that lies lower is table
_LEVELS = 3  # thresholds tried
_WHITE = 0.98  # of the brightest value
_HOLE = 0.1  # of the lung around it; a larger one is the liver's dome, or the spleen


def find_picture_lungs(plane: NDArray[np.float32]) -> tuple[Mask, Mask, bool]:
    """Lungs and body of a grey picture (rows, columns), the patient lying face up.

    The dark pieces that are neither around the patient nor below him are taken for lung. Each side is then filled towards the ribs, so that
    consolidated lung at the ribs is in, and heart, liver and spine are out; missed is what is consolidated at the mediastinum, in a corner
    of a lung, or over a whole side. This cuts out; it is not a segmentation to measure on.

    Returns:
        Lungs, body, and whether lungs were found; where they were not, both are the picture within its frame.
    """
    stride = max(1, round(max(plane.shape) / _COARSE))
    coarse = ndimage.uniform_filter(plane, stride)[np.ix_(*(middles(size, stride) for size in plane.shape))] if stride > 1 else plane
    frame = inside_frame(coarse)
    pieces, outside, level = _dark_pieces(coarse, frame)
    if not pieces.any():
        return _fine(frame, plane.shape, stride), _fine(frame, plane.shape, stride), False
    body = ndimage.binary_fill_holes(frame & ~outside)
    tissue = float(np.median(coarse[body & (coarse >= level)]))
    hazy = coarse < (level + tissue) / 2
    lungs = _fill_sides(pieces, hazy, round(ndimage.center_of_mass(body)[1])) & frame
    return _fine(lungs, plane.shape, stride), _fine(body | lungs, plane.shape, stride), True


def middles(size: int, stride: int) -> NDArray[np.int64]:
    """Places along an axis in the middle of cells of ``stride``, so that a mask found there and repeated lies where it was found."""
    return np.minimum(np.arange(0, size, stride) + stride // 2, size - 1)


def _dark_pieces(plane: NDArray[np.float32], frame: Mask) -> tuple[Mask, Mask, float]:
    """Pieces like lungs (nothing where there are none), what is around the patient, and the value that dark pixels stay below.

    In a narrow window fat is as dark as lung, and the two run together over most of the picture: then the dark is parted again.
    Where soft tissue is all white, ground glass is told from it far above that threshold.
    """
    level = _otsu(plane[frame])
    top = float(plane[frame].max())
    if np.median(plane[frame & (plane >= level)]) >= _WHITE * top:
        level = (level + top) / 2
    for _ in range(_LEVELS):
        labels, _ = ndimage.label(ndimage.binary_opening((plane < level) & frame, iterations=2))
        around = _reaching_corners(labels, frame)
        pieces = np.isin(labels, _like_lungs(labels, around, frame))
        if pieces.any() and pieces.sum() < _MOST_LUNG * frame.sum():
            return pieces, np.isin(labels, list(around)), level
        darker = plane[frame & (plane < level)]
        if darker.size < _LEAST_LUNG * frame.sum():
            break
        level = _otsu(darker)
    return np.zeros_like(frame), np.zeros_like(frame), level


def _like_lungs(labels: NDArray[np.int32], around: set[int], frame: Mask) -> list[int]:
    """Pieces of a lung's size within the patient; the lowest are table and what lies beneath it, unless they are all there is."""
    sizes = np.bincount(labels.ravel()) / frame.sum()
    inside = [k for k in range(1, len(sizes)) if k not in around and sizes[k] > _LEAST_LUNG and not _is_rim(labels == k, frame)]
    rows = np.flatnonzero(frame.any(1))
    floor = rows[0] + _FLOOR * (rows[-1] - rows[0])
    chosen = [k for k in inside if ndimage.center_of_mass(labels == k)[0] <= floor] or inside
    largest = max((sizes[k] for k in chosen), default=0.0)
    cut = set(np.unique(labels[frame & ~ndimage.binary_erosion(frame)]).tolist())
    return [k for k in chosen if sizes[k] > (_LEAST_SHARE_CUT if k in cut else _LEAST_SHARE) * largest]


def inside_frame(plane: NDArray[np.float32]) -> Mask:
    """Without margins that are white or black nearly from end to end, as printed frames are."""
    top = max(float(plane.max()), 1e-6)
    blank = (plane >= 0.98 * top) | (plane <= 0.02 * top)
    out = np.ones(plane.shape, bool)
    for axis in (0, 1):
        share = blank.mean(axis=1 - axis)
        inner = np.flatnonzero(share < _FRAME_SHARE)
        if len(inner):
            keep = np.zeros(len(share), bool)
            keep[inner[0] : inner[-1] + 1] = True
            out &= keep[:, None] if axis == 0 else keep[None, :]
    return out


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold with the largest variance between the two classes (Otsu 1979), on 128 bins."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = values.size - below
    mass = np.cumsum(counts * centres)
    means = mass[:-1] / np.maximum(below, 1), (mass[-1] - mass[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (means[1] - means[0]) ** 2)])


def _reaching_corners(labels: NDArray[np.int32], frame: Mask) -> set[int]:
    """Dark pieces in a corner of the frame, along most of an edge, or from side to side below: air around the patient."""
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    inner = labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = max(1, round(inner.shape[0] * _CORNER)), max(1, round(inner.shape[1] * _CORNER))
    found: set[int] = set()
    for vertical in (slice(None, height), slice(-height, None)):
        for horizontal in (slice(None, width), slice(-width, None)):
            found |= set(np.unique(inner[vertical, horizontal]).tolist())
    for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]):
        found |= {int(k) for k in np.unique(edge) if (edge == k).mean() > 0.6}
    below = set(np.unique(inner[-1]).tolist()) & set(np.unique(inner[:, 0]).tolist()) & set(np.unique(inner[:, -1]).tolist())
    return (found | below) - {0}


def _is_rim(piece: Mask, frame: Mask) -> bool:
    """A thin arc across the picture: the gap between patient and table."""
    rows, columns = np.flatnonzero(piece.any(1)), np.flatnonzero(piece.any(0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    return bool(width > 0.5 * frame.any(0).sum() and piece.sum() < 0.35 * height * width)


def _fill_sides(lungs: Mask, hazy: Mask, middle: int) -> Mask:
    """The lung on each side of the body's middle column, filled."""
    labels, count = ndimage.label(lungs)
    sides = np.zeros((2, *lungs.shape), bool)
    for piece in range(1, count + 1):
        here = labels == piece
        share = float(here[:, :middle].sum() / here.sum())
        if 0.15 < share < 0.85:  # the lungs touch, or one picture shows one lung
            sides[0, :, :middle] |= here[:, :middle]
            sides[1, :, middle:] |= here[:, middle:]
        else:
            sides[int(share <= 0.5)] |= here
    return np.logical_or(_fill(sides[0], hazy), _fill(sides[1][:, ::-1], hazy[:, ::-1])[:, ::-1])


def _fill(lung: Mask, hazy: Mask) -> Mask:
    """With small holes, and with some of its convex hull: what is hazy, and what has no lung between it and the ribs, on the left.

    The rest of the hull is heart, liver or spine.
    """
    if not lung.any():
        return lung
    further_left = np.logical_or.accumulate(lung, axis=1)
    filled = lung | (_hull(lung) & (hazy | ~further_left))
    holes, count = ndimage.label(ndimage.binary_fill_holes(filled) & ~filled)
    small = np.flatnonzero(np.bincount(holes.ravel(), minlength=count + 1) <= _HOLE * lung.sum())
    return np.asarray(filled | np.isin(holes, small[small > 0]))


def _hull(mask: Mask) -> Mask:
    points = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return mask
    canvas = Image.new("1", (mask.shape[1], mask.shape[0]))
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for y, x in corners], fill=1, outline=1)
    return np.asarray(canvas, dtype=bool) | mask


def _fine(mask: Mask, shape: tuple[int, ...], stride: int) -> Mask:
    return np.repeat(np.repeat(mask, stride, 0), stride, 1)[: shape[0], : shape[1]]
