"""Infection and its look-alikes: where they lie, what they look like, and how much of each lobe they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.errors import ConfigError
from m2net.phantoms.anatomy import Body
from m2net.phantoms.grid import Field
from m2net.vocabulary import Diagnosis, InfectionCode, Lobe

_PLEURA_GRID_MM = 6.0
_HAZE = {Diagnosis.NON_PNEUMONIA: 0.08, Diagnosis.COVID19: 0.03, Diagnosis.CAP: 0.03}
_COLLAPSE = {Diagnosis.NON_PNEUMONIA: 0.22, Diagnosis.COVID19: 0.06, Diagnosis.CAP: 0.06}
"""How often a patient has oedema or a collapsed lung base: health is not the only alternative to pneumonia."""


def checked_mix(mix: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Chances of the diagnoses, in their order, that sum to 1 to the last digit; None is equal chances.

    Raises:
        ConfigError: not as many as diagnoses, or no chances.
    """
    if mix is not None and (len(mix) != len(Diagnosis) or min(mix) < 0 or abs(sum(mix) - 1) > 1e-6):
        raise ConfigError(f"a case mix of {mix}", expected=f"chances of {', '.join(Diagnosis)} that sum to 1")
    return None if mix is None else tuple(chance / sum(mix) for chance in mix)


@dataclass
class Disease:
    """What is wrong with one patient.

    Attributes:
        infection: (Z, Y, X) uint8, infection codes.
        change: (Z, Y, X) float32, what to add to the lung's HU before vessels are laid in.
        solid: (Z, Y, X) float32 in [0, 1], how far the tissue is airless (vessels vanish in it, bronchi show).
        spared: change and solid as they are without infection and scars, where asked for.
        holes: (Z, Y, X) float32 in [0, 1], how far the tissue is hollow; None without scars.
    """

    infection: NDArray[np.uint8]
    change: Field
    solid: Field
    spared: tuple[Field, Field] | None = None
    holes: Field | None = None

    def without_infection(self) -> Disease:
        """The same patient without infection and scars."""
        assert self.spared is not None
        return Disease(np.zeros_like(self.infection), *self.spared)


def add_disease(body: Body, diagnosis: Diagnosis, rng: np.random.Generator, *, spared: bool = False) -> Disease:
    """Draw the infection of ``diagnosis`` and distractors into the lungs of ``body``; ``spared`` keeps how they are without infection."""
    shape = body.grid.shape
    disease = Disease(np.zeros(shape, np.uint8), np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    pleura = depth_under_pleura(body)
    _distract(body, disease, pleura, rng)
    if rng.random() < _HAZE[diagnosis]:
        _haze(body, disease, rng)
    if rng.random() < _COLLAPSE[diagnosis]:
        _collapse(body, disease, pleura, rng)
    if spared:
        disease.spared = (disease.change.copy(), disease.solid.copy())
    if diagnosis is Diagnosis.COVID19:
        where, share = _covid_field(body, pleura, rng), float(np.clip(rng.beta(0.9, 2.3) * 0.8, 0.01, 0.75))
        _infect(body, disease, where, body.lobes > 0, share, _solid_share(rng), crazy=rng.random() < 0.3, rng=rng)
    elif diagnosis is Diagnosis.CAP:
        for region, where, share in _cap_fields(body, rng):
            _infect(body, disease, where, region, share, _solid_share(rng), crazy=False, rng=rng)
    return disease


def _solid_share(rng: np.random.Generator) -> float:
    """Consolidated share of an infection; alike for both diseases, so that density alone does not tell them apart."""
    return float(rng.beta(1.3, 3.0))


def involved_shares(lobes: NDArray[np.uint8], infection: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each lobe that is infected, and that is consolidated, in the order of the lobe codes; (5,) each."""
    size = np.bincount(lobes.ravel(), minlength=6)[1:6].clip(1)
    infected = np.bincount(lobes[infection > 0], minlength=6)[1:6]
    solid = np.bincount(lobes[infection == InfectionCode.CONSOLIDATION], minlength=6)[1:6]
    return infected / size, solid / size


def depth_under_pleura(body: Body) -> Field:
    """Distance in mm to the nearest lung border, computed on a coarse grid."""
    strides = [max(1, round(_PLEURA_GRID_MM / mm)) for mm in body.grid.spacing_mm]
    coarse = (body.lobes > 0)[:: strides[0], :: strides[1], :: strides[2]]
    mm = [s * m for s, m in zip(strides, body.grid.spacing_mm, strict=True)]
    depth = ndimage.distance_transform_edt(coarse, sampling=mm).astype(np.float32)
    return body.grid.spread(depth, strides)


def _covid_field(body: Body, pleura: Field, rng: np.random.Generator) -> Field:
    """Bilateral, peripheral, posterior and lower; each tendency varies, and early disease may be one-sided."""
    a = body.anatomy
    z, y = body.grid.axis(0), body.grid.axis(1)
    field = rng.uniform(0.6, 1.7) * np.exp(-pleura / rng.uniform(9, 18))
    field = field + rng.uniform(0.1, 1.0) * (y / a.half_depth) - rng.uniform(0.0, 1.2) * (z / a.lung_height)
    field = field + rng.uniform(0.55, 0.9) * body.grid.noise(rng, rng.uniform(20, 34))
    sides = (rng.normal(0, 0.25, 2) - (rng.integers(0, 2, 2) * 3.0 if rng.random() < 0.12 else 0.0)).astype(np.float32)
    left = (body.lobes == Lobe.LEFT_UPPER) | (body.lobes == Lobe.LEFT_LOWER)
    return np.asarray(field + np.where(left, sides[0], sides[1]), dtype=np.float32)


def _cap_fields(body: Body, rng: np.random.Generator) -> list[tuple[NDArray[np.bool_], Field, float]]:
    """One lobe, sometimes a second on the same side, seldom one across; filled from a focus outwards. Of the lobes that are there."""
    chances = {lobe: p for lobe, p in zip(Lobe, (0.17, 0.27, 0.17, 0.12, 0.27), strict=True) if (body.lobes == lobe).any()}
    first = Lobe(int(rng.choice([int(lobe) for lobe in chances], p=np.array(list(chances.values())) / sum(chances.values()))))
    chosen = [first]
    if rng.random() < 0.45:
        same = [lobe for lobe in chances if lobe.is_left == first.is_left and lobe != first]
        across = [lobe for lobe in chances if lobe.is_left != first.is_left]
        if second := same if rng.random() < 0.75 else across:
            chosen.append(Lobe(int(rng.choice([int(lobe) for lobe in second]))))
    out = []
    for lobe in chosen:
        region = body.lobes == lobe
        voxels = np.argwhere(region)
        if len(voxels) == 0:
            continue
        focus = (voxels[rng.integers(len(voxels))] * body.grid.spacing_mm + body.grid.start_mm).tolist()
        away = sum(((body.grid.axis(k) - focus[k]) / 45.0) ** 2 for k in range(3))
        field = -np.sqrt(np.asarray(away, dtype=np.float32)) + 0.45 * body.grid.noise(rng, rng.uniform(18, 32))
        out.append((region, np.asarray(field, dtype=np.float32), float(np.clip(rng.beta(1.3, 1.2), 0.05, 0.97))))
    return out


def _infect(
    body: Body,
    disease: Disease,
    where: Field,
    region: NDArray[np.bool_],
    share: float,
    solid_share: float,
    *,
    crazy: bool,
    rng: np.random.Generator,
) -> None:
    """Fill ``share`` of ``region`` where the field is highest; consolidate ``solid_share`` of that."""
    values = where[region]
    if values.size == 0:
        return
    border = float(np.quantile(values[:: max(1, values.size // 20000)], 1 - share))
    taken = region & (where > border)
    core = where + 0.5 * body.grid.noise(rng, 16.0)
    inner = core[taken]
    if inner.size == 0:
        return
    solid = taken & (core > float(np.quantile(inner, 1 - solid_share)))
    disease.infection[taken] = np.maximum(disease.infection[taken], InfectionCode.GROUND_GLASS)
    disease.infection[solid] = InfectionCode.CONSOLIDATION
    density = rng.uniform(80, 240) * (1 + 0.35 * body.grid.noise(rng, 12.0)[taken])
    if crazy:
        lines = np.exp(-((body.grid.noise(rng, 7.0)[taken] / 0.22) ** 2))
        density = density + 170 * lines
    soft = np.clip((where[taken] - border) / 0.22, 0.35, 1)  # margins fade
    disease.change[taken] += np.clip(density, 40, 600) * soft
    airless = rng.uniform(0.62, 0.98) * (1 + 0.12 * body.grid.noise(rng, 10.0)[solid])
    disease.solid[solid] = np.maximum(disease.solid[solid], np.clip(airless, 0.3, 1))


def _distract(body: Body, disease: Disease, pleura: Field, rng: np.random.Generator) -> None:
    """Dependent density, plate atelectasis, nodules and mosaic perfusion: dense, and no infection."""
    lungs = body.lobes > 0
    if rng.random() < 0.8:
        strength = rng.uniform(60, 330) * np.exp(-pleura / rng.uniform(6, 22)) * np.clip((body.depth - 0.60) / 0.25, 0, 1)
        disease.change[lungs] += strength[lungs]
    if rng.random() < 0.8:
        mosaic = rng.uniform(20, 80) * body.grid.noise(rng, rng.uniform(25, 60))
        disease.change[lungs] += mosaic[lungs]
    for _ in range(int(rng.poisson(0.6))):
        _plate(body, disease, lungs, rng)
    for _ in range(int(rng.poisson(1.5))):
        _nodule(body, disease, lungs, rng)


def _haze(body: Body, disease: Disease, rng: np.random.Generator) -> None:
    """Oedema: a smooth veil around both hila that spares the periphery; as dense as ground glass."""
    z, y, x = (body.grid.axis(k) for k in range(3))
    reach = rng.uniform(60, 105)
    away = None
    for hilum in body.hilum.values():
        place = hilum.tolist()
        here = ((z - place[0]) / (1.3 * reach)) ** 2 + ((y - place[1]) / reach) ** 2 + ((x - place[2]) / reach) ** 2
        away = here if away is None else np.minimum(away, here)
    veil = np.clip(1.2 - np.sqrt(np.asarray(away, dtype=np.float32)) + 0.25 * body.grid.noise(rng, 40.0), 0, 1)
    lungs = body.lobes > 0
    disease.change[lungs] += (rng.uniform(120, 420) * veil)[lungs]


def _collapse(body: Body, disease: Disease, pleura: Field, rng: np.random.Generator) -> None:
    """Airless lung along the dependent pleura of one or both bases, with a smooth edge, as under an effusion."""
    a = body.anatomy
    z = body.grid.axis(0)
    low = np.clip(1.3 - z / (rng.uniform(0.25, 0.6) * a.lung_height), 0, 1)
    edge = rng.uniform(6, 26) * low * np.clip((body.depth - 0.55) / 0.3, 0, 1)
    solid = np.clip((edge - pleura) / 3.0 + 0.2 * body.grid.noise(rng, 25.0), 0, 1) * (edge > 2)
    where = body.lobes > 0
    if rng.random() < 0.5:
        where = where & ((body.lobes <= Lobe.LEFT_LOWER) == (rng.random() < 0.5))
    disease.solid[where] = np.maximum(disease.solid[where], (rng.uniform(0.8, 1.0) * solid)[where])


def _plate(body: Body, disease: Disease, lungs: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """A plate of collapsed lung, a few millimetres thick, low in one lung."""
    a = body.anatomy
    z, y, x = (body.grid.axis(k) for k in range(3))
    sign = float(rng.choice([-1.0, 1.0]))
    level = rng.uniform(0.05, 0.4) * a.lung_height
    surface = level + rng.normal(0, 0.2) * y + rng.normal(0, 0.3) * (x - sign * 70)
    centre = (rng.uniform(-0.1, 0.6) * a.half_depth, sign * rng.uniform(45, 100))
    extent = ((y - centre[0]) / rng.uniform(18, 45)) ** 2 + ((x - centre[1]) / rng.uniform(15, 40)) ** 2
    plate = np.clip(1.4 - np.abs(z - surface) / rng.uniform(2.0, 6.0), 0, 1) * (extent < 1)
    disease.solid[lungs] = np.maximum(disease.solid[lungs], (0.85 * plate)[lungs])


def _nodule(body: Body, disease: Disease, lungs: NDArray[np.bool_], rng: np.random.Generator) -> None:
    voxels = np.argwhere(lungs[::2, ::2, ::2]) * 2
    if len(voxels) == 0:
        return
    centre = (voxels[rng.integers(len(voxels))] * body.grid.spacing_mm + body.grid.start_mm).tolist()
    radius = rng.uniform(3, 12)
    away = np.sqrt(np.asarray(sum((body.grid.axis(k) - centre[k]) ** 2 for k in range(3)), dtype=np.float32))
    ball = np.clip((radius - away) / 2.5 + 0.5, 0, 1)
    disease.solid[lungs] = np.maximum(disease.solid[lungs], (rng.uniform(0.55, 0.95) * ball)[lungs])
