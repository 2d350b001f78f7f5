"""Explanations: attributions against the axiom they must keep, boxes against plain loops, files through the front door."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from scipy import ndimage

from m2net.assessment import InfectionBox, explainer, find_boxes, saliency
from m2net.assessment.boxes import match
from m2net.assessment.saliency import SALIENCY, DepthScores, integrated_gradients
from m2net.bags import Prepared
from m2net.bags.hull import lungs_hull
from m2net.cli.main import main
from m2net.networks import ScoreMapHead
from m2net.objectives import DiagnosisObjective
from m2net.phantoms import SCANNERS, Phantom, write_dicom_series, write_nifti
from m2net.studies import read_image
from m2net.vocabulary import Intensity
from tests.networks.test_scoremaps import network

HEAD = {"name": "score_maps", "bag_pool": "top", "top": 0.3, "activation": "none", "dropout": 0.1}


@pytest.fixture(scope="module")
def weak(cohort: Path, configure: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny weakly supervised run on volumes."""
    folder = tmp_path_factory.mktemp("weak")
    path = configure(
        folder,
        model={
            "network": {"encoder": {"name": "residual", "width": 4}, "chunk": 16}, "optimizer": {"name": "adamw", "lr": 0.01},
            "tasks": {"diagnosis": {"head": HEAD, "objective": {"name": "diagnosis"}}},
        },
        data={"masks": [], "input": {"spacing_mm": 6.0, "patch": 32, "view": "slices", "slices": 3}},
    )  # fmt: skip
    assert main(["fit", "--config", str(path)]) == 0
    return folder


@pytest.fixture(scope="module")
def weak_pictures(configure: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny weakly supervised run on pictures of slices, COVID-19 or not."""
    folder = tmp_path_factory.mktemp("pictures")
    made = ["phantom", "--out", str(folder / "c"), "--patients", "8", "--seed", "4", "--matrix", "64", "--slice-mm", "8"]
    assert main([*made, "--format", "png", "--pictures", "3"]) == 0
    assert main(["split", str(folder / "c" / "manifest.csv"), "--parts", "0.5", "0.25", "0.25"]) == 0
    path = configure(
        folder,
        model={
            "network": {"encoder": {"name": "residual", "width": 4}},
            "tasks": {
                "diagnosis": {"head": HEAD, "objective": {"name": "diagnosis", "groups": [["covid19"], ["non_pneumonia", "cap"]]}},
            },
        },
        data={
            "masks": [], "manifest": str(folder / "c" / "manifest.split.csv"), "store": str(folder / "store"), "instances": 1,
            "input": {
                "intensity": "relative", "spacing_mm": 0.0, "patch": 32, "view": "slices", "normalise": "lungs", "window": [0, 32767],
                "slices": 1, "positions": False,
            },
        },
    )  # fmt: skip
    assert main(["fit", "--config", str(path)]) == 0
    return folder


def test_integrated_gradients_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sum is the score's rise from the baseline (Sundararajan et al. 2017), depth by depth."""
    monkeypatch.setattr(saliency, "_smoothed", lambda maps: maps)
    monkeypatch.setattr(saliency, "STEPS", 200)
    scores = DepthScores(network(place_pool="mean", activation="none"), "diagnosis")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for depth in range(3):
        found = integrated_gradients(scores, images, 1, 1, depth)
        with torch.no_grad():
            rise = scores(images, depth)[:, 1] - scores(torch.full_like(images, -1.0), depth)[:, 1]
        torch.testing.assert_close(found.sum((1, 2)), rise, rtol=0.05, atol=2e-3)


def test_coordinate_channels_carry_no_saliency() -> None:
    torch.manual_seed(0)
    from m2net.networks import M2Net

    net = M2Net(7, {"name": "residual", "width": 4}, {"diagnosis": {"name": "score_maps", "classes": 3}}).eval()
    images = torch.rand(1, 7, 32, 32)
    images[:, 0] = -1.0  # the picture is the baseline: there is nothing to attribute to it
    found = integrated_gradients(DepthScores(net, "diagnosis"), images, 0, 1, None)
    assert float(found.abs().max()) == 0


@pytest.mark.parametrize("name", sorted(SALIENCY))
def test_saliency_is_scaled_over_the_study(name: str) -> None:
    scores = DepthScores(network(activation="none"), "diagnosis")
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    found = SALIENCY[name](scores, images, 2, 1)
    assert found.shape == (3, 32, 32)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-6
    assert name.startswith("grad_cam") or float(found.max()) > 0.6  # Grad-CAM is 0 where every cell speaks against the class


def test_the_joint_saliency_is_the_published_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """minmax[(C5 + 2)(C4 + 2)(C3 + 2)], each C divided by its largest magnitude in the study, worked out from three known attributions."""
    drawn = np.random.default_rng(5).normal(size=(4, 2, 8, 8)) * np.array([1.0, 30.0, 0.01, 2.0])[:, None, None, None]
    monkeypatch.setattr(saliency, "integrated_gradients", lambda _s, _i, _t, _n, depth: torch.from_numpy(drawn[depth]))
    for depths in ((3, 4, 5), (2, 3, 4, 5)):
        scores = DepthScores(network(activation="none", depths=depths), "diagnosis")
        found = SALIENCY["joint"](scores, torch.zeros(2, 1, 8, 8), 0, 1).numpy()
        product = np.prod([one / np.abs(one).max() + 2 for one in drawn[: len(depths)][-3:]], axis=0)
        np.testing.assert_allclose(found, (product - product.min()) / np.ptp(product), rtol=1e-6)


def test_grad_cam_by_hand() -> None:
    """With a mean over places a channel's gradient is its weight over the number of cells (Selvaraju et al. 2017)."""
    net = network(place_pool="mean", activation="none")
    images = torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    head = net.heads["diagnosis"]
    assert isinstance(head, ScoreMapHead)
    by_depth = []
    for depth, (convolution, norm, _) in zip(head.depths, head.score, strict=True):  # type: ignore[misc]
        with torch.no_grad():
            cells = net.features(images).maps[depth - 1]
            weight = convolution.weight[1, :, 0, 0] * norm.weight[1] / torch.sqrt(norm.running_var[1] + norm.eps) / cells[0, 0].numel()
            cam = (weight[:, None, None] * cells).sum(1, keepdim=True).clamp(min=0)
        raised = torch.nn.functional.interpolate(cam, size=(96, 96), mode="bilinear")[:, 0]
        by_depth.append((raised - raised.min()) / (raised.max() - raised.min()))
    for name, expected in (("grad_cam", by_depth[-1]), ("grad_cam_depths", torch.stack(by_depth).mean(0))):
        torch.testing.assert_close(SALIENCY[name](DepthScores(net, "diagnosis"), images, 1, 1), expected, atol=1e-5, rtol=1e-4)


def test_boxes_are_the_components(rng: np.random.Generator) -> None:
    values = ndimage.gaussian_filter(rng.normal(size=(3, 40, 50)), (0, 2, 2)).astype(np.float32)
    values = (values - values.min()) / np.ptp(values)
    boxes = find_boxes(values, 0.7, 5)
    expected = set()
    for z in range(3):
        labels, count = ndimage.label(values[z] >= 0.7)
        for k in range(1, count + 1):
            rows, columns = np.nonzero(labels == k)
            if len(rows) >= 5:
                expected.add((z, rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    assert {(b.slice_index, b.row0, b.row1, b.column0, b.column1) for b in boxes} == expected
    assert [b.score for b in boxes] == sorted((b.score for b in boxes), reverse=True)


def test_each_box_is_matched_once() -> None:
    true = [InfectionBox(0, 0, 10, 0, 10, 1), InfectionBox(1, 0, 10, 0, 10, 1)]
    found = [InfectionBox(0, 0, 10, 0, 8, 0.9), InfectionBox(0, 0, 10, 1, 10, 0.8), InfectionBox(1, 20, 30, 0, 10, 0.7)]
    assert found[0].overlap(true[0]) == pytest.approx(0.8)
    assert found[0].overlap(true[1]) == 0
    assert match(found, true, 0.5) == (1, 1)


def check(folder: Path, study: Path) -> dict:
    """What every explanation must keep, read back from its files."""
    report = json.loads((folder / "explanation.json").read_text())
    volume = read_image(study)
    assert report["image"]["shape_zyx"] == list(volume.array.shape)
    probabilities = report["diagnosis"]["probabilities"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert report["diagnosis"]["predicted"] == max(probabilities, key=probabilities.get)
    assert report["explained_class"] in report["diagnosis"]["predicted"].split("+")
    if "non_pneumonia" in report["diagnosis"]["predicted"]:
        assert not report["boxes"]
    assert list(folder.glob("slice_*.png"))
    assert any("synthetic phantoms" in text for text in report["warnings"])
    for box in report["boxes"]:
        assert 0 <= box["rows"][0] < box["rows"][1] <= volume.array.shape[1]
        if volume.geometry is not None:
            index = [sum(box["columns"]) / 2 - 0.5, sum(box["rows"]) / 2 - 0.5, box["slice_index"]]
            lps = np.asarray(volume.geometry.origin_mm) + volume.geometry.axes @ (np.array(index) * volume.geometry.spacing_mm[::-1])
            np.testing.assert_allclose(box["centre_mm_lps"], lps, atol=1e-3)
    return report


def test_nifti_and_dicom_say_the_same(weak: Path, phantom: Phantom, tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", phantom.image, phantom.geometry)
    write_dicom_series(tmp_path / "b", phantom, SCANNERS["home"], "P1")
    words = ["--model", str(weak / "best.ckpt"), "--out", str(tmp_path / "out"), "--method", "score_maps", "--threshold", "0.3"]
    assert main(["explain", str(tmp_path / "a.nii.gz"), str(tmp_path / "b"), *words]) == 0
    one, other = check(tmp_path / "out" / "a", tmp_path / "a.nii.gz"), check(tmp_path / "out" / "b", tmp_path / "b")
    assert one["diagnosis"]["probabilities"] == pytest.approx(other["diagnosis"]["probabilities"], abs=1e-3)
    own, found = sitk.ReadImage(str(tmp_path / "a.nii.gz")), sitk.ReadImage(str(tmp_path / "out" / "a" / "saliency.nii.gz"))
    assert own.GetSize() == found.GetSize()
    np.testing.assert_allclose(own.GetOrigin(), found.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(own.GetDirection(), found.GetDirection(), atol=1e-6)


def test_a_box_lies_where_the_saliency_is(weak: Path, phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saliency planted deep in a lung of the store's grid comes out as one box, at its millimetres, whatever the file."""
    planted: list[tuple[np.ndarray, tuple[float, float]]] = []

    def plant(_maps: torch.Tensor, _batch: object, prepared: Prepared) -> np.ndarray:
        z = (prepared.lung_box.z0 + prepared.lung_box.z1) // 2
        depth = ndimage.distance_transform_edt(prepared.masks["found_lungs"][z] > 0)
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        values = np.zeros(prepared.image.shape, np.float32)
        values[z, y - 1 : y + 2, x - 1 : x + 2] = 1
        planted.append((np.array([z, y, x]), prepared.step))
        return values

    monkeypatch.setattr(explainer, "_stitched", plant)
    monkeypatch.setattr(
        DiagnosisObjective, "probabilities", lambda self, _output: torch.tensor([[float(n == "covid19") for n in self.names]])
    )
    write_nifti(tmp_path / "a.nii.gz", phantom.image, phantom.geometry)
    write_dicom_series(tmp_path / "b", phantom, SCANNERS["home"], "P1")
    words = ["--model", str(weak / "best.ckpt"), "--out", str(tmp_path / "out")]
    assert main(["explain", str(tmp_path / "a.nii.gz"), str(tmp_path / "b"), *words]) == 0
    own = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    for name, ((z, y, x), (step_y, step_x)) in zip(("a", "b"), planted, strict=True):
        (box,) = check(tmp_path / "out" / name, tmp_path / ("a.nii.gz" if name == "a" else "b"))["boxes"]
        assert box["slice_index"] == z
        for (low, high), at, step in ((box["rows"], y, step_y), (box["columns"], x, step_x)):
            assert (low, high) == pytest.approx(((at - 1) * step, (at + 2) * step), abs=step)
        saliency_there = sitk.ReadImage(str(tmp_path / "out" / name / "saliency.nii.gz"))
        point = saliency_there.TransformPhysicalPointToIndex(box["centre_mm_lps"])
        assert saliency_there.GetPixel(point) == pytest.approx(1)
        outline = sitk.Resample(saliency_there, own, sitk.Transform(), sitk.sitkNearestNeighbor)
        planes = np.nonzero(sitk.GetArrayFromImage(outline) >= 0.5)
        found = own.TransformContinuousIndexToPhysicalPoint([float(axis.mean()) for axis in planes[::-1]])
        np.testing.assert_allclose(box["centre_mm_lps"], found, atol=0.51 * max(own.GetSpacing()))


@pytest.mark.parametrize("hull", [False, True])
def test_what_is_salient_beyond_the_lungs_is_told(
    weak: Path, phantom: Phantom, tmp_path: Path, hull: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saliency of 0.2 in the lungs and a rim, or in the hulls that the model sees, and of 0.5 or 0.1 in the rest of the squares read."""
    places: list[np.ndarray] = []
    outside = 0.5

    def planted(_maps: torch.Tensor, _batch: object, prepared: Prepared) -> np.ndarray:
        lungs = np.asarray(prepared.masks["found_lungs"]) > 0
        rim = ndimage.distance_transform_edt(~lungs, sampling=(1e3, 1.0, 1.0))  # within slices, in pixels of 6 mm
        places.append(np.stack([lungs_hull(plane) for plane in lungs]) if hull else rim < 1.5)
        return np.where(places[-1], 0.2, outside).astype(np.float32)

    monkeypatch.setattr(explainer, "_stitched", planted)
    monkeypatch.setattr(
        DiagnosisObjective, "probabilities", lambda self, _output: torch.tensor([[float(n == "covid19") for n in self.names]])
    )
    told = explainer.Explainer(weak / "best.ckpt")
    if hull:
        told.model.spec = replace(told.model.spec, lungs_only=True, lungs_from="hull")
    write_nifti(tmp_path / "a.nii.gz", phantom.image, phantom.geometry)
    volume = read_image(tmp_path / "a.nii.gz")
    judgement = told.judge(told.model.prepare(volume), ["score_maps"])
    np.testing.assert_array_equal(judgement.saliency["score_maps"] > 0, places[0])
    assert judgement.beyond["score_maps"] == pytest.approx(0.5 / 0.2)
    assert any("stronger beyond the lungs" in text for text in told.explain(volume).warnings)
    outside = 0.1
    assert told.judge(told.model.prepare(volume), ["score_maps"]).beyond["score_maps"] == pytest.approx(0.1 / 0.2)
    assert not any("stronger beyond the lungs" in text for text in told.explain(volume).warnings)


def test_each_saliency_has_a_threshold_of_its_own(weak: Path, weak_pictures: Path) -> None:
    for folder, kind in ((weak, Intensity.HU), (weak_pictures, Intensity.RELATIVE)):
        found = {name: explainer.Explainer(folder / "best.ckpt", name).threshold for name in SALIENCY}
        assert found == explainer.DEFAULT_THRESHOLDS[kind]
    assert explainer.Explainer(weak / "best.ckpt", "joint", 0.4).threshold == 0.4


def test_a_png_slice(weak_pictures: Path, tmp_path: Path) -> None:
    with (weak_pictures / "c" / "manifest.csv").open(newline="") as file:
        study = weak_pictures / "c" / next(csv.DictReader(file))["image"]
    assert main(["explain", str(study), "--model", str(weak_pictures / "best.ckpt"), "--out", str(tmp_path)]) == 0
    report = check(tmp_path / study.stem, study)
    assert set(report["diagnosis"]["probabilities"]) == {"covid19", "non_pneumonia+cap"}
    assert Image.open(tmp_path / study.stem / "saliency.png").size == Image.open(study).size


def test_wrong_models(weak: Path, trained: Path, weak_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = next((weak_pictures / "c").rglob("slice_*.png"))
    out = ["--out", str(tmp_path)]
    assert main(["explain", str(study), "--model", str(trained / "best.ckpt"), *out]) == 2
    assert "no task with a score_maps head" in capsys.readouterr().err
    assert main(["explain", str(study), "--model", str(weak / "best.ckpt"), *out]) == 2
    assert "relative intensity" in capsys.readouterr().err
    assert main(["explain", str(study), "--model", str(weak / "best.ckpt"), "--method", "magic", *out]) == 2
    assert "magic" in capsys.readouterr().err


def test_localise_reports_against_the_masks(weak: Path, cohort: Path, store: Path, tmp_path: Path) -> None:
    words = ["--store", str(store), "--model", str(weak / "best.ckpt"), "--out", str(tmp_path), "--methods", "score_maps", "grad_cam"]
    assert main(["localise", str(cohort), *words]) == 0
    report = json.loads((tmp_path / "localisation.json").read_text())
    assert report["phantom_version"] == "1"
    assert set(report["methods"]) == {"score_maps", "grad_cam"}
    assert 0 <= report["slices"]["accuracy"]["value"] <= 1
    with (tmp_path / "localisation.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == report["studies"] == 2
