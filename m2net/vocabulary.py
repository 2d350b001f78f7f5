"""The words of the field, once: lobes, modalities, diagnoses, tasks, manifest columns and mask codes."""

from __future__ import annotations

from enum import IntEnum, StrEnum

UNLABELLED = -1
"""Value of an unknown integer target in a batch; unknown real targets are NaN."""

MASK_UNLABELLED = 255
"""Code of an unlabelled voxel in a stored uint8 mask."""

DEFAULT_SPACING_MM = 1.5
"""In-plane pixel size that studies are prepared at where nothing else is said."""


class Lobe(IntEnum):
    """Codes of the five lung lobes in every mask of m2net (the lungmask LTRCLobes order); 0 is background."""

    LEFT_UPPER = 1
    LEFT_LOWER = 2
    RIGHT_UPPER = 3
    RIGHT_MIDDLE = 4
    RIGHT_LOWER = 5

    @property
    def key(self) -> str:
        """Lower-case name, as used in metric keys, JSON and CSV."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """Name for people: ``Left upper``."""
        return self.name.replace("_", " ").capitalize()

    @property
    def short(self) -> str:
        """Radiologists' abbreviation: ``LUL``."""
        return "".join(word[0] for word in self.name.split("_")) + "L"

    @property
    def is_left(self) -> bool:
        """Whether the lobe belongs to the patient's left lung."""
        return self in (Lobe.LEFT_UPPER, Lobe.LEFT_LOWER)


class LungCode(IntEnum):
    """Codes in a lung mask; 0 is background."""

    RIGHT = 1
    LEFT = 2
    SIDE_UNKNOWN = 3


class InfectionCode(IntEnum):
    """Codes in an infection mask; 0 is background."""

    GROUND_GLASS = 1
    CONSOLIDATION = 2
    KIND_UNKNOWN = 3


class Modality(StrEnum):
    """What kind of image a study is."""

    CT = "ct"
    CXR = "cxr"


class Intensity(StrEnum):
    """What the pixel values of a study mean."""

    HU = "hu"
    RELATIVE = "relative"


class Diagnosis(StrEnum):
    """Three-way diagnosis of a study."""

    NON_PNEUMONIA = "non_pneumonia"
    COVID19 = "covid19"
    CAP = "cap"

    @property
    def words(self) -> str:
        """Name for people."""
        return {"non_pneumonia": "no pneumonia", "covid19": "COVID-19", "cap": "community-acquired pneumonia"}[self.value]


class Split(StrEnum):
    """Which part of an experiment a patient belongs to."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Column(StrEnum):
    """Columns of a manifest that m2net gives a meaning; any other column is carried along."""

    STUDY_ID = "study_id"
    PATIENT_ID = "patient_id"
    MODALITY = "modality"
    IMAGE = "image"
    LOBES = "lobes"
    LUNGS = "lungs"
    INFECTION = "infection"
    DIAGNOSIS = "diagnosis"
    SEVERITY = "severity"
    SEVERITY_SCHEME = "severity_scheme"
    INFECTED = "infected"
    SITE = "site"
    SPLIT = "split"
    FOLD = "fold"
    SERIES = "series"
    LOBES_SCHEME = "lobes_scheme"
    LUNGS_SCHEME = "lungs_scheme"
    INFECTION_SCHEME = "infection_scheme"


REQUIRED_COLUMNS = (Column.STUDY_ID, Column.PATIENT_ID, Column.MODALITY, Column.IMAGE)
MASK_COLUMNS = (Column.LOBES, Column.LUNGS, Column.INFECTION)
SCHEME_COLUMNS = {Column.LOBES: Column.LOBES_SCHEME, Column.LUNGS: Column.LUNGS_SCHEME, Column.INFECTION: Column.INFECTION_SCHEME}
"""Where a manifest says in which program's codes a mask is."""

MASK_CODES: dict[str, frozenset[int]] = {
    Column.LOBES: frozenset({0, MASK_UNLABELLED, *Lobe}),
    Column.LUNGS: frozenset({0, MASK_UNLABELLED, *LungCode}),
    Column.INFECTION: frozenset({0, MASK_UNLABELLED, *InfectionCode}),
}
"""Codes that each kind of mask may hold."""

TRUE_SEVERITY_PREFIX = "true_severity_ge"
"""Phantom manifests carry P(severity >= k) as ``true_severity_ge1``, ``true_severity_ge2``...: the model it was drawn from."""


PAINTED = "painted"
"""How the column phantom_version begins for real slices into which disease was painted: synthetic labels of real patients."""

DONATED = "in real lobes"
"""How it ends for synthetic patients around lobe masks of real ones."""


def made_from_patients(phantom_version: str) -> bool:
    """Whether synthetic studies of this version show something of real patients, whom nobody should judge the model on."""
    return phantom_version.startswith(PAINTED) or phantom_version.endswith(DONATED)


SCORE_PREFIX = "score_"
"""Columns of a manifest that hold real-valued severity scores, several of them if need be: ``score_geographic_extent``."""


class SeverityScheme(StrEnum):
    """How a severity value in the manifest is to be read."""

    BINARY = "binary"
    ORDINAL = "ordinal"
    SCORE = "score"

    @staticmethod
    def kind(name: str) -> SeverityScheme:
        """The kind of a scheme name such as ``binary``, ``ordinal:5`` or ``score:ctss``.

        Raises:
            ValueError: if the part before the colon is none of the three kinds.
        """
        return SeverityScheme(name.split(":", 1)[0])

    @staticmethod
    def grades(name: str) -> int | None:
        """Number of ordered grades of a scheme name, None for a score.

        Raises:
            ValueError: unknown kind, or ``ordinal`` without a count of at least 2.
        """
        kind, count = SeverityScheme.kind(name), name.partition(":")[2]
        if kind is SeverityScheme.BINARY:
            return 2
        if kind is SeverityScheme.SCORE:
            return None
        if not count.isdigit() or int(count) < 2:
            raise ValueError(f"{name!r} has no count of grades")
        return int(count)
