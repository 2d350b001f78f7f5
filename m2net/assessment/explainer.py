"""A trained model's diagnosis of one study, with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from m2net.assessment.applied import AppliedModel
from m2net.assessment.boxes import InfectionBox, find_boxes
from m2net.assessment.saliency import SALIENCY, DepthScores
from m2net.assessment.stitching import stitch_values
from m2net.bags import Prepared, View, to_source_grid
from m2net.bags.hull import lungs_hull
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.networks import ScoreMapHead
from m2net.objectives import DiagnosisObjective
from m2net.studies import Volume
from m2net.vocabulary import Diagnosis, Intensity

DEFAULT_METHOD = "score_maps"
DEFAULT_THRESHOLDS = {
    Intensity.HU: {"score_maps": 0.3, "joint": 0.15, "grad_cam": 0.02, "grad_cam_depths": 0.25},
    Intensity.RELATIVE: {"score_maps": 0.6, "joint": 0.35, "grad_cam": 0.45, "grad_cam_depths": 0.5},
}
"""The best on synthetic patients, and the threshold of each on these and on their pictures, chosen on validation
(experiments/weakly_supervised/README.md)."""

_BEYOND = "Saliency is stronger beyond the lungs that were found, where it is not shown, than in them: the answer may rest on no disease."
_RIM_MM = 6.0  # consolidated lung at the pleura is easily missed by the finder
_PICTURE_MM = 400.0  # taken for the longer side of a picture, whose millimetres are not known, when the rim is laid
_LEAST_SHARE = 0.002  # of a slice's lungs square; smaller components are no box


@dataclass(frozen=True)
class SliceFinding:
    """What a slice says by itself: its index in the LPS volume, its weight in the study, and the probability of each group."""

    slice_index: int
    weight: float
    probabilities: dict[str, float]


@dataclass
class Explanation:
    """A diagnosis and its grounds.

    Attributes:
        volume: the study as read.
        probabilities: of each group of classes.
        calibrated: whether they were calibrated on validation patients; what was fitted there is applied to the slices, too.
        predicted: name of the most probable group; its most probable class is the one explained.
        explained: that class.
        infected: whether the predicted group excludes non-pneumonia.
        saliency: (Z, Y, X) float32 in [0, 1] on the study's LPS grid.
        boxes: around the infection, highest score first; none where no pneumonia is predicted.
        slices: every slice read, from the lowest.
        warnings: what a reader must know, one sentence each.
        method: name of the saliency.
        threshold: saliency from which a pixel is in a box.
        model: facts of the model.
    """

    volume: Volume
    probabilities: dict[str, float]
    calibrated: bool
    predicted: str
    explained: str
    infected: bool
    saliency: NDArray[np.float32]
    boxes: list[InfectionBox]
    slices: list[SliceFinding]
    warnings: list[str]
    method: str
    threshold: float
    model: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """As Explanation, on the grid of the prepared study; ``side`` is that of the lungs' square in its pixels.

    ``beyond`` is, by method, the mean saliency of what was looked at farther from the lungs than it is shown, over the mean of what is
    shown; 0 where nothing lies beyond.
    """

    probabilities: dict[str, float]
    predicted: str
    explained: str
    infected: bool
    slices: list[SliceFinding]
    saliency: dict[str, NDArray[np.float32]]
    side: int
    beyond: dict[str, float] = field(default_factory=dict)


class Explainer:
    """Applies one checkpoint with score maps to studies."""

    def __init__(self, checkpoint: Path, method: str = DEFAULT_METHOD, threshold: float | None = None, device: str | None = None) -> None:
        """Load the model.

        Args:
            checkpoint: file written by m2net fit.
            method: score_maps, joint (the paper's), grad_cam or grad_cam_depths.
            threshold: saliency from which a pixel is in a box; the method's own on such images (``DEFAULT_THRESHOLDS``) by default.
            device: torch device; the accelerator if there is one.

        Raises:
            CheckpointError: not one of m2net's.
            ConfigError: no task of the model has score maps and a diagnosis, or an unknown method.
        """
        if method not in SALIENCY:
            raise ConfigError(f"the saliency {method!r} is unknown", expected=f"one of {', '.join(SALIENCY)}")
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"a threshold of {threshold}", expected="between 0 and 1")
        self.model = AppliedModel(checkpoint, device)
        self.method = method
        self.threshold = DEFAULT_THRESHOLDS[Intensity(self.model.spec.intensity)][method] if threshold is None else threshold
        self.task = self._find_task()
        if self.model.spec.view != View.SLICES:
            raise ConfigError(f"the model reads {self.model.spec.view}", expected="slices (data.input.view), so that each is judged once")
        self.model.module.requires_grad_(False)

    def _find_task(self) -> str:
        for task, head in self.model.module.network.heads.items():
            if isinstance(head, ScoreMapHead) and isinstance(self.model.module.objectives[task], DiagnosisObjective):
                return str(task)
        raise ConfigError(
            "the model has no task with a score_maps head and a diagnosis objective", expected="a weakly supervised model",
            remedy="Train one, as experiments/weakly_supervised/phantom.yaml does; infection that a model draws is judged by "
            "m2net localise --methods drawn",
        )  # fmt: skip

    @property
    def objective(self) -> DiagnosisObjective:
        """The diagnosis objective of the explained task."""
        objective = self.model.module.objectives[self.task]
        assert isinstance(objective, DiagnosisObjective)
        return objective

    @property
    def names(self) -> tuple[str, ...]:
        """Groups of its diagnosis."""
        return tuple(self.objective.names)

    def explain(self, volume: Volume) -> Explanation:
        """Diagnose a study and say where the predicted class comes from.

        Raises:
            StudyError: no lung found.
            ConfigError: the model reads another modality or intensity.
        """
        prepared = self.model.prepare(volume)
        judgement = self.judge(prepared, [self.method])
        saliency = to_source_grid(judgement.saliency[self.method], prepared)
        least = least_box(judgement.side * prepared.step[0] * judgement.side * prepared.step[1])
        return Explanation(
            volume=volume,
            probabilities=judgement.probabilities,
            calibrated=self.objective.is_calibrated,
            predicted=judgement.predicted,
            explained=judgement.explained,
            infected=judgement.infected,
            saliency=saliency,
            boxes=find_boxes(saliency, self.threshold, least) if judgement.infected else [],
            slices=judgement.slices,
            warnings=[*prepared.warnings, *self.model.doubts(), *_doubts(judgement, self.method)],
            method=self.method,
            threshold=self.threshold,
            model=self.model.facts,
        )

    def judge(self, prepared: Prepared, methods: Sequence[str], *, only_infected: bool = False) -> Judgement:
        """Diagnosis of a prepared study, and the saliency of the predicted class by each of these methods on the store's grid.

        With ``only_infected`` the saliency of a study that is called free of pneumonia is left out: it costs more than the diagnosis.

        Raises:
            ConfigError: the model reads another intensity.
            StudyError: the model keeps the manifest's lungs only, and the study has no such mask.
        """
        batch, given = self.model.bag(prepared)
        with torch.no_grad():
            output = self.model.module(given)[self.task]
        names = self.objective.names
        probability = self.objective.probabilities(output)[0].tolist()
        predicted = int(np.argmax(probability))
        explained = self._class_of(output.logits[0], predicted)
        assert output.instance_weight is not None
        assert output.instance_logits is not None
        by_slice = self.objective.grouped(output.instance_logits).tolist()
        scores = DepthScores(self.model.module.network, self.task)
        infected = str(Diagnosis.NON_PNEUMONIA) not in self.objective.groups[predicted]
        wanted = methods if infected or not only_infected else ()
        maps = {name: SALIENCY[name](scores, given.instances, explained, self.model.spec.slices) for name in wanted}
        saliency, beyond = self._shown(maps, batch, prepared) if maps else ({}, {})
        return Judgement(
            probabilities=dict(zip(names, probability, strict=True)),
            predicted=names[predicted],
            explained=str(list(Diagnosis)[explained]),
            infected=infected,
            slices=[
                SliceFinding(int(z), weight, dict(zip(names, row, strict=True)))
                for z, weight, row in zip(batch.corner[:, 0].tolist(), output.instance_weight.tolist(), by_slice, strict=True)
            ],
            saliency=saliency,
            side=int(batch.side[0]),
            beyond=beyond,
        )

    def _shown(
        self, maps: Mapping[str, Tensor], batch: BagBatch, prepared: Prepared
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """Maps (N, H, W) of the instances on the store's grid, near the lungs only, and how strong each is beyond them."""
        near = _near_lungs(prepared, hull=self.model.spec.keeps_hull or prepared.intensity is Intensity.RELATIVE)
        looked = stitch_values(torch.ones_like(next(iter(maps.values()))), batch, near.shape) > 0
        whole = {name: _stitched(found, batch, prepared) for name, found in maps.items()}
        beyond = {name: _beyond(values, near & looked, looked & ~near) for name, values in whole.items()}
        return {name: values * near for name, values in whole.items()}, beyond

    def _class_of(self, logits: Tensor, group: int) -> int:
        """The most probable class of the group."""
        inside = logits.masked_fill(~self.objective.membership[group], -torch.inf)
        return int(inside.argmax())


def _doubts(judgement: Judgement, method: str) -> list[str]:
    if judgement.infected:
        return [_BEYOND] if judgement.beyond[method] > 1 else []
    group = judgement.predicted.replace("+", " or ")
    return [f"Predicted is {group}, which may be free of pneumonia: no boxes; the saliency is that of {judgement.explained}."]


def least_box(square: float) -> int:
    """Fewest pixels of a box in a study whose lungs' square has this many pixels."""
    return max(1, round(_LEAST_SHARE * square))


def _near_lungs(prepared: Prepared, *, hull: bool) -> NDArray[np.bool_]:
    """Where saliency is shown, (Z, Y, X): an infection lies in the lungs and nowhere else, and score maps are coarse.

    The lungs that were found and a rim of six millimetres. Of a model that sees their convex hulls, and of a picture, whose dense lung is
    often missed, these hulls.
    """
    lungs = np.asarray(prepared.masks["found_lungs"]) > 0
    if hull:
        return np.stack([lungs_hull(plane) for plane in lungs])
    pixel = prepared.spacing_mm[1] if prepared.spacing_mm else _PICTURE_MM / max(lungs.shape)
    rim = max(1, round(_RIM_MM / pixel))
    return np.asarray(ndimage.binary_dilation(lungs, np.ones((1, 3, 3), bool), iterations=rim))


def _beyond(saliency: NDArray[np.float32], near: NDArray[np.bool_], far: NDArray[np.bool_]) -> float:
    if not far.any() or not near.any():
        return 0.0
    return float(saliency[far].mean() / max(float(saliency[near].mean()), 1e-12))


def _stitched(maps: Tensor, batch: BagBatch, prepared: Prepared) -> NDArray[np.float32]:
    z, y, x = prepared.image.shape
    return stitch_values(maps, batch, (z, y, x))
