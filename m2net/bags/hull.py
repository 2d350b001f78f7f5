"""The convex hull of a slice's lungs: what lies in it shows disease, what lies around it shows where a picture comes from."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from m2net.vocabulary import Intensity

MARGIN = 0.02
"""Rim around the hull as a share of the slice's longer side: consolidated lung at the pleura is easily missed by the finder."""

TISSUE = {Intensity.HU: 40, Intensity.RELATIVE: 32767}
"""Stored value of soft tissue, which is painted around the hull; of a picture its white."""


def lungs_hull(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex hull of all lung pixels of a slice (Y, X), and a rim of ``MARGIN``; nothing where there is no lung."""
    rows = np.flatnonzero(lungs.any(axis=1))
    if not len(rows):
        return np.zeros_like(lungs)
    first, last = lungs[rows].argmax(axis=1), lungs.shape[1] - 1 - lungs[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)  # x, y
    rim = max(1, round(MARGIN * max(lungs.shape)))
    around = np.array(list(itertools.product((-rim, 0, rim), repeat=2)))
    points = (ends[:, None] + around).reshape(-1, 2)
    corners = points[ConvexHull(points).vertices]
    drawn = Image.new("1", (lungs.shape[1], lungs.shape[0]))
    ImageDraw.Draw(drawn).polygon([(float(x), float(y)) for x, y in corners], fill=1, outline=1)
    return np.asarray(drawn, dtype=np.bool_)
