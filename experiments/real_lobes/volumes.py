"""Lobes and infection of whole series: the lobes of drawn lungs, learnt on with SYNTHETIC patients around lobe masks of real ones.

python experiments/real_lobes/volumes.py ../shared/data/ct_lobes ../shared/data/ct_volumes         # what is done is kept
python experiments/real_lobes/volumes.py ../shared/data/ct_lobes ../shared/data/ct_volumes --rows real

The data are not part of the project. It starts from runs/lobes/position_aware/best.ckpt: experiments/lobes/run.py --rows position_aware.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from run import RUNS, join_and_part, lobe_masks

from m2net.cli.chain import cohort_once, fit_once, is_done
from m2net.reports.figures import named_rows, write_figures

HERE = Path(__file__).resolve().parent
START = Path("runs/lobes/position_aware")
COHORTS = {"home": (68, 311), "north": (34, 312)}
"""Patients and seed, by site: each of 34 masks serves twice, and once."""
START_YAML, REAL_YAML = HERE.parent / "lobes" / "position_aware.yaml", HERE / "volumes.yaml"
ROWS = {
    "real": (RUNS / "volumes", [START_YAML, REAL_YAML]),
    "drawn": (RUNS / "volumes_drawn", [START_YAML, REAL_YAML, HERE / "volumes_drawn.yaml"]),
}
NAMES = {"real": "learnt on with real lobes", "drawn": "learnt on with drawn lungs"}


def prepare(folder: Path, masks: list[Path]) -> None:
    """The patients, around ``masks`` or of drawn shape, parted by mask or patient."""
    lungs = ["--lobes", *masks] if masks else []
    parts = [cohort_once(folder / site, *numbers, "--site", site, *lungs, verified=True) for site, numbers in COHORTS.items()]
    join_and_part(folder / "manifest.csv", parts)


def on_series(folder: Path, series: Path) -> Path:
    """Maps and figures of the real series by the folder's model."""
    model, found = folder / "best.ckpt", folder / "series" / "series.json"
    if not is_done(found, model):
        subprocess.run([sys.executable, HERE.parent / "series.py", model, series, found.parent], check=True)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("lobes", type=Path, help="folder with volumes/*_lobes.nii.gz")
    options.add_argument("series", type=Path, help="folder of real series, a folder each")
    options.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    given = options.parse_args()
    masks = lobe_masks(given.lobes, "")
    figures = [*named_rows("real series {}, lobes of drawn lungs, the start", on_series(START, given.series))]
    for name in given.rows:
        folder, configs = ROWS[name]
        prepare(folder, masks if name == "real" else [])
        fit_once(folder, *(word for path in configs for word in ("--config", path)))
        figures += named_rows(f"real series {{}}, {NAMES[name]}", on_series(folder, given.series))
    write_figures(HERE / "results.csv", figures)
    print(HERE / "results.csv")


if __name__ == "__main__":
    main()
