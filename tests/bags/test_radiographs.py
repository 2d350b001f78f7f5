"""A radiograph is a bag of one: prepared, cut, placed, and refused where it does not belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m2net.bags import BagDataset, InputSpec, Prepared, Store, cover, cut_bag, prepare_volume, to_input, to_source_grid
from m2net.bags.prepared import RADIOGRAPH_SIDE, load, save
from m2net.bags.sampling import Cut
from m2net.errors import ConfigError, ManifestError
from m2net.studies import Volume, read_manifest
from m2net.vocabulary import Intensity, Modality

SPEC = InputSpec(
    modality="cxr", intensity="relative", spacing_mm=1.0, patch=64, view="slices", normalise="lungs", window=(0.0, 32767.0), positions=True
)


def prepared(shape: tuple[int, int], masks: dict[str, np.ndarray] | None = None) -> Prepared:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = ((rows / shape[0] + columns / shape[1]) * 16000).astype(np.int16)[None]
    return prepare_volume(Volume(image, None, Intensity.RELATIVE, Modality.CXR), masks or {}, 1.0)


@pytest.mark.parametrize("shape", [(2000, 1600), (700, 1500), (64, 64), (300, 200)])
def test_large_ones_are_reduced_and_come_back_on_their_own_pixels(shape: tuple[int, int]) -> None:
    mask = np.zeros((1, *shape), np.uint8)
    mask[0, shape[0] // 4 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 1
    study = prepared(shape, {"infection": mask})
    assert max(study.image.shape) == min(RADIOGRAPH_SIDE, max(shape))
    back = to_source_grid(np.asarray(study.masks["infection"]), study)
    assert back.shape == (1, *shape)
    assert (back != mask).mean() < 0.01
    batch = cut_bag(study, cover(study, SPEC), SPEC, "s", 0, ("infection",))
    assert batch.num_instances == 1
    share = float((batch.dense["infection"] == 1).sum()) / float((batch.dense["infection"] >= 0).sum())
    assert share == pytest.approx(mask.mean(), rel=0.1)


def test_coordinates_grow_to_the_left_and_upwards() -> None:
    study = prepared((200, 200))
    channels = to_input(cut_bag(study, cover(study, SPEC), SPEC, "s", 0), SPEC).instances[0]
    x, y, z, knows = channels[1], channels[2], channels[3], channels[4:, 0, 0]
    assert x[32, 60] > x[32, 4]
    assert z[4, 32] > z[60, 32]
    assert not y.any()
    assert knows.tolist() == [1, 0, 1]


def test_the_store_remembers_what_it_holds(tmp_path: Path) -> None:
    save(prepared((90, 120)), tmp_path / "one")
    assert load(tmp_path / "one").modality is Modality.CXR


def test_scores_and_refusals_through_a_manifest(tmp_path: Path) -> None:
    Image.fromarray((np.random.default_rng(1).random((80, 70)) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(
        "study_id,patient_id,modality,image,score_opacity,severity,severity_scheme\na,p,cxr,a.png,2.5,7,score:brixia\nb,q,ct,a.png,,,\n"
    )
    studies = list(read_manifest(tmp_path / "m.csv"))
    store = Store(tmp_path / "store", 1.0)
    assert [done.failure for done in store.prepare(studies)] == ["", ""]
    data = BagDataset(studies, store, SPEC, (), schemes=[], scores=["opacity", "brixia"], cap=None, seed=0)
    assert data[0].bag_targets["score:opacity"].tolist() == [2.5]
    assert data[0].bag_targets["score:brixia"].tolist() == [7.0]
    with pytest.raises(ConfigError, match="study b is ct; expected cxr"):
        data[1]
    ct = BagDataset(studies, store, InputSpec(intensity="relative", view="slices", window=(0.0, 1.0)), (), schemes=[], cap=None, seed=0)
    with pytest.raises(ConfigError, match="study a is cxr"):
        ct[0]
    (tmp_path / "m.csv").write_text("study_id,patient_id,modality,image,score_opacity\na,p,cxr,a.png,much\n")
    with pytest.raises(ManifestError, match="row 2: score_opacity is 'much'; expected a number"):
        read_manifest(tmp_path / "m.csv")


def test_training_radiographs_come_from_memory_as_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bags draw by draw, though the second draw opens nothing; what does not fit is read again."""
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        Image.fromarray((rng.random((80, 70)) * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray((rng.random((80, 70)) < 0.4).astype(np.uint8)).save(tmp_path / f"{name}_infection.png")
    rows = [f"{n},{n},cxr,{n}.png,{n}_infection.png" for n in ("a", "b")]
    (tmp_path / "m.csv").write_text("\n".join(["study_id,patient_id,modality,image,infection", *rows]) + "\n")
    studies = list(read_manifest(tmp_path / "m.csv"))
    store = Store(tmp_path / "store", 1.0)
    assert [done.failure for done in store.prepare(studies)] == ["", ""]

    def data(cap: int | None = 1) -> BagDataset:
        return BagDataset(studies, store, SPEC, ("infection", "lungs"), schemes=[], cap=cap, seed=0)

    monkeypatch.setattr("m2net.bags.dataset._KEPT_BYTES", 64 * 64 * 2 * 3 + 10)  # room for one: a picture and two masks
    opened: list[str] = []
    monkeypatch.setattr(Store, "open", lambda self, study, kept=Store.open: opened.append(study.study_id) or kept(self, study))
    train = data()
    first, again = [train[(k, 0)] for k in (0, 1)], [train[(k, 7)] for k in (0, 1)]
    assert opened == ["a", "b", "b"]
    first[0].instances.zero_()  # nobody can spoil what is kept
    for k, bag in enumerate(again):
        fresh = data()[(k, 7)]
        for name, tensor in vars(fresh).items():
            if isinstance(tensor, torch.Tensor):
                assert torch.equal(getattr(bag, name), tensor), name
        assert bag.dense["infection"].dtype == fresh.dense["infection"].dtype
        assert all(torch.equal(bag.dense[mask], fresh.dense[mask]) for mask in ("infection", "lungs"))
        assert int(bag.draws) == int(fresh.draws) != int(first[k].draws)
    opened.clear()
    judged = data(cap=None)
    assert torch.equal(judged[0].instances, judged[0].instances)
    assert opened == ["a", "a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"view": "patches"},
        {"intensity": "hu"},
        {"slices": 3},
        {"lungs_only": True},
        {"lungs_only": True, "lungs_from": "hull"},
        {"modality": "mr"},
    ],
)
def test_what_radiographs_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        InputSpec.of({**SPEC.plain(), **wrong})


def test_padding_is_nobodys() -> None:
    """What a model says beside a portrait picture is not read."""
    study = prepared((200, 100))
    owned = cut_bag(study, cover(study, SPEC), SPEC, "s", 0).owned
    assert owned is not None
    assert not owned[0, 32, :12].any()
    assert owned[0, 32, 20:44].all()
    assert float(owned.float().mean()) == pytest.approx(200 * 100 / 212**2, abs=0.03)


def test_mask_of_the_whole_picture_is_covered() -> None:
    study = prepared((120, 180), {"lungs": np.ones((1, 120, 180), np.uint8)})
    batch = cut_bag(study, cover(study, SPEC), SPEC, "s", 0, ("lungs",))
    assert int(batch.uncovered["lungs"].sum()) == 0
    assert torch.equal(batch.dense["lungs"].unique(), torch.tensor([-1, 1]))


def test_only_what_lies_outside_counts_as_missed() -> None:
    """Lesions of some pixels, whose reduced area is never the sampled one; and one beyond a printed frame."""
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 212, 212), np.uint8)
    for row, column in rng.integers(30, 170, (40, 2)):
        mask[0, row : row + 5, column : column + 4] = 1
    study = prepared((212, 212), {"infection": mask})
    assert int(cut_bag(study, cover(study, SPEC), SPEC, "s", 0, ("infection",)).uncovered["infection"].sum()) == 0
    cut = Cut(np.array([[0, 20, 0]]), np.array([[0, 64, 0, 64]]), side=192)
    left_out = int((mask[0, :20] > 0).sum() + (mask[0, 20:, 192:] > 0).sum())
    mask[0, 2:12, 5:15] = 1
    study = prepared((212, 212), {"infection": mask})
    missed = int(cut_bag(study, cut, SPEC, "s", 0, ("infection",)).uncovered["infection"].sum())
    assert missed == round((left_out + 100) * (64 / 192) ** 2)
