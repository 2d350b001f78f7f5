"""The table of studies: one row a study, checked before anything else happens."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from m2net.errors import ManifestError, MissingFileError
from m2net.files import written_whole
from m2net.studies.labels import schemes_of
from m2net.studies.scores import SCORE_LIMITS
from m2net.vocabulary import (
    MASK_COLUMNS,
    REQUIRED_COLUMNS,
    SCHEME_COLUMNS,
    SCORE_PREFIX,
    Column,
    Diagnosis,
    Modality,
    SeverityScheme,
    Split,
)


@dataclass(frozen=True)
class Study:
    """One row of a manifest.

    Attributes:
        study_id: unique name of the study.
        patient_id: the patient; patients, never studies, are split.
        modality: CT or radiograph.
        image: absolute path of the image.
        masks: absolute paths of the masks there are, by column (lobes, lungs, infection).
        mask_schemes: by column, whose codes a mask holds where they are not m2net's (see studies.labels.schemes_of).
        series: UID or number of the DICOM series to read, "" leaves the choice to the rules.
        diagnosis: set of possible diagnoses, empty = unknown.
        severity: grade (binary, ordinal) or score, None = unknown.
        severity_scheme: scheme that the severity is in, None with it.
        scores: real-valued severity scores by name, from columns ``score_NAME`` and from a severity in the scheme ``score:NAME``.
        infected: None = unknown.
        site: hospital, "" = unknown.
        split: train, val or test, None = unknown.
        fold: cross-validation fold, None = unknown.
        extra: every further column, as text.
        row: line in the file, for messages.
    """

    study_id: str
    patient_id: str
    modality: Modality
    image: Path
    masks: dict[Column, Path] = field(default_factory=dict)
    mask_schemes: dict[Column, str] = field(default_factory=dict)
    series: str = ""
    diagnosis: frozenset[Diagnosis] = frozenset()
    severity: float | None = None
    severity_scheme: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    infected: bool | None = None
    site: str = ""
    split: Split | None = None
    fold: int | None = None
    extra: dict[str, str] = field(default_factory=dict)
    row: int = 0

    @property
    def possible(self) -> frozenset[Diagnosis]:
        """What the patient may have: the diagnosis, else what ``infected`` leaves (1: COVID-19 or CAP); empty is unknown."""
        if self.diagnosis or self.infected is None:
            return self.diagnosis
        return frozenset({Diagnosis.COVID19, Diagnosis.CAP} if self.infected else {Diagnosis.NON_PNEUMONIA})

    @property
    def possible_text(self) -> str:
        """``possible`` as a manifest spells it: ``non_pneumonia|cap``."""
        return "|".join(d for d in Diagnosis if d in self.possible)


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


def _read_rows(path: Path) -> tuple[list[_Row], tuple[str, ...]]:
    if not path.is_file():
        raise ManifestError(f"the manifest {path} does not exist", expected="a CSV file", remedy="Check the path")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = tuple(reader.fieldnames or ())
            _check_columns(path, columns)
            rows = [_Row(path, reader.line_num, _whole(path, reader.line_num, row)) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"the manifest {path} is no UTF-8 CSV ({error})", expected="a CSV file with a header") from error
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
    return {str(name): cell for name, cell in cells.items()}


@dataclass(frozen=True)
class _Row:
    manifest: Path
    number: int
    cells: dict[str, str | None]

    def text(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def fail(
        self,
        found: str,
        expected: str,
        remedy: str = "Mend the row, or leave the cell empty for unknown",
        error: type[ManifestError] = ManifestError,
    ) -> ManifestError:
        return error(f"{self.manifest}, row {self.number}: {found}", expected=expected, remedy=remedy)

    def study(self) -> Study:
        known = {str(c) for c in Column}
        scheme = self.text(Column.SEVERITY_SCHEME) or None
        return Study(
            study_id=self.required(Column.STUDY_ID),
            patient_id=self.required(Column.PATIENT_ID),
            modality=Modality(self.choice(Column.MODALITY, [str(m) for m in Modality])),
            image=self.file(Column.IMAGE, self.required(Column.IMAGE)),
            masks={c: self.file(c, self.text(c)) for c in MASK_COLUMNS if self.text(c)},
            mask_schemes={c: self.choice(s, schemes_of(c)) for c, s in SCHEME_COLUMNS.items() if self.text(s)},
            series=self.text(Column.SERIES),
            diagnosis=self.diagnosis(),
            severity=self.severity(scheme),
            severity_scheme=scheme,
            scores=self.scores(scheme),
            infected=self.flag(),
            site=self.text(Column.SITE),
            split=Split(self.choice(Column.SPLIT, [str(s) for s in Split])) if self.text(Column.SPLIT) else None,
            fold=self.fold(),
            extra={k: v or "" for k, v in self.cells.items() if k not in known},
            row=self.number,
        )

    def required(self, column: Column) -> str:
        value = self.text(column)
        if not value:
            raise self.fail(f"{column} is empty", "a value in every row", "Fill in the cell")
        return value

    def choice(self, column: Column, allowed: list[str]) -> str:
        value = self.text(column)
        if value not in allowed:
            raise self.fail(f"{column} is {value!r}", f"one of {', '.join(allowed)}")
        return value

    def file(self, column: Column, value: str) -> Path:
        path = (self.manifest.parent / value).absolute()
        if not path.exists():
            expected = "a file or folder, relative to the manifest"
            raise self.fail(f"{column} {path} does not exist", expected, "Check the path", MissingFileError)
        return path

    def diagnosis(self) -> frozenset[Diagnosis]:
        value = self.text(Column.DIAGNOSIS)
        allowed = [str(d) for d in Diagnosis]
        parts = [p.strip() for p in value.split("|")] if value else []
        if any(p not in allowed for p in parts):
            raise self.fail(f"diagnosis is {value!r}", f"{', '.join(allowed)}, or several joined by |")
        return frozenset(Diagnosis(p) for p in parts)

    def severity(self, scheme: str | None) -> float | None:
        value = self.text(Column.SEVERITY)
        if not value:
            return None
        if scheme is None:
            raise self.fail(f"severity is {value} without a severity_scheme", "binary, ordinal:GRADES or score:NAME", "Add it")
        schemes = "binary, ordinal:GRADES (2 or more, as ordinal:5) or score:NAME"
        try:
            grades = SeverityScheme.grades(scheme)
        except ValueError:
            raise self.fail(f"severity_scheme is {scheme!r}", schemes) from None
        try:
            number = float(value)
        except ValueError:
            raise self.fail(f"severity is {value!r} in scheme {scheme!r}", "a number") from None
        if not math.isfinite(number):
            raise self.fail(f"severity is {value!r}", "a finite number")
        if grades is not None and number not in range(grades):
            raise self.fail(f"severity is {value} in scheme {scheme}", f"a whole number from 0 to {grades - 1}")
        return number

    def scores(self, scheme: str | None) -> dict[str, float]:
        found = {}
        for column in self.cells:
            value = self.text(column) if column.startswith(SCORE_PREFIX) else ""
            if value:
                try:
                    found[column.removeprefix(SCORE_PREFIX)] = float(value)
                except ValueError:
                    raise self.fail(f"{column} is {value!r}", "a number") from None
        severity = self.severity(scheme)
        if severity is not None and SeverityScheme.kind(str(scheme)) is SeverityScheme.SCORE:
            name = str(scheme).partition(":")[2]
            if found.setdefault(name, severity) != severity:
                raise self.fail(f"severity {severity:g} in scheme {scheme} contradicts {SCORE_PREFIX}{name} {found[name]:g}", "one value")
        wrong = [name for name, value in found.items() if not math.isfinite(value)]
        if wrong:
            raise self.fail(f"the score {wrong[0]} is {found[wrong[0]]}", "a finite number")
        for name, top in SCORE_LIMITS.items():
            if not 0 <= found.get(name, 0.0) <= top:
                raise self.fail(f"the score {name} is {found[name]:g}", f"0 to {top:g}")
        return found

    def flag(self) -> bool | None:
        value = self.text(Column.INFECTED).lower()
        if value not in ("", "0", "1", "true", "false"):
            raise self.fail(f"infected is {value!r}", "0 or 1")
        return None if not value else value in ("1", "true")

    def fold(self) -> int | None:
        value = self.text(Column.FOLD)
        if value and not value.isdigit():
            raise self.fail(f"fold is {value!r}", "a whole number from 0")
        return int(value) if value else None


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
