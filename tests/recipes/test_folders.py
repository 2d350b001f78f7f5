"""A hospital's own folders: what becomes a study, whose it is, and what is passed over; read through the front door."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import DigitalXRayImageStorageForPresentation

from m2net.cli.main import main
from m2net.studies import Manifest, read_image, read_manifest, read_mask
from m2net.vocabulary import Modality
from tests.studies.made import volume, write_series, write_slice


def series(folder: Path, person: str, study: str, number: int = 2, **tags: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_series(folder, volume(number), PatientID=person, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{number}", **tags)


def radiograph(path: Path, person: str, study: str, view: str) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (96, 80))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_slice(path, array, (0, 0, 0), PatientID=person, StudyInstanceUID=study, Modality="DX", ViewPosition=view,
                RescaleIntercept=0, SOPClassUID=DigitalXRayImageStorageForPresentation)  # fmt: skip


def vol(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def made(raw: Path, name: str = "manifest.csv") -> Manifest:
    assert main(["recipe", "folders", str(raw), "--out", str(raw / name)]) == 0
    return read_manifest(raw / name)


def test_dicom_in_any_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study is an examination with all its series, a patient is the first folder; reports and other modalities are no studies."""
    series(tmp_path / "anna" / "2020" / "soft", "A", "1.1", 2)
    series(tmp_path / "anna" / "2020" / "lung", "A", "1.1", 3)
    series(tmp_path / "anna" / "2021", "A", "1.2")
    series(tmp_path / "bob", "B", "2.1")
    series(tmp_path / "carl" / "mr", "C", "3.1", Modality="MR")
    radiograph(tmp_path / "dora" / "chest" / "lateral", "D", "4.1", "LL")
    radiograph(tmp_path / "dora" / "chest" / "frontal", "D", "4.1", "PA")
    (tmp_path / "bob" / "report.txt").write_text("nothing")
    series(tmp_path / ".trash" / "eve", "E", "5.1")
    found = {s.study_id: s for s in made(tmp_path)}
    assert {k: (s.patient_id, s.image.relative_to(tmp_path).as_posix(), s.modality) for k, s in found.items()} == {
        "anna_2020": ("anna", "anna/2020", Modality.CT),
        "anna_2021": ("anna", "anna/2021", Modality.CT),
        "bob": ("bob", "bob", Modality.CT),
        "dora_chest_frontal": ("dora", "dora/chest/frontal", Modality.CXR),
    }
    for study in found.values():
        read_image(study.image, modality=study.modality)
    said = capsys.readouterr().err
    assert "12 DICOM files of MR" in said
    assert "1 further radiographs of an examination" in said
    np.testing.assert_array_equal(read_image(found["bob"].image).array, volume(2))


def test_an_examination_among_others_is_named_so_that_it_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with two examinations would be refused by the reader: the largest folder is named, or one file of the largest series."""
    series(tmp_path / "anna" / "a-small", "A", "1.1", 2)
    series(tmp_path / "anna" / "a-large", "A", "1.1", 3)
    next((tmp_path / "anna" / "a-small").iterdir()).unlink()
    series(tmp_path / "anna" / "b", "A", "1.2", 4)
    series(tmp_path / "bob", "B", "2.1", 5)
    series(tmp_path / "bob" / "prior", "B", "2.2", 6)
    series(tmp_path / "flat", "C", "3.1", 7, start="x")
    write_series(tmp_path / "flat", volume(8), start="y", PatientID="C", StudyInstanceUID="3.2", SeriesInstanceUID="3.2.8")
    found = made(tmp_path)
    read = [read_image(study.image).array for study in found]
    assert {next(n for n in range(2, 9) if np.array_equal(array, volume(n))) for array in read} == {3, 4, 5, 6, 7, 8}
    assert {study.patient_id for study in found} == {"anna", "bob", "flat"}
    assert "11 DICOM files of series that lie among those of other examinations" in capsys.readouterr().err


def test_one_uid_for_all_loses_nobody(tmp_path: Path) -> None:
    """An anonymiser's constant StudyInstanceUID makes no examination of two patients, nor of two folders of unnamed ones."""
    for number, (folder, person) in enumerate([("a", "A"), ("b", "B"), ("c", ""), ("d/2020", ""), ("d/2021", "")]):
        series(tmp_path / folder, person, "1.1", number)
    for name in ("x", "y"):
        radiograph(tmp_path / "cxr" / name, "", "", "PA")
    found = [study for study in made(tmp_path) if study.modality is Modality.CT]
    assert [(s.study_id, s.patient_id) for s in found] == [("a", "a"), ("b", "b"), ("c", "c"), ("d_2020", "d"), ("d_2021", "d")]
    assert len(made(tmp_path, "again.csv")) == 7
    for number, study in enumerate(found):
        np.testing.assert_array_equal(read_image(study.image).array, volume(number))


def test_identifiers_stay_where_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither said nor written, not even where one breaks the rules for UIDs and pydicom complains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series(tmp_path / "a" / "x", "SECRET-1", "SECRET-UID-1")
        series(tmp_path / "b" / "x", "SECRET-1", "SECRET-UID-2")
        series(tmp_path / "b" / "y", "SECRET-2", "SECRET-UID-3")
        warnings.simplefilter("error")
        made(tmp_path)
    out, err = capfd.readouterr()
    assert "b holds 2 PatientIDs, and is taken for one patient." in err
    assert "a, b are one patient, by PatientID." in err
    assert "SECRET" not in out + err + (tmp_path / "manifest.csv").read_text()


def test_one_person_in_several_folders_is_one_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A patient exported twice would be in training and test at once; links reach over a third folder."""
    for folder, person in (("a", "P1"), ("b", "P2"), ("c", "P3"), ("d", "")):
        series(tmp_path / folder / "one", person, f"1.{ord(folder)}")
    series(tmp_path / "c" / "two", "P1", "1.7")
    series(tmp_path / "e" / "one", "P3", "1.8")
    found = {s.study_id: s.patient_id for s in made(tmp_path)}
    assert found == {"a_one": "a", "b_one": "b", "c_one": "a", "c_two": "a", "d_one": "d", "e_one": "a"}
    said = capsys.readouterr().err
    assert "a, c, e are one patient, by PatientID." in said


def test_an_anonymisers_patient_id_links_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, folder in enumerate("ab"):
        series(tmp_path / folder, "ANON", f"1.{number}")
    vol(tmp_path / "c.nii.gz", volume())
    assert [s.patient_id for s in made(tmp_path)] == ["a", "b", "c"]
    assert "the first folders alone tell patients apart" in capsys.readouterr().err


def test_volumes_with_masks_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, lungs = volume(), np.zeros(volume().shape, np.uint8)
    lungs[:, 4:20, 2:8], lungs[:, 4:20, 12:18] = 1, 2
    vol(tmp_path / "anna.nii.gz", image)
    vol(tmp_path / "anna_lungs.nii.gz", lungs)
    vol(tmp_path / "bob" / "image.mha", image)
    vol(tmp_path / "bob" / "Lungs.nrrd", lungs)
    vol(tmp_path / "carl" / "infection.nii.gz", lungs)
    series(tmp_path / "carl" / "series", "C", "1.3", 0)
    vol(tmp_path / "two" / "x.nii.gz", image)
    vol(tmp_path / "two" / "y.nii.gz", image)
    vol(tmp_path / "two" / "lobes.nii.gz", lungs)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "slice.png")
    found = {s.study_id: s for s in made(tmp_path)}
    assert {k: (s.patient_id, sorted(p.name for p in s.masks.values())) for k, s in found.items()} == {
        "anna": ("anna", ["anna_lungs.nii.gz"]), "bob_image": ("bob", ["Lungs.nrrd"]),
        "carl_series": ("carl", ["infection.nii.gz"]), "two_x": ("two", []), "two_y": ("two", []),
    }  # fmt: skip
    for study in (s for s in found.values() if not s.image.is_dir()):
        read = read_image(study.image)
        for kind, path in study.masks.items():
            assert (read_mask(path, kind, read, "").array > 0).any()
    said = capsys.readouterr().err
    assert "4 patients." in said
    assert "1 masks of no image, or a second of one (two/lobes.nii.gz)" in said
    assert "1 pictures, which may be slices or radiographs (slice.png)" in said


def test_a_mask_of_another_image_is_nobodys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = volume()
    for name in ("2020", "2020_lobes", "2021_lobes", "2020_nodule_mask"):
        vol(tmp_path / "anna" / f"{name}.nii.gz", image)
    for name in ("image.nii.gz", "lobes.mha", "lobes.nii.gz", "Segmentation.seg.nrrd"):
        vol(tmp_path / "bob" / name, image)
    found = {s.study_id: {str(kind): p.name for kind, p in s.masks.items()} for s in made(tmp_path)}
    assert found == {"anna_2020": {"lobes": "2020_lobes.nii.gz"}, "bob_image": {"lobes": "lobes.mha"}}
    said = capsys.readouterr().err
    assert "2 masks of no image, or a second of one (anna/2021_lobes.nii.gz, ...)" in said
    assert "2 volumes named as masks of another kind (anna/2020_nodule_mask.nii.gz, ...)" in said


def test_what_a_lung_kernel_or_a_data_set_calls_its_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of images that hold words of masks, a lone structure, and a folder of masks."""
    images = ["lung_001", "LUNG1-001", "4_LUNG_1.0_B70f", "Seger_Anna", "RUL_001"]
    for name in images:
        vol(tmp_path / "images" / f"{name}.nii.gz", volume())
        vol(tmp_path / "labelsTr" / f"{name}.nii.gz", volume())
    assert sorted(s.image.name for s in made(tmp_path)) == sorted(f"{name}.nii.gz" for name in images)
    said = capsys.readouterr().err
    assert "5 volumes named as masks of another kind" in said
    assert "images holds 5 studies without a PatientID, and is taken for one patient." in said


def test_a_folder_of_one_file_a_lobe_is_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vol(tmp_path / "anna" / "ct.nii.gz", volume())
    for k, name in enumerate(("upper_lobe_left", "lower_lobe_left", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right")):
        mask = np.zeros(volume().shape, np.uint8)
        mask[:, 5:18, 2 * k + (8 if "left" in name else 0) : 2 * k + (8 if "left" in name else 0) + 2] = 1
        vol(tmp_path / "anna" / "segmentations" / f"lung_{name}.nii.gz", mask)
    vol(tmp_path / "anna" / "segmentations" / "heart.nii.gz", mask)
    (study,) = made(tmp_path)
    assert {str(kind): p.name for kind, p in study.masks.items()} == {"lobes": "segmentations"}
    assert "1 volumes beside those of a lobe each (anna/segmentations/heart.nii.gz)" in capsys.readouterr().err


def test_zips_and_names_that_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A zip's PatientID links it to other zips and folders; a zip of something else is no study."""
    series(tmp_path / "made", "Z", "9.1")
    raw = tmp_path / "raw"
    for name in ("zoe", "zoe_2021"):
        shutil.make_archive(str(raw / name), "zip", tmp_path / "made")
    vol(raw / "zoe.nii.gz", volume())
    series(raw / "yves", "Y", "9.2")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "report.txt").write_text("nothing")
    shutil.make_archive(str(raw / "report"), "zip", tmp_path / "notes")
    found = made(raw)
    assert [(s.study_id, s.patient_id) for s in found] == [("yves", "yves"), ("zoe", "zoe"), ("zoe-2", "zoe"), ("zoe_2021", "zoe")]
    for study in found:
        assert read_image(study.image).array.shape == volume().shape
    assert "1 zips without a CT or radiograph (report.zip)" in capsys.readouterr().err
    vol(raw / "anna_1.nii.gz", volume())
    vol(raw / "anna_2.nii.gz", volume())
    assert main(["recipe", "folders", str(raw), "--out", str(raw / "again.csv")]) == 0
    assert "3 studies lie in no folder, and each is a patient" in capsys.readouterr().err


def test_zips_that_begin_with_other_files_or_are_damaged(tmp_path: Path) -> None:
    """A burnt medium holds its viewer first; what is damaged stays a study, of which m2net verify tells."""
    series(tmp_path / "made" / "z", "Z", "9.1")
    for k in range(60):
        (tmp_path / "made" / f"a{k:02}.html").write_text("viewer")
    raw = tmp_path / "raw"
    whole = Path(shutil.make_archive(str(raw / "whole"), "zip", tmp_path / "made"))
    damaged = bytearray(whole.read_bytes())
    damaged[60:-3000] = bytes(len(damaged) - 3060)
    (raw / "damaged.zip").write_bytes(damaged)
    (raw / "no.zip").write_text("nothing")
    assert [(s.study_id, s.patient_id) for s in made(raw)] == [(name, name) for name in ("damaged", "no", "whole")]


def test_a_manifest_among_a_studys_files_would_change_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "anna"
    series(raw, "A", "1.1")
    assert main(["recipe", "folders", str(raw)]) == 2
    assert "would lie among a study's files; expected another folder. Give --out." in capsys.readouterr().err
    assert main(["recipe", "folders", str(raw), "--out", str(tmp_path / "m.csv")]) == 0
    (study,) = read_manifest(tmp_path / "m.csv")
    np.testing.assert_array_equal(read_image(study.image).array, volume(2))


def test_a_manifest_that_may_hold_labels_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vol(tmp_path / "anna.nii.gz", volume())
    made(tmp_path)
    before = (tmp_path / "manifest.csv").read_text()
    vol(tmp_path / "bob.nii.gz", volume(1))
    assert main(["recipe", "folders", str(tmp_path)]) == 2
    assert "manifest.csv is there already; expected a new file" in capsys.readouterr().err
    assert (tmp_path / "manifest.csv").read_text() == before
