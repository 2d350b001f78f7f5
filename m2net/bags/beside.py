"""Where training instances may be painted without a mask becoming wrong: in the body beside the lungs; and which of them are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from m2net.batch import BagBatch
from m2net.vocabulary import Column

LUNG_MASKS = (str(Column.LOBES), str(Column.LUNGS))
_TISSUE_HU = -300.0  # brighter is body, and not the air around it


def outside_lungs(batch: BagBatch) -> Tensor | None:
    """(N, H, W), where a mask of lobes or lungs says that there is no lung and all slices show a body; None without such a mask.

    What another mask marks, as consolidation that a mask of the lungs leaves out, is not outside.
    """
    masks = [batch.dense[name] for name in LUNG_MASKS if name in batch.dense]
    if not masks:
        return None
    marked = torch.stack(list(batch.dense.values())) > 0
    return (torch.stack(masks) == 0).any(0) & ~marked.any(0) & (batch.instances.amin(1) > _TISSUE_HU)


def chosen(batch: BagBatch, probability: float, salt: int) -> Iterator[tuple[int, torch.Generator]]:
    """Instances that are painted, each with the generator to paint it by; drawn by the bags' keys, ``salt`` apart from other draws."""
    for bag, key in enumerate(batch.draws.tolist()):
        generator = torch.Generator().manual_seed(key ^ salt)
        for n in torch.nonzero(batch.bag_index == bag)[:, 0].tolist():
            if float(torch.rand((), generator=generator)) < probability:
                yield n, generator
