"""Branching vessels and bronchi inside the lungs, grown lobe by lobe so that none crosses a fissure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2net.phantoms.anatomy import Body
from m2net.phantoms.grid import Field, Grid
from m2net.vocabulary import Lobe

FEWEST_TIPS, MOST_TIPS = 60, 5000
_TIP_MM = 0.75  # radius of a tip, where there are the fewest
_MURRAY = 2.6


def grow_vessels(body: Body, rng: np.random.Generator, tips_per_lobe: int = FEWEST_TIPS) -> tuple[Field, Field]:
    """Vessels and bronchi as the share of each voxel they fill.

    With more tips they are finer, so that the trunks stay as they are.

    Returns:
        Two (Z, Y, X) float32 fields in [0, 1]: vessels, and the larger bronchi beside them.
    """
    vessels = np.zeros(body.grid.shape, np.float32)
    bronchi = np.zeros(body.grid.shape, np.float32)
    for lobe in Lobe:
        inside = body.lobes == lobe
        voxels = np.argwhere(inside & (body.fissure < 0.02))
        if len(voxels) < 50:
            continue
        picked = voxels[rng.integers(0, len(voxels), tips_per_lobe)]
        tips = np.asarray(picked * body.grid.spacing_mm + body.grid.start_mm, dtype=np.float64)
        root = body.hilum["left" if lobe.is_left else "right"]
        starts, ends, radii = _tree(root, tips, rng)
        _paint(vessels, inside, body.grid, starts, ends, radii)
        thick = radii > 1.6
        aside = rng.normal(0, 1, 3) * 1.0 + np.array([0, 4.0, 0])
        _paint(bronchi, inside, body.grid, starts[thick] + aside, ends[thick] + aside, 0.55 * radii[thick])
    return vessels, bronchi


def _tree(
    root: NDArray[np.float64], tips: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Join every tip, nearest first, to the nearest earlier node; radii follow the number of tips beyond (Murray)."""
    tips = tips[np.argsort(np.linalg.norm(tips - root, axis=1))]
    nodes = np.vstack([root, tips])
    parent = np.zeros(len(nodes), int)
    from_root = np.linalg.norm(nodes - root, axis=1)
    for i in range(1, len(nodes)):
        away = np.linalg.norm(nodes[:i] - nodes[i], axis=1) + 0.35 * from_root[:i]
        parent[i] = int(np.argmin(away))
    beyond = np.ones(len(nodes))
    for i in range(len(nodes) - 1, 0, -1):
        beyond[parent[i]] += beyond[i]
    radii = _TIP_MM * (beyond[1:] * FEWEST_TIPS / len(tips)) ** (1 / _MURRAY) * rng.uniform(0.85, 1.15)
    return nodes[parent[1:]], nodes[1:], radii


def _paint(
    field: Field, inside: NDArray[np.bool_], grid: Grid, starts: NDArray[np.float64], ends: NDArray[np.float64], radii: NDArray[np.float64]
) -> None:
    """Add tubes with soft walls, only where ``inside``."""
    soft = 0.5 * float(np.mean(grid.spacing_mm[1:]))
    for start, end, radius in zip(starts, ends, radii, strict=True):
        reach = radius + 2 * soft
        low = np.maximum(np.floor(grid.index(np.minimum(start, end) - reach)).astype(int), 0)
        high = np.minimum(np.ceil(grid.index(np.maximum(start, end) + reach)).astype(int) + 1, grid.shape)
        if (high <= low).any():
            continue
        begin, axis = start.tolist(), (end - start).tolist()
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = (grid.axis(k).reshape(-1)[box[k]] for k in range(3))
        length2 = max(sum(v * v for v in axis), 1e-6)
        dz, dy, dx = z[:, None, None] - begin[0], y[None, :, None] - begin[1], x[None, None, :] - begin[2]
        along = np.clip((dz * axis[0] + dy * axis[1] + dx * axis[2]) / length2, 0, 1)
        off = (dz - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dx - along * axis[2]) ** 2
        fill = np.clip((float(radius) + soft - np.sqrt(off)) / (2 * soft), 0, 1) * min(1.0, float(radius) / soft)
        np.maximum(field[box], fill * inside[box], out=field[box])
