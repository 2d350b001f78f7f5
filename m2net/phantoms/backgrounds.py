"""Slices of real studies without infection, as a painter needs them: in HU, of moderate size, their lungs outlined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from m2net.errors import StudyError
from m2net.phantoms.painting import Background, sides_as_lobes
from m2net.studies import ReadOptions, Study, Volume, find_thorax, read_image, read_mask
from m2net.vocabulary import MASK_UNLABELLED, Column, Intensity, LungCode

_LUNG_HU, _SOFT_HU = -860.0, 40.0  # taken for the medians of a picture's lungs and of the body around them
_LUNGS_MM = 265.0  # an adult's lungs from side to side, for pictures without millimetres
_AERATED_HU = -350.0
_LEAST_PIXELS = 400  # of lung in a slice
_LEAST_LUNG = 0.2  # of the widest slice's lung; apices and bases show little

Mask = NDArray[np.bool_]


def backgrounds(study: Study, most: int, side: int, rng: np.random.Generator) -> Iterator[tuple[int, Background, bool]]:
    """Slices of one study, evenly over the lungs.

    Args:
        study: CT without infection.
        most: slices to give.
        side: longest side of a slice in pixels; larger ones are reduced.
        rng: draws the code of a side whose lobes are not known.

    Yields:
        Index of the slice (0 is the lowest), the slice, and whether its lobes are known.

    Raises:
        StudyError: unreadable, or no lung found.
    """
    volume = read_image(study.image, ReadOptions(series=study.series), study.modality)
    if volume.geometry is not None and not 0.95 < volume.geometry.spacing_mm[1] / volume.geometry.spacing_mm[2] < 1.05:
        raise StudyError(f"pixels of {volume.geometry.spacing_mm[1:]} mm", expected="square pixels in axial planes")
    known = Column.LOBES in study.masks
    lobes = _lobes(study, volume, rng)
    area = (lobes > 0).sum(axis=(1, 2))
    usable = np.flatnonzero(area >= max(_LEAST_PIXELS, _LEAST_LUNG * area.max()))
    if not len(usable):
        raise StudyError("no slice shows lungs", expected="a mask or picture with lungs, labelled whole in at least one slice")
    places = np.linspace(0, len(usable) - 1, most) if most > 1 else np.array([(len(usable) - 1) / 2])
    chosen = np.unique(usable[places.round().astype(int)])
    low, high = int(usable[0]), int(usable[-1])
    for z in chosen:
        hu = _as_hu(volume, lobes[z] > 0, int(z))
        mm = _LUNGS_MM / _width(lobes[z]) if volume.geometry is None else volume.geometry.spacing_mm[1]
        height = (z - low) / (high - low) if high > low else rng.uniform(0.1, 0.9)
        yield int(z), _reduced(Background(hu, lobes[z], float(mm), float(height)), side), known


def _lobes(study: Study, volume: Volume, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lobe codes (Z, Y, X): of the study's mask, or a code a side of the lungs that its mask or the finder outlines."""
    for kind in (Column.LOBES, Column.LUNGS):
        if kind in study.masks:
            mask = read_mask(study.masks[kind], kind, volume, study.mask_schemes.get(kind, "")).array
            whole = np.where((mask == MASK_UNLABELLED).any(axis=(1, 2), keepdims=True), 0, mask).astype(np.uint8)  # lung may lie there
            return whole if kind is Column.LOBES else _coded(whole, rng)
    found = find_thorax(volume, None if volume.geometry is None else volume.geometry.spacing_mm)
    if not found.found:
        raise StudyError("no lungs were found in the picture", expected="lungs that are seen, or a mask in the column lungs or lobes")
    return _coded(np.where(_aerated(volume, found.lungs > 0), found.lungs, 0), rng)


def _aerated(volume: Volume, lungs: Mask) -> Mask:
    """What holds air of coarsely outlined lungs, vessels in it included, slice by slice."""
    fine = np.zeros(lungs.shape, bool)
    for z, plane in enumerate(lungs):
        if plane.any():
            air = plane & (_as_hu(volume, plane, z) < _AERATED_HU)
            fine[z] = ndimage.binary_fill_holes(ndimage.binary_closing(air, iterations=2)) & plane
    return fine


def _coded(lungs: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A lobe code a side; lungs of unknown side are parted at the middle of their width."""
    columns = np.flatnonzero((lungs > 0).any(axis=(0, 1)))
    middle = (columns[0] + columns[-1] + 1) / 2 if len(columns) else 0
    across = np.broadcast_to(np.arange(lungs.shape[2]) >= middle, lungs.shape)
    unknown = lungs == LungCode.SIDE_UNKNOWN
    left = (lungs == LungCode.LEFT) | (unknown & across)
    return sides_as_lobes(left, (lungs == LungCode.RIGHT) | (unknown & ~across), rng)


def _as_hu(volume: Volume, lungs: Mask, z: int) -> NDArray[np.float32]:
    """One slice in HU; grey values by the medians of lung and of the body around it."""
    plane: NDArray[np.float32] = volume.array[z].astype(np.float32)
    if volume.intensity is Intensity.HU:
        return plane
    dark = float(np.median(plane[lungs]))
    around = ndimage.binary_dilation(lungs, iterations=max(2, round(0.06 * _width(lungs)))) & ~lungs
    bright = float(np.median(plane[around & (plane > dark)])) if (around & (plane > dark)).any() else dark + 1
    return np.asarray(_LUNG_HU + (plane - dark) * ((_SOFT_HU - _LUNG_HU) / max(bright - dark, 1.0)), dtype=np.float32)


def _width(lungs: NDArray[Any]) -> int:
    columns = np.flatnonzero((lungs > 0).any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def _reduced(slice_: Background, side: int) -> Background:
    """At most ``side`` pixels along the longer side."""
    have = slice_.hu.shape
    if max(have) <= side:
        return slice_
    rows, columns = (max(1, round(n * side / max(have))) for n in have)
    hu = np.asarray(Image.fromarray(slice_.hu).resize((columns, rows), Image.Resampling.BILINEAR))
    pick = [((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip((rows, columns), have, strict=True)]
    return Background(hu, slice_.lobes[pick[0][:, None], pick[1]], slice_.pixel_mm * max(have) / side, slice_.height)
