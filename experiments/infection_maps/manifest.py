"""Manifests of the two folders of real radiographs (``labels.csv`` beside ``images/``, ``lung/`` and ``infection/``).

    python experiments/infection_maps/manifest.py infection ../shared/data runs/cxr_infection/manifest.csv
    python experiments/infection_maps/manifest.py severity  ../shared/data runs/cxr_severity/manifest.csv
    python experiments/infection_maps/manifest.py scores    OTHER_DATA     runs/cxr_severity/new.csv

The first lists the radiographs with masks, the second those with scores and, to learn from, those with masks, the third those with scores
alone, to be judged: OTHER_DATA must be of the same collection. Both sets come from one, so a patient keeps one number, and an image that
is in both is two rows, each with its own masks (some differ in crop).
Where only one lung was drawn the lung mask is left out. Sizes, file names, findings and free text are not carried along.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from m2net.recipes.table import Row, read_table, row, write
from m2net.vocabulary import Modality


def masked_rows(source: Path, out: Path) -> Iterator[Row]:
    """Radiographs with lung and infection masks."""
    for entry in read_table(source / "labels.csv"):
        one_lung = "not annotated" in entry["note"]
        yield row(
            out, f"mask-{Path(entry['file']).stem}", entry["patient_id"], Modality.CXR, source / entry["file"],
            lungs=None if one_lung else source / entry["lung_mask"], infection=source / entry["infection_mask"],
            infected=int(int(entry["ggo_px"]) + int(entry["consolidation_px"]) > 0), site="cohen",
        )  # fmt: skip


def scored_rows(source: Path, out: Path) -> Iterator[Row]:
    """Radiographs with severity scores; their lung masks do not tell the sides."""
    for entry in read_table(source / "labels.csv"):
        yield row(
            out, f"score-{Path(entry['file']).stem}", entry["patient_id"], Modality.CXR, source / entry["file"],
            lungs=source / entry["lung_mask"], lungs_scheme="lungs_one_code", score_geographic_extent=entry["geographic_extent_mean"],
            score_opacity=entry["opacity_mean"], site="cohen",
        )  # fmt: skip


KINDS = {
    "infection": {"cxr_infection": masked_rows},
    "severity": {"cxr_infection": masked_rows, "cxr_severity": scored_rows},
    "scores": {"cxr_severity": scored_rows},
}
"""Folders of each manifest, and how their rows are listed."""


def main() -> None:
    """Write one manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=list(KINDS))
    options.add_argument("source", type=Path, help="folder that holds cxr_infection/, cxr_severity/ or both")
    options.add_argument("out", type=Path)
    given = options.parse_args()
    for folder in KINDS[given.kind]:
        if not (given.source / folder / "labels.csv").is_file():
            options.error(
                f"{given.source / folder / 'labels.csv'} does not exist; expected a folder with {' and '.join(KINDS[given.kind])}"
            )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [made for folder, listed in KINDS[given.kind].items() for made in listed(given.source / folder, given.out)]
    print(
        f"{given.out}: {write(given.out, rows, given.source, 'labels.csv')} radiographs of {len({r['patient_id'] for r in rows})} patients"
    )


if __name__ == "__main__":
    main()
