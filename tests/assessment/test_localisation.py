"""Localisation held against masks, on a study whose every figure can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from m2net.assessment.explainer import Judgement, SliceFinding
from m2net.assessment.localisation import Localised, choose_threshold, compare, figures, localise, slice_figures
from m2net.bags import Prepared
from m2net.studies import Box, Study
from m2net.vocabulary import MASK_UNLABELLED, Diagnosis, Intensity, Modality

SHAPE = (3, 40, 60)
TRUE = (slice(12, 20), slice(12, 20))  # rows and columns of the infection, in slice 1 only
MM = 2.0


def prepared(infection: np.ndarray) -> Prepared:
    """Two square lungs, an infection of 8 x 8 pixels of 2 mm in slice 1, in the right one."""
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[:, 8:32, 8:26], lungs[:, 8:32, 34:52] = 1, 2
    box, image = Box(0, 3, 8, 32, 8, 52), np.zeros(SHAPE, np.int16)
    return Prepared(
        image, {"infection": infection, "found_lungs": lungs}, (8.0, MM, MM), SHAPE, (1.0, 1.0), box, box, Intensity.HU, ()
    )  # fmt: skip


@dataclass
class Told:
    """An explainer whose saliency is known."""

    saliency: np.ndarray
    infected: bool = True

    def judge(self, study: Prepared, methods: tuple[str, ...], *, only_infected: bool) -> Judgement:
        assert only_infected
        shown = dict.fromkeys(methods, self.saliency) if self.infected else {}
        name = "covid19" if self.infected else "non_pneumonia"
        p = {n: 1.0 * (n == name) for n in ("covid19", "non_pneumonia")}
        return Judgement(p, name, name, self.infected, [SliceFinding(z, 1.0, p) for z in range(3)], shown, 20)


def study(patient: str, diagnosis: Diagnosis = Diagnosis.COVID19) -> Study:
    return Study(patient, patient, Modality.CT, Path("none.nii.gz"), diagnosis=frozenset({diagnosis}))


def sick() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1][TRUE] = 1
    return mask


def told(saliency: np.ndarray, mask: np.ndarray | None = None, *, infected: bool = True) -> Localised:
    known = prepared(sick() if mask is None else mask)
    return localise(Told(saliency, infected), study("a"), known, ("map",), (0.3, 0.6))  # type: ignore[arg-type]


@pytest.mark.parametrize(("columns_beside", "hit"), [(0, 1), (4, 1), (5, 1), (6, 0)])
def test_pointing_allows_ten_millimetres(columns_beside: int, hit: int) -> None:
    """The infection's last column is 19: five pixels of 2 mm beside it are 10 mm."""
    saliency = np.zeros(SHAPE, np.float32)
    saliency[1, 15, 19 + columns_beside] = 1
    assert told(saliency).row["map_pointing"] == hit


def test_pointing_into_the_next_slice_is_eight_millimetres_away() -> None:
    saliency = np.zeros(SHAPE, np.float32)
    saliency[0, 15, 15] = 1
    assert told(saliency).row["map_pointing"] == 1
    saliency = np.roll(saliency, 4, axis=2)  # and 0 mm aside: column 19 is still infected
    assert told(saliency).row["map_pointing"] == 1
    saliency = np.roll(saliency, 4, axis=2)  # hypot(8, 8) = 11.3 mm
    assert told(saliency).row["map_pointing"] == 0


def test_average_precision_by_hand(rng: np.random.Generator) -> None:
    """Mean over the infected pixels of the precision at their own rank, among the pixels of the lungs."""
    saliency = rng.permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    saliency[1][TRUE] = 2 * saliency[1][TRUE] + 0.5  # no two alike
    row = told(saliency).row
    looked = np.asarray(prepared(sick()).masks["found_lungs"]) > 0
    looked |= sick() > 0
    order = np.argsort(-saliency[looked], kind="stable")
    truth = (sick() > 0)[looked][order]
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    assert row["map_auprc"] == pytest.approx(precision[truth].mean(), abs=1e-6)
    assert row["map_auprc_chance"] == pytest.approx(truth.mean())
    assert row["map_auprc"] > 1.2 * row["map_auprc_chance"]
    places = [MM * np.argwhere(mask[1]) for mask in (looked, sick())]
    near = np.hypot(*(places[0][:, None] - places[1][None]).transpose(2, 0, 1)).min(1) <= 10  # in other slices it is 8 mm further
    next_slice = np.hypot(np.hypot(*(places[0][:, None] - places[1][None]).transpose(2, 0, 1)).min(1), 8) <= 10
    assert row["map_pointing_chance"] == pytest.approx((near.sum() + 2 * next_slice.sum()) / looked.sum())


def test_what_is_unlabelled_is_not_looked_at(rng: np.random.Generator) -> None:
    """High saliency where the mask says nothing costs nothing, and is no infection."""
    saliency = rng.random(SHAPE).astype(np.float32)
    saliency[1][TRUE] += 0.5
    known = told(saliency).row
    mask, unsure = sick(), (slice(1, 2), slice(26, 32), slice(12, 24))
    mask[unsure] = MASK_UNLABELLED
    saliency[unsure] = 3.0
    found = told(saliency, mask).row
    assert found["map_auprc_chance"] > known["map_auprc_chance"]  # of fewer pixels
    assert found["map_auprc"] >= known["map_auprc"]
    assert found["map_pointing"] == known["map_pointing"] == 1


def test_what_nobody_drew_is_neither_free_nor_a_false_box() -> None:
    """Slice 1 alone was looked at, and shows nothing; a box in it is false, one in the others is not, and the patient is not healthy."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[[0, 2]] = MASK_UNLABELLED
    saliency = np.zeros(SHAPE, np.float32)
    saliency[:, 12:20, 12:20] = 0.7
    found = told(saliency, mask)
    assert (found.row["infection"], found.row["free"]) == (0, 0)
    assert found.boxes["map", 0.6] == (0, 1, 0, 0, 0, 0)
    assert [infected for _, infected in found.slices] == [False]
    assert told(saliency, np.zeros(SHAPE, np.uint8)).row["free"] == 1
    mask[2][TRUE] = 1  # infection within a slice that is not drawn throughout is infection
    assert [infected for _, infected in told(saliency, mask).slices] == [False, True]


def test_a_flat_map_points_nowhere_and_a_healthy_verdict_shows_none() -> None:
    everywhere = sick()
    everywhere[0, 0, 0] = 1  # where the maximum of a flat map is found first
    flat = told(np.full(SHAPE, 0.5, np.float32), everywhere).row
    assert flat["map_pointing"] == 0
    assert flat["map_auprc"] == flat["map_auprc_chance"]
    unseen = told(np.ones(SHAPE, np.float32), infected=False)
    assert "map_pointing" not in unseen.row
    assert unseen.boxes["map", 0.3] == (1, 0, 0, 0, 0, 0)


def test_boxes_by_threshold() -> None:
    """Half of the infection's columns at 0.7, all at 0.4: overlap 0.5 and 1; a false box at 0.7."""
    saliency = np.zeros(SHAPE, np.float32)
    saliency[1][TRUE] = 0.4
    saliency[1, 12:20, 12:16] = 0.7
    saliency[2, 12:20, 36:44] = 0.7
    found = told(saliency).boxes
    assert found["map", 0.3] == (1, 2, 1, 1, 1, 1)
    assert found["map", 0.6] == (1, 2, 1, 1, 1, 1)
    saliency[1, 12:20, 15] = 0.4  # three of eight columns: 0.375
    assert told(saliency).boxes["map", 0.6] == (1, 2, 1, 1, 0, 0)


def made(patient: str, infected: int, counts: dict[float, tuple[int, ...]], **figures: float) -> Localised:
    row = {
        "study_id": patient,
        "patient_id": patient,
        "infection": infected,
        "free": 1 - infected,
        "diagnosis": "covid19" if infected else "non_pneumonia",
    }
    return Localised(row | figures, {("map", t): c for t, c in counts.items()}, [])


def test_figures_by_hand() -> None:
    studies = [
        made("a", 1, {0.2: (4, 5, 2, 2, 1, 1)}, map_pointing=1, map_auprc=0.6),
        made("b", 1, {0.2: (2, 1, 1, 1, 1, 1)}, map_pointing=0, map_auprc=0.2),
        made("c", 1, {0.2: (2, 0, 0, 0, 0, 0)}),  # called healthy: nothing is shown, its boxes are missed
        made("d", 0, {0.2: (0, 3, 0, 0, 0, 0)}),
        made("e", 0, {0.2: (0, 0, 0, 0, 0, 0)}),
        made("e", 0, {0.2: (0, 2, 0, 0, 0, 0)}),  # another study of the same patient
        made("a", 0, {0.2: (0, 7, 0, 0, 0, 0)}),  # an earlier study of an infected patient, who is not healthy
    ]
    found = {name: interval.value for name, interval in figures(studies, "map", 0.2).items()}
    assert found["pointing"] == pytest.approx(1 / 2)
    assert found["auprc"] == pytest.approx(0.4)
    assert found["box_recall_0.3"] == pytest.approx(3 / 8)
    assert found["box_precision_0.3"] == pytest.approx(3 / 18)
    assert found["box_recall_0.5"] == pytest.approx(2 / 8)
    assert found["box_precision_0.5"] == pytest.approx(2 / 18)
    assert found["false_boxes_per_healthy_patient"] == pytest.approx(5 / 2)


def test_the_threshold_with_the_best_boxes_is_chosen() -> None:
    """F1 of boxes over all studies together: 0.2 finds all, among many; 0.5 half, with one false box; 0.8 a quarter, with none."""
    studies = [
        made("a", 1, {0.2: (2, 11, 2, 2, 0, 0), 0.5: (2, 2, 1, 1, 0, 0), 0.8: (2, 1, 1, 1, 0, 0)}),
        made("b", 1, {0.2: (2, 11, 2, 2, 0, 0), 0.5: (2, 1, 1, 1, 0, 0), 0.8: (2, 0, 0, 0, 0, 0)}),
    ]
    assert choose_threshold(studies, "map", (0.2, 0.5, 0.8)) == 0.5


def test_two_saliencies_are_compared_on_the_same_studies() -> None:
    studies = [
        made("a", 1, {}, one_auprc=0.6, two_auprc=0.5),
        made("b", 1, {}, one_auprc=0.2, two_auprc=0.4),
        made("c", 1, {}, one_auprc=0.9),
    ]
    found = compare(studies, "one", "two")
    assert found.value == pytest.approx(-0.05)
    assert np.isnan([found.low, found.high]).all()  # two patients have no interval
    many = compare([made(f"{k}", 1, {}, one_auprc=0.6, two_auprc=0.5 - 0.01 * k) for k in range(20)], "one", "two")
    assert 0.1 < many.low < many.value < many.high < 0.29


def test_slices_are_judged_by_the_mask_in_them() -> None:
    """Only the infected slice of an infected patient carries the patient's label."""
    one = told(np.zeros(SHAPE, np.float32))
    assert [infected for _, infected in one.slices] == [False, True, False]
    found = slice_figures([one], ("covid19", "non_pneumonia"))
    assert found["accuracy"].value == pytest.approx(1 / 3)  # the model calls all three infected


def test_healthy_patients_make_no_interval_of_the_infected() -> None:
    """Of two infected patients there is none, however many healthy ones stand beside them; of these there is one of false boxes."""
    ill = [made(f"i{k}", 1, {0.5: (1, 1, 1, 1, 0, 0)}, map_auprc=0.3 + 0.2 * k, map_pointing=1.0) for k in range(2)]
    healthy = [made(f"h{k}", 0, {0.5: (0, k % 2, 0, 0, 0, 0)}) for k in range(28)]
    found = figures([*ill, *healthy], "map", 0.5)
    assert found["auprc"].value == pytest.approx(0.4)
    assert all(np.isnan(found[name].low) for name in ("auprc", "pointing", "box_recall_0.3", "box_precision_0.3"))
    assert found["false_boxes_per_healthy_patient"].low < 0.5 < found["false_boxes_per_healthy_patient"].high
