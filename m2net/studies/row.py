"""A row of a manifest, and what is wrong with it."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from m2net.errors import ManifestError, MissingFileError
from m2net.studies.labels import schemes_of
from m2net.studies.scores import SCORE_LIMITS
from m2net.studies.study import Study
from m2net.vocabulary import MASK_COLUMNS, SCHEME_COLUMNS, SCORE_PREFIX, Column, Diagnosis, Modality, SeverityScheme, Split


def one_spelling(patient: str) -> str:
    """A patient's name without blanks around it, and with accents as one letter each (Unicode NFC): systems write them in two ways."""
    return unicodedata.normalize("NFC", patient.strip())


@dataclass(frozen=True)
class Row:
    """A row of a manifest as text, read cell by cell.

    Attributes:
        manifest: the file.
        number: line in the file.
        cells: text by column.
    """

    manifest: Path
    number: int
    cells: dict[str, str | None]

    def text(self, column: str) -> str:
        """A cell without blanks around it; "" where there is none."""
        return (self.cells.get(column) or "").strip()

    def _fail(
        self,
        found: str,
        expected: str,
        remedy: str = "Mend the row, or leave the cell empty for unknown",
        error: type[ManifestError] = ManifestError,
    ) -> ManifestError:
        """The error that names the file and the row."""
        return error(f"{self.manifest}, row {self.number}: {found}", expected=expected, remedy=remedy)

    def study(self) -> Study:
        """The row as a study.

        Raises:
            ManifestError: a cell says what it cannot.
            MissingFileError: it names a file that is not there.
        """
        known = {str(c) for c in Column}
        scheme = self.text(Column.SEVERITY_SCHEME) or None
        return Study(
            study_id=self._required(Column.STUDY_ID),
            patient_id=one_spelling(self._required(Column.PATIENT_ID)),
            modality=Modality(self._choice(Column.MODALITY, [str(m) for m in Modality])),
            image=self._file(Column.IMAGE, self._required(Column.IMAGE)),
            masks={c: self._file(c, self.text(c)) for c in MASK_COLUMNS if self.text(c)},
            mask_schemes={c: self._choice(s, schemes_of(c)) for c, s in SCHEME_COLUMNS.items() if self.text(s)},
            series=self.text(Column.SERIES),
            diagnosis=self._diagnosis(),
            severity=self._severity(scheme),
            severity_scheme=scheme,
            scores=self._scores(scheme),
            infected=self._flag(),
            site=self.text(Column.SITE),
            split=Split(self._choice(Column.SPLIT, [str(s) for s in Split])) if self.text(Column.SPLIT) else None,
            fold=self._fold(),
            extra={k: v or "" for k, v in self.cells.items() if k not in known},
            row=self.number,
        )

    def _required(self, column: Column) -> str:
        value = self.text(column)
        if not value:
            raise self._fail(f"{column} is empty", "a value in every row", "Fill in the cell")
        return value

    def _choice(self, column: Column, allowed: list[str]) -> str:
        value = self.text(column)
        if value not in allowed:
            raise self._fail(f"{column} is {value!r}", f"one of {', '.join(allowed)}")
        return value

    def _file(self, column: Column, value: str) -> Path:
        path = (self.manifest.parent / value).absolute()
        try:
            there = path.exists()
        except OSError as error:  # a folder without rights, a name longer than any file's
            found = f"{column} {path} cannot be reached ({error.strerror})"
            raise self._fail(found, "a file or folder that may be read", "Check the path and the rights", MissingFileError) from error
        if not there:
            expected = "a file or folder, relative to the manifest"
            raise self._fail(f"{column} {path} does not exist", expected, "Check the path", MissingFileError)
        return path

    def _diagnosis(self) -> frozenset[Diagnosis]:
        value = self.text(Column.DIAGNOSIS)
        allowed = [str(d) for d in Diagnosis]
        parts = [p.strip() for p in value.split("|")] if value else []
        if any(p not in allowed for p in parts):
            raise self._fail(f"diagnosis is {value!r}", f"{', '.join(allowed)}, or several joined by |")
        possible = frozenset(Diagnosis(p) for p in parts)
        return possible if len(possible) < len(Diagnosis) else frozenset()  # what may be anything is unknown

    def _severity(self, scheme: str | None) -> float | None:
        value = self.text(Column.SEVERITY)
        if not value:
            return None
        if scheme is None:
            raise self._fail(f"severity is {value} without a severity_scheme", "binary, ordinal:GRADES or score:NAME", "Add it")
        schemes = "binary, ordinal:GRADES (2 or more, as ordinal:5) or score:NAME"
        try:
            grades = SeverityScheme.grades(scheme)
        except ValueError:
            raise self._fail(f"severity_scheme is {scheme!r}", schemes) from None
        try:
            number = float(value)
        except ValueError:
            raise self._fail(f"severity is {value!r} in scheme {scheme!r}", "a number") from None
        if not math.isfinite(number):
            raise self._fail(f"severity is {value!r}", "a finite number")
        if grades is not None and number not in range(grades):
            raise self._fail(f"severity is {value} in scheme {scheme}", f"a whole number from 0 to {grades - 1}")
        return number

    def _scores(self, scheme: str | None) -> dict[str, float]:
        found = {}
        for column in self.cells:
            value = self.text(column) if column.startswith(SCORE_PREFIX) else ""
            if value:
                try:
                    found[column.removeprefix(SCORE_PREFIX)] = float(value)
                except ValueError:
                    raise self._fail(f"{column} is {value!r}", "a number") from None
        severity = self._severity(scheme)
        if severity is not None and SeverityScheme.kind(str(scheme)) is SeverityScheme.SCORE:
            name = str(scheme).partition(":")[2]
            if found.setdefault(name, severity) != severity:
                raise self._fail(f"severity {severity:g} in scheme {scheme} contradicts {SCORE_PREFIX}{name} {found[name]:g}", "one value")
        wrong = [name for name, value in found.items() if not math.isfinite(value)]
        if wrong:
            raise self._fail(f"the score {wrong[0]} is {found[wrong[0]]}", "a finite number")
        for name, top in SCORE_LIMITS.items():
            if not 0 <= found.get(name, 0.0) <= top:
                raise self._fail(f"the score {name} is {found[name]:g}", f"0 to {top:g}")
        return found

    def _flag(self) -> bool | None:
        value = self.text(Column.INFECTED).lower()
        if value not in ("", "0", "1", "true", "false"):
            raise self._fail(f"infected is {value!r}", "0 or 1")
        return None if not value else value in ("1", "true")

    def _fold(self) -> int | None:
        value = self.text(Column.FOLD)
        if value and not value.isdecimal():
            raise self._fail(f"fold is {value!r}", "a whole number from 0")
        return int(value) if value else None
