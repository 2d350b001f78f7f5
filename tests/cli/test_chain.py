from __future__ import annotations

from pathlib import Path

import pytest

from m2net.cli import chain


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
