"""Class score maps at several depths, pooled over a slice and over a bag (Hu et al., IEEE Access 8, 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.networks.bag_pools import BAG_POOLS
from m2net.networks.heads import Features, Head
from m2net.networks.pooling import segment_softmax, segment_sum


class ScoreMapHead(Head):
    """Infection classes from image-level labels: where a class scores is where its evidence lies.

    On each of ``depths`` encoder maps: conv 1x1 to the classes, batch norm, ReLU, dropout; the global maximum of a class's map is the
    slice's score. Scores of a bag's slices are pooled to the bag's, depth by depth; the answer is the mean over the depths, and the
    loss is taken at each of them (``Output.deep``). A data set of single slices is bags of one, for which every pool is the identity.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: int,
        classes: int,
        depths: Sequence[int] = (3, 4, 5),
        dropout: float = 0.5,
        activation: str = "relu",
        place_pool: str = "max",
        bag_pool: str = "max",
        top: float = 0.25,
    ) -> None:
        """Build for ``classes`` classes.

        Args:
            encoder_channels: of the encoder's maps, finest first.
            decoder_channels: not used; the head sits on the encoder.
            classes: width of the answer.
            depths: encoder stages, counted from 1, that carry a score map; the published ones are 3, 4 and 5.
            dropout: share of score-map cells dropped in training; published 0.5.
            activation: relu (published), or none, which lets a class score below 0.
            place_pool: max (published) or mean, over the places of a slice.
            bag_pool: over the slices of a bag: max, top (mean of the highest ``top`` of each class), mean, or attention. The maximum of
                many slices lies above that of few: with it, training bags should be as large as whole studies.
            top: share of a bag's slices that ``top`` averages, at least one slice.

        Raises:
            ConfigError: unknown pool, activation or depth.
        """
        super().__init__()
        for what, value, allowed in (
            ("bag_pool", bag_pool, _BAG_POOLS), ("place_pool", place_pool, _PLACE_POOLS), ("activation", activation, _ACTIVATIONS)
        ):  # fmt: skip
            if value not in allowed:
                raise ConfigError(f"the {what} {value!r} is unknown", expected=f"one of {', '.join(allowed)}")
        if not depths or min(depths) < 1 or max(depths) > len(encoder_channels):
            raise ConfigError(f"score maps at depths {list(depths)}", expected=f"stages from 1 to {len(encoder_channels)}")
        if not 0 < top <= 1:
            raise ConfigError(f"the mean of the top {top} of the slices", expected="a share above 0, at most 1")
        self.depths, self.classes = tuple(sorted(depths)), classes
        self.place_pool, self.activation = place_pool, activation
        self.score = nn.ModuleList(
            nn.Sequential(nn.Conv2d(encoder_channels[d - 1], classes, 1), nn.BatchNorm2d(classes), nn.Dropout(dropout)) for d in self.depths
        )
        self.attention = _Attention(encoder_channels[max(depths) - 1]) if bag_pool == "attention" else None
        arguments = {"top": top} if bag_pool == "top" else {}
        self.pool = None if bag_pool == "attention" else BAG_POOLS[bag_pool](len(self.depths) * classes, **arguments)

    def maps(self, features: Features) -> list[Tensor]:
        """Score maps (N, classes, h, w), one a depth, shallowest first."""
        made = []
        for depth, score in zip(self.depths, self.score, strict=True):
            assert isinstance(score, nn.Sequential)
            made.append(score[2](_ACTIVATIONS[self.activation](score[:2](features.maps[depth - 1]).float())))
        return made

    def instance(self, features: Features) -> Tensor:
        """Slice scores (N, depths * classes), and the slice's attention logit behind them where that is the pool."""
        scores = torch.cat([_PLACE_POOLS[self.place_pool](m) for m in self.maps(features)], dim=1)
        if self.attention is None:
            return scores
        return torch.cat([scores, self.attention(features.maps[max(self.depths) - 1])], dim=1)

    def slice_logits(self, answers: Tensor) -> Tensor:
        """Mean over the depths (N, classes) of what ``instance`` said: each slice judged by itself."""
        logits: Tensor = self.by_depth(answers).mean(1)
        return logits

    def by_depth(self, answers: Tensor) -> Tensor:
        """Slice scores (N, depths, classes) of what ``instance`` said."""
        return answers[:, : len(self.depths) * self.classes].float().reshape(-1, len(self.depths), self.classes)

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Class logits (B, classes), those of each depth, and each slice's weight in the bag."""
        scores = self.by_depth(answers).flatten(1)  # (ΣN, depths * classes)
        pooled, weight = self._pooled(scores, answers, batch)
        deep = pooled.reshape(-1, len(self.depths), self.classes).transpose(0, 1)  # (depths, B, classes)
        logits = deep.mean(0)
        if weight.shape[1] == scores.shape[1]:  # one weight a depth and class: that of the predicted class counts
            said = logits.argmax(1)[batch.bag_index]
            weight = weight.reshape(-1, len(self.depths), self.classes).mean(1).gather(1, said[:, None])
        return Output(logits, weight[:, 0].detach(), deep, self.slice_logits(answers).detach())

    def _pooled(self, scores: Tensor, answers: Tensor, batch: BagBatch) -> tuple[Tensor, Tensor]:
        """Bag scores (B, depths * classes), and the weight of each instance in them, (ΣN, 1) or one a score."""
        if self.pool is not None:
            pooled, weight = self.pool(scores, batch.bag_index, batch.num_bags)
            return pooled, weight
        weight = segment_softmax(answers[:, -1].float(), batch.bag_index, batch.num_bags)[:, None]
        return segment_sum(scores * weight, batch.bag_index, batch.num_bags), weight


class _Attention(nn.Module):
    """Attention logit of a slice from the mean of its deepest map (Ilse et al. 2018, without the gate)."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.hide, self.weigh = nn.Linear(channels, hidden), nn.Linear(hidden, 1)

    def forward(self, maps: Tensor) -> Tensor:
        logit: Tensor = self.weigh(torch.tanh(self.hide(maps.float().mean((2, 3)))))
        return logit


_BAG_POOLS = ("max", "top", "mean", "attention")
_PLACE_POOLS: dict[str, Callable[[Tensor], Tensor]] = {"max": lambda m: m.amax((2, 3)), "mean": lambda m: m.mean((2, 3))}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "none": lambda m: m}
