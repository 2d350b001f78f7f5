from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from m2net.bags import (
    Augmentation,
    BagDataset,
    EpochSampler,
    InputSpec,
    Prepared,
    Store,
    add_coordinates,
    apply_window,
    cut_bag,
    full_cut,
    join,
    prepare_volume,
    random_cut,
    to_input,
)
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.phantoms import Phantom
from m2net.studies import Volume, read_manifest
from m2net.vocabulary import LungCode

SPEC = InputSpec(spacing_mm=6.0, patch=32, slices=3, slice_gap_mm=12.0, positions=True, position_scale=1.0)


@pytest.fixture(scope="module")
def study(phantom: Phantom) -> Prepared:
    return prepare_volume(Volume.from_own(phantom.image, phantom.geometry), {"lobes": phantom.lobes}, 6.0)


@pytest.mark.parametrize("patch", [16, 32, 48, 96])
def test_full_cover_owns_every_lobe_voxel_once(study: Prepared, patch: int) -> None:
    cut = full_cut(study, patch)
    owners = np.zeros(study.image.shape, int)
    for (z, row, column), (r0, r1, c0, c1) in zip(cut.corner, cut.owned, strict=True):
        owners[z, max(0, row + r0) : max(0, row + r1), max(0, column + c0) : max(0, column + c1)] += 1
    assert owners.max() == 1
    assert (owners[study.masks["lobes"] > 0] == 1).mean() > 0.999
    batch = cut_bag(study, cut, replace(SPEC, patch=patch), "s", 0, ("lobes",))
    counted = torch.bincount(batch.dense["lobes"][batch.dense["lobes"] > 0], minlength=6)[:6] + batch.uncovered["lobes"][0, :6]
    np.testing.assert_array_equal(counted[1:].numpy(), np.bincount(study.masks["lobes"].ravel(), minlength=6)[1:])


def test_random_patches_touch_the_lungs_and_spread_over_z(study: Prepared, rng: np.random.Generator) -> None:
    cut = random_cut(study, 16, 24, rng)
    box, lungs = study.lung_box, study.masks["found_lungs"]
    bands = ((cut.corner[:, 0] - box.z0) * 24 // (box.z1 - box.z0)).tolist()
    assert len(set(bands)) >= 12
    touching = [lungs[z, max(0, r) : max(0, r + 16), max(0, c) : max(0, c + 16)].any() for z, r, c in cut.corner]
    assert np.mean(touching) > 0.9


def test_pixels_neighbours_and_padding(study: Prepared) -> None:
    from m2net.bags import Cut

    cut = Cut(np.array([[5, -4, 3], [0, 10, 10]]))
    batch = cut_bag(study, cut, SPEC, "s", 0)
    assert batch.instances.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(batch.instances[0, 1, 4:].numpy(), study.image[5, :28, 3:35])
    assert (batch.instances[0, :, :4] == -1024).all()
    np.testing.assert_array_equal(batch.instances[0, 0, 4:].numpy(), study.image[3, :28, 3:35])  # 12 mm below at 6 mm a slice
    np.testing.assert_array_equal(batch.instances[1, 0].numpy(), batch.instances[1, 1].numpy())  # clamped at the end


def test_coordinates_are_those_of_the_boxes(study: Prepared) -> None:
    batch = to_input(cut_bag(study, full_cut(study, 32), SPEC, "s", 0), SPEC)
    assert batch.instances.shape[1] == SPEC.channels == 9
    box, body = study.lung_box, study.body_box
    for n in (0, len(batch.corner) // 2):
        z, row, column = batch.corner[n].tolist()
        for i, j in ((0, 0), (31, 5)):
            x = 2 * (column + j + 0.5 - body.x0) / (body.x1 - body.x0) - 1
            y = 2 * (row + i + 0.5 - body.y0) / (body.y1 - body.y0) - 1
            height = 2 * (z + 0.5 - box.z0) / (box.z1 - box.z0) - 1
            np.testing.assert_allclose(batch.instances[n, 3:6, i, j].numpy(), [x, y, height], atol=1e-5)
    assert (batch.instances[:, 6:] == 1).all()


def test_position_scale_multiplies_the_coordinates_and_not_their_flags(study: Prepared) -> None:
    batch = cut_bag(study, full_cut(study, 32), SPEC, "s", 0)
    whole, tenth = (to_input(batch, replace(SPEC, position_scale=s)).instances for s in (1.0, 0.1))
    torch.testing.assert_close(tenth[:, 3:6], whole[:, 3:6] * 0.1)
    torch.testing.assert_close(tenth[:, [0, 1, 2, 6, 7, 8]], whole[:, [0, 1, 2, 6, 7, 8]])


def test_unknown_axes_are_zero_and_flagged(study: Prepared) -> None:
    batch = cut_bag(replace(study, spacing_mm=None), full_cut(study, 32), SPEC, "s", 0)
    shown = add_coordinates(apply_window(batch, SPEC), SPEC).instances
    assert (shown[:, 5] == 0).all()
    assert (shown[:, 8] == 0).all()
    assert (shown[:, 6:8] == 1).all()


@pytest.mark.parametrize("settings", [{"rotation_deg": 25.0}, {"scale": 0.3}, {"rotation_deg": 15.0, "scale": 0.2}])
def test_coordinates_and_labels_follow_every_transform(study: Prepared, settings: dict[str, float]) -> None:
    """Images that show their own coordinates must still show them after augmentation."""
    batch = apply_window(cut_bag(study, full_cut(study, 32), SPEC, "s", 3, ("lobes",)), SPEC)
    x, y = add_coordinates(batch, SPEC).instances[:, 3:5].unbind(1)
    labels = ((x > 0).long() + 2 * (y > 0).long()) + 1
    batch = replace(batch, instances=torch.stack([x, y, batch.instances[:, 0]], 1) * 0.4, dense={"lobes": labels})
    after = add_coordinates(Augmentation(**settings)(batch), SPEC)
    centre = slice(9, 23)  # far from the border, where nothing was padded
    shown, told = after.instances[:, :2, centre, centre] / 0.4, after.instances[:, 3:5, centre, centre]
    assert float((shown - told).abs().max()) < 0.02
    assert not torch.equal(told, torch.stack([x, y], 1)[:, :, centre, centre])
    expected = ((told[:, 0] > 0).long() + 2 * (told[:, 1] > 0).long()) + 1
    clear = (told.abs() > 0.05).all(1)  # a pixel and a half away from the borders, where the nearest pixel is not in doubt
    assert bool((after.dense["lobes"][:, centre, centre] == expected)[clear].all())


def test_a_flip_is_refused_where_sides_matter() -> None:
    with pytest.raises(ConfigError, match="flip"):
        Augmentation.of({"flip": True}, SPEC, ())
    with pytest.raises(ConfigError, match="flip"):
        Augmentation.of({"flip": True}, InputSpec(), ("lobes",))
    assert Augmentation.of({"flip": True}, InputSpec(), ()).flip


def test_lungs_of_a_mirrored_chest_are_named_by_their_place_in_the_picture() -> None:
    lungs = torch.zeros((8, 32, 32), dtype=torch.int64)
    lungs[:, 4:28, 3:12], lungs[:, 6:20, 18:30], lungs[:, 0, 0] = LungCode.RIGHT, LungCode.LEFT, LungCode.SIDE_UNKNOWN
    infection = torch.zeros_like(lungs)
    infection[:, 5:9, 5:9] = 1
    picture = infection[:, None].float()
    batch = BagBatch(
        instances=picture, bag_index=torch.arange(8), position=torch.zeros(8, 3), position_known=torch.zeros((8, 3), dtype=torch.bool),
        position_step=torch.zeros(8, 2, 3), corner=torch.zeros((8, 3), dtype=torch.int64), side=torch.full((8,), 32),
        study_ids=[str(n) for n in range(8)], draws=torch.arange(8), dense={"lungs": lungs, "infection": infection},
    )  # fmt: skip
    after = Augmentation(flip=True)(batch)
    seen = set()
    for n in range(8):
        mirrored = not torch.equal(after.instances[n], picture[n])
        seen.add(mirrored)
        if mirrored:
            torch.testing.assert_close(after.instances[n], picture[n].flip(2))
        other = torch.tensor([0, LungCode.LEFT, LungCode.RIGHT, LungCode.SIDE_UNKNOWN])
        assert torch.equal(after.dense["lungs"][n], other[lungs[n].flip(1)] if mirrored else lungs[n])
        assert torch.equal(after.dense["infection"][n], infection[n].flip(1) if mirrored else infection[n])
    assert seen == {True, False}


def dataset(cohort, store, **changes) -> BagDataset:
    studies = list(read_manifest(cohort))
    where = Store(store, 6.0)
    list(where.prepare(studies))
    options = {"schemes": ["binary"], "cap": 5, "seed": 1, **changes}
    return BagDataset(studies, where, SPEC, ("lobes",), **options)


def test_draws_are_keyed_by_seed_step_and_study(cohort, store) -> None:
    data = dataset(cohort, store)
    one, again, later, other = data[(2, 7)], data[(2, 7)], data[(2, 8)], dataset(cohort, store, seed=2)[(2, 7)]
    assert torch.equal(one.instances, again.instances)
    assert torch.equal(one.draws, again.draws)
    assert not torch.equal(one.corner, later.corner)
    assert not torch.equal(one.corner, other.corner)
    alone = Augmentation(rotation_deg=10, noise=0.1, brightness=0.1)(apply_window(one, SPEC))
    together = Augmentation(rotation_deg=10, noise=0.1, brightness=0.1)(apply_window(join([data[(4, 6)], one]), SPEC))
    assert torch.allclose(alone.instances, together.instances[5:], atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_noise_is_drawn_where_the_batch_lies(cohort, store, monkeypatch) -> None:
    device = torch.accelerator.current_accelerator()
    one = apply_window(dataset(cohort, store)[(2, 7)], SPEC)
    drawn_at: list[str] = []
    randn = torch.randn

    def spy(*size, **more):
        made = randn(*size, **more)
        drawn_at.extend([made.device.type] * (made.numel() >= one.instances.numel()))
        return made

    monkeypatch.setattr(torch, "randn", spy)
    first, again, other = (Augmentation(noise=0.1)(batch.to(device)).instances for batch in (one, one, replace(one, draws=one.draws + 1)))
    assert drawn_at == [device.type] * 3
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, one.instances.to(device))


def test_order_is_new_every_epoch_and_repeatable() -> None:
    sampler = EpochSampler(6, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert sorted(i for i, _ in second) == list(range(6))
    assert [i for i, _ in first] != [i for i, _ in second]
    assert not {n for _, n in first} & {n for _, n in second}


def test_missing_labels_are_marked(cohort, store) -> None:
    data = dataset(cohort, store, schemes=["binary", "ordinal:5"])
    data.studies[0] = replace(data.studies[0], severity=None, diagnosis=frozenset(), infected=None)
    batch = join([data[0], data[1]])
    assert torch.isnan(batch.bag_targets["severity:binary"]).tolist() == [True, False]
    assert torch.isnan(batch.bag_targets["severity:ordinal:5"]).all()
    assert batch.bag_targets["diagnosis"].sum(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch": 30}, "multiple of 16"),
        ({"slices": 2}, "odd number"),
        ({"window": [5, 1]}, "two rising values"),
        ({"spacing": 1}, "unknown settings spacing"),
        ({"intensity": "kv"}, "one of hu, relative"),
    ],
)
def test_impossible_input_settings(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InputSpec.of(values)
