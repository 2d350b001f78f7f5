"""Each recipe on a miniature of the published layout, with its quirks; the manifests are read through the front door."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from m2net.cli.main import main
from m2net.errors import GeometryError, StudyError
from m2net.recipes import RECIPES
from m2net.recipes.table import recoded, relative
from m2net.studies import Manifest, Study, read_image, read_manifest, read_mask
from m2net.vocabulary import Column, Diagnosis, Modality, Split
from tests.studies.made import volume, write_series

HU = volume()
LUNGS = np.zeros(HU.shape, np.uint8)
LUNGS[:, 4:20, 2:8], LUNGS[:, 4:20, 12:18] = 1, 2  # m2net: right, left


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def vol(path: Path, array: np.ndarray = HU) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def pic(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (80, 90)).astype(np.uint8)).save(path)


def blob(path: Path, shape: tuple[int, int] = (80, 90)) -> None:
    """A mask with the in-between values that resampling leaves, stored as RGB."""
    plane = np.zeros((*shape, 3), np.uint8)
    plane[20:40, 10:30], plane[40, 10:30] = 255, 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane).save(path)


def run(name: str, raw: Path) -> dict[str, Study]:
    assert main(["recipe", name, str(raw)]) == 0
    manifest: Manifest = read_manifest((raw if raw.is_dir() else raw.parent) / "manifest.csv")
    for study in manifest:
        image = read_image(study.image, modality=study.modality)
        for kind, path in study.masks.items():
            read_mask(path, kind, image, study.mask_schemes.get(kind, ""))
    return {s.study_id: s for s in manifest}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_another_folder_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(["recipe", name, str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.nii.gz").write_bytes(b"cut")
    with pytest.raises(StudyError, match=r"m.nii.gz cannot be read"):
        recoded(tmp_path / "m.nii.gz", tmp_path / "out.nii.gz", {1: 1})


def test_stoic2021(tmp_path: Path) -> None:
    raw = tmp_path / "stoic2021-training"
    for name in ("1172", "10385", "1002"):
        vol(raw / "data" / "mha" / f"{name}.mha")
    text(raw / "metadata" / "reference.csv", "PatientID,probCOVID,probSevere", "1172,1,1", "10385,1.0,0.0", "1002,0,0", "9999,1,0")
    found = run("stoic2021", raw)
    assert {k: (s.severity, s.infected, set(s.diagnosis)) for k, s in found.items()} == {
        "stoic-1172": (1.0, True, {Diagnosis.COVID19}), "stoic-10385": (0.0, True, {Diagnosis.COVID19}), "stoic-1002": (None, None, set()),
    }  # fmt: skip


def test_covid19_ct_seg(tmp_path: Path) -> None:
    names = ["coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3"]
    theirs = np.array([0, 2, 1], np.uint8)[LUNGS]  # 1 left, 2 right
    for name in names:
        vol(tmp_path / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz")
        vol(tmp_path / "Lung_Mask" / f"{name}.nii.gz", theirs)
        vol(tmp_path / "Infection_Mask" / f"{name}.nii.gz", (LUNGS == 1).astype(np.uint8))
        vol(tmp_path / "Lung_and_Infection_Mask" / f"{name}.nii.gz", theirs)
    found = run("covid19_ct_seg", tmp_path)
    assert sorted(found) == names
    assert {s.patient_id for s in found.values()} == {"coronacases_001", "radiopaedia_10"}
    study = found["coronacases_001"]
    image = read_image(study.image)
    np.testing.assert_array_equal(read_mask(study.masks[Column.LUNGS], Column.LUNGS, image, "covid19_ct_seg").array, LUNGS)
    assert set(np.unique(read_mask(study.masks[Column.INFECTION], Column.INFECTION, image).array)) == {0, 3}


def test_covid19_ct_seg_as_kaggle_names_it(tmp_path: Path) -> None:
    pairs = {
        "coronacases_org_001": "coronacases_001",
        "coronacases_org_case007": "coronacases_007",
        "radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm": "radiopaedia_10_85902_1",
    }
    for ct, mask in pairs.items():
        vol(tmp_path / "ct_scans" / f"{ct}.nii")
        vol(tmp_path / "lung_mask" / f"{mask}.nii", np.array([0, 2, 1], np.uint8)[LUNGS])
    found = run("covid19_ct_seg", tmp_path)
    assert {name: s.masks[Column.LUNGS].name for name, s in found.items()} == {m: f"{m}.nii" for m in pairs.values()}


def test_cc_ccii(tmp_path: Path) -> None:
    for path in ("NCP/96/1328/0035.jpg", "NCP/96/1328/0036.JPG", "CP/1781/3567/0001.png", "Normal/96/7/0001.png"):
        pic(tmp_path / "unpacked" / path)
    text(tmp_path / "lesions_slices.csv", "imgpath", "NCP/96/1328/0035.jpg")
    found = run("cc_ccii", tmp_path)
    assert {k: (s.patient_id, s.infected, next(iter(s.diagnosis))) for k, s in found.items()} == {
        "NCP-96-1328-0035": ("NCP-96", True, Diagnosis.COVID19),
        "NCP-96-1328-0036": ("NCP-96", None, Diagnosis.COVID19),
        "CP-1781-3567-0001": ("CP-1781", None, Diagnosis.CAP),
        "Normal-96-7-0001": ("Normal-96", False, Diagnosis.NON_PNEUMONIA),  # the same number names another patient
    }


@pytest.mark.parametrize("word", ["Cases", "subjects"])
def test_covid_ct_md(tmp_path: Path, word: str) -> None:
    for folder, name in (("COVID-19", "P001"), ("COVID-19", "P002"), ("Cap", "cap001"), ("Normal", "normal001")):
        write_series(tmp_path / f"{folder} {word}" / name, HU, PatientID="somebody else")
    text(
        tmp_path / "Index.csv",
        "Label Index,Diagnosis,Relative Path,Folder/ID",
        "0,COVID-19,./COVID-19/,P001",
        "1,COVID-19,./,P002",
        "3,CAP,./CAP/,cap001",
    )
    labels = np.zeros((3, 12, 5))
    np.save(tmp_path / "Lobe-level-labels.npy", labels + 1)
    labels[0, 3, 0] = labels[2, 5, 4] = 1  # P001: left lower; cap001: right upper, in spite of the index's hole
    np.save(tmp_path / "Lobe-level-labels-updated-1.npy", labels)
    found = run("covid_ct_md", tmp_path)
    assert [s.infected for s in found.values()] == [True, True, True, False]
    assert {k for k, v in found["P001"].extra.items() if v == "1"} == {"marked_left_lower"}
    assert {k for k, v in found["cap001"].extra.items() if v == "1"} == {"marked_right_upper"}
    assert found["normal001"].extra["marked_left_lower"] == ""
    np.save(tmp_path / "Lobe-level-labels-updated-1.npy", labels[:2])
    assert main(["recipe", "covid_ct_md", str(tmp_path)]) == 2


def test_covid_ct(tmp_path: Path) -> None:
    names = ["2020.01.24.919183-p27-132.png", "2020.03.16.20036145-p19-128-4.png", "10%2.jpg"]
    pic(tmp_path / "Images-processed" / "CT_COVID" / names[0], 0)
    pic(tmp_path / "Images-processed" / "CT_COVID" / names[1], 1)
    pic(tmp_path / "Images-processed" / "CT_NonCOVID" / names[2], 2)
    text(tmp_path / "Data-split" / "COVID" / "trainCT_COVID.txt", names[0])
    text(tmp_path / "Data-split" / "COVID" / "testCT_COVID.txt", names[1].replace(".png", ".jpg"))
    text(tmp_path / "Data-split" / "NonCOVID" / "valCT_NonCOVID.txt", names[2])
    text(
        tmp_path / "COVID-CT-MetaInfo.csv",
        "File name,Patient ID,Age",
        f"{names[0].removesuffix('.png')},Patient 1,",
        f"{names[1]},Patient 2,",
    )
    found = run("covid_ct", tmp_path)
    assert [(s.split, s.patient_id, s.infected) for s in found.values()] == [
        (Split.TRAIN, "CT_COVID-Patient 1", True), (Split.TEST, "CT_COVID-Patient 2", True), (Split.VAL, "CT_NonCOVID-10%2", None),
    ]  # fmt: skip


def test_luna16_lobes(tmp_path: Path) -> None:
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1234"
    vol(tmp_path / "subset0" / "subset0" / f"{uid}.mhd")
    theirs = np.zeros(HU.shape, np.uint16)
    theirs[6:, :, 12:], theirs[:6, :, 12:], theirs[8:, :, :8], theirs[4:8, :, :8], theirs[:4, :, :8] = 7, 8, 4, 5, 6
    expected = np.array([0, 0, 0, 0, 3, 4, 5, 1, 2], np.uint8)[theirs]
    theirs[5, 3, 3] += 512  # an airway in a lobe
    theirs[0, 0, 10], theirs[1, 0, 10] = 512, 1  # an airway outside, a stray voxel
    vol(tmp_path / "annotations" / f"{uid}_LobeSegmentation.nrrd", theirs)
    study = run("luna16_lobes", tmp_path)[uid]
    np.testing.assert_array_equal(read_mask(study.masks[Column.LOBES], Column.LOBES, read_image(study.image)).array, expected)


def test_qata_cov19(tmp_path: Path) -> None:
    raw = tmp_path / "QaTa-COV19-v2"
    for number, (part, name) in enumerate(
        (("Train Set", "covid_1.png"), ("Train Set", "sub-S03044_ses-E06_run-1.png"), ("Test Set", "covid_1.png"))
    ):
        pic(raw / part / "Images" / name, number)
        if number != 1:
            blob(raw / part / "Ground-truths" / f"mask_{name}")
    found = run("qata_cov19", raw)
    assert {k: (s.patient_id, set(s.masks)) for k, s in found.items()} == {
        "train-covid_1": ("qata-covid_1", {Column.INFECTION}), "train-sub-S03044_ses-E06_run-1": ("sub-S03044", set()),
        "test-covid_1": ("qata-covid_1", {Column.INFECTION}),
    }  # fmt: skip
    study = found["test-covid_1"]
    mask = read_mask(study.masks[Column.INFECTION], Column.INFECTION, read_image(study.image, modality=Modality.CXR)).array
    assert (mask == 3).sum() == 20 * 20
    (tmp_path / "QaTa-COV19-v1" / "Images").mkdir(parents=True)
    assert main(["recipe", "qata_cov19", str(tmp_path)]) == 2


def test_covid_qu_ex(tmp_path: Path) -> None:
    for part, parts in (("Infection Segmentation Data", ("lung masks", "infection masks")), ("Lung Segmentation Data", ("lung masks",))):
        for group, name in (("COVID-19", "covid_200.png"), ("Non-COVID", "non_COVID (170).png"), ("Normal", "Normal (3935).png")):
            folder = tmp_path / part / part / ("Val" if part[0] == "I" else "Train") / group
            pic(folder / "images" / name)
            for kind in parts:
                blob(folder / kind / name)
    pic(tmp_path / "Lung Segmentation Data" / "Lung Segmentation Data" / "Train" / "COVID-19" / "images" / "covid_7.png")
    found = run("covid_qu_ex", tmp_path)
    assert {k: (s.split, sorted(s.masks), s.infected) for k, s in found.items()} == {
        "covid-19-covid_200": (Split.VAL, ["infection", "lungs"], True),
        "non-covid-non_COVID (170)": (Split.VAL, ["lungs"], True),
        "normal-Normal (3935)": (Split.VAL, ["infection", "lungs"], False),
        "covid-19-covid_7": (Split.TRAIN, [], True),
    }


def test_cohen(tmp_path: Path) -> None:
    for number, name in enumerate(("a.main.pdf-001.JPG", "b.png", "c.png", "d.png", "e.png")):
        pic(tmp_path / "images" / name, number)
    text(
        tmp_path / "metadata.csv", "patientid,offset,finding,view,modality,folder,filename,license,clinical_notes,",
        '2,0,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.main.pdf-001.jpg,CC,"a, text",',
        "2,3,Pneumonia/Viral/COVID-19,L,X-ray,images,b.png,CC,,",
        "313b,,No Finding,AP Supine,X-ray,images,c.png,CC,,", "4,,Pneumonia/Fungal/Pneumocystis,PA,X-ray,images,d.png,CC,,",
        "5,,Pneumonia/Viral/COVID-19,Axial,CT,volumes,v.nii.gz,CC,,", "6,,todo,PA,X-ray,images,gone.png,CC,,",
        "7,,Pneumonia/Bacterial/Streptococcus,PA,X-ray,images,e.png,CC,,",
    )  # fmt: skip
    text(
        tmp_path / "annotations" / "covid-severity-scores.csv", "## scores", "## by three raters", "filename,geographic_mean,opacity_mean",
        "a.main.pdf-001.jpg,3.33,2.0",
    )  # fmt: skip
    found = run("cohen", tmp_path)
    assert {k: (s.patient_id, set(s.diagnosis), s.infected) for k, s in found.items()} == {
        "a.main.pdf-001": ("cohen-2", {Diagnosis.COVID19}, True), "c": ("cohen-313b", {Diagnosis.NON_PNEUMONIA}, False),
        "d": ("cohen-4", set(), None), "e": ("cohen-7", {Diagnosis.CAP}, True),
    }  # fmt: skip
    assert found["a.main.pdf-001"].extra["score_geographic_extent"] == "3.33"
    assert found["c"].extra["score_opacity"] == ""


LOBES = {
    "lung_upper_lobe_left": 10,
    "lung_lower_lobe_left": 11,
    "lung_upper_lobe_right": 12,
    "lung_middle_lobe_right": 13,
    "lung_lower_lobe_right": 14,
}


def lobes() -> np.ndarray:
    codes = np.zeros(HU.shape, np.uint8)
    codes[6:, :, 12:], codes[:6, :, 12:], codes[8:, :, :8], codes[4:8, :, :8], codes[:4, :, :8] = 10, 11, 12, 13, 14
    return codes


@pytest.mark.parametrize("version", [1, 2])
def test_nnunet(tmp_path: Path, version: int) -> None:
    labels = {"background": 0, **LOBES, "heart": 51}
    content = {"numTraining": 1, "labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    if version == 1:
        content = {
            "modality": {"0": "CT"},
            "labels": {str(v): k for k, v in labels.items()},
            "training": [{"image": "./imagesTr/case_01.nii.gz"}],
        }
    text(tmp_path / "dataset.json", json.dumps(content))
    vol(tmp_path / "imagesTr" / "case_01_0000.nii.gz")
    vol(tmp_path / "imagesTr" / "._case_01_0000.nii.gz")
    vol(tmp_path / "labelsTr" / "case_01.nii.gz", np.where(HU > 20, 51, lobes()).astype(np.uint8))
    vol(tmp_path / "imagesTs" / "case_02_0000.nii.gz")
    found = run("nnunet", tmp_path)
    assert {k: (s.split, sorted(s.masks)) for k, s in found.items()} == {"case_01": (None, ["lobes"]), "case_02": (Split.TEST, [])}
    mask = read_mask(found["case_01"].masks[Column.LOBES], Column.LOBES, read_image(found["case_01"].image)).array
    np.testing.assert_array_equal(mask, np.where(HU > 20, 0, np.where(lobes() > 0, lobes().astype(int) - 9, 0)))


def test_nnunet_again_after_its_labels_were_mended(tmp_path: Path) -> None:
    """No mask of the import before is taken up, and what is to be ignored is unlabelled, not healthy."""
    vol(tmp_path / "imagesTr" / "a_0000.nii.gz")
    drawn = np.zeros(HU.shape, np.uint8)
    drawn[:2], drawn[2:4], drawn[4:6] = 1, 2, 3
    vol(tmp_path / "labelsTr" / "a.nii.gz", drawn)
    for labels, infected in (({"heart": 2, "lung infection": 1}, 1), ({"heart": 1, "lung infection": 2, "ignore": 3}, 2)):
        text(tmp_path / "dataset.json", json.dumps({"labels": {"background": 0, **labels}, "channel_names": {"0": "CT"}}))
        (tmp_path / "manifest.csv").unlink(missing_ok=True)
        study = run("nnunet", tmp_path)["a"]
        assert list(study.masks) == [Column.INFECTION]
        mask = read_mask(
            study.masks[Column.INFECTION], Column.INFECTION, read_image(study.image), study.mask_schemes[Column.INFECTION]
        ).array
        np.testing.assert_array_equal(mask, np.where(drawn == infected, 3, np.where((drawn == 3) & ("ignore" in labels), 255, 0)))
    assert not list(tmp_path.rglob("*partial*"))


def test_monai_cases_of_one_name_in_folders_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p1", "p2"):
        vol(tmp_path / name / "ct.nii.gz")
    text(tmp_path / "list.json", json.dumps({"training": [{"image": "p1/ct.nii.gz"}, {"image": "p2/ct.nii.gz"}]}))
    assert main(["recipe", "monai", str(tmp_path / "list.json")]) == 0
    assert "2 files name no patient, and each is taken for one" in capsys.readouterr().err
    assert {(s.study_id, s.patient_id) for s in read_manifest(tmp_path / "manifest.csv")} == {("p1_ct", "p1_ct"), ("p2_ct", "p2_ct")}
    named = [{"image": f"{name}/ct.nii.gz", "patient_id": "one"} for name in ("p1", "p2")]
    text(tmp_path / "list.json", json.dumps({"training": named}))
    assert main(["recipe", "monai", str(tmp_path / "list.json")]) == 2
    assert "manifest.csv is there already" in capsys.readouterr().err
    (tmp_path / "manifest.csv").unlink()
    assert main(["recipe", "monai", str(tmp_path / "list.json")]) == 0
    assert "patient_id" not in capsys.readouterr().err
    assert {s.patient_id for s in read_manifest(tmp_path / "manifest.csv")} == {"one"}


def test_monai(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        vol(tmp_path / "imagesTr" / f"{name}.nii.gz")
    content = {
        "name": "x", "training": [{"image": "./imagesTr/a.nii.gz", "label": 1, "fold": 0},
                                   {"image": "imagesTr/b.nii.gz", "label": 0, "fold": 1}],
        "test": ["imagesTr/c.nii.gz"],
    }  # fmt: skip
    text(tmp_path / "datalist.json", json.dumps(content))
    found = run("monai", tmp_path)
    assert {k: (s.severity, s.fold, s.split) for k, s in found.items()} == {
        "a": (1.0, 0, None),
        "b": (0.0, 1, None),
        "c": (None, None, Split.TEST),
    }
    text(tmp_path / "datalist.json", json.dumps({"training": [{"image": ["a", "b"]}]}))
    assert main(["recipe", "monai", str(tmp_path)]) == 2


def test_paths_lead_out_of_a_linked_folder(tmp_path: Path) -> None:
    """``..`` of a folder reached through a link is the parent of where it really lies."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.nii").write_text("x")
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "deep")
    manifest = tmp_path / "data" / "m.csv"
    assert (manifest.parent / relative(tmp_path / "raw" / "a.nii", manifest)).read_text() == "x"


def test_a_mask_lies_where_its_image_does(tmp_path: Path) -> None:
    """Headers that state two places: the image is read by its sform, and so is the mask that a recipe writes anew."""
    array = np.zeros((20, 24, 16), np.uint8)
    array[4:12, 6:18, 3:9] = 1
    sform = np.diag([-1.0, -1.0, 2.0, 1.0])
    qform = sform.copy()
    qform[:3, 3] = 10, -12, 8
    for name, values in (("image", np.where(array, 40, -800).astype(np.int16)), ("mask", array)):
        image = nibabel.Nifti1Image(values, sform)
        image.set_sform(sform, 2)
        image.set_qform(qform, 1)
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
    written = recoded(tmp_path / "mask.nii.gz", tmp_path / "out.nii.gz", {1: 1})
    volume = read_image(tmp_path / "image.nii.gz")
    mask = read_mask(written, Column.LUNGS, volume, "lungs_one_code")
    np.testing.assert_array_equal(mask.array > 0, volume.array > 0)


def test_a_mask_without_a_place_is_given_none(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((8, 8, 8), np.uint8), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "mask.nii.gz")
    with pytest.raises(GeometryError, match="does not say how it lies"):
        recoded(tmp_path / "mask.nii.gz", tmp_path / "out.nii.gz", {1: 1})
