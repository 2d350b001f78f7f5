"""Scars of lungs: what each does to tissue and masks, how often, and through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from m2net.cli.main import main
from m2net.phantoms import scars
from m2net.phantoms.anatomy import Body, build_body, draw_anatomy
from m2net.phantoms.disease import Disease
from m2net.phantoms.grid import Grid
from m2net.phantoms.scars import add_scars, hollowed
from m2net.phantoms.vessels import FEWEST_TIPS, _tree, grow_vessels
from m2net.vocabulary import InfectionCode


@pytest.fixture(scope="module")
def body() -> Body:
    rng = np.random.default_rng(5)
    grid = Grid((20, 48, 48), (12.0, 8.0, 8.0), (0.0, -188.0, -188.0))
    return build_body(draw_anatomy(rng), grid, rng)


def everywhere(body: Body) -> Disease:
    """Ground glass in all of the lungs, and nothing else."""
    shape = body.grid.shape
    return Disease(
        np.where(body.lobes > 0, np.uint8(InfectionCode.GROUND_GLASS), np.uint8(0)),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for chance in ("_HOLES", "_NET", "_MASS", "_HAZE"):
        monkeypatch.setattr(scars, chance, float(chance == name))


def test_a_mass_is_one_lump_of_its_size_that_is_not_called_infected(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "_MASS")
    for seed in range(10):
        disease = everywhere(body)
        add_scars(body, disease, np.random.default_rng(seed))
        lump = disease.solid > 0.3
        np.testing.assert_array_equal(disease.infection > 0, (body.lobes > 0) & ~lump)
        core = np.argwhere(disease.solid > 0.5) * body.grid.spacing_mm
        assert np.ptp(core, axis=0).max() <= 2 * (28 + 3 * 2.5)  # radius, and three deviations of its uneven edge
        assert ndimage.label(disease.solid > 0.5, np.ones((3, 3, 3)))[1] <= 2


def test_holes_empty_lung_and_leave_infection_and_walls(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "_HOLES")
    disease = everywhere(body)
    before = disease.infection.copy()
    add_scars(body, disease, np.random.default_rng(1))
    assert disease.holes is not None
    assert 0 <= disease.holes.min() < disease.holes.max() <= 1
    np.testing.assert_array_equal(disease.infection, before)
    full = Disease(disease.infection, disease.change, disease.solid, holes=np.ones(body.grid.shape, np.float32))
    for hu, hollow in ((-850.0, -970.0), (-990.0, -990.0), (40.0, -160.0)):
        np.testing.assert_allclose(hollowed(np.full(body.grid.shape, hu, np.float32), full), hollow)


def test_without_scars_tissue_stays_as_it_is(body: Body) -> None:
    lung = np.full(body.grid.shape, -850, np.float32)
    assert hollowed(lung, everywhere(body)) is lung


def test_each_scar_comes_as_often_as_is_said(body: Body) -> None:
    tiny = Grid((1, 24, 24), (12.0, 14.0, 14.0), (80.0, -161.0, -161.0))
    rng = np.random.default_rng(2)
    small, count = build_body(draw_anatomy(rng), tiny, rng), 600
    dense = hollow = 0
    for seed in range(count):
        disease = everywhere(small)
        add_scars(small, disease, np.random.default_rng(seed))
        assert disease.holes is not None
        hollow += bool(disease.holes.any())
        dense += bool(disease.solid.any())
    assert 0.11 < hollow / count <= 0.2  # of 0.16: three deviations, and some too faint to be there
    assert 0.22 < dense / count < 0.40  # a net or a mass: 1 - 0.84 * 0.8


@pytest.mark.parametrize("format_", ["png", "nifti"])
def test_the_command_says_that_it_drew_scars_and_draws_them(tmp_path: Path, format_: str) -> None:
    made = {}
    for name, more in (("plain", []), ("scarred", ["--scars"])):
        arguments = ["--patients", "3", "--seed", "4", "--matrix", "48", "--slice-mm", "8", "--pictures", "2", "--format", format_]
        assert main(["phantom", "--out", str(tmp_path / name), *arguments, "--workers", "1", *more]) == 0
        facts = json.loads((tmp_path / name / "cohort.json").read_text())
        assert facts["scars"] is (name == "scarred")
        made[name] = sorted(p for p in (tmp_path / name).rglob("*") if p.suffix == ".png" and p.stem.count("_") == 1)
    if format_ == "png":
        pairs = list(zip(made["plain"], made["scarred"], strict=True))
        assert pairs
        assert any((np.asarray(Image.open(a)) != np.asarray(Image.open(b))).any() for a, b in pairs)


def test_radiographs_have_no_scars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "x"), "--patients", "1", "--seed", "1", "--modality", "cxr", "--scars"]
    assert main(["phantom", *arguments]) == 2
    assert "radiographs with scars" in capsys.readouterr().err


def test_more_vessels_are_finer_and_the_trunks_stay(body: Body) -> None:
    """What lies at the root of a lobe's tree carries all of its tips, of however many (Murray)."""
    tips = np.random.default_rng(1).uniform(-60, 60, (800, 3))
    thickest = []
    for count in (FEWEST_TIPS, 800):
        *_, radii = _tree(np.full(3, -90.0), tips[:count], np.random.default_rng(3))
        thickest.append(radii.max())
        assert radii.min() == pytest.approx(0.75 * (FEWEST_TIPS / count) ** (1 / 2.6), rel=0.15)
    assert thickest[0] == pytest.approx(thickest[1], rel=0.25)


def test_more_vessel_tips_fill_more_of_the_lung_and_fewer_are_refused(
    tmp_path: Path, body: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = (grow_vessels(body, np.random.default_rng(2), count)[0][body.lobes > 0] for count in (60, 600))
    assert (many > 0.02).mean() > 2 * (few > 0.02).mean()
    arguments = ["--out", str(tmp_path / "x"), "--patients", "1", "--seed", "1", "--vessel-tips"]
    assert main(["phantom", *arguments, "30"]) == 2
    assert "at least 60" in capsys.readouterr().err
    assert main(["phantom", *arguments, "90", "--modality", "cxr"]) == 2
    assert "radiographs with more vessels" in capsys.readouterr().err
