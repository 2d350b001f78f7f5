from __future__ import annotations

import csv
from pathlib import Path

from m2net.reports.figures import figure_row, named_rows, write_figures


def read(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="") as file:
        return [(row["experiment"], row["figure"], row["value"]) for row in csv.DictReader(file)]


def test_figures_of_what_was_not_run_again_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert write_figures(path, [figure_row("a", "auc", 0.5), figure_row("a", "f1", 0.1), figure_row("b", "auc", 0.6)]) == 0
    assert write_figures(path, [figure_row("c", "auc", 0.8), figure_row("a", "auc", 0.7)]) == 2
    assert read(path) == [("a", "f1", "0.1000"), ("a", "auc", "0.7000"), ("b", "auc", "0.6000"), ("c", "auc", "0.8000")]


def test_named_figures_of_a_json(tmp_path: Path) -> None:
    path = tmp_path / "series.json"
    path.write_text('{"P1": {"covered": 0.95, "outside_ml": 12.0}, "P2": {"covered": 0.9}}')
    rows = [(row["experiment"], row["figure"], row["value"], row["low"]) for row in named_rows("series {}", path)]
    assert rows == [
        ("series P1", "covered", "0.9500", ""),
        ("series P1", "outside_ml", "12.0000", ""),
        ("series P2", "covered", "0.9000", ""),
    ]
    assert not list(named_rows("series {}", tmp_path / "none.json"))
