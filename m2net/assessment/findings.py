"""What a model says of one study, in numbers: read from the outputs of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from m2net.batch import Output
from m2net.objectives import BurdenReading, DetectionReading, DiagnosisObjective, Objective, ScoreObjective, SeverityObjective, at_or_above
from m2net.objectives.burden import SIDES, ZONES, derived_scores
from m2net.studies.scores import SCORE_LIMITS, SCORE_TITLES
from m2net.vocabulary import Lobe


@dataclass(frozen=True)
class SeverityFinding:
    """Severity of one study in one scheme.

    Attributes:
        scheme: binary or ordinal:K.
        probabilities: of each grade, from 0.
        at_or_above: P(grade >= k), k = 1..K-1.
        grade: number of cuts with P >= 0.5.
        calibrated: whether the probabilities were calibrated on validation studies.
        likely: conformal set of grades, None where none was fitted; empty: no grade is likely enough.
        coverage: share of studies whose set was to hold the true grade, None without sets.
        lobes: P(grade >= k), k = 1..K-1, that each lobe gives by itself, None for an absent lobe; empty where the model tells no lobes.
    """

    scheme: str
    probabilities: list[float]
    at_or_above: list[float]
    grade: int
    calibrated: bool
    likely: list[int] | None
    coverage: float | None
    lobes: dict[str, list[float] | None]


@dataclass(frozen=True)
class DiagnosisFinding:
    """What the study shows, by groups of classes.

    Attributes:
        probabilities: of each group, in the model's order.
        predicted: the most probable group.
        calibrated: whether the probabilities were calibrated on validation studies.
        lobes: the same that each lobe gives by itself, None for an absent lobe; empty where the model tells no lobes.
    """

    probabilities: dict[str, float]
    predicted: str
    calibrated: bool
    lobes: dict[str, dict[str, float] | None]


@dataclass(frozen=True)
class DetectionFinding:
    """Whether infection was found in the map, by two rules.

    Attributes:
        any_pixel: some pixel is called infected (Degerli et al. 2021).
        rule: the calibrated rule's answer, None where no thresholds were chosen in training or no lungs were found.
        area: infected share of the lungs (of the picture without a lung task) at the rule's probability threshold, None without lungs.
        least_area: the rule's threshold on it.
        probability: the rule's threshold on a pixel's probability.
        sensitivity: wanted when the thresholds were chosen on validation studies.
    """

    any_pixel: bool
    rule: bool | None
    area: float | None
    least_area: float | None
    probability: float | None
    sensitivity: float


@dataclass(frozen=True)
class ScoreFinding:
    """A real-valued severity score.

    Attributes:
        scheme: its name and range.
        value: predicted.
        highest: its highest value.
        source: ``regressed`` by a head, or ``derived`` from the maps.
    """

    scheme: str
    value: float
    highest: float
    source: str


@dataclass(frozen=True)
class Findings:
    """Everything read off a study's outputs, by task.

    Attributes:
        severity: grades.
        diagnosis: groups of diagnoses.
        detection: None without such a task.
        shares: infected share of each lung and zone, None where it was not found or its height is not known; empty without a burden task.
        scores: severity scores; none is derived where a lung was not found.
    """

    severity: dict[str, SeverityFinding] = field(default_factory=dict)
    diagnosis: dict[str, DiagnosisFinding] = field(default_factory=dict)
    detection: DetectionFinding | None = None
    shares: dict[str, float | None] = field(default_factory=dict)
    scores: list[ScoreFinding] = field(default_factory=list)


def findings_of(objectives: Mapping[str, Objective], outputs: Mapping[str, Output]) -> Findings:
    """Read the outputs of a batch of one study."""
    severity: dict[str, SeverityFinding] = {}
    diagnosis: dict[str, DiagnosisFinding] = {}
    shares: dict[str, float | None] = {}
    detection, scores = None, []
    for task, objective in objectives.items():
        output = outputs[task]
        if isinstance(objective, SeverityObjective):
            severity[task] = _graded(objective, output)
        elif isinstance(objective, DiagnosisObjective):
            diagnosis[task] = _diagnosed(objective, output)
        elif isinstance(objective, ScoreObjective):
            value = float(objective.predicted(output)[0])
            scores.append(ScoreFinding(objective.scale, value, objective.highest, "regressed"))
        elif isinstance(objective, DetectionReading):
            detection = _detected(objective, output)
        elif isinstance(objective, BurdenReading):
            values = output.logits[:1].cpu().double().numpy()
            told = [None if np.isnan(v) else float(v) for v in (*values[0, :2], *values[0, 4:])]
            shares = dict(zip((*SIDES, *ZONES), told, strict=True))
            if None not in told[:2]:
                for name, value in zip(
                    objective.derived, derived_scores(values, tells_kinds=objective.tells_kinds)[0].tolist(), strict=False
                ):
                    scores.append(ScoreFinding(SCORE_TITLES[name], value, SCORE_LIMITS[name], "derived"))
    return Findings(severity, diagnosis, detection, shares, scores)


def _graded(objective: SeverityObjective, output: Output) -> SeverityFinding:
    probability = objective.probabilities(output)
    above = at_or_above(probability)[0].tolist()
    sets = objective.likely(probability)
    each = objective.of_lobes(output)
    lobes = {} if each is None else {lobe.key: None if np.isnan(p).any() else p.tolist() for lobe, p in zip(Lobe, each[0], strict=True)}
    return SeverityFinding(
        objective.scheme, probability[0].tolist(), above, sum(p >= 0.5 for p in above), objective.is_calibrated,
        None if sets is None else sets[0], None if sets is None else objective.coverage, lobes,
    )  # fmt: skip


def _diagnosed(objective: DiagnosisObjective, output: Output) -> DiagnosisFinding:
    def named(probability: list[float]) -> dict[str, float]:
        return dict(zip(objective.names, probability, strict=True))

    whole, each = named(objective.probabilities(output)[0].tolist()), objective.of_lobes(output)
    lobes = (
        {} if each is None else {lobe.key: None if np.isnan(p).any() else named(p.tolist()) for lobe, p in zip(Lobe, each[0], strict=True)}
    )
    return DiagnosisFinding(whole, max(whole, key=lambda name: whole[name]), objective.is_calibrated, lobes)


def _detected(objective: DetectionReading, output: Output) -> DetectionFinding:
    row = objective.decide(output.logits[:1])
    paper, rule, area = (float(v[0]) for v in row)
    answered = bool(objective.calibration) and rule == rule
    return DetectionFinding(
        paper > 0.5, rule > 0.5 if answered else None, None if area != area else area, objective.calibration.get("area"),
        objective.calibration.get("probability"), objective.sensitivity,
    )  # fmt: skip
