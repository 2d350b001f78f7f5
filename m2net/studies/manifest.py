"""The table of studies: one row a study, checked before anything else happens."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m2net.errors import ManifestError, MissingFileError
from m2net.files import written_whole
from m2net.studies.row import Row
from m2net.studies.study import Study
from m2net.vocabulary import REQUIRED_COLUMNS, SCORE_PREFIX, Column, Modality, Split


@dataclass(frozen=True)
class Manifest:
    """A checked table of studies."""

    path: Path
    studies: tuple[Study, ...]
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[Study]:
        """Iterate over the studies."""
        return iter(self.studies)

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.studies)


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used.

    Attributes:
        study_id: its study_id, or ``row N`` without one.
        check: label, file or row.
        message: what is wrong, naming the row.
        row: line in the file.
    """

    study_id: str
    check: str
    message: str
    row: int


def read_manifest(path: Path, replacing: Column | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        path: UTF-8 CSV with a header; paths in it are relative to its folder.
        replacing: a column that is about to be given anew, and is read as if it were empty.

    Raises:
        ManifestError: missing file or column, duplicate id, missing image or mask, bad label, patient in two splits or folds.
    """
    rows, columns = _read_rows(path)
    if replacing is not None:
        rows = [replace(row, cells=row.cells | {str(replacing): ""}) for row in rows]
    studies = tuple(row.study() for row in rows)
    for _, error in _check_together(path, studies):
        raise error
    return Manifest(path, studies, columns)


def survey_manifest(path: Path) -> tuple[Manifest, list[Fault]]:
    """As ``read_manifest``, but faulty rows are left out and listed instead of ending the reading at the first.

    Raises:
        ManifestError: missing file or column, or no row at all.
    """
    rows, columns = _read_rows(path)
    studies, faults = [], []
    for row in rows:
        try:
            studies.append(row.study())
        except ManifestError as error:
            check = "file" if isinstance(error, MissingFileError) else "label"
            faults.append(Fault(row.text(Column.STUDY_ID) or f"row {row.number}", check, str(error), row.number))
    wrong = dict(_check_together(path, tuple(studies)))
    faults += [Fault(studies[k].study_id, "row", str(error), studies[k].row) for k, error in wrong.items()]
    return Manifest(path, tuple(s for k, s in enumerate(studies) if k not in wrong), columns), faults


def _read_rows(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    if not path.is_file():
        raise ManifestError(f"the manifest {path} does not exist", expected="a CSV file", remedy="Check the path")
    rows: list[Row] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = tuple(reader.fieldnames or ())
            _check_columns(path, columns)
            rows.extend(Row(path, reader.line_num, _whole(path, reader.line_num, row)) for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        after = f", behind row {rows[-1].number}" if rows else ""
        raise ManifestError(
            f"the manifest {path} is no UTF-8 CSV ({error}{after})",
            expected="a CSV file with a header, its quotation marks in pairs",
        ) from error
    missing = [c for c in REQUIRED_COLUMNS if c not in columns]
    if missing:
        raise ManifestError(
            f"the manifest {path} has no column {', '.join(missing)}",
            expected=f"at least {', '.join(REQUIRED_COLUMNS)}",
            remedy="Add the column; see docs/reference/manifest.md",
        )
    if not rows:
        raise ManifestError(f"the manifest {path} has no rows", expected="one row a study")
    return rows, columns


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    """A column that is almost one of m2net's would be passed over, and of two with one name only the last be read."""
    known = {str(c) for c in Column}
    for column in columns:
        meant, lower = column.strip(), column.strip().lower()
        if lower in known:
            meant = lower
        elif lower.startswith(SCORE_PREFIX):
            meant = SCORE_PREFIX + meant[len(SCORE_PREFIX) :]
        else:
            meant = column
        if meant != column:
            raise ManifestError(f"the manifest {path} has a column {column!r}", expected=f"{meant!r}", remedy="Rename it")
        if column and columns.count(column) > 1:
            raise ManifestError(f"the manifest {path} has {columns.count(column)} columns {column!r}", expected="one", remedy="Remove one")


def _whole(path: Path, number: int, cells: dict[str | None, Any]) -> dict[str, str | None]:
    """The cells of a row that has no more of them than the table has columns."""
    surplus = [cell for cell in cells.pop(None, []) if cell.strip()]
    if surplus:
        raise ManifestError(
            f"{path}, row {number}: {surplus[0]!r} stands beyond the last column", expected="a cell a column",
            remedy="Put text that holds a comma in quotation marks",
        )  # fmt: skip
    for name, cell in cells.items():
        if any(_is_row(line, list(cells)) for line in (cell or "").splitlines()[1:]):
            raise ManifestError(
                f"{path}, row {number}: the cell {name} holds whole rows", expected="one row a study",
                remedy="Close the quotation mark that it begins with",
            )  # fmt: skip
    return {str(name): cell for name, cell in cells.items()}


def _is_row(line: str, columns: list[str | None]) -> bool:
    """Whether a line within a cell has a cell a column, and a modality where one belongs."""
    cells = next(csv.reader([line]), [])
    at = columns.index(Column.MODALITY) if Column.MODALITY in columns else None
    return at is not None and len(cells) == len(columns) and cells[at].strip().lower() in set(Modality)


def _check_together(path: Path, studies: tuple[Study, ...]) -> Iterator[tuple[int, ManifestError]]:
    """Studies (by place) that contradict an earlier row, each with the error."""
    seen: dict[str, int] = {}
    split_of: dict[str, tuple[Split | None, int | None, int]] = {}
    for place, study in enumerate(studies):
        if study.study_id in seen:
            yield (
                place,
                ManifestError(
                    f"{path}, row {study.row}: study_id {study.study_id} is in row {seen[study.study_id]} too",
                    expected="every study once",
                    remedy="Rename or remove one",
                ),
            )
            continue
        seen[study.study_id] = study.row
        split, fold, row = split_of.setdefault(study.patient_id, (study.split, study.fold, study.row))
        if (split, fold) != (study.split, study.fold):
            yield (
                place,
                ManifestError(
                    f"{path}, row {study.row}: patient {study.patient_id} is in split {study.split} (fold {study.fold}), "
                    f"but in split {split} (fold {fold}) in row {row}",
                    expected="all studies of a patient in one split",
                    remedy="Give all rows of the patient one value, or none: m2net split sets either column anew",
                ),
            )


def write_manifest(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    """Write rows as a manifest, atomically."""
    with written_whole(path) as file:
        writer = csv.DictWriter(file, columns, extrasaction="raise")
        writer.writeheader()
        writer.writerows(rows)


def write_clean(manifest: Path, out: Path, bad: set[int]) -> None:
    """Copy a manifest without the rows that lie in these lines of the file.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    rows, columns = _read_rows(manifest)
    kept = [{c: row.cells.get(c) or "" for c in columns} for row in rows if row.number not in bad]
    write_manifest(out, list(columns), kept)
