"""Dense classes a pixel: focal cross-entropy + Dice; overlap a study, and pooled over all pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective, Statistic, nan_mean, nothing, number, ratio, together
from m2net.objectives.kept import Kept
from m2net.vocabulary import UNLABELLED, Column, InfectionCode, Lobe, LungCode

CLASSES: dict[str, list[IntEnum]] = {
    str(Column.LOBES): list(Lobe),
    str(Column.LUNGS): [LungCode.RIGHT, LungCode.LEFT],
    str(Column.INFECTION): [InfectionCode.GROUND_GLASS, InfectionCode.CONSOLIDATION],
}
"""Classes of each dense target, background excluded; a mask may also hold a code that leaves open which (side or kind unknown)."""

_WHOLE = ("hit", "claimed", "present", "pixels")
_SOME_CLASS = -2  # a pixel of the foreground whose class is not known
CUTS = tuple(k / 50 for k in range(5, 36))
"""Probabilities, 0.1 to 0.7, among which the one from which a pixel is called is chosen on validation studies."""


class SegmentationObjective(Objective):
    """Lobes, lungs or infection, from partly labelled bags.

    A pixel whose side or kind is unknown is trained on the summed probability of the classes it may be, and counts in the figures of
    the foreground only.
    """

    primary = "dice_mean"

    def __init__(
        self, mask: str = "lobes", dice: float = 1.0, gamma: float = 0.0, merged: bool = False, calibrate: str = "none"
    ) -> None:  # fmt: skip
        """Choose the mask and the loss.

        Args:
            mask: lobes, lungs or infection.
            dice: weight of the Dice term.
            gamma: exponent of the focal factor (Lin et al. 2017); 0 is cross-entropy. With Dice that is the hybrid loss of Degerli et al.
            merged: one class for all of the foreground: plain infection, plain lung.
            calibrate: f1 to call merged foreground from the probability with the highest pooled F1 on validation studies; none for 0.5.

        Raises:
            ConfigError: unknown mask or impossible weight.
        """
        super().__init__()
        if mask not in CLASSES:
            raise ConfigError(f"the mask {mask!r} is unknown", expected=f"one of {', '.join(CLASSES)}")
        if merged and mask == Column.LOBES:
            raise ConfigError("merged lobes", expected="merged: false: all lobes together are the lungs", remedy="Use mask: lungs")
        if dice < 0 or gamma < 0:
            raise ConfigError(f"a Dice weight of {dice} and gamma {gamma}", expected="0 or more")
        if calibrate not in ("none", "f1") or (calibrate == "f1" and not merged):
            raise ConfigError(f"calibrate is {calibrate!r} with merged: {str(merged).lower()}", expected="none, or f1 with merged: true")
        self.target = self.task = mask
        self.by_f1 = calibrate == "f1"
        self.merged, self.dice, self.gamma = merged, dice, gamma
        self.names = [mask] if merged else [code.name.lower() for code in CLASSES[mask]]
        self.classes = len(self.names) + 1
        codes = torch.full((256,), 1 if merged else _SOME_CLASS, dtype=torch.int64)
        codes[0] = 0
        if not merged:
            codes[1 : self.classes] = torch.arange(1, self.classes)
        self.class_of_code = codes  # no buffer: averaging of weights would average codes, too
        self.counts = Kept(seen=(torch.float64, 3 * len(self.names)), whole=(torch.float64, len(_WHOLE)))
        self.cuts = Kept(hit=(torch.float64, len(CUTS)), claimed=(torch.float64, len(CUTS)), present=(torch.float64, 1))

    @property
    def answers(self) -> list[str]:
        """Background and the mask's classes."""
        return ["background", *self.names]

    def truth(self, batch: BagBatch) -> Tensor | None:
        """Classes (ΣN, H, W), -1 unlabelled, -2 foreground of unknown class; None where the batch does not carry the mask."""
        target = batch.dense.get(self.target)
        if target is None:
            return None
        return torch.where(target == UNLABELLED, target, self.class_of_code.to(target.device)[target.clamp(min=0)])

    def called(self, logits: Tensor) -> Tensor:
        """Classes (N, H, W) of logits (N, K, H, W): the likeliest, or from the probability chosen on validation."""
        cut = self.calibration.get("cut")
        return logits.argmax(1) if cut is None else (foreground_probability(logits) >= cut).long()

    def as_codes(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classes as codes of the mask: those of merged lungs or infection say that side or kind is unknown."""
        if not self.merged:
            return classes
        open_code = LungCode.SIDE_UNKNOWN if self.target == Column.LUNGS else InfectionCode.KIND_UNKNOWN
        return np.where(classes > 0, open_code, 0).astype(np.uint8)

    def turned_back(self, output: Output) -> Output:
        """Dense logits flipped; the right lung of a mirror image is the left one."""
        logits = output.logits.flip(3)
        if self.target == Column.LUNGS and not self.merged:
            logits = logits[:, [0, int(LungCode.LEFT), int(LungCode.RIGHT)]]
        return replace(output, logits=logits)

    def labels(self, batch: BagBatch) -> int:
        """Bags with at least one labelled pixel."""
        target = batch.dense.get(self.target)
        if target is None:
            return 0
        labelled = (target != UNLABELLED).flatten(1).any(1)
        return len(set(batch.bag_index[labelled].tolist()))

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Mean of (1 - p)^gamma (-log p) plus ``dice`` times (1 - mean soft Dice of the classes present), over labelled pixels."""
        truth = self.truth(batch)
        if truth is None or not bool((truth != UNLABELLED).any()):
            return nothing(output)
        log_p = F.log_softmax(output.logits.float(), dim=1)
        some = truth == _SOME_CLASS
        likeliest = torch.where(some, log_p[:, 1:].argmax(1) + 1, truth) if bool(some.any()) else truth
        of_truth = log_p.gather(1, likeliest.clamp(min=0)[:, None])[:, 0]
        if bool(some.any()):
            of_truth = torch.where(some, log_p[:, 1:].logsumexp(1), of_truth)
        focus = (1 - of_truth.exp()).clamp(min=1e-6) ** self.gamma if self.gamma else 1.0
        known = truth != UNLABELLED
        entropy = -(of_truth * focus * known).sum() / known.sum()
        return entropy + self.dice * (1 - soft_dice(log_p.exp(), likeliest)) if self.dice else entropy

    def update(self, output: Output, batch: BagBatch) -> None:
        """Count each labelled study's voxels; labelled voxels that no instance covers count as missed."""
        for found in self._counts(output, batch):
            if found is not None:
                self.counts.update(seen=found[0].flatten()[None], whole=found[1][None])
        if self.by_f1 and (truth := self.truth(batch)) is not None:
            known = truth != UNLABELLED
            self._count_at_cuts(foreground_probability(output.logits)[known], truth[known] > 0, batch)

    def _count_at_cuts(self, probability: Tensor, sick: Tensor, batch: BagBatch) -> None:
        passed = torch.bucketize(probability, torch.tensor(CUTS, device=probability.device), right=True)  # how many cuts a pixel passes

        def passing(chosen: Tensor) -> Tensor:
            return torch.bincount(chosen, minlength=len(CUTS) + 1).flip(0).cumsum(0).flip(0)[1:]

        missed = sum(int(self._uncovered(batch, bag).sum()) for bag in range(batch.num_bags))
        present = (sick.sum() + missed)[None]
        self.cuts.update(hit=passing(passed[sick])[None], claimed=passing(passed)[None], present=present)

    @property
    def wants_validation(self) -> bool:
        """A threshold."""
        return self.by_f1

    def calibrate(self) -> None:
        """Choose the probability from which a pixel is called, where validation studies have any foreground."""
        if not self.by_f1:
            return
        kept = {name: rows.sum(0) for name, rows in self.cuts.rows().items()}
        if bool(kept["present"] > 0):
            f1 = 2 * kept["hit"] / (kept["claimed"] + kept["present"])
            self.calibration = {"cut": CUTS[int(f1.argmax())]}

    def _counts(self, output: Output, batch: BagBatch) -> list[tuple[Tensor, Tensor] | None]:
        """Counts a bag, None where it is unlabelled.

        Each: (classes - 1, 3) hits, predicted and present, NaN where the class of some pixel is open; (4,) these of the foreground, and
        all pixels.
        """
        truths = self.truth(batch)
        if truths is None:
            return [None] * batch.num_bags
        predicted = self.called(output.logits)
        counted: list[tuple[Tensor, Tensor] | None] = []
        for bag in range(batch.num_bags):
            members = batch.bag_index == bag
            truth, said = truths[members], predicted[members]
            known = truth != UNLABELLED
            truth, said = truth[known], said[known]
            missed = self._uncovered(batch, bag).to(truth.device)
            if not len(truth) and not int(missed.sum()):
                counted.append(None)
                continue
            present = torch.bincount(truth.clamp(min=0), minlength=self.classes)[1:] + missed
            hit = torch.bincount(truth[truth == said], minlength=self.classes)[1:]
            claimed = torch.bincount(said, minlength=self.classes)[1:]
            each = torch.stack([hit, claimed, present], dim=1).double()
            if bool((truth == _SOME_CLASS).any()):
                each = torch.full_like(each, float("nan"))
            sick, called = truth != 0, said > 0
            whole = [(sick & called).sum(), called.sum(), sick.sum() + missed.sum(), len(truth) + missed.sum()]
            counted.append((each, torch.tensor([float(v) for v in whole], dtype=torch.float64)))
        return counted

    def _uncovered(self, batch: BagBatch, bag: int) -> Tensor:
        """Labelled voxels a class (classes - 1,) that no instance covers; those of an open class count for the first."""
        missed = batch.uncovered[self.target][bag].cpu()
        classes = self.class_of_code.clone()
        classes[classes == _SOME_CLASS] = 1
        return torch.zeros(self.classes, dtype=torch.int64).index_add(0, classes, missed)[1:]

    def compute(self) -> dict[str, float]:
        """DSC, sensitivity and PPV per class, mean over the studies where they are defined, with their n; and of all pixels pooled."""
        kept = self.counts.rows()
        counts = kept["seen"].reshape(-1, len(self.names), 3)
        dice, sensitivity, ppv = overlap(counts)
        metrics: dict[str, float] = {}
        for k, name in enumerate(self.names):
            metrics[f"dice_{name}"] = nan_mean(dice[:, k])
            metrics[f"sensitivity_{name}"] = nan_mean(sensitivity[:, k])
            metrics[f"ppv_{name}"] = nan_mean(ppv[:, k])
            metrics[f"n_{name}"] = float((~dice[:, k].isnan()).sum())
        for name, values in (("dice_mean", dice), ("sensitivity_mean", sensitivity), ("ppv_mean", ppv)):
            metrics[name] = nan_mean(torch.tensor([nan_mean(values[:, k]) for k in range(values.shape[1])]))
        if not self.merged:
            metrics |= pooled_dice(self.names, dice.numpy(), counts[..., 1:].sum(-1).numpy())
        metrics |= foreground(kept["whole"].numpy())
        metrics["n"] = float(len(counts))
        return metrics

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """Per labelled study Dice and size (claimed + present) per class, and the foreground's pixels: hits, claimed, present, all."""
        rows = []
        for found in self._counts(output, batch):
            unknown = torch.full((len(self.names), 3), float("nan"))
            counts = unknown if found is None else found[0]
            each, sizes = overlap(counts[None])[0][0].tolist(), ["" if math.isnan(v) else int(v) for v in counts[:, 1:].sum(1).tolist()]
            whole: list[Any] = [""] * len(_WHOLE) if found is None else [int(v) for v in found[1].tolist()]
            columns: dict[str, Any] = {f"{self.task}_dice_{name}": value for name, value in zip(self.names, each, strict=True)}
            columns |= {f"{self.task}_size_{name}": size for name, size in zip(self.names, sizes, strict=True)}
            rows.append(columns | {f"{self.task}_{name}": value for name, value in zip(_WHOLE, whole, strict=True)})
        return rows

    def known(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_]:
        """Rows with a mask."""
        return np.array([not math.isnan(number(row.get(f"{self.task}_{_WHOLE[-1]}"))) for row in rows], dtype=np.bool_)

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """Mean Dice per class, the mean of these, Dice of all studies' pixels per class, and the foreground's pooled figures."""
        names = [f"{self.task}_dice_{name}" for name in self.names]
        table, sizes = (
            np.array([[number(row.get(f"{self.task}_{what}_{name}")) for name in self.names] for row in rows], dtype=np.float64).reshape(
                -1, len(names)
            )
            for what in ("dice", "size")
        )
        whole = np.array([[number(row.get(f"{self.task}_{name}")) for name in _WHOLE] for row in rows]).reshape(-1, len(_WHOLE))

        def column(k: int) -> Statistic:
            return lambda chosen: nan_mean(torch.from_numpy(table[chosen, k]))

        columns = [column(k) for k in range(len(names))]
        figures: dict[str, Statistic] = {f"dice_{name}": columns[k] for k, name in enumerate(self.names)}
        figures["dice_mean"] = lambda chosen: nan_mean(torch.tensor([c(chosen) for c in columns]))
        if not self.merged:
            keys = pooled_dice(self.names, table[:0], sizes[:0])
            figures |= together(lambda chosen: pooled_dice(self.names, table[chosen], sizes[chosen]), keys)
        return figures | together(lambda chosen: foreground(whole[chosen]), FOREGROUND)

    def bearing(self, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.bool_]]:
        """Those in which a class is there, or drawn; of a mean the class with the fewest, of the foreground those in which it is there."""
        found: dict[str, NDArray[np.bool_]] = {}
        for name in self.names:
            told = np.isfinite(np.array([number(row.get(f"{self.task}_dice_{name}")) for row in rows], dtype=np.float64))
            found |= {f"dice_{name}": told, f"pooled_dice_{name}": told}
        scarce = min((told for told in found.values() if told.any()), key=lambda told: int(told.sum()), default=None)
        if scarce is not None:
            found |= {"dice_mean": scarce, "pooled_dice_mean": scarce}
        present = np.array([number(row.get(f"{self.task}_present")) for row in rows]) > 0
        return found | {name: present for name in FOREGROUND if name != "pooled_specificity"}


def foreground_probability(logits: Tensor) -> Tensor:
    """Probability (N, H, W) of any class but the background, from logits (N, K, H, W)."""
    return 1 - logits.float().softmax(1)[:, 0]


FOREGROUND: dict[str, Callable[[float, float, float, float], float]] = {
    "pooled_f1": lambda hit, claimed, present, pixels: ratio(2 * hit, claimed + present),
    "pooled_iou": lambda hit, claimed, present, pixels: ratio(hit, claimed + present - hit),
    "pooled_sensitivity": lambda hit, claimed, present, pixels: ratio(hit, present),
    "pooled_specificity": lambda hit, claimed, present, pixels: ratio(pixels - present - claimed + hit, pixels - present),
}
"""Figures of the foreground, whatever its class, over the pixels of all studies together."""


def foreground(whole: NDArray[np.float64]) -> dict[str, float]:
    """Pooled figures from (studies, 4) hits, claimed, present and all pixels; studies with NaN are left out, undefined is NaN."""
    sums = [float(v) for v in np.nansum(whole.reshape(-1, len(_WHOLE)), axis=0)]
    return {name: figure(*sums) for name, figure in FOREGROUND.items()}


def pooled_dice(names: Sequence[str], dice: NDArray[np.float64], size: NDArray[np.float64]) -> dict[str, float]:
    """Dice of all studies' pixels together, by class and in the mean: a sliver counts as the sliver that it is.

    Args:
        names: the K classes.
        dice: (studies, K), NaN where undefined.
        size: (studies, K) pixels claimed and pixels present, added.
    """
    known = ~np.isnan(dice) & ~np.isnan(size)
    of_class = [ratio(float((dice[k, c] * size[k, c]).sum()), float(size[k, c].sum())) for c, k in enumerate(known.T)]
    return {f"pooled_dice_{name}": value for name, value in zip(names, of_class, strict=True)} | {
        "pooled_dice_mean": nan_mean(torch.tensor(of_class))
    }


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
    known = target != UNLABELLED
    member = target[:, None] == torch.arange(probability.shape[1], device=target.device)[:, None, None]  # picking pixels is slower
    hit, count = (probability * member).sum((0, 2, 3)), member.sum((0, 2, 3))
    size = (probability * known[:, None]).sum((0, 2, 3)) + count
    present = count[1:] > 0
    dice = (2 * hit + 1) / (size + 1)
    return dice[1:][present].mean() if bool(present.any()) else probability.sum() * 0 + 1
