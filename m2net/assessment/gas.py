"""Gas that is no lung's: the trachea and wide bronchi, stomach and bowel, where a model draws them as lung."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.studies import Volume
from m2net.vocabulary import Column, Intensity, Modality

_GAS_HU = -950.0  # lung holds blood; below this only gas does, and lung that has perished
_TISSUE_HU = -500.0
_NOISE_MM = 0.7  # smoothed over
_LEAST_ML = 0.3
_WALL_MM, _AROUND_MM = 1.5, 5.0
_AROUND = 0.5  # of what surrounds it is tissue: gas within lung, as of emphysema, has lung around it

Maps = dict[str, NDArray[np.uint8]]


def without_gas(maps: Maps, volume: Volume) -> tuple[Maps, int]:
    """Leave out what is drawn in gas that tissue surrounds, and in its wall.

    Gas is what is below -950 HU and in one piece of at least 0.3 ml. It is left out where at least half of what lies between 1.5 and 5 mm
    around it, slice by slice, is denser than -500 HU: true of airways outside the lungs and of bowel, not of bullae and emphysema.

    Args:
        maps: (Z, Y, X) codes on the volume's grid by mask; lobes, lungs and infection are cleaned.
        volume: CT in HU with a geometry; of others nothing is left out.

    Returns:
        The maps, and how many voxels of lung (of lobes and lungs together) were left out.
    """
    drawn = [maps[name] > 0 for name in (Column.LOBES, Column.LUNGS) if name in maps]
    if not drawn or volume.geometry is None or volume.modality is not Modality.CT or volume.intensity is not Intensity.HU:
        return maps, 0
    lung = np.logical_or.reduce(drawn)
    out = _gas_in_tissue(volume.array, lung, volume.geometry.spacing_mm)
    cleaned = {name: np.where(out, 0, codes) for name, codes in maps.items() if name in (Column.LOBES, Column.LUNGS, Column.INFECTION)}
    return {**maps, **cleaned}, int((out & lung).sum())


def _gas_in_tissue(hu: NDArray[np.int16], lung: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Such gas, with its wall, as far as it meets ``lung``; all (Z, Y, X)."""
    in_plane = spacing_mm[1:]
    gas = np.stack([ndimage.gaussian_filter(plane.astype(np.float32), [_NOISE_MM / mm for mm in in_plane]) < _GAS_HU for plane in hu])
    pieces, _ = ndimage.label(gas)
    sizes = np.bincount(pieces.ravel())
    least = _LEAST_ML * 1000.0 / math.prod(spacing_mm)
    wall, around = (max(1, math.ceil(mm / min(in_plane))) for mm in (_WALL_MM, _AROUND_MM))
    flat = ndimage.generate_binary_structure(2, 1)[None]
    bounds = ndimage.find_objects(pieces)
    out = np.zeros(hu.shape, bool)
    for piece in np.unique(pieces[lung]):
        if piece == 0 or sizes[piece] < least:
            continue
        z, *plane = bounds[piece - 1]
        part = (z, *(slice(max(0, side.start - around - 1), side.stop + around + 1) for side in plane))
        near = ndimage.binary_dilation(pieces[part] == piece, flat, wall)
        ring = ndimage.binary_dilation(near, flat, max(1, around - wall)) & ~near
        if ring.any() and float((hu[part][ring] > _TISSUE_HU).mean()) >= _AROUND:
            out[part] |= near
    return out & lung
