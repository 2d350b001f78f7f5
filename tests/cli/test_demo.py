"""The demo's script, small: every command that make demo prints runs and leaves what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "experiments" / "demo" / "run.py"


@pytest.mark.slow
def test_the_demo_from_end_to_end(tmp_path: Path) -> None:
    words = [sys.executable, str(RUN), "--workdir", str(tmp_path), "--patients", "16", "--matrix", "64", "--steps", "4"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "runs" / "demo" / "metrics.json").read_text())
    assert {"lobes/dice_mean", "plain/lobes/dice_mean", "severity/auc_best", "seconds", "phantom_version"} <= set(metrics)
    pages = [line.removeprefix("page: ") for line in done.stdout.splitlines() if line.startswith("page: ")]
    assert len(pages) == 2
    assert all(Path(page).is_file() for page in pages)
