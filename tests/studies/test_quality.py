"""What is judged of a study that could be read: fields of view, lungs and masks, on phantoms with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2net.phantoms import Phantom
from m2net.studies import Study, Volume, find_thorax
from m2net.studies.mask_quality import judge_flag
from m2net.studies.masks import Mask
from m2net.studies.quality import judge_read
from m2net.studies.verdict import Verdict
from m2net.vocabulary import Column, Lobe, Modality
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


def one_sided(lobes: np.ndarray, side: str, code: int) -> np.ndarray:
    """A mask of one code over one lung, or over both."""
    left = np.isin(lobes, [Lobe.LEFT_UPPER, Lobe.LEFT_LOWER])
    where = {"left": left, "right": (lobes > 0) & ~left, "both": lobes > 0}[side]
    return np.where(where, code, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "code", "said"),
    [("left", 2, None), ("right", 1, None), ("both", 3, None), ("left", 1, "calls right lie in the left lung"),
     ("right", 2, "calls left lie in the right lung"), ("both", 1, "calls both lungs right")],
)  # fmt: skip
def test_a_mask_of_one_code_lies_where_it_says(phantom: Phantom, side: str, code: int, said: str | None) -> None:
    found = judged(phantom, lungs=one_sided(phantom.lobes, side, code))
    assert [one for one in found if "lie in the" in one or "calls both" in one] == ([one for one in found if said in one] if said else [])
    assert bool([one for one in found if said and said in one]) is (said is not None)


def test_left_lobes_under_right_names_are_refused(phantom: Phantom) -> None:
    codes = np.zeros(6, np.uint8)
    codes[[Lobe.LEFT_UPPER, Lobe.LEFT_LOWER]] = Lobe.RIGHT_UPPER, Lobe.RIGHT_LOWER
    assert any("calls right lie in the left lung" in said for said in judged(phantom, lobes=codes[phantom.lobes]))


@pytest.mark.parametrize(
    ("infected", "drawn", "told"), [(True, True, False), (False, False, False), (True, False, True), (False, True, True)]
)
def test_the_column_and_the_mask_say_the_same(infected: bool, drawn: bool, told: bool) -> None:
    study = Study("a", "a", Modality.CT, Path("a.nii.gz"), infected=infected)
    verdict = Verdict("a")
    judge_flag(study, {Column.INFECTION: Mask(np.full((2, 2, 2), int(drawn), np.uint8))}, verdict)
    assert bool(verdict.findings) is told
