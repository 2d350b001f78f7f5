"""Slices of the two infected series of ``ct_volumes`` as pictures, each with its label, to judge a model of pictures on.

    python experiments/weakly_supervised/series_slices.py ../shared/data/ct_volumes runs/paintings/series

Slices of the lungs' height in a usual lung window. The normal series is left out: it is painted into. All stays below runs/.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from m2net.phantoms.pictures import write_picture
from m2net.recipes.table import Row, read_table, row, write
from m2net.studies import find_thorax, read_image
from m2net.vocabulary import Column, Modality

WINDOW = (-1200.0, 100.0)


def slices(data: Path, out: Path) -> Iterator[Row]:
    """A row a slice."""
    labels = read_table(data / "slice_labels.csv")
    for study in (entry["study_id"] for entry in read_table(data / "labels.csv") if entry["diagnosis"] != "normal"):
        volume = read_image(data / study)
        assert volume.geometry is not None
        box = find_thorax(volume, volume.geometry.spacing_mm).lung_box
        mine = {int(e["z_index_superior_first"]): e for e in labels if e["study_id"] == study}
        for z in range(box.z0, box.z1):  # labels count from the top, volumes from below
            entry = mine[len(volume.array) - 1 - z]
            name = write_picture(out, f"{study}_{z:03d}", volume.array[z], {}, WINDOW)[Column.IMAGE]
            yield row(out / "manifest.csv", Path(name).stem, study, Modality.CT, out / name, infected=entry["infected"], height=z)


def main() -> None:
    """Write pictures and manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    manifest = given.out / "manifest.csv"
    print(f"{manifest}: {write(manifest, slices(given.data, given.out), given.data, 'slice_labels.csv')} slices")


if __name__ == "__main__":
    main()
