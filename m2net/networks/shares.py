"""A bag's answer from how much of it another task's map fills."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from m2net.batch import BagBatch, Output
from m2net.networks.heads import Features, Head
from m2net.networks.lobes import LOBES, lobes_there
from m2net.networks.pooling import Standardise, segment_mean

_LEAST = 1e-3  # share below which a logarithm tells noise from noise


class ShareHead(Head):
    """A linear answer on the shares that the foreground classes of a dense task take, as roots and as logarithms.

    With two classes (ground glass, consolidation) that is four numbers a bag, so that a new hospital's way of grading can be learnt from
    few patients. Roots make small involvement count, as visual scores do; differences of logarithms are ratios: how dense an infection is.

    Without ``lobes`` the shares are of the picture. With it they are of each lobe, as in the CT severity scores: with P(l | p) and P(c | p)
    the two tasks' probabilities at place p,

        share_lc = sum_p P(l | p) P(c | p) / sum_p P(l | p);  share_c = sum_l w_l share_lc

    over the lobes that are there, w learnt and summing to 1; a lobe's own score is the answer to its own shares. A lobe with less than
    ``least`` of the bag's lung is absent: it has no score and no part in the sum.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: int,
        classes: int,
        reads: str = "infection",
        answers: int = 2,
        gradient: bool = True,
        lobes: str = "",
        least: float = 0.005,
    ) -> None:
        """Build for ``classes`` outputs.

        Args:
            encoder_channels: not used: the maps of the dense task are.
            decoder_channels: likewise.
            classes: outputs.
            reads: the dense task.
            answers: its foreground classes.
            gradient: whether the answer's error reaches the maps.
            lobes: task that draws the lobes; none: shares of the picture.
            least: share of the bag's lung below which a lobe counts as absent.

        Raises:
            ValueError: no class to read.
        """
        super().__init__()
        if answers < 1:
            raise ValueError(f"answers is {answers}, expected at least 1")
        self.reads, self.gradient, self.answers = (reads, lobes) if lobes else (reads,), gradient, answers
        self.membership, self.least = lobes, least
        self.standardise = Standardise(2 * answers)
        self.classify = nn.Linear(2 * answers, classes)
        self.of_lobe = nn.Parameter(torch.zeros(LOBES)) if lobes else None

    @property
    def trains_decoder(self) -> bool:
        """The maps that it reads are trained through."""
        return self.gradient

    def instance(self, features: Features) -> Tensor:
        """Mean probability of each class over the instance's places (N, answers).

        With lobes: of each class within each lobe, and of the lobe itself (N, 5 * (answers + 1)).
        """
        classes = self._probabilities(features, self.reads[0])
        if not self.membership:
            return classes.mean((2, 3))
        lobes = self._probabilities(features, self.membership)
        both = (lobes[:, :, None] * classes[:, None]).mean((3, 4))  # no matrix product: autocast would round it to bfloat16
        return torch.cat([both, lobes.mean((2, 3))[..., None]], dim=2).flatten(1)

    def _probabilities(self, features: Features, task: str) -> Tensor:
        found = features.dense[task].float().softmax(1)[:, 1:]
        return found if self.gradient else found.detach()

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Logits (B, classes), and with lobes each lobe's own (B, 5, classes), NaN where it is absent."""
        share = segment_mean(answers, batch.bag_index, batch.num_bags)
        if self.of_lobe is None:
            return Output(self.classify(self.standardise(_told(share))))
        parts = share.reshape(len(share), LOBES, -1)
        mass = parts[..., -1]
        there = lobes_there(mass, self.least)
        each = parts[..., :-1] / mass[..., None].clamp(min=1e-6)  # (B, 5, answers)
        weight = self.of_lobe.softmax(0) * there
        whole = (each * (weight / weight.sum(1, keepdim=True).clamp(min=1e-6))[..., None]).sum(1)
        logits = self.classify(self.standardise(_told(whole)))
        alone = self.classify(self.standardise.remembered(_told(each.detach()).flatten(0, 1))).reshape(*there.shape, -1)
        return Output(logits, lobe_logits=alone.masked_fill(~there[..., None], float("nan")).detach())


def _told(share: Tensor) -> Tensor:
    """Roots and logarithms of shares, along the last axis."""
    return torch.cat([(share + 1e-8).sqrt(), (share + _LEAST).log()], dim=-1)
