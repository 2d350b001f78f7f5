"""What every JSON of a study begins with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from m2net import __version__
from m2net.errors import StudyError
from m2net.studies import Volume

ASSESSMENT, EXPLANATION = "assessment.json", "explanation.json"
"""Names of the files that begin so."""


def study_head(schema_version: int, name: str, volume: Volume, model: dict[str, Any]) -> dict[str, Any]:
    """Schema version, what the report is not for, the study, the software, the model and the image."""
    return {
        "schema_version": schema_version,
        "research_use_only": True,
        "study": name,
        "software": {"name": "m2net", "version": __version__},
        "model": model,
        "image": _image(volume),
    }


def _image(volume: Volume) -> dict[str, Any]:
    """What tells an image from others and names nobody; the hash is of its values."""
    return {
        "modality": str(volume.modality),
        "intensity": str(volume.intensity),
        "shape_zyx": list(volume.array.shape),
        "spacing_mm_zyx": list(volume.geometry.spacing_mm) if volume.geometry else None,
        "pixels_sha256": hashlib.sha256(np.ascontiguousarray(volume.array).data).hexdigest(),
    }


_RESULTS = ("lobes.*", "lungs.*", "infection.*", "saliency.*", "slice_*.png", "report.html")


def refuse_another(folder: Path, volume: Volume, study: Path) -> None:
    """The results of one study are written neither over those of another whose file has the same name, nor over data.

    Args:
        folder: of the study's results.
        volume: the study.
        study: where it was read from.

    Raises:
        StudyError: a report in the folder speaks of another image, the study lies in it, or it holds files that bear a result's name and
            are none.
    """
    if study.resolve().is_relative_to(folder.resolve()):
        raise StudyError(f"{folder} would hold the results and holds the study", expected="another folder", remedy="Give another --out")
    reports = [folder / name for name in (ASSESSMENT, EXPLANATION) if (folder / name).is_file()]
    theirs = [] if reports else sorted(path for pattern in _RESULTS for path in folder.glob(pattern))
    if theirs:
        raise StudyError(
            f"{theirs[0]} is not of m2net's results, which would take its place",
            expected="a folder for results",
            remedy="Give another --out, or remove it",
        )
    own = _image(volume) if reports else {}
    for report in reports:
        try:
            image = json.loads(report.read_text(encoding="utf-8"))["image"]
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{report} is no report of m2net", expected="a folder for each study", remedy="Give another --out") from error
        if any(image.get(name, own[name]) != own[name] for name in own):  # reports of before have no hash
            raise StudyError(
                f"{report} speaks of another image", expected="a folder for each study", remedy="Give another --out, or move the folder"
            )
