"""From tissue to a radiograph: attenuation along rays from a point source, scatter, noise, and what a workstation makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.phantoms.grid import Field, Grid

_WATER = 0.019  # linear attenuation of water, 1/mm, behind a filtered beam of some 100 kV
_BONE_FACTOR = 2.2  # attenuation of what is above 100 HU, beyond its CT number (photoelectric)
_SLABS = 16


@dataclass(frozen=True)
class Radiography:
    """How one site takes chest radiographs.

    Attributes:
        bedside: share of patients taken supine, front to back, from near.
        photons: quanta a pixel in air; fewer is noisier.
        scatter: scattered intensity as a share of the primary one, range.
        enhancement: range of the factor on local contrast.
        gamma: range of the exponent of the display curve.
        devices: share of patients with leads and electrodes, whatever their disease.
        monochrome1: whether DICOM files are stored inverted.
    """

    bedside: float
    photons: float
    scatter: tuple[float, float]
    enhancement: tuple[float, float]
    gamma: tuple[float, float]
    devices: float
    monochrome1: bool


RADIOGRAPHY = {
    "home": Radiography(0.35, 40000.0, (0.15, 0.5), (0.0, 0.8), (0.8, 1.25), 0.25, False),
    "north": Radiography(0.75, 9000.0, (0.4, 0.9), (0.5, 1.6), (0.7, 1.1), 0.5, True),
    "south": Radiography(0.15, 80000.0, (0.1, 0.3), (0.0, 0.4), (0.9, 1.5), 0.1, False),
}
"""How radiographs are taken, by the same site names as the CT scanners."""


@dataclass(frozen=True)
class View:
    """Where source and detector stand.

    Attributes:
        name: PA or AP.
        distance_mm: source to detector.
        detector_y: the detector's place along y, mm: in front of the chest (PA) or behind it (AP).
        centre_mm: (z, x) where the central ray meets the body.
    """

    name: str
    distance_mm: float
    detector_y: float
    centre_mm: tuple[float, float]

    def magnification(self, y: float) -> float:
        """How much larger a plane at ``y`` mm appears on the detector."""
        return self.distance_mm / (self.distance_mm - abs(y - self.detector_y))


@dataclass(frozen=True)
class Film:
    """Pixels of the detector: ``shape`` (rows, columns) of ``pixel_mm``; row 0 is superior, column 0 the patient's right."""

    shape: tuple[int, int]
    pixel_mm: float
    top_mm: float
    right_mm: float


def project(values: Field, grid: Grid, view: View, film: Film) -> Field:
    """Integrals of ``values`` (Z, Y, X) along the rays, in value times mm, (rows, columns).

    Planes are gathered in slabs along y; within a slab rays are taken to be parallel, and their path no longer than straight through:
    at the edge of a chest taken from a metre that is 2 % too short.
    """
    total = np.zeros(film.shape, np.float32)
    v = film.top_mm - film.pixel_mm * (np.arange(film.shape[0]) + 0.5) - view.centre_mm[0]
    u = film.right_mm + film.pixel_mm * (np.arange(film.shape[1]) + 0.5) - view.centre_mm[1]
    y = grid.axis(1).reshape(-1)
    for members in np.array_split(np.arange(grid.shape[1]), _SLABS):
        plane = values[:, members].sum(axis=1) * grid.spacing_mm[1]
        m = view.magnification(float(y[members].mean()))
        rows = (v / m + view.centre_mm[0] - grid.start_mm[0]) / grid.spacing_mm[0]
        columns = (u / m + view.centre_mm[1] - grid.start_mm[2]) / grid.spacing_mm[2]
        total += _sample(plane, rows, columns)
    return total


def _sample(plane: Field, rows: NDArray[Any], columns: NDArray[Any]) -> Field:
    """Linear interpolation on a separable lattice; what lies outside repeats the edge."""

    def weights(place: NDArray[Any], size: int) -> NDArray[np.float32]:
        place = np.clip(place, 0, size - 1)
        return np.asarray(np.clip(1 - np.abs(place[:, None] - np.arange(size)[None]), 0, 1), dtype=np.float32)

    return np.asarray(weights(rows, plane.shape[0]) @ plane @ weights(columns, plane.shape[1]).T, dtype=np.float32)


def attenuation(hu: Field) -> Field:
    """Linear attenuation in 1/mm of tissue in HU."""
    bone = np.clip(hu - 100, 0, None) * (_BONE_FACTOR - 1)
    return np.asarray(_WATER * np.clip(1 + (hu + bone) / 1000, 0, None), dtype=np.float32)


@dataclass(frozen=True)
class Exposure:
    """How one picture was exposed and what its workstation made of it, drawn from the site's ranges whatever the disease.

    Attributes:
        dose: quanta a pixel in air.
        scatter: scattered intensity as a share of the primary one.
        blur_mm: of focus and detector.
        local_mm: width of what counts as local contrast.
        enhancement: factor on it.
        cut: quantiles of the picture that are shown black and white.
        gamma: exponent of the display curve.
    """

    dose: float
    scatter: float
    blur_mm: float
    local_mm: float
    enhancement: float
    cut: tuple[float, float]
    gamma: float

    @classmethod
    def draw(cls, site: Radiography, rng: np.random.Generator) -> Exposure:
        """Draw one from a site's ranges."""
        return cls(
            dose=float(site.photons * rng.uniform(0.6, 1.6)), scatter=float(rng.uniform(*site.scatter)),
            blur_mm=float(rng.uniform(0.3, 0.9)), local_mm=float(rng.uniform(8, 25)), enhancement=float(rng.uniform(*site.enhancement)),
            cut=(float(rng.uniform(0.0, 0.03)), float(rng.uniform(0.96, 1.0))), gamma=float(rng.uniform(*site.gamma)),
        )  # fmt: skip

    def light(self, depth: Field, pixel_mm: float) -> Field:
        """Beer-Lambert and a veil of scattered light: intensity behind attenuation integrals (rows, columns), as a share of that in air."""
        primary = np.exp(-depth)
        veil = self.scatter * ndimage.gaussian_filter(primary, 55 / pixel_mm, mode="nearest")
        return np.asarray(ndimage.gaussian_filter(primary + veil, self.blur_mm / pixel_mm), dtype=np.float32)

    def enhance(self, light: Field, pixel_mm: float) -> Field:
        """Logarithm and local contrast: dense tissue is high."""
        shown = -np.log(np.maximum(light, 0.5 / self.dose))
        local = shown - ndimage.gaussian_filter(shown, self.local_mm / pixel_mm, mode="nearest")
        return np.asarray(shown + self.enhancement * local, dtype=np.float32)

    def display(self, shown: Field, low: float, high: float) -> Field:
        """Window and display curve: 0 to 1."""
        return np.asarray(np.clip((shown - low) / max(high - low, 1e-3), 0, 1) ** self.gamma, dtype=np.float32)


def expose(depth: Field, pixel_mm: float, how: Exposure, rng: np.random.Generator) -> tuple[Field, tuple[float, float]]:
    """Attenuation integrals (rows, columns) to what is shown, 0 to 1, dense tissue bright; and the ends of its window."""
    noisy = rng.poisson(np.clip(how.light(depth, pixel_mm) * how.dose, 0, 1e8)).astype(np.float32) / how.dose
    shown = how.enhance(noisy, pixel_mm)
    low, high = np.quantile(shown[::3, ::3], how.cut)
    return how.display(shown, low, high), (float(low), float(high))


def displayed_difference(depth: Field, without: Field, pixel_mm: float, how: Exposure, window: tuple[float, float]) -> Field:
    """What attenuation ``depth`` shows brighter than ``without``, in shares of the display's range, free of noise."""
    one, other = (how.display(how.enhance(how.light(d, pixel_mm), pixel_mm), *window) for d in (depth, without))
    return np.asarray(one - other, dtype=np.float32)
