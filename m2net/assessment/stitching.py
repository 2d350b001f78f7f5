"""From instances back to a study: each voxel takes the answer of the instance that owns it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from m2net.batch import BagBatch


def stitch_labels(labels: torch.Tensor, batch: BagBatch, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Lay the labels of a fully covered study together.

    Args:
        labels: (N, H, W) class of every pixel of every instance.
        batch: the one bag they come from, with ``owned`` set.
        shape: (Z, Y, X) of the prepared study.

    Returns:
        (Z, Y, X) uint8; 0 where no instance looked.
    """
    if batch.owned is None:
        raise ValueError("stitching needs a fully covered bag")
    out = np.zeros(shape, np.uint8)
    values, owned = labels.cpu().numpy().astype(np.uint8), batch.owned.cpu().numpy()
    for (z, row, column), value, mine in zip(batch.corner.tolist(), values, owned, strict=True):
        row0, column0 = max(0, -row), max(0, -column)
        row1, column1 = min(value.shape[0], shape[1] - row), min(value.shape[1], shape[2] - column)
        if row1 <= row0 or column1 <= column0:
            continue
        target = out[z, row + row0 : row + row1, column + column0 : column + column1]
        keep = mine[row0:row1, column0:column1]
        target[keep] = value[row0:row1, column0:column1][keep]
    return out
