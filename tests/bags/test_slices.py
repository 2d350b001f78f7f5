"""Whole slices as instances: what they show, what they leave out, and that no label decides it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import ndimage
from scipy.spatial import Delaunay

from m2net.assessment import stitch_labels, stitch_values
from m2net.bags import (
    Augmentation,
    BagDataset,
    InputSpec,
    Prepared,
    Store,
    apply_window,
    cut_bag,
    full_slices,
    prepare_volume,
    random_slices,
)
from m2net.bags.hull import lungs_hull
from m2net.bags.normalising import value_map
from m2net.cli.main import main
from m2net.errors import ConfigError
from m2net.phantoms import Phantom
from m2net.studies import Box, Volume, read_manifest
from m2net.vocabulary import Intensity, Modality

SPEC = InputSpec(spacing_mm=4.0, patch=48, view="slices", window=(-1000.0, 100.0))
COVID_CT = Path(__file__).parents[2] / "experiments" / "weakly_supervised" / "covid_ct.yaml"
PICTURE = InputSpec(intensity="relative", spacing_mm=0.0, patch=48, view="slices", window=(0.0, 32767.0), normalise="lungs")


@pytest.fixture(scope="module")
def study(phantom: Phantom) -> Prepared:
    volume = Volume.from_own(phantom.image, phantom.geometry)
    return prepare_volume(volume, {"lobes": phantom.lobes, "lungs": phantom.lungs}, 4.0)


@pytest.fixture(scope="module")
def picture(phantom: Phantom) -> Prepared:
    return prepare_volume(as_picture(phantom, -1200, 100), {}, 0.0)


def as_picture(phantom: Phantom, low: float, high: float) -> Volume:
    plane = phantom.image[len(phantom.image) // 2].astype(np.float32)
    return Volume(np.rint(np.clip((plane - low) / (high - low), 0, 1) * 32767).astype(np.int16)[None], None, Intensity.RELATIVE)


def test_every_slice_of_the_lungs_once_and_all_of_the_lungs(study: Prepared) -> None:
    cut = full_slices(study, 48)
    assert cut.corner[:, 0].tolist() == list(range(study.lung_box.z0, study.lung_box.z1))
    batch = cut_bag(study, cut, SPEC, "s", 0, ("lobes",))
    assert batch.instances.shape[1:] == (1, 48, 48)
    inside = study.masks["found_lungs"][study.lung_box.z0 : study.lung_box.z1] > 0
    _, row, column = cut.corner[0]
    seen = inside[:, row : row + cut.side, column : column + cut.side]
    assert seen.sum() == inside.sum()


def test_what_was_resized_comes_back(study: Prepared) -> None:
    batch = cut_bag(study, full_slices(study, 48), SPEC, "s", 0, ("lobes",))
    shape = study.image.shape
    back = stitch_labels(batch.dense["lobes"].clamp(min=0), batch, shape)
    here = slice(study.lung_box.z0, study.lung_box.z1)
    lobes = study.masks["lobes"][here]
    assert (back[here][lobes > 0] == lobes[lobes > 0]).mean() > 0.93
    values = stitch_values(batch.instances[:, 0].float(), batch, shape)[here]
    inner = study.masks["found_lungs"][here] > 0
    assert np.corrcoef(values[inner], study.image[here][inner])[0, 1] > 0.88


def test_positions_follow_the_resizing(study: Prepared) -> None:
    batch = cut_bag(study, full_slices(study, 48), SPEC, "s", 0)
    large = cut_bag(study, full_slices(study, 96), replace(SPEC, patch=96), "s", 0)
    torch.testing.assert_close(batch.position, large.position)
    torch.testing.assert_close(batch.position_step, 2 * large.position_step)


def test_random_slices_spread_over_the_lungs(study: Prepared, rng: np.random.Generator) -> None:
    z = random_slices(study, 48, 6, rng).corner[:, 0]
    assert len(set(z.tolist())) == 6
    assert z.min() < study.lung_box.z0 + (study.lung_box.z1 - study.lung_box.z0) / 5
    assert len(random_slices(study, 48, 500, rng).corner) == study.lung_box.z1 - study.lung_box.z0


@pytest.mark.parametrize(("lungs_from", "mask"), [("manifest", "lungs"), ("found", "found_lungs")])
def test_lungs_only_leaves_nothing_else(study: Prepared, lungs_from: str, mask: str) -> None:
    batch = cut_bag(study, full_slices(study, 48), replace(SPEC, lungs_only=True, lungs_from=lungs_from), "s", 0)
    marked = replace(study, masks={"lungs": (study.masks[mask] > 0).astype(np.uint8)})
    outside = cut_bag(marked, full_slices(study, 48), SPEC, "s", 0, ("lungs",)).dense["lungs"] == 0
    inner = torch.nn.functional.max_pool2d((~outside).float()[:, None], 5, 1, 2)[:, 0] == 0  # two pixels off the border: resizing mixes
    assert (batch.instances[:, 0][inner] == study.air).float().mean() > 0.999  # the mask is picked, the picture averaged


def test_the_hull_holds_every_pixel_between_two_of_the_lungs(rng: np.random.Generator) -> None:
    """Against the triangles between all pixels of the lungs, each grown by the rim; to a pixel, for polygons are drawn on a grid."""
    lungs = np.zeros((90, 100), bool)
    lungs[30:60, 20:40] = lungs[25:70, 60:85] = True
    lungs &= rng.random(lungs.shape) < 0.7
    grown = ndimage.binary_dilation(lungs, np.ones((5, 5)))  # 2 % of 100
    every = np.argwhere(np.ones_like(lungs))
    within = (Delaunay(np.argwhere(grown)).find_simplex(every) >= 0).reshape(lungs.shape)
    hull = lungs_hull(lungs)
    assert not (ndimage.binary_erosion(within) & ~hull).any()
    assert not (hull & ~ndimage.binary_dilation(within)).any()
    assert not lungs_hull(np.zeros((90, 100), bool)).any()
    one = np.zeros((90, 100), bool)
    one[0, 99] = True
    assert lungs_hull(one).sum() == 9  # a corner's rim leaves the slice


def test_the_hull_of_the_lungs_leaves_nothing_around_it(picture: Prepared) -> None:
    """Marks on the body, the table and the margin of the picture are gone; what lies between the lungs stays."""
    spec = replace(PICTURE, normalise="window", patch=96, lungs_only=True, lungs_from="hull")
    marked = replace(picture, image=np.where(lungs_hull(picture.masks["found_lungs"][0] > 0), picture.image, 12345))
    plain, hull, clean = (
        cut_bag(study, full_slices(study, 96), s, "s", 0).instances[0, 0]
        for study, s in ((picture, replace(spec, lungs_only=False)), (marked, spec), (picture, spec))
    )
    assert torch.equal(hull, clean)
    white = hull == 32767
    assert 0.2 < white.float().mean() < 0.8
    assert white[0].all() or white[:, 0].all()  # the margin of the square
    heart = plain[40:56, 44:52]
    assert torch.equal(hull[40:56, 44:52], heart)


@pytest.mark.parametrize("normalise", ["lungs", "ranks"])
def test_nothing_around_the_hull_sets_the_scale(picture: Prepared, normalise: str) -> None:
    """White letters beside the chest would move the white of the picture, and with it what is seen inside."""
    spec = replace(PICTURE, normalise=normalise, patch=96, lungs_only=True, lungs_from="hull")
    box, hull = picture.lung_box, lungs_hull(picture.masks["found_lungs"][0] > 0)
    outside = np.zeros_like(hull)
    outside[box.y0 : box.y1, box.x0 : box.x1] = True
    outside &= ~hull
    assert outside.any()  # corners of the lungs' box
    marked = replace(picture, image=np.where(outside, 32767, picture.image).astype(picture.image.dtype))
    clean, same, plain, moved = (
        cut_bag(study, full_slices(study, 96), s, "s", 0).instances
        for s in (spec, replace(spec, lungs_only=False))
        for study in (picture, marked)
    )
    assert torch.equal(clean, same)
    assert not torch.equal(plain, moved)


def test_each_slice_of_a_volume_has_its_own_hull(study: Prepared) -> None:
    """Neighbours as channels, too; soft tissue of 40 HU around it, and where the square leaves the slice."""
    spec = replace(SPEC, slices=3, slice_gap_mm=8.0, lungs_only=True, lungs_from="hull")
    cut = full_slices(study, 48)
    batch, plain = cut_bag(study, cut, spec, "s", 0), cut_bag(study, cut, replace(spec, lungs_only=False), "s", 0)
    hulls = np.stack([lungs_hull(plane > 0) for plane in study.masks["found_lungs"]]).astype(np.uint8)
    inside = cut_bag(replace(study, masks={"lungs": hulls}), cut, SPEC, "s", 0, ("lungs",)).dense["lungs"] == 1
    far = torch.nn.functional.max_pool2d(inside.float()[:, None], 5, 1, 2)[:, 0] == 0
    near = torch.nn.functional.max_pool2d((~inside).float()[:, None], 5, 1, 2)[:, 0] == 0
    middle = batch.instances[:, 1]
    assert far.any()
    assert near.any()
    assert (middle[far] == 40).float().mean() > 0.999
    assert torch.equal(middle[near], plain.instances[:, 1][near])
    below = round(8.0 / study.spacing_mm[0])
    assert torch.equal(batch.instances[below:, 0], middle[:-below])


@pytest.mark.parametrize("normalise", ["lungs", "ranks"])
def test_the_window_of_a_picture_is_no_cue(phantom: Phantom, normalise: str) -> None:
    """The same slice printed with another window gives the network nearly the same values inside the lungs, where nothing was clipped."""
    spec = replace(PICTURE, normalise=normalise)
    one, other = (prepare_volume(as_picture(phantom, low, high), {}, 0.0) for low, high in ((-1200, 100), (-1100, 500)))
    other = replace(other, masks=one.masks, lung_box=one.lung_box, body_box=one.body_box)
    a, b = (apply_window(cut_bag(s, full_slices(s, 48), spec, "s", 0), spec).instances for s in (one, other))
    plain = replace(spec, normalise="window")
    c, d = (apply_window(cut_bag(s, full_slices(s, 48), plain, "s", 0), plain).instances for s in (one, other))
    lungs = a < 0.9
    assert float((a - b)[lungs].abs().mean()) < (0.01 if normalise == "lungs" else 0.06)
    assert float((c - d)[lungs].abs().mean()) > 0.12


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_lesion_is_no_yardstick(share: float) -> None:
    """However much of the lungs is half as dense as muscle, it lies half way between air and muscle to the network.

    Three fifths of what lies between and beside the lungs are fat, two fifths muscle; there is more fat and air outside their box.
    """
    rows, columns = np.mgrid[:116, :148]
    plane = np.where(np.hypot((rows - 58) / 56, (columns - 74) / 72) < 1, 15000, 0).astype(np.int16)
    lungs = np.zeros(plane.shape, bool)
    for middle in (48, 100):
        lungs |= ((rows - 58) / 34) ** 2 + ((columns - middle) / 20) ** 2 < 1
    box = (slice(24, 93), slice(28, 121))
    plane[box] = np.where((rows + 2 * columns)[box] % 5 < 2, 24000, 20000)
    plane[lungs] = 2000
    plane[lungs & (rows > 92 - 68 * share)] = 13000
    study = prepare_volume(Volume(plane[None], None, Intensity.RELATIVE), {}, 0.0)
    study = replace(study, masks={"found_lungs": lungs[None].astype(np.uint8)}, lung_box=Box.of(lungs[None]))
    air, half, muscle = value_map(study, PICTURE)(np.array([2000, 13000, 24000], np.int16)) / 32767
    assert (air, half, muscle) == (pytest.approx(0.0, abs=0.01), pytest.approx(0.5, abs=0.01), pytest.approx(1.0, abs=0.01))
    fat = value_map(study, PICTURE)(np.array([20000], np.int16))[0] / 32767
    assert fat == pytest.approx(18 / 22, abs=0.01)


def test_without_tissue_around_the_scale_is_that_of_the_picture(rng: np.random.Generator) -> None:
    """A radiograph's lungs are not looked for: the 2nd to 98th percentile of all of it."""
    plane = rng.integers(1000, 31000, (1, 96, 96)).astype(np.int16)
    study = prepare_volume(Volume(plane, None, Intensity.RELATIVE, Modality.CXR), {}, 0.0)
    low, high = np.quantile(plane, [0.02, 0.98])
    there = value_map(study, PICTURE)(np.array([low, (low + high) / 2, high, 32767], np.int16)) / 32767
    assert there == pytest.approx([0.0, 0.5, 1.0, 1.0], abs=0.01)


def test_labels_decide_nothing_about_the_input(cohort: Path, tmp_path: Path) -> None:
    """The same images under other labels give the same instances, in training (augmented) and in evaluation."""
    with cohort.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column in ("image", "lobes", "lungs", "infection"):
            row[column] = str(cohort.parent / row[column])
    swapped = [row | {"diagnosis": "cap" if row["diagnosis"] == "covid19" else "covid19", "infected": "", "severity": ""} for row in rows]
    batches = []
    for name, table in (("a", rows), ("b", swapped)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(table)
        manifest = tmp_path / f"{name}.csv"
        spec = replace(SPEC, spacing_mm=6.0)
        store = tmp_path / f"store_{name}"  # of its own: what was prepared under other labels would be taken over
        assert main(["prepare", str(manifest), "--store", str(store), "--spacing", "6"]) == 0
        studies = list(read_manifest(manifest))
        for cap in (3, None):
            data = BagDataset(studies, Store(store, 6.0), spec, (), schemes=(), cap=cap, seed=1)
            augment = Augmentation(rotation_deg=10, scale=0.1, shift=0.1, stretch=0.1, gamma=0.3, blur=0.5, noise=0.1, erase=0.5)
            batches.append([augment(apply_window(data[k, 5], spec)) for k in range(4)])
    for one, other in ((0, 2), (1, 3)):
        for a, b in zip(batches[one], batches[other], strict=True):
            torch.testing.assert_close(a.instances, b.instances, rtol=0, atol=0)
            assert not torch.equal(a.bag_targets["diagnosis"], b.bag_targets["diagnosis"])


@pytest.mark.parametrize("normalise", ["lungs", "ranks"])
def test_labels_decide_nothing_about_pictures(normalise: str, tmp_path: Path) -> None:
    """The same for pictures put on a scale of their own chest, with the augmentation that COVID-CT is trained with."""
    made = ["phantom", "--out", str(tmp_path), "--patients", "3", "--seed", "4", "--matrix", "64", "--slice-mm", "8"]
    assert main([*made, "--format", "png", "--pictures", "2"]) == 0
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    spec, seen = replace(PICTURE, normalise=normalise), []
    for name, label in (("a", "covid19"), ("b", "non_pneumonia|cap")):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row | {"diagnosis": label, "infected": ""} for row in rows)
        store = tmp_path / f"store_{name}"
        assert main(["prepare", str(tmp_path / f"{name}.csv"), "--store", str(store), "--spacing", "1"]) == 0
        data = BagDataset(list(read_manifest(tmp_path / f"{name}.csv")), Store(store, 1.0), spec, (), schemes=(), cap=1, seed=1)
        augment = Augmentation.of(yaml.safe_load(COVID_CT.read_text())["data"]["augmentation"], spec, ())
        seen.append([augment(apply_window(data[k, 5], spec)) for k in range(len(rows))])
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one.instances, other.instances)
        assert not torch.equal(one.bag_targets["diagnosis"], other.bag_targets["diagnosis"])


def test_a_bag_is_softer_or_sharper_by_its_draw(study: Prepared) -> None:
    """Blur mixes the 3x3 mean in and sharpening takes it away, each for its half of the draws, as scipy says."""
    batch = apply_window(cut_bag(study, full_slices(study, 48), SPEC, "s", 3, ("lobes",)), SPEC)
    picture = batch.instances.numpy()
    edge = picture - ndimage.uniform_filter(picture, (0, 0, 3, 3), mode="constant") / ndimage.uniform_filter(
        np.ones_like(picture), (0, 0, 3, 3), mode="constant"
    )
    shares = {"blur": [], "sharpen": []}  # type: dict[str, list[float]]
    for key in range(40):
        drawn = replace(batch, draws=torch.full_like(batch.draws, key))
        for name, signed in (("blur", -1.0), ("sharpen", 1.0)):
            changed = Augmentation(**{name: 0.5})(drawn).instances.numpy()
            inner = (np.abs(changed) < 1) & (np.abs(edge) > 0.05)  # what is not clipped, and has an edge
            share = float(np.median((changed - picture)[inner] / edge[inner])) * signed
            np.testing.assert_allclose(changed, np.clip(picture + signed * share * edge, -1, 1), atol=1e-5)
            shares[name].append(share)
    blurred, sharpened = np.array(shares["blur"]), np.array(shares["sharpen"])
    assert ((blurred > 1e-6) ^ (sharpened > 1e-6)).all()
    assert max(blurred.max(), sharpened.max()) <= 0.5
    assert min(blurred.max(), sharpened.max()) > 0.3


def test_shift_moves_picture_target_and_position_together(study: Prepared) -> None:
    batch = apply_window(cut_bag(study, full_slices(study, 48), SPEC, "s", 3, ("lobes",)), SPEC)
    moved = Augmentation(shift=0.2)(batch)
    pixels = ((moved.position - batch.position) @ torch.linalg.pinv(batch.position_step[0].double()).float()).round(decimals=3)[0]
    dy, dx = round(float(pixels[0])), round(float(pixels[1]))
    assert abs(dy) + abs(dx) > 0
    out = slice(12, 36)
    there = (slice(12 + dy, 36 + dy), slice(12 + dx, 36 + dx))
    agree = moved.dense["lobes"][:, out, out] == batch.dense["lobes"][(slice(None), *there)]
    assert agree.float().mean() > 0.93
    a, b = moved.instances[:, 0, out, out], batch.instances[(slice(None), 0, *there)]
    assert float(np.corrcoef(a.flatten(), b.flatten())[0, 1]) > 0.95


def test_wrong_views_are_named() -> None:
    with pytest.raises(ConfigError, match=r"input\.view"):
        InputSpec.of({"view": "cubes"})
    with pytest.raises(ConfigError, match="normalise is lungs for HU"):
        InputSpec.of({"normalise": "lungs"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch": "64"}, r"input\.patch is '64'; expected a whole number"),
        ({"patch": True}, r"input\.patch is True"),
        ({"positions": "yes"}, r"input\.positions is 'yes'; expected true or false"),
        ({"spacing_mm": None}, r"input\.spacing_mm is None"),
        ({"window": 5}, r"input\.window is 5"),
        ({"colour": 1}, "unknown settings colour"),
    ],
)
def test_values_of_another_type_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InputSpec.of(values)


def test_augmentation_values_of_another_type_are_named() -> None:
    with pytest.raises(ConfigError, match=r"augmentation\.noise is 'much'; expected a number"):
        Augmentation.of({"noise": "much"}, SPEC, ())
    assert Augmentation.of({"noise": 1, "flip": True}, SPEC, ("infection",)).flip
    with pytest.raises(ConfigError, match="flip is on"):
        Augmentation.of({"flip": True}, SPEC, ("lobes",))


def test_relative_intensity_is_seen_whole_unless_a_window_is_given() -> None:
    assert InputSpec.of({"intensity": "relative"}).window == (0, 32767)
    assert InputSpec.of({"intensity": "relative", "window": [0, 100]}).window == (0, 100)
    assert InputSpec.of({}).window == (-1200, 700)
