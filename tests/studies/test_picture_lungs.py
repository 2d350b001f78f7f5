"""Lungs in pictures of slices: framed, tightly cropped, with a table, in two windows."""

from __future__ import annotations

import numpy as np
import pytest

from m2net.phantoms import Phantom
from m2net.studies.picture_lungs import find_picture_lungs


def printed(phantom: Phantom, z: int, low: float, high: float) -> np.ndarray:
    return np.clip((phantom.image[z].astype(np.float32) - low) / (high - low), 0, 1)


def holds(found: np.ndarray, true: np.ndarray) -> bool:
    """Most of the lungs are in (a consolidation at the mediastinum is not), and little besides: no heart, no table."""
    return bool((found & true).sum() > 0.83 * true.sum() and found.sum() < 1.2 * true.sum())


@pytest.fixture(scope="module")
def middle(phantom: Phantom) -> int:
    return int((phantom.lungs > 0).sum((1, 2)).argmax())


@pytest.mark.parametrize("window", [(-1250, 150), (-1000, 300), (-160, 240)])
def test_lungs_in_any_window(phantom: Phantom, middle: int, window: tuple[int, int]) -> None:
    lungs, body, found = find_picture_lungs(printed(phantom, middle, *window))
    assert found
    assert holds(lungs, phantom.lungs[middle] > 0)
    assert body[lungs].all()


def test_lungs_of_a_mirrored_large_picture_are_mirrored(phantom: Phantom, middle: int) -> None:
    """Large pictures are looked at in cells; a mask that lay to one side of its cells would not mirror."""
    plane = printed(phantom, middle, -1250, 150)
    times = -(-400 // max(plane.shape))
    plane = plane.repeat(times, 0).repeat(times, 1)[:, : plane.shape[1] * times // 4 * 4]
    one, other = (find_picture_lungs(np.ascontiguousarray(picture))[0] for picture in (plane, plane[:, ::-1]))
    assert one.any()
    assert float((one ^ other[:, ::-1]).sum() / one.sum()) < 0.01


def test_a_printed_frame_is_not_in_the_way(phantom: Phantom, middle: int) -> None:
    framed = np.pad(np.pad(printed(phantom, middle, -1250, 150), 4, constant_values=1.0), 6, constant_values=0.0)
    lungs, _, found = find_picture_lungs(framed)
    assert found
    assert holds(lungs[10:-10, 10:-10], phantom.lungs[middle] > 0)


def test_a_crop_that_touches_the_lungs(phantom: Phantom, middle: int) -> None:
    true = phantom.lungs[middle] > 0
    rows, columns = np.flatnonzero(true.any(1)), np.flatnonzero(true.any(0))
    window = (slice(rows[0] - 2, rows[-1] + 3), slice(columns[0] - 2, columns[-1] + 3))
    lungs, _, found = find_picture_lungs(printed(phantom, middle, -1250, 150)[window])
    assert found
    assert holds(lungs, true[window])


DISC = np.hypot(*np.ogrid[-20:21, -20:21]) <= 20


def drawn(tissue: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two round lungs of 20 pixels in a body; the picture, the lungs, and a disc of tissue between them, the heart."""
    plane, lungs, heart = np.zeros((120, 160), np.float32), np.zeros((120, 160), bool), np.zeros((120, 160), bool)
    plane[10:110, 10:150] = tissue + np.random.default_rng(0).normal(0, 0.02, (100, 140))
    lungs[35:76, 30:71] |= DISC
    lungs[35:76, 90:131] |= DISC
    heart[30:71, 60:101] |= DISC
    lungs &= ~heart
    plane[lungs] = 0.1 * tissue
    return np.clip(plane, 0, 1), lungs, heart


def covered(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / true.sum())


def test_the_heart_between_the_lungs_stays_out() -> None:
    plane, lungs, heart = drawn(0.8)
    found, _, _ = find_picture_lungs(plane)
    assert covered(found, heart) < 0.05
    assert covered(found, lungs) > 0.95


def test_a_consolidation_at_the_ribs_is_in() -> None:
    plane, lungs, _ = drawn(0.8)
    ill = lungs & (np.arange(160) < 46)[None, :] & (np.abs(np.arange(120) - 55) < 9)[:, None]
    plane[ill] = 0.8
    assert covered(find_picture_lungs(plane)[0], ill) > 0.75


def test_ground_glass_at_the_heart_is_in_on_either_side() -> None:
    plane, lungs, _ = drawn(0.8)
    ill = lungs & (np.arange(160) > 98)[None, :] & (np.arange(160) < 112)[None, :] & (np.abs(np.arange(120) - 55) < 9)[:, None]
    plane[ill] = 0.4
    found, _, _ = find_picture_lungs(plane)
    mirrored, _, _ = find_picture_lungs(plane[:, ::-1])
    assert covered(found, ill) > 0.8
    assert covered(mirrored, ill[:, ::-1]) > 0.8


def test_speckled_ground_glass_is_in_where_soft_tissue_is_all_white(rng: np.random.Generator) -> None:
    plane, lungs, heart = drawn(1.0)
    plane[:, :] = 1.0
    plane[lungs] = rng.uniform(0.1, 0.95, int(lungs.sum()))
    found, _, _ = find_picture_lungs(plane)
    assert covered(found, lungs) > 0.7
    assert covered(found, heart) < 0.1


def test_a_nodule_is_in_and_the_dome_of_the_liver_is_not() -> None:
    plane, lungs, _ = drawn(0.8)
    nodule, dome = np.hypot(*np.ogrid[-55:65, -50:110]) <= 5, np.hypot(*np.ogrid[-55:65, -114:46]) <= 9
    plane[nodule | dome] = 0.8
    found, _, _ = find_picture_lungs(plane)
    assert covered(found, nodule) > 0.95
    assert covered(found, dome) < 0.2
    assert covered(found, lungs & ~dome) > 0.95


def test_dark_stripes_under_the_patient_are_no_lung() -> None:
    plane, lungs, _ = drawn(0.8)
    plane[92:106, 30:80] = 0.1
    found, _, _ = find_picture_lungs(plane)
    assert not found[90:].any()
    assert covered(found, lungs) > 0.95


def test_air_beside_the_patient_is_no_lung() -> None:
    plane, lungs, _ = drawn(0.8)
    plane[60:90, 10:22] = 0.05
    found, _, _ = find_picture_lungs(plane)
    assert not found[60:90, 10:22].any()
    assert covered(found, lungs) > 0.95


def test_a_crop_through_one_lung_keeps_both() -> None:
    plane, lungs, _ = drawn(0.8)
    plane, lungs = np.roll(plane, (12, 0), (0, 1)), np.roll(lungs, (12, 0), (0, 1))
    plane[:, 80:], lungs[:, 80:] = np.roll(plane[:, 80:], -16, 0), np.roll(lungs[:, 80:], -16, 0)
    for cut in (80, 84):  # the left half's lung ends at 87, the other at 71
        assert covered(find_picture_lungs(plane[12:cut])[0], lungs[12:cut]) > 0.9


def test_a_lung_alone_is_filled_away_from_the_heart() -> None:
    """The other side is all white."""
    plane, lungs, heart = drawn(0.8)
    plane[:, 81:150] = 0.8
    found, _, _ = find_picture_lungs(plane)
    assert covered(found, lungs & (np.arange(160) < 81)[None, :]) > 0.95
    assert covered(found, heart) < 0.05


def test_fat_as_dark_as_lung_is_no_lung(rng: np.random.Generator) -> None:
    """A mediastinal window: lung 0, fat within the ribs a little above, muscle and bone bright."""
    plane, lungs, heart = drawn(0.9)
    plane[25:90, 20:140] = rng.uniform(0.1, 0.3, (65, 120))
    plane[heart], plane[lungs] = 0.9, 0.0
    inner = (slice(20, 95), slice(15, 145))
    found, _, known = find_picture_lungs(plane[inner])
    assert known
    assert covered(found, lungs[inner]) > 0.95
    assert found.sum() < 1.3 * lungs.sum()


def test_without_lungs_the_picture_is_kept_and_said() -> None:
    plane = np.full((80, 80), 0.6, np.float32)
    lungs, body, found = find_picture_lungs(plane)
    assert not found
    assert lungs.all()
    assert body.all()
