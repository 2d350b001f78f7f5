"""Whole real series by the joint model of SYNTHETIC patients.

python experiments/joint/real.py ../shared/data/ct_volumes

The data are not part of the project.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import SimpleITK as sitk
from run import RUNS

from m2net.cli.chain import command
from m2net.reports.results import write_json
from m2net.studies import Geometry, read_image, to_lps
from m2net.studies.lungs import find_thorax

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
    options.add_argument("data", type=Path, help="folder of the series, a folder each")
    source = options.parse_args().data
    if not source.is_dir():
        sys.exit(f"{source} does not exist")
    volumes(source)


if __name__ == "__main__":
    main()
