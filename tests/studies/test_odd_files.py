"""NIfTI, MHA, NRRD, picture and radiograph rows of docs/reference/odd_inputs.md, driven through read_image."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset

from m2net.errors import GeometryError, StudyError
from m2net.studies import read_image
from m2net.vocabulary import Intensity, Modality
from tests.studies.made import (
    ORIGIN,
    affine,
    compress,
    write_nifti,
    write_series,
    write_slice,
)
from tests.studies.odd import A, Cases, refused, same

case = Cases()


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
    directions = "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)"
    for space, told in (
        ("space dimension: 3", False),
        ("space: scanner-xyz", False),
        ("space: LPS", True),
        ("space: right-anterior-superior", True),
    ):
        other = head.replace("spacings: 1 1 1", f"{space}\n{directions}")
        (tmp / "a.nrrd").write_bytes(other.encode() + A.tobytes())
        if told:
            assert read_image(tmp / "a.nrrd").array.shape == A.shape
        else:
            refused(tmp / "a.nrrd", "no space such as left-posterior-superior", GeometryError)


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
def monochrome1_compressed(tmp: Path) -> None:
    pixels = np.arange(480).reshape(20, 24)
    radiograph(tmp / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1", WindowCenter=240, WindowWidth=200)
    plain = read_image(tmp / "a.dcm", modality=Modality.CXR)
    compress(tmp / "a.dcm", "jpeg")
    np.testing.assert_array_equal(read_image(tmp / "a.dcm", modality=Modality.CXR).array, plain.array)


@case
def radiograph_turned(tmp: Path) -> None:
    pixels = np.arange(480).reshape(20, 24)
    for told in (["L", "F"], ["LP", "F"], None):
        radiograph(tmp / "a.dcm", pixels, **({"PatientOrientation": told} if told else {}))
        assert read_image(tmp / "a.dcm", modality=Modality.CXR).array[0, 0, 0] == 0
    for told, remedy in ((["R", "F"], "Turn it"), (["F", "L"], "Turn it"), (["A", "F"], "Give the frontal view")):
        radiograph(tmp / "a.dcm", pixels, PatientOrientation=told)
        with pytest.raises(StudyError, match=f"rows to {told[0]} and columns to {told[1]}.*{remedy}"):
            read_image(tmp / "a.dcm", modality=Modality.CXR)


@case
def radiograph_padded(tmp: Path) -> None:
    """Corners outside a turned collimator neither set the scale nor shine."""
    pixels = np.arange(480).reshape(20, 24)
    padded = np.zeros(pixels.shape, bool)
    padded[:4, :4] = padded[-3:, -5:] = True
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        radiograph(tmp / "a.dcm", np.where(padded, 60000, pixels), PhotometricInterpretation=photometric, PixelPaddingValue=60000)
        found = read_image(tmp / "a.dcm", modality=Modality.CXR).array[0]
        low, high = pixels[~padded].min(), pixels[~padded].max()
        share = (pixels - low) / (high - low)
        np.testing.assert_allclose(found[~padded], 32767 * (1 - share if photometric[-1] == "1" else share)[~padded], atol=1)
        assert not found[padded].any()


@case
def radiograph_by_table(tmp: Path) -> None:
    """A table of 4,096 entries of 8 bits, as CR plates have: more than its values can count."""
    pixels = np.arange(4096).reshape(64, 64)
    for entries, depth in ((4096, 8), (4096, 12), (256, 8)):
        table = [k * (2**depth - 1) // (entries - 1) for k in range(entries)]
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [entries, 0, depth])
        item.add_new("LUTData", "US", table)
        radiograph(tmp / "a.dcm", pixels, VOILUTSequence=[item])
        found = read_image(tmp / "a.dcm", modality=Modality.CXR).array[0]
        np.testing.assert_allclose(found, 32767 * np.array(table)[np.minimum(pixels, entries - 1)] / max(table), atol=1)


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
    for order, photometric in (("<", 1), (">", 1), ("<", 0)):
        write_tiff(tmp / "a.tif", (pixels if photometric else 65535 - pixels).astype(f"{order}u2"), photometric)
        np.testing.assert_array_equal(read_image(tmp / "a.tif").array, found.array)

    dark = (pixels // 16).astype(np.uint16)  # 12 bit
    Image.fromarray(dark).save(tmp / "dark.png")
    write_tiff(tmp / "dark.tif", 4095 - dark, 0)
    np.testing.assert_array_equal(read_image(tmp / "dark.tif").array, read_image(tmp / "dark.png").array)


def write_tiff(path: Path, pixels: np.ndarray, photometric: int) -> None:
    """A TIFF of one strip, by hand: Pillow writes neither the other byte order nor white as the lowest."""
    order = pixels.dtype.str[0]
    rows, columns = pixels.shape
    tags = [(256, 3, columns), (257, 3, rows), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 200), (277, 3, 1), (278, 3, rows)]
    tags.append((279, 4, pixels.nbytes))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    short = [
        struct.pack(f"{order}HHIHH" if kind == 3 else f"{order}HHII", tag, kind, 1, value, *[0] * (kind == 3)) for tag, kind, value in tags
    ]
    path.write_bytes((head + b"".join(short) + bytes(4)).ljust(200, b"\0") + pixels.tobytes())


@case
def turned_picture(tmp: Path) -> None:
    pixels = (np.arange(480).reshape(20, 24) % 256).astype(np.uint8)
    upright = read_picture_of(pixels, tmp)
    for orientation, turn in ((2, np.fliplr), (3, lambda p: p[::-1, ::-1]), (6, lambda p: np.rot90(p, -1)), (8, np.rot90)):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(tmp / "a.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp / "a.png").array[0], turn(upright))


def read_picture_of(pixels: np.ndarray, tmp: Path) -> np.ndarray:
    Image.fromarray(pixels).save(tmp / "upright.png")
    return read_image(tmp / "upright.png").array[0]


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


@pytest.mark.parametrize("name", sorted(case))
def test_row(name: str, tmp_path: Path) -> None:
    case[name](tmp_path)
