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


def test_the_heart_between_the_lungs_stays_out() -> None:
    plane, lungs, heart = drawn(0.8)
    found, _, _ = find_picture_lungs(plane)
    assert (found & heart).sum() < 0.05 * heart.sum()
    assert (found & lungs).sum() > 0.95 * lungs.sum()


def test_a_consolidation_at_the_ribs_is_in() -> None:
    plane, lungs, _ = drawn(0.8)
    ill = lungs & (np.arange(160) < 46)[None, :] & (np.abs(np.arange(120) - 55) < 9)[:, None]
    plane[ill] = 0.6
    found, _, _ = find_picture_lungs(plane)
    assert (found & ill).sum() > 0.75 * ill.sum()


def test_ground_glass_is_in_where_soft_tissue_is_all_white() -> None:
    plane, lungs, _ = drawn(1.0)
    ill = lungs & (np.arange(160) > 80)[None, :]
    plane[ill] = 0.6
    found, _, _ = find_picture_lungs(plane)
    assert (found & ill).sum() > 0.95 * ill.sum()


def test_dark_stripes_under_the_patient_are_no_lung() -> None:
    plane, lungs, _ = drawn(0.8)
    plane[92:106, 30:80] = 0.1
    found, _, _ = find_picture_lungs(plane)
    assert not found[90:].any()
    assert (found & lungs).sum() > 0.95 * lungs.sum()


def test_fat_as_dark_as_lung_is_no_lung() -> None:
    """A mediastinal window: lung 0, fat a little above, muscle and bone bright."""
    plane, lungs, heart = drawn(0.25)
    plane[lungs] = 0.0
    wall = np.zeros_like(lungs)
    wall[25:90, 20:140] = True
    plane[wall & ~lungs] = 0.25
    plane[heart] = 1.0
    found, _, _ = find_picture_lungs(plane)
    assert (found & lungs).sum() > 0.95 * lungs.sum()
    assert found.sum() < 1.3 * lungs.sum()


def test_without_lungs_the_picture_is_kept_and_said() -> None:
    plane = np.full((80, 80), 0.6, np.float32)
    lungs, body, found = find_picture_lungs(plane)
    assert not found
    assert lungs.all()
    assert body.all()
