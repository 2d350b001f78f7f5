"""A model's maps on whole real CT series: lobes against the lungs that thresholds find, infection against labels of slices and lobes.

python experiments/series.py MODEL SERIES OUT        # SERIES: a folder of series, a folder each

Writes pages and masks (``m2net assess``) and OUT/series.json. The thresholds' lungs have wide airways in, and consolidation bridged up to
two centimetres. The data are not part of the project.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from m2net.cli.chain import command
from m2net.recipes.table import read_table
from m2net.reports.results import write_json
from m2net.studies import Volume, read_image, read_mask_alone
from m2net.studies.lungs import find_thorax
from m2net.vocabulary import Column, Lobe

AIR_HU = -500

Mask = NDArray[np.uint8]


def of_lobes(volume: Volume, lobes: Mask) -> dict[str, float]:
    """Shares of the found lungs that lobes (Z, Y, X) cover, volumes, and how far each lobe is one piece, of the lobe that is least so."""
    assert volume.geometry is not None
    found = find_thorax(volume, volume.geometry.spacing_mm).lungs > 0
    drawn, air = lobes > 0, volume.array < AIR_HU
    return {
        "lungs/covered": float((drawn & found & air).sum() / (found & air).sum()),
        "lungs/dense_covered": float((drawn & found & ~air).sum() / (found & ~air).sum()),
        "lungs/outside_ml": float((drawn & ~found).sum() * volume.geometry.voxel_ml),
        "lungs/drawn_ml": float(drawn.sum() * volume.geometry.voxel_ml),
        "lobes/drawn": len(np.unique(lobes[drawn])),
        "lobes/one_piece_least": min((one_piece(lobes == code) for code in np.unique(lobes[drawn])), default=float("nan")),
    }


def one_piece(mask: NDArray[np.bool_]) -> float:
    """Share of the voxels that lie in the largest connected piece."""
    pieces, _ = ndimage.label(mask)
    return float(np.bincount(pieces[mask]).max() / mask.sum())


def of_infection(volume: Volume, lobes: Mask, infection: Mask, labels: list[dict[str, str]]) -> dict[str, float]:
    """Volume of infection, and how well its area ranks slices, and lobes in slices, by their labels.

    Maps are (Z, Y, X) from below; labels count slices from the top, and may lie beside the series (slice_labels.csv).
    """
    assert volume.geometry is not None
    figures = {"infection/drawn_ml": float((infection > 0).sum() * volume.geometry.voxel_ml)}
    rows = sorted(labels, key=lambda row: -int(row["z_index_superior_first"]))
    area = (infection > 0).sum((1, 2))
    inside = [((infection > 0) & (lobes == lobe)).sum((1, 2)) for lobe in Lobe]
    told = {
        "infection/slice_auc": ([row["infected"] for row in rows], area),
        "infection/lobe_in_slice_auc": ([row[lobe.short.lower()] for lobe in Lobe for row in rows], np.concatenate(inside)),
        "infection/height_alone_slice_auc": ([row["infected"] for row in rows], -np.arange(len(rows))),
    }
    for name, (labelled, scores) in told.items():
        if len(set(labelled)) == 2:
            figures[name] = float(roc_auc_score(np.array(labelled, dtype=int), scores))
    return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "series", "out"):
        options.add_argument(name, type=Path)
    given = options.parse_args()
    if not given.series.is_dir():
        sys.exit(f"{given.series} does not exist")
    folders = sorted(path for path in given.series.iterdir() if path.is_dir())
    table = given.series / "slice_labels.csv"
    labels = read_table(table) if table.exists() else []
    command("assess", *folders, "--model", given.model, "--out", given.out)
    found = {}
    for folder in folders:
        drawn = {kind: given.out / folder.name / f"{kind}.nii.gz" for kind in (Column.LOBES, Column.INFECTION)}
        if not drawn[Column.LOBES].exists():
            sys.exit(f"{given.model} draws no lobes")
        volume, lobes = read_image(folder), read_mask_alone(drawn[Column.LOBES], Column.LOBES)[0]
        found[folder.name] = of_lobes(volume, lobes)
        mine = [row for row in labels if row["study_id"] == folder.name]
        if mine and drawn[Column.INFECTION].exists():
            infection = read_mask_alone(drawn[Column.INFECTION], Column.INFECTION)[0]
            found[folder.name] |= of_infection(volume, lobes, infection, mine)
    write_json(given.out / "series.json", found)


if __name__ == "__main__":
    main()
