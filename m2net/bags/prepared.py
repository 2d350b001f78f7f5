"""One study as the network wants it: resampled in-plane, lungs found, memory-mapped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2net.errors import ConfigError, StoreError, StudyError
from m2net.files import folder_whole
from m2net.studies import Box, ReadOptions, Study, Volume, find_thorax, read_image, read_mask
from m2net.studies.masks import Mask
from m2net.studies.quality import judge_read
from m2net.studies.verdict import Verdict
from m2net.vocabulary import Column, Intensity, Modality

STORE_VERSION = 8
RADIOGRAPH_SIDE = 512  # longest side of a stored radiograph, pixels; smaller ones keep theirs
_AIR = {Intensity.HU: -1024, Intensity.RELATIVE: 0}


@dataclass(frozen=True)
class Prepared:
    """A study in the store.

    Attributes:
        image: (Z, Y, X) int16, LPS axes, HU or relative intensity.
        masks: (Z, Y, X) uint8 by name; ``found_lungs`` is always there, lobes, lungs and infection where known.
        spacing_mm: (z, y, x), None for a picture.
        source_shape: (Z, Y, X) of the study's LPS volume before resampling.
        step: store pixel size in pixels of the source, along y and x.
        lung_box: box of the lungs, store voxels.
        body_box: box of the body over the lungs' slices, store voxels.
        intensity: meaning of the values.
        notes: what the reader and the finder remarked.
        verdict: what ``m2net verify`` says of the study.
        modality: CT or radiograph.
    """

    image: NDArray[np.int16]
    masks: dict[str, NDArray[np.uint8]]
    spacing_mm: tuple[float, float, float] | None
    source_shape: tuple[int, int, int]
    step: tuple[float, float]
    lung_box: Box
    body_box: Box
    intensity: Intensity
    notes: tuple[str, ...]
    verdict: Verdict = field(default_factory=lambda: Verdict(""))
    modality: Modality = Modality.CT

    @property
    def warnings(self) -> list[str]:
        """What a reader of results must know of the study: the notes, and what ``m2net verify`` finds beyond them."""
        found = [f"{f.reason[0].upper()}{f.reason[1:]}. {f.remedy}." for f in self.verdict.findings if f.reason not in self.notes]
        return [*self.notes, *found]

    @property
    def source_mm(self) -> tuple[float, float]:
        """Slice spacing and pixel size of the study as it came, mm; NaN for a picture."""
        if self.spacing_mm is None:
            return float("nan"), float("nan")
        return float(self.spacing_mm[0]), float(self.spacing_mm[1]) / self.step[0]

    @property
    def air(self) -> int:
        """Value outside the image."""
        return _AIR[self.intensity]


def prepare_volume(volume: Volume, masks: dict[str, NDArray[np.uint8]], spacing_mm: float) -> Prepared:
    """Resample in-plane, find body and lungs.

    Args:
        volume: LPS volume.
        masks: on its grid, by name.
        spacing_mm: wanted in-plane pixel size; slices keep their places. Pictures keep their pixels, radiographs up to
            RADIOGRAPH_SIDE.

    Raises:
        StudyError: no lung found.
    """
    shape, factors, own = _store_grid(volume, spacing_mm)
    image, new_masks = volume.array, masks
    if factors != (1.0, 1.0) or shape != volume.array.shape[1:]:
        image = _resample(volume.array, shape, factors)
        new_masks = {name: _pick(mask, shape, factors) for name, mask in masks.items()}
    resampled = Volume(image, volume.geometry, volume.intensity, volume.modality)
    thorax = find_thorax(resampled, own)
    notes = volume.notes if thorax.found else (*volume.notes, "No lungs were found in the picture; all of it is taken.")
    return Prepared(
        image, {**new_masks, "found_lungs": thorax.lungs}, own, volume.array.shape, factors,  # type: ignore[arg-type]
        thorax.lung_box, thorax.body_box, volume.intensity, notes, modality=volume.modality,
    )  # fmt: skip


def _store_grid(volume: Volume, spacing_mm: float) -> tuple[tuple[int, ...], tuple[float, float], tuple[float, float, float] | None]:
    """Rows and columns in the store, the size of its pixels in those of the study, and its spacing in mm.

    Raises:
        ConfigError: millimetres are known and the spacing asked for is none.
    """
    have = volume.array.shape[1:]
    if volume.geometry is not None:
        if not spacing_mm > 0:
            raise ConfigError(f"a spacing of {spacing_mm} mm for a volume", expected="more than 0; pictures, of no known size, ignore it")
        mm = volume.geometry.spacing_mm
        shape = tuple(max(1, int(n * step / spacing_mm)) for n, step in zip(have, mm[1:], strict=True))
        return shape, (spacing_mm / mm[1], spacing_mm / mm[2]), (mm[0], spacing_mm, spacing_mm)
    if volume.modality is Modality.CXR and max(have) > RADIOGRAPH_SIDE:
        rows, columns = (max(1, round(n * RADIOGRAPH_SIDE / max(have))) for n in have)
        return (rows, columns), (have[0] / rows, have[1] / columns), None
    return have, (1.0, 1.0), None


def _resample(array: NDArray[np.int16], shape: tuple[int, ...], factors: tuple[float, float]) -> NDArray[np.int16]:
    """Plane by plane with a triangle filter as wide as the step, so that reduction does not alias."""
    box = (0.0, 0.0, min(shape[1] * factors[1], array.shape[2]), min(shape[0] * factors[0], array.shape[1]))
    size = (shape[1], shape[0])
    out = np.empty((len(array), *shape), np.int16)
    for z, plane in enumerate(array):
        picture = Image.fromarray(plane.astype(np.float32))
        out[z] = np.rint(np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box)))
    return out


def _pick(mask: NDArray[np.uint8], shape: tuple[int, ...], factors: tuple[float, float]) -> NDArray[np.uint8]:
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * f).astype(int), size - 1) for n, f, size in zip(shape, factors, mask.shape[1:], strict=True)
    )
    return mask[:, rows[:, None], columns[None, :]]


V = TypeVar("V", bound=np.generic)


def to_source_grid(labels: NDArray[V], prepared: Prepared) -> NDArray[V]:
    """Labels or values (Z, Y, X) in store voxels on the study's LPS grid, nearest neighbours."""
    _, rows, columns = prepared.source_shape
    y, x = (
        np.minimum(((np.arange(size) + 0.5) / step).astype(int), have - 1)
        for size, step, have in zip((rows, columns), prepared.step, labels.shape[1:], strict=True)
    )
    return labels[:, y[:, None], x[None, :]]


def prepare_judged(volume: Volume, masks: dict[Column, Mask], spacing_mm: float, study_id: str = "") -> Prepared:
    """Prepare what was read, and judge it as ``m2net verify`` does.

    Raises:
        StudyError: no lung found.
    """
    verdict = Verdict(study_id)
    judge_read(volume, masks, verdict)
    remarks = volume.remarks + tuple(remark for mask in masks.values() for remark in mask.remarks)
    prepared = prepare_volume(replace(volume, remarks=remarks), {str(kind): mask.array for kind, mask in masks.items()}, spacing_mm)
    return replace(prepared, verdict=verdict)


def prepare_study(study: Study, spacing_mm: float, *, repair: bool = False) -> Prepared:
    """Read a study's files and prepare them; ``repair`` resamples irregular series instead of refusing them.

    Raises:
        StudyError: unreadable, or no lung found; the message names the study.
    """
    try:
        volume = read_image(study.image, ReadOptions(series=study.series, repair=repair), study.modality)
        masks = {kind: read_mask(path, kind, volume, study.mask_schemes.get(kind, "")) for kind, path in study.masks.items()}
        return prepare_judged(volume, masks, spacing_mm, study.study_id)
    except StudyError as error:
        message = str(error).rstrip(".")
        raise StudyError(f"study {study.study_id} ({study.image}): {message}") from error


def save(prepared: Prepared, folder: Path) -> None:
    """Write atomically: the folder appears whole or not at all."""
    with folder_whole(folder) as temporary:
        _write(prepared, temporary)


def _write(prepared: Prepared, folder: Path) -> None:
    np.save(folder / "image.npy", prepared.image)
    for name, mask in prepared.masks.items():
        np.save(folder / f"{name}.npy", mask)
    facts: dict[str, Any] = {
        "store_version": STORE_VERSION,
        "masks": sorted(prepared.masks),
        "spacing_mm": prepared.spacing_mm,
        "source_shape": [int(n) for n in prepared.source_shape],
        "step": list(prepared.step),
        "lung_box": asdict(prepared.lung_box),
        "body_box": asdict(prepared.body_box),
        "intensity": str(prepared.intensity),
        "modality": str(prepared.modality),
        "notes": list(prepared.notes),
        "verdict": prepared.verdict.plain(),
    }
    (folder / "study.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def load_verdict(folder: Path) -> Verdict:
    """What was judged of a prepared study.

    Raises:
        StoreError: not there, or damaged.
    """
    try:
        return Verdict.of(json.loads((folder / "study.json").read_text(encoding="utf-8"))["verdict"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the prepared study {folder} is damaged ({error})", remedy="Remove that folder and prepare again") from error


def load(folder: Path) -> Prepared:
    """Open a prepared study without reading its voxels.

    Raises:
        StoreError: not there, or damaged.
    """
    try:
        facts = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        spacing = tuple(facts["spacing_mm"]) if facts["spacing_mm"] else None
        return Prepared(
            image=np.load(folder / "image.npy", mmap_mode="r"),
            masks={name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in facts["masks"]},
            spacing_mm=spacing,  # type: ignore[arg-type]
            source_shape=tuple(facts["source_shape"]),
            step=tuple(facts["step"]),
            lung_box=Box(**facts["lung_box"]),
            body_box=Box(**facts["body_box"]),
            intensity=Intensity(facts["intensity"]),
            notes=tuple(facts["notes"]),
            verdict=Verdict.of(facts["verdict"]),
            modality=Modality(facts.get("modality", Modality.CT)),  # stores made before radiographs were prepared say nothing
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the prepared study {folder} is damaged ({error})", remedy="Remove that folder and prepare again") from error
