"""DICOM rows of docs/reference/odd_inputs.md that ask which series is read, driven through read_image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m2net.studies import ReadOptions, read_image
from tests.studies.made import ORIGIN, SPACING, change, volume, write_series, write_slice
from tests.studies.odd import A, Cases, refused, same

case = Cases()


@case
def two_patients(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_series(tmp / "s", volume(1), "b", PatientID="P2", SeriesInstanceUID="1.2.9")
    refused(tmp / "s", "images of 2 patients")


@case
def two_examinations(tmp: Path) -> None:
    """Baseline and follow-up under the same series number: the larger must not be read for the other's label."""
    write_series(tmp / "s", A)
    write_series(tmp / "s", volume(1, (16, 24, 20)), "b", StudyInstanceUID="1.2.5", SeriesInstanceUID="1.2.9")
    refused(tmp / "s", "series of 2 examinations")
    refused(tmp / "s", "series 2 of 2 examinations", series="2")
    same(tmp / "s", series="1.2.2")
    write_series(tmp / "t", A)
    write_series(
        tmp / "t",
        volume(1, (20, 24, 20)),
        "b",
        StudyInstanceUID="1.2.6",
        SeriesInstanceUID="1.2.9",
        ImageType=["DERIVED", "SECONDARY", "MPR"],
    )
    same(tmp / "t", remark="derived")  # a workstation's reformat beside the original
    for k, file in enumerate(write_series(tmp / "u", A)):
        change(file, StudyInstanceUID=f"1.2.7.{k}")  # an anonymiser's, a new one each file
    same(tmp / "u")


@case
def several_series(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_series(tmp / "s", volume(1)[:8], "b", SeriesInstanceUID="1.2.9", SeriesNumber=5)
    same(tmp / "s", remark="also there: series 5 (axial, 8 slices)")


@case
def series_asked_for(tmp: Path) -> None:
    several_series(tmp)
    same(tmp / "s", volume(1)[:8], series="5")
    assert read_image(tmp / "s", ReadOptions(series="1.2.9")).array.shape[0] == 8
    refused(tmp / "s", "no series 7; expected one of 2, 5", series="7")


@case
def kernel_asked_for(tmp: Path) -> None:
    write_series(tmp / "s", A, ConvolutionKernel="B30f")
    write_series(tmp / "s", volume(1), "b", SeriesInstanceUID="1.2.9", SeriesNumber=1, ConvolutionKernel="B70f")
    same(tmp / "s", remark="kernel B30f) was read")
    same(tmp / "s", volume(1), remark="kernel B70f) was read", kernel="lung")


@case
def derived_series(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_series(tmp / "s", volume(1, (20, 24, 20)), "b", SeriesInstanceUID="1.2.9", ImageType=["DERIVED", "PRIMARY", "MPR"])
    same(tmp / "s", remark="derived")


@case
def coronal_series(tmp: Path) -> None:
    for k in range(A.shape[1]):
        place = ORIGIN + np.array([0, SPACING[1] * k, SPACING[0] * (len(A) - 1)])
        write_slice(tmp / "s" / str(k), A[::-1, k], place, (1, 0, 0, 0, 0, -1), PixelSpacing=[SPACING[0], SPACING[2]])
    found = same(tmp / "s", remark="The slices are coronal")
    assert not all(remark.harmless for remark in found.remarks)


@case
def two_acquisitions(tmp: Path) -> None:
    write_series(tmp / "s", A, AcquisitionNumber=1)
    write_series(tmp / "s", volume(1)[:9], "b", AcquisitionNumber=2)
    same(tmp / "s", remark="acquisition 1")


@case
def acquisitions_woven(tmp: Path) -> None:
    """Half a slice apart, all places are even: one volume taken in two passes, or two breaths; nothing but a look tells."""
    write_series(tmp / "s", A, AcquisitionNumber=1)
    write_series(tmp / "s", volume(1), "b", shift=(0, 0, SPACING[0] / 2), AcquisitionNumber=2)
    found = read_image(tmp / "s")
    np.testing.assert_array_equal(found.array, np.stack([A, volume(1)], axis=1).reshape(-1, *A.shape[1:]))
    assert [remark.harmless for remark in found.remarks if "take turns" in str(remark)] == [False]
    for number in (2, 1):  # a swapped slice between two blocks is no turn
        write_series(tmp / "t", A, AcquisitionNumber=1)
        for z, file in enumerate(write_series(tmp / "t", A)):
            change(file, AcquisitionNumber=number if z == 6 else 1 + (z > 6))
        assert not any("take turns" in str(remark) for remark in same(tmp / "t").remarks), number


@case
def scout_in_the_series(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_slice(tmp / "s" / "scout", volume(2)[0], (0, 0, 0), (1, 0, 0, 0, 0, -1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    same(tmp / "s", remark="localizer")


@case
def mixed_orientations(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_slice(tmp / "s" / "strange", volume(2)[0], (0, 0, 0), (1, 0, 0, 0, 0, -1))
    same(tmp / "s", remark="another orientation, size or pixel spacing")


@case
def other_objects(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_slice(tmp / "s" / "pr", volume(2)[0], (0, 0, 0), Modality="OT", SeriesInstanceUID="1.2.9")
    same(tmp / "s", remark="no CT")


@case
def another_modality(tmp: Path) -> None:
    write_series(tmp / "s", A, Modality="MR")
    refused(tmp / "s", "modality is MR")


@pytest.mark.parametrize("name", sorted(case))
def test_row(name: str, tmp_path: Path) -> None:
    case[name](tmp_path)
