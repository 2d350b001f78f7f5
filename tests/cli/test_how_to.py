"""The how-to as its reader would follow it, on another site's patients in DICOM form."""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from m2net.cli.main import main

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
HOW_TO = PAGES / "new_hospital.md"
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


def test_unlabelled(configure: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--format", "dicom", "--patients", "10", "--seed", "9", "--matrix", "64", "--slice-mm", "8"]
    assert main(["phantom", "--out", "archive", *words]) == 0
    text = (PAGES / "unlabelled.md").read_text()
    task, block = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("yaml", "sh"))
    assert task is not None
    assert block is not None
    folders = {name: Path(name) for name in ("runs/restore", "runs/mine")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    restore = configure(folders["runs/restore"], model=yaml.safe_load(task[1])["model"], data={"masks": [], "store": "store"})
    restore.rename("restore.yaml")
    configure(folders["runs/mine"]).rename("my.yaml")
    for program, name, *rest in (shlex.split(line) for line in block[1].splitlines()):
        assert program == "m2net"
        assert main([name, *rest]) == 0
    started = torch.load("runs/mine/best.ckpt", weights_only=True)["m2net"]["started_from"]
    assert started["trained_on"]["labels"] == {}
    assert started["trained_on"]["studies"] == 9
