"""Coverage, band and risk as lines of a results.csv; groups of a reliability curve against a loop."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from m2net.reports.trust import graded, reliability, trust_rows


def judged(folder: Path, sets: list[tuple[str, str]]) -> None:
    (folder / "metrics.json").write_text(json.dumps({"severity/ece_band": 0.03, "severity/risk_half": 0.1, "studies": len(sets)}))
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["study_id", "severity", "severity_set"], *([f"s{k}", grade, likely] for k, (grade, likely) in enumerate(sets))]
        )


def test_coverage_counts_graded_studies_with_the_interval_of_clopper_and_pearson(tmp_path: Path) -> None:
    judged(tmp_path, [("0", "0"), ("1", "0|1"), ("2", "0|1"), ("3", "2|3"), ("", "1"), ("1", "")])
    band, risk, coverage = trust_rows("a", tmp_path, 0.9)
    assert (band["value"], risk["value"]) == ("0.0300", "0.1000")
    assert coverage["figure"] == "severity/coverage, binomial (stated 0.9)"
    assert (coverage["value"], coverage["n"]) == ("0.6000", 5)  # 3 of the 5 that have a grade
    assert float(coverage["low"]) == pytest.approx(beta.ppf(0.025, 3, 3), abs=1e-4)
    assert float(coverage["high"]) == pytest.approx(beta.ppf(0.975, 4, 2), abs=1e-4)
    assert len(graded(tmp_path / "predictions.csv")) == 5


def test_nothing_was_run(tmp_path: Path) -> None:
    assert not list(trust_rows("a", tmp_path, 0.9))
    assert not graded(tmp_path / "predictions.csv")


def test_reliability_has_ten_groups_of_equal_size(rng: np.random.Generator) -> None:
    drawn: list[Any] = []

    class Axes:
        def errorbar(self, x: Any, y: Any, yerr: Any, **style: Any) -> None:
            drawn.append((np.array(x), np.array(y), yerr))

    said = rng.random(200)
    happened = (rng.random(200) < said).astype(float)
    reliability(Axes(), said, happened, "black", "")
    ((x, y, bars),) = drawn
    order = np.argsort(said)
    np.testing.assert_allclose(x, [said[order[k : k + 20]].mean() for k in range(0, 200, 20)])
    np.testing.assert_allclose(y, [happened[order[k : k + 20]].mean() for k in range(0, 200, 20)])
    k = round(y[4] * 20)
    np.testing.assert_allclose(y[4] - bars[0, 4], beta.ppf(0.025, k, 21 - k))
