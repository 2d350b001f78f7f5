from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from m2net.errors import GeometryError, StudyError
from m2net.phantoms import SCANNERS, Phantom, write_dicom_series
from m2net.studies import read_image


@pytest.fixture
def series(tmp_path: Path, phantom: Phantom) -> Path:
    write_dicom_series(tmp_path / "series", phantom, SCANNERS["home"], "P1")
    return tmp_path / "series"


def change(folder: Path, every: int, **values: object) -> None:
    for file in sorted(folder.iterdir())[::every]:
        data = pydicom.dcmread(file)
        for name, value in values.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        data.save_as(file)


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
    change(series, 1, SliceThickness="2")
    volume = read_image(series)
    assert volume.geometry is not None
    assert volume.geometry.spacing_mm[0] == pytest.approx(6.0)
    assert "6.00 mm apart while SliceThickness says 2.00" in volume.notes[0]


def test_missing_slice(series: Path) -> None:
    by_position(series)[10].unlink()
    with pytest.raises(GeometryError, match=r"uneven slice distances \(6\.00 to 12\.00 mm, median 6\.00\)"):
        read_image(series)


def test_duplicated_slice(series: Path) -> None:
    copy = by_position(series)[4]
    (series / "again").write_bytes(copy.read_bytes())
    with pytest.raises(GeometryError, match="two slices at the same place"):
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
    change(series, 5, **{tag: None})
    with pytest.raises(GeometryError, match=tag):
        read_image(series)


def test_two_series_and_other_modalities(series: Path) -> None:
    change(series, 3, SeriesInstanceUID="1.2.3")
    with pytest.raises(StudyError, match="holds 2 series"):
        read_image(series)
    change(series, 1, SeriesInstanceUID="1.2.3", Modality="MR")
    with pytest.raises(StudyError, match="modality is MR"):
        read_image(series)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no DICOM image"):
        read_image(tmp_path)
