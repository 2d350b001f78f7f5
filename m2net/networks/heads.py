"""Heads: each says something of an instance (may be chunked), then of the bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.networks.bag_pools import BAG_POOLS
from m2net.networks.pooling import ConceptPooling
from m2net.networks.registry import build


@dataclass
class Features:
    """What encoder and decoder say of N instances.

    Attributes:
        maps: encoder maps, finest first.
        decoded: (N, D, h, w) of the decoder, None without one.
        size: height and width of the instances.
        dense: answers of the dense tasks so far, (N, K, H, W) logits by task, for heads that read them.
    """

    maps: list[Tensor]
    decoded: Tensor | None
    size: tuple[int, int]
    dense: dict[str, Tensor] = field(default_factory=dict)


class Head(nn.Module):
    """A task's part of the network, in two steps so that large bags can be read in chunks."""

    needs_decoder = False
    reads: tuple[str, ...] = ()
    """Dense tasks whose answers the head reads; they are answered first."""
    membership = ""
    """The one among them that tells lobes, if any."""

    @property
    def trains_decoder(self) -> bool:
        """Whether the error of its answer reaches the decoder."""
        return self.needs_decoder

    def instance(self, features: Features) -> Tensor:
        """Per-instance answer, (N, ...)."""
        raise TypeError(f"{type(self).__name__} does not define instance()")

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Answer for the batch from the answers of all ΣN instances; float32, without autocast, but for dense answers."""
        raise TypeError(f"{type(self).__name__} does not define bag()")


SOURCES = ("encoder", "decoder", "both")
"""What a pooled head looks at: the encoder's deepest map, the decoder's map, or both."""


def source_width(source: str, encoder_channels: Sequence[int], decoder_channels: int) -> int:
    """Channels of a source.

    Raises:
        ConfigError: unknown.
    """
    if source not in SOURCES:
        raise ConfigError(f"the source {source!r} is unknown", expected=f"one of {', '.join(SOURCES)}")
    return encoder_channels[-1] * (source != "decoder") + decoder_channels * (source != "encoder")


def source_maps(source: str, features: Features) -> list[Tensor]:
    """Maps of a source: the deepest, then the decoder's, which is finer."""
    decoded = [features.decoded] if source != "encoder" and features.decoded is not None else []
    return ([features.maps[-1]] if source != "decoder" else []) + decoded


class DenseHead(Head):
    """A 1x1 convolution on the decoder's map: one class a pixel."""

    needs_decoder = True

    def __init__(self, encoder_channels: Sequence[int], decoder_channels: int, classes: int, subpixel: int = 0) -> None:
        """Build for ``classes`` classes, background included.

        Args:
            encoder_channels: not used.
            decoder_channels: of the decoder's map.
            classes: outputs a pixel.
            subpixel: width of a map of twice the size, made by a sub-pixel convolution (Shi et al. 2016) before classes are told; 0: none.
                For decoders that stop at half size: what their last stage would cost is saved.

        Raises:
            ValueError: a negative width.
        """
        super().__init__()
        if subpixel < 0:
            raise ValueError(f"subpixel is {subpixel}, expected 0 or a width")
        raised = [nn.Conv2d(decoder_channels, 4 * subpixel, 3, 1, 1), nn.PixelShuffle(2), nn.ReLU(inplace=True)] if subpixel else []
        self.finer = nn.Sequential(*raised)
        self.classify = nn.Conv2d(subpixel or decoder_channels, classes, 1)

    def instance(self, features: Features) -> Tensor:
        """Logits (N, K, H, W), raised to the instances' size if the decoder stops short of it."""
        assert features.decoded is not None
        logits: Tensor = self.classify(self.finer(features.decoded))
        if logits.shape[2:] != features.size:
            logits = F.interpolate(logits.float(), size=features.size, mode="bilinear", align_corners=False)
        return logits

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Dense logits as they are."""
        return Output(answers)


class PooledHead(Head):
    """A linear answer on the mean of a map over its places, pooled over the instances of a bag.

    At the level ``embedding`` the instances' vectors are pooled and the bag is judged; at the level ``instance`` every instance is judged
    and the judgements are pooled (instance-level multi-instance learning).
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: int,
        classes: int,
        source: str = "encoder",
        dropout: float = 0.2,
        pool: str | Mapping[str, Any] = "mean",
        level: str = "embedding",
    ) -> None:
        """Build for ``classes`` outputs.

        Args:
            encoder_channels: channels of the encoder's maps.
            decoder_channels: channels of the decoder's map.
            classes: outputs.
            source: encoder (its deepest map), decoder (its map), or both.
            dropout: share of the pooled features dropped in training.
            pool: over instances, by name or as ``{name: ..., arguments}``, see BAG_POOLS.
            level: embedding or instance.

        Raises:
            ConfigError: unknown source, pool or level.
        """
        super().__init__()
        width = source_width(source, encoder_channels, decoder_channels)
        if level not in ("embedding", "instance"):
            raise ConfigError(f"the level {level!r} is unknown", expected="embedding or instance")
        self.source, self.level, self.needs_decoder = source, level, source != "encoder"
        self.dropout = nn.Dropout(dropout)
        self.answer = nn.Linear(width, classes)
        spec = {"name": pool} if isinstance(pool, str) else dict(pool)
        self.pool = build(BAG_POOLS, spec, "pool", width if level == "embedding" else classes)

    def instance(self, features: Features) -> Tensor:
        """Features of the instance (N, width)."""
        return torch.cat([m.float().mean((2, 3)) for m in source_maps(self.source, features)], dim=1)

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Logits (B, classes), and each instance's share."""
        vectors = answers if self.level == "embedding" else self.answer(self.dropout(answers))
        pooled, weight = self.pool(vectors, batch.bag_index, batch.num_bags)
        logits = self.answer(self.dropout(pooled)) if self.level == "embedding" else pooled
        each = None if self.level == "embedding" else vectors.detach()
        return Output(logits, weight.mean(1).detach(), instance_logits=each)


class HierarchicalHead(Head):
    """Two-level multi-instance classification of M²UNet (He et al. 2021, table 1).

    Embedding level: concept pooling over the places of a patch's deepest map, then conv 1x1. Image level: concept pooling
    over the patches of a bag, then conv 1x1. Then a linear classifier. With 256 and 128 concepts on 512 channels the
    parameters are those of the paper's table.
    """

    def __init__(
        self, encoder_channels: Sequence[int], decoder_channels: int, classes: int, concepts: Sequence[int] = (256, 128), pool: str = "mean"
    ) -> None:
        """Build for ``classes`` grades."""
        super().__init__()
        first, second = concepts
        self.embed_concepts = ConceptPooling(encoder_channels[-1], first, pool)
        self.embed = nn.Linear(first, first)  # the paper's conv 1x1 on a 1x1 map
        self.image_concepts = ConceptPooling(first, second, pool)
        self.image = nn.Linear(second, second)
        self.classify = nn.Linear(second, classes)
        for layer in (self.embed, self.image, self.classify):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def instance(self, features: Features) -> Tensor:
        """Embeddings (N, first)."""
        return torch.relu(self.embed(self.embed_concepts.over_places(features.maps[-1])))

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Grade logits (B, classes) and, in evaluation, each patch's share in the expected grade."""
        contrast = self.image_concepts.of_instances(answers)
        logits = self._grade(self.image_concepts.over_bags(contrast, batch.bag_index, batch.num_bags))
        return Output(logits) if self.training else Output(logits, self._shares(contrast, logits, batch))

    def _grade(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.classify(torch.relu(self.image(pooled)))
        return logits

    def _shares(self, contrast: Tensor, logits: Tensor, batch: BagBatch) -> Tensor:
        """How far the expected grade falls when an instance is left out, never below 0, summing to 1 a bag (ΣN,)."""
        whole = _expected_grade(logits)
        shares = torch.empty(len(contrast), dtype=torch.float32, device=contrast.device)
        for bag in range(batch.num_bags):
            members = batch.bag_index == bag
            count = int(members.sum())
            equal = torch.full((count,), 1.0 / max(1, count), device=contrast.device)
            fall = equal
            if count > 1:
                fall = (whole[bag] - _expected_grade(self._grade(self.image_concepts.without_each(contrast[members])))).clamp(min=0)
            total = fall.sum()
            shares[members] = fall / total if total > 0 else equal
        return shares


def _expected_grade(logits: Tensor) -> Tensor:
    grades = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)
    return (logits.softmax(1) * grades).sum(1)
