"""Activation checkpointing that leaves batch statistics as they are without it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run(module: nn.Module, *inputs: Any, saving: bool) -> Any:
    """Call a module on tensors or lists of them; with ``saving``, keep only its inputs and compute the rest again in the backward pass.

    The whole bag goes through at once, so batch norm sees whole-bag statistics; the second pass does not touch the running
    statistics again.
    """
    if not (saving and torch.is_grad_enabled()):
        return module(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Again(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


class _Again(AbstractContextManager[None]):
    """Batch norm that computes as before and leaves its running statistics; entered once for every backward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.kept: list[tuple[float | None, torch.Tensor | None]] = []

    def __enter__(self) -> None:
        self.kept = [(m.momentum, m.num_batches_tracked) for m in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()

    def __exit__(self, *raised: object) -> None:
        for norm, (momentum, tracked) in zip(self.norms, self.kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
