"""Mask rows of docs/reference/odd_inputs.md, driven through read_mask."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Extension
from PIL import Image

from m2net.errors import GeometryError, StudyError
from m2net.studies import Volume, read_image, read_mask
from m2net.studies.labels import code_of, meant, not_understood
from m2net.vocabulary import Column
from tests.studies.made import (
    ORIGIN,
    SPACING,
    affine,
    write_nifti,
    write_series,
)
from tests.studies.odd import A, Cases

case = Cases()


# ---- masks


def lobes() -> np.ndarray:
    codes = np.zeros(A.shape, np.uint8)
    codes[6:, :, 11:], codes[:6, :, 11:] = 1, 2
    codes[8:, :, :9], codes[5:8, :, :9], codes[:5, :, :9] = 3, 4, 5
    return codes


def image(tmp: Path) -> Volume:
    write_nifti(tmp / "image.nii.gz", A)
    return read_image(tmp / "image.nii.gz")


@case
def mask_on_another_grid(tmp: Path) -> None:
    like = image(tmp)
    fine = np.repeat(lobes(), 2, axis=0)
    write_nifti(tmp / "m.nii.gz", fine, affine((1.25, 1.5, 1.25), ORIGIN - [0, 0, 0.625]))
    mask = read_mask(tmp / "m.nii.gz", Column.LOBES, like)
    np.testing.assert_array_equal(mask.array, lobes())
    assert "resampled by nearest neighbours" in str(mask.remarks[0])


@case
def mask_of_another_study(tmp: Path) -> None:
    write_nifti(tmp / "m.nii.gz", lobes(), affine(origin=ORIGIN + 500))
    with pytest.raises(GeometryError, match="lies elsewhere"):
        read_mask(tmp / "m.nii.gz", Column.LOBES, image(tmp))


@case
def mask_sides_swapped(tmp: Path) -> None:
    write_nifti(tmp / "m.nii.gz", lobes()[:, :, ::-1])
    with pytest.raises(StudyError, match="left and right swapped"):
        read_mask(tmp / "m.nii.gz", Column.LOBES, image(tmp))


@case
def mask_upside_down(tmp: Path) -> None:
    write_nifti(tmp / "m.nii.gz", lobes()[::-1])
    with pytest.raises(StudyError, match="below its"):
        read_mask(tmp / "m.nii.gz", Column.LOBES, image(tmp))


@case
def mask_codes_unknown(tmp: Path) -> None:
    write_nifti(tmp / "m.nii.gz", np.where(lobes() == 3, 9, lobes()).astype(np.uint8))
    with pytest.raises(StudyError, match=r"codes \[9\]"):
        read_mask(tmp / "m.nii.gz", Column.LOBES, image(tmp))


@case
def mask_of_totalsegmentator(tmp: Path) -> None:
    names = ["lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"]
    codes = np.where(lobes() > 0, lobes() + 9, 0).astype(np.uint8)
    like = image(tmp)
    made = nibabel.Nifti1Image(codes.T, affine())
    rows = "\n".join(f'<Label Key="{10 + k}" Red="0.5" Alpha="1"><![CDATA[{name}]]></Label>' for k, name in enumerate(names))
    made.header.extensions.append(Nifti1Extension(0, f"<?xml version='1.0'?> <CaretExtension><LabelTable>{rows}</LabelTable>".encode()))
    nibabel.save(made, tmp / "named.nii.gz")
    write_nifti(tmp / "codes.nii.gz", codes)
    for k, name in enumerate(names):
        write_nifti(tmp / "folder" / f"{name}.nii.gz", (lobes() == k + 1).astype(np.uint8))
    for found in (
        read_mask(tmp / "named.nii.gz", Column.LOBES, like),
        read_mask(tmp / "codes.nii.gz", Column.LOBES, like, "totalsegmentator"),
        read_mask(tmp / "folder", Column.LOBES, like),
    ):
        np.testing.assert_array_equal(found.array, lobes())
    for name in ("named.nii.gz", "folder"):
        lungs = read_mask(tmp / name, Column.LUNGS, like).array
        np.testing.assert_array_equal(lungs, np.where(lobes() == 0, 0, np.where(lobes() <= 2, 2, 1)))
    with pytest.raises(StudyError, match="codes"):
        read_mask(tmp / "codes.nii.gz", Column.LOBES, like)


@case
def mask_of_slicer(tmp: Path) -> None:
    like = image(tmp)
    made = sitk.GetImageFromArray(np.where(lobes() == 3, 7, np.where(lobes() == 1, 2, 0)).astype(np.uint8))
    made.SetSpacing(SPACING[::-1])
    made.SetOrigin(ORIGIN.tolist())
    for number, (name, value) in enumerate((("RUL", 7), ("Left upper lobe", 2), ("Skin", 3))):
        made.SetMetaData(f"Segment{number}_Name", name)
        made.SetMetaData(f"Segment{number}_LabelValue", str(value))
    sitk.WriteImage(made, str(tmp / "m.seg.nrrd"))
    found = read_mask(tmp / "m.seg.nrrd", Column.LOBES, like).array
    np.testing.assert_array_equal(found, np.where(np.isin(lobes(), (1, 3)), lobes(), 0))


def named(path: Path, codes: np.ndarray, *names: str) -> None:
    """A 3D Slicer segmentation whose code k has the k-th name."""
    made = sitk.GetImageFromArray(codes.astype(np.uint8))
    made.SetSpacing(SPACING[::-1])
    made.SetOrigin(ORIGIN.tolist())
    for k, name in enumerate(names, 1):
        made.SetMetaData(f"Segment{k}_Name", name)
        made.SetMetaData(f"Segment{k}_LabelValue", str(k))
    sitk.WriteImage(made, str(path))


@case
def mask_names_unknown(tmp: Path) -> None:
    """Names that say nothing are not passed over for the numbers, unless the manifest says that these are m2net's."""
    like = image(tmp)
    for names in (("Segment_1", "Segment_2"), ("lung", "lung_nodules"), ("no infection", "nothing")):
        named(tmp / "m.seg.nrrd", lobes() % 3, *names)
        with pytest.raises(StudyError, match="names no infection.*say m2net"):
            read_mask(tmp / "m.seg.nrrd", Column.INFECTION, like)
        np.testing.assert_array_equal(read_mask(tmp / "m.seg.nrrd", Column.INFECTION, like, "m2net").array, lobes() % 3)
    named(tmp / "m.seg.nrrd", lobes(), "LeftUpperLobe", "LeftLowerLobe", "RightUpperLobe", "RightLowerLobe", "RightMiddleLobe")
    found = read_mask(tmp / "m.seg.nrrd", Column.LOBES, like).array
    np.testing.assert_array_equal(found, np.array([0, 1, 2, 3, 5, 4])[lobes()])


@case
def mask_names_in_part(tmp: Path) -> None:
    like = image(tmp)
    named(tmp / "m.seg.nrrd", lobes() % 3, "GGOs", "Crazy paving")
    found = read_mask(tmp / "m.seg.nrrd", Column.INFECTION, like)
    np.testing.assert_array_equal(found.array, lobes() % 3 == 1)
    assert [(r.harmless, "Crazy paving" in r.text) for r in found.remarks] == [(False, True)]
    for other in ("left lung", "heart", "pulmonary_vein"):  # anatomy beside it is no loss
        named(tmp / "m.seg.nrrd", lobes() % 3, "Consolidations", other)
        assert read_mask(tmp / "m.seg.nrrd", Column.INFECTION, like).remarks == ()


@case
def mask_as_dicom_seg(tmp: Path) -> None:
    import highdicom
    from pydicom.sr.codedict import codes

    files = write_series(tmp / "s", A, FrameOfReferenceUID="1.2.7", StudyID="1", PatientName="", PatientBirthDate="", PatientSex="",
                         AccessionNumber="", StudyDate="", StudyTime="", InstanceNumber=1)  # fmt: skip
    names = ["Left upper lobe", "Left lower lobe", "Right upper lobe", "Right middle lobe", "Right lower lobe"]
    segments = [
        highdicom.seg.SegmentDescription(
            k + 1, name, codes.SCT.Organ, codes.SCT.Lung, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        ) for k, name in enumerate(names[::-1])
    ]  # fmt: skip
    own = np.where(lobes() > 0, 6 - lobes(), 0).astype(np.uint8)  # the object numbers its segments the other way round
    made = highdicom.seg.Segmentation(
        [pydicom.dcmread(f) for f in files], own, highdicom.seg.SegmentationTypeValues.BINARY, segments, "1.2.8", 9, "1.2.8.1", 1,
        "m", "m", "1", "1",
    )  # fmt: skip
    made.save_as(tmp / "seg.dcm")
    np.testing.assert_array_equal(read_mask(tmp / "seg.dcm", Column.LOBES, read_image(tmp / "s")).array, lobes())


@case
def mask_of_probabilities(tmp: Path) -> None:
    write_nifti(tmp / "m.nii.gz", lobes().astype(np.float32) * 0.4)
    with pytest.raises(StudyError, match="fractions"):
        read_mask(tmp / "m.nii.gz", Column.LOBES, image(tmp))


@case
def mask_of_a_paint_tool(tmp: Path) -> None:
    for kind, scheme, code in ((Column.INFECTION, "infection_one_code", 3), (Column.LUNGS, "lungs_one_code", 3)):
        write_nifti(tmp / "m.nii.gz", np.where(lobes() > 0, 255, 0).astype(np.uint8))
        with pytest.raises(StudyError, match=f"0 and 255 only.*{scheme}"):
            read_mask(tmp / "m.nii.gz", kind, image(tmp))
        np.testing.assert_array_equal(read_mask(tmp / "m.nii.gz", kind, image(tmp), scheme).array, np.where(lobes() > 0, code, 0))
        assert set(np.unique(read_mask(tmp / "m.nii.gz", kind, image(tmp), "m2net").array)) == {0, 255}


@case
def picture_mask_of_another_size(tmp: Path) -> None:
    Image.fromarray(A[5].astype(np.uint8)).save(tmp / "a.png")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp / "m.png")
    with pytest.raises(GeometryError, match=r"\(20, 20\) pixels"):
        read_mask(tmp / "m.png", Column.LOBES, read_image(tmp / "a.png"))


@pytest.mark.parametrize("name", sorted(case))
def test_row(name: str, tmp_path: Path) -> None:
    case[name](tmp_path)


def test_a_scheme_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "m.nii.gz", lobes())
    with pytest.raises(StudyError, match="infection_scheme is 'lungmask_lobes'; expected one of m2net, infection_one_code"):
        read_mask(tmp_path / "m.nii.gz", Column.INFECTION, image(tmp_path), "lungmask_lobes")


@pytest.mark.parametrize("name", ["lung infection", "Lung opacity", "lung_cancer", "lung_nodules", "lung_vessels"])
def test_what_lies_in_a_lung_is_no_lung(name: str) -> None:
    assert code_of(name, Column.LUNGS) is None


@pytest.mark.parametrize(("name", "code"), [("lung", 3), ("Left lung", 2), ("right_lung", 1), ("Lungs", 3), ("lung_mask", 3)])
def test_names_of_lungs(name: str, code: int) -> None:
    assert code_of(name, Column.LUNGS) == code


@pytest.mark.parametrize(
    ("name", "lost"),
    [("RUL tumor", True), ("left upper lobe cyst", True), ("RUL bronchus", False), ("RML vein", False), ("right upper lobe artery", False),
     ("LLL pneumonia", False), ("LLL consolidation", False)],
)  # fmt: skip
def test_what_lies_in_a_lobe_is_no_lobe(name: str, lost: bool) -> None:
    """Nor is it passed over in silence, unless it is known for something else."""
    assert code_of(name, Column.LOBES) is None
    assert meant(name, Column.LUNGS) is None
    assert not_understood({1: name}, Column.LOBES) == ([name] if lost else [])


@pytest.mark.parametrize(
    ("name", "code"),
    [("RUL", 3), ("Segment_RML", 4), ("lung_upper_lobe_left", 1), ("Left lower lobe of lung", 2), ("LeftUpperLobe incl. lingula", None),
     ("Left upper lobe with lingula", 1), ("RightLowerLobe", 5), ("Structure of right middle lobe", 4)],
)  # fmt: skip
def test_names_of_lobes(name: str, code: int | None) -> None:
    assert code_of(name, Column.LOBES) == code


@pytest.mark.parametrize("name", ["liver lesion", "bone lesion", "pleural opacity", "infection free lung", "lesion-free"])
def test_what_is_no_infection_of_the_lung(name: str) -> None:
    assert code_of(name, Column.INFECTION) is None


@pytest.mark.parametrize(("name", "code"), [("lung lesion", 3), ("GGO", 1), ("consolidation near heart", 2), ("infected lung", 3)])
def test_names_of_infection(name: str, code: int) -> None:
    assert code_of(name, Column.INFECTION) == code
