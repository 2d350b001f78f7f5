"""Several processes train one model, and judge it as one process does."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from m2net.cli.main import main
from m2net.vocabulary import Split

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]


def test_two_processes_judge_every_study_once(configure: Callable[..., Path], cohort: Path, tmp_path: Path) -> None:
    """Three test studies, so that halves would be uneven; fitted by two processes, judged by two and by one."""
    with cohort.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {column: str(cohort.parent / row[column]) for column in ("image", "lobes", "lungs", "infection")}
    next(row for row in rows if row["split"] == Split.TRAIN)["split"] = str(Split.TEST)
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    config = configure(tmp_path, data={"manifest": str(tmp_path / "m.csv")}, trainer={"max_steps": 2, "val_check_interval": 1})
    words = ["--config", str(config), "--trainer.logger=false"]
    judging = ["test", *words, f"--ckpt_path={tmp_path / 'best.ckpt'}"]
    for command in (["fit", *words, *TWO], [*judging, f"--trainer.default_root_dir={tmp_path / 'two'}", *TWO]):
        done = subprocess.run([sys.executable, "-m", "m2net.cli.main", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert main([*judging, f"--trainer.default_root_dir={tmp_path / 'one'}"]) == 0
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one == pytest.approx(two, nan_ok=True)
    assert one["studies"] == 3
    assert (
        (tmp_path / "one" / "predictions.csv").read_text().count("\n")
        == (tmp_path / "two" / "predictions.csv").read_text().count("\n")
        == 4
    )
