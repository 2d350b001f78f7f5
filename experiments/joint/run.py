"""The joint model: cohorts, fit, and its judgement on held-out SYNTHETIC patients of two sites, by the commands that a user would type.

python experiments/joint/run.py            # what is done is kept
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/joint")
COHORTS = {"train": (1200, 81, "home"), "home": (1000, 82, "home"), "north": (400, 83, "north")}
"""Patients, seed and site. Those of ``train`` are parted into training and validation; the others are judged on only."""
PARTS = ("0.667", "0.333", "0")
SIZE = ["--matrix", "112", "--slice-mm", "4"]


def command(*words: str | Path) -> None:
    """Print and run one m2net command; ``verify`` ends with 1 where it rejects a study."""
    arguments = [str(w) for w in words]
    print(f"\n$ m2net {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "m2net.cli.main", *arguments], check=False).returncode
    if code not in ((0, 1) if arguments[0] == "verify" else (0,)):
        sys.exit(f"m2net {arguments[0]} failed with {code}")


def held_out(manifest: Path) -> Path:
    """The same studies, all of them test."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row | {"split": "test"} for row in csv.DictReader(file)]
    out = manifest.with_suffix(".test.csv")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


def prepare() -> None:
    """The three cohorts, without the few studies that m2net verify rejects: lungs cut by the picture."""
    for name, (patients, seed, site) in COHORTS.items():
        if not (RUNS / name / "manifest.csv").exists():
            command("phantom", "--out", RUNS / name, "--patients", str(patients), "--seed", str(seed), "--site", site, *SIZE)
        if not (RUNS / name / "good.csv").exists():
            command("verify", RUNS / name / "manifest.csv", "--clean", RUNS / name / "good.csv")
    if not (RUNS / "train" / "good.split.csv").exists():
        command("split", RUNS / "train" / "good.csv", "--parts", *PARTS)


def judge(config: Path, model: Path, site: str, out: Path) -> None:
    """Test a checkpoint on a held-out cohort."""
    if not (out / "metrics.json").exists():
        manifest = held_out(RUNS / site / "good.csv")
        words = [f"--data.manifest={manifest}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
        command("test", "--config", config, *words, "--ckpt_path", model)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    prepare()
    if not (RUNS / "best.ckpt").exists():
        command("fit", "--config", HERE / "joint.yaml")
    for site in ("home", "north"):
        judge(HERE / "joint.yaml", RUNS / "best.ckpt", site, RUNS / f"test_{site}")
    subprocess.run([sys.executable, str(HERE / "results.py")], check=True)


if __name__ == "__main__":
    main()
