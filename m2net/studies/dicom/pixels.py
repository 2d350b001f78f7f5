"""Pixels of DICOM planes in HU: slope and intercept plane by plane, padding made air."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from m2net.errors import StudyError
from m2net.files import check_name
from m2net.studies.dicom.headers import DAMAGED, Frame
from m2net.studies.remarks import Remark

_THREADS = 4
_AIR_HU = -1024
_IMPOSSIBLE_HU = -1500  # below air by far: scanners fill the corners outside the field of view with such values


def read_planes(frames: tuple[Frame, ...]) -> tuple[NDArray[np.int16], list[Remark]]:
    """Pixels of all planes of one stack.

    Args:
        frames: planes in the wanted order.

    Returns:
        (n, rows, columns) int16 HU, and remarks.

    Raises:
        StudyError: pixels that cannot be decoded, or that do not fill the image.
    """
    array = np.empty((len(frames), *frames[0].size), np.int16)
    by_file: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        by_file.setdefault(frame.path, []).append(place)

    padding: dict[int, NDArray[np.bool_]] = {}

    def read(item: tuple[Path, list[int]]) -> None:
        places = item[1]
        planes = read_file([frames[p] for p in places])
        for place, plane in zip(places, planes, strict=True):
            array[place] = as_int16(plane)
            outside = _outside(plane, frames[place])
            if outside is not None:
                padding[place] = outside

    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        list(pool.map(read, by_file.items()))
    if not padding:
        return array, []
    scanned = (array[place][~padding[place]] if place in padding else array[place] for place in range(len(array)))
    air = 0 if all((values >= 0).all() for values in scanned) else _AIR_HU  # stored with an offset, air is 0
    for place, outside in padding.items():
        array[place][outside] = air
    share = 100 * sum(int(outside.sum()) for outside in padding.values()) / array.size
    return array, [Remark("padding", f"{share:.1f} % of the pixels were padding outside the scan; set to air.", harmless=True)]


def _outside(plane: NDArray[Any], frame: Frame) -> NDArray[np.bool_] | None:
    """Pixels that hold padding: the declared value, and anything far below air; None if there are none."""
    found = plane < _IMPOSSIBLE_HU if plane.min() < _IMPOSSIBLE_HU else None
    if frame.padding is not None:
        value = frame.padding * frame.rescale[0] + frame.rescale[1]
        if value < -900 or value > 3000:  # never a value of tissue, whatever the header says
            declared = plane == value
            found = declared if found is None else found | declared
    return found if found is not None and found.any() else None


def as_int16(values: NDArray[Any]) -> NDArray[np.int16]:
    """Rounded and clipped to int16; the same array if it is int16."""
    if values.dtype == np.int16:
        return values
    limits = np.iinfo(np.int16)
    return np.asarray(np.clip(np.rint(values), limits.min, limits.max), dtype=np.int16)


def read_file(frames: list[Frame]) -> list[NDArray[Any]]:
    """Rescaled planes (rows, columns) of frames that lie in one file.

    Raises:
        StudyError: pixels that cannot be decoded, or that do not fill the image.
    """
    path = frames[0].path
    try:
        if len({f.rescale for f in frames}) > 1:
            return _by_pydicom(path, frames)
        image = decoded(path, frames[0].photometric)
        pixels = sitk.GetArrayViewFromImage(image)  # lives no longer than the image
    except DAMAGED as error:
        raise StudyError(
            f"the pixels of {path} cannot be decoded", expected="a readable DICOM image", remedy="Export the series again"
        ) from error
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    wanted = [f.index or 0 for f in frames]
    if planes.shape[1:] != frames[0].size or len(planes) <= max(wanted):
        raise StudyError(
            f"{path} holds {planes.shape} pixels while its header says {frames[0].size}",
            expected="both alike",
            remedy="Export the series again",
        )
    return [np.array(planes[k]) for k in wanted]


def decoded(path: Path, photometric: str) -> sitk.Image:
    """A file as GDCM reads it, slope and intercept applied.

    GDCM turns MONOCHROME1 round, as for a screen. What a number stands for does not hang on that, so that such a file is read from a copy
    that says MONOCHROME2.

    Raises:
        StudyError: a name that cannot be handed over.
        RuntimeError: pixels that cannot be decoded.
    """
    check_name(path)
    if photometric != "MONOCHROME1":
        return sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    with tempfile.TemporaryDirectory(prefix="m2net-") as folder:
        data = pydicom.dcmread(path, force=True)
        data.PhotometricInterpretation = "MONOCHROME2"
        copy = Path(folder) / "copy.dcm"
        data.save_as(copy)
        return sitk.ReadImage(str(copy), imageIO="GDCMImageIO")


def _by_pydicom(path: Path, frames: list[Frame]) -> list[NDArray[Any]]:
    """Frames with a rescale of their own, which GDCM applies file by file only."""
    stored = pydicom.dcmread(path).pixel_array
    stored = stored.reshape(-1, *stored.shape[-2:])
    return [stored[f.index or 0].astype(np.float32) * f.rescale[0] + f.rescale[1] for f in frames]


def same_pixels(a: Frame, b: Frame) -> bool:
    """Whether two planes hold the same values."""
    return bool(np.array_equal(read_file([a])[0], read_file([b])[0]))
