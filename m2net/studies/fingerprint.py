"""Whether a study's files changed since they were last read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from m2net.files import is_litter
from m2net.studies.files import VOLUME_ENDINGS
from m2net.studies.pictures import PICTURE_ENDINGS
from m2net.studies.study import Study
from m2net.vocabulary import Modality

_DETACHED = (".mhd", ".nhdr", ".hdr")  # headers whose voxels lie in a file of their own
_VOXELS = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file\s*:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_MOST_HEADER = 2**20


def files_of(study: Study) -> list[tuple[str, Path]]:
    """Every file of a study with what it is for, folders opened.

    What a file is for is the kind of what was named (``image``) and, of files that are read with it, where they lie from there
    (``image/IM0002.dcm``, ``lobes/lung_upper_lobe_left.nii.gz``): which file of a folder was named, and what a mask's files are called,
    decides what is read.
    """
    files: list[tuple[str, Path]] = []
    for kind, path in [("image", study.image), *sorted(study.masks.items())]:
        base = path if path.is_dir() else path.parent
        for read in _read_with(path, study.modality if kind == "image" else None):
            files.append((str(kind) if read == path else f"{kind}/{os.path.relpath(read, base)}", read))
    return files


def _read_with(path: Path, modality: Modality | None) -> list[Path]:
    """All files that the readers open where this one is named."""
    name = path.name.lower()
    if path.is_dir() or name == "dicomdir":
        return sorted(_kept((path if path.is_dir() else path.parent).rglob("*")))
    if name.endswith(_DETACHED):
        return sorted({path, *_voxels_of(path)})
    if modality is Modality.CT and not name.endswith((*VOLUME_ENDINGS, *PICTURE_ENDINGS, ".zip")):
        return sorted({path, *_kept(path.parent.iterdir())})  # one slice stands for its series
    return [path]


def _voxels_of(header: Path) -> Iterator[Path]:
    """What a detached header names: a file, all of its folder where it has a list or a pattern; those of its stem if it is silent."""
    with header.open("rb") as file:
        named = _VOXELS.search(file.read(_MOST_HEADER))
    told = named.group(1).decode("utf-8", "replace") if named else ""
    beside = _kept(header.parent.iterdir())
    if told in ("", "LOCAL"):
        return (p for p in beside if Path(p.name.removesuffix(".gz")).stem == header.stem)
    return beside if "%" in told or told.startswith("LIST") else _kept(iter([header.parent / told]))


def _kept(paths: Iterator[Path]) -> Iterator[Path]:
    return (p for p in paths if p.is_file() and not is_litter(p))


def reading(study: Study) -> str:
    """What of a manifest's row changes how its files are read."""
    return json.dumps([str(study.modality), study.series, sorted((str(k), v) for k, v in study.mask_schemes.items())])


def fingerprint(study: Study) -> str:
    """Hash of names, sizes and times of change of a study's files, without opening them."""
    digest = hashlib.sha256()
    for kind, path in files_of(study):
        stat = path.stat()
        digest.update(kind.encode() + b":" + os.fsencode(path) + f":{stat.st_size}:{stat.st_mtime_ns};".encode())
    digest.update(reading(study).encode())
    return digest.hexdigest()


def content_hash(study: Study) -> str:
    """Hash of the content of a study's files."""
    digest = hashlib.sha256()
    for kind, path in files_of(study):
        digest.update(kind.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(reading(study).encode())
    return digest.hexdigest()
