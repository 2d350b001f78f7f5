from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2net.errors import GeometryError
from m2net.studies import Geometry, read_image, read_mask, to_lps, write_on_own_grid
from m2net.vocabulary import Column

ORIENTATIONS = list(product(permutations(range(3)), product([False, True], repeat=3)))


@pytest.fixture(scope="module")
def reference() -> tuple[np.ndarray, np.ndarray, Geometry]:
    """An asymmetric volume: every voxel has a value of its own."""
    shape = (5, 6, 7)
    array = (np.arange(np.prod(shape)).reshape(shape) - 1000).astype(np.int16)
    lobes = np.zeros(shape, np.uint8)
    lobes[:2, :, 4:] = 2  # left (x grows left), low: left lower
    lobes[3:, :3, :3] = 3
    lobes[2, 1, 1] = 4
    return array, lobes, Geometry.build((3.0, 1.5, 1.0), (-20.0, -30.0, -400.0), np.eye(3))


def turned(array: np.ndarray, geometry: Geometry, order: tuple[int, ...], flips: tuple[bool, ...], tilt: np.ndarray) -> sitk.Image:
    """The same patient stored with its axes permuted and flipped: no voxel is interpolated."""
    image = geometry.place(sitk.GetImageFromArray(array))
    image.SetDirection((tilt @ np.eye(3)).ravel().tolist())
    image = sitk.PermuteAxes(image, [int(o) for o in order])
    return sitk.Flip(image, [bool(f) for f in flips], flipAboutOrigin=False)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
@pytest.mark.parametrize("oblique", [False, True])
def test_every_orientation_comes_back_the_same(tmp_path: Path, reference, order, flips, oblique: bool) -> None:
    array, lobes, geometry = reference
    angle = 0.12 if oblique else 0.0
    tilt = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for name, values in (("image.nii.gz", array), ("lobes.nii.gz", lobes)):
        sitk.WriteImage(turned(values, geometry, order, flips, tilt), str(tmp_path / name))

    volume = read_image(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.geometry is not None
    np.testing.assert_allclose(volume.geometry.spacing_mm, geometry.spacing_mm, rtol=1e-5)
    np.testing.assert_allclose(volume.geometry.origin_mm, geometry.origin_mm, atol=1e-3)
    np.testing.assert_allclose(volume.geometry.axes, tilt, atol=1e-5)
    np.testing.assert_array_equal(read_mask(tmp_path / "lobes.nii.gz", Column.LOBES, volume).array, lobes)

    write_on_own_grid(tmp_path / "out.nii.gz", lobes, volume)
    given, got = sitk.ReadImage(str(tmp_path / "lobes.nii.gz")), sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(given))
    np.testing.assert_allclose(got.GetOrigin(), given.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(got.GetDirection(), given.GetDirection(), atol=1e-5)


def test_sheared_axes_are_refused() -> None:
    axes = np.array([[1.0, 0.3, 0], [0, 1.0, 0], [0, 0, 1.0]])
    with pytest.raises(GeometryError, match="right angles"):
        to_lps(np.zeros((2, 2, 2), np.int16), Geometry.build((1, 1, 1), (0, 0, 0), axes))


def test_mask_on_another_grid_is_resampled_and_said(tmp_path: Path, reference) -> None:
    array, lobes, geometry = reference
    sitk.WriteImage(geometry.place(sitk.GetImageFromArray(array)), str(tmp_path / "image.mha"))
    moved = Geometry.build(geometry.spacing_mm, (-20.0, -30.0, -397.0), np.eye(3))
    sitk.WriteImage(moved.place(sitk.GetImageFromArray(lobes)), str(tmp_path / "lobes.mha"))
    image = read_image(tmp_path / "image.mha")
    mask = read_mask(tmp_path / "lobes.mha", Column.LOBES, image)
    np.testing.assert_array_equal(mask.array[1:], lobes[:-1])  # one slice higher
    assert [r.check for r in mask.remarks] == ["mask"]
    far = Geometry.build(geometry.spacing_mm, (-20.0, -30.0, 0.0), np.eye(3))
    sitk.WriteImage(far.place(sitk.GetImageFromArray(lobes)), str(tmp_path / "far.mha"))
    with pytest.raises(GeometryError, match="lies elsewhere"):
        read_mask(tmp_path / "far.mha", Column.LOBES, image)


def test_voxel_volume() -> None:
    assert Geometry.build((5.0, 2.0, 1.0), (0, 0, 0), np.eye(3)).voxel_ml == pytest.approx(0.01)
