"""Activation checkpointing that leaves batch statistics as they are without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    again = _frozen_statistics(module)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), again

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
