"""Ranks are asked within folds: against scikit-learn, fold by fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, roc_auc_score

from m2net.objectives import BurdenReading, DiagnosisObjective, SeverityObjective, ranks, statistics_within_folds, within_folds

EVERYONE = np.arange(90)


def graded(rng: np.random.Generator, shift: float) -> list[dict[str, Any]]:
    """Rows of three folds of 40, 30 and 20 studies; the model of each says more of everyone than the one before, by ``shift``."""
    fold = np.repeat([0, 1, 2], [40, 30, 20])
    grade = rng.random(90) < 0.4
    logit = rng.normal(grade * 1.0, 1.0) + shift * fold
    return [
        {"study_id": f"s{k}", "fold": str(fold[k]), "severity": str(int(grade[k])), "severity_ge1": str(1 / (1 + np.exp(-logit[k])))}
        for k in range(90)
    ]


def fold_by_fold(rows: list[dict[str, Any]]) -> float:
    folds = [[row for row in rows if row["fold"] == fold] for fold in "012"]
    aucs = [roc_auc_score([int(row["severity"]) for row in part], [float(row["severity_ge1"]) for row in part]) for part in folds]
    return float(np.average(aucs, weights=[len(part) for part in folds]))


def test_auc_is_that_of_each_fold_and_accuracy_that_of_all(rng: np.random.Generator) -> None:
    rows = graded(rng, shift=2.0)
    figures = statistics_within_folds(SeverityObjective("binary"), rows)
    assert figures["auc"](EVERYONE) == pytest.approx(fold_by_fold(rows))
    pooled = roc_auc_score([int(row["severity"]) for row in rows], [float(row["severity_ge1"]) for row in rows])
    assert figures["auc"](EVERYONE) > pooled + 0.02  # scores of three models on one scale
    said = [float(row["severity_ge1"]) >= 0.5 for row in rows]
    assert figures["accuracy"](EVERYONE) == pytest.approx(accuracy_score([row["severity"] == "1" for row in rows], said))


def test_rows_without_folds_are_one(rng: np.random.Generator) -> None:
    rows = [{name: value for name, value in row.items() if name != "fold"} for row in graded(rng, shift=1.0)]
    objective = SeverityObjective("binary")
    ours, plain = statistics_within_folds(objective, rows), objective.statistics(rows)
    assert {name: figure(EVERYONE) for name, figure in ours.items()} == {name: figure(EVERYONE) for name, figure in plain.items()}


def test_every_auc_of_a_diagnosis_is_within_folds(rng: np.random.Generator) -> None:
    classes = ["non_pneumonia", "covid19", "cap"]
    rows = []
    for k in range(90):
        p = rng.dirichlet([1, 1, 1])
        told = {f"diagnosis_p_{name}": float(v) for name, v in zip(classes, p, strict=True)}
        rows.append({"fold": str(k % 3), "diagnosis": classes[int(rng.integers(3))], **told})
    figures = statistics_within_folds(DiagnosisObjective(), rows)
    for name in classes:
        expected = [
            roc_auc_score([r["diagnosis"] == name for r in part], [r[f"diagnosis_p_{name}"] for r in part])
            for part in ([r for r in rows if r["fold"] == fold] for fold in "012")
        ]
        assert figures[f"auc_{name}"](EVERYONE) == pytest.approx(np.mean(expected))
    assert {name for name in figures if ranks(name)} == {"auc", *(f"auc_{name}" for name in classes)}


def test_folds_count_by_the_studies_that_are_graded(rng: np.random.Generator) -> None:
    """Two of the last fold's twenty are graded, and wrongly ordered: they weigh two, not twenty."""
    rows = graded(rng, shift=0.0)
    for k, row in enumerate(rows[70:]):
        row |= {"severity": ("0", "1")[k] if k < 2 else "", "severity_ge1": ("0.9", "0.1")[k] if k < 2 else row["severity_ge1"]}
    parts = [rows[:40], rows[40:70]]
    aucs = [roc_auc_score([int(row["severity"]) for row in part], [float(row["severity_ge1"]) for row in part]) for part in parts]
    expected = (40 * aucs[0] + 30 * aucs[1] + 2 * 0.0) / 72
    assert statistics_within_folds(SeverityObjective("binary"), rows)["auc"](EVERYONE) == pytest.approx(expected)


def test_a_label_that_excludes_no_group_is_not_known() -> None:
    objective = DiagnosisObjective(groups=[["covid19"], ["non_pneumonia", "cap"]])
    told = ["covid19", "non_pneumonia+cap", "covid19|non_pneumonia+cap", "", None]
    assert objective.known([{"diagnosis": text} for text in told]).tolist() == [True, True, False, False, False]


def test_derived_scores_are_ranked_within_folds(rng: np.random.Generator) -> None:
    """Each fold's model orders perfectly, on a scale of its own."""
    truth = rng.permutation(30).astype(float)
    rows = [
        {"fold": str(k % 3), "burden_geographic_extent": str(t + 100 * (k % 3)), "burden_geographic_extent_true": str(t) if k else ""}
        for k, t in enumerate(truth)
    ]
    objective = BurdenReading()
    figures = statistics_within_folds(objective, rows)
    assert figures["geographic_extent_spearman"](np.arange(30)) == pytest.approx(1)
    assert objective.statistics(rows)["geographic_extent_spearman"](np.arange(30)) < 0.6
    assert not ranks("geographic_extent_mae")
    assert objective.known(rows).tolist() == [False] + [True] * 29


def test_a_fold_where_a_figure_is_undefined_is_left_out(rng: np.random.Generator) -> None:
    said, truth, folds = rng.random(30), rng.random(30), np.repeat([0, 1, 2], [14, 15, 1])

    def rho(chosen: np.ndarray) -> float:
        return float(spearmanr(said[chosen], truth[chosen]).statistic) if len(chosen) > 1 else float("nan")

    expected = (14 * rho(np.arange(14)) + 15 * rho(np.arange(14, 29))) / 29
    assert within_folds(rho, folds)(np.arange(30)) == pytest.approx(expected)
    assert np.isnan(within_folds(rho, folds)(np.array([29])))


def test_the_share_of_the_best_is_that_of_both_means(rng: np.random.Generator) -> None:
    """A fold whose best AUC is hardly above chance has any share."""
    rows = graded(rng, shift=0.0)
    for row in rows:
        row["true_severity_ge1"] = str(np.clip(0.5 + 0.05 * rng.normal() + 0.02 * int(row["severity"]), 0, 1))
    figures = statistics_within_folds(SeverityObjective("binary"), rows)
    auc, best = figures["auc"](EVERYONE), figures["auc_best"](EVERYONE)
    assert auc == pytest.approx(fold_by_fold(rows))
    assert figures["auc_share"](EVERYONE) == pytest.approx((auc - 0.5) / (best - 0.5))


def test_sets_of_one_fold_only_are_judged_there(rng: np.random.Generator) -> None:
    rows = graded(rng, shift=0.0)
    told = [row | ({"severity_set": row["severity"]} if row["fold"] == "0" else {}) for row in rows]
    figures = SeverityObjective("binary").statistics(told)
    assert (figures["coverage"](EVERYONE), figures["set_size"](EVERYONE)) == (1.0, 1.0)
