from __future__ import annotations

import csv
from pathlib import Path

from m2net.reports.figures import figure_row, write_figures


def read(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="") as file:
        return [(row["experiment"], row["figure"], row["value"]) for row in csv.DictReader(file)]


def test_figures_of_what_was_not_run_again_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert write_figures(path, [figure_row("a", "auc", 0.5), figure_row("a", "f1", 0.1), figure_row("b", "auc", 0.6)]) == 0
    assert write_figures(path, [figure_row("c", "auc", 0.8), figure_row("a", "auc", 0.7)]) == 2
    assert read(path) == [("a", "f1", "0.1000"), ("a", "auc", "0.7000"), ("b", "auc", "0.6000"), ("c", "auc", "0.8000")]
