"""The tutorial as its reader would follow it, with fewer patients and steps: its commands, its script and its configuration."""

from __future__ import annotations

import csv
import glob
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from m2net.cli.main import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first_hour.md").read_text()
SMALLER = {"--patients 60": "--patients 12", "--matrix 96": "--matrix 64", "--slice-mm 4": "--slice-mm 8"}
FASTER = {"max_steps: 600": "max_steps: 4", "val_check_interval: 200": "val_check_interval: 4"}


def told(text: str, instead: dict[str, str]) -> str:
    for word, other in instead.items():
        assert word in PAGE
        text = text.replace(word, other)
    return text


def test_first_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL))
    Path("my.yaml").write_text(told(blocks["yaml"], FASTER))
    steps = re.sub(r"```yaml.*?```", "", re.sub(r"```python.*?```", "    join", PAGE, flags=re.DOTALL), flags=re.DOTALL)
    audit = re.findall(r"`(m2net audit .*?)`", PAGE)
    done = []
    for line in [*re.findall(r"^    (\S.*)$", steps, re.MULTILINE), *audit]:
        program, *words = shlex.split(told(line, SMALLER))
        done.append(words[0] if program == "m2net" else program)
        if program == "mv":
            Path(words[0]).rename(words[1])
        elif program == "join":
            exec(compile(blocks["python"], "first_hour.md", "exec"), {})  # the reader would save it as a file
        else:
            assert main([path for word in words for path in (sorted(glob.glob(word)) if "*" in word else [word])]) == 0  # noqa: PTH207
    judged = ["phantom", "mv", "recipe", "join", "verify", "split", "prepare", "fit", "test", "phantom", "assess", "audit"]
    assert done == judged
    with Path("labelled.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["severity_scheme"], bool(row["severity"]), bool(row["lobes"]), bool(row["infection"])) for row in rows} == {
        ("binary", True, True, True)
    }
    assert json.loads(Path("run/metrics.json").read_text())["patients"] == 3
    variant = yaml.safe_load(Path("my.yaml").read_text())
    del variant["model"]["tasks"]["infection"]
    head = re.search(r"`(\{name: lobe_aware.*?\})`", PAGE)
    balance = re.search(r"`balance: (\[.*?\])`", PAGE)
    assert head is not None
    assert balance is not None
    variant["model"]["tasks"]["severity"]["head"] = yaml.safe_load(head[1])
    variant["data"] |= {"masks": ["lobes"], "balance": yaml.safe_load(balance[1])}
    Path("without.yaml").write_text(yaml.safe_dump(variant))
    assert main(["fit", "--config", "without.yaml"]) == 0
    assert len(list(Path("results").glob("*/report.html"))) == 1
