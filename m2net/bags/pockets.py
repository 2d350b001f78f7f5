"""Gas and food where no lung is: what stomach and bowel look like, drawn into training instances."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from m2net.bags.beside import chosen, outside_lungs
from m2net.batch import BagBatch

_GAS_HU, _FOOD_HU = (-990.0, -880.0), (-150.0, 60.0)
_RADII = (0.04, 0.18)  # of the instance's side
_MOST = 3  # pockets an instance
_GRAIN = 4  # pixels; bubbles and clumps are about as large


def draw_pockets(batch: BagBatch, probability: float) -> Tensor:
    """Instances (N, C, H, W) in HU, some with ellipses of gas, of food, or of both, in the body outside the lungs.

    A pocket is painted only where a mask of lobes or lungs says that there is none and the picture says that there is a body; the
    masks therefore stay as they are. Neighbouring slices of an instance get the same pocket with grains of their own. Drawn by the
    bags' keys.

    Args:
        batch: with a dense target of lobes or lungs; without one nothing is drawn.
        probability: for an instance to get pockets.
    """
    free = outside_lungs(batch)
    if free is None:
        return batch.instances
    values = batch.instances.clone()
    for n, generator in chosen(batch, probability, 0x9A5):
        for _ in range(int(torch.randint(1, _MOST + 1, (), generator=generator))):
            inside, content = _pocket(values.shape[1:], generator, values.device)
            values[n] = torch.where(inside & free[n], content.to(values), values[n])
    return values


def _pocket(shape: torch.Size, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where (H, W) and what (C, H, W) in HU, on ``device``: food, with bubbles of gas where its grain is low."""
    channels, height, width = shape
    place = torch.rand(6, generator=generator)
    tall, wide = (_RADII[0] + (_RADII[1] - _RADII[0]) * place[:2]).tolist()
    rows, columns = torch.linspace(0, 1, height, device=device)[:, None], torch.linspace(0, 1, width, device=device)
    inside = ((rows - place[2]) / tall) ** 2 + ((columns - place[3]) / wide) ** 2 < 1
    coarse = torch.randn((channels, 1, max(2, height // _GRAIN), max(2, width // _GRAIN)), generator=generator).to(device)
    grain = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    bubbles = 1.5 - 3 * place[4]  # in standard deviations of the grain: from gas with a few clumps to no gas
    food = _FOOD_HU[0] + (_FOOD_HU[1] - _FOOD_HU[0]) * place[5] + 40 * grain
    gas = _GAS_HU[0] + (_GAS_HU[1] - _GAS_HU[0]) * (0.5 + 0.25 * grain).clamp(0, 1)
    return inside, torch.where(grain < bubbles, gas, food)
