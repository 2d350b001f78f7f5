"""A study's voxels with their meaning and place, and masks on the same grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from m2net.errors import GeometryError, StudyError
from m2net.studies.geometry import Geometry, Orientation, to_lps
from m2net.vocabulary import MASK_CODES, Column, Intensity, Modality


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
        notes: what the reader found worth telling (one sentence each).
        tags: plain facts about the acquisition that identify nobody (manufacturer, kernel, thickness).
    """

    array: NDArray[np.int16]
    geometry: Geometry | None
    intensity: Intensity
    modality: Modality = Modality.CT
    orientation: Orientation = field(default_factory=Orientation)
    own_geometry: Geometry | None = None
    notes: tuple[str, ...] = ()
    tags: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_own(
        array: NDArray[np.int16], geometry: Geometry, *, notes: tuple[str, ...] = (), tags: dict[str, Any] | None = None
    ) -> Volume:
        """A CT volume from an array (Z, Y, X) on the study's own axes in HU."""
        turned, lps, orientation = to_lps(array, geometry)
        return Volume(turned, lps, Intensity.HU, Modality.CT, orientation, geometry, notes, tags or {})


def read_mask(path: Path, kind: Column, like: Volume) -> NDArray[np.uint8]:
    """Read a mask onto the grid of ``like``.

    Args:
        path: NIfTI/MHA/NRRD file, or a PNG for a study that is a PNG.
        kind: lobes, lungs or infection; fixes the codes that may occur.
        like: the image that the mask belongs to.

    Returns:
        (Z, Y, X) uint8 on LPS axes, the codes of DESIGN (255 = unlabelled).

    Raises:
        StudyError: unreadable, or codes outside the vocabulary.
        GeometryError: on another grid than the image.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise StudyError(
            f"the {kind} mask {path} cannot be read", expected="a NIfTI, MHA, NRRD or PNG mask", remedy="Check the file"
        ) from error
    if image.GetDimension() == 2:
        array = sitk.GetArrayFromImage(image)[None]
        geometry = None
    elif image.GetDimension() == 3:
        array, geometry, _ = to_lps(sitk.GetArrayFromImage(image), Geometry.of(image))
    else:
        raise StudyError(f"the {kind} mask {path} has {image.GetDimension()} dimensions", expected="2 or 3")
    if array.ndim != 3:
        raise StudyError(f"the {kind} mask {path} has colour channels", expected="one channel of codes")
    _check_grid(path, kind, array.shape, geometry, like)
    codes = {int(code) for code in np.unique(array)}
    if not np.array_equal(array, array.astype(np.uint8)) or not codes <= MASK_CODES[kind]:
        strange = sorted(codes - MASK_CODES[kind])[:5]
        raise StudyError(
            f"the {kind} mask {path} holds the codes {strange}",
            expected=f"only {sorted(MASK_CODES[kind])}",
            remedy="Recode the mask; see docs/reference/manifest.md",
        )
    return np.asarray(array, dtype=np.uint8)


def _check_grid(path: Path, kind: Column, shape: tuple[int, ...], geometry: Geometry | None, like: Volume) -> None:
    remedy = "Resample the mask to the image's grid with nearest neighbours"
    if shape != like.array.shape:
        raise GeometryError(
            f"the {kind} mask {path} has {shape} voxels (z, y, x)", expected=f"{like.array.shape} as its image", remedy=remedy
        )
    if geometry is not None and like.geometry is not None and not like.geometry.matches(geometry, shape):
        raise GeometryError(
            f"the {kind} mask {path} lies elsewhere in the patient than its image "
            f"(origin {geometry.origin_mm}, spacing {geometry.spacing_mm})",
            expected=f"origin {like.geometry.origin_mm}, spacing {like.geometry.spacing_mm}",
            remedy=remedy,
        )


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
