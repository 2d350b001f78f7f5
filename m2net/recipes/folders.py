"""A hospital's own folders to a manifest that waits for its labels."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from m2net.errors import ConfigError
from m2net.recipes.table import Row, natural, row, write
from m2net.studies import PICTURE_ENDINGS, VOLUME_ENDINGS
from m2net.studies.dicom.headers import read_header
from m2net.vocabulary import MASK_COLUMNS, Column, Modality

TO_FILL_IN = (Column.DIAGNOSIS, Column.SEVERITY, Column.SEVERITY_SCHEME, Column.INFECTED, Column.SITE)
"""Columns that are written empty: no header tells them."""

_MODALITIES = {"CT": Modality.CT, "CR": Modality.CXR, "DX": Modality.CXR}
_MASK = re.compile(rf"(?:(.*)[_\-. ])?({'|'.join(MASK_COLUMNS)})", re.IGNORECASE)


class Examination(NamedTuple):
    """One study: what to read, of which kind, its masks, and of whom (PatientID, "" where none is known)."""

    image: Path
    modality: Modality
    masks: dict[str, Path]
    person: str = ""


def folders(raw: Path, manifest: Path) -> int:
    """Any folder of CT or radiographs in DICOM (folders, zips), and of CT in NIfTI, MHA or NRRD.

    The first folder below ``raw`` names the patient; folders whose DICOM headers hold one PatientID are one patient, so that none is in
    training and test at once. A DICOM examination (StudyInstanceUID) is one study, whose series the reader chooses among. Volumes named
    ``lobes``, ``lungs`` or ``infection`` are masks: behind an image's name (``anna_lobes.nii.gz`` beside ``anna.nii.gz``) of that image,
    else of the only study in their folder and below. Pictures are passed over, since nothing says whether they are slices or radiographs.
    What is passed over is said.

    Raises:
        ConfigError: the manifest is there already: labels may have been filled in.
        StudyError: no study.
    """
    if manifest.exists():
        raise ConfigError(f"{manifest} is there already", expected="a new file, for labels may stand in it", remedy="Give another --out")
    files = [path for path in sorted(raw.rglob("*"), key=natural) if path.is_file() and not _hidden(path.relative_to(raw))]
    masks = [path for path in files if path.name.lower().endswith(VOLUME_ENDINGS) and _MASK.fullmatch(_stem(path))]
    whole = [path for path in files if path.name.lower().endswith((*VOLUME_ENDINGS, ".zip")) and path not in masks]
    pictures = [path for path in files if path.name.lower().endswith(PICTURE_ENDINGS)]
    known = {path for path in files if path.name.lower().endswith((*VOLUME_ENDINGS, *PICTURE_ENDINGS, ".zip"))}
    dicom = list(_dicom([path for path in files if path not in known], raw))
    found = sorted([*(Examination(path, Modality.CT, {}) for path in whole), *dicom], key=lambda one: natural(one.image))
    left = _attach(masks, found)
    patients = _patients(found, raw)
    count = write(manifest, _rows(found, patients, raw, manifest), raw, "DICOM, zip, NIfTI, MHA or NRRD file of a CT or radiograph")
    print(f"{len(set(patients))} patients. Fill in {', '.join(TO_FILL_IN)} where they are known.", file=sys.stderr)
    for paths, what in ((left, "masks without an image"), (pictures, "pictures, which may be slices or radiographs")):
        if paths:
            print(f"Passed over {what}: {len(paths)} ({paths[0].relative_to(raw)}).", file=sys.stderr)
    return count


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _attach(masks: Iterable[Path], found: Sequence[Examination]) -> list[Path]:
    """Give each mask to the image that its name begins with, else to the only study in its folder and below; returns those left."""
    left = []
    for path in masks:
        named = _MASK.fullmatch(_stem(path))
        assert named is not None
        below = [one for one in found if one.image.is_relative_to(path.parent)]
        beside = [one for one in below if one.image.parent == path.parent and _stem(one.image) == named[1]]
        if of := beside or (below if len(below) == 1 else []):
            of[0].masks[named[2].lower()] = path
        else:
            left.append(path)
    return left


def _stem(path: Path) -> str:
    return next((path.name[: -len(e)] for e in (*VOLUME_ENDINGS, ".zip") if path.name.lower().endswith(e)), path.name)


def _dicom(paths: Iterable[Path], raw: Path) -> Iterator[Examination]:
    """Examinations, each with the folder of all its series where that holds no other's, else with that of its largest."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        by_folder[path.parent].append(path)
    series: dict[tuple[str, Modality], list[Path]] = defaultdict(list)
    person: dict[Path, str] = {}
    looking = track(by_folder.items(), "Looking into folders", console=Console(stderr=True), transient=True)
    for folder, together in looking:
        headers = (read_header(path, ["Modality", "StudyInstanceUID", "PatientID"]) for path in together)
        header = next((h for h in headers if h is not None and h.get("Modality") in _MODALITIES), None)
        if header is not None:
            series[str(header.get("StudyInstanceUID") or folder), _MODALITIES[header.Modality]].append(folder)
            person[folder] = str(header.get("PatientID") or "").strip()
    for (_, modality), own in series.items():
        around = Path(os.path.commonpath(own))
        others = (folder for folder in person if folder not in own)
        if around == raw or any(folder.is_relative_to(around) for folder in others):
            around = max(own, key=lambda folder: len(by_folder[folder]))
        yield Examination(around, modality, {}, person[own[0]])


def _patients(found: list[Examination], raw: Path) -> list[str]:
    """The patient of each examination. One PatientID in all folders is an anonymiser's, and links nobody."""
    names = [_names(one, raw)[0] for one in found]
    held = {name for one, name in zip(found, names, strict=True) if one.person}
    if len({one.person for one in found if one.person}) == 1 and len(held) > 1:
        print("Every DICOM header holds the same PatientID: the first folders alone tell patients apart.", file=sys.stderr)
        return names
    linked, first = {name: name for name in names}, dict[str, str]()

    def patient(name: str) -> str:
        return name if linked[name] == name else patient(linked[name])

    for one, name in zip(found, names, strict=True):
        other = first.setdefault(one.person, name) if one.person else name
        if patient(other) != patient(name):
            print(f"{name} and {other} hold the same PatientID, and are one patient.", file=sys.stderr)
            linked[patient(name)] = patient(other)
    return [patient(name) for name in names]


def _names(one: Examination, raw: Path) -> tuple[str, ...]:
    """Folders and the file from ``raw`` to an image, without its ending."""
    parts = one.image.relative_to(raw).parts
    return (*parts[:-1], _stem(one.image)) if parts else (raw.resolve().name,)


def _rows(found: list[Examination], patients: list[str], raw: Path, manifest: Path) -> Iterator[Row]:
    seen: Counter[str] = Counter()
    empty = dict.fromkeys(map(str, TO_FILL_IN))
    for one, patient in zip(found, patients, strict=True):
        name = "_".join(_names(one, raw))
        seen[name] += 1
        study = name if seen[name] == 1 else f"{name}-{seen[name]}"
        yield row(manifest, study, patient, one.modality, one.image, **one.masks, **empty)
