"""Gas that is no lung's, where a model draws some of it as lung: the trachea and wide bronchi, stomach and bowel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.assessment.islands import Maps
from m2net.studies import Volume
from m2net.vocabulary import Column, Intensity, Modality

_GAS_HU = -950.0  # lung holds blood; below this lies gas, and emphysema
_TISSUE_HU = -500.0
_NOISE_MM = 0.7  # smoothed over
_LEAST_ML = 0.3
_WALL_MM, _AROUND_MM = 1.5, 5.0
_AROUND = 0.5  # of what surrounds it is tissue
_MOST = 0.1  # of all lung that is drawn; a trachea is less, lungs of emphysema are more


def without_gas(maps: Maps, volume: Volume) -> tuple[Maps, int]:
    """Leave out what is drawn in gas of which the model itself draws less than half, and in its wall.

    Gas is what is below -950 HU and in one piece of at least 0.3 ml. One piece is lung or it is none: where the model draws the smaller
    part of it only, as of a trachea here and there, that part goes. What is drawn as a whole stays: emphysema, bullae, a loop of bowel of
    which nothing tells the model otherwise. So does a piece larger than a tenth of the lung that is drawn, or with less than half of what
    lies between 1.5 and 5 mm around it, slice by slice, denser than -500 HU.

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
    out = _gas_of_others(volume.array, lung, volume.geometry.spacing_mm)
    cleaned = {name: np.where(out, 0, codes) for name, codes in maps.items() if name in (Column.LOBES, Column.LUNGS, Column.INFECTION)}
    return {**maps, **cleaned}, int((out & lung).sum())


def _gas_of_others(hu: NDArray[np.int16], lung: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Such gas, with its wall; all (Z, Y, X)."""
    in_plane = spacing_mm[1:]
    gas = np.stack([ndimage.gaussian_filter(plane.astype(np.float32), [_NOISE_MM / mm for mm in in_plane]) < _GAS_HU for plane in hu])
    pieces, _ = ndimage.label(gas)
    sizes = np.bincount(pieces.ravel())
    least, most = _LEAST_ML * 1000.0 / math.prod(spacing_mm), _MOST * lung.sum()
    inside = np.bincount(pieces[lung], minlength=len(sizes))
    wall, around = (max(1, math.ceil(mm / min(in_plane))) for mm in (_WALL_MM, _AROUND_MM))
    flat = ndimage.generate_binary_structure(2, 1)[None]
    bounds = ndimage.find_objects(pieces)
    out = np.zeros(hu.shape, bool)
    for piece in np.unique(pieces[lung]):
        if piece == 0 or not least <= sizes[piece] <= most or inside[piece] >= sizes[piece] / 2:
            continue
        z, *plane = bounds[piece - 1]
        part = (z, *(slice(max(0, side.start - around - 1), side.stop + around + 1) for side in plane))
        near = ndimage.binary_dilation(pieces[part] == piece, flat, wall)
        ring = ndimage.binary_dilation(near, flat, max(1, around - wall)) & ~near
        if ring.any() and float((hu[part][ring] > _TISSUE_HU).mean()) >= _AROUND:
            out[part] |= near
    return out
