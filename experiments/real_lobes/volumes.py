"""Lobes of whole series: the model of drawn lungs (experiments/lobes), learnt on with SYNTHETIC patients around lobe masks of real ones.

python experiments/real_lobes/volumes.py ../shared/data/ct_lobes ../shared/data/ct_volumes         # what is done is kept

The data are not part of the project. It starts from runs/lobes/position_aware/best.ckpt: experiments/lobes/run.py --rows position_aware.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from m2net.cli.chain import command, fit_once
from m2net.reports.figures import named_rows, write_figures

HERE = Path(__file__).resolve().parent
LOBES, RUNS = Path("runs/lobes/position_aware"), Path("runs/real_lobes/volumes")
COHORTS = {"home": ("311", "68"), "north": ("312", "34")}
"""Seed and patients, by site: each of 34 masks serves twice, and once."""
MODELS = {"drawn lungs": LOBES, "real lobes": RUNS}


def prepare(masks: list[Path]) -> None:
    """The patients, parted by mask."""
    if not masks:
        sys.exit("there is no *_lobes.nii.gz in volumes/")
    for site, (seed, patients) in COHORTS.items():
        folder = RUNS / site
        if not (folder / "manifest.csv").exists():
            command("phantom", "--out", folder, "--site", site, "--seed", seed, "--patients", patients, "--lobes", *masks)
        if not (folder / "good.csv").exists():
            command("verify", folder / "manifest.csv", "--clean", folder / "good.csv", ends=(0, 1))
    if not (RUNS / "manifest.split.csv").exists():
        subprocess.run(
            [sys.executable, HERE.parent / "join.py", RUNS / "manifest.csv", *(RUNS / site / "good.csv" for site in COHORTS)], check=True
        )
        command("split", RUNS / "manifest.csv", "--parts", "0.89", "0.11", "0")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("masks", type=Path, help="folder with volumes/*_lobes.nii.gz")
    options.add_argument("series", type=Path, help="folder of real series, a folder each")
    given = options.parse_args()
    prepare(sorted((given.masks / "volumes").glob("*_lobes.nii.gz")))
    fit_once(RUNS, "--config", HERE.parent / "lobes" / "position_aware.yaml", "--config", HERE / "volumes.yaml")
    figures = []
    for name, folder in MODELS.items():
        if not (folder / "series" / "series.json").exists():
            script = [sys.executable, HERE.parent / "series.py", folder / "best.ckpt", given.series, folder / "series"]
            subprocess.run(script, check=True)
        figures += named_rows(f"real series {{}}, learnt from {name}", folder / "series" / "series.json")
    write_figures(HERE / "results.csv", figures)
    print(HERE / "results.csv")


if __name__ == "__main__":
    main()
