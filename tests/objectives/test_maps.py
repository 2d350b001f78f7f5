"""Maps with open classes, figures of all pixels pooled, and what is read off maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, jaccard_score, recall_score
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from m2net.assessment.findings import findings_of
from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives import BurdenReading, DetectionReading, ScoreObjective, SegmentationObjective
from m2net.objectives.burden import SIDES, ZONES, derived_scores
from m2net.objectives.scores import score_figures
from m2net.objectives.segmentation import CUTS
from m2net.vocabulary import Lobe
from tests.objectives.test_objectives import batch


def masked(target: torch.Tensor, mask: str = "infection") -> BagBatch:
    """One bag an instance, targets (N, H, W)."""
    b = batch(len(target), per_bag=1, size=target.shape[1])
    b.dense[mask] = target
    b.uncovered[mask] = torch.zeros(len(target), 256, dtype=torch.int64)
    return b


def hard(classes: torch.Tensor, count: int) -> Output:
    """Logits that say these classes (N, H, W) with certainty."""
    return Output(torch.nn.functional.one_hot(classes, count).permute(0, 3, 1, 2).float() * 20)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_pixels_of_unknown_kind_teach_the_sum(gamma: float) -> None:
    target = torch.tensor([[[0, 1, 2, 3], [3, 3, -1, 0], [1, 0, 2, 3], [0, 0, 0, -1]]])
    logits = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    p = logits.softmax(1)[0].permute(1, 2, 0)
    losses = []
    for i in range(4):
        for j in range(4):
            code = int(target[0, i, j])
            if code >= 0:
                q = float(p[i, j, 1] + p[i, j, 2]) if code == 3 else float(p[i, j, code])
                losses.append(-np.log(q) * (1 - q) ** gamma)
    loss = SegmentationObjective("infection", dice=0.0, gamma=gamma).loss(Output(logits), masked(target))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.5])
def test_certain_pixels_leave_the_loss_finite(gamma: float) -> None:
    logits = torch.tensor([40.0, 0.0, -40.0])[None, :, None, None].expand(1, 3, 4, 4).clone().requires_grad_()
    target = torch.tensor([0, 3, 1, 2]).repeat(1, 4, 1)
    loss = SegmentationObjective("infection", gamma=gamma).loss(Output(logits), masked(target))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_merged_infection_knows_one_class() -> None:
    objective = SegmentationObjective("infection", merged=True)
    assert objective.classes == 2
    truth = objective.truth(masked(torch.tensor([[[0, 1], [2, 3]]])))
    assert truth is not None
    assert truth.tolist() == [[[0, 1], [1, 1]]]
    assert objective.as_codes(np.array([0, 1], np.uint8)).tolist() == [0, 3]
    with pytest.raises(ConfigError, match="merged lobes"):
        SegmentationObjective("lobes", merged=True)


def test_pooled_figures_against_scikit_learn(rng: np.random.Generator) -> None:
    truth, said = rng.integers(-1, 3, (5, 6, 6)), rng.integers(0, 3, (5, 6, 6))
    objective, b = SegmentationObjective("infection"), masked(torch.from_numpy(truth))
    output = hard(torch.from_numpy(said), 3)
    objective.update(output, b)
    known = truth >= 0
    t, s = truth[known] > 0, said[known] > 0
    expected = {
        "pooled_f1": f1_score(t, s), "pooled_iou": jaccard_score(t, s), "pooled_sensitivity": recall_score(t, s),
        "pooled_specificity": recall_score(t, s, pos_label=0),
    }  # fmt: skip
    metrics = objective.compute()
    assert {k: metrics[k] for k in expected} == pytest.approx(expected)
    figures = objective.statistics(objective.rows(output, b))
    assert {k: figures[k](np.arange(5)) for k in expected} == pytest.approx(expected)


def test_dice_of_all_pixels_against_scikit_learn(rng: np.random.Generator) -> None:
    """A study with a sliver of a lobe weighs as its pixels do; one without the lobe counts what is claimed there."""
    truth = rng.integers(-1, 6, (5, 9, 9))
    truth[0][truth[0] == 4], truth[3] = 0, -1
    said = np.where(rng.random(truth.shape) < 0.6, truth.clip(0), rng.integers(0, 6, truth.shape))
    objective, b = SegmentationObjective("lobes"), masked(torch.from_numpy(truth), "lobes")
    output = hard(torch.from_numpy(said), 6)
    objective.update(output, b)
    rows, metrics = objective.rows(output, b), objective.compute()
    figures = objective.statistics(rows)
    for studies in (np.arange(5), np.array([0, 1, 1, 4])):
        known = truth[studies] >= 0
        each = f1_score(truth[studies][known], said[studies][known], labels=[1, 2, 3, 4, 5], average=None)
        mine = [figures[f"pooled_dice_{lobe.key}"](studies) for lobe in Lobe]
        assert mine == pytest.approx(each)
        assert figures["pooled_dice_mean"](studies) == pytest.approx(each.mean())
        if len(studies) == 5:
            assert [metrics[f"pooled_dice_{lobe.key}"] for lobe in Lobe] == pytest.approx(each)
    assert rows[3]["lobes_size_left_upper"] == ""
    assert math.isnan(figures["pooled_dice_mean"](np.array([3])))
    assert "pooled_dice_mean" not in SegmentationObjective("lungs", merged=True).statistics([])


def test_maps_are_called_from_the_probability_with_the_best_f1_on_validation(rng: np.random.Generator) -> None:
    """Against a search with scikit-learn; pixels without a label and pixels that no instance covers are as in the figures."""
    truth = rng.integers(-1, 3, (6, 12, 12))
    p = np.clip(rng.beta(2, 5, truth.shape) + 0.12 * (truth > 0), 0.001, 0.999)
    output = Output(torch.from_numpy(np.log(np.stack([1 - p, p], axis=1))))
    b = masked(torch.from_numpy(truth))
    b.uncovered["infection"][2, 1] = 40
    objective = SegmentationObjective("infection", merged=True, calibrate="f1")
    objective.update(output, b)
    before = objective.compute()["pooled_f1"]
    objective.calibrate()
    known = truth >= 0
    t, q = np.concatenate([truth[known] > 0, np.ones(40, bool)]), np.concatenate([p[known], np.zeros(40)])
    scores = [f1_score(t, q >= cut) for cut in CUTS]
    assert objective.calibration == {"cut": CUTS[int(np.argmax(scores))]}
    objective.reset()
    objective.update(output, b)
    assert objective.compute()["pooled_f1"] == pytest.approx(max(scores)) != pytest.approx(before)
    detection = DetectionReading()
    detection.accept({"infection": objective})
    assert detection.read({"infection": output}, b).logits[:, -1].tolist() == (p >= objective.calibration["cut"]).sum((1, 2)).tolist()
    objective.reset()
    objective.calibration = {}
    objective.update(output, masked(torch.full((6, 12, 12), -1)))
    objective.calibrate()
    assert objective.calibration == {}
    with pytest.raises(ConfigError, match="f1 with merged: true"):
        SegmentationObjective("infection", calibrate="f1")


def test_open_classes_count_in_the_foreground_only() -> None:
    objective = SegmentationObjective("lungs")
    target = torch.tensor([[[3, 3], [0, 0]], [[1, 1], [0, 2]]])
    objective.update(hard(torch.tensor([[[1, 2], [0, 0]], [[1, 1], [0, 2]]]), 3), masked(target, "lungs"))
    metrics = objective.compute()
    assert metrics["pooled_f1"] == 1.0
    assert metrics["n_right"] == 1


def read(objective: DetectionReading, p: torch.Tensor, infected: list[float]) -> None:
    objective.accept({"infection": SegmentationObjective("infection")})
    b = batch(len(p), per_bag=1, size=p.shape[1])
    b.bag_targets["infected"] = torch.tensor(infected)
    logits = torch.stack([torch.log1p(-p), torch.log(p)], dim=1)
    objective.update(objective.read({"infection": Output(logits)}, b), b)


def test_thresholds_are_the_best_that_reach_the_sensitivity(rng: np.random.Generator) -> None:
    """Against a search over every threshold."""
    infected = rng.random(60) < 0.5
    p = torch.from_numpy(np.clip(rng.beta(1, 6, (60, 8, 8)) + infected[:, None, None] * rng.random((60, 1, 1)) * 0.4, 1e-4, 1 - 1e-4))
    objective = DetectionReading(sensitivity=0.9)
    read(objective, p, infected.astype(float).tolist())
    objective.calibrate()
    metrics = objective.compute()
    best = 0.0
    for t in objective.probabilities:
        area = (p >= t).double().mean((1, 2)).numpy()
        for cut in area[area > 0]:
            if (area[infected] >= cut).mean() >= 0.9:
                best = max(best, float((area[~infected] < cut).mean()))
    assert metrics["sensitivity"] >= 0.9
    assert metrics["specificity"] == pytest.approx(best)
    any_pixel = (p >= 0.5).flatten(1).any(1).numpy()
    assert metrics["any_pixel_sensitivity"] == pytest.approx(any_pixel[infected].mean())
    assert metrics["any_pixel_specificity"] == pytest.approx(1 - any_pixel[~infected].mean())


def test_without_both_answers_no_threshold_is_invented() -> None:
    objective = DetectionReading()
    read(objective, torch.full((4, 4, 4), 0.7), [1, 1, 1, float("nan")])
    with pytest.warns(UserWarning, match="all infected, or none is"):
        objective.calibrate()
    metrics = objective.compute()
    assert objective.calibration == {}
    assert np.isnan(metrics["sensitivity"])
    assert metrics["any_pixel_sensitivity"] == 1
    assert metrics["n"] == 3


def test_a_fold_without_a_rule_answers_nothing() -> None:
    """Two folds have a rule that separates perfectly; in the third validation had infected patients only. No lungs is still a miss."""
    objective = DetectionReading()
    rows = [
        {"fold": fold, "detection": k % 2, "detection_any_pixel": 1, "detection_rule": "" if fold == 2 else k % 2,
         "detection_area": k % 2 / 2}
        for fold in range(3) for k in range(20)
    ]  # fmt: skip
    figures = objective.statistics(rows)
    assert [figures[name](np.arange(60)) for name in ("sensitivity", "specificity", "auc")] == [1, 1, 1]
    assert {name: int(told.sum()) for name, told in objective.bearing(rows).items()} == {
        "sensitivity": 20, "specificity": 20, "auc": 30, "any_pixel_sensitivity": 30, "any_pixel_specificity": 30,
    }  # fmt: skip
    rows[1] |= {"detection_rule": "", "detection_area": "", "detection_any_pixel": ""}
    assert objective.statistics(rows)["sensitivity"](np.arange(60)) == pytest.approx(19 / 20)
    assert np.isnan(objective.statistics(rows)["sensitivity"](np.arange(40, 60)))


def test_a_rule_that_no_area_reaches_is_told() -> None:
    """Of ten infected patients one has nothing drawn: nothing finds 95 % of ten."""
    objective = DetectionReading()
    read(objective, torch.cat([torch.full((9, 4, 4), 0.9), torch.full((11, 4, 4), 0.01)]), [1.0] * 10 + [0.0] * 10)
    with pytest.warns(UserWarning, match=r"detection has no rule: no area reaches a sensitivity of 0.95"):
        objective.calibrate()
    assert objective.calibration == {}


def test_without_lungs_there_is_no_area_and_no_answer() -> None:
    objective = DetectionReading(lungs="lungs")
    objective.accept({"infection": SegmentationObjective("infection"), "lungs": SegmentationObjective("lungs")})
    objective.calibration = {"probability": 0.5, "area": 0.1}
    classes = torch.zeros(2, 8, 8, dtype=torch.int64)
    lungs, infection = classes.clone(), classes.clone()
    lungs[1, :, :4], infection[:, :, 2:] = 1, 1
    b = batch(2, per_bag=1, size=8)
    b.bag_targets["infected"] = torch.tensor([1.0, 1.0])
    output = objective.read({"infection": hard(infection, 3), "lungs": hard(lungs, 3)}, b)
    rows = objective.rows(output, b)
    assert np.isnan(rows[0]["detection_area"])
    assert np.isnan(rows[0]["detection_rule"])
    assert rows[1]["detection_area"] == 0.5  # what lies outside the lungs does not count
    objective.update(output, b)
    assert objective.compute()["sensitivity"] == 0.5  # no answer is no hit
    with pytest.raises(ConfigError, match="draws no infection"):
        DetectionReading("lungs").accept({"lungs": SegmentationObjective("lungs")})


def test_all_lobes_together_are_the_lungs() -> None:
    """Against counts of a drawn map of two slices, one bag, of which a model of CT has lobes only."""
    rng = np.random.default_rng(0)
    lobes, infection = (torch.from_numpy(rng.integers(0, n, (2, 8, 8))) for n in (6, 3))
    objective = DetectionReading(lungs="lobes")
    objective.accept({"infection": SegmentationObjective("infection"), "lobes": SegmentationObjective("lobes")})
    b = batch(1, per_bag=2, size=8)
    read = objective.read({"infection": hard(infection, 3), "lobes": hard(lobes, 6)}, b).logits[0]
    share = float(((infection > 0) & (lobes > 0)).sum() / (lobes > 0).sum())
    assert read[:-1].tolist() == pytest.approx([share] * len(objective.probabilities))
    with pytest.raises(ConfigError, match="draws no lungs or lobes"):
        DetectionReading(lungs="infection").accept({"infection": SegmentationObjective("infection")})


def test_lungs_are_the_same_before_and_after_they_are_calibrated() -> None:
    """The area's threshold is chosen while fitting, when nothing is calibrated yet."""
    lungs = SegmentationObjective("lungs", merged=True, calibrate="f1")
    objective = DetectionReading(lungs="lungs")
    objective.accept({"infection": SegmentationObjective("infection"), "lungs": lungs})
    outputs = {"infection": Output(torch.randn(2, 3, 8, 8)), "lungs": Output(torch.randn(2, 2, 8, 8))}
    before = objective.read(outputs, batch(2, per_bag=1, size=8)).logits
    lungs.calibration = {"cut": 0.2}
    torch.testing.assert_close(objective.read(outputs, batch(2, per_bag=1, size=8)).logits, before)


def test_averaging_weights_leaves_the_codes() -> None:
    """Lightning's average takes buffers in, and whole numbers that are averaged are cut: 3 * 0.9 + 3 * 0.1 became 2."""
    objective = SegmentationObjective("lobes")
    average = AveragedModel(objective, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    for _ in range(9):
        average.update_parameters(objective)
    codes = torch.arange(6).repeat(1, 6, 1)
    assert average.module.truth(masked(codes, "lobes")).tolist() == codes.tolist()


def test_shares_by_lung_and_zone_of_a_drawn_chest() -> None:
    lungs, infection = torch.zeros(1, 90, 60, dtype=torch.int64), torch.zeros(1, 90, 60, dtype=torch.int64)
    lungs[0, 15:75, 5:25], lungs[0, 15:75, 35:55] = 1, 2
    infection[0, 55:75, 5:25] = 1  # all of the right lower zone
    infection[0, 15:35, 35:45] = 2  # half of the left upper zone
    b = batch(1, per_bag=1, size=90)
    b.position_step[:, 0, 2] = -0.02  # rows run down
    b.bag_targets["score:geographic_extent"] = torch.tensor([4.0])
    objective = BurdenReading()
    objective.accept({"infection": SegmentationObjective("infection"), "lungs": SegmentationObjective("lungs")})
    output = objective.read({"infection": hard(infection, 3), "lungs": hard(lungs, 3)}, b)
    row = objective.rows(output, b)[0]
    assert {side: row[f"burden_{side}"] for side in SIDES} == pytest.approx({"right": 1 / 3, "left": 1 / 6})
    zones = dict.fromkeys(ZONES, 0.0) | {"right_lower": 1.0, "left_upper": 0.5}
    assert {zone: row[f"burden_{zone}"] for zone in ZONES} == pytest.approx(zones, abs=1e-6)
    assert row["burden_geographic_extent"] == 3  # 2 and 1
    assert row["burden_opacity"] == 3  # ground glass and consolidation
    objective.update(output, b)
    assert objective.compute()["geographic_extent_mae"] == 1.0


def test_what_was_not_found_has_no_share() -> None:
    """No left lung, and then heights that are not known: NaN, never 0; the figure of the study still counts."""
    lungs, infection = torch.zeros(1, 30, 30, dtype=torch.int64), torch.zeros(1, 30, 30, dtype=torch.int64)
    lungs[0, 5:25, 5:15], infection[0, 5:25, 5:15] = 1, 1
    b = batch(1, per_bag=1, size=30)
    b.position_step[:, 0, 2] = -0.02
    b.bag_targets["score:geographic_extent"] = torch.tensor([4.0])
    objective = BurdenReading()
    objective.accept({"infection": SegmentationObjective("infection"), "lungs": SegmentationObjective("lungs")})
    for known in (True, False):
        b.position_known[:, 2] = known
        output = objective.read({"infection": hard(infection, 3), "lungs": hard(lungs, 3)}, b)
        row = objective.rows(output, b)[0]
        assert row["burden_right"] == 1
        assert row["burden_right_upper"] == 1 if known else np.isnan(row["burden_right_upper"])
        assert np.isnan([row["burden_left"], row["burden_left_lower"]]).all()
        assert row["burden_geographic_extent"] == 4
        found = findings_of({"burden": objective}, {"burden": output})
        assert found.shares["left"] is None
        assert found.shares["right"] == 1
        assert not found.scores
    objective.update(output, b)
    assert objective.compute()["geographic_extent_n"] == 1


def test_a_model_that_misses_both_lungs_is_judged_by_both_scores() -> None:
    """Its opacity is 0 as its extent is, where the map tells the kinds; where it does not, nobody's is known."""
    nothing = np.full((1, 10), np.nan)
    assert derived_scores(nothing, tells_kinds=True).tolist() == [[0, 0]]
    (extent, unknown) = derived_scores(nothing, tells_kinds=False)[0]
    assert extent == 0
    assert np.isnan(unknown)


def test_lungs_without_sides_are_refused() -> None:
    with pytest.raises(ConfigError, match="right from left"):
        BurdenReading().accept({"infection": SegmentationObjective("infection"), "lungs": SegmentationObjective("lungs", merged=True)})
    with pytest.raises(ConfigError, match="reads infection, lungs"):
        BurdenReading().accept({})


def test_scores_against_scipy(rng: np.random.Generator) -> None:
    objective, b = ScoreObjective("opacity"), batch(12)
    truth = rng.uniform(0, 6, 12)
    truth[3] = np.nan
    b.bag_targets["score:opacity"] = torch.from_numpy(truth).float()
    output = Output(torch.from_numpy(rng.normal(size=(12, 1))))
    objective.update(output, b)
    metrics, known = objective.compute(), ~np.isnan(truth)
    said = 6 / (1 + np.exp(-output.logits.numpy()[:, 0]))
    assert metrics["spearman"] == pytest.approx(spearmanr(said[known], truth[known]).statistic)
    assert metrics["mae"] == pytest.approx(np.abs(said - truth)[known].mean(), rel=1e-5)
    assert metrics["n"] == 11
    off = np.abs(said - truth)[known] / 6
    expected = np.where(off < 0.1, 0.5 * off**2 / 0.1, off - 0.05).mean()
    assert float(objective.loss(output, b)) == pytest.approx(expected, rel=1e-5)
    assert score_figures(np.ones(5), np.arange(5.0))["spearman"] == 0  # one answer to all is no better than chance
    assert math.isnan(score_figures(np.arange(5.0), np.ones(5))["spearman"])
    with pytest.raises(ConfigError, match="highest"):
        ScoreObjective("brixia")
