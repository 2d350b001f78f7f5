"""Real series; skipped where they are absent."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from m2net.studies import find_thorax, read_image
from tests.conftest import REAL
from tests.studies.made import around


def here(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (REAL / folder).is_dir(), reason="the real images are not here")


@here("ct_volumes")
@pytest.mark.parametrize(("name", "slices", "spacing"), [("P001", 148, 2.0), ("cap002", 66, 4.0), ("normal001", 77, 4.0)])
def test_series_are_read_in_the_stated_order(name: str, slices: int, spacing: float) -> None:
    volume = read_image(REAL / "ct_volumes" / name)
    assert volume.geometry is not None
    assert volume.array.shape == (slices, 512, 512)
    assert volume.geometry.spacing_mm[0] == pytest.approx(spacing, abs=1e-3)
    with (REAL / "ct_volumes" / "slice_labels.csv").open() as file:
        labels = [row for row in csv.DictReader(file) if row["study_id"] == name]
    for row in labels[:: len(labels) // 7]:
        from_top = int(row["z_index_superior_first"])
        single = sitk.GetArrayFromImage(sitk.ReadImage(str(REAL / "ct_volumes" / row["file"])))
        np.testing.assert_array_equal(volume.array[slices - 1 - from_top], single.reshape(512, 512))
    thorax = find_thorax(volume, volume.geometry.spacing_mm)
    litres = [(thorax.lungs == side).sum() * volume.geometry.voxel_ml / 1000 for side in (1, 2)]
    assert all(0.8 < litre < 4.5 for litre in litres)


@here("ct_volumes")
@pytest.mark.parametrize("name", ["P001", "cap002", "normal001"])
def test_a_small_field_of_view_keeps_the_lungs(name: str) -> None:
    """Cut 3 mm beside the lungs; less than half of them was found so, before the wall went on beyond the picture."""
    volume = read_image(REAL / "ct_volumes" / name)
    assert volume.geometry is not None
    mm = volume.geometry.spacing_mm
    whole = find_thorax(volume, mm).lungs > 0
    seen = around(whole, round(3 / mm[1]))
    found = find_thorax(replace(volume, array=np.ascontiguousarray(volume.array[seen])), mm).lungs > 0
    assert (found & whole[seen]).sum() > 0.92 * whole[seen].sum()
    assert (found & ~whole[seen]).sum() < 0.05 * found.sum()


@here("ct_lobes")
def test_lungs_of_pictures_agree_with_masks_drawn_by_hand() -> None:
    """34 slices of 17 patients, lobes marked; the two lowest hold slivers of lung too small to be looked for."""
    shares = []
    with (REAL / "ct_lobes" / "pairs.csv").open() as file:
        for row in csv.DictReader(file):
            volume = read_image(REAL / "ct_lobes" / row["image"])
            found, drawn = (
                find_thorax(volume, None).lungs[0] > 0,
                sitk.GetArrayFromImage(sitk.ReadImage(str(REAL / "ct_lobes" / row["mask"]))) > 0,
            )
            shares.append(2 * (found & drawn).sum() / (found.sum() + drawn.sum()))
    assert len(shares) == 34
    assert np.median(shares) > 0.95  # filled to their convex hulls 0.91
    assert sorted(shares)[2] > 0.7
