"""Calibration, conformal sets and selective risk: against known worlds, loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from m2net.batch import Output
from m2net.errors import ConfigError
from m2net.objectives import SeverityObjective
from m2net.objectives.calibration import FITS, calibrated, fit_isotonic, fit_temperature
from m2net.objectives.reliability import (
    brier,
    calibration_band,
    calibration_error,
    conformal_set,
    conformal_threshold,
    cut_error,
    selective_risk,
)
from tests.objectives.test_objectives import graded


def world(rng: np.random.Generator, n: int, temperature: float, grades: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that is ``temperature`` times too sure, and grades drawn from the truth."""
    true = rng.normal(size=(n, grades)) * 1.5
    p = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    grade = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=grades - 1)
    return true * temperature, grade


def test_calibration_error_against_a_loop(rng: np.random.Generator) -> None:
    p = rng.random(50)
    y = rng.random(50) < 0.4
    order = np.argsort(p)
    expected = sum(5 * abs(p[order[k : k + 5]].mean() - y[order[k : k + 5]].mean()) for k in range(0, 50, 5)) / 50
    assert calibration_error(p, y) == pytest.approx(expected)
    assert np.isnan(calibration_error(p[:0], y[:0]))


def test_the_band_holds_calibrated_models_and_not_sure_ones(rng: np.random.Generator) -> None:
    """Both ways: 95 % of calibrated models of two and of five grades stay below, not fewer and not nearly all of them."""
    for grades in (2, 5):
        inside = 0
        for _ in range(80):
            p = rng.dirichlet(np.full(grades, 0.7), 200)
            grade = (rng.random((200, 1)) >= p.cumsum(1)[:, :-1]).sum(1)
            inside += cut_error(p, grade) <= calibration_band(p)
        assert binom.ppf(0.001, 80, 0.95) <= inside <= 79
    p = rng.beta(2, 2, 300)
    sure = np.where(p > 0.5, 0.97, 0.03)
    pair = np.stack([1 - sure, sure], axis=1)
    assert cut_error(pair, (rng.random(300) < p).astype(int)) > calibration_band(pair)


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_temperature_is_found_again(rng: np.random.Generator, temperature: float) -> None:
    logits, grade = world(rng, 4000, temperature, grades=3)
    assert fit_temperature(logits, grade)["temperature"] == pytest.approx(temperature, rel=0.1)


def test_isotonic_is_scikit_learns_and_stays_ordered(rng: np.random.Generator) -> None:
    logits, grade = world(rng, 500, 3.0)
    new, _ = world(rng, 200, 3.0)
    p, q = (1 / (1 + np.exp(-(x[:, 1] - x[:, 0]))) for x in (logits, new))
    expected = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, grade == 1).predict(q)
    np.testing.assert_allclose(calibrated(new, fit_isotonic(logits, grade))[:, 1], expected, atol=1e-6)
    logits, grade = world(rng, 300, 2.0, grades=4)
    four = calibrated(logits, fit_isotonic(logits, grade))
    assert (four >= -1e-12).all()
    np.testing.assert_allclose(four.sum(1), 1)


def test_brier_is_scikit_learns(rng: np.random.Generator) -> None:
    p, y = rng.random(40), rng.integers(0, 2, 40)
    assert brier(np.stack([1 - p, p], 1), y) == pytest.approx(brier_score_loss(y, p))


def test_calibration_and_sets_never_share_a_patient(rng: np.random.Generator) -> None:
    """Two studies a patient, the second told with less confidence: by every second study one part would see first visits only."""
    objective = SeverityObjective("ordinal:3", calibrate="temperature", coverage=0.8)
    logits, grade = world(rng, 400, 3.0, grades=3)
    logits[1::2] /= 3
    batch = graded(grade.astype(float).tolist(), "ordinal:3")
    batch.bag_targets["patient_id"] = torch.from_numpy(rng.permutation(10**6)[:200]).repeat_interleave(2)
    objective.update(Output(torch.from_numpy(logits)), batch)
    objective.calibrate()
    log_p = torch.from_numpy(logits).log_softmax(1).numpy()
    half = np.argsort(np.argsort(batch.bag_targets["patient_id"][::2].numpy())).repeat(2) % 2
    one, other = half == 0, half == 1
    expected = FITS["temperature"](log_p[one], grade[one])
    assert objective.calibration["temperature"] == pytest.approx(expected["temperature"])
    assert objective.calibration["least"] == pytest.approx(conformal_threshold(calibrated(log_p[other], expected), grade[other], 0.8))


def test_halves_do_not_follow_the_manifest(rng: np.random.Generator) -> None:
    """Cases and controls listed in turn: every second row is all of one kind."""
    objective = SeverityObjective(calibrate="temperature", coverage=0.8)
    grade = np.arange(200) % 2
    batch = graded(grade.astype(float).tolist())
    batch.bag_targets["patient_id"] = torch.from_numpy(rng.permutation(10**6)[:200])
    objective.update(Output(torch.from_numpy(rng.normal(size=(200, 2)) + np.eye(2)[grade])), batch)
    objective.calibrate()
    assert 0.1 < objective.calibration["temperature"] < 10  # of one kind it would be at its lower bound


@pytest.mark.parametrize("how", ["temperature", "shift", "isotonic"])
def test_one_grade_calibrates_nothing_and_it_is_said(rng: np.random.Generator, how: str) -> None:
    objective = SeverityObjective(calibrate=how)
    objective.update(Output(torch.from_numpy(rng.normal(size=(20, 2)))), graded([1.0] * 20))
    with pytest.warns(UserWarning, match="severity is not calibrated"):
        objective.calibrate()
    assert objective.calibration == {}


def test_a_cut_with_one_side_keeps_its_probabilities(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(30, 3))
    knots = fit_isotonic(logits, rng.integers(0, 2, 30))["isotonic"]  # nobody has the highest grade
    before = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(np.interp(before[:, 2], *knots[1]), before[:, 2])


def test_conformal_sets_cover_as_promised(rng: np.random.Generator) -> None:
    """Mean coverage over many calibrations lies between the promise and the promise + 1 / (n + 1)."""
    covered, n = [], 60
    for _ in range(300):
        logits, grade = world(rng, n + 200, 2.0, grades=3)
        p = calibrated(logits, {})
        sets = conformal_set(p[n:], conformal_threshold(p[:n], grade[:n], 0.9))
        covered.append(sets[np.arange(200), grade[n:]].mean())
    error = 3 * np.std(covered) / np.sqrt(300)
    assert 0.9 - error <= np.mean(covered) <= 0.9 + 1 / (n + 1) + error
    assert conformal_threshold(p[:5], grade[:5], 0.9) == 0.0  # too few to promise anything


def test_ties_at_the_threshold_are_in_the_set() -> None:
    """Isotonic steps give many studies one probability: whoever sets the threshold is covered by it."""
    p = np.repeat([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]], 10, axis=0)
    grade = np.zeros(30, np.int64)
    for coverage in (0.3, 0.5, 0.6, 0.8):
        assert conformal_set(p, conformal_threshold(p, grade, coverage))[:, 0].mean() >= coverage


def test_selective_risk_against_a_loop(rng: np.random.Generator) -> None:
    confidence, wrong = rng.permutation(20).astype(float), rng.random(20) < 0.3
    order = sorted(range(20), key=lambda k: -confidence[k])
    expected = [np.mean([wrong[k] for k in order[: n + 1]]) for n in range(20)]
    np.testing.assert_allclose(selective_risk(confidence, wrong), expected)


def test_equal_probabilities_have_no_order(rng: np.random.Generator) -> None:
    """Isotonic steps tie most studies; a manifest sorted by label must not look less calibrated than a shuffled one."""
    p = rng.choice([0.1, 0.3, 0.5, 0.7, 0.9], 200)
    y = rng.random(200) < p
    by_label = np.argsort(y, kind="stable")
    assert calibration_error(p[by_label], y[by_label]) == pytest.approx(calibration_error(p, y))
    np.testing.assert_allclose(selective_risk(p[by_label], y[by_label]), selective_risk(p, y))
    assert calibration_error(np.full(200, 0.5), y, 10) == pytest.approx(abs(0.5 - y.mean()))


@pytest.mark.parametrize("how", ["none", "temperature", "shift", "isotonic"])
def test_severity_is_judged_calibrated(rng: np.random.Generator, how: str) -> None:
    objective = SeverityObjective("ordinal:3", calibrate=how, coverage=0.8)
    logits, grade = world(rng, 400, 3.0, grades=3)
    objective.update(Output(torch.from_numpy(logits)), graded(grade.astype(float).tolist(), "ordinal:3"))
    raw = objective.compute()
    objective.calibrate()
    objective.reset()
    new, truth = world(rng, 1000, 3.0, grades=3)
    b, output = graded(truth.astype(float).tolist(), "ordinal:3"), Output(torch.from_numpy(new))
    objective.update(output, b)
    metrics = objective.compute()
    assert binom.ppf(0.001, 1000, 0.8) / 1000 - 0.03 <= metrics["coverage"] <= 0.93  # isotonic steps are ties: sets err on the large side
    assert raw["ece"] > raw["ece_band"]
    assert (metrics["ece"] < raw["ece"] / 2) is (how != "none")
    rows = objective.rows(output, b)
    figures = {name: statistic(np.arange(1000)) for name, statistic in objective.statistics(rows).items()}
    assert {k: figures[k] for k in ("ece", "brier", "coverage", "set_size", "auc")} == pytest.approx(
        {k: metrics[k] for k in ("ece", "brier", "coverage", "set_size", "auc")}, abs=1e-6
    )
    with pytest.raises(ConfigError, match="calibrate is 'platt'"):
        SeverityObjective(calibrate="platt")
    with pytest.raises(ConfigError, match="a coverage of 2"):
        SeverityObjective(coverage=2.0)


def test_the_band_knows_studies_of_one_patient(rng: np.random.Generator) -> None:
    """Calibrated answers about 40 patients of five studies each, which share a grade, lie above the band of 200 independent studies."""
    above = np.repeat(rng.random(40) * 0.6 + 0.2, 5)
    patient = np.repeat(np.arange(40), 5)
    pair = np.stack([1 - above, above], axis=1)
    inside = {"each": 0, "patients": 0}
    bands = {"each": calibration_band(pair), "patients": calibration_band(pair, patient)}
    for _ in range(60):
        error = cut_error(pair, np.repeat(rng.random(40), 5) < above)
        for name, band in bands.items():
            inside[name] += error <= band
    assert inside["patients"] >= 52
    assert inside["each"] <= 20


def test_a_handful_that_are_all_right_does_not_make_sure() -> None:
    """Of eight studies called rightly the likeliest temperature is none at all."""
    log_p = np.log(np.tile([[0.7, 0.3], [0.3, 0.7]], (4, 1)))
    found = fit_temperature(log_p, np.tile([0, 1], 4))["temperature"]
    assert 0.2 < found < 1
    assert fit_temperature(np.tile(log_p, (500, 1)), np.tile([0, 1], 2000))["temperature"] < 0.15
