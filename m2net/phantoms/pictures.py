"""Synthetic patients as pictures of single slices, their window lost, as publications print them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2net.phantoms.patient import Phantom
from m2net.vocabulary import MASK_COLUMNS, Column, Diagnosis

_LEAST_LUNG = 0.25  # of the widest slice's lung; apices and bases are seldom printed
_LEAST_INFECTION = 12  # pixels; less is not counted as an infected slice
_LOWEST_HU = (-1350.0, -1000.0)
_HIGHEST_HU = (-150.0, 300.0)


def write_pictures(folder: Path, phantom: Phantom, count: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Write ``count`` slices of one patient with their masks; returns a row for each, its files named within ``folder``.

    The window is drawn once a patient, evenly whatever the diagnosis. A slice's diagnosis is the patient's where infection lies in it, and
    non-pneumonia elsewhere. Display convention: image left is the patient's right, top is anterior.
    """
    folder.mkdir(parents=True, exist_ok=True)
    low, high = rng.uniform(*_LOWEST_HU), rng.uniform(*_HIGHEST_HU)
    area = (phantom.lungs > 0).sum(axis=(1, 2))
    usable = np.flatnonzero(area >= _LEAST_LUNG * area.max())
    chosen = np.unique(usable[np.linspace(0, len(usable) - 1, count).round().astype(int)])
    rows: list[dict[str, str]] = []
    for z in chosen:
        name = f"slice_{z + 1:03d}"
        grey = np.rint(np.clip((phantom.image[z] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{name}.png")
        masks: dict[Column, NDArray[np.uint8]] = {
            Column.LOBES: phantom.lobes[z], Column.LUNGS: phantom.lungs[z], Column.INFECTION: phantom.infection[z],
        }  # fmt: skip
        for column in MASK_COLUMNS:
            Image.fromarray(masks[column]).save(folder / f"{name}_{column}.png")
        sick = int((phantom.infection[z] > 0).sum()) >= _LEAST_INFECTION
        rows.append(
            {
                Column.STUDY_ID: name,
                Column.IMAGE: f"{name}.png",
                **{c: f"{name}_{c}.png" for c in MASK_COLUMNS},
                Column.DIAGNOSIS: phantom.diagnosis if sick else Diagnosis.NON_PNEUMONIA,
                Column.INFECTED: str(int(sick)),
            }
        )
    return rows
