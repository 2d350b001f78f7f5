from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2net.bags import Store, prepare_volume, to_source_grid
from m2net.bags.prepared import save
from m2net.cli.main import main
from m2net.errors import StoreError
from m2net.phantoms import Phantom
from m2net.studies import Volume, read_manifest


def test_prepare_is_resumed_and_follows_the_content(tmp_path: Path, cohort: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(cohort.parent, root)
    manifest, where = root / cohort.name, tmp_path / "store"
    assert main(["prepare", str(manifest), "--store", str(where), "--spacing", "6"]) == 0
    studies = list(read_manifest(manifest))
    store = Store(where, 6.0)
    assert store.missing(studies) == []
    assert len(Store(where, 5.0).missing(studies)) == len(studies)  # other settings, another study

    first = next(p for p in where.iterdir() if (p / "study.json").exists())
    times = {p.name: p.stat().st_mtime_ns for p in where.iterdir() if p.is_dir()}
    shutil.rmtree(first)  # as after a crash: the rest is kept
    assert len(store.missing(studies)) == 1
    assert main(["prepare", str(manifest), "--store", str(where), "--spacing", "6"]) == 0
    again = {p.name: p.stat().st_mtime_ns for p in where.iterdir() if p.is_dir()}
    assert set(again) == set(times)
    assert all(again[name] == times[name] for name in times if name != first.name)

    image = studies[0].image
    image.write_bytes(studies[1].image.read_bytes())
    assert [s.study_id for s in Store(where, 6.0).missing(studies)] == [studies[0].study_id]
    with pytest.raises(StoreError, match="m2net prepare"):
        Store(where, 6.0).open(studies[0])


def test_a_broken_study_costs_nothing_else(tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    shutil.copytree(cohort.parent, root)
    studies = list(read_manifest(root / cohort.name))
    studies[3].image.write_text("broken")
    assert main(["prepare", str(root / cohort.name), "--store", str(tmp_path / "store"), "--spacing", "6"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert studies[3].study_id in message
    assert "the other 9 studies are prepared" in message
    assert [s.study_id for s in Store(tmp_path / "store", 6.0).missing(studies)] == [studies[3].study_id]
    assert not list((tmp_path / "store").glob(".partial*"))


def test_what_cannot_be_written_leaves_nothing(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_volume(Volume.from_own(phantom.image, phantom.geometry), {"lobes": phantom.lobes}, 6.0)
    before = os.umask(0o027)
    try:
        save(prepared, tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750  # others of the group read the store, too

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        save(prepared, tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_resampling_keeps_places_and_values(phantom: Phantom) -> None:
    volume = Volume.from_own(phantom.image, phantom.geometry)
    spacing = phantom.geometry.spacing_mm[1]
    same = prepare_volume(volume, {"lobes": phantom.lobes}, spacing)
    np.testing.assert_array_equal(same.image, phantom.image)
    coarse = prepare_volume(volume, {"lobes": phantom.lobes}, 2 * spacing)
    blocks = phantom.image.reshape(len(phantom.image), 48, 2, 48, 2).mean((2, 4))
    inner = coarse.image[:, 1:-1, 1:-1] - blocks[:, 1:-1, 1:-1]
    assert abs(float(np.median(inner))) <= 1  # a shift of half a voxel would show at every edge
    assert np.corrcoef(coarse.image.ravel(), blocks.ravel())[0, 1] > 0.995
    back = to_source_grid(np.ascontiguousarray(coarse.masks["lobes"]), coarse)
    assert back.shape == phantom.lobes.shape
    assert (back == phantom.lobes).mean() > 0.97


@pytest.mark.parametrize("spacing", [4.1, 5.9, 7.3])
def test_the_way_back_has_no_drift(phantom: Phantom, spacing: float) -> None:
    """Every own pixel takes the store pixel whose centre is nearest in millimetres, to the last column."""
    volume = Volume.from_own(phantom.image, phantom.geometry)
    prepared = prepare_volume(volume, {}, spacing)
    columns = np.broadcast_to(np.arange(prepared.image.shape[2], dtype=np.uint8), prepared.image.shape)
    back = to_source_grid(np.ascontiguousarray(columns), prepared)[0, 0]
    own_mm = (np.arange(96) + 0.5) * phantom.geometry.spacing_mm[2]
    store_mm = (back + 0.5) * spacing
    inside = own_mm < prepared.image.shape[2] * spacing
    assert np.abs(own_mm - store_mm)[inside].max() <= spacing / 2 + 1e-6


def test_pictures_keep_their_pixels() -> None:
    picture = np.full((1, 90, 70), 100, np.int16)
    picture[0, 10:80, 10:60] = 20000
    picture[0, 30:60, 15:30] = 1500
    from m2net.vocabulary import Intensity

    prepared = prepare_volume(Volume(picture, None, Intensity.RELATIVE), {}, 3.0)
    np.testing.assert_array_equal(prepared.image, picture)
    assert prepared.spacing_mm is None
    assert replace(prepared).air == 0
