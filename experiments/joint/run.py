"""The joint model: cohorts, fit, and its judgement on held-out SYNTHETIC patients of two sites, by the commands that a user would type.

python experiments/joint/run.py                         # what is done is kept
python experiments/joint/run.py --rows few_labels
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from m2net.cli.chain import cohort_once, command, fit_once, is_done, join_once, split_once
from m2net.recipes.table import read_table
from m2net.reports.results import write_table

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/joint")
COHORTS = {
    "train": (1400, 81, "home", "0.571 0.429 0"), "calibrate": (600, 501, "home", "0 1 0"),
    "home": (1000, 502, "home", "0 0 1"), "north": (400, 503, "north", "0 0 1"),
}  # fmt: skip
"""Patients, seed, site and parts: those of ``train`` and ``calibrate`` are for training and validation, the others are judged on only."""
SIZE = ["--matrix", "112", "--slice-mm", "4"]
ROWS = {"joint": (RUNS, ["joint"]), "few_labels": (RUNS / "few_labels", ["joint", "few_labels"])}
"""Folder and configurations: all labels, and those that a hospital has."""
POINTED = 100
"""Patients of each part whose infection is pointed at: the threshold of the boxes is chosen on some that calibrate."""
BY = {"joint": "drawn", "few_labels": "score_maps"}
"""What each row points with."""
SEEN, LABELLED = {"train": 400, "val": 200}, {"severity": 500, "lobes": 40, "infection": 0}
"""Patients that such a hospital has in each part, and how many of them all carry what, drawn at random; all have a diagnosis."""


def prepare() -> dict[str, Path]:
    """The cohorts, parted, without the few studies that m2net verify rejects: lungs cut by the picture; and all that a fit sees as one."""
    parted = {
        name: split_once(cohort_once(RUNS / name, patients, seed, "--site", site, *SIZE, verified=True), parts)
        for name, (patients, seed, site, parts) in COHORTS.items()
    }
    return parted | {"fit": join_once(RUNS / "fit.csv", [parted["train"], parted["calibrate"]])}


def at_a_hospital(manifest: Path) -> None:
    """Write the first studies of a manifest with the labels that a hospital has."""
    everyone, out, rng = read_table(manifest), RUNS / "few_labels" / "manifest.csv", np.random.default_rng(81)
    rows = [row for part, count in SEEN.items() for row in [one for one in everyone if one["split"] == part][:count]]
    for column, count in LABELLED.items():
        for k in rng.permutation(len(rows))[count:]:
            rows[k][column] = ""
    for row in rows:
        row |= {
            column: str(Path("..") / "train" / row[column]) if row[column] else "" for column in ("image", "lobes", "lungs", "infection")
        }
        row["severity_scheme"] = row["severity_scheme"] if row["severity"] else ""
    out.parent.mkdir(exist_ok=True)
    write_table(out, rows)


def fit_and_judge(row: str, manifests: dict[str, Path]) -> None:
    """Fit one row and test it on the held-out cohorts."""
    folder, names = ROWS[row]
    configs = [word for name in names for word in ("--config", HERE / f"{name}.yaml")]
    fit_once(folder, *configs)
    for site in ("home", "north"):
        out = folder / f"test_{site}"
        if not is_done(out / "metrics.json", folder / "best.ckpt"):
            for of_another in out.glob("audit_*.json"):
                of_another.unlink()
            words = [f"--data.manifest={manifests[site]}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
            command("test", *configs, *words, "--ckpt_path", folder / "best.ckpt")
        audit(manifests[site], out)


def point(row: str, manifests: dict[str, Path]) -> None:
    """Where the infection that a row's model sees lies, against the masks of patients of ``home``."""
    folder, _ = ROWS[row]
    out = folder / "test_home"
    if not is_done(out / "localisation.json", folder / "best.ckpt"):
        both = join_once(RUNS / "both.csv", [manifests["train"], manifests["home"]])
        words = ["--model", folder / "best.ckpt", "--methods", BY[row], "--most", str(POINTED), "--out", out]
        command("localise", both, "--store", RUNS / "store", *words)


def audit(manifest: Path, out: Path) -> None:
    """What trivial facts tell of the labels that the model was judged on, and what is left of it within their strata."""
    for label in ("severity", "diagnosis"):
        found = out / f"audit_{label}.json"
        if not is_done(found, out / "predictions.csv"):
            words = ["--label", label, "--predictions", out / "predictions.csv", "--out", found]
            command("audit", manifest, "--store", RUNS / "store", "--spacing", "3", *words)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", nargs="+", default=["joint"], choices=list(ROWS), metavar="ROW", help="some of: " + ", ".join(ROWS))
    given = options.parse_args()
    manifests = prepare()
    if "few_labels" in given.rows:
        at_a_hospital(manifests["train"])
    for row in given.rows:
        fit_and_judge(row, manifests)
        point(row, manifests)
    subprocess.run([sys.executable, str(HERE / "results.py")], check=True)


if __name__ == "__main__":
    main()
