"""localisation.json and its table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from m2net.assessment.localisation import THRESHOLDS, Localised, choose_threshold, compare, figures, slice_figures
from m2net.objectives import Interval
from m2net.reports.results import write_json, write_table


def write_localisation(
    folder: Path, validation: Sequence[Localised], test: Sequence[Localised], methods: Sequence[str], groups: Sequence[str], version: str
) -> Path:
    """Write localisation.json and localisation.csv, print the table; returns the path of the JSON.

    Each method's threshold is the best on ``validation``; everything else is of ``test``. Without ``groups`` no slice is diagnosed.
    """
    thresholds = {method: choose_threshold(validation, method, THRESHOLDS) for method in methods}
    found = {method: figures(test, method, thresholds[method]) for method in methods}
    differences = {f"{one} - {other}": compare(test, one, other) for one, other in itertools.combinations(methods, 2)}
    slices = slice_figures(test, groups) if groups else {}
    infected = sum(study.row["infection"] for study in test)
    report: dict[str, Any] = {"studies": len(test), "infected": infected, "phantom_version": version, "slices": _plain(slices)}
    report["methods"] = {method: {"threshold": thresholds[method], **_plain(found[method])} for method in methods}
    report["auprc_difference"] = _plain(differences)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "localisation.json", report)
    write_table(folder / "localisation.csv", [study.row for study in test])
    table = Table("figure", *methods, title=f"Test part: {len(test)} studies, {infected} with an infection")
    table.add_row("threshold", *(f"{value:.2f}" for value in thresholds.values()))
    for name in found[methods[0]]:
        table.add_row(name, *(str(found[method][name]) for method in methods))
    console = Console(width=160)
    for method, threshold in thresholds.items():
        if not any(study.boxes[method, threshold][2] for study in validation):
            console.print(
                f"{method}: no box of the validation part meets an infection at any threshold; that of {threshold:.2f} says nothing."
            )
    console.print(table)
    for name, value in differences.items():
        console.print(f"AUPRC, {name}: {value}")
    for name, value in slices.items():
        console.print(f"single slices, {name}: {value}")
    return folder / "localisation.json"


def _plain(intervals: dict[str, Interval]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in intervals.items()}
