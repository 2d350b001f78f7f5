"""What is read off the maps of other tasks: no head, no loss, but figures and columns like any task's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective
from m2net.objectives.segmentation import SegmentationObjective


class Reading(Objective):
    """An objective that reads other tasks' dense outputs instead of a head of its own; it has no loss."""

    classes = 0
    primary = ""

    @property
    def answers(self) -> list[str]:
        """None of its own."""
        return []

    reads: tuple[str, ...]
    """Tasks whose outputs are read."""

    called: dict[str, Callable[[Tensor], Tensor]]
    """By task read, how classes are called from its logits."""

    def accept(self, objectives: Mapping[str, Objective]) -> None:
        """Look at the objectives of the tasks read.

        Raises:
            ConfigError: a task is missing, or its map does not tell what is wanted.
        """
        missing = [name for name in self.reads if name not in objectives]
        if missing:
            raise ConfigError(f"the task {self.task} reads {', '.join(missing)}", expected=f"tasks among {', '.join(objectives)}")

    def read(self, outputs: Mapping[str, Output], batch: BagBatch) -> Output:
        """What the maps say of each bag, (B, K)."""
        raise TypeError(f"{type(self).__name__} does not define read()")


def need_map(objectives: Mapping[str, Objective], task: str, *masks: str) -> Callable[[Tensor], Tensor]:
    """How a task calls its classes from logits; ConfigError unless it draws one of these masks."""
    objective = objectives[task]
    if not isinstance(objective, SegmentationObjective) or objective.target not in masks:
        wanted = " or ".join(masks)
        raise ConfigError(f"the task {task} draws no {wanted}", expected=f"a segmentation task with mask: {wanted}")
    return objective.called


def own_pixels(batch: BagBatch, bag: int, shape: torch.Size) -> Tensor:
    """Pixels (N, H, W) that a bag's instances stand for."""
    members = batch.bag_index == bag
    owned = batch.owned if batch.owned is not None else torch.ones((batch.num_instances, *shape), dtype=torch.bool)
    return owned.to(batch.bag_index.device)[members]
