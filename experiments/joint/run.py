"""The joint model: cohorts, fit, and its judgement on held-out SYNTHETIC patients of two sites, by the commands that a user would type.

python experiments/joint/run.py            # what is done is kept
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from m2net.cli.chain import command, fit_once
from m2net.recipes.table import read_table
from m2net.reports.results import write_table

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/joint")
COHORTS = {"train": (1200, 81, "home"), "home": (1000, 84, "home"), "north": (400, 85, "north")}
"""Patients, seed and site. Those of ``train`` are parted into training and validation; the others are judged on only."""
PARTS = ("0.667", "0.333", "0")
SIZE = ["--matrix", "112", "--slice-mm", "4"]


def held_out(manifest: Path) -> Path:
    """The same studies, all of them test."""
    out = manifest.with_suffix(".test.csv")
    write_table(out, [row | {"split": "test"} for row in read_table(manifest)])
    return out


def prepare() -> None:
    """The three cohorts, without the few studies that m2net verify rejects: lungs cut by the picture."""
    for name, (patients, seed, site) in COHORTS.items():
        if not (RUNS / name / "manifest.csv").exists():
            command("phantom", "--out", RUNS / name, "--patients", str(patients), "--seed", str(seed), "--site", site, *SIZE)
        if not (RUNS / name / "good.csv").exists():
            command("verify", RUNS / name / "manifest.csv", "--clean", RUNS / name / "good.csv", ends=(0, 1))
    if not (RUNS / "train" / "good.split.csv").exists():
        command("split", RUNS / "train" / "good.csv", "--parts", *PARTS)


def judge(site: str) -> None:
    """Test the model on a held-out cohort."""
    out = RUNS / f"test_{site}"
    if not (out / "metrics.json").exists():
        manifest = held_out(RUNS / site / "good.csv")
        words = [f"--data.manifest={manifest}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
        command("test", "--config", HERE / "joint.yaml", *words, "--ckpt_path", RUNS / "best.ckpt")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    prepare()
    fit_once(RUNS, "--config", HERE / "joint.yaml")
    for site in ("home", "north"):
        judge(site)
    subprocess.run([sys.executable, str(HERE / "results.py")], check=True)


if __name__ == "__main__":
    main()
