"""Manifests of the two folders of real radiographs (``labels.csv`` beside ``images/``, ``lung/`` and ``infection/``).

    python experiments/infection_maps/manifest.py infection ../shared/data runs/cxr_infection/manifest.csv
    python experiments/infection_maps/manifest.py severity  ../shared/data runs/cxr_severity/manifest.csv

The first lists the radiographs with masks, the second those with scores and, to learn from, those with masks: both come from one
collection, so a patient keeps one number, and an image that is in both sets is two rows, each with its own masks (some differ in crop).
Where only one lung was drawn the lung mask is left out. Sizes, file names, findings and free text are not carried along.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

COLUMNS = [
    "study_id", "patient_id", "modality", "image", "lungs", "lungs_scheme", "infection", "infected", "score_geographic_extent",
    "score_opacity", "site",
]  # fmt: skip


def masked_rows(source: Path, out: Path) -> list[dict[str, str]]:
    """Radiographs with lung and infection masks."""
    rows = []
    for row in _table(source):
        one_lung = "not annotated" in row.get("note", "")
        rows.append(
            {
                "study_id": f"mask-{Path(row['file']).stem}",
                "patient_id": row["patient_id"],
                "modality": "cxr",
                "image": _path(source, row["file"], out),
                "lungs": "" if one_lung else _path(source, row["lung_mask"], out),
                "infection": _path(source, row["infection_mask"], out),
                "infected": str(int(int(row["ggo_px"]) + int(row["consolidation_px"]) > 0)),
                "site": "cohen",
            }
        )
    return rows


def scored_rows(source: Path, out: Path) -> list[dict[str, str]]:
    """Radiographs with severity scores; their lung masks do not tell the sides."""
    return [
        {
            "study_id": f"score-{Path(row['file']).stem}",
            "patient_id": row["patient_id"],
            "modality": "cxr",
            "image": _path(source, row["file"], out),
            "lungs": _path(source, row["lung_mask"], out),
            "lungs_scheme": "lungs_one_code",
            "score_geographic_extent": row["geographic_extent_mean"],
            "score_opacity": row["opacity_mean"],
            "site": "cohen",
        }
        for row in _table(source)
    ]


def _table(source: Path) -> list[dict[str, str]]:
    with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _path(source: Path, name: str, out: Path) -> str:
    return os.path.relpath(source / name, out.parent)


def main() -> None:
    """Write one manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=["infection", "severity"])
    options.add_argument("source", type=Path, help="folder that holds cxr_infection/ and cxr_severity/")
    options.add_argument("out", type=Path)
    given = options.parse_args()
    rows = masked_rows(given.source / "cxr_infection", given.out)
    if given.kind == "severity":
        rows += scored_rows(given.source / "cxr_severity", given.out)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{given.out}: {len(rows)} radiographs of {len({row['patient_id'] for row in rows})} patients")


if __name__ == "__main__":
    main()
