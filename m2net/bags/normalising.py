"""Values of a picture whose window was lost, put on a scale of its own chest; the same for every study, whatever its label."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from m2net.bags.hull import lungs_hull
from m2net.bags.inputs import InputSpec, Normalise
from m2net.bags.prepared import Prepared

Plane = NDArray[np.int16]
_TOP = 32767
_RANKS = 65
_LEAST_PIXELS = 50


def value_map(study: Prepared, spec: InputSpec) -> Callable[[Plane], Plane]:
    """How stored values of this study become the values that the window is laid on.

    ``window`` leaves them; ``lungs`` stretches to 0..32767 what lies between the air of the found lungs (their 2nd percentile) and the soft
    tissue around them (the upper quartile of the rest of their box, as far as it is seen where their hull alone is; where they fill it, as
    a radiograph's do, their own 98th percentile); ``ranks`` maps values to their rank among the lungs' pixels, so that neither window nor
    contrast is left as a cue.
    """
    if spec.normalise == Normalise.WINDOW:
        return lambda plane: plane
    image, lungs = np.asarray(study.image), np.asarray(study.masks["found_lungs"]) > 0
    if lungs.sum() < _LEAST_PIXELS:
        lungs = np.ones_like(lungs)
    values = image[lungs].astype(np.float32)
    if spec.normalise == Normalise.LUNGS:
        box = study.lung_box
        here = np.s_[box.z0 : box.z1, box.y0 : box.y1, box.x0 : box.x1]
        rest = ~lungs  # heart, chest wall and spine, which lesions of the lungs hardly move
        if spec.keeps_hull:
            rest &= np.stack([lungs_hull(plane) for plane in lungs])
        around = image[here][rest[here]]
        low = np.quantile(values, 0.02)
        high = np.quantile(around, 0.75) if around.size >= _LEAST_PIXELS else np.quantile(values, 0.98)
        knots, ranks = np.array([low, max(high, low + 1)]), np.array([0.0, 1.0])
    else:
        ranks = np.linspace(0, 1, _RANKS)
        knots = np.quantile(values, ranks) + np.arange(_RANKS) * 1e-3  # rising, also where many pixels share a value

    def put(plane: Plane) -> Plane:
        return np.asarray(np.rint(np.interp(plane, knots, ranks) * _TOP), dtype=np.int16)

    return put
