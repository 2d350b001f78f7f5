"""Pooling of many vectors into one: per patch over places, per bag over instances."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.errors import ConfigError


def segment_mean(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Mean of rows (ΣN, K) by bag index (ΣN,) -> (B, K)."""
    total = segment_sum(values, index, count)
    size = torch.bincount(index, minlength=count).clamp(min=1).to(values.dtype)
    return total / size[:, None]


def segment_max(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Maximum of rows (ΣN, K) by bag index (ΣN,) -> (B, K)."""
    start = values.new_zeros((count, values.shape[1]))
    place = index[:, None].expand_as(values)
    return start.scatter_reduce(0, place, values, "amax", include_self=False)


def segment_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum of rows (ΣN, K) by bag index (ΣN,) -> (B, K)."""
    return values.new_zeros((count, values.shape[1])).index_add(0, index, values)


def segment_softmax(logits: Tensor, index: Tensor, count: int) -> Tensor:
    """Softmax of logits (ΣN,) within each bag -> (ΣN,)."""
    top = segment_max(logits.detach()[:, None], index, count)[:, 0]
    weight = (logits - top[index]).exp()
    return weight / segment_sum(weight[:, None], index, count)[index, 0]


def segment_top(values: Tensor, index: Tensor, count: int, top: float) -> Tensor:
    """Weights (ΣN, K) that average the highest share ``top`` of each bag's rows, at least one, column by column."""
    weight = torch.zeros_like(values)
    for bag in range(count):
        rows = torch.nonzero(index == bag)[:, 0]
        keep = min(max(1, round(top * len(rows))), len(rows))
        if keep:
            best = values[rows].topk(keep, dim=0).indices
            weight[rows] = torch.zeros_like(values[rows]).scatter(0, best, 1.0 / keep)
    return weight


_POOLS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {"mean": segment_mean, "max": segment_max}


class Standardise(nn.BatchNorm1d):
    """Batch norm without parameters on rows (N, K).

    A row alone has no spread: in training, too, it is standardised by what is remembered, after it was taken up into that.
    """

    def __init__(self, width: int) -> None:
        """Build for rows of ``width`` numbers."""
        super().__init__(width, affine=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Standardised rows (N, K)."""
        if not self.training or len(rows) > 1:
            return super().forward(rows)
        for row in rows.detach().float():
            self._take_up(row)
        return self.remembered(rows)

    def _take_up(self, row: Tensor) -> None:
        """One more row into the exponentially weighted mean and variance (Finch 2009, weighted mean and variance)."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        share = 0.1 if self.momentum is None else self.momentum
        away = row - self.running_mean
        self.running_mean.add_(share * away)
        self.running_var.add_(share * away**2).mul_(1 - share)
        self.num_batches_tracked.add_(1)

    def remembered(self, rows: Tensor) -> Tensor:
        """Rows standardised by the running mean and variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return F.batch_norm(rows, self.running_mean.clone(), self.running_var.clone(), eps=self.eps)  # the next row changes them in place


class ConceptPooling(nn.Module):
    """Global contrast pooling with learned concepts, a reconstruction.

    r_k = pool_n sigmoid(<x_n, c_k> + b_k) for concepts c_k, k = 1..K. He et al. 2021 (table 1) fix only the number of
    parameters, C x K + K, and the width K of the answer; the similarity and the pool are this reconstruction's choice, and
    so is the batch norm without parameters on each instance's r: sigmoids that all lie near one half leave the level above
    almost nothing to tell instances apart by.
    """

    def __init__(self, inputs: int, concepts: int, pool: str = "mean") -> None:
        """Build K = ``concepts`` concepts for vectors of ``inputs`` numbers.

        Raises:
            ConfigError: unknown pool.
        """
        super().__init__()
        if pool not in _POOLS:
            raise ConfigError(f"the pool {pool!r} is unknown", expected=f"one of {', '.join(_POOLS)}")
        self.similarity = nn.Linear(inputs, concepts)
        nn.init.xavier_uniform_(self.similarity.weight)
        nn.init.zeros_(self.similarity.bias)
        self.pool = pool
        self.standardise = Standardise(concepts)

    def contrast(self, vectors: Tensor) -> Tensor:
        """sigmoid(<x, c_k> + b_k) of vectors (..., C) -> (..., K)."""
        return torch.sigmoid(self.similarity(vectors).float())  # shares are summed over many: full precision

    def over_places(self, maps: Tensor) -> Tensor:
        """Pool one map a row: (N, C, h, w) -> (N, K)."""
        contrast = self.contrast(maps.flatten(2).transpose(1, 2))  # (N, h*w, K)
        even: Tensor = self.standardise(contrast.mean(1) if self.pool == "mean" else contrast.amax(1))
        return even

    def of_instances(self, vectors: Tensor) -> Tensor:
        """Standardised contrast of instances (ΣN, C) -> (ΣN, K), ready to be pooled over bags."""
        even: Tensor = self.standardise(self.contrast(vectors))
        return even

    def over_bags(self, contrast: Tensor, index: Tensor, count: int) -> Tensor:
        """Pool the contrasts (ΣN, K) of each bag -> (B, K)."""
        return _POOLS[self.pool](contrast, index, count)

    def without_each(self, contrast: Tensor) -> Tensor:
        """Pooled contrast (N, K) of one bag if instance n were left out, for every n; needs N >= 2."""
        count = len(contrast)
        if self.pool == "mean":
            return (contrast.sum(0, keepdim=True) - contrast) / (count - 1)
        top = contrast.topk(2, dim=0).values
        return torch.where(contrast == top[0], top[1], top[0])
