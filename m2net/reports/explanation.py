"""What leaves for one explained study: explanation.json, the saliency on its own grid, and overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from m2net.assessment import Explanation, InfectionBox
from m2net.reports.head import EXPLANATION, study_head
from m2net.reports.pictures import grey, heat
from m2net.reports.results import write_json
from m2net.studies import write_on_own_grid
from m2net.vocabulary import Modality

SCHEMA_VERSION = 2
_BOX_COLOUR = (0, 255, 255)
_LEAST_SIDE = 384


def write_explanation(folder: Path, explanation: Explanation, name: str, overlays: int) -> Path:
    """Write all files of one study; returns the path of the JSON.

    ``overlays`` slices are drawn: those with the strongest saliency where an infection is predicted, else those that weighed most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if explanation.volume.geometry is None:
        write_on_own_grid(folder / "saliency.png", np.rint(explanation.saliency * 255).astype(np.uint8), explanation.volume)
    else:
        write_on_own_grid(folder / "saliency.nii.gz", explanation.saliency, explanation.volume)
    for stale in folder.glob("slice_*.png"):
        stale.unlink()  # of an earlier explanation
    for z in _slices_to_draw(explanation, overlays):
        draw_slice(explanation, z).save(folder / f"slice_{z + 1:03d}.png")
    path = folder / EXPLANATION
    write_json(path, as_json(explanation, name))
    return path


def _slices_to_draw(explanation: Explanation, count: int) -> list[int]:
    if explanation.infected:
        order = sorted(explanation.slices, key=lambda s: -float(explanation.saliency[s.slice_index].max()))
    else:
        order = sorted(explanation.slices, key=lambda s: -s.weight)
    return [s.slice_index for s in order[:count]]


def draw_slice(explanation: Explanation, z: int) -> Image.Image:
    """A slice with its saliency in colour and its boxes; the patient's right is image left, anterior is up."""
    volume = explanation.volume
    picture = Image.fromarray(heat(grey(volume.array[z], volume.intensity), explanation.saliency[z], explanation.threshold))
    dy, dx = volume.geometry.spacing_mm[1:] if volume.geometry else (1.0, 1.0)
    scale = max(1.0, _LEAST_SIDE / max(picture.size))
    size = (round(picture.width * scale), round(picture.height * scale * dy / dx))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for box in explanation.boxes:
        if box.slice_index == z:
            across, down = size[0] / volume.array.shape[2], size[1] / volume.array.shape[1]
            draw.rectangle((box.column0 * across, box.row0 * down, box.column1 * across - 1, box.row1 * down - 1), outline=_BOX_COLOUR)
    return picture


def as_json(explanation: Explanation, name: str) -> dict[str, Any]:
    """The content of explanation.json."""
    top = "front" if explanation.volume.modality is Modality.CT else "top"
    return {
        **study_head(SCHEMA_VERSION, name, explanation.volume, explanation.model),
        "diagnosis": {"probabilities": explanation.probabilities, "predicted": explanation.predicted, "calibrated": explanation.calibrated},
        "explained_class": explanation.explained,
        "saliency": {"method": explanation.method, "box_threshold": explanation.threshold},
        "axes": f"LPS: slices from the lowest, rows from the {top}, columns from the patient's right",
        "boxes": [_box(box, explanation) for box in explanation.boxes],
        "slices": [{"slice_index": s.slice_index, "weight": s.weight, "probabilities": s.probabilities} for s in explanation.slices],
        "warnings": explanation.warnings,
    }


def _box(box: InfectionBox, explanation: Explanation) -> dict[str, Any]:
    geometry = explanation.volume.geometry
    plain: dict[str, Any] = {
        "slice_index": box.slice_index, "rows": [box.row0, box.row1], "columns": [box.column0, box.column1], "score": box.score,
    }  # fmt: skip
    if geometry is None:
        return plain | {"size_mm": None, "centre_mm_lps": None}
    middle = [(box.column0 + box.column1 - 1) / 2, (box.row0 + box.row1 - 1) / 2, float(box.slice_index)]  # x y z
    size = [(box.row1 - box.row0) * geometry.spacing_mm[1], (box.column1 - box.column0) * geometry.spacing_mm[2]]
    return plain | {"size_mm": size, "centre_mm_lps": [float(v) for v in geometry.point(np.array(middle))]}
