"""Manifest of the folder of single COVID-CT slices (``labels.csv`` beside ``covid/`` and ``noncovid/``).

    python experiments/weakly_supervised/manifest.py ../shared/data/ct_slices runs/covid_ct/manifest.csv
    python experiments/weakly_supervised/manifest.py ../shared/data/ct_slices runs/covid_ct/train.csv --part train

The second form keeps one part and leaves its split empty: for cross-validation inside train, or a test on val. Images with a
``caution`` are left out: they show a patient of the held-back part under another number, or another label. Sizes, file names and free
text are not carried along.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from m2net.recipes.table import Row, read_table, row, write
from m2net.vocabulary import Modality

LABELS = {"covid": "covid19", "noncovid": "non_pneumonia|cap"}


def real_rows(source: Path, out: Path, part: str) -> Iterator[Row]:
    """Slices of all parts, or of one."""
    for entry in read_table(source / "labels.csv"):
        if entry["caution"] or part not in ("", entry["split"]):
            continue
        patient = f"{entry['label']}-{entry['patient_id']}"  # the source counts patients anew in each class
        yield row(
            out, Path(entry["file"]).stem, patient, Modality.CT, source / entry["file"], diagnosis=LABELS[entry["label"]], site="covid_ct",
            split=None if part else entry["split"],
        )  # fmt: skip


def main() -> None:
    """Write the manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--part", default="", choices=["", "train", "val"])
    given = options.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{given.out}: {write(given.out, real_rows(given.source, given.out, given.part), given.source, 'labels.csv')} slices")


if __name__ == "__main__":
    main()
