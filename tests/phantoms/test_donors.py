from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from m2net.cli.main import main
from m2net.errors import StudyError
from m2net.phantoms import SCANNERS, SEVERITY_MODELS, Phantom, make_phantom
from m2net.phantoms.anatomy import draw_anatomy
from m2net.phantoms.donors import Donor, Transplant, read_donor
from m2net.phantoms.grid import Grid
from m2net.studies import find_thorax
from m2net.studies.volume import Volume
from m2net.vocabulary import Diagnosis, Intensity, Lobe


def write_lobes(phantom: Phantom, path: Path, *, upside_down: bool = False, codes: np.ndarray | None = None) -> Path:
    """The phantom's lobes as somebody's mask, stored from the top down where ``upside_down``."""
    image = phantom.geometry.place(sitk.GetImageFromArray(phantom.lobes if codes is None else codes))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.Flip(image, [False, False, True]) if upside_down else image, str(path))
    return path


@pytest.fixture(scope="module")
def giver() -> Phantom:
    return make_phantom((9, 4), SCANNERS["home"], Diagnosis.NON_PNEUMONIA, SEVERITY_MODELS[2], matrix=128, slice_mm=3.0)


@pytest.fixture
def donor(giver: Phantom, tmp_path: Path) -> Donor:
    return read_donor(write_lobes(giver, tmp_path / "a.nii.gz"))


def around(donor: Donor, seed: int, **options: object) -> Phantom:
    plan = {"matrix": 112, "slice_mm": 3.0, "donor": donor, **options}
    return make_phantom((2, seed), SCANNERS["home"], Diagnosis.NON_PNEUMONIA, SEVERITY_MODELS[2], **plan)


@pytest.mark.parametrize("upside_down", [False, True])
def test_a_mask_is_read_trimmed_and_upright_however_it_is_stored(giver: Phantom, tmp_path: Path, upside_down: bool) -> None:
    donor = read_donor(write_lobes(giver, tmp_path / "1.3.6.nii.gz", upside_down=upside_down))
    places = np.nonzero(giver.lobes)
    box = tuple(slice(p.min(), p.max() + 1) for p in places)
    np.testing.assert_array_equal(donor.lobes, giver.lobes[box])
    assert donor.name == "1.3.6"


def test_fine_masks_are_thinned_and_keep_their_size(tmp_path: Path) -> None:
    codes = np.zeros((160, 120, 200), np.uint8)
    codes[10:80, 10:110, 10:90], codes[80:150, 10:110, 10:90] = Lobe.RIGHT_LOWER, Lobe.RIGHT_UPPER
    codes[10:80, 10:110, 110:190], codes[80:150, 10:110, 110:190] = Lobe.LEFT_LOWER, Lobe.LEFT_UPPER
    image = sitk.GetImageFromArray(codes)
    image.SetSpacing((0.6, 0.6, 1.0))
    sitk.WriteImage(image, str(tmp_path / "fine.nii.gz"))
    donor = read_donor(tmp_path / "fine.nii.gz")
    np.testing.assert_allclose(donor.extent_mm, (140.0, 60.0, 108.0), atol=1e-6)
    assert min(donor.spacing_mm) >= 1.0
    assert donor.lobes.shape == (117, 50, 90)
    for lobe in (Lobe.LEFT_LOWER, Lobe.RIGHT_UPPER):
        assert (donor.lobes == lobe).mean() == pytest.approx((codes[10:150, 10:110, 10:190] == lobe).mean(), abs=0.01)


def test_stray_voxels_do_not_widen_the_body(giver: Phantom, tmp_path: Path) -> None:
    stray = giver.lobes.copy()
    stray[0, 0, 0] = stray[-1, -1, -1] = Lobe.LEFT_UPPER
    clean, odd = (read_donor(write_lobes(giver, tmp_path / f"{n}.nii.gz", codes=c)) for n, c in (("a", giver.lobes), ("b", stray)))
    np.testing.assert_array_equal(clean.lobes, odd.lobes)


def test_unchanged_lungs_come_back_voxel_by_voxel(donor: Donor) -> None:
    rng = np.random.default_rng(0)
    same = dataclasses.replace(Transplant.draw(donor, rng), stretch=np.ones(3), turn=0.0, bend_mm=0.0)
    sz, sy, sx = donor.spacing_mm
    depth, height, width = donor.lobes.shape
    grid = Grid((depth, height, width), donor.spacing_mm, (sz / 2 - 40.0, -sy * (height - 1) / 2, -sx * (width - 1) / 2))
    body = same.build(same.fitted(draw_anatomy(rng)), grid, rng)
    np.testing.assert_array_equal(body.lobes, donor.lobes)


@pytest.mark.parametrize("seed", range(3))
def test_bent_lungs_stay_these_lungs(donor: Donor, giver: Phantom, seed: int) -> None:
    made = around(donor, seed)
    for lobe in Lobe:
        mine, theirs = (float((p.lobes == lobe).sum() / (p.lobes > 0).sum()) for p in (made, giver))
        assert mine == pytest.approx(theirs, abs=0.04)
        pieces, count = ndimage.label(made.lobes == lobe)
        assert np.bincount(pieces.ravel())[1:].max() > 0.97 * (made.lobes == lobe).sum(), count
    assert (made.lobes > 0).sum() * made.geometry.voxel_ml == pytest.approx((giver.lobes > 0).sum() * giver.geometry.voxel_ml, rel=0.4)
    assert not (made.lobes[0] > 0).any()
    assert not (made.lobes[-1] > 0).any()


def test_lungs_are_dark_in_a_body_that_a_lung_finder_knows(donor: Donor) -> None:
    made = around(donor, 5)
    assert -930 < np.median(made.image[made.lobes > 0]) < -640
    rim = ndimage.binary_dilation(made.lobes > 0, iterations=3) & ~ndimage.binary_dilation(made.lobes > 0, iterations=1)
    assert np.median(made.image[rim]) > -100
    found = find_thorax(Volume(made.image, made.geometry, Intensity.HU), made.geometry.spacing_mm).lungs > 0
    truth = made.lobes > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_fissures_are_where_lobes_of_one_lung_meet_and_nowhere_else(donor: Donor) -> None:
    rng = np.random.default_rng(1)
    transplant = Transplant.draw(donor, rng)
    anatomy = dataclasses.replace(transplant.fitted(draw_anatomy(rng)), completeness={"left": 9.0, "right": 9.0, "horizontal": 9.0})
    grid = Grid((90, 96, 96), (3.0, 3.5, 3.5), (-60.0, -168.0, -168.0))
    body = transplant.build(anatomy, grid, rng)
    met = np.zeros(body.lobes.shape, bool)  # brute force over the six neighbours
    left = body.lobes <= Lobe.LEFT_LOWER
    for axis in range(3):
        for step in (1, -1):
            other, side = np.roll(body.lobes, step, axis), np.roll(left, step, axis)
            met |= (other != body.lobes) & (other > 0) & (body.lobes > 0) & (side == left)
    assert met.sum() > 300
    assert body.fissure[ndimage.distance_transform_edt(~met) > 3].max() < 0.01
    assert (ndimage.maximum_filter(body.fissure, 3)[met] > 0.05).mean() > 0.98


def phantoms(out: Path, *words: str) -> int:
    return main(["phantom", "--out", str(out), "--seed", "7", "--matrix", "64", "--slice-mm", "8", *words])


def test_a_cohort_around_real_lobes_keeps_a_donors_patients_together(giver: Phantom, tmp_path: Path) -> None:
    masks = [str(write_lobes(giver, tmp_path / "masks" / f"{name}_lobes.nii.gz")) for name in ("p", "q", "r")]
    for out in (tmp_path / "one", tmp_path / "two"):
        assert phantoms(out, "--patients", "7", "--workers", "2", "--lobes", *masks) == 0
    with (tmp_path / "one" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = [sum(row["patient_id"] == f"{name}_lobes" for row in rows) for name in ("p", "q", "r")]
    assert sum(counts) == 7
    assert min(counts) >= 2
    assert len({row["study_id"] for row in rows}) == 7
    assert {row["phantom_version"] for row in rows} == {"1 in real lobes"}
    assert json.loads((tmp_path / "one" / "cohort.json").read_text())["lobes"] == masks
    for row in rows:
        for column in ("image", "lobes"):
            mine, again = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / out / row[column]))) for out in ("one", "two"))
            np.testing.assert_array_equal(mine, again)


def test_masks_of_another_scheme(giver: Phantom, tmp_path: Path) -> None:
    foreign = np.choose(giver.lobes, np.array([0, 10, 11, 12, 13, 14], np.uint8))  # TotalSegmentator's own numbers
    mask = write_lobes(giver, tmp_path / "m.nii.gz", codes=foreign)
    np.testing.assert_array_equal(read_donor(mask, "totalsegmentator").lobes, read_donor(write_lobes(giver, tmp_path / "n.nii.gz")).lobes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--patients", "4", "--modality", "cxr"], "around real lobes"),
        (["--patients", "1"], "1 patients of 2 lobe masks"),
        (["--patients", "4", "--lobes-scheme", "nobody"], "the scheme 'nobody' of 2 lobe masks"),
        (["--patients", "4", "--lobes", "no.nii.gz"], "no.nii.gz does not exist"),
        (["--patients", "4", "--lobes", "x/same.nii.gz", "y/same.nii.gz"], "two lobe masks of one name"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    giver: Phantom, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    masks = [str(write_lobes(giver, tmp_path / f"{name}.nii.gz")) for name in "ab"]
    size = [] if "cxr" in words else ["--slice-mm", "8"]
    assert main(["phantom", "--out", str(tmp_path / "out"), "--seed", "7", "--matrix", "64", *size, "--lobes", *masks, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_half_a_chest_is_refused(giver: Phantom, tmp_path: Path) -> None:
    right = np.where(giver.lobes > Lobe.LEFT_LOWER, giver.lobes, 0).astype(np.uint8)
    low = giver.lobes.copy()
    low[np.flatnonzero((low > 0).any(axis=(1, 2)))[30] :] = 0
    for codes in (right, low, np.zeros_like(low)):
        with pytest.raises(StudyError, match=r"lobe mask|slices"):
            read_donor(write_lobes(giver, tmp_path / "m.nii.gz", codes=codes))
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(StudyError, match="is a picture"):
        read_donor(tmp_path / "x.png")
    with pytest.raises(StudyError, match="does not exist"):
        read_donor(tmp_path / "nothing.nii.gz")
