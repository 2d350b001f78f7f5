"""What old age, smoke and growths leave in lungs: emphysema, cysts, fibrosis, masses. Alike for every diagnosis."""

from __future__ import annotations

import numpy as np

from m2net.phantoms.anatomy import Body
from m2net.phantoms.disease import Disease, depth_under_pleura
from m2net.phantoms.grid import Field

_HOLES, _NET, _MASS, _HAZE = 0.16, 0.16, 0.2, 0.05  # of the patients: emphysema or cysts, fibrosis, a mass; a change of the whole lung
_EMPTY_HU = -970.0
_MOST_HOLLOW_HU = 200.0  # a hole takes no more, so that walls and vessels stay


def add_scars(body: Body, disease: Disease, rng: np.random.Generator) -> None:
    """Draw scars into ``disease``, each in some patients; where a mass lies no infection is left."""
    grid = body.grid
    disease.holes = np.zeros(grid.shape, np.float32)
    if rng.random() < _HOLES:
        deep = np.clip((grid.noise(rng, rng.uniform(5, 16)) - rng.uniform(0.4, 1.6)) / 0.25, 0, 1)
        disease.holes = (deep * np.clip(grid.noise(rng, 50.0) + rng.uniform(-0.5, 1.0), 0, 1)).astype(np.float32)
    if rng.random() < _NET:
        _net(body, disease, rng)
    if rng.random() < _HAZE:
        disease.change += np.float32(rng.uniform(60, 250)) * np.clip(0.7 + 0.3 * grid.noise(rng, 40.0), 0, 1)
    if rng.random() < _MASS:
        _mass(body, disease, rng)


def hollowed(lung: Field, disease: Disease) -> Field:
    """Lung tissue (Z, Y, X) in HU with the holes of ``disease`` in it; as it is without any."""
    if disease.holes is None:
        return lung
    return np.asarray(lung - disease.holes * np.clip(lung - _EMPTY_HU, 0, _MOST_HOLLOW_HU), dtype=np.float32)


def _net(body: Body, disease: Disease, rng: np.random.Generator) -> None:
    """Reticulation and honeycomb, mostly under the pleura."""
    grid = body.grid
    lines = np.exp(-((grid.noise(rng, rng.uniform(4, 9)) / rng.uniform(0.12, 0.3)) ** 2))
    if rng.random() < 0.75:
        near = np.exp(-depth_under_pleura(body) / rng.uniform(8, 30))
        where = near * np.clip(0.5 + body.depth * rng.uniform(-0.3, 1.0) + 0.5 * grid.noise(rng, 30.0), 0, 1)
    else:
        where = np.clip(0.4 + 0.5 * grid.noise(rng, 40.0), 0, 1)
    disease.solid[:] = np.maximum(disease.solid, rng.uniform(0.35, 0.85) * lines * np.clip(2 * where, 0, 1))
    disease.change += (rng.uniform(0, 140) * where).astype(np.float32)


def _mass(body: Body, disease: Disease, rng: np.random.Generator) -> None:
    """A lump of 18 to 56 mm with a clear but uneven edge."""
    places = np.argwhere(body.lobes > 0)
    if len(places) == 0:
        return
    place = places[rng.integers(len(places))]
    radius = rng.uniform(9, 28)
    axes = (mm * (np.arange(n) - at) for n, mm, at in zip(body.grid.shape, body.grid.spacing_mm, place, strict=True))
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    away = np.sqrt(z**2 + y**2 + x**2) + 2.5 * body.grid.noise(rng, 8.0)
    ball = rng.uniform(0.6, 1.0) * np.clip((radius - away) / 2.5 + 0.5, 0, 1)
    disease.solid[:] = np.maximum(disease.solid, ball)
    disease.infection[ball > 0.3] = 0
