"""How gently weights that were taken over are moved: late, slowly, near where they were, with their own batch statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from m2net.bags.plain import check_plain
from m2net.errors import ConfigError
from m2net.networks import M2Net

NORMS = ("train", "keep")
_STAGES = 5


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning; the defaults are plain training.

    Attributes:
        frozen: share of the run in which encoder and decoder stand still and only the heads learn (gradual unfreezing, Howard and
            Ruder 2018).
        layer_decay: factor on the learning rate from the heads to the decoder, likewise to the deepest fifth of the encoder's tensors, and
            from each fifth to the one before it (discriminative rates, Howard and Ruder 2018); 1 is one rate for all.
        anchor: pull of weights that were taken over towards where they started, decoupled from the gradient as AdamW's decay is (L2-SP,
            Li et al. 2018): after each step w -= rate * anchor * (w - w0).
        norm: batch norm: train (statistics of the batches), or keep (those that were taken over; a tiny batch has none worth having).
    """

    frozen: float = 0.0
    layer_decay: float = 1.0
    anchor: float = 0.0
    norm: str = "train"

    @staticmethod
    def of(values: Mapping[str, Any] | None) -> Tuning:
        """Build from plain values.

        Raises:
            ConfigError: unknown name or impossible value.
        """
        values = dict(values or {})
        check_plain(Tuning, values, "model.tuning")
        tuning = Tuning(**values)
        if not 0 <= tuning.frozen < 1 or not 0 < tuning.layer_decay <= 1 or tuning.anchor < 0:
            raise ConfigError(
                f"model.tuning has frozen {tuning.frozen}, layer_decay {tuning.layer_decay} and anchor {tuning.anchor}",
                expected="frozen from 0 to below 1, layer_decay above 0 to 1, anchor from 0",
            )
        if tuning.norm not in NORMS:
            raise ConfigError(f"model.tuning.norm is {tuning.norm!r}", expected=f"one of {', '.join(NORMS)}")
        return tuning

    def groups(self, module: nn.Module, network: M2Net, rate: float) -> list[dict[str, Any]]:
        """Parameter groups of an optimizer: the heads and all else first, then the decoder, then the encoder from its end."""
        encoder = list(network.encoder.parameters())
        decoder = [] if network.decoder is None else list(network.decoder.parameters())
        shared = {id(p) for p in (*encoder, *decoder)}
        stages: list[list[nn.Parameter]] = [[] for _ in range(_STAGES)]
        for place, parameter in enumerate(encoder):
            stages[place * _STAGES // len(encoder)].append(parameter)
        parts = [([p for p in module.parameters() if id(p) not in shared], 0), (decoder, 1)]
        parts += [(stage, depth) for depth, stage in enumerate(reversed(stages), start=1)]
        return [{"params": own, "lr": rate * self.layer_decay**depth, "shared": depth > 0} for own, depth in parts if own]

    def factors(self, groups: list[dict[str, Any]], schedule: Callable[[float], float], steps: float) -> list[Callable[[int], float]]:
        """For each group the factor on its rate after so many steps; 0 for what is shared while it is frozen."""

        def factor_of(shared: bool) -> Callable[[int], float]:
            return lambda step: 0.0 if shared and step / steps < self.frozen else schedule(step / steps)

        return [factor_of(group["shared"]) for group in groups]

    @property
    def needs_start(self) -> bool:
        """Whether a resumed run, too, must know what was taken over."""
        return bool(self.anchor) or self.norm == "keep"

    def hold_statistics(self, network: M2Net, names: Collection[str]) -> None:
        """Leave the batch statistics among these tensors as they are where ``norm`` is keep."""
        for name, layer in network.named_modules() if self.norm == "keep" else ():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and f"{name}.running_mean" in names:
                layer.eval()


@contextmanager
def running_statistics_left(network: M2Net) -> Iterator[None]:
    """Batch norm that trains on its batches, whose running statistics stay as they are: for pictures that evaluation never shows."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    kept = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum


class Anchor:
    """Where weights started."""

    def __init__(self, network: M2Net, names: Collection[str]) -> None:
        """Remember the parameters of these names as they are now."""
        self.pairs: list[tuple[nn.Parameter, Tensor]] = [(p, p.detach().clone()) for name, p in network.named_parameters() if name in names]

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer, strength: float) -> None:
        """Move each weight back by ``strength`` times its present learning rate of the way."""
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        for parameter, start in self.pairs:
            parameter.lerp_(start.to(parameter.device), min(1.0, rates.get(id(parameter), 0.0) * strength))
