"""The learning curve of fine-tuning: from hospital A's model to hospital B's patients, by the commands that a user would type.

python experiments/new_hospital/run.py            # everything; what is done is kept
python experiments/new_hospital/run.py --seeds 1 --sizes 5 20   # a look; its figures go to runs/new_hospital
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from m2net.cli.chain import cohort_once, command, fit_once, is_done, split_once
from m2net.recipes.table import read_table
from m2net.reports.results import write_table

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/new_hospital")
SIZE = ["--matrix", "96", "--slice-mm", "4"]
SITE_B = ["--site", "north", "--graders", "consolidation", "--mix", "0.05", "0.6", "0.35"]
TEST, POOL = 320, 240
SIZES, REPEATS = [5, 10, 20, 50, 120], 5
SEEDS = {"A": 71, "B": 74, "pilot": 75, "planted": 76}
"""Of the cohorts; settings were chosen on the pilot (settings.py), a hospital like B, never on B. The failure is planted in one like A."""


def prepare(hospital: str) -> None:
    """The cohorts of A and of another hospital, and the model of A."""
    split_once(cohort_once(RUNS / "A", 320, SEEDS["A"], *SIZE), "0.75 0.25 0")
    cohort_once(RUNS / hospital, TEST + POOL, SEEDS[hospital], *SIZE, *([] if hospital == "planted" else SITE_B))
    fit_once(RUNS / "base", "--config", HERE / "base.yaml")


def subset(size: int, seed: int, *, shuffled: bool = False, hospital: str = "B") -> Path:
    """Manifest with ``size`` training patients, drawn with the hospital's own share of severe ones, and the test patients, always the same.

    ``shuffled`` exchanges the training patients' grades: the planted failure.
    """
    rows = read_table(RUNS / hospital / "manifest.csv")
    rng = np.random.default_rng([seed, 7])
    pool = rows[TEST:]
    severe = [r for r in pool if r["severity"] == "1"]
    mild = [r for r in pool if r["severity"] == "0"]
    wanted = min(max(1, round(size * len(severe) / len(pool))), size - 1)
    chosen = [severe[k] for k in rng.permutation(len(severe))[:wanted]] + [mild[k] for k in rng.permutation(len(mild))[: size - wanted]]
    train = [row | {"split": "train", "infection": "", "lobes": "", "lungs": ""} for row in chosen]  # outcomes, no masks
    if shuffled:
        grades = rng.permutation([row["severity"] for row in train])
        train = [row | {"severity": str(g)} for row, g in zip(train, grades, strict=True)]
    test = [row | {"split": "test", "infection": "", "lobes": "", "lungs": ""} for row in rows[:TEST]]
    path = RUNS / hospital / f"n{size}-s{seed}{'-shuffled' if shuffled else ''}.csv"
    write_table(path, train + test)
    return path


def tune(size: int, seed: int, *, shuffled: bool = False, hospital: str = "B") -> dict[str, Any]:
    """Fine-tune on ``size`` patients; returns outcome.json with the exit code."""
    manifest = subset(size, seed, shuffled=shuffled, hospital=hospital)
    out = RUNS / ("tuned" if hospital == "B" else "tuned_planted") / manifest.stem
    code = 0
    if not is_done(out / "outcome.json", RUNS / "base" / "best.ckpt"):
        code = command(
            "finetune", "--from", RUNS / "base" / "best.ckpt", "--manifest", manifest, "--store", RUNS / "store", "--out", out,
            "--trainer.precision=bf16-mixed", f"--seed_everything={seed}", ends=(0, 3),
        ).code  # fmt: skip
        (out / "exit_code.txt").write_text(str(code))
    outcome: dict[str, Any] = json.loads((out / "outcome.json").read_text())
    return outcome | {"exit_code": int((out / "exit_code.txt").read_text())}


def scratch(size: int, seed: int) -> dict[str, float]:
    """The same encoder on ``size`` patients of B alone; its test figures."""
    out = RUNS / "scratch" / f"n{size}-s{seed}"
    if not (out / "metrics.json").exists():
        manifest = subset(size, seed)
        words = ["--config", HERE / "base.yaml", "--config", HERE / "scratch.yaml", f"--data.manifest={manifest}"]
        words += [f"--trainer.default_root_dir={out}", f"--seed_everything={seed}"]
        command("fit", *words)
        command("test", *words, "--ckpt_path", out / "checkpoints" / "best.ckpt")
    metrics: dict[str, float] = json.loads((out / "metrics.json").read_text())
    return metrics


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options.add_argument("--seeds", type=int, default=REPEATS)
    given = options.parse_args()
    prepare("B")
    for seed in range(given.seeds):
        for size in given.sizes:
            tune(size, seed)
            scratch(size, seed)
    most = max(given.sizes)
    tune(most, 0, shuffled=True)
    prepare("planted")
    tune(most, 0, shuffled=True, hospital="planted")
    those = ["--seeds", str(given.seeds), "--sizes", *map(str, given.sizes)]
    whole = (given.sizes, given.seeds) == (SIZES, REPEATS)
    subprocess.run([sys.executable, str(HERE / "results.py"), "--out", str(HERE if whole else RUNS), *those], check=True)


if __name__ == "__main__":
    main()
