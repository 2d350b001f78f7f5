"""How well a model points at the infection, against masks that are known: by its saliency, or by what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from m2net.assessment.boxes import find_boxes, match
from m2net.assessment.explainer import Judgement, least_box
from m2net.bags import Prepared
from m2net.objectives import Interval, group_statistics, intervals
from m2net.objectives.diagnosis import group_bearing
from m2net.studies import Study
from m2net.vocabulary import MASK_UNLABELLED, Column, Diagnosis

POINTING_MM = 10.0
"""How far beside the infection the highest saliency may lie to count as a hit. The usual 15 pixels of 224 are 20 mm of a square of 300."""

OVERLAPS = (0.3, 0.5)
"""Intersections over union at which boxes count as met."""

THRESHOLDS = (0.02, *(round(0.05 * k, 2) for k in range(1, 19)))
"""Saliencies that validation chooses from."""


@dataclass(frozen=True)
class Localised:
    """One study's figures.

    Attributes:
        row: who, label, prediction, and per saliency the pointing hit, AUPRC and share of infection among the lungs' pixels.
        boxes: per saliency and threshold (true boxes, found boxes, then per overlap the true ones met and the found ones that meet).
        slices: per slice read, (group probabilities, whether the mask shows infection in it).
    """

    row: dict[str, Any]
    boxes: dict[tuple[str, float], tuple[int, ...]]
    slices: list[tuple[dict[str, float], bool]]


class Judge(Protocol):
    """Says whether a study is infected, and where: an Explainer, or DrawnInfection."""

    def judge(self, prepared: Prepared, methods: Sequence[str], *, only_infected: bool = False) -> Judgement:
        """Whether it is infected, and by each method how strongly every pixel speaks for it."""
        ...


def localise(judge: Judge, study: Study, prepared: Prepared, methods: Sequence[str], thresholds: Sequence[float]) -> Localised:
    """Judge one study whose diagnosis is known, and its infection mask where it has an infection."""
    judgement = judge.judge(prepared, methods, only_infected=True)
    infection, unlabelled = _infection(prepared)
    sick = bool(infection.any())
    row: dict[str, Any] = {
        "study_id": study.study_id,
        "patient_id": study.patient_id,
        "diagnosis": study.possible_text,
        "predicted": judgement.predicted,
        "infection": int(sick),
        "free": int(not sick and not unlabelled.any()),
        "called_infected": int(judgement.infected),
    }
    row |= {f"p_{name}": p for name, p in judgement.probabilities.items()}
    boxes: dict[tuple[str, float], tuple[int, ...]] = {}
    least = least_box(judgement.side**2)
    true = find_boxes(infection.astype(np.float32), 0.5, least)
    truth = _Truth(prepared, infection, unlabelled, {one.slice_index for one in judgement.slices}) if sick and judgement.infected else None
    for name in methods:
        saliency = judgement.saliency.get(name)
        if truth is not None and saliency is not None:
            row |= {f"{name}_{key}": value for key, value in truth.hold(saliency).items()}
        for threshold in thresholds:
            found = [] if saliency is None else find_boxes(np.where(unlabelled, np.float32(0), saliency), threshold, least)
            met = [count for overlap in OVERLAPS for count in match(found, true, overlap)]
            boxes[name, threshold] = (len(true), len(found), *met)
    told = [one for one in judgement.slices if infection[one.slice_index].any() or not unlabelled[one.slice_index].any()]
    return Localised(row, boxes, [(one.probabilities, bool(infection[one.slice_index].any())) for one in told])


def has_infection(prepared: Prepared) -> bool:
    """Whether some infection is drawn in its mask."""
    return bool(_infection(prepared)[0].any())


def _infection(prepared: Prepared) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Infected, and unlabelled."""
    mask = prepared.masks.get(str(Column.INFECTION))
    if mask is None:
        return np.zeros(prepared.image.shape, bool), np.zeros(prepared.image.shape, bool)
    codes = np.asarray(mask)
    return np.asarray((codes > 0) & (codes != MASK_UNLABELLED)), np.asarray(codes == MASK_UNLABELLED)


class _Truth:
    """One study's infection, and the pixels over which every saliency is held against it."""

    def __init__(self, prepared: Prepared, infection: NDArray[np.bool_], unlabelled: NDArray[np.bool_], read: set[int]) -> None:
        """The lungs' pixels of the slices that were read or are infected; what nobody drew is pointed at by nobody, either."""
        usual = 224 / 15 * POINTING_MM / max(infection.shape)  # of a picture, whose millimetres are not known
        self.drawn = ~unlabelled
        self.away_mm = ndimage.distance_transform_edt(~infection, sampling=prepared.spacing_mm or (1.0, usual, usual))
        slices: NDArray[np.bool_] = np.asarray(infection.any(axis=(1, 2)))
        slices[sorted(read)] = True
        self.looked = ((np.asarray(prepared.masks["found_lungs"]) > 0) | infection) & ~unlabelled & slices[:, None, None]
        self.infected = infection[self.looked]

    def hold(self, saliency: NDArray[np.float32]) -> dict[str, float]:
        """Pointing hit and AUPRC, each with that of chance among the pixels looked at."""
        from sklearn.metrics import average_precision_score

        by_chance = {
            "pointing_chance": float((self.away_mm[self.looked] <= POINTING_MM).mean()),
            "auprc_chance": float(self.infected.mean()),
        }
        if not np.ptp(saliency):  # a map that says nothing points nowhere
            return {"pointing": 0.0, "auprc": by_chance["auprc_chance"], **by_chance}
        top = np.unravel_index(int(np.where(self.drawn, saliency, -np.inf).argmax()), saliency.shape)
        precision = float(average_precision_score(self.infected, saliency[self.looked]))
        return {"pointing": float(self.away_mm[top] <= POINTING_MM), "auprc": precision, **by_chance}


def choose_threshold(studies: Sequence[Localised], method: str, thresholds: Sequence[float]) -> float:
    """The threshold with the highest F1 of boxes at the lower overlap, over validation studies."""

    def f1(threshold: float) -> float:
        true, found, met, meeting = np.sum([s.boxes[method, threshold] for s in studies], axis=0)[:4]
        recall, precision = met / max(1, true), meeting / max(1, found)
        return float(2 * recall * precision / max(1e-9, recall + precision))

    return max(thresholds, key=f1)


def figures(studies: Sequence[Localised], method: str, threshold: float) -> dict[str, Interval]:
    """Pointing game, AUPRC, boxes and false boxes of one saliency, with patient-bootstrap intervals.

    Pointing and AUPRC are means over the infected studies that were called infected: of the others no saliency of an infection is shown.
    """
    counts = np.array([s.boxes[method, threshold] for s in studies], dtype=np.float64)
    sick = {s.row["patient_id"] for s in studies if not s.row["free"]}
    healthy = np.array([s.row["patient_id"] not in sick for s in studies])
    share_of_patient = np.array([1 / sum(o.row["patient_id"] == s.row["patient_id"] for o in studies) for s in studies])

    def mean(key: str) -> Any:
        values = np.array([float(s.row.get(f"{method}_{key}", "nan")) for s in studies])
        return lambda chosen: float(np.nanmean(values[chosen])) if np.isfinite(values[chosen]).any() else float("nan")

    def share(part: int, whole: int) -> Any:
        def of(chosen: NDArray[np.int64]) -> float:
            total = counts[chosen, whole].sum()
            return float(counts[chosen, part].sum() / total) if total else float("nan")

        return of

    wanted: dict[str, Any] = {key: mean(key) for key in ("pointing", "pointing_chance", "auprc", "auprc_chance")}
    for k, overlap in enumerate(OVERLAPS):
        wanted[f"box_recall_{overlap}"] = share(2 + 2 * k, 0)
        wanted[f"box_precision_{overlap}"] = share(3 + 2 * k, 1)
    wanted["false_boxes_per_healthy_patient"] = lambda chosen: (
        float(counts[chosen][healthy[chosen], 1].sum() / share_of_patient[chosen][healthy[chosen]].sum())
        if healthy[chosen].any()
        else float("nan")
    )
    patients = [str(s.row["patient_id"]) for s in studies]
    called = np.array([np.isfinite(float(s.row.get(f"{method}_auprc", "nan"))) for s in studies])
    ill = np.array([bool(s.row["infection"]) for s in studies])
    bearing = {  # patients of whom a figure says nothing do not make its interval
        name: called if name.startswith(("pointing", "auprc")) else healthy if name.startswith("false") else ill for name in wanted
    }
    return intervals(wanted, patients, bearing=bearing)


def compare(studies: Sequence[Localised], first: str, second: str) -> Interval:
    """Mean difference of AUPRC between two saliencies on the same studies, with its patient-bootstrap interval."""
    values = np.array([float(s.row.get(f"{first}_auprc", "nan")) - float(s.row.get(f"{second}_auprc", "nan")) for s in studies])
    chosen = [int(k) for k in np.flatnonzero(np.isfinite(values))]
    patients = [str(studies[k].row["patient_id"]) for k in chosen]

    def mean(index: NDArray[np.int64]) -> float:
        return float(values[chosen][index].mean()) if len(index) else float("nan")

    return intervals({"difference": mean}, patients)["difference"]


def slice_figures(studies: Sequence[Localised], names: Sequence[str]) -> dict[str, Interval]:
    """Diagnosis of single slices: a slice whose mask shows infection has its patient's label, any other is non-pneumonia."""
    probability, possible, patients = [], [], []
    for study in studies:
        for row, infected in study.slices:
            label = study.row["diagnosis"] if infected else str(Diagnosis.NON_PNEUMONIA)
            probability.append([row[name] for name in names])
            possible.append([bool(set(label.split("|")) & set(name.split("+"))) for name in names])
            patients.append(str(study.row["patient_id"]))
    p, t = torch.tensor(probability, dtype=torch.float64), torch.tensor(possible)

    return intervals(group_statistics(p, t, names), patients, bearing=group_bearing(t, names), draws=200)
