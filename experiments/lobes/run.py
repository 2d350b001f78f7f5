"""Lobes alone: whole slices that know where they are against plain patches, on SYNTHETIC patients of two sites.

python experiments/lobes/run.py                       # what is done is kept
python experiments/lobes/run.py --rows patches
"""

from __future__ import annotations

import argparse
from pathlib import Path

from m2net.cli.chain import cohort_once, command, fit_once, is_done, split_once
from m2net.reports.figures import metrics_rows, write_figures

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/lobes")
COHORTS = {"train": (400, 86, "home", "0.88 0.12 0"), "home": (100, 87, "home", "0 0 1"), "north": (100, 88, "north", "0 0 1")}
"""Patients, seed, site and parts. Slices are as thick as the site takes them."""
ROWS = {"position_aware": [HERE / "position_aware.yaml"], "patches": [HERE / "position_aware.yaml", HERE / "patches.yaml"]}


def row(name: str) -> None:
    """Fit one row, then test it on the held-out patients of both sites."""
    configs = [word for path in ROWS[name] for word in ("--config", path)]
    best = RUNS / name / "best.ckpt"
    fit_once(RUNS / name, *configs)
    for site in ("home", "north"):
        out = RUNS / name / site
        if not is_done(out / "metrics.json", best):
            words = [f"--data.manifest={RUNS / site / 'manifest.split.csv'}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
            command("test", *configs, *words, "--ckpt_path", best)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help="some of: " + ", ".join(ROWS))
    rows = options.parse_args().rows
    for name, (patients, seed, site, parts) in COHORTS.items():
        split_once(cohort_once(RUNS / name, patients, seed, "--site", site), parts)
    for name in rows:
        row(name)
    found = [
        figure for name in ROWS for site in ("home", "north")
        for figure in metrics_rows(f"{name}, synthetic, held out, site {site}", RUNS / name / site / "metrics.json")
    ]  # fmt: skip
    write_figures(HERE / "results.csv", found)
    print(HERE / "results.csv")


if __name__ == "__main__":
    main()
