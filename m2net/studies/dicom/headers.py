"""DICOM headers: from files to image planes, one record a plane."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from m2net.errors import StudyError

_TAGS = [
    "PatientID", "Modality", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SliceThickness", "Manufacturer",
    "ConvolutionKernel", "KVP", "SamplesPerPixel", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept", "ContrastBolusAgent",
    "PhotometricInterpretation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


_LEAST_BYTES = 132  # zeros, then DICOM's mark

DAMAGED = (RuntimeError, ValueError, EOFError, KeyError, AttributeError, OSError, struct.error, BytesLengthException)
"""What pydicom and SimpleITK raise on files that are cut off or overwritten, some of it only when a value is looked at."""


@dataclass(frozen=True)
class Frame:
    """One image plane, as its header tells.

    Attributes:
        path: file that holds it.
        index: frame within a multi-frame file, None in a file of one frame.
        patient: PatientID as written, only ever compared; "" if missing.
        study: StudyInstanceUID as written, only ever compared; "" if missing.
        series: SeriesInstanceUID as written, "" if missing.
        number: SeriesNumber, "" if missing.
        modality: as written.
        acquisition: AcquisitionNumber, "" if missing.
        image_type: values of ImageType in upper case.
        size: rows, columns.
        position: (3,) LPS mm of the first pixel, None if missing.
        orientation: (6,) direction of rows, then of columns; None if missing.
        spacing_mm: distance between rows, between columns; None if missing.
        kernel: ConvolutionKernel.
        thickness_mm: SliceThickness, None if missing.
        padding: PixelPaddingValue, None if missing.
        rescale: slope, intercept.
        samples: SamplesPerPixel.
        photometric: PhotometricInterpretation.
        tags: plain facts that identify nobody.
    """

    path: Path
    index: int | None
    patient: str
    study: str
    series: str
    number: str
    modality: str
    acquisition: str
    image_type: tuple[str, ...]
    size: tuple[int, int]
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    kernel: str
    thickness_mm: float | None
    padding: float | None
    rescale: tuple[float, float]
    samples: int
    photometric: str
    tags: dict[str, Any]

    @property
    def missing(self) -> list[str]:
        """Names of the geometry tags that are not there or not usable."""
        names = {
            "ImagePositionPatient": self.position,
            "ImageOrientationPatient": self.orientation,
            "PixelSpacing": self.spacing_mm,
        }
        return [name for name, value in names.items() if value is None]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector along which slices are stacked."""
        assert self.orientation is not None
        return np.cross(self.orientation[:3], self.orientation[3:])


def read_header(file: Path, tags: list[str] | None = None) -> Dataset | None:
    """Header without pixels, or None where the file is no DICOM data set."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # identifiers that break the rules for UIDs are common and harmless here
            try:
                return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags or _TAGS)  # type: ignore[arg-type]
            except InvalidDicomError:
                if not _lacks_preamble(file):
                    return None
                return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags or _TAGS, force=True)  # type: ignore[arg-type]
    except (InvalidDicomError, *DAMAGED):
        return None


def _lacks_preamble(file: Path) -> bool:
    """Some archives write data sets without the 128 bytes before them: group 0002 or 0008, little endian, at once."""
    with file.open("rb") as opened:
        start = opened.read(4)
    return len(start) == 4 and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0


def read_frames(files: Iterable[Path]) -> list[Frame]:
    """All image planes in ``files``; what is no DICOM image is passed over.

    Raises:
        StudyError: an image's header is damaged or cut off, or a file of the images' kind is empty.
    """
    frames: list[Frame] = []
    empty: list[Path] = []
    for file in files:
        header = read_header(file)
        if header is None and file.stat().st_size < _LEAST_BYTES and not file.read_bytes().strip(b"\0"):
            empty.append(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in read_header: pydicom checks values when they are looked at
            try:
                if header is not None and _whole(header, "Rows") and _whole(header, "Columns"):
                    frames += frames_of(file, header)
                elif _cut_off(file, header):
                    raise StudyError(f"{file} ends within its header", expected="a whole DICOM file", remedy="Copy it again")
            except DAMAGED as error:
                raise StudyError(f"{file} has a damaged header ({error})", expected="a whole DICOM file", remedy="Copy it again") from error
    endings = {_ending(frame.path) for frame in frames}
    if lost := [file for file in empty if _ending(file) in endings]:
        raise StudyError(
            f"{lost[0]} has {lost[0].stat().st_size} bytes", expected="a whole DICOM file", remedy="Copy it again, or remove it"
        )
    return frames


def _ending(file: Path) -> str:
    """A file's ending, none where it is the last number of a UID or of a slice."""
    return "" if file.suffix[1:].isdigit() else file.suffix.lower()


def has_mark(file: Path) -> bool:
    """Whether a file begins as a DICOM file does."""
    with file.open("rb") as opened:
        return opened.read(_LEAST_BYTES)[128:] == b"DICM"


def _cut_off(file: Path, header: Dataset | None) -> bool:
    """Whether a file without an image's size began as one: it has DICOM's mark, and its kind is an image or was not reached."""
    if not has_mark(file):
        return False
    kind = "" if header is None else getattr(getattr(header, "file_meta", None), "MediaStorageSOPClassUID", "")
    return not kind or "Image Storage" in UID(kind).name


def frames_of(file: Path, header: Dataset) -> list[Frame]:
    """The planes of one file: one, or those of an enhanced multi-frame image in the order of its pixels."""
    count = _whole(header, "NumberOfFrames") or 1
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if count == 1 and not per_frame:
        return [_frame(file, None, header, [header])]
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    own = list(per_frame or [])
    return [_frame(file, k, header, [*_groups(own[k : k + 1]), *_groups(shared), header]) for k in range(count)]


def _groups(items: list[Dataset]) -> list[Dataset]:
    """The macros inside functional groups: plane position, orientation, measures, value transformation, frame type."""
    return [macro for item in items for element in item if element.VR == "SQ" for macro in element.value]


def _frame(file: Path, index: int | None, header: Dataset, where: list[Dataset]) -> Frame:
    def numbers(tag: str, count: int) -> NDArray[np.float64] | None:
        return next((v for d in where if (v := _numbers(d, tag, count)) is not None), None)

    def one(tag: str) -> float | None:
        value = numbers(tag, 1)
        return None if value is None else float(value[0])

    orientation = numbers("ImageOrientationPatient", 6)
    if orientation is not None and not _at_right_angles(orientation):
        orientation = None
    spacing = numbers("PixelSpacing", 2)
    slope, intercept = one("RescaleSlope"), one("RescaleIntercept")
    image_type = next((d.get(t) for d in where for t in ("FrameType", "ImageType") if d.get(t)), ())
    kernel = next((text_of(d, "ConvolutionKernel") for d in where if text_of(d, "ConvolutionKernel")), "")
    return Frame(
        path=file, index=index, patient=text_of(header, "PatientID"), study=text_of(header, "StudyInstanceUID"),
        series=text_of(header, "SeriesInstanceUID"),
        number=text_of(header, "SeriesNumber"),
        modality=text_of(header, "Modality"), acquisition=text_of(header, "AcquisitionNumber"),
        image_type=tuple(str(v).upper() for v in ([image_type] if isinstance(image_type, str) else image_type)),
        size=(int(header.Rows), int(header.Columns)), position=numbers("ImagePositionPatient", 3), orientation=orientation,
        spacing_mm=None if spacing is None or spacing.min() <= 0 else (float(spacing[0]), float(spacing[1])), kernel=kernel,
        thickness_mm=one("SliceThickness"), padding=one("PixelPaddingValue"),
        rescale=(1.0 if slope is None else slope, 0.0 if intercept is None else intercept),
        samples=_whole(header, "SamplesPerPixel") or 1, photometric=text_of(header, "PhotometricInterpretation"),
        tags=_harmless_tags(header, kernel, one("SliceThickness")),
    )  # fmt: skip


def _at_right_angles(orientation: NDArray[np.float64]) -> bool:
    rows, columns = orientation[:3], orientation[3:]
    return bool(abs(rows @ rows - 1) < 1e-2 and abs(columns @ columns - 1) < 1e-2 and abs(rows @ columns) < 1e-2)


def _numbers(header: Dataset, tag: str, count: int) -> NDArray[np.float64] | None:
    try:
        value = header.get(tag)
        if value is None or value == "":
            return None
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError, OverflowError):
        return None
    return numbers if numbers.shape == (count,) and bool(np.isfinite(numbers).all()) else None


def _whole(header: Dataset, tag: str) -> int:
    value = _numbers(header, tag, 1)
    return 0 if value is None else int(value[0])


def text_of(header: Dataset, tag: str) -> str:
    """A tag's value, the first of several, as text; "" where it is missing or damaged."""
    try:
        value = header.get(tag)
    except (ValueError, TypeError):
        return ""
    if value is None:
        return ""
    return str(value[0] if not isinstance(value, (str, int, float)) and hasattr(value, "__getitem__") and len(value) else value).strip()


def _harmless_tags(header: Dataset, kernel: str, thickness: float | None) -> dict[str, Any]:
    tags: dict[str, Any] = {"manufacturer": text_of(header, "Manufacturer"), "kernel": kernel, "thickness_mm": thickness}
    kvp = _numbers(header, "KVP", 1)
    tags |= {"kvp": None if kvp is None else float(kvp[0]), "contrast": bool(text_of(header, "ContrastBolusAgent"))}
    return {k: v for k, v in tags.items() if v not in (None, "")}
