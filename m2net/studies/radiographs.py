"""Radiographs from DICOM (CR, DX): as they are meant to be shown, scaled to 0..32767."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from m2net.errors import StudyError
from m2net.studies.dicom.headers import DAMAGED, read_header
from m2net.studies.dicom.pixels import decoded
from m2net.studies.dicom.sources import dicom_files
from m2net.studies.pictures import RELATIVE_MAX
from m2net.studies.remarks import Remark
from m2net.studies.volume import Volume
from m2net.vocabulary import Intensity, Modality

_MODALITIES = ("CR", "DX", "DR", "RG", "PX", "RF")
_TAGS = ["Modality", "Rows", "Columns", "ViewPosition", "SOPInstanceUID"]


def read_radiograph(path: Path) -> Volume:
    """Read one radiograph: a DICOM file, or a folder or zip with exactly one.

    The modality LUT, then the VOI LUT or window are applied; MONOCHROME1 is inverted after them. The shown range is scaled to
    0..32767 with the constants kept in ``tags`` (``low``, ``high``, ``inverted``); padding (PixelPaddingValue) is left out of it and
    black. ``pixel_mm`` is PixelSpacing, or the spacing
    on the detector, which a body in front of it is enlarged on.

    Raises:
        StudyError: none or several images, another modality, colour, several frames, pixels that cannot be decoded, or an image that its
            header calls mirrored, turned or lateral (PatientOrientation other than left, foot).
    """
    with dicom_files(path) as files:
        candidates = [path] if path in files else files
        found = [(f, h) for f in candidates if (h := read_header(f, _TAGS)) is not None and h.get("Rows")]
        images = [(f, h) for f, h in found if str(h.get("Modality", "")) in _MODALITIES]
        if not images:
            said = ", ".join(sorted({str(h.get("Modality", "nothing")) for _, h in found})) or "no DICOM image"
            raise StudyError(
                f"{path} holds {said}", expected=f"a radiograph ({', '.join(_MODALITIES)})", remedy="Check the path and the modality column"
            )
        if len(images) > 1:
            views = ", ".join(str(h.get("ViewPosition", "") or "?") for _, h in images[:6])
            raise StudyError(
                f"{path} holds {len(images)} radiographs (views {views})", expected="one", remedy="Name the file of the frontal view"
            )
        return _read(images[0][0])


def _read(file: Path) -> Volume:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(file, force=True)
    if int(header.get("SamplesPerPixel", 1) or 1) != 1 or int(header.get("NumberOfFrames", 1) or 1) != 1:
        raise StudyError(f"{file} has colour or several frames", expected="one grey radiograph", remedy="Give the original image")
    _check_orientation(file, header)
    shown, padded = _shown(file, header)
    within = shown[~padded] if not padded.all() else shown
    low, high = float(within.min()), float(within.max())
    if high <= low:
        raise StudyError(f"{file} is an image of one grey value", expected="a radiograph", remedy="Export it again")
    inverted = str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    share = (shown - low) / (high - low)
    scaled = np.rint(np.where(padded, 0, 1 - share if inverted else share) * RELATIVE_MAX).astype(np.int16)
    pixel, remarks = _pixel_mm(header)
    tags = {"low": low, "high": high, "inverted": inverted, "view": str(header.get("ViewPosition", "") or "")}
    return Volume(scaled[None], None, Intensity.RELATIVE, Modality.CXR, remarks=tuple(remarks), tags=tags, pixel_mm=pixel)


def _check_orientation(file: Path, header: Dataset) -> None:
    """Columns grow to the patient's left, rows to the feet; a header that does not say so is believed to mean it."""
    told = [str(v).strip().upper() for v in header.get("PatientOrientation") or ()]
    if len(told) != 2 or not all(told) or (told[0][0], told[1][0]) == ("L", "F"):
        return
    lateral = told[0][0] in "AP" or told[1][0] in "AP"
    raise StudyError(
        f"{file} has rows to {told[0]} and columns to {told[1]} (PatientOrientation)", expected="a frontal radiograph, L and F",
        remedy="Give the frontal view" if lateral else "Turn it, the patient's left to the picture's right, and mend the header",
    )  # fmt: skip


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that PixelPaddingValue, up to PixelPaddingRangeLimit, says are none."""
    try:
        first = int(header["PixelPaddingValue"].value)
        last = int(header.get("PixelPaddingRangeLimit", first) or first)
    except (KeyError, TypeError, ValueError):
        return np.zeros(stored.shape, np.bool_)
    return np.asarray((stored >= min(first, last)) & (stored <= max(first, last)))


def _shown(file: Path, header: Dataset) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as they are meant to be shown, and which are padding."""
    try:
        try:
            stored: NDArray[Any] = header.pixel_array
            padded = _padding(header, stored)
            stored = apply_modality_lut(stored, header)
        except RuntimeError:  # a compression that pydicom has no decoder for here; GDCM has
            image = decoded(file, str(header.get("PhotometricInterpretation", "")))
            stored = sitk.GetArrayFromImage(image).reshape(int(header.Rows), int(header.Columns))
            padded = _padding(header, stored)
        _widen_lut(header)
        return np.asarray(apply_voi_lut(stored, header), dtype=np.float64), padded
    except (*DAMAGED, TypeError, IndexError, OverflowError) as error:
        raise StudyError(f"the pixels of {file} cannot be decoded", expected="a readable DICOM image", remedy="Export it again") from error


def _widen_lut(header: Dataset) -> None:
    """Say of a table of 8-bit values that they have 16: pydicom counts its entries, which are more than 256, in the type of its values."""
    for item in header.get("VOILUTSequence") or []:
        entries, first, depth = item.LUTDescriptor
        if depth == 8:
            item.LUTDescriptor = [entries, first, 16]


def _pixel_mm(header: Dataset) -> tuple[tuple[float, float] | None, list[Remark]]:
    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(v) for v in header.get(tag) or ())
        except (ValueError, TypeError):
            continue
        if min(row, column) > 0:
            detector = tag == "ImagerPixelSpacing"
            said = "Pixel spacing is that of the detector: lengths in the body are smaller."
            return (row, column), [Remark("spacing", said, harmless=True)] if detector else []
    return None, []
