"""Before and after on the same patients: gains, verdicts, recalibration, shift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from m2net.assessment.outcome import Comparison, Outcome, Repeat, compare, judge, recalibrate, verdict
from m2net.assessment.shift import shift_of
from m2net.bags.datamodule import BagDataModule
from m2net.bags.look import case_mix, image_facts, look_of, lung_histogram
from m2net.objectives import DiagnosisObjective, Interval, SeverityObjective
from m2net.objectives.calibration import calibrated, fit_shift
from m2net.phantoms import Phantom
from m2net.training import M2NetModule
from tests.assessment.made import prepared_of

Rows = list[dict[str, Any]]


def rows_of(score: np.ndarray, truth: np.ndarray) -> Rows:
    return [
        {"study_id": f"s{k}", "patient_id": f"p{k}", "severity": int(t), "severity_ge1": float(q), "severity_predicted": int(q >= 0.5)}
        for k, (q, t) in enumerate(zip(score, truth, strict=True))
    ]


def told(signal: float, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(signal * (truth - 0.5) + rng.normal(0, 1, len(truth))))))


def repeat(rows: Rows, recalibrated: Rows | None = None, folds: np.ndarray | None = None) -> Repeat:
    return Repeat(rows, np.zeros(len(rows), np.int64) if folds is None else folds, recalibrated)


def test_a_gain_is_paired_and_the_better_reference_counts(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, 160)
    weak, strong = told(0.8, truth, rng), told(2.5, truth, rng)
    objective = SeverityObjective("binary")
    found = compare("severity", objective, rows_of(weak, truth), [repeat(rows_of(strong, truth))])
    auc = next(c for c in found if c.figure == "auc")
    assert auc.primary
    assert auc.gain is not None
    assert auc.gain.value == pytest.approx(roc_auc_score(truth, strong) - roc_auc_score(truth, weak))
    assert auc.outcome is Outcome.BETTER
    back = compare("severity", objective, rows_of(weak, truth), [repeat(rows_of(weak, truth), rows_of(strong, truth))])
    assert verdict(back) is Outcome.WORSE  # against the better of the two
    brier = next(c for c in back if c.figure == "brier")
    assert brier.gain is not None
    assert brier.gain.value < 0  # a larger error is a loss
    same = compare("severity", objective, rows_of(weak, truth), [repeat(rows_of(weak, truth))] * 2)
    assert verdict(same) is Outcome.SAME
    assert all(c.gain is not None and c.gain.value == 0 for c in same)


def test_repeats_are_averaged(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, 60)
    scores = [told(1.0, truth, rng) for _ in range(3)]
    found = compare("severity", SeverityObjective("binary"), None, [repeat(rows_of(s, truth)) for s in scores])
    assert found[0].tuned.value == pytest.approx(np.mean([roc_auc_score(truth, s) for s in scores]))
    assert found[0].gain is None
    assert verdict(found) is Outcome.UNKNOWN


def test_models_of_different_folds_are_not_ranked_against_each_other(rng: np.random.Generator) -> None:
    """Models that rank as the base does, each on a scale of its own: nothing is lost, though the pooled AUC falls."""
    truth = rng.integers(0, 2, 40)
    score = told(2.5, truth, rng)
    folds = np.arange(40) % 5
    logits = np.log(score / (1 - score)) + 3 * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[folds]
    moved = 1 / (1 + np.exp(-logits))
    assert roc_auc_score(truth, moved) < roc_auc_score(truth, score) - 0.1
    found = compare("severity", SeverityObjective("binary"), rows_of(score, truth), [repeat(rows_of(moved, truth), folds=folds)])
    assert found[0].gain is not None
    assert found[0].gain.value == pytest.approx(0)
    assert found[0].outcome is Outcome.SAME
    parts = [roc_auc_score(truth[folds == k], score[folds == k]) for k in range(5)]
    assert found[0].tuned.value == pytest.approx(np.mean(parts))


def test_a_handful_of_labels_proves_nothing(rng: np.random.Generator) -> None:
    """One severe patient of forty, ranked first before and last after."""
    truth = np.arange(40) == 0
    before = np.where(truth, 0.9, 0.1) + rng.normal(0, 0.01, 40)
    found = compare("severity", SeverityObjective("binary"), rows_of(before, truth), [repeat(rows_of(1 - before, truth))])
    assert found[0].outcome is Outcome.UNKNOWN
    assert found[0].gain is not None
    assert found[0].gain.value == pytest.approx(-1)


def test_few_severe_patients_of_many_prove_no_gain(rng: np.random.Generator) -> None:
    """Nine of sixty, all ranked last before and first after; of ten it is a gain."""
    for severe, outcome in ((9, Outcome.SAME), (10, Outcome.BETTER)):
        truth = np.arange(60) < severe
        before = np.where(truth, 0.1, 0.9) + rng.normal(0, 0.01, 60)
        found = compare("severity", SeverityObjective("binary"), rows_of(before, truth), [repeat(rows_of(1 - before, truth))])
        assert found[0].outcome is outcome


def test_verdicts() -> None:
    assert judge(Interval(0.1, 0.01, 0.2)) is Outcome.BETTER
    assert judge(Interval(-0.1, -0.2, -0.01)) is Outcome.WORSE
    assert judge(Interval(0.1, -0.01, 0.2)) is Outcome.SAME
    assert judge(Interval(float("nan"), float("nan"), float("nan"))) is Outcome.UNKNOWN
    one = Interval(0.5, 0.4, 0.6)

    def figure(outcome: Outcome, *, primary: bool = True) -> Comparison:
        return Comparison("t", "f", primary, one, None, one, one, outcome)

    assert verdict([figure(Outcome.BETTER), figure(Outcome.WORSE)]) is Outcome.WORSE
    assert verdict([figure(Outcome.BETTER), figure(Outcome.SAME)]) is Outcome.BETTER
    assert verdict([figure(Outcome.SAME), figure(Outcome.WORSE, primary=False)]) is Outcome.SAME
    assert verdict([]) is Outcome.UNKNOWN


def test_a_planted_change_of_case_mix_and_confidence_is_found(rng: np.random.Generator) -> None:
    """Labels drawn from softmax(log p / 2 + bias): the fit finds the temperature and the differences of the biases."""
    logits = rng.normal(0, 3, (20000, 3))
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    planted = {"temperature": 2.0, "bias": [0.8, 0.0, -0.5]}
    probability = calibrated(log_p, planted)
    label = (probability.cumsum(1) < rng.random((20000, 1))).sum(1)
    found = fit_shift(log_p, label)
    assert found["temperature"] == pytest.approx(2.0, rel=0.05)
    np.testing.assert_allclose(np.diff(found["bias"]), np.diff(planted["bias"]), atol=0.08)
    assert fit_shift(log_p[:2], label[:2])["temperature"] < 5  # few studies: pulled towards leaving things as they are


def test_recalibration_leaves_the_ranking_and_mends_the_rate(rng: np.random.Generator) -> None:
    truth = (rng.random(400) < 0.2).astype(int)
    score = np.clip(told(1.5, truth, rng) + 0.3, 0.01, 0.99)
    rows = rows_of(score, truth)
    right = recalibrate(SeverityObjective("binary"), rows[:200], rows[200:])
    assert right is not None
    after = np.array([r["severity_ge1"] for r in right])
    assert roc_auc_score(truth[200:], after) == pytest.approx(roc_auc_score(truth[200:], score[200:]))
    assert abs(after.mean() - truth[200:].mean()) < (score[200:].mean() - truth[200:].mean()) / 4
    assert all(r["severity_predicted"] == int(r["severity_ge1"] >= 0.5) for r in right)
    assert recalibrate(SeverityObjective("binary"), rows_of(score[:5], np.zeros(5, int)), rows) is None
    names = DiagnosisObjective().names
    table = [{f"diagnosis_p_{n}": p for n, p in zip(names, row, strict=True)} for row in rng.dirichlet(np.ones(3), 30)]
    for k, row in enumerate(table):
        row["diagnosis"] = names[k % 3] if k % 5 else "cap|covid19"  # sets fit nothing
    mended = recalibrate(DiagnosisObjective(), table, table)
    assert mended is not None
    assert np.allclose([sum(r[f"diagnosis_p_{n}"] for n in names) for r in mended], 1)


def test_look_of_a_study(phantom: Phantom) -> None:
    prepared = prepared_of(phantom)
    histogram = lung_histogram(prepared)
    assert histogram.sum() == pytest.approx(1)
    centre = (np.arange(40) + 0.5) * 32 - 1024
    assert -900 < float(histogram @ centre) < -500
    noisy = prepared_of(phantom, noise=40.0)
    calm = image_facts(prepared)["noise"]
    assert image_facts(noisy)["noise"] == pytest.approx(np.hypot(calm, 40.0), rel=0.15)
    assert image_facts(prepared)["slice_mm"] == pytest.approx(6.0)
    assert image_facts(prepared)["pixel_mm"] == pytest.approx(phantom.geometry.spacing_mm[1], rel=1e-3)


def test_shift_is_nothing_at_home_and_something_elsewhere(cohort: Any, store: Any) -> None:
    spec = {"spacing_mm": 6.0, "patch": 32}
    data = BagDataModule(str(cohort), str(store), input=spec, instances=12)
    data.prepare_data()
    studies = list(data.manifest)
    torch.manual_seed(0)
    head = {"name": "pooled"}
    model = M2NetModule(
        {"encoder": {"name": "residual", "width": 4}}, {"severity": {"head": head, "objective": {"name": "severity"}}}, spec
    )
    model.train()
    for _ in range(60):  # batch statistics of these studies
        for batch in data.train_dataloader():
            model(data.on_after_batch_transfer(batch, 0))
    look = look_of(data.store, studies)
    home = shift_of(model, look, look, data.store, studies)
    assert home.histogram_distance == 0
    assert max(home.drift) < 0.5
    other = {**look, "histogram": look["histogram"][10:] + look["histogram"][:10]}
    away = shift_of(model, other, look, data.store, studies)
    assert away.histogram_distance is not None
    assert away.histogram_distance > 0.3
    with torch.no_grad():
        for layer in model.network.encoder.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean += 3 * layer.running_var.sqrt()  # type: ignore[union-attr, operator]
    assert min(shift_of(model, None, look, data.store, studies).drift) > 2.0
    assert look["case_mix"] == case_mix(studies)
    assert sum(look["case_mix"]["diagnosis"].values()) == len(studies)
