"""What a manifest's row says of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from m2net.vocabulary import Column, Diagnosis, Modality, Split


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
