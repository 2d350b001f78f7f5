"""The demo: from nothing to a report page, by the commands that a user would type.

python experiments/demo/run.py
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEMO = Path("runs/demo")
SHOWN = ("lobes/dice_mean", "severity/auc", "severity/auc_best", "severity/auc_share")


def command(workdir: Path, *words: str | Path) -> float:
    """Print and run one m2net command in ``workdir``; returns its seconds."""
    arguments = [str(w) for w in words]
    print(f"\n$ m2net {shlex.join(arguments)}", flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "m2net.cli.main", *arguments], check=True, cwd=workdir)
    return time.monotonic() - start


def train_and_test(workdir: Path, name: str, configs: list[str], more: list[str]) -> dict[str, Any]:
    """Fit and test one configuration; returns its metrics with the seconds of fitting."""
    chosen = [word for config in configs for word in ("--config", str(HERE / config))]
    seconds = command(workdir, "fit", *chosen, *more)
    command(workdir, "test", *chosen, "--trainer.logger=false", "--ckpt_path", DEMO / name / "best.ckpt")
    return {**json.loads((workdir / DEMO / name / "metrics.json").read_text()), "fit_seconds": round(seconds, 1)}


def held_out(out: Path) -> Path:
    """Image of the held-out patient with the highest predicted severity."""
    with (out / "joint" / "predictions.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["severity_ge1"]))
    return out / "cohort" / rows[-1]["study_id"] / "image.nii.gz"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workdir", type=Path, default=ROOT, help="runs/demo is made in it")
    options.add_argument("--patients", type=int, default=460)
    options.add_argument("--seed", type=int, default=21)
    options.add_argument("--matrix", type=int, default=96)
    options.add_argument("--steps", type=int, help="training steps; those of the YAML by default")
    given = options.parse_args()
    work, out = given.workdir, given.workdir / DEMO
    start = time.monotonic()
    if out.exists():
        print(f"Removing the earlier demo in {out}")
        shutil.rmtree(out)
    size = ["--matrix", str(given.matrix), "--slice-mm", "4"]
    command(work, "phantom", "--out", DEMO / "cohort", "--patients", str(given.patients), "--seed", str(given.seed), *size)
    command(work, "split", DEMO / "cohort" / "manifest.csv", "--parts", "0.74", "0.04", "0.22")
    command(work, "prepare", DEMO / "cohort" / "manifest.split.csv", "--store", DEMO / "store", "--spacing", "4")
    more = [f"--trainer.max_steps={given.steps}", f"--trainer.val_check_interval={given.steps}"] if given.steps else []
    from m2net.machine import fast_bfloat16

    if not fast_bfloat16():  # without hardware for it bfloat16 is slower than float32
        more.append("--trainer.precision=32-true")
    joint = train_and_test(work, "joint", ["joint.yaml"], more)
    plain = train_and_test(work, "plain", ["joint.yaml", "plain.yaml"], more)
    command(work, "phantom", "--out", DEMO / "dicom", "--patients", "1", "--seed", str(given.seed + 1000), "--format", "dicom", *size)
    series = next((out / "dicom").glob("*/series")).relative_to(work)
    command(work, "assess", held_out(out).relative_to(work), series, "--model", DEMO / "joint" / "best.ckpt", "--out", DEMO / "assess")

    metrics = {
        **joint,
        "plain/lobes/dice_mean": plain["lobes/dice_mean"],
        "plain/severity/auc": plain["severity/auc"],
        "plain/fit_seconds": plain["fit_seconds"],
        "seconds": round(time.monotonic() - start, 1),
        "seed": given.seed,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    report(out, metrics, plain)


def report(out: Path, metrics: dict[str, Any], plain: dict[str, Any]) -> None:
    """Print the figures and where the pages are."""
    print(f"\nHeld-out synthetic patients: {metrics['patients']} (phantom version {metrics['phantom_version']}, seed {metrics['seed']})")
    print(f"{'':24}{'joint, position-aware':>24}{'plain patches':>18}")
    for name in (*SHOWN, "fit_seconds"):
        print(f"{name:24}{metrics[name]:>24.3f}{plain[name]:>18.3f}")
    print(f"seconds in all: {metrics['seconds']:.0f}; figures kept in {out / 'metrics.json'}")
    for page in sorted((out / "assess").glob("*/report.html")):
        print(f"page: {page.resolve()}")


if __name__ == "__main__":
    main()
