"""The infection that a model draws, held up as a saliency: it is judged as those of models without masks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from m2net.assessment.applied import AppliedModel
from m2net.assessment.explainer import Judgement, SliceFinding
from m2net.assessment.stitching import stitch_values
from m2net.bags import Prepared
from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives import DetectionReading, SegmentationObjective
from m2net.objectives.readings import own_pixels
from m2net.objectives.segmentation import foreground_probability
from m2net.vocabulary import Column

DRAWN = "drawn"


class DrawnInfection:
    """Judges studies by the infection map of one checkpoint, as an Explainer does by score maps."""

    names: tuple[str, ...] = ()
    """Groups of a diagnosis: none is read."""

    def __init__(self, checkpoint: Path, device: str | None = None) -> None:
        """Load the model.

        Args:
            checkpoint: file written by m2net fit.
            device: torch device; the accelerator if there is one.

        Raises:
            CheckpointError: not one of m2net's.
            ConfigError: no task of the model draws infection.
        """
        self.model = AppliedModel(checkpoint, device)
        objectives = dict(self.model.module.named_objectives())
        drawing = [t for t, o in objectives.items() if isinstance(o, SegmentationObjective) and o.target == Column.INFECTION]
        if not drawing:
            raise ConfigError(
                "no task of the model draws infection", expected="a segmentation task with mask: infection",
                remedy="Judge its score maps instead, with other --methods",
            )  # fmt: skip
        self.task = drawing[0]
        self.detections = {t: o for t, o in objectives.items() if isinstance(o, DetectionReading)}

    def judge(self, prepared: Prepared, methods: Sequence[str], *, only_infected: bool = False) -> Judgement:
        """P(infection) of a prepared study, wherever it is drawn, and whether it is called infected.

        Called so by the model's calibrated rule of detection; where it has none, if any pixel is.

        Raises:
            ConfigError: the model reads another intensity.
        """
        batch, given = self.model.bag(prepared)
        with torch.no_grad():
            outputs = self.model.module.answers(given)
        infected = self._infected(outputs, batch)
        z, y, x = prepared.image.shape
        maps = {}
        if infected or not only_infected:
            drawn = stitch_values(foreground_probability(outputs[self.task].logits), batch, (z, y, x))
            maps = dict.fromkeys(methods, drawn)
        box = prepared.lung_box
        read = sorted(set(batch.corner[:, 0].tolist()))
        word = "infected" if infected else "free"
        return Judgement({}, word, word, infected, [SliceFinding(k, 1.0, {}) for k in read], maps, max(box.y1 - box.y0, box.x1 - box.x0))

    def _infected(self, outputs: Mapping[str, Output], batch: BagBatch) -> bool:
        for task, reading in self.detections.items():
            rule = float(reading.decide(outputs[task].logits)[1])
            if rule == rule:  # NaN where it was not calibrated
                return rule > 0.5
        objective = self.model.module.objectives[self.task]
        assert isinstance(objective, SegmentationObjective)
        called = objective.called(outputs[self.task].logits).cpu() > 0
        return bool((called & own_pixels(batch, 0, called.shape[1:])).any())
