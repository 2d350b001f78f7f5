from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import m2net.reports
from m2net.assessment import Assessor, measure_lobes, stitch_labels
from m2net.assessment.findings import findings_of
from m2net.assessment.islands import without_islands
from m2net.assessment.predictor import _heaviest
from m2net.bags import InputSpec, cut_bag, full_cut, prepare_volume
from m2net.batch import BagBatch, Output
from m2net.cli.main import main
from m2net.objectives import DiagnosisObjective, SeverityObjective
from m2net.phantoms import SCANNERS, Phantom, write_dicom_series, write_nifti
from m2net.reports.assessment import output_names, write_assessment
from m2net.reports.page import write_page
from m2net.studies import Volume, read_image
from m2net.vocabulary import InfectionCode, Lobe
from tests.conftest import REAL

SCHEMA = json.loads((Path(m2net.reports.__file__).parent / "assessment.schema.json").read_text())


@pytest.mark.parametrize("patch", [16, 48])
def test_stitching_gives_back_the_labels_it_was_cut_from(phantom: Phantom, patch: int) -> None:
    study = prepare_volume(Volume.from_own(phantom.image, phantom.geometry), {"lobes": phantom.lobes}, 5.0)
    spec = InputSpec(spacing_mm=5.0, patch=patch)
    batch = cut_bag(study, full_cut(study, patch), spec, "s", 0, ("lobes",))
    whole = torch.from_numpy(np.pad(np.asarray(study.masks["lobes"]), ((0, 0), (patch, patch), (patch, patch))))
    seen = torch.stack([whole[z, r + patch : r + 2 * patch, c + patch : c + 2 * patch] for z, r, c in batch.corner.tolist()])
    stitched = stitch_labels(seen, batch, study.image.shape)
    wrong = stitched != study.masks["lobes"]
    assert wrong.sum() == int(batch.uncovered["lobes"].sum())


def test_measures_against_numpy(phantom: Phantom) -> None:
    measured = measure_lobes(phantom.lobes, Volume.from_own(phantom.image, phantom.geometry))
    for m in measured:
        values = phantom.image[phantom.lobes == m.lobe]
        assert m.volume_ml == pytest.approx(values.size * np.prod(phantom.geometry.spacing_mm) / 1000)
        assert m.mean_hu == pytest.approx(values.mean())
        assert m.bands["ground_glass_like"] == pytest.approx(((values >= -750) & (values < -400)).mean())
    empty = measure_lobes(np.where(phantom.lobes == 4, 3, phantom.lobes), Volume.from_own(phantom.image, phantom.geometry))
    assert empty[3].voxels == 0
    assert empty[3].mean_hu is None


def test_what_is_drawn_apart_from_the_lungs_is_left_out(phantom: Phantom) -> None:
    """A blob of lobe and one of infection in the belly go; lungs, infection in them and infection that touches them stay as drawn."""
    lobes, infection = phantom.lobes.copy(), np.zeros_like(phantom.lobes)
    right = np.argwhere(lobes == Lobe.RIGHT_LOWER)
    z, y, x = right[len(right) // 2]
    infection[z, y : y + 3, x : x + 3] = InfectionCode.GROUND_GLASS
    lobes[z, y : y + 3, x : x + 3] = 0  # a consolidation that the lobes miss
    truth = {"lobes": lobes, "infection": infection}
    drawn = {name: codes.copy() for name, codes in truth.items()}
    drawn["lobes"][:3, :6, :6] = Lobe.LEFT_LOWER
    drawn["infection"][:2, -6:, -6:] = InfectionCode.CONSOLIDATION
    cleaned, apart = without_islands(drawn)
    assert apart == {"lung": 3 * 6 * 6, "infection": 2 * 6 * 6}
    for name, codes in truth.items():
        np.testing.assert_array_equal(cleaned[name], codes)
    picture = {name: codes[:1] for name, codes in drawn.items()}
    assert without_islands(picture) == (picture, {})


def test_lung_that_no_lobe_was_given_is_kept(phantom: Phantom) -> None:
    """A model that draws both: what the lungs hold beside the lobes is lung, unless it lies apart from both."""
    lungs = (phantom.lobes > 0).astype(np.uint8)
    lobes = np.where(phantom.lobes == Lobe.RIGHT_MIDDLE, 0, phantom.lobes).astype(np.uint8)
    apart = lungs.copy()
    apart[:2, :3, :3] = 1
    cleaned, left_out = without_islands({"lobes": lobes, "lungs": apart})
    np.testing.assert_array_equal(cleaned["lungs"], lungs)
    np.testing.assert_array_equal(cleaned["lobes"], lobes)
    assert left_out["lung"] == 18


def test_results_are_not_written_over_data(trained: Path, tmp_path: Path, phantom: Phantom, capsys: pytest.CaptureFixture[str]) -> None:
    """The layout of a cohort: the study's folder, or one with a mask, would be taken for one of results."""
    folder = tmp_path / "anna"
    write_dicom_series(folder, phantom, SCANNERS["home"], "anna")
    (tmp_path / "bert").mkdir()
    sitk.WriteImage(phantom.geometry.place(sitk.GetImageFromArray(phantom.image)), str(tmp_path / "bert.nii.gz"))
    (tmp_path / "bert" / "lobes.nii.gz").write_bytes(b"drawn by hand")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for study in (folder, tmp_path / "bert.nii.gz"):
        assert main(["assess", str(study), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path)]) == 2
        assert "Give another --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_nifti_in_any_orientation_and_dicom(trained: Path, tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "straight.nii.gz", phantom.image, phantom.geometry)
    odd = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(str(tmp_path / "straight.nii.gz")), [2, 0, 1]), [True, False, True])
    sitk.WriteImage(odd, str(tmp_path / "odd.nii.gz"))
    write_dicom_series(tmp_path / "series", phantom, SCANNERS["home"], "P1")
    inputs = [tmp_path / n for n in ("straight.nii.gz", "odd.nii.gz", "series")]
    assert main(["assess", *map(str, inputs), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    answers = []
    for name, given in zip(("straight", "odd", "series"), inputs, strict=True):
        folder = tmp_path / "out" / name
        found = json.loads((folder / "assessment.json").read_text())
        jsonschema.validate(found, SCHEMA)
        lobes = sitk.ReadImage(str(folder / "lobes.nii.gz"))
        if given.is_file():
            image = sitk.ReadImage(str(given))
            assert lobes.GetSize() == image.GetSize()
            for get in ("GetOrigin", "GetSpacing", "GetDirection"):
                np.testing.assert_allclose(getattr(lobes, get)(), getattr(image, get)(), atol=1e-4)
        turned = read_image_labels(folder / "lobes.nii.gz")
        answers.append((turned, found["severity"]["severity"]["probabilities"]))
        assert found["lobes"]["left_upper"]["volume_ml"] == pytest.approx((turned == 1).sum() * phantom.geometry.voxel_ml, rel=1e-3)
    for lobes_again, probabilities in answers[1:]:
        assert (lobes_again == answers[0][0]).mean() > 0.999  # headers round spacings differently; a flip would show
        assert probabilities == pytest.approx(answers[0][1], abs=1e-4)


def test_another_study_of_the_same_name_does_not_write_over_the_first(
    trained: Path, tmp_path: Path, phantom: Phantom, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two commands, two patients whose files are called alike, one --out; the same study again is welcome."""
    for patient, image in (("anna", phantom.image), ("bob", phantom.image + np.int16(1))):
        (tmp_path / patient).mkdir()
        write_nifti(tmp_path / patient / "ct.nii.gz", image, phantom.geometry)
    words = ["--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]
    assert main(["assess", str(tmp_path / "anna" / "ct.nii.gz"), *words]) == 0
    report = tmp_path / "out" / "ct" / "assessment.json"
    first = report.read_bytes()
    assert main(["assess", str(tmp_path / "bob" / "ct.nii.gz"), *words]) == 2
    assert "speaks of another image; expected a folder for each study. Give another --out" in capsys.readouterr().err
    assert report.read_bytes() == first
    assert main(["assess", str(tmp_path / "anna" / "ct.nii.gz"), *words]) == 0
    old = json.loads(first)
    del old["image"]["pixels_sha256"]  # of an earlier version
    old["image"]["shape_zyx"][0] += 1
    report.write_text(json.dumps(old))
    assert main(["assess", str(tmp_path / "bob" / "ct.nii.gz"), *words]) == 2
    assert "speaks of another image" in capsys.readouterr().err
    report.write_text("cut off")
    assert main(["assess", str(tmp_path / "bob" / "ct.nii.gz"), *words]) == 2
    assert "is no report of m2net" in capsys.readouterr().err


def read_image_labels(path: Path) -> np.ndarray:
    from m2net.studies import Geometry, to_lps

    image = sitk.ReadImage(str(path))
    return to_lps(sitk.GetArrayFromImage(image), Geometry.of(image))[0]


def test_the_page_stands_alone_and_says_what_matters(trained: Path, tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "a<b.nii.gz", phantom.image, phantom.geometry)
    assert main(["assess", str(tmp_path / "a<b.nii.gz"), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "a<b" / "report.html").read_text()
    assert "Research use only" in page
    assert "synthetic phantoms (version" in page
    assert "a&lt;b" in page
    assert "<h1>a<b" not in page
    patches = json.loads((tmp_path / "out" / "a<b" / "assessment.json").read_text())["patches"]
    assert page.count("data:image/png;base64,") == 3 + len(patches)
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert all(lobe.title in page for lobe in Lobe)
    assert "not severe" in page


def test_the_page_outlines_infection(trained: Path, tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "a.nii.gz", phantom.image, phantom.geometry)
    assessment = Assessor(trained / "best.ckpt").assess(read_image(tmp_path / "a.nii.gz"))
    pages = []
    for kind in (0, InfectionCode.CONSOLIDATION):
        assessment.maps["infection"] = np.full_like(phantom.lobes, kind)
        write_page(tmp_path / "report.html", assessment, "a")
        pages.append((tmp_path / "report.html").read_text())
    pictures = [re.findall(r'<img src="(data:[^"]+)" alt="(?:Axial|Coronal|Sagittal)', page) for page in pages]
    assert [len(p) for p in pictures] == [3, 4]
    assert all(a != b for a, b in zip(pictures[0], pictures[1][:3], strict=True))
    assert ["Consolidation</" in page or "Consolidation &nbsp;" in page for page in pages] == [False, True]
    assert "most infection" in pages[1]


def test_a_diagnosis_is_told(trained: Path, tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "a.nii.gz", phantom.image, phantom.geometry)
    assessment = Assessor(trained / "best.ckpt").assess(read_image(tmp_path / "a.nii.gz"))
    objective = DiagnosisObjective(groups=[["covid19"], ["non_pneumonia", "cap"]])
    assessment.findings = findings_of({"diagnosis": objective}, {"diagnosis": Output(torch.log(torch.tensor([[0.2, 0.3, 0.5]])))})
    page = write_assessment(tmp_path / "out", assessment, "a").read_text()
    assert "No pneumonia or community-acquired pneumonia</div>" in page
    found = json.loads((tmp_path / "out" / "assessment.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert found["diagnosis"]["diagnosis"]["predicted"] == "non_pneumonia+cap"
    assert found["diagnosis"]["diagnosis"]["probabilities"] == pytest.approx({"covid19": 0.3, "non_pneumonia+cap": 0.7})


def test_a_lobe_that_is_not_there_is_said(trained: Path, tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "a.nii.gz", phantom.image, phantom.geometry)
    assessment = Assessor(trained / "best.ckpt").assess(read_image(tmp_path / "a.nii.gz"))
    of_lobes = torch.log(torch.tensor([[[0.2, 0.8], [0.3, 0.7], [float("nan")] * 2, [0.6, 0.4], [0.9, 0.1]]]))
    output = Output(torch.zeros(1, 2), lobe_logits=of_lobes)
    assessment.findings = findings_of({"severity": SeverityObjective("binary")}, {"severity": output})
    page = write_assessment(tmp_path / "out", assessment, "a").read_text()
    told = re.findall(r"<tr><td>([^<]+)</td><td(?: colspan=.1.)?>(\d+ %|absent)</td></tr>", page)
    assert told == list(zip([lobe.title.capitalize() for lobe in Lobe], ["80 %", "70 %", "absent", "40 %", "10 %"], strict=True))
    found = json.loads((tmp_path / "out" / "assessment.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert [found["severity"]["severity"]["lobes"][lobe.key] is None for lobe in Lobe] == [False, False, True, False, False]


def test_the_heaviest_patches_and_none_where_all_weigh_alike() -> None:
    z, size, zeros = torch.tensor([0, 10, 10, 20, 30]), 8, torch.zeros(5, dtype=torch.int64)
    batch = BagBatch(
        instances=torch.arange(5, dtype=torch.int16)[:, None, None, None].expand(5, 3, size, size), bag_index=zeros,
        position=torch.zeros(5, 3), position_known=torch.ones(5, 3, dtype=torch.bool), position_step=torch.zeros(5, 2, 3),
        corner=torch.stack([z, zeros, torch.tensor([0, 0, 2, 0, 0])], 1), side=torch.full((5,), size),
        study_ids=["a"], draws=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    weight = torch.tensor([0.1, 0.4, 0.3, 0.15, 0.05])
    chosen = _heaviest({"severity": Output(torch.zeros(1, 2), weight)}, batch)
    assert [p.slice_index for p in chosen] == [10, 20, 0, 30]  # the second heaviest shows what its neighbour shows
    assert [round(p.weight, 2) for p in chosen] == [0.4, 0.15, 0.1, 0.05]
    assert [int(p.pixels[0, 0]) for p in chosen] == [1, 3, 0, 4]
    assert _heaviest({"severity": Output(torch.zeros(1, 2), torch.full((5,), 0.2))}, batch) == []


def test_test_and_assess_agree(trained: Path, tmp_path: Path, rows: list[dict[str, str]], cohort: Path) -> None:
    """Two ways to the same answer: the DataLoader's and the assessor's."""
    words = ["test", "--config", str(trained / "config.in.yaml"), "--ckpt_path", str(trained / "best.ckpt")]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path), "--trainer.precision", "32-true"]) == 0
    with (tmp_path / "predictions.csv").open() as file:
        told = next(csv.DictReader(file))
    image = cohort.parent / next(r["image"] for r in rows if r["study_id"] == told["study_id"])
    found = Assessor(trained / "best.ckpt", precision="float32").assess(read_image(image))
    assert found.findings.severity["severity"].at_or_above[0] == pytest.approx(float(told["severity_ge1"]), abs=1e-4)


def test_one_bad_study_does_not_stop_the_others(
    trained: Path, tmp_path: Path, phantom: Phantom, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(tmp_path / "good.nii.gz", phantom.image, phantom.geometry)
    (tmp_path / "bad.nii.gz").write_text("no")
    words = [str(tmp_path / "bad.nii.gz"), str(tmp_path / "good.nii.gz"), "--model", str(trained / "best.ckpt")]
    assert main(["assess", *words, "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out" / "good" / "report.html").exists()
    assert "bad.nii.gz cannot be read" in capsys.readouterr().err


def test_a_study_that_breaks_the_model_does_not_stop_the_others(
    trained: Path, tmp_path: Path, phantom: Phantom, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a series that is larger than the accelerator's memory."""
    assess, seen = Assessor.assess, []

    def breaks_once(self: Assessor, volume: Volume) -> object:
        seen.append(volume)
        if len(seen) == 1:
            raise RuntimeError("out of memory")
        return assess(self, volume)

    monkeypatch.setattr(Assessor, "assess", breaks_once)
    for name in "ab":
        write_nifti(tmp_path / f"{name}.nii.gz", phantom.image, phantom.geometry)
    words = [str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz"), "--model", str(trained / "best.ckpt")]
    assert main(["assess", *words, "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out" / "b" / "report.html").exists()
    assert "a.nii.gz broke the model or the reader (RuntimeError: out of memory)" in capsys.readouterr().err


@pytest.mark.skipif(not (REAL / "ct_volumes" / "P001").is_dir(), reason="the real images are not here")
def test_a_real_series(trained: Path, tmp_path: Path) -> None:
    series = REAL / "ct_volumes" / "P001"
    assert main(["assess", str(series), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path)]) == 0
    lobes = sitk.ReadImage(str(tmp_path / "P001" / "lobes.nii.gz"))
    assert lobes.GetSize() == (512, 512, 148)
    assert lobes.GetSpacing()[2] == pytest.approx(2.0, abs=1e-3)
    found = json.loads((tmp_path / "P001" / "assessment.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert "SIEMENS" not in json.dumps(found)  # nothing of the headers leaves


def test_names_of_results_say_whose_they_are(tmp_path: Path) -> None:
    for name in ("anna/ct/series", "bert/ct/series", "carl/other"):
        (tmp_path / name).mkdir(parents=True)
    given = [tmp_path / "anna/ct/series", tmp_path / "bert/ct/series", tmp_path / "carl/other"]
    assert output_names(given) == ["anna-ct-series", "bert-ct-series", "other"]
    assert output_names([given[2], given[2]])[1] != "other"
    assert len(set(output_names([*given, *given]))) == 6


def test_the_page_says_what_verify_would(trained: Path, tmp_path: Path, phantom: Phantom) -> None:
    """Cut lungs are no quieter at the clinician's than in a manifest; and no earlier model's map stays beside the page."""
    cut = phantom.image[len(phantom.image) // 2 :]
    write_nifti(tmp_path / "cut.nii.gz", cut, phantom.geometry)
    out, words = tmp_path / "out" / "cut", ["assess", str(tmp_path / "cut.nii.gz"), "--model", str(trained / "best.ckpt")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    (out / "infection.nii.gz").write_bytes(b"of another model")
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    warnings = json.loads((out / "assessment.json").read_text())["warnings"]
    assert any("of the widest lung area. The lungs are cut" in said for said in warnings), warnings
    assert "The lungs are cut" in (out / "report.html").read_text()
    drawn = json.loads((out / "assessment.json").read_text())["maps"]
    assert (out / "infection.nii.gz").exists() is ("infection" in drawn)
