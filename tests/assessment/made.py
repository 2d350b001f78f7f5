"""Prepared studies made in memory."""

from __future__ import annotations

import numpy as np

from m2net.bags import Prepared, prepare_volume
from m2net.phantoms import Phantom
from m2net.studies import Volume


def prepared_of(phantom: Phantom, noise: float = 0.0) -> Prepared:
    """A phantom at its own pixel size, with more noise if wanted (standard deviation, HU)."""
    image = phantom.image + np.random.default_rng(0).normal(0, noise, phantom.image.shape).round().astype(np.int16)
    return prepare_volume(Volume.from_own(image.astype(np.int16), phantom.geometry), {}, phantom.geometry.spacing_mm[1])
