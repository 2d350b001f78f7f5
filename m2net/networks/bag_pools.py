"""From the vectors of a bag's instances to one vector: mean, maximum, top share, gated attention, transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from m2net.networks.pooling import segment_mean, segment_softmax, segment_sum, segment_top

Pooled = tuple[Tensor, Tensor]
"""The bags' vectors (B, W), and the share each instance had in them, (ΣN, W) or (ΣN, 1)."""


class MeanPool(nn.Module):
    """Mean over the instances."""

    def __init__(self, width: int) -> None:
        """Build; the width does not matter."""
        super().__init__()

    def forward(self, vectors: Tensor, index: Tensor, count: int) -> Pooled:
        """Vectors (ΣN, W) of ``count`` bags by ``index``."""
        return segment_mean(vectors, index, count), segment_softmax(vectors.new_zeros(len(vectors)), index, count)[:, None]


class TopPool(nn.Module):
    """Mean of each feature's highest share of instances, at least one."""

    def __init__(self, width: int, top: float = 0.25) -> None:
        """Average the highest share ``top``.

        Raises:
            ValueError: no share.
        """
        super().__init__()
        if not 0 <= top <= 1:
            raise ValueError(f"top is {top}, not a share from 0 (the highest alone) to 1")
        self.top = top

    def forward(self, vectors: Tensor, index: Tensor, count: int) -> Pooled:
        """Vectors (ΣN, W) of ``count`` bags by ``index``."""
        weight = segment_top(vectors.detach(), index, count, self.top)
        return segment_sum(vectors * weight, index, count), weight


class MaxPool(TopPool):
    """Largest value of each feature."""

    def __init__(self, width: int) -> None:
        """Build; the width does not matter."""
        super().__init__(width, top=0.0)


class GatedAttention(nn.Module):
    """Attention with a gate: a_n = softmax_n w^T (tanh(V x_n) * sigmoid(U x_n)) (Ilse et al. 2018, equation 9)."""

    def __init__(self, width: int, hidden: int = 64) -> None:
        """Build with ``hidden`` units."""
        super().__init__()
        self.hide, self.gate, self.weigh = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, 1)

    def logits(self, vectors: Tensor) -> Tensor:
        """Attention logit of each vector (..., W) -> (...)."""
        found: Tensor = self.weigh(torch.tanh(self.hide(vectors)) * torch.sigmoid(self.gate(vectors)))
        return found[..., 0]

    def forward(self, vectors: Tensor, index: Tensor, count: int) -> Pooled:
        """Vectors (ΣN, W) of ``count`` bags by ``index``."""
        weight = segment_softmax(self.logits(vectors), index, count)
        return segment_sum(vectors * weight[:, None], index, count), weight[:, None]


class TransformerPool(nn.Module):
    """Instances attend to each other, then gated attention gathers them. No positions: order does not matter."""

    def __init__(self, width: int, hidden: int = 128, heads: int = 4, layers: int = 2) -> None:
        """Build ``layers`` pre-norm layers of width ``hidden``, a multiple of ``heads``."""
        super().__init__()
        self.enter, self.leave = nn.Linear(width, hidden), nn.Linear(hidden, width)
        layer = nn.TransformerEncoderLayer(hidden, heads, 2 * hidden, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)
        self.gather = GatedAttention(hidden)

    def forward(self, vectors: Tensor, index: Tensor, count: int) -> Pooled:
        """Vectors (ΣN, W) of ``count`` bags by ``index``; bags are padded to the longest, and padding is not attended to."""
        sizes = torch.bincount(index, minlength=count)
        place = torch.arange(len(index), device=index.device) - (sizes.cumsum(0) - sizes)[index]
        entered = self.enter(vectors)
        padded = entered.new_zeros((count, int(sizes.max()), entered.shape[1])).index_put((index, place), entered)
        missing = torch.arange(padded.shape[1], device=index.device)[None] >= sizes[:, None]
        gathered, weight = self.gather(self.layers(padded, src_key_padding_mask=missing)[index, place], index, count)
        return self.leave(gathered), weight


BAG_POOLS: dict[str, Callable[..., nn.Module]] = {
    "gated_attention": GatedAttention,
    "max": MaxPool,
    "mean": MeanPool,
    "top": TopPool,
    "transformer": TransformerPool,
}
"""Pools by name; each is built with the vectors' width."""
