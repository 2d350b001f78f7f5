"""Four ordered grades: cohorts, fits and their judgement on fresh SYNTHETIC patients, by the commands that a user would type.

python experiments/severity/run.py                 # what is done is kept
python experiments/severity/run.py --rows shares
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from m2net.cli.chain import cohort_once, command, fit_once, is_done, join_once, split_once

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/severity")
COHORTS = {"train": (1000, 95, "0.4 0.6 0"), "fresh": (1010, 96, "0 0 1")}
"""Patients, seed and parts: the first train and calibrate, the fresh ones are judged on only."""
SIZE = ["--matrix", "96", "--slice-mm", "4", "--grades", "4"]
ROWS = {"shares": ["four_grades"], "lobe_aware": ["four_grades", "lobe_aware"]}
"""Configurations of each row."""
POINTED = 30
"""Patients of each part whose infection is pointed at: the threshold of the boxes is chosen on some that calibrate."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help="some of: " + ", ".join(ROWS))
    given = options.parse_args()
    manifests = {
        name: split_once(cohort_once(RUNS / name, patients, seed, *SIZE, verified=True), parts)
        for name, (patients, seed, parts) in COHORTS.items()
    }
    for manifest in manifests.values():
        command("prepare", manifest, "--store", RUNS / "store", "--spacing", "4")
    for row in given.rows:
        configs = [word for name in ROWS[row] for word in ("--config", HERE / f"{name}.yaml")]
        fit_once(RUNS / row, *configs)
        out, best = RUNS / row / "test", RUNS / row / "best.ckpt"
        if not is_done(out / "metrics.json", best):
            placed = [f"--data.manifest={manifests['fresh']}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
            command("test", *configs, *placed, "--ckpt_path", best)
        store, found = ["--store", RUNS / "store"], out / "audit.json"
        if not is_done(found, out / "predictions.csv"):
            words = ["--label", "severity", "--predictions", out / "predictions.csv", "--out", found]
            command("audit", manifests["fresh"], *store, "--spacing", "4", *words)
        if not is_done(out / "localisation.json", best):
            words = ["--model", best, "--methods", "drawn", "--most", str(POINTED), "--out", out]
            command("localise", join_once(RUNS / "both.csv", list(manifests.values())), *store, *words)
    subprocess.run([sys.executable, str(HERE / "results.py")], check=True)


if __name__ == "__main__":
    main()
