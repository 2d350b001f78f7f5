"""Pictures for the report page, as PNG in a data URL."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2net.vocabulary import Intensity, Lobe

COLOURS: dict[Lobe, tuple[int, int, int]] = {
    Lobe.LEFT_UPPER: (86, 180, 233),
    Lobe.LEFT_LOWER: (0, 114, 178),
    Lobe.RIGHT_UPPER: (240, 228, 66),
    Lobe.RIGHT_MIDDLE: (230, 159, 0),
    Lobe.RIGHT_LOWER: (213, 94, 0),
}
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""

_LUNG_WINDOW = (-1350.0, 150.0)


def grey(plane: NDArray[np.int16], intensity: Intensity) -> NDArray[np.uint8]:
    """A plane in the lung window (HU) or in its own range."""
    low, high = _LUNG_WINDOW if intensity is Intensity.HU else (0.0, max(1.0, float(plane.max())))
    return np.asarray(np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1) * 255, dtype=np.uint8)


def overlay(plane: NDArray[np.uint8], labels: NDArray[np.uint8] | None, strength: float = 0.38) -> NDArray[np.uint8]:
    """Grey (Y, X) with the lobes in colour -> (Y, X, 3)."""
    out = np.repeat(plane[:, :, None], 3, axis=2).astype(np.float32)
    if labels is not None:
        for lobe, colour in COLOURS.items():
            here = labels == lobe
            out[here] = (1 - strength) * out[here] + strength * np.asarray(colour, dtype=np.float32)
    return out.astype(np.uint8)


def data_url(picture: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """A picture resized to (width, height) pixels, as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat(plane: NDArray[np.uint8], values: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Grey (Y, X) with values (Y, X) in [0, 1] laid over in the inferno colours -> (Y, X, 3); weak below ``threshold``."""
    from matplotlib import colormaps

    colours = np.asarray(colormaps["inferno"](values)[..., :3]) * 255
    strength = (np.clip(values / max(threshold, 1e-6), 0, 1) ** 2 * 0.6)[..., None]
    return np.asarray((1 - strength) * plane[..., None] + strength * colours, dtype=np.uint8)
