"""Synthetic radiographs: rays, sides, labels and files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from m2net.cli.main import main
from m2net.phantoms.grid import Grid
from m2net.phantoms.radiographs import Radiograph, make_radiograph
from m2net.phantoms.radiography import RADIOGRAPHY, Film, View, attenuation, project
from m2net.studies import read_image, read_manifest
from m2net.studies.scores import geographic_extent, opacity
from m2net.vocabulary import Diagnosis, Modality

GRID = Grid((60, 40, 60), (3.0, 3.0, 3.0), (-90.0, -60.0, -90.0))


@pytest.fixture(scope="module")
def sick() -> Radiograph:
    return make_radiograph((4, 4), RADIOGRAPHY["home"], Diagnosis.CAP, 128)


def box(z: tuple[float, float], y: tuple[float, float], x: tuple[float, float]) -> np.ndarray:
    inside = [(GRID.axis(k) >= low) & (GRID.axis(k) < high) for k, (low, high) in enumerate((z, y, x))]
    return (inside[0] & inside[1] & inside[2]).astype(np.float32)


@pytest.mark.parametrize("distance", [1e7, 1000.0])
def test_a_ray_through_a_slab_gathers_its_thickness(distance: float) -> None:
    """From near as from far: what is enlarged is not thinned."""
    view = View("PA", distance, -80.0, (0.0, 0.0))
    seen = project(box((-45, 45), (-30, 30), (-45, 45)), GRID, view, Film((200, 200), 1.0, 100.0, -100.0))
    assert seen[100, 100] == pytest.approx(60.0, rel=1e-3)
    assert seen[5, 5] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(("y", "front"), [(45.0, True), (-45.0, True), (45.0, False), (-45.0, False)])
def test_what_is_far_from_the_detector_is_larger(y: float, front: bool) -> None:
    """Width of a plate on the detector against similar triangles."""
    detector = -80.0 if front else 80.0
    view = View("", 1000.0, detector, (0.0, 0.0))
    fine = Film((400, 400), 0.5, 100.0, -100.0)
    seen = project(box((-45, 45), (y - 3, y + 3), (-60, 60)), GRID, view, fine)[190:210].mean(0)
    width = float((seen > seen.max() / 2).sum()) * 0.5
    centres = GRID.axis(1).reshape(-1)
    plane = float(centres[(centres >= y - 3) & (centres < y + 3)].mean())
    assert width == pytest.approx(120 * 1000 / (1000 - abs(plane - detector)), abs=2.0)


def test_attenuation_of_air_water_and_bone() -> None:
    air, water, bone = attenuation(np.array([-1000.0, 0.0, 1100.0], np.float32))
    assert air == 0
    assert bone > 2.1 * water > 0


def test_sides_signs_and_repeatability(sick: Radiograph) -> None:
    again = make_radiograph((4, 4), RADIOGRAPHY["home"], Diagnosis.CAP, 128)
    np.testing.assert_array_equal(sick.image, again.image)
    columns = np.arange(sick.image.shape[1])
    right, left = ((sick.lungs == side).sum(0) @ columns / (sick.lungs == side).sum() for side in (1, 2))
    assert right < left  # the patient's right is image left
    assert max(sick.image.shape) == 128
    assert (sick.infection[sick.lungs == 0] == 0).all()
    inside = sick.image[sick.lungs > 0].mean()
    assert inside < sick.image[-12:, 40:90].mean()  # lungs are darker than the belly


def test_infection_is_seen_where_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same patient spared the infection: what became brighter is what the mask holds."""
    patients = [(9, index) for index in range(6)]
    sick = [make_radiograph(seed, RADIOGRAPHY["south"], Diagnosis.CAP, 128) for seed in patients]
    monkeypatch.setattr("m2net.phantoms.disease._infect", lambda *_, **__: None)
    spared = [make_radiograph(seed, RADIOGRAPHY["south"], Diagnosis.CAP, 128) for seed in patients]
    judged = 0
    for r, s in zip(sick, spared, strict=True):
        np.testing.assert_array_equal(r.lungs, s.lungs)
        assert not s.infection.any()
        brighter, lung = r.image - s.image, r.lungs > 0
        inside, outside = brighter[lung & (r.infection > 0)], brighter[lung & (r.infection == 0)]
        if len(inside) > 50:
            judged += 1
            assert inside.mean() > outside.mean() + 0.05
            assert roc_auc_score((r.infection > 0)[lung], brighter[lung]) > 0.85
    assert judged >= 4


def test_scores_follow_cohens_table() -> None:
    infected = np.array([[0.0, 0.0], [0.1, 0.3], [0.6, 0.9], [0.001, 0.25]])
    assert geographic_extent(infected).tolist() == [0, 3, 7, 2]
    solid = np.array([[0.0, 0.0], [0.0, 0.2], [0.5, 0.8], [0.0, 0.0]])
    assert opacity(infected, solid).tolist() == [0, 3, 5, 1]


def test_cohort_of_radiographs_through_the_front_door(tmp_path: Path) -> None:
    words = ["phantom", "--modality", "cxr", "--patients", "9", "--seed", "4", "--matrix", "96"]
    assert main([*words, "--out", str(tmp_path / "png")]) == 0
    assert main([*words, "--out", str(tmp_path / "dicom"), "--format", "dicom", "--site", "north"]) == 0
    assert main([*words, "--out", str(tmp_path / "same"), "--site", "north"]) == 0
    assert main([*words, "--out", str(tmp_path / "no"), "--format", "nifti"]) == 2
    with (tmp_path / "png" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        infection, lungs = (np.asarray(Image.open(tmp_path / "png" / row[name])) for name in ("infection", "lungs"))
        assert Image.open(tmp_path / "png" / row["image"]).size == infection.shape[::-1] == lungs.shape[::-1]
        if row["infected"] == "0":
            assert row["diagnosis"] == "non_pneumonia"
            assert not infection.any()
            assert float(row["score_geographic_extent"]) == 0
        share = [((infection > 0) & (lungs == side)).sum() / (lungs == side).sum() for side in (1, 2)]
        assert float(row["score_geographic_extent"]) == geographic_extent(np.array(share))
    study = next(iter(read_manifest(tmp_path / "png" / "manifest.csv")))
    assert study.scores["geographic_extent"] == float(rows[0]["score_geographic_extent"])
    assert main(["verify", str(tmp_path / "dicom" / "manifest.csv")]) == 0
    one = next(iter(read_manifest(tmp_path / "dicom" / "manifest.csv"))), next(iter(read_manifest(tmp_path / "same" / "manifest.csv")))
    stored, shown = (read_image(s.image, None, Modality.CXR).array.astype(float) for s in one)
    assert np.abs(stored - shown).max() < 32767 / 100  # MONOCHROME1 is turned; 12 bit against 8
