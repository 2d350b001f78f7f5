"""The demo: from nothing to a report page, by the commands that a user would type.

python experiments/demo/run.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from m2net.cli.chain import command
from m2net.recipes.table import read_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEMO = Path("runs/demo")
SHOWN = ("lobes/dice_mean", "severity/auc", "severity/auc_best", "severity/auc_share")


def train_and_test(workdir: Path, name: str, configs: list[str], more: list[str]) -> dict[str, Any]:
    """Fit and test one configuration; returns its metrics with the seconds of fitting."""
    chosen = [word for config in configs for word in ("--config", str(HERE / config))]
    seconds = command("fit", *chosen, *more, folder=workdir).seconds
    command("test", *chosen, "--trainer.logger=false", "--ckpt_path", DEMO / name / "best.ckpt", folder=workdir)
    return {**json.loads((workdir / DEMO / name / "metrics.json").read_text()), "fit_seconds": round(seconds, 1)}


def held_out(out: Path) -> Path:
    """Image of the held-out patient with the highest predicted severity."""
    rows = sorted(read_table(out / "joint" / "predictions.csv"), key=lambda row: float(row["severity_ge1"]))
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
    command("phantom", "--out", DEMO / "cohort", "--patients", str(given.patients), "--seed", str(given.seed), *size, folder=work)
    command("split", DEMO / "cohort" / "manifest.csv", "--parts", "0.74", "0.04", "0.22", folder=work)
    command("prepare", DEMO / "cohort" / "manifest.split.csv", "--store", DEMO / "store", "--spacing", "4", folder=work)
    more = [f"--trainer.max_steps={given.steps}", f"--trainer.val_check_interval={given.steps}"] if given.steps else []
    joint = train_and_test(work, "joint", ["joint.yaml"], more)
    plain = train_and_test(work, "plain", ["joint.yaml", "plain.yaml"], more)
    command(
        "phantom", "--out", DEMO / "dicom", "--patients", "1", "--seed", str(given.seed + 1000), "--format", "dicom", *size, folder=work
    )
    series = next((out / "dicom").glob("*/series")).relative_to(work)
    command(
        "assess", held_out(out).relative_to(work), series, "--model", DEMO / "joint" / "best.ckpt", "--out", DEMO / "assess", folder=work
    )

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
