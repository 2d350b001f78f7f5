from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, precision_recall_fscore_support, roc_auc_score

from m2net.assessment.findings import _diagnosed
from m2net.assessment.outcome import recalibrate
from m2net.batch import Output
from m2net.errors import ConfigError
from m2net.objectives import DiagnosisObjective, group_metrics
from m2net.vocabulary import Lobe
from tests.networks.test_scoremaps import batch_of

SETS = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]]


def labelled(sets: list[list[int]]):
    batch = batch_of([1] * len(sets), side=16)
    batch.bag_targets["diagnosis"] = torch.tensor(sets, dtype=torch.bool)
    batch.bag_targets["patient_id"] = torch.arange(len(sets))
    return batch


def test_the_loss_is_the_published_formula_over_sets() -> None:
    """Mean over depths and labelled bags of w (1-p)^gamma (-log p), p the summed probability of the set; written out with loops."""
    objective = DiagnosisObjective(gamma=1.0)
    counts = {"diagnosis": 40, "diagnosis:covid19": 10, "diagnosis:non_pneumonia": 20, "diagnosis:cap": 5, "diagnosis:non_pneumonia|cap": 5}
    objective.prepare(counts)
    weight = {(0, 1, 0): 40 / (4 * 10), (1, 0, 0): 40 / (4 * 20), (0, 0, 1): 40 / (4 * 5), (1, 0, 1): 40 / (4 * 5)}
    deep = torch.randn(3, len(SETS), 3, generator=torch.Generator().manual_seed(0))
    terms = []
    for depth in deep.double().numpy():
        for row, label in zip(depth, SETS, strict=True):
            if 0 < sum(label) < 3:
                p = float((np.exp(row) / np.exp(row).sum())[np.array(label, bool)].sum())
                terms.append(weight[tuple(label)] * (1 - p) * -np.log(p))
    loss = objective.loss(Output(deep.mean(0), deep=deep), labelled(SETS))
    assert float(loss) == pytest.approx(np.mean(terms), rel=1e-5)


def test_each_lobe_says_by_itself_what_the_patient_has() -> None:
    """Softmax of the lobe's own logits, summed over a group; an absent lobe says nothing."""
    objective = DiagnosisObjective(groups=[["covid19"], ["non_pneumonia", "cap"]])
    lobes = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(1))
    lobes[0, 3] = float("nan")
    output = Output(torch.zeros(1, 3), lobe_logits=lobes)
    (row,) = objective.rows(output, labelled([[0, 1, 0]]))
    found = _diagnosed(objective, output).lobes
    for k, lobe in enumerate(Lobe):
        own = {name: row[f"diagnosis_{lobe.key}_p_{name}"] for name in ("covid19", "non_pneumonia+cap")}
        if k == 3:
            assert found[lobe.key] is None
            assert np.isnan(list(own.values())).all()
            continue
        e = np.exp(lobes[0, k].double().numpy())
        assert own["covid19"] == pytest.approx(e[1] / e.sum(), abs=1e-6)
        assert own["non_pneumonia+cap"] == pytest.approx((e[0] + e[2]) / e.sum(), abs=1e-6)
        assert found[lobe.key] == pytest.approx(own)
    assert "diagnosis_left_upper_p_covid19" not in objective.rows(Output(torch.zeros(1, 3)), labelled([[0, 1, 0]]))[0]


def test_certain_bags_leave_the_loss_finite() -> None:
    logits = torch.tensor([[0.0, 60.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    DiagnosisObjective(gamma=0.5).loss(Output(logits), labelled([[0, 1, 0], [0, 1, 0]])).backward()
    assert torch.isfinite(logits.grad).all()


def test_without_a_label_a_connected_zero() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = DiagnosisObjective().loss(Output(logits), labelled([[0, 0, 0], [1, 1, 1]]))
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None


def test_metrics_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 60)
    probability = rng.dirichlet([1, 1, 1], 60)
    probability[np.arange(60), truth] += 0.3
    probability /= probability.sum(1, keepdims=True)
    possible = torch.nn.functional.one_hot(torch.tensor(truth), 3).bool()
    found = group_metrics(torch.tensor(probability), possible, ["a", "b", "c"])
    said = probability.argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, average="weighted")
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((precision, recall, f1))
    for k, name in enumerate("abc"):
        assert found[f"auc_{name}"] == pytest.approx(roc_auc_score(truth == k, probability[:, k]))
        assert found[f"sensitivity_{name}"] == pytest.approx(float((said[truth == k] == k).mean()))
        assert found[f"specificity_{name}"] == pytest.approx(float((said[truth != k] != k).mean()))


def test_covid_or_not_is_decided_between_the_groups() -> None:
    """0.4 COVID-19 against 0.3 + 0.3 is not COVID-19, although it is the most probable class."""
    objective = DiagnosisObjective(groups=[["covid19"], ["non_pneumonia", "cap"]])
    logits = torch.log(torch.tensor([[0.3, 0.4, 0.3], [0.2, 0.7, 0.1]]))
    batch = labelled([[1, 0, 1], [0, 1, 0]])
    objective.update(Output(logits), batch)
    assert objective.compute()["accuracy"] == 1
    rows = objective.rows(Output(logits), batch)
    assert [r["diagnosis_predicted"] for r in rows] == ["non_pneumonia+cap", "covid19"]
    assert rows[0]["diagnosis_p_covid19"] == pytest.approx(0.4)
    statistics = objective.statistics(rows)
    assert statistics["auc"](np.array([0, 1])) == 1


@pytest.mark.parametrize("groups", [[], [["covid19"], ["non_pneumonia", "cap"]]])
def test_a_mixed_precision_run_does_not_round_the_probabilities(groups: list[list[str]]) -> None:
    """Studies are ranked by them: bfloat16 leaves ties among those that are nearly sure."""
    objective = DiagnosisObjective(groups=groups)
    logits = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    exact = objective.grouped(logits)
    with torch.autocast("cpu", torch.bfloat16):
        said = objective.grouped(logits)
    np.testing.assert_array_equal(said, exact)
    np.testing.assert_allclose(exact.sum(1), 1)


@pytest.mark.parametrize("groups", [[["covid19"]], [["covid19"], ["cap"]], [["covid19", "cap"], ["cap", "non_pneumonia"]]])
def test_groups_hold_each_class_once(groups: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="groups"):
        DiagnosisObjective(groups=groups)


def test_weights_travel_with_the_checkpoint() -> None:
    objective = DiagnosisObjective()
    objective.prepare({"diagnosis:covid19": 1, "diagnosis:cap": 3})
    again = DiagnosisObjective()
    again.load_state_dict(objective.state_dict())
    torch.testing.assert_close(again.set_weight, objective.set_weight)
    assert float(again.set_weight[2]) == pytest.approx(2.0)


def test_groups_that_others_exclude_are_claimed_falsely() -> None:
    """102 studies without pneumonia and 89 with one of its kinds, all called healthy: not a precision of 1."""
    names = ("non_pneumonia", "covid19", "cap")
    rows = [
        {"study_id": f"s{k}", "diagnosis": "non_pneumonia" if k < 102 else "covid19|cap"}
        | {f"diagnosis_p_{name}": p for name, p in zip(names, (0.8, 0.1, 0.1), strict=True)}
        for k in range(191)
    ]
    figures = {name: figure(np.arange(191)) for name, figure in DiagnosisObjective().statistics(rows).items()}
    assert figures["precision"] == pytest.approx(102 / 191)
    assert figures["f1"] == pytest.approx(2 * 102 / (191 + 102))
    assert np.isnan(figures["accuracy"])  # of the 89 no label says which they are
    assert figures["specificity_non_pneumonia"] == 0


def drawn(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, list[list[int]]]:
    """Logits of a model that is too sure by half and blind to how rare the third class is, and classes drawn from the truth."""
    spread = rng.normal(0, 1.5, (n, 3))
    truth = np.exp(spread + np.array([1.0, 0.5, -1.5]))
    truth /= truth.sum(1, keepdims=True)
    classes = [int(rng.choice(3, p=p)) for p in truth]
    return torch.from_numpy(2 * spread), [[int(k == c) for k in range(3)] for c in classes]


def test_a_shift_brings_confidence_and_frequencies_back(rng: np.random.Generator) -> None:
    """Softmax(logits / 2 + b) is the truth here; the fit finds both, and fresh studies are then inside the band."""
    objective = DiagnosisObjective(calibrate="shift")
    logits, sets = drawn(rng, 3000)
    objective.update(Output(logits), labelled(sets))
    objective.calibrate()
    objective.reset()
    assert objective.calibration["temperature"] == pytest.approx(2, abs=0.2)
    bias = np.array(objective.calibration["bias"])
    np.testing.assert_allclose(bias - bias[0], [0, -0.5, -2.5], atol=0.3)
    fresh, sets = drawn(rng, 3000)
    objective.update(Output(fresh), labelled(sets))
    right = objective.compute()
    objective.calibration = {}
    plain = objective.compute()
    assert right["ece"] < right["ece_band"] < plain["ece"]
    assert plain["ece"] > plain["ece_band"]
    assert right["brier"] < plain["brier"]
    assert right["accuracy"] > plain["accuracy"]


def test_figures_of_trust_are_those_of_scikit_learn_and_loops(rng: np.random.Generator) -> None:
    """Brier: summed squares. Calibration error: ten groups of equal size of each class, against the rest, by hand."""
    logits, sets = drawn(rng, 200)
    objective = DiagnosisObjective()
    objective.update(Output(logits), labelled(sets))
    found, p, y = objective.compute(), torch.softmax(logits, 1).numpy(), np.array(sets)
    assert found["brier"] == pytest.approx(sum(brier_score_loss(y[:, k], p[:, k]) for k in range(3)))
    errors = [
        sum(abs(p[g, k].sum() - y[g, k].sum()) for g in np.array_split(np.argsort(p[:, k], kind="stable"), 10)) / 200 for k in range(3)
    ]
    assert found["ece"] == pytest.approx(np.mean(errors))
    rows = objective.rows(Output(logits), labelled(sets))
    statistics = objective.statistics(rows)
    for name in ("ece", "brier"):
        assert statistics[name](np.arange(200)) == pytest.approx(found[name])


def test_what_is_calibrated_reaches_every_answer(rng: np.random.Generator) -> None:
    """The patient's, the slices' and the lobes' probabilities are put right alike, and the group called is that of the calibrated ones."""
    objective = DiagnosisObjective(calibrate="shift")
    objective.calibration = {"temperature": 2.0, "bias": [0.0, 3.0, 0.0], "groups": objective.names}
    logits = torch.log(torch.tensor([[0.5, 0.4, 0.1]]))
    by_hand = np.exp(np.log([0.5, 0.4, 0.1]) / 2 + [0, 3, 0])
    output = Output(logits, lobe_logits=logits[:, None].expand(1, 5, 3))
    (row,) = objective.rows(output, labelled([[1, 0, 0]]))
    assert row["diagnosis_predicted"] == "covid19"
    assert row["diagnosis_p_covid19"] == pytest.approx(by_hand[1] / by_hand.sum())
    assert row["diagnosis_left_lower_p_covid19"] == pytest.approx(by_hand[1] / by_hand.sum())
    found = _diagnosed(objective, output)
    assert (found.predicted, found.calibrated) == ("covid19", True)


def test_labels_that_settle_nothing_count_by_their_sum(rng: np.random.Generator) -> None:
    """Most of the infected are labelled COVID-19 or CAP only: whose label is one class is mostly healthy, and a shift fitted on these alone
    would call everyone so."""
    objective = DiagnosisObjective(calibrate="shift")
    spread = rng.normal(0, 1.5, (3000, 3))
    truth = np.exp(spread) / np.exp(spread).sum(1, keepdims=True)
    classes = np.array([rng.choice(3, p=p) for p in truth])
    sets = np.eye(3, dtype=int)[classes]
    sets[(classes > 0) & (rng.random(3000) < 0.9)] = 0, 1, 1
    objective.update(Output(torch.from_numpy(spread)), labelled(sets.tolist()))
    objective.calibrate()
    assert objective.calibration["temperature"] == pytest.approx(1, abs=0.15)
    assert np.ptp(objective.calibration["bias"]) < 0.3
    found = objective.compute()
    assert all(np.isnan(found[name]) for name in ("ece", "ece_band", "brier"))  # who is settled says what they have
    rows = objective.rows(Output(torch.from_numpy(spread)), labelled(sets.tolist()))
    put_right = recalibrate(DiagnosisObjective(), rows, rows)
    assert put_right is not None
    healthy = np.mean([row["diagnosis_p_non_pneumonia"] for row in put_right])
    assert healthy == pytest.approx((classes == 0).mean(), abs=0.02)


def test_one_group_alone_calibrates_nothing() -> None:
    objective = DiagnosisObjective(calibrate="shift")
    objective.update(Output(torch.randn(4, 3)), labelled([[1, 0, 0]] * 4))
    with pytest.warns(UserWarning, match="one group, or none"):
        objective.calibrate()
    assert objective.calibration == {}


def test_a_calibration_of_other_groups_is_refused() -> None:
    """A bias belongs to a group: three of them say nothing of two."""
    objective = DiagnosisObjective(groups=[["covid19"], ["non_pneumonia", "cap"]])
    objective.calibration = {"temperature": 1.0, "bias": [0.0, 0.0, 0.0], "groups": ["non_pneumonia", "covid19", "cap"]}
    with pytest.raises(ConfigError, match="calibration is of"):
        objective.probabilities(Output(torch.zeros(1, 3)))
    objective.decide_between([["cap"], ["covid19", "non_pneumonia"]])
    assert objective.calibration == {}


@pytest.mark.parametrize("how", ["isotonic", "platt"])
def test_an_unknown_calibration_is_refused(how: str) -> None:
    with pytest.raises(ConfigError, match="calibrate"):
        DiagnosisObjective(calibrate=how)
