"""Which examinations a tree of DICOM files holds, and what is to be named so that the reader finds each."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from m2net.studies.dicom.headers import DAMAGED, read_header, text_of
from m2net.vocabulary import Modality

MODALITIES = {"CT": Modality.CT, "CR": Modality.CXR, "DX": Modality.CXR}
_TAGS = ["Modality", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "ViewPosition"]
_FRONTAL = ("PA", "AP", "")
_LOOKED_AT = 50  # members of a zip


class Examination(NamedTuple):
    """One study: what to read, of which kind, its masks, and of whom (PatientID, "" where none is known)."""

    image: Path
    modality: Modality
    masks: dict[str, Path]
    person: str = ""


class _File(NamedTuple):
    path: Path
    modality: str
    study: str
    series: str
    person: str
    view: str


def find_examinations(paths: Sequence[Path], raw: Path) -> tuple[list[Examination], Counter[str]]:
    """Examinations among files of any kind, and how many files were passed over, by reason.

    An examination is what StudyInstanceUID, PatientID, modality and the first folder below ``raw`` have in common, since anonymisers may
    write one identifier for all. A CT is named by the folder of all its series; where other examinations lie there too by the one with
    most of its files, or by a file of its largest series, which stands for the series. A radiograph is named by its file, the first
    frontal one.
    """
    found, passed = list[_File](), Counter[str]()
    for path in track(paths, "Looking into files", console=Console(stderr=True), transient=True):
        told = _told(path, path)
        if told is not None and told.modality in MODALITIES:
            found.append(told)
        elif told is not None:
            passed[f"DICOM files of {told.modality or 'no modality'}"] += 1
        elif path.suffix.lower() in (".dcm", ".ima"):
            passed["files whose DICOM header cannot be read"] += 1
    own: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for file in found:
        first = file.path.relative_to(raw).parts[0] if file.path.parent != raw else ""
        own[file.study or str(file.path.parent), file.person, str(MODALITIES[file.modality]), first].append(file)
    folders = Counter[Path]()
    for file in found:
        folders.update([file.path.parent, *file.path.parent.parents])
    examinations = []
    for files in own.values():
        if MODALITIES[files[0].modality] is Modality.CXR:
            image = _radiograph(files)
            passed["further radiographs of an examination"] += len(files) - 1
        else:
            image, read = _series(files, folders, raw)
            passed["DICOM files of series that lie among those of other examinations"] += len(files) - read
        examinations.append(Examination(image, MODALITIES[files[0].modality], {}, files[0].person))
    return examinations, +passed


def _told(path: Path, named: Path) -> _File | None:
    """What a header tells; None where there is none. pydicom complains of values, which may identify, when they are looked at."""
    header = read_header(path, _TAGS)
    if header is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _File(named, *(text_of(header, tag) for tag in ("Modality", *_TAGS[1:])))
        except DAMAGED:
            return None


def _radiograph(files: Sequence[_File]) -> Path:
    return min(files, key=lambda file: _FRONTAL.index(file.view) if file.view in _FRONTAL else len(_FRONTAL)).path


def _series(files: Sequence[_File], folders: Counter[Path], raw: Path) -> tuple[Path, int]:
    """What names a CT, and how many of its files are read then. ``folders``: DICOM images in each folder and below."""
    around = Path(os.path.commonpath([file.path.parent for file in files]))
    if folders[around] == len(files) and around != raw:
        return around, len(files)
    folder, count = Counter(file.path.parent for file in files).most_common(1)[0]
    if folders[folder] == count and folder != raw:
        return folder, count
    (folder, series), count = Counter((file.path.parent, file.series) for file in files).most_common(1)[0]
    return next(file.path for file in files if (file.path.parent, file.series) == (folder, series)), count


def look_into_zip(path: Path) -> Examination | None:
    """A zip as one examination, by the first image of CT or radiography in it; None where the first files are of something else.

    A zip that cannot be opened is taken for a CT: ``m2net verify`` says what is wrong with it.
    """
    strange = False
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="m2net-") as folder:
            target = Path(folder) / "member"
            for member in [m for m in archive.infolist() if not m.is_dir()][:_LOOKED_AT]:
                target.write_bytes(archive.read(member))
                told = _told(target, path)
                if told is not None and told.modality in MODALITIES:
                    return Examination(path, MODALITIES[told.modality], {}, told.person)
                strange = True
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError):
        return Examination(path, Modality.CT, {})
    return None if strange else Examination(path, Modality.CT, {})
