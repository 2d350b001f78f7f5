"""What every JSON of a study begins with."""

from __future__ import annotations

from typing import Any

from m2net import __version__
from m2net.studies import Volume


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
        },
    }
