"""Manifest of the folder of single COVID-CT slices (``labels.csv`` beside ``covid/`` and ``noncovid/``).

    python experiments/weakly_supervised/manifest.py ../shared/data/ct_slices runs/covid_ct/manifest.csv
    python experiments/weakly_supervised/manifest.py ../shared/data/ct_slices runs/covid_ct/train.csv train

The second form keeps one part only, for cross-validation inside train.
Images with a ``caution`` are left out: they show a patient of the held-back part under another number, or another label.
Sizes, file names and free text are not carried along.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

LABELS = {"covid": "covid19", "noncovid": "non_pneumonia|cap"}
COLUMNS = ["study_id", "patient_id", "modality", "image", "diagnosis", "site", "split"]


def write(source: Path, out: Path, part: str = "") -> int:
    """Write the manifest of all parts, or of one; returns the number of studies."""
    with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row.get("caution") and part in ("", row["split"])]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    "study_id": Path(row["file"]).stem,
                    "patient_id": f"{row['label']}-{row['patient_id']}",  # the source counts patients anew in each class
                    "modality": "ct",
                    "image": os.path.relpath(source / row["file"], out.parent),
                    "diagnosis": LABELS[row["label"]],
                    "site": "covid_ct",
                    "split": row["split"],
                }
            )
    return len(rows)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    print(f"{target}: {write(Path(sys.argv[1]), target, *sys.argv[3:4])} slices")
