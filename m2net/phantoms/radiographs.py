"""Synthetic patients as chest radiographs: the CT phantom's anatomy and disease, projected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from m2net.phantoms.anatomy import Anatomy, Body, draw_anatomy
from m2net.phantoms.grid import Field, Grid
from m2net.phantoms.patient import Patient, grow
from m2net.phantoms.radiography import Exposure, Film, Radiography, View, attenuation, displayed_difference, expose, project
from m2net.studies.scores import geographic_extent, opacity
from m2net.vocabulary import Diagnosis, InfectionCode, Lobe, LungCode

RADIOGRAPH_VERSION = "2"
"""Changes with every change of the synthetic radiographs; printed with every result made on them."""

_GRID_MM = 2.6
_ABOVE_MM, _BELOW_MM = 75.0, 95.0
_LEAST_LUNG_MM = 9.0  # of lung along the ray; less is not drawn as lung
_VISIBLE = 0.05  # of the range displayed: what a reader can be expected to see, and to draw round
_ADDED = 0.1  # attenuation that the infection itself adds along such a ray; less is a neighbour's scatter
_SOLID_MM = 16.0  # of airless infected lung along the ray: consolidation
_LEAST_SHARE = 0.02  # of the lungs' shadow; a patient whose opacities are smaller is neither infected nor not


@dataclass(frozen=True)
class Radiograph:
    """A synthetic radiograph with its ground truth, in display convention (image left is the patient's right).

    Attributes:
        image: (rows, columns) float32, 0 to 1, dense tissue bright.
        lungs: (rows, columns) uint8, 1 right, 2 left; the parts behind the heart and the diaphragm's domes are in.
        infection: (rows, columns) uint8, 1 ground glass, 2 consolidation, where the picture shows it brightly enough to be seen.
        pixel_mm: on the detector.
        view: PA or AP.
        diagnosis: what it was drawn as.
        infected: True if infection can be seen, False in a patient without infection, None where there is one that cannot be seen.
        share: infected share of the right and the left lung's shadow.
        extent: geographic extent score, 0 to 8, of these masks.
        opacity: opacity score, 0 to 6.
    """

    image: Field
    lungs: NDArray[np.uint8]
    infection: NDArray[np.uint8]
    pixel_mm: float
    view: str
    diagnosis: Diagnosis
    infected: bool | None
    share: NDArray[np.float64]
    extent: float
    opacity: float


def make_radiograph(seed: tuple[int, ...], site: Radiography, diagnosis: Diagnosis, size: int) -> Radiograph:
    """Make one patient's frontal radiograph; the same arguments give the same pixels.

    Args:
        seed: whole numbers that identify the patient, as for the CT phantom.
        site: how the site takes radiographs.
        diagnosis: disease to draw.
        size: pixels along the longer side.
    """
    rng = np.random.default_rng(list(seed))
    anatomy = draw_anatomy(rng)
    taking = np.random.default_rng([*seed, 3])  # how the picture is taken does not depend on who is ill
    bedside = bool(taking.random() < site.bedside)
    anatomy = _posture(anatomy, bedside, taking)
    grid = _grid(anatomy)
    patient = grow(anatomy, grid, diagnosis, rng, spared=True)
    view = _view(anatomy, bedside, taking)
    film = _film(anatomy, size, taking)
    depth = project(attenuation(patient.hu), grid, view, film) + _shoulders(anatomy, film, taking)
    if taking.random() < site.devices:
        depth = depth + _devices(film, taking)
    how = Exposure.draw(site, taking)
    image, window = expose(depth, film.pixel_mm, how, taking)
    image = _finish(image, film, view, taking)
    lungs = _lungs(patient.body, view, film)
    infection = np.zeros(film.shape, np.uint8)
    if patient.disease.infection.any():
        added = _added(patient, view, film)
        seen = displayed_difference(depth, depth - added, film.pixel_mm, how, window)
        infection = _infection(added, seen, _airless(patient, view, film), film) * (lungs > 0)
    sizes = np.array([(lungs == side).sum() for side in (LungCode.RIGHT, LungCode.LEFT)]).clip(1)
    share, solid = (
        np.array([(where & (lungs == side)).sum() for side in (LungCode.RIGHT, LungCode.LEFT)]) / sizes
        for where in (infection > 0, infection == InfectionCode.CONSOLIDATION)
    )
    enough = bool((infection > 0).sum() >= _LEAST_SHARE * sizes.sum())
    ill = diagnosis is not Diagnosis.NON_PNEUMONIA
    return Radiograph(
        image, lungs, infection, film.pixel_mm, view.name, diagnosis, (True if enough else None) if ill else False,
        share, float(geographic_extent(share)), float(opacity(share, solid)),
    )  # fmt: skip


def _posture(anatomy: Anatomy, bedside: bool, rng: np.random.Generator) -> Anatomy:
    """Supine lungs are shorter, the heart and the middle wider; nobody lies prone."""
    if not bedside:
        return replace(anatomy, prone=False, rotation=anatomy.rotation * 0.6)
    x, y, z, size = anatomy.heart
    return replace(
        anatomy, prone=False, lung_height=anatomy.lung_height * float(rng.uniform(0.78, 0.95)), heart=(x, y, z, size * 1.1),
        mediastinum=anatomy.mediastinum * 1.1, rotation=anatomy.rotation + float(rng.normal(0, 0.06)),
    )  # fmt: skip


def _grid(anatomy: Anatomy) -> Grid:
    width, depth = 2 * anatomy.half_width * 1.2, 2 * anatomy.half_depth + 30
    height = anatomy.lung_height + _ABOVE_MM + _BELOW_MM
    shape = tuple(int(np.ceil(mm / _GRID_MM)) for mm in (height, depth, width))
    return Grid(shape, (_GRID_MM,) * 3, (-_BELOW_MM, -depth / 2, -width / 2))  # type: ignore[arg-type]


def _view(anatomy: Anatomy, bedside: bool, rng: np.random.Generator) -> View:
    centre = (0.45 * anatomy.lung_height + float(rng.normal(0, 15)), float(rng.normal(0, 8)))
    gap = anatomy.half_depth + 20
    if bedside:
        return View("AP", float(rng.uniform(950, 1200)), gap, centre)
    return View("PA", float(rng.uniform(1750, 2000)), -gap, centre)


def _film(anatomy: Anatomy, size: int, rng: np.random.Generator) -> Film:
    """A field around the lungs with margins as people leave them: portrait or landscape, seldom tight, seldom the whole body."""
    top = anatomy.lung_height * 1.05 + float(rng.uniform(4, 55))
    bottom = -float(rng.uniform(35, 85))
    half = anatomy.half_width * 1.1
    right, left = -half * float(rng.uniform(0.86, 1.08)), half * float(rng.uniform(0.86, 1.08))
    pixel = max(top - bottom, left - right) / size
    return Film((round((top - bottom) / pixel), round((left - right) / pixel)), pixel, top, right)


def _shoulders(a: Anatomy, film: Film, rng: np.random.Generator) -> Field:
    """Clavicles and shoulder blades, which the trunk of the phantom lacks, as attenuation on the film."""
    canvas = Image.new("L", film.shape[::-1])
    draw = ImageDraw.Draw(canvas)

    def at(x: float, z: float) -> tuple[float, float]:
        return (x - film.right_mm) / film.pixel_mm, (film.top_mm - z) / film.pixel_mm

    height, rise = a.lung_height * rng.uniform(0.86, 0.98), rng.uniform(-5, 35)
    width = max(2, round(rng.uniform(9, 14) / film.pixel_mm))
    blade, tip = rng.uniform(0.72, 1.02), rng.uniform(0.3, 0.45)
    for sign in (-1, 1):
        span = np.linspace(0, 1, 20)
        x = sign * (16 + span * (0.9 * a.half_width - 16))
        z = height + rise * span + 9 * np.sin(np.pi * span)
        draw.line([at(float(u), float(v)) for u, v in zip(x, z, strict=True)], fill=150, width=width)
        outer = sign * a.half_width * blade
        corners = [
            (outer, a.lung_height * 0.92), (outer - sign * 34, a.lung_height * 0.8), (outer - sign * 6, a.lung_height * tip),
            (outer + sign * 22, a.lung_height * 0.75),
        ]  # fmt: skip
        draw.polygon([at(*c) for c in corners], fill=70)
    soft = ndimage.gaussian_filter(np.asarray(canvas, dtype=np.float32), 2.0 / film.pixel_mm)
    return np.asarray(soft / 255 * rng.uniform(0.35, 0.7), dtype=np.float32)


def _devices(film: Film, rng: np.random.Generator) -> Field:
    """Leads and electrodes."""
    canvas = Image.new("L", film.shape[::-1])
    draw = ImageDraw.Draw(canvas)
    rows, columns = film.shape
    radius = 9 / film.pixel_mm
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(0.1, 0.9) * columns, rng.uniform(0.15, 0.9) * rows
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=140, width=max(1, round(2 / film.pixel_mm)))
        bend, end = (x + rng.normal(0, 0.2) * columns, y + rng.normal(0, 0.2) * rows), (rng.uniform(0, 1) * columns, float(rows))
        t = np.linspace(0, 1, 24)[:, None]
        lead = (1 - t) ** 2 * np.array([x, y]) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)
        draw.line([(float(u), float(v)) for u, v in lead], fill=110, width=max(1, round(1.6 / film.pixel_mm)), joint="curve")
    return np.asarray(np.asarray(canvas, dtype=np.float32) / 255 * 0.9, dtype=np.float32)


def _finish(image: Field, film: Film, view: View, rng: np.random.Generator) -> Field:
    """Burnt-in side marker, collimation and paper, drawn alike for everybody."""
    rows, columns = film.shape
    picture = Image.fromarray((image * 255).astype(np.float32))
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.7:
        font = ImageFont.load_default(size=max(8, round(rng.uniform(0.03, 0.06) * rows)))
        text, right = ("R", True) if rng.random() < 0.6 else ("L", False)
        place = ((0.03 if right else 0.91) * columns, rng.uniform(0.02, 0.12) * rows)
        draw.text(place, text if view.name == "PA" or rng.random() < 0.6 else f"{text} AP", fill=float(rng.uniform(200, 255)), font=font)
    shown = np.asarray(picture, dtype=np.float32) / 255
    if rng.random() < 0.25:
        edge = (rng.uniform(0.0, 0.05, 4) * [rows, rows, columns, columns]).astype(int)
        shutter = np.zeros(film.shape, np.float32)
        shutter[edge[0] : rows - edge[1], edge[2] : columns - edge[3]] = 1
        shown = shown * shutter
    return np.asarray(shown, dtype=np.float32)


def _lungs(body: Body, view: View, film: Film) -> NDArray[np.uint8]:
    left = (body.lobes == Lobe.LEFT_UPPER) | (body.lobes == Lobe.LEFT_LOWER)
    depth = [project(side.astype(np.float32), body.grid, view, film) for side in ((body.lobes > 0) & ~left, left)]
    codes = np.where(depth[0] >= depth[1], LungCode.RIGHT, LungCode.LEFT)
    return np.where(np.maximum(*depth) >= _LEAST_LUNG_MM, codes, 0).astype(np.uint8)


def _added(patient: Patient, view: View, film: Film) -> Field:
    """Attenuation that the infection adds along each ray, against the same patient without it."""
    assert patient.spared is not None
    return project(attenuation(patient.hu) - attenuation(patient.spared), patient.body.grid, view, film)


def _airless(patient: Patient, view: View, film: Film) -> Field:
    """Millimetres of airless infected lung along each ray."""
    solid = np.where(patient.disease.infection == InfectionCode.CONSOLIDATION, patient.disease.solid, 0).astype(np.float32)
    return project(solid, patient.body.grid, view, film)


def _infection(added: Field, shown: Field, airless: Field, film: Film) -> NDArray[np.uint8]:
    """Codes of what a reader would draw round: outlines are smooth."""
    added, shown, airless = (ndimage.gaussian_filter(m, 3.0 / film.pixel_mm) for m in (added, shown, airless))
    seen = (shown >= _VISIBLE) & (added >= _ADDED)
    kinds = [InfectionCode.CONSOLIDATION, InfectionCode.GROUND_GLASS]
    return np.select([seen & (airless >= _SOLID_MM), seen], kinds, 0).astype(np.uint8)
