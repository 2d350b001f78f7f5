"""Pictures of real slices with painted infection, their masks and a manifest."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from m2net.errors import ConfigError, StudyError
from m2net.files import folder_whole
from m2net.machine import processes
from m2net.phantoms.backgrounds import backgrounds
from m2net.phantoms.disease import checked_mix
from m2net.phantoms.files import new_manifest
from m2net.phantoms.painting import PAINTING_VERSION, paint, shows_infection
from m2net.phantoms.pictures import draw_window, write_picture
from m2net.studies import Manifest, Study, write_manifest
from m2net.vocabulary import PAINTED, Column, Diagnosis, Modality

_LEAST_MM2 = 60.0


@dataclass(frozen=True)
class PaintingPlan:
    """What to paint.

    Attributes:
        seed: with the studies it fixes every pixel.
        slices: of a volume, evenly over its lungs.
        times: paintings of each slice.
        matrix: longest side of a painting, pixels.
        mix: chances of the diagnoses, in their order; equal if None.
    """

    seed: int
    slices: int = 32
    times: int = 20
    matrix: int = 256
    mix: tuple[float, ...] | None = None

    def check(self) -> None:
        """Raise ConfigError for what cannot be painted."""
        if min(self.slices, self.times) < 1 or self.seed < 0 or not 64 <= self.matrix <= 1024:
            raise ConfigError(
                f"{self.slices} slices painted {self.times} times at {self.matrix} pixels with seed {self.seed}",
                expected="at least 1 of each, 64 to 1024 pixels and a seed from 0",
            )
        checked_mix(self.mix)


def paintable(manifest: Manifest) -> list[Study]:
    """The manifest's CT studies, all known to be free of infection.

    Raises:
        ConfigError: one may be infected, or is no CT: what lies in it already would be called healthy.
    """
    for study in manifest:
        if study.modality is not Modality.CT or study.infected is not False:
            found = "is no CT" if study.modality is not Modality.CT else "is not said to be free of infection"
            raise ConfigError(
                f"{manifest.path}: study {study.study_id} {found}", expected="CT with 0 in the column infected",
                remedy="Leave the row out, or write 0 where you know it: what lies in the lungs already will count as not infected",
            )  # fmt: skip
    return list(manifest)


def write_paintings(studies: list[Study], plan: PaintingPlan, out: Path, workers: int = 1) -> Iterator[int]:
    """Write the paintings and yield the number of studies done; ``manifest.csv`` comes last.

    Args:
        studies: see ``paintable``.
        plan: what to paint.
        out: folder; must not hold a manifest yet.
        workers: processes.

    Raises:
        ConfigError: the plan cannot be carried out, or ``out`` already holds a manifest.
        StudyError: a study cannot be read, or shows no lungs.
    """
    plan.check()
    manifest = new_manifest(out)
    rows: list[dict[str, str]] = []
    with processes(workers) as pool:
        folders = [f"study_{number:05d}" for number in range(1, len(studies) + 1)]  # a study_id is free text, and no name for a folder
        for done, made in enumerate(pool.map(partial(_paint_study, plan=plan, out=out), studies, folders), start=1):
            rows += made
            yield done
    write_manifest(manifest, list(rows[0]), rows)


def _paint_study(study: Study, folder: str, plan: PaintingPlan, out: Path) -> list[dict[str, str]]:
    """All paintings of one study, in a folder that appears whole.

    Raises:
        StudyError: unreadable, or no lung found; the message names the study.
    """
    try:
        with folder_whole(out / folder, replacing=True) as temporary:
            return _painted_rows(study, folder, plan, temporary)
    except StudyError as error:
        found = str(error).rstrip(".")
        raise StudyError(f"study {study.study_id} ({study.image}): {found}", remedy="Mend the row, or leave it out") from error


def _painted_rows(study: Study, folder: str, plan: PaintingPlan, temporary: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng([int(PAINTING_VERSION), plan.seed, zlib.crc32(study.study_id.encode())])
    rows = []
    for z, background, lobes_known in backgrounds(study, plan.slices, plan.matrix, rng):
        for k in range(plan.times):
            name = f"{z + 1:03d}_{k + 1:02d}"
            diagnosis = list(Diagnosis)[int(rng.choice(len(Diagnosis), p=checked_mix(plan.mix)))]
            hu, infection = paint(background, diagnosis, rng)
            lungs = np.where(background.lobes == 0, 0, np.where(background.lobes <= 2, 2, 1)).astype(np.uint8)
            masks = {Column.LUNGS: lungs, Column.INFECTION: infection, **({Column.LOBES: background.lobes} if lobes_known else {})}
            files = write_picture(temporary, name, hu, masks, draw_window(rng))
            sick = shows_infection(infection, _LEAST_MM2, background.pixel_mm)
            rows.append(
                {
                    str(Column.STUDY_ID): f"{study.study_id}-{name}",
                    str(Column.PATIENT_ID): study.patient_id,
                    str(Column.MODALITY): str(Modality.CT),
                    **{str(column): f"{folder}/{files[column]}" if column in files else "" for column in _FILES},
                    str(Column.DIAGNOSIS): str(diagnosis if sick else Diagnosis.NON_PNEUMONIA),
                    str(Column.INFECTED): str(int(sick)),
                    str(Column.SITE): PAINTED,
                    str(Column.SPLIT): str(study.split or ""),
                    str(Column.FOLD): "" if study.fold is None else str(study.fold),
                    "phantom_version": f"{PAINTED} {PAINTING_VERSION}",
                }
            )
    return rows


_FILES = (Column.IMAGE, Column.LOBES, Column.LUNGS, Column.INFECTION)
