from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2net.cli.main import main
from m2net.phantoms.painting import PAINTING_VERSION, Background, paint
from m2net.studies import read_manifest
from m2net.vocabulary import Diagnosis, LungCode


def two_ovals(side: int = 160) -> np.ndarray:
    """Lobe codes of two oval lungs: right upper on image left, left lower on image right."""
    y, x = np.mgrid[:side, :side] / side
    right = ((x - 0.3) / 0.16) ** 2 + ((y - 0.5) / 0.26) ** 2 < 1
    left = ((x - 0.7) / 0.16) ** 2 + ((y - 0.5) / 0.26) ** 2 < 1
    return (3 * right + 2 * left).astype(np.uint8)


@pytest.fixture
def background() -> Background:
    lobes = two_ovals()
    hu = np.where(lobes > 0, -860, 40).astype(np.float32)
    hu[60:100, 45:48] = 30  # a vessel in the right lung
    return Background(hu, lobes, 2.0, 0.4)


@pytest.mark.parametrize("diagnosis", [Diagnosis.COVID19, Diagnosis.CAP])
def test_infection_lies_in_the_lungs_and_is_brighter_than_they_were(background: Background, diagnosis: Diagnosis) -> None:
    shown = 0
    for seed in range(12):
        hu, infection = paint(background, diagnosis, np.random.default_rng(seed))
        sick = infection > 0
        assert not (sick & (background.lobes == 0)).any()
        shown += bool(sick.sum() > 20)
        if sick.sum() > 20:
            assert np.median((hu - background.hu)[sick]) > 40
    assert shown >= 9


def test_non_pneumonia_is_painted_but_never_infected(background: Background) -> None:
    painted = [paint(background, Diagnosis.NON_PNEUMONIA, np.random.default_rng(seed)) for seed in range(12)]
    assert not any(infection.any() for _, infection in painted)
    assert sum(bool((np.abs(hu - background.hu)[background.lobes > 0] > 150).sum() > 30) for hu, _ in painted) >= 6


def test_what_lies_outside_the_lungs_does_not_depend_on_the_disease(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2net.phantoms.painting._GRAIN_HU", 0.0)
    for seed in range(4):
        hu, _ = paint(background, Diagnosis.COVID19, np.random.default_rng(seed))
        np.testing.assert_array_equal(hu[background.lobes == 0], background.hu[background.lobes == 0])


def test_a_draw_can_be_repeated(background: Background) -> None:
    one, other = (paint(background, Diagnosis.CAP, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of one synthetic CT without pneumonia and one picture of a slice of it, with lobes."""
    folder = tmp_path_factory.mktemp("healthy")
    size = ["--patients", "1", "--seed", "3", "--matrix", "96", "--mix", "1", "0", "0"]
    assert main(["phantom", "--out", str(folder / "ct"), *size, "--slice-mm", "8"]) == 0
    assert main(["phantom", "--out", str(folder / "png"), *size, "--format", "png", "--pictures", "3"]) == 0
    rows = []
    for kind, keep in (("ct", 1), ("png", 2)):
        with (folder / kind / "manifest.csv").open() as file:
            for row in list(csv.DictReader(file))[:keep]:
                lobes = f"png/{row['lobes']}" if kind == "png" and not rows[1:] else ""
                rows.append([f"{kind}-{row['study_id']}", "p1", "ct", f"{kind}/{row['image']}", lobes, "0"])
    with (folder / "healthy.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["study_id", "patient_id", "modality", "image", "lobes", "infected"], *rows])
    return folder / "healthy.csv"


def test_paintings_are_studies_with_masks(healthy: Path, tmp_path: Path) -> None:
    words = ["paint", str(healthy), "--seed", "1", "--slices", "3", "--times", "4", "--matrix", "64"]
    assert main([*words, "--out", str(tmp_path / "a"), "--workers", "1"]) == 0
    assert main([*words, "--out", str(tmp_path / "b"), "--workers", "2"]) == 0
    studies = list(read_manifest(tmp_path / "a" / "manifest.csv"))
    assert len(studies) == 4 * (3 + 1 + 1)
    assert {s.patient_id for s in studies} == {"p1"}
    assert {s.extra["phantom_version"] for s in studies} == {f"painted {PAINTING_VERSION}"}
    with_lobes = [s for s in studies if "lobes" in s.masks]
    assert len(with_lobes) == 4
    for study in studies:
        grey, lungs, sick = (np.asarray(Image.open(path)) for path in (study.image, study.masks["lungs"], study.masks["infection"]))
        assert grey.shape == lungs.shape == sick.shape
        assert max(grey.shape) == 64
        assert not (sick[lungs == 0]).any()
        across = np.broadcast_to(np.arange(lungs.shape[1]), lungs.shape)
        assert across[lungs == LungCode.RIGHT].mean() + 5 < across[lungs == LungCode.LEFT].mean()  # image left is the patient's right
        assert bool(sick.any()) >= bool(study.infected)
        assert study.diagnosis == {Diagnosis.NON_PNEUMONIA} or study.infected
    for name in (path for path in (tmp_path / "a").rglob("*") if path.is_file()):
        assert name.read_bytes() == (tmp_path / "b" / name.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize(("cell", "said"), [("", "not said to be free"), ("1", "not said to be free")])
def test_only_what_is_known_to_be_healthy_is_painted(
    healthy: Path, tmp_path: Path, cell: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = healthy.with_name("other.csv")
    other.write_text(healthy.read_text().replace(",0\r\n", f",{cell}\r\n").replace(",0\n", f",{cell}\n"))
    assert main(["paint", str(other), "--out", str(tmp_path / "o"), "--seed", "1"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("code", [0, 255])
def test_a_study_that_shows_no_lungs_is_named_and_nothing_is_left(
    healthy: Path, tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(next(healthy.parent.glob("png/*/slice_*[0-9].png"))) as picture:
        picture.save(tmp_path / "image.png")
        Image.fromarray(np.full(picture.size[::-1], code, np.uint8)).save(tmp_path / "lungs.png")
    table = tmp_path / "odd.csv"
    table.write_text("study_id,patient_id,modality,image,lungs,infected\n../odd/1,p,ct,image.png,lungs.png,0\n")
    capsys.readouterr()
    assert main(["paint", str(table), "--out", str(tmp_path / "out"), "--seed", "1"]) == 2
    assert "study ../odd/1" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_names_of_studies_are_no_paths(healthy: Path, tmp_path: Path) -> None:
    with Image.open(next(healthy.parent.glob("png/*/slice_*[0-9].png"))) as picture:
        picture.save(tmp_path / "image.png")
    (tmp_path / "odd.csv").write_text("study_id,patient_id,modality,image,infected,split\n../out,p,ct,image.png,0,test\n")
    assert main(["paint", str(tmp_path / "odd.csv"), "--out", str(tmp_path / "out"), "--seed", "1", "--times", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.csv", "study_00001"]
    assert [str(study.split) for study in read_manifest(tmp_path / "out" / "manifest.csv")] == ["test"]


def test_impossible_plans_are_one_line(healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--times", "0"], ["--mix", "1", "1", "1"]):
        assert main(["paint", str(healthy), "--out", str(tmp_path / "o"), "--seed", "1", *more]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
