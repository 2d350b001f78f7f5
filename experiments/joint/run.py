"""The joint model: cohorts, fit, and its judgement on held-out SYNTHETIC patients of two sites, by the commands that a user would type.

python experiments/joint/run.py            # what is done is kept
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from m2net.cli.chain import cohort_once, command, fit_once, split_once

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/joint")
COHORTS = {"train": (1200, 81, "home", "0.667 0.333 0"), "home": (1000, 84, "home", "0 0 1"), "north": (400, 85, "north", "0 0 1")}
"""Patients, seed, site and parts: those of ``train`` are for training and validation, the others are judged on only."""
SIZE = ["--matrix", "112", "--slice-mm", "4"]


def prepare() -> dict[str, Path]:
    """The three cohorts, parted, without the few studies that m2net verify rejects: lungs cut by the picture."""
    return {
        name: split_once(cohort_once(RUNS / name, patients, seed, "--site", site, *SIZE, verified=True), parts)
        for name, (patients, seed, site, parts) in COHORTS.items()
    }


def judge(site: str, manifest: Path) -> None:
    """Test the model on a held-out cohort."""
    out = RUNS / f"test_{site}"
    if not (out / "metrics.json").exists():
        words = [f"--data.manifest={manifest}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
        command("test", "--config", HERE / "joint.yaml", *words, "--ckpt_path", RUNS / "best.ckpt")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    manifests = prepare()
    fit_once(RUNS, "--config", HERE / "joint.yaml")
    for site in ("home", "north"):
        judge(site, manifests[site])
    subprocess.run([sys.executable, str(HERE / "results.py")], check=True)


if __name__ == "__main__":
    main()
