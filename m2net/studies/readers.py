"""Open whatever a manifest or a user names as an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from m2net.errors import GeometryError, StudyError
from m2net.studies.dicom import read_dicom
from m2net.studies.geometry import Geometry
from m2net.studies.volume import Volume
from m2net.vocabulary import Intensity

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
RELATIVE_MAX = 32767


def read_image(path: Path) -> Volume:
    """Read a study's image.

    Args:
        path: a DICOM folder or file, a NIfTI/MHA/NRRD file, or a PNG/JPG slice.

    Returns:
        A volume on LPS axes; int16 HU for CT, relative intensity without geometry for a picture.

    Raises:
        StudyError: missing, unreadable or of a kind that m2net does not read.
        GeometryError: the geometry is missing or contradictory.
    """
    if not path.exists():
        raise StudyError(f"{path} does not exist", expected="an image file or a DICOM folder", remedy="Check the path")
    name = path.name.lower()
    if name.endswith(PICTURE_ENDINGS) and path.is_file():
        return _read_picture(path)
    if name.endswith(VOLUME_ENDINGS) and path.is_file():
        return _read_volume_file(path)
    return read_dicom(path)


def _load(path: Path, expected: str) -> sitk.Image:
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        size = path.stat().st_size
        raise StudyError(
            f"{path} cannot be read as an image ({size} bytes)", expected=expected, remedy="Check that it was copied whole"
        ) from error


def _read_volume_file(path: Path) -> Volume:
    image = _load(path, "a NIfTI, MHA or NRRD volume")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise StudyError(
            f"{path} has {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} components a voxel",
            expected="a three-dimensional volume with one value a voxel",
            remedy="Split time points or channels into files of their own",
        )
    codes = [image.GetMetaData(k) for k in ("qform_code", "sform_code") if image.HasMetaDataKey(k)]
    if codes and all(int(float(code)) == 0 for code in codes):
        raise GeometryError(
            f"{path} does not say how it lies in the patient (qform and sform codes are 0)", expected="a header with an orientation",
            remedy="Convert the original series again; m2net never invents a geometry",
        )  # fmt: skip
    values = sitk.GetArrayFromImage(image)
    if not np.isfinite(values).all():
        raise StudyError(f"{path} holds NaN or infinite values", expected="HU in every voxel", remedy="Export it again")
    if min(image.GetSize()) < 2:
        raise GeometryError(f"{path} has size {image.GetSize()}", expected="at least two voxels along each axis")
    if values.dtype != np.int16:
        limits = np.iinfo(np.int16)
        values = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    if values.min() >= 0:
        raise StudyError(
            f"{path} has no negative value (from {values.min()} to {values.max()})",
            expected="HU, with air near -1000",
            remedy="Subtract the offset it was stored with (often 1024)",
        )
    return Volume.from_own(values, Geometry.of(image))


def _read_picture(path: Path) -> Volume:
    """A single CT slice in display convention (image left = patient right, top = anterior); no geometry is known."""
    image = _load(path, "a picture with one grey channel")
    pixels = sitk.GetArrayFromImage(image)
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        if np.ptp(pixels[..., :3].astype(np.int32), axis=-1).max() > 8:
            raise StudyError(f"{path} is a colour picture", expected="a grey CT slice", remedy="Export the slice in grey")
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.unsignedinteger):
        raise StudyError(f"{path} has shape {pixels.shape} of {pixels.dtype}", expected="one grey slice of 8 or 16 bit")
    top = np.iinfo(pixels.dtype).max
    scaled = np.rint(pixels.astype(np.float32) * (RELATIVE_MAX / top)).astype(np.int16)
    note = "A picture without HU or geometry: relative intensity; image left is taken to be the patient's right."
    return Volume(scaled[None], None, Intensity.RELATIVE, notes=(note,), tags={"picture_max": int(top)})
