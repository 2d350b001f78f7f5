"""Every row of docs/reference/odd_inputs.md, driven through read_image and read_mask."""

from __future__ import annotations

import gzip
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Extension
from PIL import Image

from m2net.errors import GeometryError, M2NetError, StudyError
from m2net.studies import ReadOptions, Volume, read_image, read_mask
from m2net.vocabulary import Column, Intensity, Modality
from tests.studies.made import (
    ORIGIN,
    SPACING,
    affine,
    at,
    change,
    compress,
    enhanced,
    volume,
    write_nifti,
    write_series,
    write_slice,
)

TABLE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "odd_inputs.md"
CASES: dict[str, Callable[[Path], None]] = {}
A = volume()


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[function.__name__] = function
    return function


def test_every_row_of_the_table_is_a_case() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows)) >= 40
    assert set(rows) == set(CASES)


def refused(path: Path, match: str, error: type[M2NetError] = StudyError, **options: Any) -> None:
    with pytest.raises(error, match=match):
        read_image(path, ReadOptions(**options))


def same(path: Path, array: np.ndarray = A, remark: str = "", **options: Any) -> Volume:
    """Reads as ``array`` in its place; the remarks are harmless, or one holds ``remark``."""
    found = read_image(path, ReadOptions(**options))
    np.testing.assert_array_equal(found.array, array)
    assert found.geometry is not None
    np.testing.assert_allclose(found.geometry.spacing_mm, SPACING, rtol=1e-4)
    np.testing.assert_allclose(found.geometry.origin_mm, ORIGIN, atol=1e-3)
    if remark:
        assert any(remark in text for text in found.notes), found.notes
    else:
        assert not found.remarks
    return found


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
def two_patients(tmp: Path) -> None:
    write_series(tmp / "s", A)
    write_series(tmp / "s", volume(1), "b", PatientID="P2", SeriesInstanceUID="1.2.9")
    refused(tmp / "s", "images of 2 patients")


@case
def broken_uids(tmp: Path) -> None:
    write_series(tmp / "s", A, SOPInstanceUID="", SeriesInstanceUID="{6F9619FF-8B86-D011-B42D-00CF4FC964FF}")
    same(tmp / "s")


# ---- DICOM: which series


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
def two_acquisitions(tmp: Path) -> None:
    write_series(tmp / "s", A, AcquisitionNumber=1)
    write_series(tmp / "s", volume(1)[:9], "b", AcquisitionNumber=2)
    same(tmp / "s", remark="acquisition 1")


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
def padding(tmp: Path) -> None:
    padded = A.copy()
    padded[:, :3, :3] = -2000
    write_series(tmp / "s", padded, PixelPaddingValue=48, RescaleIntercept=-2048)
    for z, file in enumerate(sorted((tmp / "s").iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])):
        change(file, PixelData=(padded[z].astype(np.int32) + 2048).astype(np.uint16).tobytes())
    same(tmp / "s", np.where(padded == -2000, -1024, padded), remark="padding outside the scan")


@case
def enhanced_multi_frame(tmp: Path) -> None:
    enhanced(tmp / "one.dcm", A, np.random.default_rng(0).permutation(12))
    same(tmp / "one.dcm")


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
def colour_slices(tmp: Path) -> None:
    write_series(tmp / "s", A, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    refused(tmp / "s", "colour")


# ---- NIfTI, MHA, NRRD


@case
def no_orientation(tmp: Path) -> None:
    image = nibabel.Nifti1Image(A.T, affine())
    image.header.set_sform(None, 0)
    image.header.set_qform(None, 0)
    nibabel.save(nibabel.Nifti1Image(A.T, None, image.header), tmp / "a.nii.gz")
    refused(tmp / "a.nii.gz", "does not say how it lies", GeometryError)


@case
def nearly_right_angles(tmp: Path) -> None:
    matrix = affine()
    matrix[0, 1] += 0.01
    write_nifti(tmp / "a.nii.gz", A, matrix)
    same(tmp / "a.nii.gz", remark="nearest right angles")


@case
def sheared_header(tmp: Path) -> None:
    matrix = affine()
    matrix[1, 2] += 0.8
    write_nifti(tmp / "a.nii.gz", A, matrix)
    refused(tmp / "a.nii.gz", "not at right angles", GeometryError)


@case
def two_places(tmp: Path) -> None:
    image = nibabel.Nifti1Image(A.T, affine())
    image.set_qform(affine(origin=ORIGIN + 20), 1)
    image.set_sform(affine(), 1)
    nibabel.save(image, tmp / "a.nii.gz")
    same(tmp / "a.nii.gz", remark="the sform was used")


@case
def four_dimensions(tmp: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.stack([A.T, A.T], -1), affine()), tmp / "a.nii.gz")
    refused(tmp / "a.nii.gz", r"4 dimensions \(20x24x12x2\)")


@case
def trailing_dimension(tmp: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(A.T[..., None], affine()), tmp / "a.nii.gz")
    image = nibabel.load(tmp / "a.nii.gz")
    assert image.shape in ((20, 24, 12, 1), (20, 24, 12))
    same(tmp / "a.nii.gz", remark="size 1 dropped" if len(image.shape) == 4 else "")


@case
def scaled_integers(tmp: Path) -> None:
    image = nibabel.Nifti1Image((A.T.astype(np.int32) + 1024).astype(np.int16), affine())
    image.header.set_slope_inter(1, -1024)
    nibabel.save(image, tmp / "a.nii.gz")
    data = bytearray(gzip.decompress((tmp / "a.nii.gz").read_bytes()))
    data[352:] = (A + 1024).astype("<i2").tobytes()
    data[112:120] = struct.pack("<ff", 1.0, -1024.0)
    (tmp / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))
    same(tmp / "a.nii.gz")


@case
def float_hu(tmp: Path) -> None:
    write_nifti(tmp / "a.nii.gz", A.astype(np.float64) + 0.2)
    same(tmp / "a.nii.gz")


@case
def unsigned_storage(tmp: Path) -> None:
    write_nifti(tmp / "a.nii.gz", (bright() + 1024).astype(np.uint16))
    same(tmp / "a.nii.gz", bright(), remark="read as HU + 1024")


def bright() -> np.ndarray:
    array = np.full(A.shape, -1000, np.int16)
    array[:, 4:20, 4:16] = 40
    array[:, 6:18, 6:14] = -850
    array[:, 10:12, 10:12] = 400
    return array


@case
def windowed_picture_volume(tmp: Path) -> None:
    write_nifti(tmp / "a.nii.gz", np.clip((A + 1250) / 6, 0, 255).astype(np.uint8))
    refused(tmp / "a.nii.gz", "no negative value")


@case
def normalised_values(tmp: Path) -> None:
    write_nifti(tmp / "a.nii.gz", ((A + 1000) / 1400).astype(np.float32))
    refused(tmp / "a.nii.gz", "scaled or normalised")


@case
def not_a_number(tmp: Path) -> None:
    values = A.astype(np.float32)
    values[0, 0, :3] = np.nan
    write_nifti(tmp / "a.nii.gz", values)
    refused(tmp / "a.nii.gz", "3 NaN")


@case
def gzip_bomb(tmp: Path) -> None:
    write_nifti(tmp / "a.nii", A)
    data = bytearray((tmp / "a.nii").read_bytes())
    data[40:56] = struct.pack("<8h", 3, 2000, 2000, 2000, 1, 1, 1, 1)
    (tmp / "bomb.nii.gz").write_bytes(gzip.compress(bytes(data)))
    refused(tmp / "bomb.nii.gz", "claims 2000x2000x2000 voxels")


@case
def truncated_gzip(tmp: Path) -> None:
    write_nifti(tmp / "a.nii.gz", A)
    data = (tmp / "a.nii.gz").read_bytes()
    (tmp / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    refused(tmp / "cut.nii.gz", "cannot be read")


@case
def truncated_nifti(tmp: Path) -> None:
    write_nifti(tmp / "a.nii", A)
    (tmp / "cut.nii").write_bytes((tmp / "a.nii").read_bytes()[:3000])
    refused(tmp / "cut.nii", "claims 20x24x12 voxels but has 3000 bytes")


@case
def text_file(tmp: Path) -> None:
    (tmp / "a.nii.gz").write_text("not an image")
    refused(tmp / "a.nii.gz", "cannot be read")


@case
def voxels_in_metres(tmp: Path) -> None:
    write_nifti(tmp / "a.nii.gz", A, affine((0.0025, 0.0015, 0.00125), ORIGIN / 1000))
    refused(tmp / "a.nii.gz", "0.05 to 50 mm", GeometryError)


@case
def mha_without_orientation(tmp: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(A), str(tmp / "a.mha"))
    head, _, rest = (tmp / "a.mha").read_bytes().partition(b"TransformMatrix = ")
    (tmp / "a.mha").write_bytes(head + rest.partition(b"\n")[2])
    refused(tmp / "a.mha", "no TransformMatrix", GeometryError)


@case
def nrrd_without_orientation(tmp: Path) -> None:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 20 24 12\nspacings: 1 1 1\nencoding: raw\nendian: little\n\n"
    (tmp / "a.nrrd").write_bytes(head.encode() + A.tobytes())
    refused(tmp / "a.nrrd", "no space directions", GeometryError)


# ---- pictures and radiographs


def radiograph(path: Path, pixels: np.ndarray, **tags: Any) -> None:
    write_slice(path, pixels.astype(np.int32) - 1024, ORIGIN, **{
        "Modality": "DX", "ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None,
        "RescaleIntercept": 0, **tags,
    })  # fmt: skip


@case
def monochrome1(tmp: Path) -> None:
    pixels = np.arange(480).reshape(20, 24)
    radiograph(
        tmp / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1", WindowCenter=240, WindowWidth=200, ImagerPixelSpacing=[0.2, 0.2]
    )
    found = read_image(tmp / "a.dcm", modality=Modality.CXR)
    shown = np.clip((pixels - 239.5) / 199 + 0.5, 0, 1)  # DICOM PS3.3 C.11.2.1.2
    np.testing.assert_allclose(found.array[0], (1 - shown) * 32767, atol=1)
    assert found.pixel_mm == (0.2, 0.2)
    assert "detector" in found.notes[0]
    assert found.tags["inverted"]


@case
def two_views(tmp: Path) -> None:
    for view in ("PA", "LL"):
        radiograph(tmp / "s" / view, np.arange(480).reshape(20, 24), ViewPosition=view)
    with pytest.raises(StudyError, match="2 radiographs"):
        read_image(tmp / "s", modality=Modality.CXR)


@case
def ct_called_radiograph(tmp: Path) -> None:
    write_series(tmp / "s", A)
    with pytest.raises(StudyError, match="holds CT"):
        read_image(tmp / "s", modality=Modality.CXR)


@case
def sixteen_bit_picture(tmp: Path) -> None:
    pixels = (np.arange(480).reshape(20, 24) * 130).astype(np.uint16)
    Image.fromarray(pixels).save(tmp / "a.png")
    found = read_image(tmp / "a.png")
    assert found.intensity is Intensity.RELATIVE
    np.testing.assert_allclose(found.array[0], pixels / 65535 * 32767, atol=0.51)


@case
def colour_picture(tmp: Path) -> None:
    pixels = np.zeros((20, 24, 3), np.uint8)
    pixels[..., 0] = np.arange(24)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    Image.fromarray(grey).save(tmp / "grey.png")
    assert read_image(tmp / "grey.png").array.shape == (1, 20, 24)
    Image.fromarray(pixels).save(tmp / "a.png")
    refused(tmp / "a.png", "colour picture")


@case
def many_pictures(tmp: Path) -> None:
    pages = [Image.fromarray(np.full((20, 24), v, np.uint8)) for v in (1, 2)]
    pages[0].save(tmp / "a.tiff", save_all=True, append_images=pages[1:])
    refused(tmp / "a.tiff", "holds 2 pictures")


@case
def blank_picture(tmp: Path) -> None:
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(tmp / "a.png")
    refused(tmp / "a.png", "one grey value")


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
    lungs = read_mask(tmp / "named.nii.gz", Column.LUNGS, like).array
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
def picture_mask_of_another_size(tmp: Path) -> None:
    Image.fromarray(A[5].astype(np.uint8)).save(tmp / "a.png")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp / "m.png")
    with pytest.raises(GeometryError, match=r"\(20, 20\) pixels"):
        read_mask(tmp / "m.png", Column.LOBES, read_image(tmp / "a.png"))


@pytest.mark.parametrize("name", sorted(CASES))
def test_row(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path)
