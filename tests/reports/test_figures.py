from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from scipy.stats import beta

from m2net.reports.figures import audit_rows, figure_row, localisation_rows, named_rows, write_figures


def read(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="") as file:
        return [(row["experiment"], row["figure"], row["value"]) for row in csv.DictReader(file)]


def test_figures_of_what_was_not_run_again_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert write_figures(path, [figure_row("a", "auc", 0.5), figure_row("a", "f1", 0.1), figure_row("b", "auc", 0.6)]) == 0
    assert write_figures(path, [figure_row("c", "auc", 0.8), figure_row("a", "auc", 0.7)]) == 2
    assert read(path) == [("a", "f1", "0.1000"), ("a", "auc", "0.7000"), ("b", "auc", "0.6000"), ("c", "auc", "0.8000")]


def test_a_task_that_was_run_again_leaves_no_figure_behind(tmp_path: Path) -> None:
    """As where another fact is the strongest now: its name is part of the figure's."""
    path = tmp_path / "results.csv"
    write_figures(
        path, [figure_row("a", "audit/strongest: border", 0.6), figure_row("a", "lobes/dice", 0.9), figure_row("b", "audit/model", 0.7)]
    )
    assert write_figures(path, [figure_row("a", "audit/strongest: marks", 0.5)]) == 2
    assert sorted(read(path)) == [("a", "audit/strongest: marks", "0.5000"), ("a", "lobes/dice", "0.9000"), ("b", "audit/model", "0.7000")]


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


@pytest.mark.parametrize("names", [["covid19"], ["cap", "covid19"]])
def test_figures_of_several_classes_do_not_replace_each_other(names: list[str], tmp_path: Path) -> None:
    one = {"families": {"border": {"value": 0.5, "low": 0.4, "high": 0.6}}, "strongest": {"name": "border/mean", "auc": 0.55}}
    one |= {"strata": "border/mean", "model": {"value": 0.9, "low": 0.8, "high": 1.0}, "within": None, "lost": None}
    (tmp_path / "audit.json").write_text(json.dumps({"classes": [one | {"name": name} for name in names]}))
    rows = list(audit_rows("a", tmp_path / "audit.json"))
    assert len({row["figure"] for row in rows}) == len(rows) == 3 * len(names)
    assert write_figures(tmp_path / "results.csv", rows) == 0
    assert len(read(tmp_path / "results.csv")) == len(rows)


def test_the_pointing_game_has_a_binomial_interval(tmp_path: Path) -> None:
    """Three of four studies that were called infected are pointed at; of the fifth nothing is shown."""
    one = {"value": 0.75, "low": 0.5, "high": 1.0}
    found = {"studies": 5, "methods": {"drawn": {"threshold": 0.2, "pointing": one}}, "auprc_difference": {}, "slices": {}}
    (tmp_path / "localisation.json").write_text(json.dumps(found))
    (tmp_path / "localisation.csv").write_text("study_id,drawn_pointing\na,1.0\nb,0.0\nc,1.0\nd,1.0\ne,\n")
    threshold, plain, game = localisation_rows("a", tmp_path / "localisation.json")
    assert (threshold["figure"], threshold["value"], plain["n"]) == ("drawn/threshold", "0.2000", 4)
    assert (game["figure"], game["value"], game["n"]) == ("drawn/pointing, binomial", "0.7500", 4)
    assert float(game["low"]) == pytest.approx(beta.ppf(0.025, 3, 2), abs=1e-4)
    assert float(game["high"]) == pytest.approx(beta.ppf(0.975, 4, 1), abs=1e-4)
    assert not list(localisation_rows("a", tmp_path / "none.json"))
