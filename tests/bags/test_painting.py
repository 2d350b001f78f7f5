"""Gas and organs that are painted beside the lungs: where, by which key, and that training says when masks decide who gets them."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from m2net.bags import Augmentation, InputSpec, Prepared, cut_bag, full_slices, prepare_volume
from m2net.bags.datamodule import BagDataModule
from m2net.errors import ConfigError
from m2net.phantoms import Phantom
from m2net.studies import Volume
from m2net.vocabulary import UNLABELLED

SPEC = InputSpec(spacing_mm=4.0, patch=48, view="slices", window=(-1000.0, 100.0))


@pytest.fixture(scope="module")
def study(phantom: Phantom) -> Prepared:
    volume = Volume.from_own(phantom.image, phantom.geometry)
    return prepare_volume(volume, {"lobes": phantom.lobes, "lungs": phantom.lungs}, 4.0)


@pytest.mark.parametrize(("setting", "least"), [("pockets", 0.03), ("organs", 0.08)])
def test_what_is_painted_lies_in_the_body_outside_the_lungs_only(study: Prepared, setting: str, least: float) -> None:
    """Against the untouched picture: nothing changes in a lobe, in air, or where no mask is known; elsewhere much does, by key."""
    batch = cut_bag(study, full_slices(study, 48), SPEC, "s", 3, ("lobes",))
    lobes = batch.dense["lobes"].clone()
    lobes[:, :, :10] = UNLABELLED
    batch = replace(batch, dense={"lobes": lobes})
    painter = Augmentation.of({setting: 1.0}, SPEC, ("lobes",))
    drawn = painter.paint(batch)
    changed = (drawn.instances != batch.instances).any(1)
    assert not bool(changed[lobes != 0].any())
    assert not bool(changed[batch.instances.amin(1) < -500].any())
    assert float(changed[(lobes == 0) & (batch.instances.amin(1) > 0)].float().mean()) > least
    assert torch.equal(drawn.dense["lobes"], lobes)
    unknown = torch.full_like(lobes, UNLABELLED)
    other = painter.paint(replace(batch, dense={"lobes": unknown, "lungs": lobes.clamp(max=1)}))
    assert torch.equal(other.instances, drawn.instances)  # a study with lungs only
    beyond = torch.zeros_like(lobes)
    beyond[:, 24:] = (lobes[:, 24:] == 0).long()  # infection that the mask of the lobes leaves out
    kept = painter.paint(replace(batch, dense={"lobes": lobes, "infection": beyond}))
    assert not bool((kept.instances != batch.instances).any(1)[:, 24:].any())
    assert torch.equal(kept.instances[:, :, :20], drawn.instances[:, :, :20])
    assert torch.equal(painter.paint(batch).instances, drawn.instances)
    assert not torch.equal(painter.paint(replace(batch, draws=batch.draws + 1)).instances, drawn.instances)
    with pytest.raises(ConfigError, match=rf"{setting}: 0.5 without a mask"):
        Augmentation.of({setting: 0.5}, SPEC, ("infection",))


def test_organs_lie_in_fat_and_leave_bone(study: Prepared) -> None:
    """Fat and soft tissue are painted, for neighbours the same in other noise; bone stays, and so does at times a rim of the lungs."""
    batch = cut_bag(study, full_slices(study, 48), replace(SPEC, slices=3, slice_gap_mm=4.0), "s", 3, ("lobes",))
    before = batch.instances.clone()
    before[:, :, 20:24, 20:24] = 400.0
    batch = replace(batch, instances=before)
    rims = []
    for key in range(6):
        drawn = Augmentation(organs=1.0).paint(replace(batch, draws=batch.draws + key)).instances
        changed = drawn != before
        assert not bool(changed[:, :, 20:24, 20:24].any())
        painted = drawn[changed.any(1)[:, None].expand_as(drawn)]
        assert float(painted.min()) > -175
        assert float(painted.max()) < 225
        assert bool((painted < -60).any())
        assert bool((painted > 10).any())
        first, last = drawn[:, 0][changed.any(1)].float(), drawn[:, -1][changed.any(1)].float()
        assert float((first - last).abs().max()) < 80  # the same organs ...
        assert float((first - last).std()) > 3  # ... in noise of their own
        assert float(torch.corrcoef(torch.stack([first, last]))[0, 1]) > 0.95
        beside = torch.nn.functional.max_pool2d((batch.dense["lobes"] > 0).float()[:, None], 3, 1, 1)[:, 0] > 0
        rims += (changed.any(1) & beside & (batch.dense["lobes"] == 0)).flatten(1).any(1).tolist()
    assert any(rims)
    assert not all(rims)


def test_pockets_that_go_with_masks_are_told(cohort: Path, store: Path, tmp_path: Path) -> None:
    """Half of the training studies have no lobe mask: whatever goes with that could be learnt from painted gas."""
    with cohort.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows):
        row |= {name: str(cohort.parent / row[name]) for name in ("image", "lobes") if row[name]} | {"lungs": "", "infection": ""}
        row["lobes"] = row["lobes"] if k % 2 else ""
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    bare = sum(row["split"] == "train" and not row["lobes"] for row in rows)

    def data(pockets: float) -> BagDataModule:
        made = BagDataModule(
            str(tmp_path / "m.csv"), str(store), {"spacing_mm": 6.0, "patch": 32}, ["lobes"], augmentation={"pockets": pockets}
        )
        made.prepare_data()
        return made

    with pytest.warns(UserWarning, match=rf"pockets are painted .* {bare} of 6 training studies have none"):
        data(0.3).setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(0.0).setup("fit")
