"""Figures per lobe: volume and density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2net.studies import Volume
from m2net.vocabulary import Intensity, Lobe

HU_BANDS: dict[str, tuple[float, float]] = {
    "emphysema_like": (-1100.0, -950.0),
    "inflated": (-950.0, -750.0),
    "ground_glass_like": (-750.0, -400.0),
    "consolidation_like": (-400.0, 100.0),
}
"""Bands of lung density in HU (low, high); vessels and airways inside a lobe are in."""


@dataclass(frozen=True)
class LobeMeasures:
    """What was measured in one predicted lobe.

    Attributes:
        lobe: which.
        voxels: size in voxels of the study.
        volume_ml: None where millimetres are not known.
        mean_hu: None where HU are not known, or the lobe is empty.
        bands: share of the lobe's voxels in each band of HU_BANDS, empty where HU are not known.
    """

    lobe: Lobe
    voxels: int
    volume_ml: float | None
    mean_hu: float | None
    bands: dict[str, float]


def measure_lobes(lobes: NDArray[np.uint8], volume: Volume) -> list[LobeMeasures]:
    """Measure each lobe of (Z, Y, X) labels on the study's LPS grid."""
    measured = []
    for lobe in Lobe:
        values = volume.array[lobes == lobe]
        hu = volume.intensity is Intensity.HU and values.size > 0
        bands = {name: float(np.mean((values >= low) & (values < high))) for name, (low, high) in HU_BANDS.items()} if hu else {}
        millilitres = None if volume.geometry is None else float(values.size * volume.geometry.voxel_ml)
        measured.append(LobeMeasures(lobe, int(values.size), millilitres, float(values.mean()) if hu else None, bands))
    return measured
