"""Pieces of lung where no lung can be: what a model calls lung or infection apart from the lungs, in stomach, bowel or shoulder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.vocabulary import Column

_LEAST = 0.03  # of the largest piece; a shrunken lung is more
_FEW_SLICES = 8  # in fewer the parts of one lung need not touch
_TOUCHING = np.ones((3, 3, 3), bool)

Maps = dict[str, NDArray[np.uint8]]


def without_islands(maps: Maps) -> tuple[Maps, dict[str, int]]:
    """Leave out what is drawn apart from the lungs.

    A piece of lung (of lobes and lungs together, where the model draws both) is kept if it has at least 3 % of the largest piece's voxels:
    both lungs, a shrunken one, parts of one that a consolidation parts. Infection is kept where it touches a kept piece, and so stays
    where a consolidation was not recognised as lung.

    Args:
        maps: (Z, Y, X) codes on one grid by mask. Of fewer than eight slices, and without lobes or lungs, nothing is left out.

    Returns:
        The maps, and how many voxels of ``lung`` and of ``infection`` were left out.
    """
    drawn = [maps[name] > 0 for name in (Column.LOBES, Column.LUNGS) if name in maps]
    if not drawn or len(drawn[0]) < _FEW_SLICES:
        return maps, {}
    pieces, count = ndimage.label(np.logical_or.reduce(drawn), _TOUCHING)
    if count == 0:
        return maps, {}
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = (sizes >= _LEAST * sizes.max())[pieces] & (pieces > 0)
    cleaned = {name: np.where(kept, codes, 0).astype(np.uint8) for name, codes in maps.items() if name in (Column.LOBES, Column.LUNGS)}
    apart = {"lung": int(sizes.sum() - kept.sum())}
    if Column.INFECTION in maps:
        infection = maps[Column.INFECTION]
        parts, _ = ndimage.label(infection > 0, _TOUCHING)
        near = np.unique(parts[ndimage.binary_dilation(kept, _TOUCHING)])
        cleaned[str(Column.INFECTION)] = np.where(np.isin(parts, near[near > 0]), infection, 0).astype(np.uint8)
        apart[str(Column.INFECTION)] = int((infection > 0).sum() - (cleaned[str(Column.INFECTION)] > 0).sum())
    return {**maps, **cleaned}, apart
