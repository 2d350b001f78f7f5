"""M2Net: one encoder, an optional shared decoder, one head a task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.networks.heads import DenseHead, Features, Head, HierarchicalHead, PooledHead
from m2net.networks.lobes import LOBES, LobeAwareHead
from m2net.networks.m2unet import M2UNetDecoder, M2UNetEncoder
from m2net.networks.registry import build
from m2net.networks.residual import GridDecoder, ResidualEncoder
from m2net.networks.scoremaps import ScoreMapHead
from m2net.networks.shares import ShareHead
from m2net.networks.smp import SmpEncoder, SmpLinknetDecoder, SmpUnetDecoder, SmpUnetPlusPlusDecoder
from m2net.networks.vgg import HuEncoder

ENCODERS: dict[str, Callable[..., nn.Module]] = {"m2unet": M2UNetEncoder, "smp": SmpEncoder, "hu": HuEncoder, "residual": ResidualEncoder}
DECODERS: dict[str, Callable[..., nn.Module]] = {
    "grid": GridDecoder,
    "m2unet": M2UNetDecoder,
    "smp_linknet": SmpLinknetDecoder,
    "smp_unet": SmpUnetDecoder,
    "smp_unetplusplus": SmpUnetPlusPlusDecoder,
}
HEADS: dict[str, Callable[..., Head]] = {
    "dense": DenseHead,
    "hierarchical": HierarchicalHead,
    "lobe_aware": LobeAwareHead,
    "pooled": PooledHead,
    "score_maps": ScoreMapHead,
    "shares": ShareHead,
}


class M2Net(nn.Module):
    """A shared patch encoder with heads.

    The encoder sees flat instances; only the heads' bag step knows of bags. In evaluation large bags are read ``chunk``
    instances at a time with the same result; in training the whole bag goes through at once, and ``checkpointing`` trades
    time for memory while batch norm keeps whole-bag statistics.
    """

    def __init__(
        self,
        in_channels: int,
        encoder: Mapping[str, Any],
        heads: Mapping[str, Mapping[str, Any]],
        decoder: Mapping[str, Any] | None = None,
        chunk: int = 256,
        checkpointing: bool = False,
        freeze_encoder: bool = False,
    ) -> None:
        """Build from plain values.

        Args:
            in_channels: channels of an instance.
            encoder: name and arguments, see ENCODERS.
            heads: per task name and arguments, see HEADS; ``classes`` included. Dense heads are answered first: others may read them.
            decoder: name and arguments, see DECODERS; needed by dense heads.
            chunk: instances read at once in evaluation.
            checkpointing: recompute activations in the backward pass.
            freeze_encoder: leave the encoder as it is, batch statistics included.

        Raises:
            ConfigError: unknown part or argument, or a dense head without a decoder.
        """
        super().__init__()
        if chunk < 1:
            raise ConfigError(f"network.chunk is {chunk}", expected="at least 1")
        self._built = (in_channels, encoder, heads)
        self.encoder = build(ENCODERS, encoder, "encoder", in_channels)
        channels = tuple(self.encoder.channels)  # type: ignore[arg-type]
        self.decoder = build(DECODERS, decoder, "decoder", channels) if decoder else None
        width = 0 if self.decoder is None else int(self.decoder.channels)  # type: ignore[arg-type]
        self.multiple = int(getattr(self.decoder, "multiple", 1))
        """Instances' sides must be a multiple of this many pixels."""
        self.heads = nn.ModuleDict({task: build(HEADS, spec, f"head of {task}", channels, width) for task, spec in heads.items()})
        if self.decoder is None and any(head.needs_decoder for head in self.heads.values()):
            raise ConfigError("a dense head has no decoder under it", remedy="Name one: decoder: {name: m2unet}")
        self._check_reads()
        self.keep_maps = False
        self.maps: list[Tensor] = []
        """With ``keep_maps``, the encoder's maps of the last training batch, where the tasks' gradients meet."""
        self.chunk, self.freeze_encoder = chunk, freeze_encoder
        self.encoder.requires_grad_(not freeze_encoder)
        self.encoder.train(not freeze_encoder)
        for part in (self.encoder, self.decoder):
            if part is not None:
                part.saving = checkpointing  # type: ignore[assignment]

    def train(self, mode: bool = True) -> M2Net:
        """Switch to training or evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(self, batch: BagBatch) -> dict[str, Output]:
        """Per task what its head says; ``batch.instances`` is (ΣN, C, H, W) float."""
        images = batch.instances.contiguous(memory_format=torch.channels_last)
        if self.training or len(images) <= self.chunk:
            answers = self._answers(images)
        else:
            parts = [self._answers(piece) for piece in torch.split(images, self.chunk)]
            answers = {task: torch.cat([p[task] for p in parts]) for task in parts[0]}
        with torch.autocast(images.device.type, enabled=False):  # what one of many instances adds is below the rounding of bfloat16
            return {task: head.bag(_precise(head, answers[task]), batch) for task, head in self._heads()}

    def _heads(self) -> list[tuple[str, Head]]:
        return list(self.heads.items())  # type: ignore[arg-type]

    def class_axes(self) -> dict[str, tuple[int, ...]]:
        """Axes that run over classes, by name of the tensor; only the heads have any."""
        channels, width = tuple(self.encoder.channels), 0 if self.decoder is None else int(self.decoder.channels)  # type: ignore[arg-type]
        found: dict[str, tuple[int, ...]] = {}
        for task, spec in self._built[2].items():
            with torch.device("meta"):
                wider = build(HEADS, {**spec, "classes": spec["classes"] + 1}, f"head of {task}", channels, width)
            found |= _axes_that_differ(self.heads[task], wider, f"heads.{task}")
        return found

    def channel_axes(self) -> dict[str, tuple[int, ...]]:
        """Axes that run over the input's channels, by name of the tensor; only the encoder has any."""
        with torch.device("meta"):
            wider = build(ENCODERS, self._built[1], "encoder", self._built[0] + 1)
        return _axes_that_differ(self.encoder, wider, "encoder")

    def features(self, images: Tensor) -> Features:
        """What encoder and decoder say of instances (N, C, H, W)."""
        maps = self.encoder(images)
        self.maps = maps if self.keep_maps and self.training else []
        return Features(maps, None if self.decoder is None else self.decoder(maps), (images.shape[2], images.shape[3]))

    def leave_out(self, kept: Collection[str]) -> None:
        """Train neither these tasks' heads nor, if no other task's error reaches it, the decoder.

        Several processes wait for a gradient of whatever is trained.
        """
        for task in kept:
            self.heads[task].requires_grad_(False)
        if self.decoder is not None and not any(head.trains_decoder for task, head in self._heads() if task not in kept):
            self.decoder.requires_grad_(False)

    def _check_reads(self) -> None:
        dense = {task: head.classify.out_channels for task, head in self._heads() if isinstance(head, DenseHead)}
        for task, head in self._heads():
            if missing := set(head.reads) - set(dense):
                raise ConfigError(f"the head of {task} reads the task {', '.join(sorted(missing))}", expected="a task with a dense head")
            if head.membership and dense[head.membership] != 1 + LOBES:
                raise ConfigError(f"the head of {task} reads {head.membership}, which draws no lobes", expected="a task with mask: lobes")
            if isinstance(head, ShareHead) and dense[head.reads[0]] != 1 + head.answers:
                found = dense[head.reads[0]] - 1
                raise ConfigError(f"the head of {task} reads {head.answers} classes of {head.reads[0]}", expected=f"answers: {found}")

    def _answers(self, images: Tensor) -> dict[str, Tensor]:
        features = self.features(images)
        features.dense = {task: head.instance(features) for task, head in self._heads() if isinstance(head, DenseHead)}
        return {task: features.dense[task] if task in features.dense else head.instance(features) for task, head in self._heads()}


def _precise(head: Head, answers: Tensor) -> Tensor:
    return answers if isinstance(head, DenseHead) else answers.float()


def _axes_that_differ(one: nn.Module, other: nn.Module, prefix: str) -> dict[str, tuple[int, ...]]:
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    pairs = {f"{prefix}.{name}": (value.shape, shapes[name]) for name, value in one.state_dict().items()}
    return {
        name: tuple(d for d, (a, b) in enumerate(zip(*pair, strict=True)) if a != b) for name, pair in pairs.items() if pair[0] != pair[1]
    }
