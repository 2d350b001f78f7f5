"""A bag's answer from how much of it another task's map fills."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from m2net.batch import BagBatch, Output
from m2net.networks.heads import Features, Head
from m2net.networks.pooling import segment_mean

_LEAST = 1e-3  # share below which a logarithm tells noise from noise


class ShareHead(Head):
    """A linear answer on the shares that the foreground classes of a dense task take, as roots and as logarithms.

    With two classes (ground glass, consolidation) that is four numbers a bag, so that a new hospital's way of grading can be learnt from
    few patients. Roots make small involvement count, as visual scores do; differences of logarithms are ratios: how dense an infection is.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: int,
        classes: int,
        reads: str = "infection",
        answers: int = 2,
        gradient: bool = True,
    ) -> None:
        """Build for ``classes`` outputs.

        Args:
            encoder_channels: not used: the maps of the dense task are.
            decoder_channels: likewise.
            classes: outputs.
            reads: the dense task.
            answers: its foreground classes.
            gradient: whether the answer's error reaches the maps.

        Raises:
            ValueError: no class to read.
        """
        super().__init__()
        if answers < 1:
            raise ValueError(f"answers is {answers}, expected at least 1")
        self.reads, self.gradient, self.answers = (reads,), gradient, answers
        self.standardise = nn.BatchNorm1d(2 * answers, affine=False)
        self.classify = nn.Linear(2 * answers, classes)

    def instance(self, features: Features) -> Tensor:
        """Mean probability of each foreground class over the instance's places (N, answers)."""
        shares = features.dense[self.reads[0]].float().softmax(1)[:, 1:].mean((2, 3))
        return shares if self.gradient else shares.detach()

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Logits (B, classes)."""
        share = segment_mean(answers, batch.bag_index, batch.num_bags)
        told = torch.cat([share.sqrt(), (share + _LEAST).log()], dim=1)
        return Output(self.classify(self.standardise(told)).float())
