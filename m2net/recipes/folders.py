"""A hospital's own folders to a manifest that waits for its labels."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from m2net.errors import ConfigError, StudyError
from m2net.files import check_name, is_litter, stem
from m2net.recipes.dicom_folders import Examination, Passed, find_examinations, look_into_zip
from m2net.recipes.table import Row, natural, row, write
from m2net.studies import PICTURE_ENDINGS, VOLUME_ENDINGS
from m2net.studies.labels import code_of
from m2net.vocabulary import MASK_COLUMNS, Column, Modality

TO_FILL_IN = (Column.DIAGNOSIS, Column.SEVERITY, Column.SEVERITY_SCHEME, Column.INFECTED, Column.SITE)
"""Columns that are written empty: no header tells them."""

_MASK = re.compile(rf"(?:(.*)[_\-. ])?({'|'.join(MASK_COLUMNS)})", re.IGNORECASE)
_OTHER_MASK = re.compile(r"(?:.*[_\-. ])?(?:seg|segmentations?|masks?|labels?|rois?|lesions?|infected|annotations?)", re.IGNORECASE)
_MASK_FOLDER = re.compile(r"seg|segmentations?|masks?|labels?(?:tr|ts)?|rois?|annotations?", re.IGNORECASE)
_IMAGE = re.compile(r"ct|image|img|scan|volume|.*_0000", re.IGNORECASE)
_LOBES_TOLD = 3
"""Volumes named as different lobes, from which on a folder is a mask of a file a lobe."""
_PACKED = (".tar", ".tgz", ".gz", ".rar", ".7z", ".bz2", ".xz", ".hdr", ".img")


def folders(raw: Path, manifest: Path) -> int:
    """Any folder of CT or radiographs in DICOM (folders, zips), and of CT in NIfTI, MHA or NRRD.

    Studies and how they are named: see ``find_examinations``. The first folder below ``raw`` names the patient; folders that hold one
    PatientID are one patient, so that none is in training and test at once. Volumes named ``lobes``, ``lungs`` or ``infection`` are masks:
    behind an image's name (``anna_lobes.nii.gz`` beside ``anna.nii.gz``) of that image, by themselves of the only study in their folder
    and below. A folder of volumes that are named as lobes (TotalSegmentator's) is the lobe mask of the only study beside it. What is passed
    over is said: pictures, since nothing tells slices from radiographs, volumes named as masks of other kinds, other modalities, and more.

    Raises:
        ConfigError: the manifest would lie among the files of a study.
        StudyError: no study.
    """
    found, passed = _find(raw)
    kinds = [f"{len(paths)} {what} ({_shown(paths[0], raw)}{', ...' if len(paths) > 1 else ''})" for what, paths in passed.items() if paths]
    told = f" Passed over: {'; '.join(kinds)}." if kinds else ""
    if not found:
        raise StudyError(
            f"{raw} holds no CT or radiograph.{told}", expected="DICOM, zip, NIfTI, MHA or NRRD files", remedy="Check the path"
        )
    if any(_among_files(manifest, one) for one in found):
        raise ConfigError(f"{manifest} would lie among a study's files", expected="another folder", remedy="Give --out")
    patients = _patients(found, raw)
    written = write(manifest, _rows(found, patients, raw, manifest), raw, "study")
    print(f"{len(set(patients))} patients.{told} Fill in {', '.join(TO_FILL_IN)} where they are known.", file=sys.stderr)
    return written


def _find(raw: Path) -> tuple[list[Examination], Passed]:
    """All studies with their masks, and what was passed over, by reason."""
    walked: Passed = {"folders that cannot be read": [], "links to folders": []}
    files = sorted(_files(raw, walked), key=natural)
    volumes = [path for path in files if path.name.lower().endswith(VOLUME_ENDINGS)]
    zips = [path for path in files if path.suffix.lower() == ".zip"]
    pictures = [path for path in files if path.name.lower().endswith(PICTURE_ENDINGS)]
    packed = [path for path in files if path.name.lower().endswith(_PACKED) and not path.name.lower().endswith(VOLUME_ENDINGS)]
    known = {*volumes, *zips, *pictures, *packed}
    dicom, passed = find_examinations([path for path in files if path not in known], raw)
    looked = [(path, look_into_zip(path, raw)) for path in zips]
    images, masks, other, beside = _sorted_out(volumes)
    whole = [*dicom, *(one for _, one in looked if one is not None), *(Examination(path, Modality.CT, {}) for path in images)]
    found = sorted(whole, key=lambda one: natural(one.image))
    return found, walked | passed | {
        "pictures, which may be slices or radiographs": pictures,
        "zips without a CT or radiograph": [path for path, one in looked if one is None],
        "archives and Analyze images": packed,
        "masks of no image, or a second of one": _attach(masks, found),
        "volumes named as masks of another kind": other,
        "volumes beside those of a lobe each": beside,
    }


def _files(raw: Path, passed: Passed) -> Iterator[Path]:
    """All files but hidden ones, without following links to folders."""

    def unreadable(error: OSError) -> None:
        passed["folders that cannot be read"].append(Path(error.filename))

    for folder, below, names in os.walk(raw, onerror=unreadable):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        passed["links to folders"] += [Path(folder, name) for name in below if Path(folder, name).is_symlink()]
        yield from (path for path in (Path(folder, name) for name in names) if not is_litter(path))


def _shown(path: Path, raw: Path) -> str:
    return str(path.relative_to(raw)).encode(errors="replace").decode()


def _among_files(manifest: Path, one: Examination) -> bool:
    """Whether a manifest would be a file of the study, which then changes with every label."""
    folder, image = manifest.parent.resolve(), one.image.resolve()
    if image.is_dir():
        return folder.is_relative_to(image)
    return one.modality is Modality.CT and folder == image.parent and not image.name.lower().endswith((*VOLUME_ENDINGS, ".zip"))


def _sorted_out(volumes: Sequence[Path]) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
    """Images, masks (a folder for one of a file a lobe), volumes named as masks of another kind, and those beside lobes."""
    codes: dict[Path, set[int]] = defaultdict(set)
    for path in volumes:
        if not _MASK.fullmatch(_stem(path)) and (code := code_of(_stem(path), Column.LOBES)) is not None:
            codes[path.parent].add(code)
    lobes = {folder for folder, told in codes.items() if len(told) >= _LOBES_TOLD}
    images, masks, other, beside = list[Path](), list[Path](), list[Path](), list[Path]()
    for path in volumes:
        stem = _stem(path)
        if path.parent in lobes and not _IMAGE.fullmatch(stem):
            if code_of(stem, Column.LOBES) is None:
                beside.append(path)
        elif _MASK.fullmatch(stem):
            masks.append(path)
        elif path.name.lower().endswith(".seg.nrrd") or _OTHER_MASK.fullmatch(stem) or _MASK_FOLDER.fullmatch(path.parent.name):
            other.append(path)
        else:
            images.append(path)
    return images, [*masks, *sorted(lobes)], other, beside


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
    return stem(path.name, (*VOLUME_ENDINGS, ".zip", ".dcm")).removesuffix(".seg")


def _patients(found: list[Examination], raw: Path) -> list[str]:
    """The patient of each examination: its first folder, and the first of all folders that share PatientIDs.

    One PatientID in all folders is an anonymiser's, and links nobody. What is doubtful is said, without any identifier.
    """
    names = [_names(one, raw)[0] for one in found]
    pairs = [(name, one.person) for one, name in zip(found, names, strict=True) if one.person]
    _tell_doubts(found, names, raw)
    if len({person for _, person in pairs}) == 1 and len({name for name, _ in pairs}) > 1:
        told = "Every DICOM header holds the same PatientID: the first folders alone tell patients apart."
        print(f"{told} If it is one patient, give the folder above.", file=sys.stderr)
        return names
    node = {key: k for k, key in enumerate(dict.fromkeys([*(("folder", name) for name in names), *(("person", p) for _, p in pairs)]))}
    ends = np.array([(node["folder", name], node["person", person]) for name, person in pairs], dtype=int).reshape(-1, 2).T
    _, group = connected_components(coo_array((np.ones(len(pairs)), tuple(ends)), shape=(len(node), len(node))), directed=False)
    alike: dict[int, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        alike[group[node["folder", name]]].append(name)
    for together in alike.values():
        if len(together) > 1:
            shown = ", ".join(together[:5]) + (f" and {len(together) - 5} more" if len(together) > 5 else "")
            print(f"{shown} are one patient, by PatientID. If an anonymiser wrote it, mend patient_id.", file=sys.stderr)
    return [alike[group[node["folder", name]]][0] for name in names]


def _tell_doubts(found: list[Examination], names: list[str], raw: Path) -> None:
    """Say where a first folder may be no patient, and where files have none."""
    people, nameless = defaultdict[str, set[str]](set), Counter[str]()
    for one, name in zip(found, names, strict=True):
        people[name] |= {one.person} - {""}
        nameless[name] += not one.person
    for name, own in people.items():
        if len(own) > 1 or nameless[name] > 1:
            several = f"{len(own)} PatientIDs" if len(own) > 1 else f"{nameless[name]} studies without a PatientID"
            told = f"{name} holds {several}, and is taken for one patient. If it is a folder of patients, give {raw / name}."
            print(told, file=sys.stderr)
    loose = sum(one.image.is_file() and one.image.parent == raw and not one.person for one in found)
    if loose > 1:
        print(f"{loose} studies lie in no folder, and each is a patient: give those of one patient one patient_id.", file=sys.stderr)


def _names(one: Examination, raw: Path) -> tuple[str, ...]:
    """Folders and the file from ``raw`` to an image, without its ending."""
    parts = one.image.relative_to(raw).parts
    return (*parts[:-1], _stem(one.image))


def _rows(found: list[Examination], patients: list[str], raw: Path, manifest: Path) -> Iterator[Row]:
    taken = set[str]()
    empty = dict.fromkeys(map(str, TO_FILL_IN))
    for one, patient in zip(found, patients, strict=True):
        check_name(one.image)
        name = "_".join(_names(one, raw))
        study = next(free for k in count(1) if (free := name if k == 1 else f"{name}-{k}") not in taken)
        taken.add(study)
        yield row(manifest, study, patient, one.modality, one.image, **one.masks, **empty)
