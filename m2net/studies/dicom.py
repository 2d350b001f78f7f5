"""One DICOM CT series in a folder: sorted by position along the slice normal, slope and intercept slice by slice."""

from __future__ import annotations

import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from m2net.errors import GeometryError, StudyError
from m2net.studies.geometry import Geometry
from m2net.studies.volume import Volume

_TAGS = [
    "Modality", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "Rows", "Columns", "NumberOfFrames", "SliceThickness", "Manufacturer", "ConvolutionKernel", "KVP",
    "SamplesPerPixel",
]  # fmt: skip
_UNEVEN = 0.05  # share of the median slice distance by which a gap may differ
_TILT_MM = 0.5  # in-plane drift of the slice positions over the whole stack


@dataclass(frozen=True)
class _Slice:
    path: Path
    position: NDArray[np.float64]  # LPS mm of the first pixel
    header: pydicom.Dataset


def read_dicom(path: Path) -> Volume:
    """Read one axial CT series: a folder, or one of its files, which stands for its series in the same folder.

    Raises:
        StudyError: no DICOM image, several series, not CT, or pixels that cannot be decoded.
        GeometryError: positions missing, duplicated, uneven or sheared (gantry tilt).
    """
    folder = path if path.is_dir() else path.parent
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if path.is_dir() else sorted(p for p in folder.iterdir() if p.is_file())
    headers = _read_headers(files)
    if path.is_file():
        series = [h.get("SeriesInstanceUID") for file, h in headers if file == path]
        headers = [(file, h) for file, h in headers if series and h.get("SeriesInstanceUID") == series[0]]
    if not headers:
        raise StudyError(
            f"{path} holds no DICOM image ({len(files)} files looked at)",
            expected="a folder with one CT series",
            remedy="Check the path, or export the series again",
        )
    _check_one_series(path, headers)
    normal, slices = _sort(path, headers)
    spacing_z = _slice_distance(path, slices, normal)
    header = slices[0].header
    row_mm, column_mm = (float(v) for v in header.PixelSpacing)
    along_x, along_y = np.asarray(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    geometry = Geometry.build((spacing_z, row_mm, column_mm), slices[0].position, np.stack([along_x, along_y, normal], axis=1))
    array = _read_pixels(slices, (int(header.Rows), int(header.Columns)))
    notes = _notes(header, spacing_z)
    return Volume.from_own(array, geometry, notes=notes, tags=_harmless_tags(header))


def _read_headers(files: list[Path]) -> list[tuple[Path, pydicom.Dataset]]:
    found = []
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # identifiers that break the rules for UIDs are common and harmless here
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)  # type: ignore[arg-type]
        except (InvalidDicomError, OSError, ValueError, EOFError):
            continue
        if "Rows" in header and "Columns" in header:
            found.append((file, header))
    return found


def _check_one_series(path: Path, headers: list[tuple[Path, pydicom.Dataset]]) -> None:
    series = Counter(str(header.get("SeriesInstanceUID", "")) for _, header in headers)
    if len(series) > 1:
        counts = ", ".join(str(n) for _, n in series.most_common(5))
        raise StudyError(
            f"{path} holds {len(series)} series ({counts} images)", expected="one series", remedy="Give each series its own folder"
        )
    modality = str(headers[0][1].get("Modality", "")) or "nothing"
    if modality != "CT":
        raise StudyError(f"{path} says its modality is {modality}", expected="CT", remedy="Give a CT series")
    if any(int(h.get("SamplesPerPixel", 1) or 1) > 1 for _, h in headers):
        raise StudyError(f"{path} holds colour images", expected="CT slices in HU", remedy="Give the original series")
    if any(int(h.get("NumberOfFrames", 1) or 1) > 1 for _, h in headers):
        raise StudyError(f"{path} is a multi-frame image", expected="one file a slice", remedy="Export as single slices")


def _sort(path: Path, headers: list[tuple[Path, pydicom.Dataset]]) -> tuple[NDArray[np.float64], list[_Slice]]:
    remedy = "Export the series again with its geometry; m2net never invents one"
    for file, header in headers:
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if not header.get(tag):
                raise GeometryError(f"{file} has no {tag}", expected="every slice to have it", remedy=remedy)
    shape = {(int(h.Rows), int(h.Columns)) for _, h in headers}
    orientations = np.array([[float(v) for v in h.ImageOrientationPatient] for _, h in headers])
    spacings = np.array([[float(v) for v in h.PixelSpacing] for _, h in headers])
    if len(shape) > 1 or np.ptp(orientations, axis=0).max() > 1e-3 or np.ptp(spacings, axis=0).max() > 1e-3:
        raise GeometryError(
            f"{path} mixes slices of different size, spacing or orientation",
            expected="one regular stack",
            remedy="Remove scouts and reformats from the folder",
        )
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    slices = [_Slice(file, np.array([float(v) for v in h.ImagePositionPatient]), h) for file, h in headers]
    return normal, sorted(slices, key=lambda s: float(s.position @ normal))


def _slice_distance(path: Path, slices: list[_Slice], normal: NDArray[np.float64]) -> float:
    """Distance between neighbouring slices in mm, from the positions alone (SliceThickness is not a distance)."""
    if len(slices) == 1:
        raise GeometryError(f"{path} holds a single slice", expected="at least two", remedy="Give the whole series")
    positions = np.array([s.position for s in slices])
    along = positions @ normal
    gaps = np.diff(along)
    median = float(np.median(gaps))
    if gaps.min() < 1e-3:
        first = int(np.argmin(gaps))
        raise GeometryError(
            f"{path} has two slices at the same place ({along[first]:.2f} mm: {slices[first].path.name}, {slices[first + 1].path.name})",
            expected="one slice a place",
            remedy="Remove the duplicates",
        )
    if np.abs(gaps - median).max() > _UNEVEN * median:
        raise GeometryError(
            f"{path} has uneven slice distances ({gaps.min():.2f} to {gaps.max():.2f} mm, median {median:.2f})",
            expected="even distances",
            remedy="Find the missing slices, or resample the series",
        )
    drift = positions - positions[0] - np.outer(along - along[0], normal)
    if np.abs(drift).max() > _TILT_MM:
        raise GeometryError(
            f"{path} is sheared by {np.abs(drift).max():.1f} mm over the stack (gantry tilt)",
            expected="slices stacked along their normal",
            remedy="Resample the series to a regular grid first",
        )
    return float((along[-1] - along[0]) / (len(slices) - 1))


def _read_pixels(slices: list[_Slice], size: tuple[int, int]) -> NDArray[np.int16]:
    array = np.empty((len(slices), *size), dtype=np.int16)

    def read(index: int) -> None:
        path = slices[index].path
        try:
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))  # slope and intercept applied
        except RuntimeError as error:
            raise StudyError(
                f"the pixels of {path} cannot be decoded", expected="a readable DICOM image", remedy="Export the series again"
            ) from error
        plane = pixels.reshape(size)
        limits = np.iinfo(np.int16)
        array[index] = plane if plane.dtype == np.int16 else np.clip(np.rint(plane), limits.min, limits.max)

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(read, range(len(slices))))
    return array


def _notes(header: pydicom.Dataset, spacing_z: float) -> tuple[str, ...]:
    thickness = header.get("SliceThickness")
    if thickness and abs(float(thickness) - spacing_z) > 0.1 * spacing_z:
        return (f"Slices lie {spacing_z:.2f} mm apart while SliceThickness says {float(thickness):.2f} mm; positions are used.",)
    return ()


def _harmless_tags(header: pydicom.Dataset) -> dict[str, Any]:
    tags: dict[str, Any] = {}
    for name in ("Manufacturer", "ConvolutionKernel", "KVP", "SliceThickness"):
        value = header.get(name)
        if value not in (None, ""):
            tags[name] = float(value) if name in ("KVP", "SliceThickness") else str(value)
    return tags
