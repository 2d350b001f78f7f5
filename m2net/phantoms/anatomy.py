"""The thorax of one synthetic patient: numbers drawn, then organs, lungs and lobes as labelled voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2net.phantoms.grid import Field, Grid
from m2net.vocabulary import Lobe

Labels = NDArray[np.uint8]
SIDES = {"right": -1.0, "left": 1.0}
"""Sign of x in LPS."""


@dataclass(frozen=True)
class Anatomy:
    """Size, proportions, fissure course and posture of one patient; lengths in mm, angles in radians."""

    half_width: float
    half_depth: float
    wall: float
    fat: float
    lung_height: float
    rotation: float
    lean: float
    prone: bool
    dome: dict[str, float]
    dome_curve: float
    apex: float
    heart: tuple[float, float, float, float]  # x, y, z of the centre, size
    mediastinum: float
    oblique: dict[str, tuple[float, ...]]  # height, slope, curve in y, slope in x, wave amplitude and phase
    horizontal: tuple[float, ...]  # height, slope in y, slope in x, wave amplitude and phase
    completeness: dict[str, float]
    rib_pitch: float
    base_hu: float
    gravity_hu: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient. Ranges are wide enough that coordinates alone do not give the lobes."""
    size = rng.normal(1.0, 0.07)
    lung_height = float(np.clip(rng.normal(225, 24) * size, 165, 285))

    def oblique() -> tuple[float, ...]:
        return (
            rng.normal(0.44, 0.06), rng.uniform(0.22, 0.46), rng.normal(0, 0.06), rng.normal(0, 0.07),
            rng.uniform(0.01, 0.045), rng.uniform(0, 6.28),
        )  # fmt: skip

    right = oblique()
    # the horizontal fissure leaves the oblique one a little above its middle: the middle lobe is never a sliver
    horizontal = (
        right[0] + rng.normal(0.09, 0.025),
        rng.normal(-0.08, 0.08),
        rng.normal(0, 0.07),
        rng.uniform(0.005, 0.03),
        rng.uniform(0, 6.28),
    )
    return Anatomy(
        half_width=float(165 * size * rng.uniform(0.93, 1.08)),
        half_depth=float(110 * size * rng.uniform(0.88, 1.15)),
        wall=float(rng.uniform(14, 29)),
        fat=float(rng.uniform(4, 30)),
        lung_height=lung_height,
        rotation=float(rng.normal(0, 0.09)),
        lean=float(rng.normal(0, 0.045)),
        prone=bool(rng.random() < 0.12),
        dome={"right": float(rng.uniform(0, 26)), "left": float(rng.uniform(-18, 12))},
        dome_curve=float(rng.uniform(26, 68)),
        apex=float(rng.uniform(0.30, 0.50)),
        heart=(float(rng.uniform(12, 26)), float(rng.uniform(-38, -22)), float(rng.uniform(22, 46)), float(rng.uniform(0.78, 1.3))),
        mediastinum=float(rng.uniform(15, 31)),
        oblique={"right": right, "left": oblique()},
        horizontal=horizontal,
        completeness={
            "right": float(rng.uniform(0.75, 1.0)),
            "left": float(rng.uniform(0.75, 1.0)),
            "horizontal": float(rng.uniform(0.7, 1)),
        },
        rib_pitch=float(rng.uniform(24, 31)),
        base_hu=float(rng.normal(-850, 30)),
        gravity_hu=float(rng.uniform(15, 85)),
    )


@dataclass
class Body:
    """The labelled volume of one patient, all arrays (Z, Y, X) on ``grid``.

    Attributes:
        hu: tissue in HU without the lungs' inner structure, float32.
        lobes: lobe codes, uint8.
        fissure: share of each voxel's neighbourhood that is fissure, 0 to 1, float32.
        hilum: (z, y, x) mm of each lung's hilum.
        depth: 0 at the front of the chest, 1 at the back, for gravity, (1, Y, X).
    """

    grid: Grid
    anatomy: Anatomy
    hu: Field
    lobes: Labels
    fissure: Field
    hilum: dict[str, NDArray[np.float64]]
    depth: Field


def build_body(anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> Body:
    """Turn drawn numbers into voxels."""
    z, y, x = grid.axis(0), grid.axis(1), grid.axis(2)
    cos, sin = math.cos(anatomy.rotation), math.sin(anatomy.rotation)
    turn_x = cos * x - sin * y  # (1, Y, X)
    turn_y = sin * x + cos * y
    turn_x = turn_x - anatomy.lean * (z - 100)
    hu, cavity, narrowing = _trunk(anatomy, z, turn_x, turn_y)
    heart = _heart(anatomy, z, turn_x, turn_y)
    middle = _mediastinum(anatomy, z, turn_x, turn_y)
    lobes = np.zeros(grid.shape, np.uint8)
    fissure = np.zeros(grid.shape, np.float32)
    patchy = grid.noise(rng, 35.0)
    for side in SIDES:
        lung = _lung(anatomy, side, z, turn_x, turn_y, narrowing) & cavity & ~heart & ~middle
        _cut_lobes(anatomy, side, grid, lung, turn_x, turn_y, patchy, lobes, fissure)
    hu[heart] = 42
    _vessels_of_the_middle(anatomy, z, turn_x, turn_y, hu, lobes == 0)
    _below_the_diaphragm(anatomy, rng, z, turn_x, turn_y, hu, cavity & (lobes == 0) & ~heart & ~middle)
    _bones(anatomy, z, turn_x, turn_y, hu, lobes == 0)
    hilum = {s: np.array([0.47 * anatomy.lung_height, 12.0, sign * (anatomy.mediastinum + 10)]) for s, sign in SIDES.items()}
    _airways(anatomy, grid, z, turn_x, turn_y, hu, lobes, hilum)
    add_table(anatomy, hu, y)
    depth = np.clip((y + anatomy.half_depth) / (2 * anatomy.half_depth), 0, 1)
    return Body(grid, anatomy, hu, lobes, fissure, hilum, (1 - depth if anatomy.prone else depth).astype(np.float32))


def _oval(u: Field, v: Field) -> Field:
    """A squarish ellipse, below 1 inside."""
    u2, v2 = np.minimum(u * u, 1.5), np.minimum(v * v, 1.5)  # beyond, the mixed term would turn the sign
    return np.asarray(u2 + v2 - 0.35 * u2 * v2, dtype=np.float32)


def _trunk(a: Anatomy, z: Field, x: Field, y: Field) -> tuple[Field, NDArray[np.bool_], Field]:
    """Skin, fat and muscle; the cavity inside the ribs; how the cavity narrows with height (Z, 1, 1)."""
    t = np.clip(z / a.lung_height, -0.4, 1.4)
    narrowing = np.sqrt(np.clip(1 - (np.clip(t - a.apex, 0, None) / (1.02 - a.apex)) ** 2.4, 0.0, 1)).astype(np.float32)
    shoulders = 1 + 0.14 * np.clip(t - 0.75, 0, None)
    outer = _oval(x / (a.half_width * shoulders), y / a.half_depth)
    fat = _oval(x / (a.half_width * shoulders - a.fat), y / (a.half_depth - 0.7 * a.fat))
    inner_width = (a.half_width - a.fat - a.wall) * np.maximum(narrowing, 0.05)
    inner_depth = (a.half_depth - 0.7 * a.fat - a.wall) * np.maximum(np.sqrt(narrowing), 0.05)
    cavity = _oval(x / inner_width, (y - 4) / inner_depth) < 1
    hu = np.full(outer.shape, -1000, np.float32)
    hu[outer < 1] = -95
    hu[fat < 1] = 48
    hu[cavity] = -80  # fat between the organs
    return hu, cavity, narrowing


def _heart(a: Anatomy, z: Field, x: Field, y: Field) -> NDArray[np.bool_]:
    cx, cy, cz, size = a.heart
    u = (x - cx) * 0.87 + (z - cz) * 0.5  # the axis points down and to the left
    w = -(x - cx) * 0.5 + (z - cz) * 0.87
    inside = (u / (42 * size)) ** 2 + (w / (54 * size)) ** 2 + ((y - cy) / (40 * size)) ** 2
    return np.asarray(inside < 1)


def _mediastinum(a: Anatomy, z: Field, x: Field, y: Field) -> NDArray[np.bool_]:
    """Everything between the lungs: narrow in front, wider at the great vessels and the spine."""
    t = z / a.lung_height
    front = 0.30 + 0.70 / (1 + np.exp(-(y + 0.45 * a.half_depth) / 9))
    spine = 1 + 0.55 / (1 + np.exp(-(y - 0.45 * a.half_depth) / 6))
    vessels = 1 + 0.35 * np.exp(-(((t - 0.62) / 0.16) ** 2))
    return np.asarray(np.abs(x - 7) < a.mediastinum * front * spine * vessels)


def _lung(a: Anatomy, side: str, z: Field, x: Field, y: Field, narrowing: Field) -> NDArray[np.bool_]:
    """Above the dome of the diaphragm, with the costal recess deeper than the dome, below the apex."""
    sign = SIDES[side]
    centre = sign * 0.47 * (a.half_width - a.fat - a.wall)
    reach = 0.55 * (a.half_width - a.fat - a.wall)
    radius = ((x - centre) / reach) ** 2 + ((y + 8) / (0.85 * a.half_depth)) ** 2
    floor = a.dome[side] - a.dome_curve * radius * (1 + 0.25 * (y / a.half_depth))
    top = a.lung_height * (1.0 if side == "right" else 0.985)
    return np.asarray((z > floor) & (z < top) & (sign * x > 0) & (narrowing > 0.12))


def _cut_lobes(
    a: Anatomy, side: str, grid: Grid, lung: NDArray[np.bool_], x: Field, y: Field, patchy: Field, lobes: Labels, fissure: Field
) -> None:
    """Part a lung by its oblique (and, right, horizontal) fissure; write codes and the visible fissure."""
    z = grid.axis(0)
    v = y / a.half_depth
    u = np.abs(x) / a.half_width
    height, slope, curve, tilt, wave, phase = a.oblique[side]
    oblique = a.lung_height * (
        height + slope * 1.7 * v + curve * (v * v * 4 - 0.5) + tilt * (u - 0.45) * 2 + wave * np.sin(9 * u + 5 * v + phase)
    )
    lower = z < oblique
    edges = [(oblique, lung, a.completeness[side])]
    if side == "left":
        lobes[lung] = Lobe.LEFT_UPPER
        lobes[lung & lower] = Lobe.LEFT_LOWER
    else:
        height, slope, tilt, wave, phase = a.horizontal
        level = a.lung_height * (height + slope * v + tilt * (u - 0.45) * 2 + wave * np.sin(8 * u - 6 * v + phase))
        lobes[lung] = Lobe.RIGHT_UPPER
        lobes[lung & (z < level)] = Lobe.RIGHT_MIDDLE
        lobes[lung & lower] = Lobe.RIGHT_LOWER
        edges.append((level, lung & ~lower, a.completeness["horizontal"]))
    for surface, where, completeness in edges:
        slope_y, slope_x = np.gradient(np.broadcast_to(surface, (surface.shape[0], *grid.shape[1:]))[0], *grid.spacing_mm[1:])
        distance = (z - surface) / np.sqrt(1 + slope_y**2 + slope_x**2)
        seen = where & (np.abs(distance) < 6) & (patchy < 3.2 * (completeness - 0.5))
        fissure[seen] = np.maximum(fissure[seen], np.exp(-0.5 * (distance[seen] / 1.25) ** 2))


def _vessels_of_the_middle(a: Anatomy, z: Field, x: Field, y: Field, hu: Field, free: NDArray[np.bool_]) -> None:
    h = a.lung_height
    descending = ((x - 17) / 11.5) ** 2 + ((y - 0.52 * a.half_depth) / 11.5) ** 2 < 1
    hu[(descending & (z < 0.74 * h)) & free] = 45
    arch = ((z - 0.74 * h) / 12) ** 2 + ((x - 8) / 13) ** 2 < 1
    hu[arch & (np.abs(y - 8) < 0.42 * a.half_depth) & free] = 45
    ascending = ((x + 10) / 14) ** 2 + ((y + 16) / 14) ** 2 < 1
    hu[ascending & (z > 0.3 * h) & (z < 0.74 * h) & free] = 45
    cava = ((x + 24) / 9) ** 2 + ((y + 6) / 9) ** 2 < 1
    hu[cava & (z > 0.3 * h) & (z < 0.95 * h) & free] = 44


def _below_the_diaphragm(a: Anatomy, rng: np.random.Generator, z: Field, x: Field, y: Field, hu: Field, free: NDArray[np.bool_]) -> None:
    """Liver right, spleen and stomach left, with gas in the stomach and bowel that a lung finder must not take."""
    low = free & (z < a.dome["right"] + 5)
    hu[low & (x < 15)] = 58
    hu[low & (x >= 15)] = 42
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.uniform([-55, -60, -60], [-18, 5, 75]).tolist()
        radius = rng.uniform(8, 26)
        ball = ((z - centre[0]) / radius) ** 2 + ((y - centre[1]) / radius) ** 2 + ((x - centre[2]) / (1.4 * radius)) ** 2
        hu[low & (ball < 1)] = -990


def _bones(a: Anatomy, z: Field, x: Field, y: Field, hu: Field, free: NDArray[np.bool_]) -> None:
    add_spine(z, x, y, 0.70 * a.half_depth, hu, free)
    sternum = ((x / 17) ** 2 + ((y + a.half_depth - 0.7 * a.fat - 7) / 5) ** 2 < 1) & (z > 0.25 * a.lung_height)
    hu[sternum & free] = 230
    shell = _oval(x / (a.half_width - a.fat - 0.45 * a.wall), y / (a.half_depth - 0.7 * a.fat - 0.45 * a.wall))
    # ribs run down from the spine to the front
    phase = np.mod(z + 0.55 * (y + a.half_depth) * -1 + 400, a.rib_pitch)
    rib = (shell > 0.86) & (shell < 1.12) & (phase < 0.40 * a.rib_pitch) & (z < 1.02 * a.lung_height) & (np.abs(x) > 14)
    hu[rib & free & (hu > -60)] = 380


def add_spine(z: Field, x: Field, y: Field, back: float, hu: Field, free: NDArray[np.bool_]) -> None:
    """Vertebrae, their discs and the canal into ``hu`` where ``free``; ``back`` is the y of the vertebral bodies' centres, mm."""
    vertebra = (x / 19) ** 2 + ((y - back) / 15) ** 2
    disc = np.abs(np.mod(z, 26) - 13) > 10.5
    hu[(vertebra < 1) & free] = 180
    hu[(vertebra < 1) & disc & free] = 80
    hu[(vertebra > 0.78) & (vertebra < 1) & ~disc & free] = 420
    canal = (x / 9) ** 2 + ((y - back - 20) / 8) ** 2 < 1
    hu[canal & free] = 20
    spinous = (np.abs(x) < 3.5) & (y > back + 27) & (y < back + 42) & ~disc
    hu[spinous & (hu > -200)] = 350


def _airways(a: Anatomy, grid: Grid, z: Field, x: Field, y: Field, hu: Field, lobes: Labels, hilum: dict[str, NDArray[np.float64]]) -> None:
    """Trachea and main bronchi, wall included; they are no lung."""
    carina = 0.60 * a.lung_height
    bore = 8.5
    tube = (x / bore) ** 2 + ((y - 6) / bore) ** 2
    above = z > carina
    wall = (tube < 1.6) & above
    hu[wall] = 30
    hu[(tube < 1) & above] = -985
    lobes[wall] = 0
    for side, place in hilum.items():
        end = place.tolist()
        sign = SIDES[side]
        run = np.clip((sign * x) / (sign * end[2]), 0, 1)  # 0 at the carina, 1 at the hilum
        drop = (z - (carina + (end[0] - carina) * run)) ** 2 + (y - 6 - 6 * run) ** 2
        along = (sign * x > -3) & (sign * x < sign * end[2] + 3)
        hu[along & (drop < 1.7 * 36)] = 30
        lobes[along & (drop < 1.7 * 36)] = 0
        hu[along & (drop < 30)] = -980


def add_table(a: Anatomy, hu: Field, y: Field) -> None:
    """The table that the patient lies on, into the air of ``hu``."""
    back = (a.half_depth + 9) * (-1 if a.prone else 1)
    plate = np.broadcast_to((y > min(back, back + 5)) & (y < max(back, back + 5)), hu.shape)
    hu[plate & (hu < -500)] = -180
