"""Manifest of real CT without infection, to paint synthetic infection into (``m2net paint``).

    python experiments/weakly_supervised/healthy.py ../shared/data runs/paintings/healthy.csv

Slices of ``ct_lobes`` (scans of lung nodules, not of pneumonia; their lobes are outlined) and the normal series of ``ct_volumes``. A model
of these paintings must not be judged on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from m2net.recipes.table import Row, read_table, row, write
from m2net.vocabulary import Modality


def healthy_rows(source: Path, out: Path) -> Iterator[Row]:
    """Single slices with lobes, and series whose diagnosis is normal."""
    lobes, volumes = source / "ct_lobes", source / "ct_volumes"
    for entry in read_table(lobes / "pairs.csv"):
        image = lobes / entry["image"]
        yield row(out, image.stem, image.stem.split("_")[0], Modality.CT, image, lobes=lobes / entry["mask"], infected=0)
    for entry in read_table(volumes / "labels.csv"):
        if entry["diagnosis"] == "normal":
            yield row(out, entry["study_id"], entry["study_id"], Modality.CT, volumes / entry["study_id"], lobes=None, infected=0)


def main() -> None:
    """Write the manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{given.out}: {write(given.out, healthy_rows(given.source, given.out), given.source, 'ct_lobes and ct_volumes')} studies")


if __name__ == "__main__":
    main()
