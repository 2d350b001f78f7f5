"""A trained model on one new study."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m2net.assessment.applied import AppliedModel
from m2net.assessment.findings import Findings, findings_of
from m2net.assessment.gas import without_gas
from m2net.assessment.islands import without_islands
from m2net.assessment.measures import LobeMeasures, measure_lobes
from m2net.assessment.stitching import stitch_labels
from m2net.bags import Prepared, to_source_grid
from m2net.batch import BagBatch, Output, telling_weights
from m2net.machine import fast_bfloat16
from m2net.objectives import Objective, SegmentationObjective
from m2net.studies import Volume
from m2net.studies.quality import LUNG_ML
from m2net.vocabulary import Column, Intensity, LungCode, Modality

_TOP_PATCHES = 6
_LEAST_LUNG = 0.02  # of the picture, each lung of a radiograph


@dataclass(frozen=True)
class Patch:
    """An instance that weighed in the answer of the first task that tells its instances apart.

    Attributes:
        weight: its share, 0 to 1: of the attention, or (``hierarchical``) of the pull towards a higher grade.
        slice_index: slice of the LPS volume, from the lowest.
        box: (row0, row1, column0, column1) in pixels of the prepared study.
        pixels: (H, W) int16 as stored.
    """

    weight: float
    slice_index: int
    box: tuple[int, int, int, int]
    pixels: NDArray[np.int16]


@dataclass
class Assessment:
    """Everything m2net says about one study.

    Attributes:
        volume: the study as read.
        maps: (Z, Y, X) uint8 codes on the study's LPS grid by mask (lobes, lungs, infection), as far as the model draws them.
        lobe_measures: per lobe, in the order of the codes.
        findings: severity, detection, shares and scores.
        patches: those that weighed most, heaviest first.
        instances: how many patches were read.
        warnings: what a reader must know, one sentence each.
        model: facts of the model (hash, version, training data, input).
    """

    volume: Volume
    maps: dict[str, NDArray[np.uint8]]
    lobe_measures: list[LobeMeasures]
    findings: Findings
    patches: list[Patch]
    instances: int
    warnings: list[str]
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def lobes(self) -> NDArray[np.uint8] | None:
        """Lobe codes, None without a lobe task."""
        return self.maps.get(Column.LOBES)


class Assessor:
    """Applies one checkpoint to studies."""

    def __init__(self, checkpoint: Path, device: str | None = None, precision: str = "auto", islands: bool = False) -> None:
        """Load the model.

        Args:
            checkpoint: file written by m2net fit.
            device: torch device; the accelerator if there is one.
            precision: bfloat16, float32, or auto (bfloat16 where the hardware multiplies it).
            islands: whether the maps of a CT keep what is drawn apart from the lungs, and in gas that is no lung's. What is read off the
                network's own answers (severity, shares) sees them either way.

        Raises:
            CheckpointError: not one of m2net's.
            ConfigError: no task of it says anything of a study.
        """
        self.precision, self.islands = precision, islands
        self.model = AppliedModel(checkpoint, device)

    def assess(self, volume: Volume) -> Assessment:
        """Cut the study as the model was trained, run it, put the answer back on the study's grid.

        Raises:
            StudyError: no lung found.
            ConfigError: the model reads another modality or intensity.
        """
        prepared = self.model.prepare(volume)
        batch, given = self.model.bag(prepared)
        outputs = self._run(given)
        maps = self._maps(outputs, batch, prepared)
        maps, left_out = (maps, list[str]()) if self.islands or volume.modality is not Modality.CT else _cleaned(maps, volume)
        measures = measure_lobes(maps[Column.LOBES], volume) if Column.LOBES in maps else []
        return Assessment(
            volume=volume,
            maps=maps,
            lobe_measures=measures,
            findings=findings_of(self._objectives(), outputs),
            patches=_heaviest(outputs, batch),
            instances=batch.num_instances,
            warnings=[*prepared.warnings, *self.model.doubts(), *_doubts(volume, measures, maps), *left_out],
            model=self.model.facts,
        )

    def _run(self, batch: BagBatch) -> dict[str, Output]:
        quick = self.precision == "bfloat16" or (self.precision == "auto" and (self.model.device.type == "cuda" or fast_bfloat16()))
        with torch.no_grad(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=quick):
            outputs = self.model.module.answers(batch)
        return outputs

    def _objectives(self) -> dict[str, Objective]:
        return dict(self.model.module.objectives.items())  # type: ignore[arg-type]

    def _maps(self, outputs: dict[str, Output], batch: BagBatch, prepared: Prepared) -> dict[str, NDArray[np.uint8]]:
        shape = prepared.image.shape
        maps = {}
        for task, objective in self._objectives().items():
            if isinstance(objective, SegmentationObjective):
                labels = stitch_labels(objective.called(outputs[task].logits), batch, (shape[0], shape[1], shape[2]))
                maps[objective.target] = to_source_grid(objective.as_codes(labels), prepared)
        return maps


def _doubts(volume: Volume, measures: list[LobeMeasures], maps: dict[str, NDArray[np.uint8]]) -> list[str]:
    doubts = []
    if volume.modality is Modality.CXR:
        doubts += _lung_doubts(maps.get(Column.LUNGS))
    if measures and volume.geometry is not None:
        total = sum(m.volume_ml or 0.0 for m in measures)
        if not LUNG_ML[0] <= total <= LUNG_ML[1]:
            doubts.append(f"The lobes sum to {total:.0f} ml, outside {LUNG_ML[0]:.0f} to {LUNG_ML[1]:.0f} ml.")
        doubts += [f"No {m.lobe.title.lower()} lobe was found." for m in measures if m.voxels == 0]
    if volume.intensity is Intensity.RELATIVE:
        doubts.append("No HU and no millimetres are known: no densities and no volumes are given.")
    return doubts


def _cleaned(maps: dict[str, NDArray[np.uint8]], volume: Volume) -> tuple[dict[str, NDArray[np.uint8]], list[str]]:
    """The maps without what lies in gas that is no lung's or apart from the lungs, and a sentence of each that is more than a speck."""
    maps, in_gas = without_gas(maps, volume)
    maps, apart = without_islands(maps)
    voxel = 0.0 if volume.geometry is None else volume.geometry.voxel_ml
    counts = {"lung in airways or bowel": in_gas} | {f"{what} apart from the lungs": voxels for what, voxels in apart.items()}
    return maps, [f"{n * voxel:.0f} ml drawn as {what} were left out of the maps." for what, n in counts.items() if n * voxel >= 1]


def _lung_doubts(lungs: NDArray[np.uint8] | None) -> list[str]:
    """A radiograph's lungs that are too small, or one of which is missing."""
    if lungs is None:
        return []
    share = {side: float((lungs == side).mean()) for side in (LungCode.RIGHT, LungCode.LEFT)}
    missing = [side.name.lower() for side, value in share.items() if value < _LEAST_LUNG]
    return [f"No {' and no '.join(missing)} lung was found: shares of the lungs mean little."] if missing else []


def _heaviest(outputs: dict[str, Output], batch: BagBatch) -> list[Patch]:
    weights = telling_weights(outputs)
    if weights is None:
        return []
    middle = batch.instances.shape[1] // 2
    chosen: list[Patch] = []
    for index in torch.argsort(weights.cpu(), descending=True).tolist():
        z, row, column = batch.corner[index].tolist()
        size = batch.instances.shape[2]
        near = any(abs(p.slice_index - z) <= 2 and abs(p.box[0] - row) < size // 2 and abs(p.box[2] - column) < size // 2 for p in chosen)
        if not near:  # neighbours show the same thing
            pixels = batch.instances[index, middle].numpy().astype(np.int16)
            side = int(batch.side[index])
            chosen.append(Patch(float(weights[index]), z, (row, row + side, column, column + side), pixels))
        if len(chosen) == _TOP_PATCHES:
            break
    return chosen
