"""What all recipes share: looking for files in a data set's folder and writing the manifest."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from m2net.errors import StudyError
from m2net.files import is_litter
from m2net.studies import PICTURE_ENDINGS, VOLUME_ENDINGS, Geometry, write_manifest
from m2net.studies.files import read_volume_file
from m2net.vocabulary import MASK_COLUMNS, Column, Modality

Row = dict[str, Any]
_SORT = re.compile(r"(\d+)")


def natural(path: Path) -> list[Any]:
    """Sort key by which slice 2 comes before slice 10."""
    return [int(part) if part.isdecimal() else part.lower() for part in _SORT.split(path.as_posix())]


def files_below(folder: Path, endings: tuple[str, ...] = PICTURE_ENDINGS) -> Iterator[Path]:
    """Files with one of these endings (any case), without the litter that systems leave behind, in natural order."""
    for path in sorted(folder.rglob("*"), key=natural):
        if path.is_file() and path.name.lower().endswith(endings) and not is_litter(path) and "__MACOSX" not in path.parts:
            yield path


def find_folder(root: Path, pattern: str, depth: int = 2) -> Path | None:
    """The first folder whose name matches (whole, any case), at most ``depth`` below ``root``; unpacking doubles folders."""
    wanted = re.compile(pattern, re.IGNORECASE)
    level = [root]
    for _ in range(depth + 1):
        level = sorted((p for folder in level for p in folder.iterdir() if p.is_dir()), key=natural)
        found = next((p for p in level if wanted.fullmatch(p.name)), None)
        if found is not None:
            return found
    return None


def need_folder(root: Path, pattern: str, shown: str, depth: int = 2) -> Path:
    """As ``find_folder``.

    Raises:
        StudyError: there is none.
    """
    found = find_folder(root, pattern, depth)
    if found is None:
        raise StudyError(
            f"{root} holds no folder {shown}", expected="the data set's own folder", remedy="Check the path and that it is unpacked"
        )
    return found


def read_table(path: Path, comment: str = "") -> list[dict[str, str]]:
    """Rows of a CSV with stripped lower-case column names."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = (line for line in file if not (comment and line.startswith(comment)))
        return [
            {(k or "").strip().lower(): (v or "").strip() for k, v in row.items() if isinstance(v, (str, type(None)))}
            for row in csv.DictReader(lines)
        ]


def row(manifest: Path, study: str, patient: str, modality: Modality, image: Path, **more: Any) -> Row:
    """One row; ``more`` holds further columns, paths among them are made relative and None becomes empty."""
    made: Row = {
        str(Column.STUDY_ID): study,
        str(Column.PATIENT_ID): patient,
        str(Column.MODALITY): str(modality),
        str(Column.IMAGE): relative(image, manifest),
    }
    for name, value in more.items():
        made[name] = relative(value, manifest) if isinstance(value, Path) else ("" if value is None else str(value))
    return made


def relative(path: Path, manifest: Path) -> str:
    """A path as the manifest holds it."""
    return os.path.relpath(path.parent.resolve() / path.name, manifest.parent.resolve())  # through links, .. leads elsewhere


def joined(manifests: Iterable[Path], out: Path) -> Iterator[Row]:
    """Rows of several manifests, in order, with paths from the folder of ``out``."""
    for manifest in manifests:
        for entry in read_table(manifest):
            paths = {str(c): relative(manifest.parent / entry[c], out) for c in (Column.IMAGE, *MASK_COLUMNS) if entry.get(c)}
            yield {**entry, **paths}


def write(manifest: Path, rows: Iterable[Row], raw: Path, shown: str) -> int:
    """Write the manifest, and count on standard error as rows come, which may rewrite masks; returns the number of studies.

    Raises:
        StudyError: there are none.
    """
    count = TextColumn("{task.description} {task.completed:.0f} studies")
    with Progress(count, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        kept = list(progress.track(rows, description="Reading"))
    if not kept:
        raise StudyError(f"{raw} holds no {shown}", expected="the data set's own folder", remedy="Check the path and that it is unpacked")
    columns = list(dict.fromkeys(name for one in kept for name in one))
    write_manifest(manifest, columns, [{name: one.get(name, "") for name in columns} for one in kept])
    return len(kept)


def made_masks(manifest: Path) -> Path:
    """Folder for the masks that a recipe writes: beside the manifest, and of this manifest only."""
    return manifest.parent / "m2net_masks" / manifest.stem


def recoded(source: Path, target: Path, codes: dict[int, int], *, threshold: int | None = None) -> Path:
    """Copy of a mask beside the manifest with other codes; what is not named becomes 0. It appears whole or not at all.

    Args:
        source: mask of the data set.
        target: file to write.
        codes: new code by old.
        threshold: for picture masks with in-between values: above it is 1 before ``codes`` apply.

    Raises:
        StudyError: it cannot be read.
        GeometryError: its header does not say how it lies in the patient.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    array, geometry = _mask(source)
    if threshold is not None:
        array = (array > threshold).astype(np.uint8)
    out = np.zeros(array.shape, np.uint8)
    for old, new in codes.items():
        out[array == old] = new
    made = sitk.GetImageFromArray(out)
    if geometry is not None:
        geometry.place(made)
    partial = target.with_name(f".partial-{target.name}")  # the ending says the format
    sitk.WriteImage(made, str(partial), useCompression=True)
    partial.replace(target)
    return target


def _mask(source: Path) -> tuple[NDArray[Any], Geometry | None]:
    """Codes and grid of a data set's mask; a volume is read as its image will be, so that both lie where their headers say."""
    if source.name.lower().endswith(VOLUME_ENDINGS):
        stored = read_volume_file(source)
        return stored.values, stored.geometry
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(source)))
    except RuntimeError as error:
        raise StudyError(f"the mask {source} cannot be read", expected="an image", remedy="Unpack the data set again") from error
    return (array[..., 0] if array.ndim == 3 else array), None
