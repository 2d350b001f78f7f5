from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m2net.cli import chain
from m2net.cli.done import Done
from m2net.recipes.table import read_table


def test_manifests_are_joined_once_with_paths_from_the_new_ones_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a", "b"):
        folder = tmp_path / "a" / name
        folder.mkdir()
        (folder / "m.csv").write_text(f"study_id,patient_id,modality,image,lobes\n{name},p{name},ct,image.nii.gz,\n")
    sources = [tmp_path / "a" / name / "m.csv" for name in ("a", "b")]
    out = chain.join_once(tmp_path / "both.csv", sources)
    rows = read_table(out)
    assert [(row["study_id"], row["image"], row["lobes"]) for row in rows] == [("a", "a/a/image.nii.gz", ""), ("b", "a/b/image.nii.gz", "")]
    sources[0].write_text("")
    assert read_table(chain.join_once(out, sources)) == rows


def test_a_fit_that_was_killed_is_not_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes, asked = [137, 0], []

    def run(words: list[str], **_: object) -> object:
        asked.append(words[-3:])
        (tmp_path / "best.ckpt").touch()  # of a validation half-way
        return type("Done", (), {"returncode": codes[len(asked) - 1]})

    monkeypatch.setattr(chain.subprocess, "run", run)
    with pytest.raises(SystemExit, match="137"):
        chain.fit_once(tmp_path, "--config", "a.yaml")
    for _ in range(2):
        chain.fit_once(tmp_path, "--config", "a.yaml")
    assert asked == [["fit", "--config", "a.yaml"]] * 2


def test_a_fit_by_other_settings_is_not_taken_for_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, config, start = [], tmp_path / "here" / "a.yaml", tmp_path / "start.ckpt"

    def run(words: list[str], **_: object) -> object:
        asked.append(words)
        (tmp_path / "best.ckpt").write_text(str(len(asked)))
        return type("Done", (), {"returncode": 0})

    def fitted(config: Path, seed: int) -> int:
        chain.fit_once(tmp_path, "--config", config, "--model.start_from", start, f"--seed={seed}")
        return len(asked)

    monkeypatch.setattr(chain.subprocess, "run", run)
    config.parent.mkdir()
    config.write_text("steps: 1")
    start.write_text("weights")
    assert fitted(config, 1) == 1
    config = config.parent.rename(tmp_path / "there") / "a.yaml"
    assert fitted(config, 1) == 1
    assert fitted(config, 2) == 2
    config.write_text("steps: 2")
    assert fitted(config, 2) == 3
    start.write_text("other weights")
    assert [fitted(config, 2), fitted(config, 2)] == [4, 4]


def test_what_is_older_than_its_model_is_not_done(tmp_path: Path) -> None:
    model, result = tmp_path / "best.ckpt", tmp_path / "metrics.json"
    model.touch()
    assert not chain.is_done(result, model)
    result.touch()
    os.utime(model, (1000, 1000))
    os.utime(result, (1000, 1000))
    assert chain.is_done(result, model)
    os.utime(model, (1001, 1001))
    assert not chain.is_done(result, model)


def test_a_cohort_is_made_verified_and_split_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Path:
        good = chain.cohort_once(tmp_path / "home", 3, 5, "--matrix", "64", "--slice-mm", "8", verified=True)
        return chain.split_once(good, "0 0 1")

    manifest = make()
    assert len(read_table(tmp_path / "home" / "manifest.csv")) == 3
    assert {row["split"] for row in read_table(manifest)} == {"test"}
    monkeypatch.setattr(chain.subprocess, "run", lambda *_, **__: pytest.fail("run again"))
    assert make() == manifest
    with pytest.raises(SystemExit, match=r"holds 3 patients of seed 5; expected 3 of seed 6. Move it away"):
        chain.cohort_once(tmp_path / "home", 3, 6, verified=True)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores of a thread are a thing of Linux")
def test_work_side_by_side_has_cores_of_its_own() -> None:
    every, together, seen = os.sched_getaffinity(0), threading.Barrier(2, timeout=60), {}

    def work(name: str) -> None:
        together.wait()  # both are under way
        seen[name] = os.sched_getaffinity(0)

    assert sorted(chain.side_by_side(work, ["a", "b"], 2)) == ["a", "b"]
    assert seen["a"] | seen["b"] == every
    assert not seen["a"] & seen["b"] or len(every) == 1
    assert os.sched_getaffinity(0) == every


def test_a_failure_beside_others_begins_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled, shutdown = [], threading.Event(), ThreadPoolExecutor.shutdown

    def watched(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        shutdown(pool, wait=False, cancel_futures=cancel_futures)
        cancelled.set()
        shutdown(pool, wait=wait)

    def work(name: str) -> None:
        begun.append(name)
        if name == "bad":
            chain.command("no-such-command", log=tmp_path / "bad" / "log.txt")
        assert cancelled.wait(60)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", watched)
    with pytest.raises(SystemExit, match=r"exit code 2, see .*log\.txt"):
        list(chain.side_by_side(work, ["bad", "other", "third", "fourth"], 2))
    assert "fourth" not in begun
    assert "no-such-command" in (tmp_path / "bad" / "log.txt").read_text(encoding="utf-8")


def test_a_mark_that_was_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "result.csv").write_text("x")
    done = Done(tmp_path, b"known", "result.csv")
    done.write()
    assert done.holds()
    done.path.write_text(done.path.read_text()[:9])
    assert not done.holds()
    assert not done.path.exists()


def test_one_at_a_time_is_in_order() -> None:
    begun: list[str] = []
    assert list(chain.side_by_side(begun.append, ["b", "a"], 1)) == begun == ["b", "a"]
