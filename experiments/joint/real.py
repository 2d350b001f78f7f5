"""Real anatomy: lobes of single slices by the model of SYNTHETIC pictures, as it is and fine-tuned, and whole series by the joint model.

Slices are cross-validated, grouped by patient.

python experiments/joint/real.py ../shared/data

What is done is kept. The data are not part of the project.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import SimpleITK as sitk
from manifest import pairs
from run import HERE, RUNS, held_out

from m2net.cli.chain import command, fit_once
from m2net.recipes.table import write
from m2net.reports.results import write_json
from m2net.studies import Geometry, read_image, to_lps
from m2net.studies.lungs import find_thorax

REAL = RUNS / "real_lobes"
PHANTOMS = Path("runs/covid_ct/phantoms")
FOLDS = 5
AIR_HU = -500


def volumes(source: Path) -> None:
    """Pages of the real series by the joint model, and how its lungs lie with those that thresholds find."""
    series = sorted(path for path in source.iterdir() if path.is_dir())
    out = RUNS / "volumes"
    command("assess", *series, "--model", RUNS / "best.ckpt", "--out", out)
    found = {}
    for folder in series:
        volume = read_image(folder)
        assert volume.geometry is not None
        classical = find_thorax(volume, volume.geometry.spacing_mm).lungs > 0
        drawn = to_lps(sitk.GetArrayFromImage(image := sitk.ReadImage(out / folder.name / "lobes.nii.gz")), Geometry.of(image))[0] > 0
        air = classical & (volume.array < AIR_HU)
        found[folder.name] = {
            "covered": float((drawn & air).sum() / air.sum()),
            "outside_ml": float((drawn & ~classical).sum() * volume.geometry.voxel_ml),
            "drawn_ml": float(drawn.sum() * volume.geometry.voxel_ml),
        }
    write_json(out / "volumes.json", found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, help="folder that holds ct_lobes/ and ct_volumes/")
    data = options.parse_args().data
    source = data / "ct_lobes"
    if not source.is_dir():
        sys.exit(f"{source} does not exist")
    if not (PHANTOMS / "manifest.csv").exists():
        size = ["--patients", "320", "--seed", "301", "--matrix", "176", "--slice-mm", "6", "--format", "png", "--pictures", "16"]
        command("phantom", "--out", PHANTOMS, *size)
    if not (PHANTOMS / "manifest.split.csv").exists():
        command("split", PHANTOMS / "manifest.csv", "--parts", "0.92", "0.07", "0.01")
    model = RUNS / "lobes_pictures" / "best.ckpt"
    fit_once(model.parent, "--config", HERE / "lobes_pictures.yaml")
    REAL.mkdir(parents=True, exist_ok=True)
    write(REAL / "manifest.csv", pairs(source, REAL / "manifest.csv"), source, "pairs.csv")
    plain = REAL / "phantoms_only"
    if not (plain / "metrics.json").exists():
        manifest = held_out(REAL / "manifest.csv")
        words = [f"--data.manifest={manifest}", f"--data.store={REAL / 'store'}", f"--trainer.default_root_dir={plain}"]
        command("test", "--config", HERE / "lobes_pictures.yaml", *words, "--trainer.logger=false", "--ckpt_path", model)
    configs = ["--config", HERE / "lobes_pictures.yaml", "--config", HERE / "lobes_real.yaml"]
    command("crossval", *configs, "--folds", str(FOLDS), "--out", REAL / "crossval")
    volumes(data / "ct_volumes")


if __name__ == "__main__":
    main()
