"""From tissue to a CT image: air-filled lungs, partial volume, kernel, noise; one profile a site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.phantoms.anatomy import Body
from m2net.phantoms.disease import Disease
from m2net.phantoms.grid import Field
from m2net.phantoms.scars import hollowed

_AIRLESS_HU = 38.0
_FISSURE_HU = 400.0


@dataclass(frozen=True)
class Scanner:
    """How one site makes images.

    Attributes:
        manufacturer: written into DICOM files.
        kernel: name of the reconstruction kernel.
        blur_mm: standard deviation of the in-plane point spread.
        noise_hu: standard deviation of the noise in an average patient.
        noise_grain_mm: correlation length of the noise.
        sharpening: share of edge enhancement in the kernel.
        slice_mm: slice thicknesses in use, drawn with equal chance; slices touch.
        field_mm: width of the reconstructed field of view.
        hu_shift: calibration error, HU.
    """

    manufacturer: str
    kernel: str
    blur_mm: float
    noise_hu: float
    noise_grain_mm: float
    sharpening: float
    slice_mm: tuple[float, ...]
    field_mm: float
    hu_shift: float


def tissue(body: Body, disease: Disease, vessels: Field, bronchi: Field, rng: np.random.Generator) -> Field:
    """HU of every voxel (Z, Y, X) before the scanner."""
    a = body.anatomy
    hu = body.hu.copy()
    inside = body.lobes > 0
    lung = a.base_hu + a.gravity_hu * (body.depth - 0.5) * 2 + 16 * body.grid.noise(rng, 14.0) + disease.change
    lung = lung + body.fissure * _FISSURE_HU
    lung = hollowed(np.maximum(lung, -960), disease)
    lung = lung + disease.solid * (_AIRLESS_HU - lung)
    lung = lung + vessels * np.maximum(42 - lung, 0)
    lung = lung - (bronchi * np.clip(disease.solid * 1.2, 0, 1)) * (lung + 900)
    hu[inside] = np.minimum(lung, 70)[inside]
    return hu


def scan(hu: Field, spacing_mm: tuple[float, float, float], substeps: int, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.int16]:
    """Form the image.

    Args:
        hu: (Z * substeps, Y, X) tissue.
        spacing_mm: of the finished image (z, y, x).
        substeps: planes of ``hu`` that make one slice (their mean is the partial volume).
        scanner: the site's profile.
        rng: draws dose and noise.

    Returns:
        (Z, Y, X) int16 HU.
    """
    slices = hu.reshape(-1, substeps, *hu.shape[1:]).mean(axis=1) if substeps > 1 else hu
    pixel = spacing_mm[1]
    blur = scanner.blur_mm / pixel
    image = ndimage.gaussian_filter(slices, (0, blur, blur), mode="nearest", truncate=3.0)
    if scanner.sharpening:
        image = image + scanner.sharpening * (image - ndimage.uniform_filter(image, (0, 3, 3), mode="nearest"))
    grain = scanner.noise_grain_mm / pixel
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (0, grain, grain), truncate=2.5)
    dose = rng.uniform(0.75, 1.35) * np.sqrt(3.0 / spacing_mm[0])
    image += noise * (scanner.noise_hu * dose / max(float(noise[0].std()), 1e-6)) + scanner.hu_shift
    return np.asarray(np.clip(np.rint(image), -1024, 3071), dtype=np.int16)


SCANNERS = {
    "home": Scanner("PHANTOM-A", "B30f", 0.9, 17.0, 1.0, 0.0, (3.0, 4.0, 5.0), 360.0, 0.0),
    "north": Scanner("PHANTOM-B", "B60s", 0.6, 46.0, 0.6, 0.5, (2.0, 3.0), 380.0, 8.0),
    "south": Scanner("PHANTOM-C", "LUNG", 1.2, 34.0, 1.3, 0.15, (5.0, 8.0), 400.0, -12.0),
}
"""Scanner profiles by site name."""
