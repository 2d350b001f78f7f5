"""Dense classes a pixel: cross-entropy + Dice, and DSC, sensitivity and PPV a study."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective, Statistic, nan_mean, nothing, number
from m2net.objectives.kept import Kept
from m2net.vocabulary import UNLABELLED, Column, InfectionCode, Lobe, LungCode

CODES: dict[str, type[IntEnum]] = {str(Column.LOBES): Lobe, str(Column.LUNGS): LungCode, str(Column.INFECTION): InfectionCode}
"""Codes of each dense target, background excluded."""


class SegmentationObjective(Objective):
    """Lobes, or any other mask, from partly labelled bags."""

    primary = "dice_mean"

    def __init__(self, mask: str = "lobes", dice: float = 1.0) -> None:
        """Choose the mask and the weight of the Dice term.

        Raises:
            ConfigError: unknown mask.
        """
        super().__init__()
        if mask not in CODES:
            raise ConfigError(f"the mask {mask!r} is unknown", expected=f"one of {', '.join(CODES)}")
        if dice < 0:
            raise ConfigError(f"a Dice weight of {dice}", expected="0 or more")
        self.target = self.task = mask
        self.codes = list(CODES[mask])
        self.classes = len(self.codes) + 1
        self.dice = dice
        self.counts = Kept(seen=(torch.float64, 3 * len(self.codes)))

    def labels(self, batch: BagBatch) -> int:
        """Bags with at least one labelled pixel."""
        target = batch.dense.get(self.target)
        if target is None:
            return 0
        labelled = (target != UNLABELLED).flatten(1).any(1)
        return len(set(batch.bag_index[labelled].tolist()))

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Cross-entropy plus ``dice`` times (1 - mean soft Dice of the classes present), over labelled pixels."""
        target = batch.dense.get(self.target)
        if target is None or not bool((target != UNLABELLED).any()):
            return nothing(output)
        log_p = F.log_softmax(output.logits.float(), dim=1)
        entropy = F.nll_loss(log_p, target, ignore_index=UNLABELLED)
        return entropy + self.dice * (1 - soft_dice(log_p.exp(), target)) if self.dice else entropy

    def update(self, output: Output, batch: BagBatch) -> None:
        """Count each labelled study's voxels; labelled voxels that no instance covers count as missed."""
        for counts in self._counts(output, batch):
            if counts is not None:
                self.counts.update(seen=counts.flatten()[None])

    def _counts(self, output: Output, batch: BagBatch) -> list[Tensor | None]:
        """Per bag (classes - 1, 3) true positives, predicted, present; None if unlabelled."""
        target = batch.dense.get(self.target)
        if target is None:
            return [None] * batch.num_bags
        predicted = output.logits.argmax(1)
        counted = []
        for bag in range(batch.num_bags):
            members = batch.bag_index == bag
            truth, said = target[members], predicted[members]
            known = truth != UNLABELLED
            truth, said = truth[known], said[known]
            present = torch.bincount(truth, minlength=256)[1 : self.classes]
            hit = torch.bincount(truth[truth == said], minlength=256)[1 : self.classes]
            claimed = torch.bincount(said, minlength=256)[1 : self.classes]
            present = present + batch.uncovered[self.target][bag, 1 : self.classes].to(present.device)
            counted.append(torch.stack([hit, claimed, present], dim=1) if len(truth) or int(present.sum()) else None)
        return counted

    def compute(self) -> dict[str, float]:
        """DSC, sensitivity and PPV per class, mean over the studies where they are defined, with their n."""
        counts = self.counts.rows()["seen"].reshape(-1, len(self.codes), 3)
        dice, sensitivity, ppv = overlap(counts)
        metrics: dict[str, float] = {}
        for k, code in enumerate(self.codes):
            name = code.name.lower()
            metrics[f"dice_{name}"] = nan_mean(dice[:, k])
            metrics[f"sensitivity_{name}"] = nan_mean(sensitivity[:, k])
            metrics[f"ppv_{name}"] = nan_mean(ppv[:, k])
            metrics[f"n_{name}"] = float((~dice[:, k].isnan()).sum())
        for name, values in (("dice_mean", dice), ("sensitivity_mean", sensitivity), ("ppv_mean", ppv)):
            metrics[name] = nan_mean(torch.tensor([nan_mean(values[:, k]) for k in range(values.shape[1])]))
        metrics["n"] = float(len(counts))
        return metrics

    def reset(self) -> None:
        """Forget the studies counted."""
        self.counts.reset()

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """Dice per class of each labelled study."""
        rows = []
        for counts in self._counts(output, batch):
            values = overlap(counts[None].double())[0][0].tolist() if counts is not None else [float("nan")] * len(self.codes)
            rows.append({f"{self.task}_dice_{code.name.lower()}": value for code, value in zip(self.codes, values, strict=True)})
        return rows

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """Mean Dice per class, and the mean of these."""
        names = [f"{self.task}_dice_{code.name.lower()}" for code in self.codes]
        table = np.array([[number(row.get(name)) for name in names] for row in rows], dtype=np.float64).reshape(-1, len(names))

        def column(k: int) -> Statistic:
            return lambda chosen: nan_mean(torch.from_numpy(table[chosen, k]))

        columns = [column(k) for k in range(len(names))]
        figures = {f"dice_{code.name.lower()}": columns[k] for k, code in enumerate(self.codes)}
        figures["dice_mean"] = lambda chosen: nan_mean(torch.tensor([c(chosen) for c in columns]))
        return figures


def overlap(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DSC, sensitivity and PPV (studies, classes) from counts; 0/0 is NaN."""
    hit, claimed, present = counts.unbind(-1)
    return 2 * hit / (claimed + present), hit / present, hit / claimed


def soft_dice(probability: Tensor, target: Tensor) -> Tensor:
    """Mean soft Dice of the foreground classes present in ``target``, over labelled pixels of the whole batch.

    Args:
        probability: (N, K, H, W), summing to 1 over K.
        target: (N, H, W) with -1 = unlabelled.
    """
    classes = probability.shape[1]
    known = target != UNLABELLED
    truth = target[known]
    of_truth = probability.gather(1, target.clamp(min=0)[:, None])[:, 0][known]
    hit = probability.new_zeros(classes).index_add(0, truth, of_truth)
    size = (probability * known[:, None]).sum((0, 2, 3)) + torch.bincount(truth, minlength=classes)
    present = torch.bincount(truth, minlength=classes)[1:] > 0
    dice = (2 * hit + 1) / (size + 1)
    return dice[1:][present].mean() if bool(present.any()) else probability.sum() * 0 + 1
