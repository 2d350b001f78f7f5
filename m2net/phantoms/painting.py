"""Infection and its look-alikes painted into one slice of real lungs that have no infection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.phantoms.anatomy import Body, draw_anatomy
from m2net.phantoms.disease import add_disease
from m2net.phantoms.grid import Field, Grid
from m2net.phantoms.scars import add_scars, hollowed
from m2net.vocabulary import Diagnosis, InfectionCode, Lobe

PAINTING_VERSION = "2"
"""Changes with every change of what is painted; printed with every result made on it."""

_AIRLESS_HU = 38.0
_WALL_HU = -700.0  # denser lung than this holds vessels and bronchi, which ground glass leaves as they are
_GRAIN_HU = 60.0  # most noise that is added, for one background serves many times
_SEEN_HU = 40.0  # brighter than before; fainter margins are not called infected


@dataclass(frozen=True)
class Background:
    """One axial slice of a patient whose lungs have no infection, (Y, X), y posterior, x left.

    Attributes:
        hu: float32, HU; of a picture, HU as lungs and soft tissue suggest them.
        lobes: lobe codes, uint8; where lobes are not known any code of the right side.
        pixel_mm: size of a pixel; of a picture, what an adult's lungs suggest.
        height: of the slice between the lungs' base (0) and apex (1).
    """

    hu: Field
    lobes: NDArray[np.uint8]
    pixel_mm: float
    height: float


def paint(background: Background, diagnosis: Diagnosis, rng: np.random.Generator) -> tuple[Field, NDArray[np.uint8]]:
    """Paint the CT phantom's disease, scars included, into a slice.

    Only lung is painted; vessels stay visible in ground glass and vanish in consolidation. Where the infection cannot be seen it is not
    called so. Non-pneumonia gets look-alikes only.

    Returns:
        The slice in HU, float32, and the infection, uint8 codes, both (Y, X).
    """
    body = _body(background, rng)
    disease = add_disease(body, diagnosis, rng)
    add_scars(body, disease, rng)
    hu, lungs = background.hu, background.lobes > 0
    vessel = np.clip((hu - _WALL_HU) / 300, 0, 1)
    painted = hu + disease.change[0] * (1 - 0.7 * vessel)
    painted = hollowed(painted[None], disease)[0]
    painted = painted + disease.solid[0] * np.maximum(_AIRLESS_HU - painted, 0)
    painted = np.minimum(painted, np.maximum(hu, 70))
    edge = np.clip(1.3 * ndimage.gaussian_filter(lungs.astype(np.float32), 0.8), 0, 1)
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), rng.uniform(0.3, 1.0)) * rng.uniform(0, _GRAIN_HU)
    out = np.where(lungs, hu + (painted - hu) * edge, hu)
    seen = ndimage.gaussian_filter(out - hu, 1.5) >= _SEEN_HU
    return np.asarray(out + grain, dtype=np.float32), np.where(lungs & seen, disease.infection[0], 0).astype(np.uint8)


def _body(slice_: Background, rng: np.random.Generator) -> Body:
    """The slice as a body of one plane: millimetres from the middle of its lungs, and a drawn anatomy of its depth."""
    rows, columns = (np.flatnonzero((slice_.lobes > 0).any(axis=axis)) for axis in (1, 0))
    mm = slice_.pixel_mm
    anatomy = replace(draw_anatomy(rng), half_depth=max(40.0, 0.62 * mm * (rows[-1] - rows[0] + 1)), prone=False)
    start = (slice_.height * anatomy.lung_height, -mm * (rows[0] + rows[-1]) / 2, -mm * (columns[0] + columns[-1]) / 2)
    grid = Grid((1, *slice_.hu.shape), (mm, mm, mm), start)
    depth = np.clip((grid.axis(1) + anatomy.half_depth) / (2 * anatomy.half_depth), 0, 1)
    hilum = {side: np.array([start[0], 8.0, sign * 28.0]) for side, sign in (("right", -1), ("left", 1))}
    nothing = np.zeros(grid.shape, np.float32)
    return Body(grid, anatomy, slice_.hu[None], slice_.lobes[None], nothing, hilum, np.broadcast_to(depth, grid.shape).astype(np.float32))


def sides_as_lobes(left: NDArray[np.bool_], right: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A lobe code for each whole side, where the course of the fissures is not known."""
    codes = np.zeros(left.shape, np.uint8)
    for side, where in ((True, left), (False, right)):
        codes[where] = rng.choice([int(lobe) for lobe in Lobe if lobe.is_left == side])
    return codes


def shows_infection(infection: NDArray[np.uint8], least_mm2: float, pixel_mm: float) -> bool:
    """Whether enough infection lies in a slice to call it infected."""
    return bool((infection >= InfectionCode.GROUND_GLASS).sum() * pixel_mm**2 >= least_mm2)
