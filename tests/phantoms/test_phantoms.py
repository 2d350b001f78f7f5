from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from m2net.cli.main import main
from m2net.errors import ConfigError
from m2net.phantoms import GRADERS, PHANTOM_VERSION, SCANNERS, SEVERITY_MODELS, Phantom, make_phantom
from m2net.phantoms.disease import checked_mix
from m2net.studies import find_thorax, read_image, read_manifest
from m2net.vocabulary import Diagnosis, InfectionCode, Lobe


def make(seed: int, diagnosis: Diagnosis = Diagnosis.COVID19, **options: object) -> Phantom:
    return make_phantom((1, seed), SCANNERS["home"], diagnosis, SEVERITY_MODELS[2], **{"matrix": 96, "slice_mm": 6.0, **options})


def test_the_same_seed_gives_the_same_voxels() -> None:
    first, again, other = make(1), make(1), make(2)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.infection, again.infection)
    assert first.severity == again.severity
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


@pytest.mark.parametrize("seed", range(6))
def test_anatomy(seed: int) -> None:
    phantom = make(seed, Diagnosis.NON_PNEUMONIA)
    ml = {lobe: float((phantom.lobes == lobe).sum() * phantom.geometry.voxel_ml) for lobe in Lobe}
    assert all(ml[lobe] > 60 for lobe in Lobe)
    right, left = sum(v for k, v in ml.items() if not k.is_left), sum(v for k, v in ml.items() if k.is_left)
    assert right > left
    assert 1500 < right + left < 9000
    x = np.indices(phantom.lobes.shape)[2]
    assert x[phantom.lungs == 2].mean() > x[phantom.lungs == 1].mean()  # +x is left
    z = np.indices(phantom.lobes.shape)[0]
    y = np.indices(phantom.lobes.shape)[1]
    for upper, lower in ((Lobe.LEFT_UPPER, Lobe.LEFT_LOWER), (Lobe.RIGHT_UPPER, Lobe.RIGHT_LOWER)):
        assert z[phantom.lobes == upper].mean() > z[phantom.lobes == lower].mean()
        assert y[phantom.lobes == upper].mean() < y[phantom.lobes == lower].mean()  # +y is posterior
    assert -930 < np.median(phantom.image[phantom.lobes > 0]) < -640
    assert phantom.infection.max() == 0


def test_shares_are_those_of_the_masks() -> None:
    phantom = make(3, Diagnosis.CAP, slice_mm=3.0)  # one plane a slice: the masks are the whole truth
    for k, lobe in enumerate(Lobe):
        inside = phantom.lobes == lobe
        assert phantom.share[k] == pytest.approx((phantom.infection[inside] > 0).mean())
        assert phantom.solid[k] == pytest.approx((phantom.infection[inside] == InfectionCode.CONSOLIDATION).mean())
    assert not (phantom.infection > 0)[phantom.lobes == 0].any()


def test_patterns_differ_in_place() -> None:
    def sides(diagnosis: Diagnosis) -> float:
        both = []
        for seed in range(14):
            shares = make(seed, diagnosis, matrix=64, slice_mm=8.0).share
            left, right = shares[:2].sum(), shares[2:].sum()
            both.append(min(left, right) > 0.05 * max(left, right))
        return float(np.mean(both))

    assert sides(Diagnosis.COVID19) > 0.7
    assert sides(Diagnosis.CAP) < 0.4


@pytest.mark.parametrize("grades", [2, 3, 5])
def test_grades_follow_the_stated_model(grades: int, rng: np.random.Generator) -> None:
    model = SEVERITY_MODELS[grades]
    share, solid = np.array([0.2, 0.4, 0.1, 0.0, 0.5]), np.array([0.0, 0.2, 0.0, 0.0, 0.1])
    burden = np.sqrt(sum(w * (s + 0.6 * c) for w, s, c in zip(model.lobe_weight, share, solid, strict=True)))
    expected = [1 / (1 + np.exp(-(11.0 * burden - cut))) for cut in model.cuts]
    np.testing.assert_allclose(model.probabilities(share, solid), expected)
    drawn = np.array([model.draw(model.probabilities(share, solid), rng) for _ in range(4000)])
    for k, p in enumerate(expected, start=1):
        assert (drawn >= k).mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000) + 1e-9)


def test_graders_of_density_judge_it_against_the_extent() -> None:
    model = GRADERS["consolidation"][2]
    share, solid = np.array([0.2, 0.4, 0.1, 0.0, 0.5]), np.array([0.0, 0.2, 0.0, 0.0, 0.1])
    extent, dense = (sum(w * v for w, v in zip(model.lobe_weight, values, strict=True)) for values in (share, solid))
    assert model.burden(share, solid) == pytest.approx(np.sqrt(dense / extent))
    assert model.burden(share, share) > model.burden(share, solid) > model.burden(share, np.zeros(5)) == 0
    assert model.burden(np.zeros(5), np.zeros(5)) == 0


def test_case_mix_and_graders_through_the_front_door(tmp_path: Path) -> None:
    small = ["--patients", "12", "--seed", "2", "--matrix", "48", "--slice-mm", "8"]
    mix = ["--mix", "0", "0.2", "0.8"]
    assert main(["phantom", "--out", str(tmp_path / "a"), *small, *mix, "--graders", "consolidation"]) == 0
    with (tmp_path / "a" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    diagnoses = [row["diagnosis"] for row in rows]
    assert "non_pneumonia" not in diagnoses
    assert diagnoses.count("cap") > diagnoses.count("covid19")
    for row in rows:
        share, solid = ([float(row[f"{kind}_share_{lobe.key}"]) for lobe in Lobe] for kind in ("infected", "consolidated"))
        expected = GRADERS["consolidation"][2].probabilities(np.array(share), np.array(solid))
        assert float(row["true_severity_ge1"]) == pytest.approx(float(expected[0]), abs=1e-3)
    assert main(["phantom", "--out", str(tmp_path / "b"), *small, "--mix", "0.5", "0.2", "0.8"]) == 2
    assert main(["phantom", "--out", str(tmp_path / "c"), *small, "--modality", "cxr", "--graders", "consolidation"]) == 2


def test_cohort_through_the_front_door(cohort: Path, rows: list[dict[str, str]]) -> None:
    manifest = read_manifest(cohort)
    assert len(manifest) == 10
    assert {row["phantom_version"] for row in rows} == {PHANTOM_VERSION}
    assert all(0 < float(row["true_severity_ge1"]) < 1 for row in rows)
    assert main(["phantom", "--out", str(cohort.parent), "--patients", "1", "--seed", "1"]) == 2  # never over another cohort


def test_dicom_and_nifti_are_the_same_patient(tmp_path: Path) -> None:
    for kind in ("dicom", "nifti"):
        code = main(["phantom", "--out", str(tmp_path / kind), "--patients", "1", "--seed", "9", "--matrix", "64", "--slice-mm", "8",
                     "--format", kind])  # fmt: skip
        assert code == 0
    with (tmp_path / "dicom" / "manifest.csv").open() as file:
        name = next(csv.DictReader(file))["study_id"]
    series, image = (read_image(tmp_path / kind) for kind in (f"dicom/{name}/series", f"nifti/{name}/image.nii.gz"))
    np.testing.assert_array_equal(series.array, image.array)
    assert series.geometry is not None
    assert image.geometry is not None
    assert series.geometry.matches(image.geometry, image.array.shape)


def test_lungs_of_every_site_are_found() -> None:
    for site, scanner in SCANNERS.items():
        phantom = make_phantom((2, 2), scanner, Diagnosis.COVID19, SEVERITY_MODELS[2], matrix=128)
        from m2net.studies import Volume

        found = find_thorax(Volume.from_own(phantom.image, phantom.geometry), phantom.geometry.spacing_mm).lungs > 0
        true = phantom.lungs > 0
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85, site


def test_pictures_of_slices_are_studies_with_their_own_label(tmp_path: Path) -> None:
    """A slice is sick where its mask shows infection; masks and picture have one size; a patient's slices share the patient."""
    from PIL import Image

    words = ["--patients", "6", "--seed", "9", "--matrix", "64", "--slice-mm", "8", "--format", "png", "--pictures", "4"]
    assert main(["phantom", "--out", str(tmp_path), *words]) == 0
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert len({r["patient_id"] for r in rows}) == 6
    for row in rows:
        infection = np.asarray(Image.open(tmp_path / row["infection"]))
        assert Image.open(tmp_path / row["image"]).size == Image.open(tmp_path / row["lobes"]).size == infection.shape[::-1]
        assert (row["infected"] == "1") == ((infection > 0).sum() >= 12) == (row["diagnosis"] != "non_pneumonia")
    assert {"0", "1"} == {r["infected"] for r in rows}
    assert main(["verify", str(tmp_path / "manifest.csv")]) == 0


def test_a_case_mix_in_rounded_thirds_is_drawn() -> None:
    found = checked_mix((0.3333333, 0.3333333, 0.3333333))
    assert found is not None
    assert np.random.default_rng(0).choice(3, p=found) in (0, 1, 2)
    with pytest.raises(ConfigError, match="case mix"):
        checked_mix((0.3, 0.3, 0.3))
