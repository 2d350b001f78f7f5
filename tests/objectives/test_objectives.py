from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from m2net.bags.dataset import bag_targets
from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives import SegmentationObjective, SeverityObjective, grade_metrics, patient_bootstrap
from m2net.objectives.base import together
from m2net.objectives.segmentation import soft_dice
from m2net.studies import Study
from m2net.vocabulary import Lobe, Modality


def batch(bags: int, per_bag: int = 2, size: int = 8) -> BagBatch:
    total = bags * per_bag
    return BagBatch(
        instances=torch.zeros(total, 1, size, size),
        bag_index=torch.arange(bags).repeat_interleave(per_bag),
        position=torch.zeros(total, 3),
        position_known=torch.ones(total, 3, dtype=torch.bool),
        position_step=torch.zeros(total, 2, 3),
        corner=torch.zeros(total, 3, dtype=torch.int64),
        side=torch.full((total,), 32),
        study_ids=[f"s{i}" for i in range(bags)],
        draws=torch.arange(bags),
        uncovered={"lobes": torch.zeros(bags, 256, dtype=torch.int64)},
    )


def graded(grades: list[float], scheme: str = "binary") -> BagBatch:
    b = batch(len(grades))
    b.bag_targets[f"severity:{scheme}"] = torch.tensor(grades)
    b.bag_targets["patient_id"] = torch.arange(len(grades))
    return b


def test_a_scheme_of_many_grades() -> None:
    """A CT severity score of 0 to 25 as grades, through the data set's own targets."""
    study = Study("s", "p", Modality.CT, Path("i.nii.gz"), severity=17, severity_scheme="ordinal:26")
    b = batch(1)
    b.bag_targets |= bag_targets(study, ["ordinal:26", "binary", "score:other"])
    objective = SeverityObjective("ordinal:26")
    objective.update(Output(torch.eye(26)[17:18] * 20), b)
    assert objective.compute()["accuracy"] == 1
    other = SeverityObjective("binary")
    other.update(Output(torch.zeros(1, 2)), b)
    assert other.compute()["n"] == 0


def test_two_grades_are_cross_entropy() -> None:
    logits = torch.randn(5, 2, requires_grad=True)
    loss = SeverityObjective().loss(Output(logits), graded([0, 1, float("nan"), 1, 0]))
    known = [0, 1, 3, 4]
    probability = logits.detach().softmax(1).numpy()[known]
    assert float(loss) == pytest.approx(log_loss([0, 1, 1, 0], probability, labels=[0, 1]), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()


def test_ordered_grades_against_a_loop() -> None:
    logits = torch.randn(6, 4)
    grades = [0, 1, 2, 3, 3, 0]
    p = logits.double().softmax(1).numpy()
    expected = np.mean([[-np.log(p[i, k:].sum() if g >= k else p[i, :k].sum()) for k in (1, 2, 3)] for i, g in enumerate(grades)])
    loss = SeverityObjective("ordinal:4").loss(Output(logits), graded([float(g) for g in grades], "ordinal:4"))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_severity_metrics_against_scikit_learn(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, 40)
    logits = torch.from_numpy(rng.normal(size=(40, 2)) + truth[:, None] * np.array([0, 0.8]))
    objective = SeverityObjective()
    for part in (slice(0, 15), slice(15, 40)):
        objective.update(Output(logits[part]), graded([float(t) for t in truth[part]]))
    metrics = objective.compute()
    score = logits.softmax(1)[:, 1].numpy()
    said = score >= 0.5
    expected = {
        "auc": roc_auc_score(truth, score), "accuracy": accuracy_score(truth, said), "f1": f1_score(truth, said),
        "precision": precision_score(truth, said), "recall": recall_score(truth, said), "sensitivity": recall_score(truth, said),
        "specificity": recall_score(truth, said, pos_label=0), "n": 40, "n_ge1": truth.sum(),
    }  # fmt: skip
    assert {k: metrics[k] for k in expected} == pytest.approx(expected)
    rows = objective.rows(Output(logits), graded([float(t) for t in truth]))
    everyone = np.arange(40)
    figures = {name: statistic(everyone) for name, statistic in objective.statistics(rows).items()}
    assert figures == pytest.approx({k: metrics[k] for k in figures})


def test_ordered_auc_is_the_mean_over_the_cuts(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 50)
    logits = torch.from_numpy(rng.normal(size=(50, 3)))
    objective = SeverityObjective("ordinal:3")
    objective.update(Output(logits), graded([float(t) for t in truth], "ordinal:3"))
    p = logits.softmax(1).numpy()
    expected = np.mean([roc_auc_score(truth >= k, p[:, k:].sum(1)) for k in (1, 2)])
    assert objective.compute()["auc"] == pytest.approx(expected)


def test_share_of_the_best_auc(rng: np.random.Generator) -> None:
    true = rng.random(60)
    truth = (rng.random(60) < true).astype(float)
    logits = torch.from_numpy(np.column_stack([np.zeros(60), true + rng.normal(0, 0.3, 60)]))
    b = graded(truth.tolist())
    b.bag_targets["true:severity:binary"] = torch.from_numpy(true[:, None])
    objective = SeverityObjective()
    objective.update(Output(logits), b)
    metrics = objective.compute()
    assert metrics["auc_best"] == pytest.approx(roc_auc_score(truth, true))
    assert metrics["auc_share"] == pytest.approx((metrics["auc"] - 0.5) / (metrics["auc_best"] - 0.5))
    rows = objective.rows(Output(logits), b)
    ungraded = {"severity": "", "severity_ge1": 0.5}  # as a phantom whose scheme is blank, too
    assert "auc_share" in objective.statistics([*rows, ungraded])
    assert "auc_share" not in objective.statistics([*rows, ungraded | {"severity": 1}])


def test_one_class_only_is_undefined_not_zero() -> None:
    objective = SeverityObjective()
    objective.update(Output(torch.randn(3, 2)), graded([1.0, 1.0, 1.0]))
    metrics = objective.compute()
    assert math.isnan(metrics["auc"])
    assert math.isnan(metrics["specificity"])
    assert metrics["n"] == 3


@pytest.mark.parametrize("objective", [SeverityObjective(), SegmentationObjective()])
def test_without_labels_a_connected_zero_and_no_metric(objective) -> None:
    logits = torch.randn(*((2, 2) if isinstance(objective, SeverityObjective) else (4, 6, 8, 8)), requires_grad=True)
    b = batch(2)
    b.bag_targets |= {"severity:binary": torch.full((2,), float("nan")), "patient_id": torch.arange(2)}
    b.dense["lobes"] = torch.full((4, 8, 8), -1)
    assert objective.labels(b) == 0
    loss = objective.loss(Output(logits), b)
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()
    objective.update(Output(logits.detach()), b)
    assert objective.compute()["n"] == 0


def test_dice_loss_against_numpy(rng: np.random.Generator) -> None:
    logits, target = torch.from_numpy(rng.normal(size=(2, 3, 4, 4))), torch.from_numpy(rng.integers(-1, 3, (2, 4, 4)))
    target[target == 2] = 0  # the third class is absent
    p, t = logits.softmax(1).numpy(), target.numpy()
    known = t >= 0
    hit, size = (p[:, 1] * (t == 1) * known).sum(), (p[:, 1] * known).sum() + (t == 1).sum()
    assert float(soft_dice(logits.softmax(1), target)) == pytest.approx((2 * hit + 1) / (size + 1))


def test_unlabelled_pixels_do_not_move_the_loss(rng: np.random.Generator) -> None:
    target = torch.from_numpy(rng.integers(-1, 6, (4, 8, 8)))
    logits = torch.from_numpy(rng.normal(size=(4, 6, 8, 8)))
    other = logits.clone()
    other.movedim(1, -1)[target < 0] += 5.0
    b = batch(2)
    b.dense["lobes"] = target
    objective = SegmentationObjective()
    assert float(objective.loss(Output(logits), b)) == pytest.approx(float(objective.loss(Output(other), b)))


def test_lobe_metrics_against_brute_force(rng: np.random.Generator) -> None:
    objective, dice, sensitivity, ppv = SegmentationObjective(), [], [], []
    for _ in range(3):
        b, said = batch(1), rng.integers(0, 6, (2, 8, 8))
        truth = np.where(rng.random((2, 8, 8)) < 0.6, said, rng.integers(-1, 6, (2, 8, 8)))
        truth[truth == Lobe.RIGHT_MIDDLE] = 0
        b.dense["lobes"] = torch.from_numpy(truth)
        b.uncovered["lobes"][0, 1] = 7
        objective.update(Output(torch.nn.functional.one_hot(torch.from_numpy(said), 6).movedim(-1, 1).float()), b)
        known = truth >= 0
        for code in Lobe:
            hit, claimed = ((truth == code) & (said == code)).sum(), ((said == code) & known).sum()
            present = (truth == code).sum() + (7 if code == 1 else 0)
            dice.append((int(code), 2 * hit / (claimed + present)))
            ppv.append((int(code), hit / claimed))
            if present:
                sensitivity.append((int(code), hit / present))
    metrics = objective.compute()
    for name, values in (("dice", dice), ("sensitivity", sensitivity), ("ppv", ppv)):
        for code in Lobe:
            mine = [v for c, v in values if c == code]
            assert metrics[f"{name}_{code.key}"] == pytest.approx(np.mean(mine) if mine else math.nan, nan_ok=True)
    assert metrics["n"] == 3
    assert math.isnan(metrics["sensitivity_right_middle"])
    assert metrics["dice_mean"] == pytest.approx(np.mean([metrics[f"dice_{c.key}"] for c in Lobe]))


@pytest.mark.parametrize("grades", [2, 4])
def test_kappa_is_that_of_scikit_learn_over_predicted_grades(grades: int, rng: np.random.Generator) -> None:
    above = np.sort(rng.random((80, grades - 1)))[:, ::-1].copy()  # P(grade >= k) falls with k
    truth = np.clip((above >= 0.5).sum(1) + rng.integers(-1, 2, 80), 0, grades - 1)
    expected = cohen_kappa_score(truth, (above >= 0.5).sum(1), weights="quadratic")
    found = grade_metrics(torch.from_numpy(above), torch.from_numpy(truth))["kappa"]
    assert found == pytest.approx(expected)
    assert 0 < found < 1


def test_kappa_of_one_grade_is_not_known() -> None:
    assert math.isnan(grade_metrics(torch.tensor([[0.1], [0.2]]), torch.tensor([0, 0]))["kappa"])
    assert grade_metrics(torch.tensor([[0.1], [0.2]]), torch.tensor([0, 1]))["kappa"] == 0  # one answer to all


def test_one_study_is_enough_to_compute() -> None:
    severity, lobes, b = SeverityObjective(), SegmentationObjective(), graded([1.0])
    b.dense["lobes"] = torch.ones(2, 8, 8, dtype=torch.int64)
    severity.update(Output(torch.tensor([[0.0, 1.0]])), b)
    lobes.update(Output(torch.nn.functional.one_hot(b.dense["lobes"], 6).movedim(-1, 1).float()), b)
    assert severity.compute()["accuracy"] == 1
    assert lobes.compute()["dice_left_upper"] == 1


def test_schemes_without_grades_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no grades"):
        SeverityObjective("score:ctss")
    with pytest.raises(ConfigError, match="mask 'liver' is unknown"):
        SegmentationObjective("liver")


def test_bootstrap_draws_patients_not_studies(rng: np.random.Generator) -> None:
    values = np.repeat(rng.normal(size=30), 10)
    patients = [f"p{i // 10}" for i in range(300)]
    low, high = patient_bootstrap(lambda chosen: float(values[chosen].mean()), patients, draws=2000)
    expected = 2 * 1.96 * values[::10].std() / np.sqrt(30)
    assert high - low == pytest.approx(expected, rel=0.12)
    as_if_independent = patient_bootstrap(lambda chosen: float(values[chosen].mean()), [str(i) for i in range(300)], draws=500)
    assert high - low > 2.5 * (as_if_independent[1] - as_if_independent[0])


def test_figures_of_many_draws_are_worked_out_once_for_all_names() -> None:
    asked = []
    statistics = together(lambda chosen: {"a": float(len(asked)), "b": asked.append(0) or 0.0}, ["a", "b"])
    draws = [np.array([k, k + 1]) for k in range(6000)]
    first = [statistics["b"](draw) for draw in draws]
    assert first == [0.0] * 6000
    for draw in draws:
        statistics["a"](draw)
    assert len(asked) == 6000


def test_figures_of_the_same_rows_are_worked_out_once() -> None:
    values, asked = np.arange(6.0), []

    def figures(chosen: np.ndarray) -> dict[str, float]:
        asked.append(chosen.tolist())
        return {"mean": float(values[chosen].mean()), "highest": float(values[chosen].max())}

    statistics = together(figures, ["mean", "highest", "absent"])
    assert statistics["mean"](np.array([1, 3, 3])) == pytest.approx(7 / 3)
    assert statistics["highest"](np.array([1, 3, 3])) == 3
    assert np.isnan(statistics["absent"](np.array([1, 3, 3])))
    assert statistics["highest"](np.array([3, 1, 5])) == 5
    assert asked == [[1, 3, 3], [3, 1, 5]]
