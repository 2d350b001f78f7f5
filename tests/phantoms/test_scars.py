"""Scars of lungs: what each does to tissue and masks, how often, and through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from m2net.cli.main import main
from m2net.phantoms import SCANNERS, SEVERITY_MODELS, scars
from m2net.phantoms.anatomy import Body, build_body, draw_anatomy
from m2net.phantoms.disease import Disease
from m2net.phantoms.grid import Grid
from m2net.phantoms.patient import make_phantom
from m2net.phantoms.scanner import tissue
from m2net.phantoms.scars import add_scars, hollowed
from m2net.phantoms.vessels import FEWEST_TIPS, _tree, grow_vessels
from m2net.studies import read_manifest
from m2net.vocabulary import Diagnosis, InfectionCode


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


def test_a_mass_is_a_lump_of_its_size_that_is_not_called_infected(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(("name", "chance"), [("_HOLES", 0.16), ("_NET", 0.16), ("_MASS", 0.2), ("_HAZE", 0.05)])
def test_each_scar_comes_as_often_as_is_said(body: Body, monkeypatch: pytest.MonkeyPatch, name: str, chance: float) -> None:
    for other in {"_HOLES", "_NET", "_MASS", "_HAZE"} - {name}:
        monkeypatch.setattr(scars, other, 0.0)
    rng = np.random.default_rng(2)
    small, count = build_body(draw_anatomy(rng), Grid((1, 24, 24), (12.0, 14.0, 14.0), (80.0, -161.0, -161.0)), rng), 900
    drawn = 0
    for seed in range(count):
        disease = everywhere(small)
        add_scars(small, disease, np.random.default_rng(seed))
        assert disease.holes is not None
        drawn += bool(disease.holes.any() or disease.solid.any() or disease.change.any())
    deviation = (chance * (1 - chance) / count) ** 0.5
    assert chance - 4 * deviation < drawn / count < chance + 4 * deviation


@pytest.mark.parametrize(("name", "sign"), [("_MASS", 1), ("_HOLES", -1)])
def test_tissue_shows_the_scar_and_nothing_else_changes(body: Body, monkeypatch: pytest.MonkeyPatch, name: str, sign: int) -> None:
    only(monkeypatch, name)
    nothing = np.zeros(body.grid.shape, np.float32)
    disease = everywhere(body)
    add_scars(body, disease, np.random.default_rng(4))
    assert disease.holes is not None
    plain, scarred = (tissue(body, one, nothing, nothing, np.random.default_rng(0)) for one in (everywhere(body), disease))
    inside, scar = body.lobes > 0, disease.solid + disease.holes
    strong = inside & (scar > 0.6)
    assert strong.any()
    assert (sign * (scarred - plain)[strong]).min() > (200 if sign > 0 else 10)
    np.testing.assert_array_equal(scarred[~inside | (scar == 0)], plain[~inside | (scar == 0)])


def test_a_phantom_has_scars_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scarred: list[Diagnosis] = []
    monkeypatch.setattr("m2net.phantoms.patient.add_scars", lambda *_: scarred.append(Diagnosis.CAP))
    for asked in (False, True):
        make_phantom((1, 2), SCANNERS["home"], Diagnosis.CAP, SEVERITY_MODELS[2], matrix=48, slice_mm=8, scars=asked)
        assert len(scarred) == asked


def test_the_command_says_what_it_drew(tmp_path: Path) -> None:
    arguments = "--patients 2 --seed 4 --matrix 48 --slice-mm 8 --pictures 2 --format png --workers 1".split()
    for name, more, told in (("plain", [], "1"), ("more", ["--scars", "--vessel-tips", "90"], "1 with scars with 90 vessel tips")):
        assert main(["phantom", "--out", str(tmp_path / name), *arguments, *more]) == 0
        facts = json.loads((tmp_path / name / "cohort.json").read_text())
        assert (facts["scars"], facts["tips"]) == ((True, 90) if more else (False, 60))
        assert {study.extra["phantom_version"] for study in read_manifest(tmp_path / name / "manifest.csv")} == {told}


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
    assert main(["phantom", *arguments, "100000000000000"]) == 2
    assert "60 to 5000" in capsys.readouterr().err
    assert main(["phantom", *arguments, "30"]) == 2
    assert "60 to 5000" in capsys.readouterr().err
    assert main(["phantom", *arguments, "90", "--modality", "cxr"]) == 2
    assert "radiographs with another number of vessels" in capsys.readouterr().err
