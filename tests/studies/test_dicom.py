from __future__ import annotations

import contextlib
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from m2net.errors import GeometryError, StudyError
from m2net.phantoms import SCANNERS, Phantom, write_dicom_series
from m2net.studies import ReadOptions, read_image, write_on_own_grid
from m2net.studies.dicom import kernel_kind, read_frames
from tests.studies.made import ORIGIN, SPACING, change, volume, write_series, write_slice


@pytest.fixture
def series(tmp_path: Path, phantom: Phantom) -> Path:
    write_dicom_series(tmp_path / "series", phantom, SCANNERS["home"], "P1")
    return tmp_path / "series"


def by_position(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f, stop_before_pixels=True).ImagePositionPatient[2])


def test_shuffled_files_are_sorted_by_position(series: Path, phantom: Phantom) -> None:
    names = [f.name for f in by_position(series)]
    assert names != sorted(names)
    volume = read_image(series)
    np.testing.assert_array_equal(volume.array, phantom.image)
    assert volume.geometry is not None
    np.testing.assert_allclose(volume.geometry.spacing_mm, phantom.geometry.spacing_mm, rtol=1e-5)
    np.testing.assert_allclose(volume.geometry.origin_mm, phantom.geometry.origin_mm, atol=1e-3)
    assert volume.notes == ()


def test_slope_and_intercept_are_those_of_each_slice(series: Path, phantom: Phantom) -> None:
    lowest = by_position(series)[0]
    data = pydicom.dcmread(lowest)
    data.RescaleSlope, data.RescaleIntercept = 2, -1024
    data.PixelData = (data.pixel_array // 2).astype(np.uint16).tobytes()
    data.save_as(lowest)
    volume = read_image(series)
    assert np.abs(volume.array[0].astype(int) - phantom.image[0]).max() <= 1
    np.testing.assert_array_equal(volume.array[1:], phantom.image[1:])


def test_thickness_that_contradicts_the_positions_is_told(series: Path) -> None:
    for file in series.iterdir():
        change(file, SliceThickness="2")
    volume = read_image(series)
    assert volume.geometry is not None
    assert volume.geometry.spacing_mm[0] == pytest.approx(6.0)
    assert "6.00 mm apart while SliceThickness says 2.00" in volume.notes[0]


def test_missing_slice(series: Path) -> None:
    by_position(series)[10].unlink()
    with pytest.raises(GeometryError, match=r"uneven slice distances \(6\.00 to 12\.00 mm, usually 6\.00, 1 missing\)"):
        read_image(series)


def test_gantry_tilt(series: Path) -> None:
    for file in series.iterdir():
        data = pydicom.dcmread(file)
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + 0.2 * z, z]
        data.save_as(file)
    with pytest.raises(GeometryError, match="gantry tilt"):
        read_image(series)


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_geometry_is_never_invented(series: Path, tag: str) -> None:
    change(sorted(series.iterdir())[5], **{tag: None})
    with pytest.raises(GeometryError, match=tag):
        read_image(series)


RIGHT_HANDED = [
    (order, signs)
    for order, signs in product(permutations(range(3)), product([1, -1], repeat=3))
    if np.linalg.det(np.eye(3)[:, list(order)] * signs) > 0
]


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize(("order", "signs"), RIGHT_HANDED)
def test_every_right_handed_orientation_comes_back_the_same(tmp_path: Path, order, signs, oblique: bool) -> None:
    """Columns, rows and slices run along any three body axes; names are shuffled; no value is interpolated."""
    array, lps_mm = volume(), np.array(SPACING[::-1])
    angle = 0.1 if oblique else 0.0
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    stored = np.transpose(array, [2 - order[2], 2 - order[1], 2 - order[0]])[tuple(slice(None, None, s) for s in signs[::-1])]
    corner = np.array([(n - 1) * (signs[order.index(axis)] < 0) for axis, n in enumerate(array.shape[::-1])]) * lps_mm
    axes = np.array([signs[k] * np.eye(3)[order[k]] for k in range(3)])  # along columns, rows, slices
    names = np.random.default_rng(0).permutation(len(stored))
    for k, plane in enumerate(stored):
        place = ORIGIN + tilt @ (corner + axes[2] * lps_mm[order[2]] * k)
        spacing = [lps_mm[order[1]], lps_mm[order[0]]]
        write_slice(
            tmp_path / f"{names[k]:03d}", plane, place, [*(tilt @ axes[0]), *(tilt @ axes[1])], PixelSpacing=spacing, SliceThickness=""
        )
    found = read_image(tmp_path)
    np.testing.assert_array_equal(found.array, array)
    assert found.geometry is not None
    np.testing.assert_allclose(found.geometry.spacing_mm, SPACING, rtol=1e-5)
    np.testing.assert_allclose(found.geometry.origin_mm, ORIGIN, atol=1e-3)
    np.testing.assert_allclose(found.geometry.axes, tilt, atol=1e-6)
    write_on_own_grid(tmp_path / "out.nii.gz", array, found)
    own = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(own), stored)
    np.testing.assert_allclose(own.TransformIndexToPhysicalPoint((0, 0, 0)), ORIGIN + tilt @ corner, atol=1e-3)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no DICOM image"):
        read_image(tmp_path)


def test_a_series_number_of_two_patients_is_refused(tmp_path: Path) -> None:
    uids = []
    for name, seed in (("ANNA", 1), ("BERT", 2)):
        files = write_series(tmp_path / name, volume(seed), seed=seed, PatientID=name, SeriesNumber=3, SeriesInstanceUID=f"1.2.{seed}")
        uids.append(str(pydicom.dcmread(files[0]).SeriesInstanceUID))
    with pytest.raises(StudyError, match="series 3 of 2 patients.*UID"):
        read_image(tmp_path, ReadOptions(series="3"))
    np.testing.assert_array_equal(read_image(tmp_path, ReadOptions(series=uids[1])).array, read_image(tmp_path / "BERT").array)


@pytest.mark.parametrize(
    ("name", "kind"), [*((f"FC{n}", "lung") for n in (30, 52, 86)), ("FC08", "soft"), ("B30f", "soft"), ("Bl57", "lung")]
)
def test_kernels_by_name(name: str, kind: str) -> None:
    assert kernel_kind(name) == kind


def test_no_byte_of_a_header_cut_off_or_overwritten_is_a_bug(tmp_path: Path) -> None:
    """What pydicom raises, at once or when a value is looked at, is one line about the file, or the file is passed over."""
    whole = write_series(tmp_path / "s", volume())[0].read_bytes()
    header = len(whole) - volume()[0].size * 2
    for place in range(132, header, 7):
        for number, content in enumerate((whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])):
            file = tmp_path / f"{place}-{number}"
            file.write_bytes(content)
            with contextlib.suppress(StudyError):
                read_frames([file])
