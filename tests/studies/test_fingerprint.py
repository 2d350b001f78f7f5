"""What a study's hashes tell apart: prepared studies and verdicts are found again by them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2net.bags.store import Store
from m2net.cli.main import main
from m2net.errors import StudyError
from m2net.phantoms import SCANNERS, Phantom, write_dicom_series
from m2net.studies import Study, read_image, read_manifest
from m2net.studies.fingerprint import content_hash, files_of, fingerprint
from m2net.studies.options import ReadOptions
from m2net.studies.quality import judge, unreached
from m2net.studies.verifying import Journal
from m2net.vocabulary import Column, Modality
from tests.studies.made import volume, write_series


def ct(path: Path, **masks: Path) -> Study:
    return Study("s", "p", Modality.CT, path, masks={Column(kind): mask for kind, mask in masks.items()})


def test_two_series_of_one_folder_are_two_studies(tmp_path: Path) -> None:
    """A row names one file of each; both are read with all files beside it, and yet are not the same study."""
    for number in (1, 2):
        write_series(tmp_path, volume(number), start=f"e{number}_", StudyInstanceUID=f"1.{number}", SeriesInstanceUID=f"1.{number}.2")
    first, second = (ct(next(tmp_path.glob(f"e{number}_*"))) for number in (1, 2))
    assert not np.array_equal(read_image(first.image).array, read_image(second.image).array)
    assert content_hash(first) != content_hash(second)
    assert fingerprint(first) != fingerprint(second)


def test_each_is_prepared_from_its_own_voxels(tmp_path: Path, phantom: Phantom) -> None:
    """Through the front door, two examinations of one person in one folder."""
    flipped = np.ascontiguousarray(phantom.image[:, :, ::-1])
    for number, image in enumerate((phantom.image, flipped)):
        other = tmp_path / f"raw{number}"
        write_dicom_series(other, Phantom(**{**vars(phantom), "image": image}), SCANNERS["home"], f"e{number}")
        for file in other.iterdir():
            (tmp_path / "all").mkdir(exist_ok=True)
            shutil.move(file, tmp_path / "all" / f"e{number}_{file.name}")
    rows = [f"e{number},anna,ct,all/{next((tmp_path / 'all').glob(f'e{number}_*')).name}" for number in (0, 1)]
    (tmp_path / "m.csv").write_text("\n".join(["study_id,patient_id,modality,image", *rows]) + "\n")
    assert main(["prepare", str(tmp_path / "m.csv"), "--store", str(tmp_path / "store"), "--spacing", "4"]) == 0
    store = Store(tmp_path / "store", 4.0)
    one, two = (np.asarray(store.open(study).image) for study in read_manifest(tmp_path / "m.csv"))
    assert one.shape != two.shape or not np.array_equal(one, two)


def test_the_voxels_that_a_header_names_count(tmp_path: Path) -> None:
    """Headers alike, their voxel file named otherwise than they are."""
    studies = []
    for number in (0, 1):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(volume(number)), str(folder / "ct.mhd"))
        (folder / "ct.raw").rename(folder / "voxels.raw")
        header = folder / "ct.mhd"
        header.write_text(header.read_text().replace("ct.raw", "voxels.raw"))
        studies.append(ct(header))
    assert content_hash(studies[0]) != content_hash(studies[1])
    assert [path.name for _, path in files_of(studies[0])] == ["ct.mhd", "voxels.raw"]
    header, voxels = studies[0].image, studies[0].image.with_name("voxels.raw")
    header.write_text(header.read_text().replace("voxels.raw", str(voxels.rename(tmp_path / "elsewhere.raw"))))
    assert {path.name for _, path in files_of(studies[0])} == {"ct.mhd", "elsewhere.raw"}


@pytest.mark.parametrize(
    ("name", "line", "beside"),
    [("a.mhd", "ElementDataFile = LIST\nx_1.raw", True), ("a.mhd", "ElementDataFile = x_%d.raw 1 2 1", True),
     ("a.nhdr", "data file: x_1.raw", False), ("a.nhdr", "data file: LIST\nx_1.raw", True)],
)  # fmt: skip
def test_lists_and_patterns_take_all_beside(tmp_path: Path, name: str, line: str, beside: bool) -> None:
    (tmp_path / name).write_text(f"NDims = 3\n{line}\n")
    for number in (1, 2):
        (tmp_path / f"x_{number}.raw").write_bytes(b"x")
    assert {path.name for _, path in files_of(ct(tmp_path / name))} == {name, "x_1.raw", *(["x_2.raw"] if beside else [])}


def test_the_name_of_a_masks_file_counts(tmp_path: Path) -> None:
    """In a folder of one file a structure it decides the code."""
    (tmp_path / "image.nii.gz").write_bytes(b"x")
    (tmp_path / "inf").mkdir()
    (tmp_path / "inf" / "ggo.nii.gz").write_bytes(b"x")
    study = ct(tmp_path / "image.nii.gz", infection=tmp_path / "inf")
    before = content_hash(study)
    (tmp_path / "inf" / "ggo.nii.gz").rename(tmp_path / "inf" / "consolidation.nii.gz")
    assert content_hash(study) != before


@pytest.mark.parametrize("litter", [".DS_Store", "._IM0001.dcm", "Thumbs.db", "desktop.ini"])
def test_to_look_at_a_folder_or_to_move_it_changes_nothing(tmp_path: Path, litter: str) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    write_series(folder, volume())
    before, found = content_hash(ct(folder)), fingerprint(ct(folder))
    (folder / litter).write_bytes(b"x")
    assert (content_hash(ct(folder)), fingerprint(ct(folder))) == (before, found)
    np.testing.assert_array_equal(read_image(folder).array, volume())
    moved = folder.rename(tmp_path / "elsewhere")
    assert content_hash(ct(moved)) == before


def closed(*_: object, **__: object) -> None:
    raise StudyError("it cannot be read", remedy="Copy it again") from PermissionError(13, "Permission denied", "a.nii.gz")


def damaged(*_: object, **__: object) -> None:
    raise StudyError("it cannot be read", remedy="Copy it again") from OSError("CRC check failed")


@pytest.mark.parametrize(("reader", "lasting"), [(closed, False), (damaged, True)])
def test_what_the_system_kept_from_being_read_is_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[..., None], lasting: bool
) -> None:
    """Rights and network disks are mended without any change to the file, which the journal would not see."""
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    monkeypatch.setattr("m2net.studies.quality.read_image", reader)
    verdict = judge(ct(tmp_path / "a.nii.gz"), ReadOptions())
    (finding,) = verdict.findings
    assert verdict.lasting is lasting
    assert ("Permission denied" in finding.reason) is not lasting
    assert ("Copy it again" in finding.reason) is lasting


def test_a_study_that_cannot_be_reached_does_not_end_the_run(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", str(tmp_path / "closed"))
    verdict = unreached(ct(tmp_path), error)
    assert not verdict.lasting
    assert "closed: Permission denied" in verdict.findings[0].reason
    assert Journal(tmp_path / "j.jsonl", ReadOptions()).known == {}
