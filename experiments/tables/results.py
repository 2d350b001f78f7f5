"""Collect what run.py left in runs/tables into results.csv beside this file.

python experiments/tables/results.py

Figures of what was not run this time stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from m2net.objectives import DiagnosisObjective, Interval, SegmentationObjective, SeverityObjective, intervals, statistics_within_folds
from m2net.objectives.base import Statistic
from m2net.recipes.table import read_table
from m2net.reports.figures import audit_rows, write_figures
from m2net.reports.results import read_rows

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/tables")
BY_ALL_MASKS = "by_all_masks"
"""Folder in that of a row with fewer lobe masks: each fold judged by the lobe masks of all its studies."""
OBJECTIVES = {
    "severity": SeverityObjective("binary"), "diagnosis": DiagnosisObjective(),
    "lobes": SegmentationObjective("lobes"), "infection": SegmentationObjective("infection"),
}  # fmt: skip
SEVERITY, LOBES, INFECTION, DIAGNOSIS = "severity/auc", "lobes/dice_mean", "infection/pooled_f1", "diagnosis/auc"
FIGURES = ("severity/auc_share", SEVERITY, LOBES, INFECTION, DIAGNOSIS, "diagnosis/accuracy")
ALONE = {SEVERITY: "classification_only", LOBES: "lobes_m2unet", INFECTION: "infection_alone", DIAGNOSIS: "diagnosis_alone"}
"""The row that learns a task alone, on the same encoder and patches; with the head that the task has in ``m2unet`` and ``all_tasks``."""
WEIGHTED = ("all_tasks", "all_tasks_uncertainty", "all_tasks_gradient_norm")
FEWER = ("m2unet-25", "m2unet-5")
PAIRS = (
    *((row, "embedding_mil", SEVERITY) for row in ("resnet50_max", "instance_mil", "gated_attention", "transformer", "one_level")),
    ("classification_only", "embedding_mil", SEVERITY),
    ("m2unet", ALONE[SEVERITY], SEVERITY),
    *((row, ALONE[SEVERITY], SEVERITY) for row in ("joint_lobe_aware", "joint_lobe_aware_infection", "joint_shares", "joint_shares_apart")),
    ("one_level", "m2unet", SEVERITY), ("one_level", "m2unet", LOBES),
    ("joint_lobe_aware_infection", "joint_lobe_aware", SEVERITY), ("joint_shares", "joint_lobe_aware_infection", SEVERITY),
    ("joint_shares_apart", "joint_shares", SEVERITY), ("joint_shares_apart", "joint_lobe_aware_infection", SEVERITY),
    *((row, ALONE[LOBES], LOBES) for row in ("m2unet", "one_level", "joint_lobe_aware", "joint_lobe_aware_infection")),
    *((row, ALONE[LOBES], LOBES) for row in ("joint_shares", "joint_shares_apart")),
    ("lobes_position_aware", ALONE[LOBES], LOBES),
    *((row, ALONE[INFECTION], INFECTION) for row in ("joint_lobe_aware_infection", "joint_shares", "joint_shares_apart")),
    *((row, alone, figure) for row in WEIGHTED for figure, alone in ALONE.items()),
    *((row, WEIGHTED[0], figure) for row in WEIGHTED[1:] for figure in ALONE),
    *((row, ALONE[SEVERITY], SEVERITY) for row in FEWER),
    *((row, row.partition("-")[0], SEVERITY) for row in FEWER),
    *((row, f"{ALONE[LOBES]}-{row.partition('-')[2]}", LOBES) for row in FEWER),
)  # fmt: skip
"""What each part brings: the second row lacks it, or the table asks which is better."""


def parted(name: str) -> tuple[str, int]:
    """A row's name and the share of studies with a lobe mask, per cent: ``m2unet-25`` is m2unet with 25."""
    row, _, percent = name.partition("-")
    return row, int(percent or 100)


@cache
def predictions(folder: Path) -> list[dict[str, Any]]:
    """Out-of-fold rows, by study; none where the row is not done.

    Where masks were taken from the row, its lobes are as all masks judge them, and left out until all folds are judged so.
    """
    if not (folder / "predictions.csv").exists():
        return []
    rows = {row["study_id"]: row for row in read_rows(folder / "predictions.csv")}
    if parted(folder.name)[1] < 100:
        judged = {row["study_id"]: row for path in folder.glob(f"{BY_ALL_MASKS}/fold_*/predictions.csv") for row in read_rows(path)}
        own = {study: {name: v for name, v in row.items() if not _of_lobes(name)} for study, row in rows.items()}
        whole = judged.keys() == rows.keys()
        rows = {study: row | ({n: v for n, v in judged[study].items() if _of_lobes(n)} if whole else {}) for study, row in own.items()}
    return [rows[study] for study in sorted(rows)]


def _of_lobes(column: str) -> bool:
    return column.startswith("lobes_")


@cache
def statistics(folder: Path, task: str) -> dict[str, Statistic]:
    """A row's figures of a task, AUCs within each fold (scores of different folds come from different models); none that it does not have.

    They remember their draws of patients: every pair of a row asks for the same.
    """
    rows = predictions(folder)
    has = rows and any(column.startswith(f"{task}_") for column in rows[0])
    return statistics_within_folds(OBJECTIVES[task], rows) if has else {}


def measured(figure: str, folder: Path, less: Path | None = None) -> Interval | None:
    """A figure of a row, or by how much it is above another's on the same draws of patients; None where a row does not have it."""
    task, _, name = figure.partition("/")
    whole, other = statistics(folder, task).get(name), None if less is None else statistics(less, task).get(name)
    if whole is None or (less is not None and other is None):
        return None
    patients = [row["patient_id"] for row in predictions(folder)]
    if other is None or less is None:
        return intervals({name: whole}, patients)[name]
    if [row["study_id"] for row in predictions(folder)] != [row["study_id"] for row in predictions(less)]:
        raise ValueError(f"{folder} and {less} judged different studies")
    return intervals({name: lambda chosen: whole(chosen) - other(chosen)}, patients)[name]


def table(runs: Path) -> Iterator[dict[str, object]]:
    """Figures of every row that is done."""
    for folder in sorted(path.parent for path in runs.glob("*/crossval.json")):
        for figure in FIGURES:
            if found := measured(figure, folder):
                yield _line(*parted(folder.name), figure, asdict(found), len(predictions(folder)))


def differences(runs: Path) -> Iterator[dict[str, object]]:
    """What a pair of rows that are done differ by, on the same draws of patients."""
    for one, other, figure in PAIRS:
        if found := measured(figure, runs / one, runs / other):
            yield _line(f"{one} minus {other}", parted(one)[1], figure, asdict(found), len(predictions(runs / one)))


def weights(runs: Path) -> Iterator[dict[str, object]]:
    """What each task weighed at the end of training where weights are learnt, mean over the folds."""
    for row in WEIGHTED[1:]:
        ends = [[line for line in read_table(path) if line.get("weight/lobes")][-1] for path in runs.glob(f"{row}/fold_*/csv/metrics.csv")]
        for name in sorted(name for name in (ends or [{}])[0] if name.startswith("weight/")):
            yield _line(row, 100, f"{name} at the end", {"value": float(np.mean([float(end[name]) for end in ends]))}, "")


def clocks(runs: Path) -> Iterator[dict[str, object]]:
    """Minutes that rows took, by the number of cores they could run on, and whether others ran beside them."""
    for path in sorted(runs.glob("*/clock.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        on = f"{found['cores']} core{'s' * (found['cores'] > 1)}" + (", beside others" if found.get("beside") else "")
        yield _line(*parted(path.parent.name), f"minutes/{on}", {"value": found["minutes"]}, "")


def audits(runs: Path) -> Iterator[dict[str, object]]:
    """How well trivial facts of these studies tell their labels: the same for every row, so those of one row that is done."""
    for label in ("severity", "diagnosis"):
        for path in sorted(runs.glob(f"*/audit_{label}.json"))[:1]:
            for row in audit_rows(f"trivial facts, {label}", path):
                if "alone" in row["figure"] or "strongest" in row["figure"]:
                    yield {"row": row.pop("experiment"), "lobes labelled": "100 %"} | row


def _line(row: str, labelled: int, figure: str, interval: dict[str, float], n: int | str) -> dict[str, object]:
    value = {k: f"{interval[k]:.5f}" if k in interval else "" for k in ("value", "low", "high")}
    return {"row": row, "lobes labelled": f"{labelled} %", "figure": figure, **value, "n": n}


def write_results(runs: Path, out: Path) -> None:
    """Write results.csv from the rows that are done."""
    kinds = (table, differences, weights, clocks, audits)
    figures = [line for kind in kinds for line in track(kind(runs), kind.__name__, total=None, transient=True)]
    write_figures(out, figures, by=("row", "lobes labelled", "figure"))


if __name__ == "__main__":
    write_results(RUNS, HERE / "results.csv")
    print(HERE / "results.csv")
