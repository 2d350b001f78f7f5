"""A hospital's own folders: what becomes a study, whose it is, and what is passed over; read through the front door."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from m2net.cli.main import main
from m2net.studies import Manifest, read_image, read_manifest, read_mask
from m2net.vocabulary import Modality
from tests.studies.made import volume, write_series


def series(folder: Path, person: str, study: str, number: int = 2, **tags: str) -> None:
    folder.mkdir(parents=True)
    write_series(folder, volume(number), PatientID=person, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{number}", **tags)


def vol(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def made(raw: Path) -> Manifest:
    assert main(["recipe", "folders", str(raw)]) == 0
    return read_manifest(raw / "manifest.csv")


def test_dicom_in_any_depth(tmp_path: Path) -> None:
    """A study is an examination with all its series, a patient is the first folder; reports and other modalities are no studies."""
    series(tmp_path / "anna" / "2020" / "soft", "A", "1.1", 2)
    series(tmp_path / "anna" / "2020" / "lung", "A", "1.1", 3)
    series(tmp_path / "anna" / "2021", "A", "1.2")
    series(tmp_path / "bob", "B", "2.1")
    series(tmp_path / "carl" / "mr", "C", "3.1", Modality="MR")
    series(tmp_path / "dora" / "chest", "D", "4.1", Modality="DX")
    (tmp_path / "bob" / "report.txt").write_text("nothing")
    series(tmp_path / ".trash" / "eve", "E", "5.1")
    found = {s.study_id: s for s in made(tmp_path)}
    assert {k: (s.patient_id, s.image.relative_to(tmp_path).as_posix(), s.modality) for k, s in found.items()} == {
        "anna_2020": ("anna", "anna/2020", Modality.CT),
        "anna_2021": ("anna", "anna/2021", Modality.CT),
        "bob": ("bob", "bob", Modality.CT),
        "dora_chest": ("dora", "dora/chest", Modality.CXR),
    }
    np.testing.assert_array_equal(read_image(found["bob"].image).array, volume(2))


def test_an_examination_among_others_series_is_its_largest(tmp_path: Path) -> None:
    """Where no folder holds one examination alone, a folder that the reader would refuse is not named."""
    series(tmp_path / "anna" / "a-small", "A", "1.1", 2)
    series(tmp_path / "anna" / "a-large", "A", "1.1", 3)
    next((tmp_path / "anna" / "a-small").iterdir()).unlink()
    series(tmp_path / "anna" / "b", "A", "1.2")
    found = {s.study_id: s.image.name for s in made(tmp_path)}
    assert found == {"anna_a-large": "a-large", "anna_b": "b"}


def test_one_person_in_several_folders_is_one_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A patient exported twice would be in training and test at once; links reach over a third folder."""
    for folder, person in (("a", "P1"), ("b", "P2"), ("c", "P3"), ("d", "")):
        series(tmp_path / folder / "one", person, f"1.{ord(folder)}")
    series(tmp_path / "c" / "two", "P1", "1.7")
    series(tmp_path / "e" / "one", "P3", "1.8")
    found = {s.study_id: s.patient_id for s in made(tmp_path)}
    assert found == {"a_one": "a", "b_one": "b", "c_one": "a", "c_two": "a", "d_one": "d", "e_one": "a"}
    said = capsys.readouterr().err
    assert "c and a hold the same PatientID, and are one patient." in said
    assert "P1" not in said


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
    assert "4 patients. Fill in diagnosis, severity" in said
    assert "Passed over masks without an image: 1 (two/lobes.nii.gz)." in said
    assert "Passed over pictures, which may be slices or radiographs: 1 (slice.png)." in said


def test_zips_and_names_that_repeat(tmp_path: Path) -> None:
    series(tmp_path / "made", "Z", "9.1")
    shutil.make_archive(str(tmp_path / "raw" / "zoe"), "zip", tmp_path / "made")
    vol(tmp_path / "raw" / "zoe.nii.gz", volume())
    found = made(tmp_path / "raw")
    assert [(s.study_id, s.patient_id) for s in found] == [("zoe", "zoe"), ("zoe-2", "zoe")]
    for study in found:
        assert read_image(study.image).array.shape == volume().shape


def test_a_manifest_that_may_hold_labels_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vol(tmp_path / "anna.nii.gz", volume())
    made(tmp_path)
    before = (tmp_path / "manifest.csv").read_text()
    vol(tmp_path / "bob.nii.gz", volume(1))
    assert main(["recipe", "folders", str(tmp_path)]) == 2
    assert "manifest.csv is there already; expected a new file" in capsys.readouterr().err
    assert (tmp_path / "manifest.csv").read_text() == before
