"""Which examinations a tree of DICOM files holds, and what is to be named so that the reader finds each."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from m2net.errors import BROKE
from m2net.studies.dicom.headers import DAMAGED, has_mark, read_header, text_of
from m2net.vocabulary import Modality

MODALITIES = {"CT": Modality.CT, "CR": Modality.CXR, "DX": Modality.CXR}
Passed = dict[str, list[Path]]
"""What was passed over, by reason."""

_TAGS = ["Modality", "StudyInstanceUID", "StudyDate", "SeriesInstanceUID", "PatientID", "ViewPosition", "ImageType"]
_FRONTAL = ("PA", "AP", "")
_HEADER_BYTES = 2**22  # of a zip's member: an image's header lies within


class Examination(NamedTuple):
    """One study: what to read, of which kind, its masks, and of whom (PatientID, "" where none is known)."""

    image: Path
    modality: Modality
    masks: dict[str, Path]
    person: str = ""


class _File(NamedTuple):
    path: Path
    first: str  # folder below the root
    modality: str
    study: str
    date: str
    series: str
    person: str
    view: str
    original: bool


def find_examinations(paths: Sequence[Path], raw: Path) -> tuple[list[Examination], Passed]:
    """Examinations among files of any kind, and what was passed over.

    An examination is what StudyInstanceUID, StudyDate, PatientID, modality and the first folder below ``raw`` have in common; where an
    anonymiser wrote one StudyInstanceUID for several patients, or none, each folder is one. A CT is named by the folder of all its series;
    where other examinations lie there too by the one with most of its images, or by a file of its largest series, which stands for the
    series. A radiograph is named by its file, the first frontal one.
    """
    found, passed = list[_File](), defaultdict[str, list[Path]](list)
    for path in track(paths, "Looking into files", console=Console(stderr=True), transient=True):
        told = _told(path, path, raw)
        if told is not None and told.modality in MODALITIES:
            found.append(told)
        elif told is not None and path.name.upper() != "DICOMDIR":
            passed[f"DICOM files of {told.modality or 'no modality'}"].append(path)
        elif told is None and _began(path):
            passed["files whose DICOM header cannot be read"].append(path)
    folders = Counter[Path]()
    for file in found:
        folders.update([file.path.parent, *file.path.parent.parents])
    examinations = []
    for files in _by_examination(found):
        modality = MODALITIES[files[0].modality]
        if modality is Modality.CXR:
            image = min(files, key=lambda file: _FRONTAL.index(file.view) if file.view in _FRONTAL else len(_FRONTAL)).path
            passed["further radiographs of an examination"] += [file.path for file in files if file.path != image]
        else:
            image, read = _series(files, folders, raw)
            left = [file.path for file in files if file not in read]
            passed["DICOM files of series that lie among those of other examinations"] += left
        examinations.append(Examination(image, modality, {}, files[0].person))
    return examinations, passed


def _by_examination(found: Iterable[_File]) -> list[list[_File]]:
    whose: dict[str, set[str]] = defaultdict(set)
    for file in found:
        whose[file.study].add(file.person or f"in {file.first}")
    own: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for file in found:
        told = file.study if file.study and len(whose[file.study]) == 1 else ""
        lone = file.path if MODALITIES[file.modality] is Modality.CXR else file.path.parent
        own[told or str(lone), file.date, file.person, str(MODALITIES[file.modality]), file.first].append(file)
    return list(own.values())


def _series(files: Sequence[_File], folders: Counter[Path], raw: Path) -> tuple[Path, set[_File]]:
    """What names a CT, and its files that are read then. ``folders``: DICOM images in each folder and below."""
    around = Path(os.path.commonpath([file.path.parent for file in files]))
    if folders[around] == len(files) and around != raw:
        return around, set(files)
    better = [file for file in files if file.original] or list(files)
    folder = Counter(file.path.parent for file in better).most_common(1)[0][0]
    inside = {file for file in files if file.path.parent == folder}
    if folders[folder] == len(inside) and folder != raw:
        return folder, inside
    (folder, series), _ = Counter((file.path.parent, file.series) for file in better).most_common(1)[0]
    read = {file for file in files if (file.path.parent, file.series) == (folder, series)}
    return min(file.path for file in read), read


def _told(path: Path, named: Path, raw: Path) -> _File | None:
    """What a header tells; None where there is none. pydicom complains of values, which may identify, when they are looked at."""
    header = read_header(path, _TAGS)
    if header is None:
        return None
    inside = named.relative_to(raw).parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kind = str(header.get("ImageType") or "").upper()
            modality, study, date, series, person, view = (text_of(header, tag) for tag in _TAGS[:-1])
        except DAMAGED:
            return None
    original = not any(word in kind for word in ("DERIVED", "SECONDARY", "LOCALIZER"))
    return _File(named, inside[0] if len(inside) > 1 else "", modality, study, date, series, person, view, original)


def _began(path: Path) -> bool:
    """Whether a file without a header that can be read is a DICOM file, or cannot be opened at all."""
    try:
        return has_mark(path)
    except OSError:
        return True


def look_into_zip(path: Path, raw: Path) -> Examination | None:
    """A zip as one examination, by the first image of CT or radiography in it; None where it holds none.

    A zip that cannot be opened, or only in part, is taken for a CT: ``m2net verify`` says what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="m2net-") as folder:
            target = Path(folder) / "member"
            for member in [m for m in archive.infolist() if not m.is_dir()]:
                with archive.open(member) as packed:
                    target.write_bytes(packed.read(_HEADER_BYTES))
                told = _told(target, path, raw)
                if told is not None and told.modality in MODALITIES:
                    return Examination(path, MODALITIES[told.modality], {}, told.person)
    except (*BROKE, zipfile.BadZipFile, OSError):
        return Examination(path, Modality.CT, {})
    return None
