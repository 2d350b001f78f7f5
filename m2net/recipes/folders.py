"""A hospital's own folders to a manifest that waits for its labels."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from m2net.errors import ConfigError, StudyError
from m2net.recipes.dicom_folders import Examination, find_examinations, look_into_zip
from m2net.recipes.table import Row, natural, row, write
from m2net.studies import PICTURE_ENDINGS, VOLUME_ENDINGS
from m2net.studies.labels import code_of
from m2net.vocabulary import MASK_COLUMNS, Column, Modality

TO_FILL_IN = (Column.DIAGNOSIS, Column.SEVERITY, Column.SEVERITY_SCHEME, Column.INFECTED, Column.SITE)
"""Columns that are written empty: no header tells them."""

_MASK = re.compile(rf"(?:(.*)[_\-. ])?({'|'.join(MASK_COLUMNS)})", re.IGNORECASE)
_MASK_LIKE = re.compile(r"seg|mask|label|lung|lobe|lesion|infect", re.IGNORECASE)


def folders(raw: Path, manifest: Path) -> int:
    """Any folder of CT or radiographs in DICOM (folders, zips), and of CT in NIfTI, MHA or NRRD.

    Studies and how they are named: see ``find_examinations``. The first folder below ``raw`` names the patient; folders that hold one
    PatientID are one patient, so that none is in training and test at once. Volumes named ``lobes``, ``lungs`` or ``infection`` are masks:
    behind an image's name (``anna_lobes.nii.gz`` beside ``anna.nii.gz``) of that image, by themselves of the only study in their folder
    and below. A folder of volumes that are named as lobes (TotalSegmentator's) is the lobe mask of the only study beside it. What is passed
    over is said: pictures, since nothing tells slices from radiographs, volumes named as masks of other kinds, other modalities.

    Raises:
        ConfigError: the manifest is there already (labels may have been filled in), or would lie among the files of a study.
        StudyError: no study.
    """
    if manifest.exists():
        raise ConfigError(f"{manifest} is there already", expected="a new file, for labels may stand in it", remedy="Give another --out")
    found, passed = _find(raw)
    told = "".join(f" Passed over: {count} {what}." for what, count in passed.items() if count)
    if not found:
        raise StudyError(
            f"{raw} holds no CT or radiograph.{told}", expected="DICOM, zip, NIfTI, MHA or NRRD files", remedy="Check the path"
        )
    if any(_among_files(manifest, one) for one in found):
        raise ConfigError(f"{manifest} would lie among a study's files", expected="another folder", remedy="Give --out")
    patients = _patients(found, raw)
    count = write(manifest, _rows(found, patients, raw, manifest), raw, "study")
    print(f"{len(set(patients))} patients.{told} Fill in {', '.join(TO_FILL_IN)} where they are known.", file=sys.stderr)
    return count


def _find(raw: Path) -> tuple[list[Examination], Counter[str]]:
    """All studies with their masks, and how many files were passed over, by reason."""
    files = [path for path in sorted(raw.rglob("*"), key=natural) if path.is_file() and not _hidden(path.relative_to(raw))]
    volumes = [path for path in files if path.name.lower().endswith(VOLUME_ENDINGS)]
    zips = [path for path in files if path.suffix.lower() == ".zip"]
    pictures = [path for path in files if path.name.lower().endswith(PICTURE_ENDINGS)]
    known = {*volumes, *zips, *pictures}
    dicom, passed = find_examinations([path for path in files if path not in known], raw)
    packed = [one for path in zips if (one := look_into_zip(path)) is not None]
    images, masks, other = _sorted_out(volumes)
    found = sorted([*dicom, *packed, *(Examination(path, Modality.CT, {}) for path in images)], key=lambda one: natural(one.image))
    passed["pictures, which may be slices or radiographs"] = len(pictures)
    passed["zips without a CT or radiograph"] = len(zips) - len(packed)
    passed["masks of no image, or a second of one"] = len(_attach(masks, found))
    passed["volumes named as masks of another kind"] = len(other)
    passed["volumes beside those of a lobe each"] = sum(
        path.parent in masks and code_of(_stem(path), Column.LOBES) is None for path in volumes
    )
    passed["links to folders"] = sum(path.is_symlink() and path.is_dir() for path in raw.rglob("*"))
    return found, passed


def _among_files(manifest: Path, one: Examination) -> bool:
    """Whether a manifest would be a file of the study, which then changes with every label."""
    folder, image = manifest.parent.resolve(), one.image.resolve()
    if image.is_dir():
        return folder.is_relative_to(image)
    return one.modality is Modality.CT and folder == image.parent and not image.name.lower().endswith((*VOLUME_ENDINGS, ".zip"))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _sorted_out(volumes: Sequence[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Images, masks (a folder for one of a file a lobe), and volumes that are named as masks of another kind."""
    lobes = {path.parent for path in volumes if not _MASK.fullmatch(_stem(path)) and code_of(_stem(path), Column.LOBES) is not None}
    apart = [path for path in volumes if path.parent not in lobes]
    masks = [path for path in apart if _MASK.fullmatch(_stem(path))]
    other = [path for path in apart if path not in masks and _MASK_LIKE.search(_stem(path))]
    return [path for path in apart if path not in masks and path not in other], [*masks, *sorted(lobes)], other


def _attach(masks: Iterable[Path], found: Sequence[Examination]) -> list[Path]:
    """Give each mask to its image; those that have none, or come second, are returned."""
    left = []
    for path in masks:
        named = _MASK.fullmatch(_stem(path)) if path.is_file() else None
        kind = named[2].lower() if named else str(Column.LOBES)
        below = [one for one in found if one.image.is_relative_to(path.parent)]
        if named and named[1] is not None:
            below = [one for one in below if one.image.parent == path.parent and _stem(one.image) == named[1]]
        if len(below) == 1 and kind not in below[0].masks:
            below[0].masks[kind] = path
        else:
            left.append(path)
    return left


def _stem(path: Path) -> str:
    whole = next((path.name[: -len(e)] for e in (*VOLUME_ENDINGS, ".zip", ".dcm") if path.name.lower().endswith(e)), path.name)
    return whole.removesuffix(".seg")


def _patients(found: list[Examination], raw: Path) -> list[str]:
    """The patient of each examination: its first folder, and one for all folders that hold one PatientID.

    One PatientID in all folders is an anonymiser's, and links nobody. What is doubtful is said, without any identifier.
    """
    names = [_names(one, raw)[0] for one in found]
    held, people = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for one, name in zip(found, names, strict=True):
        if one.person:
            held[one.person].add(name)
            people[name].add(one.person)
    for name, own in people.items():
        if len(own) > 1:
            print(f"{name} holds {len(own)} PatientIDs, and is taken for one patient. If its folders are patients, give {raw / name}.",
                  file=sys.stderr)  # fmt: skip
    loose = sum(one.image.is_file() and one.image.parent == raw and not one.person for one in found)
    if loose > 1:
        print(f"{loose} studies lie in no folder, and each is a patient: give those of one patient one patient_id.", file=sys.stderr)
    if len(held) == 1 and len(people) > 1:
        print("Every DICOM header holds the same PatientID: the first folders alone tell patients apart.", file=sys.stderr)
        return names
    linked = {name: name for name in names}
    for together in held.values():
        first = min((linked[name] for name in together), key=names.index)
        joined = {linked[name] for name in together}
        linked = {name: first if linked[name] in joined else linked[name] for name in linked}
    for first in dict.fromkeys(linked.values()):
        alike = [name for name in linked if linked[name] == first]
        if len(alike) > 1:
            shown = ", ".join(alike[:5]) + (f" and {len(alike) - 5} more" if len(alike) > 5 else "")
            print(f"{shown} are one patient, by PatientID. If an anonymiser wrote it, mend patient_id.", file=sys.stderr)
    return [linked[name] for name in names]


def _names(one: Examination, raw: Path) -> tuple[str, ...]:
    """Folders and the file from ``raw`` to an image, without its ending."""
    parts = one.image.relative_to(raw).parts
    return (*parts[:-1], _stem(one.image))


def _rows(found: list[Examination], patients: list[str], raw: Path, manifest: Path) -> Iterator[Row]:
    seen: Counter[str] = Counter()
    empty = dict.fromkeys(map(str, TO_FILL_IN))
    for one, patient in zip(found, patients, strict=True):
        name = "_".join(_names(one, raw))
        seen[name] += 1
        study = name if seen[name] == 1 else f"{name}-{seen[name]}"
        yield row(manifest, study, patient, one.modality, one.image, **one.masks, **empty)
