"""Manifest of the folder of single LUNA16 slices with lobe masks (``pairs.csv`` beside ``images/`` and ``masks/``).

python experiments/real_lobes/manifest.py ../shared/data/ct_lobes runs/real_lobes/slices/manifest.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from m2net.recipes.table import Row, read_table, row, write
from m2net.vocabulary import Modality


def pairs(source: Path, out: Path) -> Iterator[Row]:
    """A study each slice; two slices of one scan are one patient."""
    for entry in read_table(source / "pairs.csv"):
        image, mask = source / entry["image"], source / entry["mask"]
        yield row(out, image.stem, entry["case_id"], Modality.CT, image, lobes=mask, site="luna16")


def main() -> None:
    """Write the manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{given.out}: {write(given.out, pairs(given.source, given.out), given.source, 'pairs.csv')} slices")


if __name__ == "__main__":
    main()
