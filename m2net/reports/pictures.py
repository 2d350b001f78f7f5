"""Pictures for the report page, as PNG in a data URL."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from m2net.vocabulary import InfectionCode, Intensity, Lobe

COLOURS: dict[Lobe, tuple[int, int, int]] = {
    Lobe.LEFT_UPPER: (86, 180, 233),
    Lobe.LEFT_LOWER: (0, 114, 178),
    Lobe.RIGHT_UPPER: (240, 228, 66),
    Lobe.RIGHT_MIDDLE: (230, 159, 0),
    Lobe.RIGHT_LOWER: (213, 94, 0),
}
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""

INFECTION_COLOURS: dict[InfectionCode, tuple[int, int, int]] = {
    InfectionCode.GROUND_GLASS: (240, 228, 66),
    InfectionCode.CONSOLIDATION: (213, 94, 0),
    InfectionCode.KIND_UNKNOWN: (230, 159, 0),
}
"""On a radiograph, where no lobes are drawn."""

OUTLINE_COLOURS: dict[InfectionCode, tuple[int, int, int]] = {
    InfectionCode.GROUND_GLASS: (204, 121, 167),
    InfectionCode.CONSOLIDATION: (0, 158, 115),
    InfectionCode.KIND_UNKNOWN: (204, 121, 167),
}
"""Of infection outlined over coloured lobes: what these leave of the palette."""
_OUTLINE = (86, 180, 233)
_LUNG_WINDOW = (-1350.0, 150.0)


def grey(plane: NDArray[np.int16], intensity: Intensity) -> NDArray[np.uint8]:
    """A plane in the lung window (HU) or in its own range."""
    low, high = _LUNG_WINDOW if intensity is Intensity.HU else (0.0, max(1.0, float(plane.max())))
    return np.asarray(np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1) * 255, dtype=np.uint8)


def overlay(
    plane: NDArray[np.uint8],
    labels: NDArray[np.uint8] | None,
    colours: Mapping[Any, tuple[int, int, int]] = MappingProxyType({}),
    strength: float = 0.38,
) -> NDArray[np.uint8]:
    """Grey (Y, X) with labels in the colours of their codes -> (Y, X, 3)."""
    out = np.repeat(plane[:, :, None], 3, axis=2).astype(np.float32)
    if labels is not None:
        for code, colour in colours.items():
            here = labels == code
            out[here] = (1 - strength) * out[here] + strength * np.asarray(colour, dtype=np.float32)
    return out.astype(np.uint8)


def outline(
    picture: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Mapping[Any, tuple[int, int, int]] = MappingProxyType({})
) -> NDArray[np.uint8]:
    """A picture (Y, X, 3) with the borders of labels (Y, X), thicker in larger pictures, in the colours of their codes or in blue."""
    out = picture.copy()
    width = max(1, round(max(labels.shape) / 300))
    for code in np.unique(labels[labels > 0]):
        here = labels == code
        out[here & ~ndimage.binary_erosion(here, iterations=width)] = colours.get(code, _OUTLINE)
    return out


def data_url(picture: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """A picture resized to (width, height) pixels, as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR).save(buffer, "PNG", optimize=True)
    return as_data_url(buffer.getvalue())


def as_data_url(png: bytes) -> str:
    """A PNG file's bytes as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def heat(plane: NDArray[np.uint8], values: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Grey (Y, X) with values (Y, X) in [0, 1] laid over in the inferno colours -> (Y, X, 3); weak below ``threshold``."""
    from matplotlib import colormaps

    colours = np.asarray(colormaps["inferno"](values)[..., :3]) * 255
    strength = (np.clip(values / max(threshold, 1e-6), 0, 1) ** 2 * 0.6)[..., None]
    return np.asarray((1 - strength) * plane[..., None] + strength * colours, dtype=np.uint8)
