"""Synthetic patients as pictures of single slices, their window lost, as publications print them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2net.phantoms.patient import Phantom
from m2net.vocabulary import Column, Diagnosis

_LEAST_LUNG = 0.25  # of the widest slice's lung; apices and bases are seldom printed
_LEAST_INFECTION = 12  # pixels; less is not counted as an infected slice
_LOWEST_HU = (-1350.0, -1000.0)
_HIGHEST_HU = (-150.0, 300.0)


def draw_window(rng: np.random.Generator) -> tuple[float, float]:
    """A lung window as printed, (lowest, highest) HU, whatever the diagnosis."""
    return rng.uniform(*_LOWEST_HU), rng.uniform(*_HIGHEST_HU)


def write_picture(
    folder: Path, name: str, hu: NDArray[Any], masks: Mapping[Column, NDArray[np.uint8]], window: tuple[float, float]
) -> dict[Column, str]:
    """Write one slice (Y, X) in HU as 8-bit grey with its masks; returns their file names by column, the image's included."""
    low, high = window
    grey = np.rint(np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    files = {Column.IMAGE: f"{name}.png", **{column: f"{name}_{column}.png" for column in masks}}
    for column, plane in {Column.IMAGE: grey, **masks}.items():
        Image.fromarray(plane).save(folder / files[column])
    return files


def write_pictures(folder: Path, phantom: Phantom, count: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Write ``count`` slices of one patient with their masks; returns a row for each, its files named within ``folder``.

    The window is drawn once a patient, evenly whatever the diagnosis. A slice's diagnosis is the patient's where infection lies in it, and
    non-pneumonia elsewhere. Display convention: image left is the patient's right, top is anterior.
    """
    folder.mkdir(parents=True, exist_ok=True)
    window = draw_window(rng)
    area = (phantom.lungs > 0).sum(axis=(1, 2))
    usable = np.flatnonzero(area >= _LEAST_LUNG * area.max())
    chosen = np.unique(usable[np.linspace(0, len(usable) - 1, count).round().astype(int)])
    rows: list[dict[str, str]] = []
    for z in chosen:
        name = f"slice_{z + 1:03d}"
        masks = {Column.LOBES: phantom.lobes[z], Column.LUNGS: phantom.lungs[z], Column.INFECTION: phantom.infection[z]}
        files = write_picture(folder, name, phantom.image[z], masks, window)
        sick = int((phantom.infection[z] > 0).sum()) >= _LEAST_INFECTION
        rows.append(
            {
                Column.STUDY_ID: name,
                **{str(column): file for column, file in files.items()},
                Column.DIAGNOSIS: phantom.diagnosis if sick else Diagnosis.NON_PNEUMONIA,
                Column.INFECTED: str(int(sick)),
            }
        )
    return rows
