"""Real anatomy: lobes on single slices, by the model of SYNTHETIC pictures as it is, and fine-tuned by cross-validation grouped by patient.

python experiments/joint/real.py ../shared/data

What is done is kept. The data are not part of the project.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from manifest import pairs
from run import HERE, RUNS, held_out

from m2net.cli.chain import command
from m2net.recipes.table import write

REAL = RUNS / "real_lobes"
PHANTOMS = Path("runs/covid_ct/phantoms")
FOLDS = 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, help="folder that holds ct_lobes/")
    source = options.parse_args().data / "ct_lobes"
    if not source.is_dir():
        sys.exit(f"{source} does not exist")
    if not (PHANTOMS / "manifest.csv").exists():
        size = ["--patients", "320", "--seed", "301", "--matrix", "176", "--slice-mm", "6", "--format", "png", "--pictures", "16"]
        command("phantom", "--out", PHANTOMS, *size)
    if not (PHANTOMS / "manifest.split.csv").exists():
        command("split", PHANTOMS / "manifest.csv", "--parts", "0.92", "0.07", "0.01")
    model = RUNS / "lobes_pictures" / "best.ckpt"
    if not model.exists():
        command("fit", "--config", HERE / "lobes_pictures.yaml")
    REAL.mkdir(parents=True, exist_ok=True)
    write(REAL / "manifest.csv", pairs(source, REAL / "manifest.csv"), source, "pairs.csv")
    plain = REAL / "phantoms_only"
    if not (plain / "metrics.json").exists():
        manifest = held_out(REAL / "manifest.csv")
        words = [f"--data.manifest={manifest}", f"--data.store={REAL / 'store'}", f"--trainer.default_root_dir={plain}"]
        command("test", "--config", HERE / "lobes_pictures.yaml", *words, "--trainer.logger=false", "--ckpt_path", model)
    configs = ["--config", HERE / "lobes_pictures.yaml", "--config", HERE / "lobes_real.yaml"]
    command("crossval", *configs, "--folds", str(FOLDS), "--out", REAL / "crossval")


if __name__ == "__main__":
    main()
