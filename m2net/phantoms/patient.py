"""One synthetic patient: anatomy, disease, outcome and image, from one seed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2net.phantoms.anatomy import Anatomy, Body, build_body, draw_anatomy
from m2net.phantoms.disease import Disease, add_disease, involved_shares
from m2net.phantoms.donors import Donor, Transplant
from m2net.phantoms.grid import Field, Grid
from m2net.phantoms.outcome import SeverityModel
from m2net.phantoms.scanner import Scanner, scan, tissue
from m2net.phantoms.scars import add_scars
from m2net.phantoms.vessels import FEWEST_TIPS, grow_vessels
from m2net.studies import Geometry
from m2net.vocabulary import Diagnosis

PHANTOM_VERSION = "1"
"""Changes with every change of the phantom; printed with every result made on it."""

_FINEST_MM = 3.0
_TOP_MARGIN_MM = 14.0
_BOTTOM_MARGIN_MM = 45.0


Builder = Callable[[Anatomy, Grid, np.random.Generator], Body]


@dataclass(frozen=True)
class Patient:
    """One patient as tissue, before any machine sees it.

    Attributes:
        body: the labelled volume.
        disease: what is wrong.
        hu: (Z, Y, X) tissue in HU.
        spared: the same without the infection.
    """

    body: Body
    disease: Disease
    hu: Field
    spared: Field | None


def grow(
    anatomy: Anatomy,
    grid: Grid,
    diagnosis: Diagnosis,
    rng: np.random.Generator,
    *,
    spared: bool = False,
    scars: bool = False,
    tips: int = FEWEST_TIPS,
    build: Builder = build_body,
) -> Patient:
    """Fill an anatomy with disease, ``scars``, vessels (``tips`` a lobe) and tissue.

    With ``spared`` also as it would be without infection and scars.
    """
    body = build(anatomy, grid, rng)
    disease = add_disease(body, diagnosis, rng, spared=spared)
    if scars:
        add_scars(body, disease, rng)
    vessels, bronchi = grow_vessels(body, rng, tips)
    without = tissue(body, disease.without_infection(), vessels, bronchi, copy.deepcopy(rng)) if spared else None
    return Patient(body, disease, tissue(body, disease, vessels, bronchi, rng), without)


@dataclass(frozen=True)
class Phantom:
    """A synthetic CT with its ground truth.

    Attributes:
        image: (Z, Y, X) int16 HU, LPS axes.
        lobes: (Z, Y, X) uint8 lobe codes.
        lungs: (Z, Y, X) uint8, 1 right, 2 left.
        infection: (Z, Y, X) uint8, 1 ground glass, 2 consolidation.
        geometry: grid of all four.
        diagnosis: what it was drawn as.
        share: (5,) infected share of each lobe, in the order of the lobe codes.
        solid: (5,) consolidated share of each lobe.
        severity: grade drawn from the model.
        true_probabilities: P(grade >= k), k = 1..K-1, of that model.
    """

    image: NDArray[np.int16]
    lobes: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    infection: NDArray[np.uint8]
    geometry: Geometry
    diagnosis: Diagnosis
    share: NDArray[np.float64]
    solid: NDArray[np.float64]
    severity: int
    true_probabilities: NDArray[np.float64]


def make_phantom(
    seed: tuple[int, ...],
    scanner: Scanner,
    diagnosis: Diagnosis,
    severity: SeverityModel,
    *,
    matrix: int = 192,
    slice_mm: float | None = None,
    donor: Donor | None = None,
    scars: bool = False,
    tips: int = FEWEST_TIPS,
) -> Phantom:
    """Make one patient; the same arguments give the same voxels.

    A slice is the mean of thinner ones and its masks are the middle one of them. From 4.5 to 7.5 mm there are two: the masks are the
    upper one, a quarter of a slice above the slice's centre.

    Args:
        seed: whole numbers that identify the patient.
        scanner: the site's profile.
        diagnosis: disease to draw.
        severity: model of the outcome.
        matrix: pixels along each in-plane axis.
        slice_mm: slice thickness; drawn from the scanner's if None.
        donor: whose lungs and lobes the patient gets, bent a little; lungs of drawn shape if None.
        scars: emphysema, cysts, fibrosis and masses as well, each in some patients.
        tips: vessels' ends in a lobe.
    """
    rng = np.random.default_rng(list(seed))
    anatomy, build = draw_anatomy(rng), build_body
    if donor is not None:
        transplant = Transplant.draw(donor, rng)
        anatomy, build = transplant.fitted(anatomy), transplant.build
    drawn = float(rng.choice(scanner.slice_mm))
    thickness = slice_mm if slice_mm is not None else drawn
    pixel = max(scanner.field_mm, 2 * anatomy.half_width + 24) / matrix
    substeps = max(1, round(thickness / _FINEST_MM))
    count = int(np.ceil((anatomy.lung_height + _TOP_MARGIN_MM + _BOTTOM_MARGIN_MM) / thickness))
    step = thickness / substeps
    half = pixel * (matrix - 1) / 2
    start = (-_BOTTOM_MARGIN_MM, -half + float(rng.normal(0, 5)), -half + float(rng.normal(0, 6)))
    grid = Grid((count * substeps, matrix, matrix), (step, pixel, pixel), start)

    patient = grow(anatomy, grid, diagnosis, rng, scars=scars, tips=tips, build=build)
    body, disease, hu = patient.body, patient.disease, patient.hu
    spacing = (thickness, pixel, pixel)
    image = scan(hu, spacing, substeps, scanner, rng)

    middle = slice(substeps // 2, None, substeps)
    lobes, infection = body.lobes[middle], disease.infection[middle]
    share, solid = involved_shares(body.lobes, disease.infection)
    probabilities = severity.probabilities(share, solid)
    geometry = Geometry.build(spacing, (start[2], start[1], start[0] + step * (substeps - 1) / 2), np.eye(3))
    lungs = np.where(lobes == 0, 0, np.where(lobes <= 2, 2, 1)).astype(np.uint8)
    return Phantom(
        image, np.ascontiguousarray(lobes), lungs, np.ascontiguousarray(infection), geometry, diagnosis,
        share, solid, severity.draw(probabilities, rng), probabilities,
    )  # fmt: skip
