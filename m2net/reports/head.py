"""What every JSON of a study begins with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from m2net import __version__
from m2net.errors import StudyError
from m2net.studies import Volume

REPORTS = ("assessment.json", "explanation.json")
"""Names of the files that begin so."""


def study_head(schema_version: int, name: str, volume: Volume, model: dict[str, Any]) -> dict[str, Any]:
    """Schema version, what the report is not for, the study, the software, the model and the image."""
    return {
        "schema_version": schema_version,
        "research_use_only": True,
        "study": name,
        "software": {"name": "m2net", "version": __version__},
        "model": model,
        "image": {
            "modality": str(volume.modality),
            "intensity": str(volume.intensity),
            "shape_zyx": list(volume.array.shape),
            "spacing_mm_zyx": list(volume.geometry.spacing_mm) if volume.geometry else None,
            "pixels_sha256": pixels_hash(volume),
        },
    }


def pixels_hash(volume: Volume) -> str:
    """Hash of a study's values and shape, which names nobody: whether two reports speak of one image."""
    return hashlib.sha256(str(volume.array.shape).encode() + volume.array.tobytes()).hexdigest()


def refuse_another(folder: Path, volume: Volume) -> None:
    """The results of one study are not written over those of another whose file has the same name.

    Args:
        folder: of the study's results.
        volume: the study.

    Raises:
        StudyError: a report in the folder speaks of another image.
    """
    for report in (folder / name for name in REPORTS if (folder / name).is_file()):
        image = json.loads(report.read_text(encoding="utf-8")).get("image", {})
        if image.get("pixels_sha256", pixels_hash(volume)) != pixels_hash(volume):
            raise StudyError(
                f"{report} speaks of another image", expected="a folder for each study", remedy="Give another --out, or move the folder"
            )
