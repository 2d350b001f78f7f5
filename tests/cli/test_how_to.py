"""The how-to as its reader would follow it, on another site's patients in DICOM form."""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from m2net.cli.main import main

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "new_hospital.md"
FASTER = {"finetune": ["--trainer.max_steps", "3"]}  # what the commands do is tested here, not how well


def test_new_hospital(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--format", "dicom", "--site", "north", "--graders", "consolidation", "--mix", "0.15", "0.55", "0.3"]
    assert main(["phantom", "--out", "hospital", "--patients", "8", "--seed", "8", "--matrix", "64", "--slice-mm", "8", *words]) == 0
    shutil.copy(trained / "best.ckpt", "base.ckpt")
    block = re.search(r"```sh\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    assert block is not None
    commands = [shlex.split(line) for line in block[1].splitlines()]
    assert [command[1] for command in commands] == ["verify", "split", "prepare", "finetune", "assess"]
    for program, name, *rest in commands:
        assert program == "m2net"
        rest = [path for word in rest for path in (sorted(glob.glob(word)) if "*" in word else [word])]  # noqa: PTH207 (a shell's work)
        assert main([name, *rest, *FASTER.get(name, [])]) in ((0, 3) if name == "finetune" else (0,))
    assert json.loads(Path("tuned/outcome.json").read_text())["patients"] == 3
    assert len(list(Path("results").glob("*/report.html"))) == 8
