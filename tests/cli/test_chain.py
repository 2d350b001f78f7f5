from __future__ import annotations

from pathlib import Path

import pytest

from m2net.cli import chain
from m2net.recipes.table import read_table


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


def test_a_cohort_is_made_verified_and_split_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Path:
        good = chain.cohort_once(tmp_path / "home", 3, 5, "--matrix", "64", "--slice-mm", "8", verified=True)
        return chain.split_once(good, "0 0 1")

    manifest = make()
    assert len(read_table(tmp_path / "home" / "manifest.csv")) == 3
    assert {row["split"] for row in read_table(manifest)} == {"test"}
    monkeypatch.setattr(chain.subprocess, "run", lambda *_, **__: pytest.fail("run again"))
    assert make() == manifest
