"""Whether a study's files changed since they were last read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from m2net.studies.files import VOLUME_ENDINGS
from m2net.studies.pictures import PICTURE_ENDINGS
from m2net.studies.study import Study
from m2net.vocabulary import Modality

_DETACHED = (".mhd", ".nhdr", ".hdr")  # headers whose voxels lie in a file of their own


def files_of(study: Study) -> list[tuple[str, Path]]:
    """Every file of a study with what it is for, folders opened."""
    files: list[tuple[str, Path]] = []
    for kind, path in [("image", study.image), *sorted(study.masks.items())]:
        files += [(str(kind), p) for p in _read_with(path, study.modality if kind == "image" else None)]
    return files


def _read_with(path: Path, modality: Modality | None) -> list[Path]:
    """All files that the readers open where this one is named."""
    name = path.name.lower()
    if path.is_dir() or name == "dicomdir":
        return sorted(p for p in (path if path.is_dir() else path.parent).rglob("*") if p.is_file())
    if name.endswith(_DETACHED):
        return sorted(p for p in path.parent.iterdir() if p.is_file() and Path(p.name.removesuffix(".gz")).stem == path.stem)
    if modality is Modality.CT and not name.endswith((*VOLUME_ENDINGS, *PICTURE_ENDINGS, ".zip")):
        return sorted(p for p in path.parent.iterdir() if p.is_file())  # one slice stands for its series
    return [path]


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
