from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from m2net.errors import StudyError
from m2net.phantoms import SCANNERS, SEVERITY_MODELS, Phantom, make_phantom, write_nifti
from m2net.studies import Geometry, Volume, find_thorax, read_image, read_mask
from m2net.vocabulary import Column, Diagnosis, Intensity


def test_text_named_nifti(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("not an image")
    with pytest.raises(StudyError, match="cannot be read"):
        read_image(tmp_path / "a.nii.gz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not exist"):
        read_image(tmp_path / "a.nii.gz")


def test_four_dimensions_and_stored_offsets_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.int16), isVector=False), str(tmp_path / "four.nii.gz"))
    with pytest.raises(StudyError, match="4 dimensions"):
        read_image(tmp_path / "four.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), str(tmp_path / "offset.nii.gz"))
    with pytest.raises(StudyError, match="no negative value"):
        read_image(tmp_path / "offset.nii.gz")


def test_float_hu_are_rounded(tmp_path: Path) -> None:
    values = np.full((3, 4, 5), -999.6, np.float32)
    values[0] = 40.4
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "float.mha"))
    array = read_image(tmp_path / "float.mha").array
    assert (array[0] == 40).all()
    assert (array[1:] == -1000).all()


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_picture_is_relative_and_has_no_geometry(tmp_path: Path, dtype: type, top: int) -> None:
    pixels = np.zeros((40, 50), dtype)
    pixels[3, 7] = top
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / "a.png"))
    volume = read_image(tmp_path / "a.png")
    assert volume.intensity is Intensity.RELATIVE
    assert volume.geometry is None
    assert volume.array.shape == (1, 40, 50)
    assert volume.array.max() == volume.array[0, 3, 7] == 32767


def test_colour_picture_is_refused(tmp_path: Path) -> None:
    colours = np.zeros((20, 20, 3), np.uint8)
    colours[..., 0] = 200
    Image.fromarray(colours).save(tmp_path / "photo.png")
    with pytest.raises(StudyError, match="colour"):
        read_image(tmp_path / "photo.png")


def test_strange_mask_codes_are_named(tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "image.nii.gz", phantom.image, phantom.geometry)
    write_nifti(tmp_path / "lobes.nii.gz", np.where(phantom.lobes == 4, 9, phantom.lobes).astype(np.uint8), phantom.geometry)
    with pytest.raises(StudyError, match=r"codes \[9\]"):
        read_mask(tmp_path / "lobes.nii.gz", Column.LOBES, read_image(tmp_path / "image.nii.gz"))


def test_lungs_are_found_on_the_right_sides(tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "image.nii.gz", phantom.image, phantom.geometry)
    volume = read_image(tmp_path / "image.nii.gz")
    thorax = find_thorax(volume, phantom.geometry.spacing_mm)
    for side in (1, 2):
        found, true = thorax.lungs == side, phantom.lungs == side
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85


def gas_inside(phantom: Phantom) -> np.ndarray:
    """Air within the body's outline, slice by slice, below the lungs: of stomach and bowel."""
    tissue = phantom.image > -300
    enclosed = np.stack([ndimage.binary_fill_holes(plane) for plane in tissue])
    gas = enclosed & (phantom.image < -900) & (phantom.lungs == 0)
    gas[phantom.lungs.any(axis=(1, 2)).argmax() + 3 :] = False
    return np.asarray(gas)


def test_bowel_gas_is_no_lung() -> None:
    patients = (
        make_phantom((3, k), SCANNERS["home"], Diagnosis.NON_PNEUMONIA, SEVERITY_MODELS[2], matrix=96, slice_mm=6.0) for k in range(30)
    )
    patient, gas = next((p, g) for p in patients if (g := gas_inside(p)).sum() > 20)
    thorax = find_thorax(Volume.from_own(patient.image, patient.geometry), patient.geometry.spacing_mm)
    assert not (thorax.lungs > 0)[gas].any()


def test_lungs_of_a_mirrored_chest_are_mirrored(phantom: Phantom) -> None:
    """Lungs are looked for on coarse cells; a mask that lay to one side of its cells would not mirror."""
    fine = ndimage.zoom(phantom.image, (1, 3, 3), order=1, mode="nearest", grid_mode=True)
    z, y, x = phantom.geometry.spacing_mm
    assert round(4 / (x / 3)) == 3
    assert fine.shape[2] % 3 == 0
    geometry = Geometry.build((z, y / 3, x / 3), np.zeros(3), np.eye(3))
    one, other = (
        find_thorax(Volume.from_own(np.ascontiguousarray(array), geometry), (z, y / 3, x / 3)).lungs > 0
        for array in (fine, fine[:, :, ::-1])
    )
    assert one.any()
    assert float((one ^ other[:, :, ::-1]).sum() / one.sum()) < 0.002


def test_no_lung_is_an_error(tmp_path: Path, phantom: Phantom) -> None:
    write_nifti(tmp_path / "solid.nii.gz", np.maximum(phantom.image, -80).astype(np.int16), phantom.geometry)
    with pytest.raises(StudyError, match="no lung was found"):
        find_thorax(read_image(tmp_path / "solid.nii.gz"), phantom.geometry.spacing_mm)
