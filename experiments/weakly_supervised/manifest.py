"""Manifest of the folder of single COVID-CT slices (``labels.csv`` beside ``covid/`` and ``noncovid/``).

    python experiments/weakly_supervised/manifest.py ../shared/data/ct_slices runs/covid_ct/manifest.csv
    python experiments/weakly_supervised/manifest.py ../shared/data/ct_slices runs/covid_ct/train.csv --part train

The second form keeps one part and leaves its split empty: for cross-validation inside train, or a test on val. Images with a
``caution`` are left out: they show a patient of the held-back part under another number, or another label. Sizes, file names and free
text are not carried along.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

LABELS = {"covid": "covid19", "noncovid": "non_pneumonia|cap"}
COLUMNS = ["study_id", "patient_id", "modality", "image", "diagnosis", "site", "split"]


def real_rows(source: Path, out: Path, part: str) -> list[dict[str, str]]:
    """Slices of all parts, or of one."""
    with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row.get("caution") and part in ("", row["split"])]
    return [
        {
            "study_id": Path(row["file"]).stem,
            "patient_id": f"{row['label']}-{row['patient_id']}",  # the source counts patients anew in each class
            "modality": "ct",
            "image": os.path.relpath(source / row["file"], out.parent),
            "diagnosis": LABELS[row["label"]],
            "site": "covid_ct",
            "split": "" if part else row["split"],
        }
        for row in rows
    ]


def main() -> None:
    """Write the manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--part", default="", choices=["", "train", "val"])
    given = options.parse_args()
    rows = real_rows(given.source, given.out, given.part)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{given.out}: {len(rows)} slices")


if __name__ == "__main__":
    main()
