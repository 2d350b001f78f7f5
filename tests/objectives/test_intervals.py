"""Intervals by resampling patients, and what has none."""

from __future__ import annotations

import numpy as np
import pytest

from m2net.objectives import DiagnosisObjective, Interval, SegmentationObjective, SeverityObjective, intervals, patient_bootstrap
from m2net.objectives.bootstrap import FEWEST


def test_a_mean_has_about_the_interval_of_its_standard_error(rng: np.random.Generator) -> None:
    values = rng.normal(size=400)
    found = intervals({"mean": lambda chosen: float(values[chosen].mean())}, [f"p{k}" for k in range(400)])["mean"]
    expected = 1.96 * values.std() / 20
    assert found.high - found.value == pytest.approx(expected, rel=0.12)
    assert found.value - found.low == pytest.approx(expected, rel=0.12)


def test_two_patients_span_the_truth_half_the_time(rng: np.random.Generator) -> None:
    """Why few have none: however many studies each has, the truth lies between two patients or it does not."""

    def holds(patients: int) -> bool:
        values = np.repeat(rng.normal(size=patients), 40)
        low, high = patient_bootstrap(lambda chosen: float(values[chosen].mean()), [f"p{k // 40}" for k in range(len(values))], draws=200)
        return low <= 0 <= high

    assert 0.38 < np.mean([holds(2) for _ in range(200)]) < 0.62
    assert np.mean([holds(20) for _ in range(100)]) > 0.85


def test_few_patients_have_no_interval_however_many_their_studies(rng: np.random.Generator) -> None:
    values = rng.random(400)
    for patients, has in ((FEWEST - 1, False), (FEWEST, True)):
        found = intervals({"mean": lambda chosen: float(values[chosen].mean())}, [f"p{k % patients}" for k in range(400)])["mean"]
        assert found.value == pytest.approx(values.mean())
        assert bool(np.isfinite([found.low, found.high]).all()) is has


def test_patients_without_a_truth_do_not_count(rng: np.random.Generator) -> None:
    """Sixty patients of whom nine have a mask are nine."""
    objective = SegmentationObjective("lobes")
    for masks, has in ((FEWEST - 1, False), (FEWEST, True)):
        rows = [
            dict.fromkeys((f"lobes_{name}" for name in ("hit", "claimed", "present", "pixels")), 5.0 if k < masks else "")
            for k in range(60)
        ]
        rows = [row | {"lobes_dice_left_upper": rng.random() if k < masks else "nan"} for k, row in enumerate(rows)]
        assert objective.known(rows).sum() == masks
        found = intervals(objective.statistics(rows), [f"p{k}" for k in range(60)], objective.known(rows))["dice_left_upper"]
        assert bool(np.isfinite([found.low, found.high]).all()) is has
        assert objective.bearing(rows)["dice_left_upper"].sum() == masks
        assert objective.bearing(rows)["dice_left_lower"].sum() == 0
        assert {objective.bearing(rows)[name].sum() for name in ("dice_mean", "pooled_dice_mean", "pooled_f1", "pooled_sensitivity")} == {
            masks
        }
        assert "pooled_specificity" not in objective.bearing(rows)


def test_a_figure_counts_the_patients_that_it_rests_on(rng: np.random.Generator) -> None:
    """Of a hundred patients three are severe: sensitivity and AUC are of three (of three found, the exact interval begins at 0.29)."""
    severity = SeverityObjective("binary")
    for severe, told in ((3, False), (FEWEST - 1, False), (FEWEST, True)):
        rows = [{"severity": int(k < severe), "severity_ge1": 0.9 if k < severe else 0.1} for k in range(100)]
        found = intervals(severity.statistics(rows), [f"p{k}" for k in range(100)], severity.known(rows), bearing=severity.bearing(rows))
        has = {name: bool(np.isfinite([one.low, one.high]).all()) for name, one in found.items()}
        assert {has[name] for name in ("auc", "sensitivity", "f1")} == {told}
        assert has["specificity"]
        assert has["accuracy"]


def test_a_cut_without_patients_on_a_side_is_no_figure() -> None:
    """Grades 0 to 3 of which nobody has the last: the mean over cuts is of the two others, and rests on the eleven above the second."""
    severity = SeverityObjective("ordinal:4")
    rows = [{"severity": 2 if k < 11 else k % 2} for k in range(60)]
    bearing = severity.bearing(rows)
    assert [int(bearing[name].sum()) for name in ("sensitivity", "specificity", "auc", "auc_share")] == [11, 24, 11, 11]


def test_groups_rest_on_their_own_patients() -> None:
    """Six of CAP, fifty-four of COVID-19, and forty of whom only that they are ill is known, who are negatives of the healthy alone."""
    diagnosis = DiagnosisObjective()
    names = ["cap"] * 6 + ["covid19"] * 54 + ["covid19|cap"] * 40 + ["non_pneumonia"] * 20
    rows: list[dict[str, object]] = [{"diagnosis": name, **{f"diagnosis_p_{n}": 1 / 3 for n in diagnosis.names}} for name in names]
    bearing = {name: int(told.sum()) for name, told in diagnosis.bearing(rows).items()}
    assert (bearing["sensitivity_cap"], bearing["specificity_cap"], bearing["auc_cap"]) == (6, 74, 6)
    assert (bearing["sensitivity_non_pneumonia"], bearing["specificity_non_pneumonia"]) == (20, 100)
    assert bearing["auc"] == 6


def test_a_calibration_error_has_no_interval() -> None:
    found = intervals({"ece": lambda _: 0.02, "brier": lambda _: 0.1}, [f"p{k}" for k in range(50)])
    assert np.isnan(found["ece"].low)
    assert found["brier"].low == pytest.approx(0.1)
    assert (str(found["ece"]), str(found["brier"])) == ("0.020", "0.100 (0.100 to 0.100)")
    assert str(Interval(0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)"
