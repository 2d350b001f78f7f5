"""What is judged of a study that could be read: fields of view, lungs and masks, on phantoms with one thing wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m2net.phantoms import Phantom
from m2net.studies import Volume, find_thorax
from m2net.studies.masks import Mask
from m2net.studies.quality import Verdict, judge_read
from m2net.vocabulary import Column, Lobe
from tests.studies.made import around


def judged(phantom: Phantom, image: np.ndarray | None = None, **masks: np.ndarray) -> list[str]:
    volume = Volume.from_own(phantom.image if image is None else image, phantom.geometry)
    verdict = Verdict("a")
    judge_read(volume, {Column(kind): Mask(array) for kind, array in masks.items()}, verdict)
    return [finding.reason for finding in verdict.findings]


@pytest.mark.parametrize("margin", [-2, 0, 1, 2, 4])
def test_a_small_field_of_view_keeps_the_lungs(phantom: Phantom, margin: int) -> None:
    """The chest wall beside the lungs may be as thin as the pixels beyond them, or gone."""
    volume = Volume.from_own(phantom.image, phantom.geometry)
    mm = phantom.geometry.spacing_mm
    whole = find_thorax(volume, mm).lungs > 0
    seen = around(whole, margin)
    found = find_thorax(replace(volume, array=np.ascontiguousarray(volume.array[seen])), mm).lungs > 0
    assert (found & whole[seen]).sum() > 0.93 * whole[seen].sum()
    assert (found & ~whole[seen]).sum() < 0.06 * found.sum()


def test_infection_outside_the_lungs_is_said(phantom: Phantom) -> None:
    lobes, infection = phantom.lobes, phantom.infection
    assert not any("infection" in said for said in judged(phantom, lobes=lobes, infection=infection))
    assert not any("infection" in said for said in judged(phantom, infection=infection))
    elsewhere = np.roll(infection, infection.shape[1] // 2, axis=1)
    for masks in ({"lobes": lobes}, {}):
        assert any("% of the infection mask lies in the lungs" in said for said in judged(phantom, **masks, infection=elsewhere))


def test_a_white_lung_is_said(phantom: Phantom) -> None:
    left = np.isin(phantom.lobes, [Lobe.LEFT_UPPER, Lobe.LEFT_LOWER])
    assert not any("the other's air" in said for said in judged(phantom))
    said = judged(phantom, np.where(left, 35, phantom.image).astype(np.int16), lobes=phantom.lobes)
    assert any("the left lung that was found holds" in one for one in said)
    assert any("the lungs found are" in one for one in said)
