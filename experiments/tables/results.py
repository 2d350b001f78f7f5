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

from rich.progress import track

from m2net.objectives import DiagnosisObjective, Interval, SegmentationObjective, SeverityObjective, intervals
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
"""The row that learns a task alone, with the encoder, patches and head that the joint rows have."""
PAIRS = (
    *((row, "embedding_mil", SEVERITY) for row in ("resnet50_max", "instance_mil", "gated_attention", "transformer")),
    ("classification_only", "embedding_mil", SEVERITY),
    *((row, ALONE[SEVERITY], SEVERITY) for row in ("m2unet", "joint_lobe_aware", "joint_lobe_aware_infection", "joint_shares")),
    *((row, ALONE[LOBES], LOBES) for row in ("m2unet", "one_level", "joint_lobe_aware", "joint_shares", "lobes_position_aware")),
    *(("all_tasks", alone, figure) for figure, alone in ALONE.items()),
    *((f"all_tasks_{weighting}", "all_tasks", figure) for weighting in ("uncertainty", "gradient_norm") for figure in ALONE),
    ("one_level", "m2unet", SEVERITY), ("one_level", "m2unet", LOBES),
    ("joint_lobe_aware_infection", "joint_lobe_aware", SEVERITY), ("joint_shares", "joint_lobe_aware_infection", SEVERITY),
    *((f"{row}-{percent}", ALONE[SEVERITY], SEVERITY) for percent in (25, 5) for row in ("m2unet", "joint_lobe_aware")),
    *((f"{row}-{percent}", row, SEVERITY) for percent in (25, 5) for row in ("m2unet", "joint_lobe_aware")),
    *((f"{row}-{percent}", f"{ALONE[LOBES]}-{percent}", LOBES) for percent in (25, 5) for row in ("m2unet", "joint_lobe_aware")),
)  # fmt: skip
"""What each part brings: the second row lacks it, or the table asks which is better."""

Key = tuple[str, str, str]


def parted(name: str) -> tuple[str, int]:
    """A row's name and the share of studies with a lobe mask, per cent: ``m2unet-25`` is m2unet with 25."""
    row, _, percent = name.partition("-")
    return row, int(percent or 100)


@cache
def predictions(folder: Path) -> list[dict[str, Any]]:
    """Out-of-fold rows, by study; their lobes as all masks judge them, if some masks were taken from the row; none where it is not done."""
    if not (folder / "predictions.csv").exists():
        return []
    rows = {row["study_id"]: row for row in read_rows(folder / "predictions.csv")}
    for path in sorted(folder.glob(f"{BY_ALL_MASKS}/fold_*/predictions.csv")):
        for row in read_rows(path):
            rows[row["study_id"]] |= {name: value for name, value in row.items() if name.startswith("lobes_")}
    return [rows[study] for study in sorted(rows)]


def measured(figure: str, rows: list[dict[str, Any]], less: list[dict[str, Any]] | None = None) -> Interval | None:
    """A figure of a row, or by how much it is above another's on the same draws of patients; None where a row does not have it."""
    task, _, name = figure.partition("/")
    tables = [rows] if less is None else [rows, less]
    if not all(any(column.startswith(f"{task}_") for column in (table or [{}])[0]) for table in tables):
        return None
    found = [OBJECTIVES[task].statistics(table)[name] for table in tables]
    whole = found[0] if less is None else lambda chosen: found[0](chosen) - found[1](chosen)
    return intervals({name: whole}, [row["patient_id"] for row in rows])[name]


def table(runs: Path) -> Iterator[dict[str, object]]:
    """Figures of every row that is done."""
    for folder in sorted(path.parent for path in runs.glob("*/crossval.json")):
        rows = predictions(folder)
        for figure in FIGURES:
            if found := measured(figure, rows):
                yield _line(*parted(folder.name), figure, asdict(found), len(rows))


def differences(runs: Path) -> Iterator[dict[str, object]]:
    """What a pair of rows that are done differ by, on the same draws of patients."""
    for one, other, figure in PAIRS:
        if found := measured(figure, predictions(runs / one), predictions(runs / other)):
            name, labelled = parted(one)
            yield _line(f"{name} minus {other}", labelled, figure, asdict(found), len(predictions(runs / one)))


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
    value = {k: f"{interval[k]:.4f}" if k in interval else "" for k in ("value", "low", "high")}
    return {"row": row, "lobes labelled": f"{labelled} %", "figure": figure, **value, "n": n}


def write_results(runs: Path, out: Path) -> None:
    """Write results.csv from the rows that are done."""
    kinds = (table, differences, clocks, audits)
    figures = [line for kind in kinds for line in track(kind(runs), kind.__name__, total=None, transient=True)]
    write_figures(out, figures, by=("row", "lobes labelled", "figure"))


if __name__ == "__main__":
    write_results(RUNS, HERE / "results.csv")
    print(HERE / "results.csv")
