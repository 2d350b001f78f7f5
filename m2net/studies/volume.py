"""A study's voxels with their meaning and place, and masks on the same grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from m2net.errors import GeometryError
from m2net.studies.geometry import Geometry, Orientation, to_lps
from m2net.studies.remarks import Remark
from m2net.vocabulary import Intensity, Modality


@dataclass(frozen=True)
class Volume:
    """One image of a study.

    Attributes:
        array: (Z, Y, X) int16, LPS axes (x left, y posterior, z superior). HU, or 0..32767 where ``intensity`` is relative.
        geometry: grid of ``array`` in mm, None where the file does not say (a PNG slice).
        intensity: what the values mean.
        modality: CT or radiograph.
        orientation: the way back to the study's own axes.
        own_geometry: grid on the study's own axes, None with ``geometry``.
        remarks: what the reader found worth telling.
        tags: plain facts about the acquisition that identify nobody (manufacturer, kernel, thickness), and the constants that a
            radiograph was scaled with.
        pixel_mm: distance between rows and between columns of a radiograph where its file says; on the detector unless calibrated.
    """

    array: NDArray[np.int16]
    geometry: Geometry | None
    intensity: Intensity
    modality: Modality = Modality.CT
    orientation: Orientation = field(default_factory=Orientation)
    own_geometry: Geometry | None = None
    remarks: tuple[Remark, ...] = ()
    tags: dict[str, Any] = field(default_factory=dict)
    pixel_mm: tuple[float, float] | None = None

    @staticmethod
    def from_own(
        array: NDArray[np.int16], geometry: Geometry, *, remarks: tuple[Remark, ...] = (), tags: dict[str, Any] | None = None
    ) -> Volume:
        """A CT volume from an array (Z, Y, X) on the study's own axes in HU."""
        turned, lps, orientation = to_lps(array, geometry)
        return Volume(turned, lps, Intensity.HU, Modality.CT, orientation, geometry, remarks, tags or {})

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks as sentences."""
        return tuple(str(r) for r in self.remarks)


def write_on_own_grid(path: Path, array: NDArray[Any], like: Volume) -> None:
    """Write an LPS array (Z, Y, X) on the study's own grid and orientation.

    Args:
        path: file to write; the ending chooses the format (.nii.gz, .mha, .nrrd, .png).
        array: on the LPS grid of ``like``.
        like: the study's image.

    Raises:
        GeometryError: if the shapes differ.
    """
    if array.shape != like.array.shape:
        raise GeometryError(f"a result has {array.shape} voxels", expected=f"{like.array.shape} as its study")
    own = like.orientation.from_lps(array)
    if like.own_geometry is None:
        sitk.WriteImage(sitk.GetImageFromArray(own[0]), str(path))
        return
    sitk.WriteImage(like.own_geometry.place(sitk.GetImageFromArray(own)), str(path), useCompression=True, compressionLevel=1)
