"""Lungs in pictures of slices: framed, tightly cropped, with a table, in two windows."""

from __future__ import annotations

import numpy as np
import pytest

from m2net.phantoms import Phantom
from m2net.studies.picture_lungs import find_picture_lungs


def printed(phantom: Phantom, z: int, low: float, high: float) -> np.ndarray:
    return np.clip((phantom.image[z].astype(np.float32) - low) / (high - low), 0, 1)


def holds(found: np.ndarray, true: np.ndarray) -> bool:
    """Most of the lungs are in (small pictures lose their rims), and at most half as much of what the convex hulls hold besides."""
    return bool((found & true).sum() > 0.83 * true.sum() and found.sum() < 1.5 * true.sum())


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


def test_without_lungs_the_picture_is_kept_and_said() -> None:
    plane = np.full((80, 80), 0.6, np.float32)
    lungs, body, found = find_picture_lungs(plane)
    assert not found
    assert lungs.all()
    assert body.all()
