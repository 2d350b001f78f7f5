"""DICOM rows of docs/reference/odd_inputs.md, driven through read_image."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from m2net.errors import GeometryError
from m2net.studies import ReadOptions, read_image
from tests.studies.made import (
    ORIGIN,
    SPACING,
    at,
    change,
    compress,
    enhanced,
    volume,
    write_series,
    write_slice,
)
from tests.studies.odd import A, Cases, refused, same

case = Cases()


# ---- DICOM: which files


@case
def shuffled_names(tmp: Path) -> None:
    write_series(tmp / "s", A)
    same(tmp / "s")


@case
def nested_folders(tmp: Path) -> None:
    for number, file in enumerate(write_series(tmp / "s", A)):
        (tmp / "s" / "a" / str(number % 3)).mkdir(parents=True, exist_ok=True)
        file.rename(tmp / "s" / "a" / str(number % 3) / file.name)
    (tmp / "s" / "readme.txt").write_text("hello")
    same(tmp / "s")


@case
def one_file_of_a_series(tmp: Path) -> None:
    file = write_series(tmp / "s", A)[3]
    write_series(tmp / "s", volume(1), "b", SeriesInstanceUID="1.2.9")
    same(file)


@case
def dicomdir(tmp: Path) -> None:
    from pydicom.fileset import FileSet

    write_series(tmp / "s", A)
    files = FileSet()
    for file in (tmp / "s").iterdir():
        change(file, StudyID="1", StudyDate="20200101", StudyTime="120000", InstanceNumber=1)
        files.add(file)
    files.write(tmp / "medium")
    same(tmp / "medium" / "DICOMDIR")
    same(tmp / "medium")
    next(p for p in (tmp / "medium").rglob("*") if p.is_file() and p.name != "DICOMDIR").unlink()
    refused(tmp / "medium" / "DICOMDIR", "names 12 images of which 1 are missing")


@case
def zipped(tmp: Path) -> None:
    with zipfile.ZipFile(tmp / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in write_series(tmp / "s", A):
            archive.write(file, f"../../{file.name}")  # names are never used as paths
    same(tmp / "s.zip")


@case
def zip_damaged(tmp: Path) -> None:
    zipped(tmp)
    data = (tmp / "s.zip").read_bytes()
    (tmp / "cut.zip").write_bytes(data[: len(data) // 2])
    refused(tmp / "cut.zip", "no whole zip")


@case
def zip_bomb(tmp: Path) -> None:
    with zipfile.ZipFile(tmp / "s.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a", bytes(80 * 2**20))
    refused(tmp / "s.zip", "would unpack to")


@case
def no_preamble(tmp: Path) -> None:
    for file in write_series(tmp / "s", A):
        file.write_bytes(file.read_bytes()[132:])
    same(tmp / "s")


@case
def empty_folder(tmp: Path) -> None:
    refused(tmp, "holds no DICOM image")


@case
def broken_uids(tmp: Path) -> None:
    write_series(tmp / "s", A, SOPInstanceUID="", SeriesInstanceUID="{6F9619FF-8B86-D011-B42D-00CF4FC964FF}")
    same(tmp / "s")


# ---- DICOM: the stack


@case
def thickness_is_no_distance(tmp: Path) -> None:
    write_series(tmp / "s", A, SliceThickness=1.25)
    same(tmp / "s", remark="2.50 mm apart while SliceThickness says 1.25")


@case
def identical_copies(tmp: Path) -> None:
    file = write_series(tmp / "s", A)[4]
    (tmp / "s" / "again").write_bytes(file.read_bytes())
    same(tmp / "s", remark="1 copy of slices with identical pixels")


@case
def two_slices_at_one_place(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_slice(tmp / "s" / "other", volume(2)[3], at(z=SPACING[0] * 4))
    refused(tmp / "s", "two different slices at the same place", GeometryError)


@case
def missing_slices(tmp: Path) -> None:
    files = write_series(tmp / "s", ramp())
    files[4].unlink()
    files[7].unlink()
    refused(tmp / "s", r"2\.50 to 5\.00 mm, usually 2\.50, 2 missing", GeometryError)
    same(tmp / "s", ramp(), remark="10 uneven slices resampled to 12", repair=True)  # a ramp is what linear interpolation gives back


def ramp() -> np.ndarray:
    """HU that rise evenly along y and z."""
    z, y, _ = np.indices(A.shape)
    return (-1000 + 40 * z + 20 * y).astype(np.int16)


@case
def uneven_slices(tmp: Path) -> None:
    places = np.array([0, 1, 2, 3, 4.4, 5, 6, 7, 7.5, 9, 10, 11])
    for number, z in enumerate(places):
        write_slice(tmp / "s" / str(number), (-1000 + 40 * z + 20 * np.indices(A.shape[1:])[0]).astype(np.int16), at(z=2.5 * z))
    refused(tmp / "s", r"uneven slice distances \(1\.25 to 3\.75 mm", GeometryError)
    same(tmp / "s", ramp(), remark="uneven slices resampled", repair=True)


@case
def hole(tmp: Path) -> None:
    for file in write_series(tmp / "s", A)[3:9]:
        file.unlink()
    refused(tmp / "s", "6 missing", GeometryError)
    refused(tmp / "s", "nothing to interpolate from", GeometryError, repair=True)


@case
def gantry_tilt(tmp: Path) -> None:
    """A shear of whole pixels: undone, the block of tissue is upright again."""
    upright = np.full((12, 24, 20), -1000, np.int16)
    upright[:, 8:12, 5:9] = 40
    for z in range(12):  # the plane's first pixel moves up by one row a slice, so the block moves down in it
        write_slice(tmp / "s" / str(z), np.roll(upright[z], z - 6, axis=0), at(y=-1.5 * (z - 6), z=2.5 * z))
    refused(tmp / "s", r"sheared by 16\.5 mm over the stack \(gantry tilt of about 31", GeometryError)
    found = read_image(tmp / "s", ReadOptions(repair=True))
    block = np.argwhere(found.array == 40)
    assert found.geometry is not None
    y = found.geometry.origin_mm[1] + 1.5 * block[:, 1]
    np.testing.assert_allclose([y.min(), y.max()], [ORIGIN[1] + 1.5 * 8, ORIGIN[1] + 1.5 * 11], atol=1e-3)
    assert len(block) == 12 * 16
    assert "a shear of 16.5 mm undone" in found.notes[0]


@case
def lost_position(tmp: Path) -> None:
    change(write_series(tmp / "s", A)[5], ImagePositionPatient=None)
    refused(tmp / "s", "no usable ImagePositionPatient", GeometryError)


@case
def no_spacing(tmp: Path) -> None:
    write_series(tmp / "s", A, PixelSpacing=[0, 0])
    refused(tmp / "s", "no usable PixelSpacing", GeometryError)


@case
def skewed_orientation(tmp: Path) -> None:
    write_series(tmp / "s", A, ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])
    refused(tmp / "s", "no usable ImageOrientationPatient", GeometryError)


@case
def single_slice(tmp: Path) -> None:
    write_series(tmp / "s", A[:1])
    refused(tmp / "s", "single slice", GeometryError)


# ---- DICOM: the pixels


@case
def slope_of_each_slice(tmp: Path) -> None:
    even = A // 2 * 2
    for z, file in enumerate(write_series(tmp / "s", even)):
        if z % 2:
            data = pydicom.dcmread(file)
            change(file, RescaleSlope=2, PixelData=(data.pixel_array // 2).astype(np.uint16).tobytes())
    same(tmp / "s", even)


@case
def compressed(tmp: Path) -> None:
    for syntax in ("jpeg", "jpegls", "jpeg2000", "rle"):
        for file in write_series(tmp / syntax, A):
            compress(file, syntax)
        same(tmp / syntax)


@case
def inverted_compressed(tmp: Path) -> None:
    for file in write_series(tmp / "s", A, PhotometricInterpretation="MONOCHROME1"):
        compress(file, "jpeg")
    same(tmp / "s")


@case
def padding(tmp: Path) -> None:
    padded = A.copy()
    padded[:, :3, :3] = -2000
    write_series(tmp / "s", padded, PixelPaddingValue=48, RescaleIntercept=-2048)
    for z, file in enumerate(sorted((tmp / "s").iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])):
        change(file, PixelData=(padded[z].astype(np.int32) + 2048).astype(np.uint16).tobytes())
    same(tmp / "s", np.where(padded == -2000, -1024, padded), remark="padding outside the scan")


@case
def padding_beside_an_offset(tmp: Path) -> None:
    shape = (12, 60, 60)
    tissue = np.full(shape, -1000, np.int16)
    tissue[:, 10:50, 10:50] = np.random.default_rng(0).integers(0, 200, (12, 40, 40))
    files = write_series(tmp / "s", tissue, RescaleIntercept=0, PixelPaddingValue=65535)
    for z, file in enumerate(files):
        stored = (tissue[z].astype(np.int32) + 1024).astype(np.uint16)
        stored[:3, :3] = 65535
        change(file, PixelData=stored.tobytes())
    tissue[:, :3, :3] = -1024
    same(tmp / "s", tissue, remark="padding outside the scan")
    same(tmp / "s", tissue, remark="read as HU + 1024")


@case
def enhanced_multi_frame(tmp: Path) -> None:
    enhanced(tmp / "one.dcm", A, np.random.default_rng(0).permutation(12))
    same(tmp / "one.dcm")


@case
def enhanced_one_frame_a_file(tmp: Path) -> None:
    even = A // 2 * 2
    for k in range(12):
        enhanced(tmp / "s" / f"{(5 * k) % 12}.dcm", even[k : k + 1], [0], [1.0 + k % 2], first=k)
    same(tmp / "s", even)


@case
def enhanced_own_slopes(tmp: Path) -> None:
    even = A // 2 * 2
    enhanced(tmp / "one.dcm", even, range(11, -1, -1), [1.0, 2.0] * 6)
    same(tmp / "one.dcm", even)


@case
def truncated_slice(tmp: Path) -> None:
    file = write_series(tmp / "s", A)[2]
    file.write_bytes(file.read_bytes()[:-300])
    refused(tmp / "s", "cannot be decoded")


@case
def truncated_header(tmp: Path) -> None:
    for length in (0, 100, 140, 400):
        for start in ("", "1.2.840."):
            folder = tmp / f"{start}{length}"
            top = write_series(folder, A, start)[-1]
            top.write_bytes(top.read_bytes()[:length])
            refused(folder, f"has {length} bytes" if length < 132 else "ends within its header|damaged header")
    files = write_series(tmp / "zip", A)
    with zipfile.ZipFile(tmp / "a.zip", "w") as archive:
        for file in files:
            archive.write(file, f"s/{file.name}.dcm")
        archive.writestr("s/lock.txt", "")
        archive.writestr("s/.DS_Store", "")
    same(tmp / "a.zip")  # what is empty and no image is passed over


@case
def name_of_another_system(tmp: Path) -> None:
    file = write_series(tmp / "s", A)[0]
    file.rename(os.fsdecode(os.fsencode(tmp / "s") + b"/caf\xe9"))
    refused(tmp / "s", "is no UTF-8")


@case
def colour_slices(tmp: Path) -> None:
    write_series(tmp / "s", A, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    refused(tmp / "s", "colour")


@pytest.mark.parametrize("name", sorted(case))
def test_row(name: str, tmp_path: Path) -> None:
    case[name](tmp_path)
