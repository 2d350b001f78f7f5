"""Lobes of real single slices, learnt from synthetic pictures around lobe masks of other patients, as they are and fine-tuned.

python experiments/real_lobes/run.py ../shared/data/ct_lobes          # what is done is kept
python experiments/real_lobes/run.py ../shared/data/ct_lobes --rows real

The data are not part of the project.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from manifest import pairs

from m2net.cli.chain import command, fit_once
from m2net.recipes.table import write
from m2net.reports.figures import crossval_rows, metrics_rows, write_figures

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/real_lobes")
SLICES = RUNS / "slices"
FOLDS = "5"
COHORTS = {"home": ("303", "4"), "north": ("304", "3")}
"""Seed and slice thickness in mm, by site."""
SIZE = ["--patients", "102", "--matrix", "256", "--format", "png", "--pictures", "20", "--mix", "0.6", "0.2", "0.2"]
ROWS = {"real": [HERE / "pictures.yaml"], "drawn": [HERE / "pictures.yaml", HERE / "drawn.yaml"]}
"""Pictures around lobe masks of patients none of whose slices is used, and around lungs of drawn shape."""
NAMES = {"real": "pictures around real lobes", "drawn": "pictures of drawn lungs"}


def prepare(name: str, source: Path) -> None:
    """The pictures of one row, parted by patient."""
    folder = RUNS / "pictures"
    lungs = ["--lobes", *sorted((source / "volumes").glob("U*_lobes.nii.gz"))] if name == "real" else []
    for site, (seed, slice_mm) in COHORTS.items():
        if not (folder / name / site / "manifest.csv").exists():
            words = ["--out", folder / name / site, "--site", site, "--seed", seed, "--slice-mm", slice_mm]
            command("phantom", *words, *SIZE, *lungs)
    both = folder / f"{name}.csv"
    if not (folder / f"{name}.split.csv").exists():
        manifests = [folder / name / site / "manifest.csv" for site in COHORTS]
        subprocess.run([sys.executable, HERE.parent / "join.py", both, *manifests], check=True)
        command("split", both, "--parts", "0.89", "0.11", "0")


def row(name: str) -> None:
    """Fit on pictures; judge on the real slices as it is, then fine-tuned, cross-validated by patient."""
    configs = [word for path in ROWS[name] for word in ("--config", path)]
    fit_once(RUNS / name, *configs)
    best = RUNS / name / "best.ckpt"
    plain, tuned = SLICES / name / "as_it_is", SLICES / name / "crossval"
    if not (plain / "metrics.json").exists():
        words = [f"--data.manifest={SLICES / 'manifest.split.csv'}", f"--data.store={SLICES / 'store'}"]
        words += [f"--trainer.default_root_dir={plain}", "--trainer.logger=false"]
        command("test", *configs, *words, "--ckpt_path", best)
    over = ["--config", HERE / "pictures.yaml", "--config", HERE / "slices.yaml", f"--model.start_from={best}"]
    command("crossval", *over, "--folds", FOLDS, "--out", tuned)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path, help="folder with pairs.csv, images/, masks/ and volumes/")
    options.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help="some of: " + ", ".join(ROWS))
    given = options.parse_args()
    if not (given.source / "pairs.csv").is_file():
        sys.exit(f"{given.source / 'pairs.csv'} does not exist")
    SLICES.mkdir(parents=True, exist_ok=True)
    write(SLICES / "manifest.csv", pairs(given.source, SLICES / "manifest.csv"), given.source, "pairs.csv")
    command("split", SLICES / "manifest.csv", "--parts", "0", "0", "1")
    for name in given.rows:
        prepare(name, given.source)
        row(name)
    fit_once(
        SLICES, "--config", HERE / "pictures.yaml", "--config", HERE / "slices.yaml"
    )  # runs/real_lobes/slices/best.ckpt, for new slices
    found = [
        figure for name in ROWS
        for figure in (
            *metrics_rows(f"real slices, learnt from {NAMES[name]}", SLICES / name / "as_it_is" / "metrics.json"),
            *crossval_rows(f"real slices, learnt from {NAMES[name]} and fine-tuned", SLICES / name / "crossval" / "crossval.json"),
        )
    ]  # fmt: skip
    write_figures(HERE / "results.csv", found)
    print(HERE / "results.csv")


if __name__ == "__main__":
    main()
