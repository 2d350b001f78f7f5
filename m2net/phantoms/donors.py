"""Lungs and lobes of a real patient's mask in a synthetic body: phantoms whose fissures run as fissures do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

from m2net.errors import StudyError
from m2net.phantoms.anatomy import SIDES, Anatomy, Body, Labels, add_spine, add_table
from m2net.phantoms.grid import Field, Grid
from m2net.studies import VOLUME_ENDINGS, read_mask_alone
from m2net.vocabulary import MASK_UNLABELLED, Column, Lobe

_FINEST_MM = 1.2
_RECESS_MM = 40.0  # the lungs' lowest point lies so far below the domes, whose height is z = 0
_LEAST_HEIGHT_MM = 120.0
_LEAST_SLICES = 20
_FISSURE_MM = 1.25
_SPECK = 0.002  # of the largest piece; parts of a lung that lie apart in a mask are larger
_VISIBLE = (0.2, 1.0)  # of a fissure's density, drawn once a patient

Mask = NDArray[np.bool_]


def donor_name(path: Path) -> str:
    """What the patients with these lungs are called: the name of the file without its ending, or of the folder."""
    name = path.resolve().name
    ending = next((e for e in (*VOLUME_ENDINGS, ".dcm") if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


@dataclass(frozen=True)
class Donor:
    """Lobes of a real patient, trimmed to the lungs.

    Attributes:
        name: of the mask's file; phantoms of one donor are one patient when a cohort is split.
        lobes: (Z, Y, X) uint8 lobe codes, LPS axes.
        spacing_mm: (z, y, x).
    """

    name: str
    lobes: Labels
    spacing_mm: tuple[float, float, float]

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """Height, depth and width of the lungs."""
        return np.asarray(np.array(self.lobes.shape) * np.array(self.spacing_mm), dtype=np.float64)


def read_donor(path: Path, scheme: str = "") -> Donor:
    """Read a lobe mask that covers both lungs.

    Args:
        path: volume file, DICOM-SEG file, or folder of one file a lobe.
        scheme: codes of the mask, as the column ``lobes_scheme`` of a manifest names them.

    Raises:
        StudyError: unreadable, no volume of both whole lungs, or partly unlabelled.
        GeometryError: its axes are not at right angles.
    """
    codes, geometry = read_mask_alone(path, Column.LOBES, scheme)
    places = np.nonzero(codes)
    sides = {Lobe(int(code)).is_left for code in np.unique(codes) if code not in (0, MASK_UNLABELLED)}
    if sides != {True, False} or (codes == MASK_UNLABELLED).any():
        raise StudyError(f"the lobes mask {path} does not name the lobes of both lungs in all its voxels", expected="a whole lobe mask")
    box = tuple(slice(int(p.min()), int(p.max()) + 1) for p in places)
    trimmed = codes[box]
    height = trimmed.shape[0] * geometry.spacing_mm[0]
    if trimmed.shape[0] < _LEAST_SLICES or height < _LEAST_HEIGHT_MM:
        raise StudyError(
            f"the lobes mask {path} holds {trimmed.shape[0]} slices, {height:.0f} mm of lung",
            expected=f"whole lungs: at least {_LEAST_SLICES} slices and {_LEAST_HEIGHT_MM:.0f} mm", remedy="Leave it out",
        )  # fmt: skip
    kept = [max(1, round(n * mm / max(mm, _FINEST_MM))) for n, mm in zip(trimmed.shape, geometry.spacing_mm, strict=True)]
    pick = [((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(kept, trimmed.shape, strict=True)]
    z, y, x = (mm * old / new for mm, old, new in zip(geometry.spacing_mm, trimmed.shape, kept, strict=True))
    return Donor(donor_name(path), _without_specks(trimmed[np.ix_(*pick)]), (z, y, x))


def _without_specks(codes: Labels) -> Labels:
    """Trimmed to the lungs: stray voxels elsewhere would widen the body."""
    pieces, _ = ndimage.label(codes > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    large = (sizes >= _SPECK * sizes.max())[pieces] & (pieces > 0)
    box = tuple(slice(int(p.min()), int(p.max()) + 1) for p in np.nonzero(large))
    return np.ascontiguousarray(codes[box])


@dataclass(frozen=True)
class Transplant:
    """A donor's lungs as one synthetic patient gets them: stretched, turned and bent.

    Attributes:
        donor: whose lungs.
        stretch: along (z, y, x).
        turn: about the body's axis, radians.
        bend_mm: how far places move at most, about.
        bend_over_mm: over which distance that changes.
    """

    donor: Donor
    stretch: NDArray[np.float64]
    turn: float
    bend_mm: float
    bend_over_mm: float

    @classmethod
    def draw(cls, donor: Donor, rng: np.random.Generator) -> Transplant:
        """Draw how the lungs are changed; little enough that they stay lungs."""
        return cls(
            donor, np.clip(rng.normal(1, 0.06, 3), 0.85, 1.15), float(rng.normal(0, 0.07)), rng.uniform(1.0, 5.0), rng.uniform(45, 90)
        )

    def fitted(self, anatomy: Anatomy) -> Anatomy:
        """``anatomy`` in the size of these lungs."""
        height, depth, width = self.donor.extent_mm * self.stretch
        return replace(
            anatomy, lung_height=float(height - _RECESS_MM), half_width=float(width / 2 + anatomy.wall + anatomy.fat),
            half_depth=float(depth / 2 + anatomy.wall + 0.7 * anatomy.fat), rotation=0.0, lean=0.0,
        )  # fmt: skip

    def build(self, anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> Body:
        """The lungs on ``grid`` and a body around them."""
        lobes = self._placed(grid, rng)
        z, y, x = grid.axis(0), grid.axis(1), grid.axis(2)
        hu = _trunk(anatomy, grid, lobes, rng)
        free = lobes == 0
        middle = _middle(lobes, grid)
        add_spine(z, x - middle, y, float(_back(lobes, grid) - 26), hu, free)
        hilum = {side: _hilum(lobes, grid, side, anatomy) for side in SIDES}
        _airways(anatomy, grid, middle, hilum, hu, free)
        add_table(anatomy, hu, y)
        depth = np.clip((y + anatomy.half_depth) / (2 * anatomy.half_depth), 0, 1) * np.ones_like(x)
        depth = (1 - depth if anatomy.prone else depth).astype(np.float32)
        return Body(grid, anatomy, hu, lobes, _fissures(anatomy, lobes, grid, rng), hilum, depth)

    def _placed(self, grid: Grid, rng: np.random.Generator) -> Labels:
        """The donor's codes at every voxel, by nearest neighbours."""
        z, y, x = (grid.axis(k) + np.float32(self.bend_mm / 2) * grid.noise(rng, self.bend_over_mm) for k in range(3))
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = (z + _RECESS_MM, cos * y - sin * x, sin * y + cos * x)
        start = (0.0, self.donor.extent_mm[1] / 2, self.donor.extent_mm[2] / 2)
        index = [
            place / scale / mm + at / mm - 0.5
            for place, scale, mm, at in zip(turned, self.stretch.tolist(), self.donor.spacing_mm, start, strict=True)
        ]
        placed = ndimage.map_coordinates(self.donor.lobes, index, order=0, mode="constant", cval=0)
        return np.asarray(placed, dtype=np.uint8)


def _trunk(a: Anatomy, grid: Grid, lobes: Labels, rng: np.random.Generator) -> Field:
    """HU of skin, fat, muscle and ribs around the lungs' hull, and of what lies between the lungs and below them."""
    lungs = lobes > 0
    pixel = grid.spacing_mm[1:]
    whole = _hull(np.asarray(lungs.any(axis=0)))
    away = ndimage.distance_transform_edt(~whole, sampling=pixel).astype(np.float32)
    plane = np.full(whole.shape, -1000, np.float32)
    plane[away < a.wall + a.fat] = -95
    plane[away < a.wall] = 48
    hu = np.repeat(plane[None], grid.shape[0], axis=0)
    inside = _thorax(lungs)
    texture = grid.noise(rng, 22.0)
    hu[inside] = (45 + 5 * texture)[inside]
    hu[inside & (texture > rng.uniform(1.0, 2.0))] = -90  # fat between the organs
    around = np.stack([ndimage.distance_transform_edt(~hull, sampling=pixel) if hull.any() else away for hull in inside])
    phase = np.mod(grid.axis(0) - 0.55 * grid.axis(1) + 400, a.rib_pitch)
    rib = (around > 0.12 * a.wall) & (around < 0.6 * a.wall) & (phase < 0.4 * a.rib_pitch) & (np.abs(grid.axis(2)) > 14)
    hu[rib & (hu > -60)] = 380
    return hu


def _thorax(lungs: Mask) -> Mask:
    """What the ribs enclose: the hull of each slice's lungs; below the widest slice it narrows no more."""
    areas = lungs.sum(axis=(1, 2))
    widest = int(areas.argmax())
    grown, out = np.zeros(lungs.shape[1:], bool), np.zeros_like(lungs)
    for k in range(widest, -1, -1):
        grown |= lungs[k]
        out[k] = _hull(grown) if areas[k] else out[k + 1]
    for k in range(widest + 1, len(lungs)):
        out[k] = _hull(lungs[k])
    return out


def _hull(mask: Mask) -> Mask:
    """The convex hull of a plane's pixels."""
    outline = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    if len(outline) < 3 or (np.ptp(outline, axis=0) == 0).any():
        return mask.copy()
    corners = outline[ConvexHull(outline, qhull_options="QJ").vertices]
    canvas = Image.new("1", mask.shape[::-1])
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for y, x in corners], fill=1, outline=1)
    return np.asarray(canvas, dtype=bool)


def _middle(lobes: Labels, grid: Grid) -> Field:
    """Halfway between the lungs in each slice: x in mm, (Z, 1, 1); slices without both take their neighbours'."""
    left = (lobes == Lobe.LEFT_UPPER) | (lobes == Lobe.LEFT_LOWER)
    inner = []
    for side, pick in (((lobes > 0) & ~left, -1), (left, 0)):
        columns = [np.flatnonzero(plane.any(axis=0)) for plane in side]
        inner.append([float(c[pick]) if len(c) else np.nan for c in columns])
    halfway = np.asarray(inner).mean(axis=0)
    known = np.flatnonzero(np.isfinite(halfway))
    filled = np.interp(np.arange(len(halfway)), known, halfway[known]) if len(known) else np.full(len(halfway), grid.shape[2] / 2)
    smooth = ndimage.gaussian_filter1d(filled, 4.0, mode="nearest")
    return np.asarray(grid.start_mm[2] + grid.spacing_mm[2] * smooth, dtype=np.float32).reshape(-1, 1, 1)


def _back(lobes: Labels, grid: Grid) -> float:
    """The lungs' hindmost row: y in mm."""
    rows = np.flatnonzero((lobes > 0).any(axis=(0, 2)))
    return float(grid.start_mm[1] + grid.spacing_mm[1] * rows[-1])


def _hilum(lobes: Labels, grid: Grid, side: str, a: Anatomy) -> NDArray[np.float64]:
    """(z, y, x) mm where the vessels of a lung enter: its innermost voxel about half-way up, near the middle of its depth."""
    of_side = np.isin(lobes, [lobe for lobe in Lobe if lobe.is_left is (side == "left")])
    height = 0.47 * a.lung_height
    k = int(np.clip(round(float(grid.index(np.array([height, 0.0, 0.0]))[0])), 0, grid.shape[0] - 1))
    y = grid.axis(1).reshape(-1)
    rows = np.flatnonzero((np.abs(y - 8) < 18) & of_side[k].any(axis=1))
    if not len(rows):
        return np.array([height, 12.0, SIDES[side] * (a.mediastinum + 10)])
    columns = [np.flatnonzero(of_side[k, row]) for row in rows]
    inner = [c[0] if side == "left" else c[-1] for c in columns]
    best = int(np.argmin(inner) if side == "left" else np.argmax(inner))
    return np.array([height, float(y[rows[best]]), grid.start_mm[2] + grid.spacing_mm[2] * float(inner[best])])


def _airways(a: Anatomy, grid: Grid, middle: Field, hilum: dict[str, NDArray[np.float64]], hu: Field, free: Mask) -> None:
    """Trachea and main bronchi with their walls, in what is no lung."""
    z, y, x = grid.axis(0), grid.axis(1), grid.axis(2)
    carina = 0.60 * a.lung_height
    tube = ((x - middle) / 8.5) ** 2 + ((y - 6) / 8.5) ** 2
    bores = [np.where(z > carina, tube, np.inf)]
    k = int(np.clip(round(float(grid.index(np.array([carina, 0.0, 0.0]))[0])), 0, grid.shape[0] - 1))
    begin = (carina, 6.0, float(middle[k, 0, 0]))
    for place in hilum.values():
        way = [e - b for e, b in zip(place.tolist(), begin, strict=True)]
        off = (z - begin[0], y - begin[1], x - begin[2])
        along = np.clip(sum(o * w for o, w in zip(off, way, strict=True)) / max(sum(w * w for w in way), 1.0), 0, 1)
        bores.append(np.asarray(sum((o - along * w) ** 2 for o, w in zip(off, way, strict=True))) / 36)
    for bore in bores:
        hu[(bore < 1.6) & free] = 30
    for bore in bores:
        hu[(bore < 1) & free] = -985


def _fissures(a: Anatomy, lobes: Labels, grid: Grid, rng: np.random.Generator) -> Field:
    """Share of each voxel's neighbourhood that is fissure: where lobes of one lung meet, with gaps as the anatomy has them.

    It lies on the lower, front or right one of two voxels that meet, half a voxel from the masks' boundary, which is no finer.
    """
    patchy = grid.noise(rng, 35.0)
    gaps = {"left": a.completeness["left"], "right": a.completeness["right"], "horizontal": a.completeness["horizontal"]}
    met = np.zeros(lobes.shape, bool)
    for axis in range(3):
        near, far = (np.moveaxis(lobes, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        differ = (near != far) & (near > 0) & (far > 0) & ((near <= Lobe.LEFT_LOWER) == (far <= Lobe.LEFT_LOWER))
        horizontal = (near + far) == Lobe.RIGHT_UPPER + Lobe.RIGHT_MIDDLE
        left = near <= Lobe.LEFT_LOWER
        whole = np.select([left, horizontal], [gaps["left"], gaps["horizontal"]], gaps["right"])
        seen = differ & (np.moveaxis(patchy, axis, 0)[:-1] < 3.2 * (whole - 0.5))
        np.moveaxis(met, axis, 0)[:-1] |= seen
    if not met.any():
        return np.zeros(lobes.shape, np.float32)
    distance = ndimage.distance_transform_edt(~met, sampling=grid.spacing_mm) + 0.25 * grid.spacing_mm[1]
    seen_at_best = rng.uniform(*_VISIBLE)
    return np.asarray(np.where(lobes > 0, seen_at_best * np.exp(-0.5 * (distance / _FISSURE_MM) ** 2), 0), dtype=np.float32)
