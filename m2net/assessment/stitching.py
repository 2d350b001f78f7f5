"""From instances back to a study: each voxel takes the answer of the instance that owns it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from m2net.batch import BagBatch


def stitch_labels(labels: torch.Tensor, batch: BagBatch, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Lay the labels of a fully covered study together; those of resized instances by nearest neighbours.

    Args:
        labels: (N, H, W) class of every pixel of every instance.
        batch: the one bag they come from, with ``owned`` set.
        shape: (Z, Y, X) of the prepared study.

    Returns:
        (Z, Y, X) uint8; 0 where no instance looked.
    """
    out = np.zeros(shape, np.uint8)
    _lay(out, labels.cpu().numpy().astype(np.uint8), batch, Image.Resampling.NEAREST)
    return out


def stitch_values(values: torch.Tensor, batch: BagBatch, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """As ``stitch_labels`` for real values (N, H, W), resized linearly; 0 where no instance looked."""
    out = np.zeros(shape, np.float32)
    _lay(out, values.float().cpu().numpy(), batch, Image.Resampling.BILINEAR)
    return out


def _lay(out: NDArray[np.generic], values: NDArray[np.generic], batch: BagBatch, how: Image.Resampling) -> None:
    if batch.owned is None:
        raise ValueError("stitching needs a fully covered bag")
    owned = batch.owned.cpu().numpy()
    for (z, row, column), side, value, mine in zip(batch.corner.tolist(), batch.side.tolist(), values, owned, strict=True):
        if side != value.shape[0]:  # the instance was resized
            value = np.asarray(Image.fromarray(value).resize((side, side), how))
            mine = np.asarray(Image.fromarray(mine).resize((side, side), Image.Resampling.NEAREST))
        row0, column0 = max(0, -row), max(0, -column)
        row1, column1 = min(value.shape[0], out.shape[1] - row), min(value.shape[1], out.shape[2] - column)
        if row1 <= row0 or column1 <= column0:
            continue
        target = out[z, row + row0 : row + row1, column + column0 : column + column1]
        keep = mine[row0:row1, column0:column1]
        target[keep] = value[row0:row1, column0:column1][keep]
