"""Organs in fat where no lung is: what the upper abdomen and the heart's surroundings look like, drawn into training instances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from m2net.bags.beside import chosen, outside_lungs
from m2net.batch import BagBatch

_BONE_HU = 150.0  # brighter is bone or a vessel full of contrast medium, and stays
_FAT_HU = (-125.0, -65.0)
_PLAIN_HU, _ENHANCED_HU = (0.0, 75.0), (75.0, 180.0)  # of organs without and with contrast medium
_ENHANCED = 0.3  # of the organs
_FIELD, _ORGAN = (0.12, 0.5), (0.04, 0.25)  # radii, of the instance's side
_MOST = 7  # organs an instance
_RIM = 3  # fewer pixels than this beside lungs and air keep what they were: pleura, diaphragm and skin
_WOBBLE = 8  # outlines bend about so often over the instance


def draw_organs(batch: BagBatch, probability: float) -> Tensor:
    """Instances (N, C, H, W) in HU, some with a field of fat and organs in it, in the body outside the lungs.

    As pockets, they are painted only where a mask says that there is no lung and the picture says that there is a body, and not over
    bone. Neighbouring slices of an instance get the same organs, each with a grain of its own. Drawn by the bags' keys.

    Args:
        batch: with a dense target of lobes or lungs; without one nothing is drawn.
        probability: for an instance to get organs.
    """
    free = outside_lungs(batch)
    if free is None:
        return batch.instances
    values = batch.instances.clone()
    soft = free & (values.amax(1) < _BONE_HU)
    for n, generator in chosen(batch, probability, 0x0462):
        rim = int(torch.randint(0, _RIM, (), generator=generator))
        field, content = _belly(values[n].shape, generator, values.device)
        where = field & soft[n] & _off(free[n], rim)
        values[n] = torch.where(where, content.to(values), values[n])
    return values


def _off(free: Tensor, rim: int) -> Tensor:
    """What of ``free`` (H, W) lies more than ``rim`` pixels from its edge; what lies beyond the instance counts as free."""
    if not rim:
        return free
    return F.max_pool2d((~free).float()[None], 2 * rim + 1, 1, rim)[0] == 0


def _belly(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where (H, W) and what, in HU, of ``shape`` (C, H, W) on ``device``: organs that lie in fat, the later before the earlier."""
    slices, *plane = shape
    bend = _grain((1, *plane), _WOBBLE, generator, device)[0]
    fine = _grain((slices, *plane), max(plane) // 2, generator, device)
    field_at = torch.rand(5, generator=generator).tolist()
    field = _ellipse(plane, field_at, _FIELD, bend)
    content = _between(_FAT_HU, float(torch.rand((), generator=generator))) + 8 * fine
    for _ in range(int(torch.randint(1, _MOST + 1, (), generator=generator))):
        place, drawn = torch.rand(5, generator=generator).tolist(), torch.rand(2, generator=generator).tolist()
        for k in (0, 1):  # organs lie about the field
            place[k] = field_at[k] + (place[k] - 0.5) * 2 * _between(_FIELD, field_at[2 + k])
        hu = _between(_ENHANCED_HU if drawn[0] < _ENHANCED else _PLAIN_HU, drawn[1])
        content = torch.where(_ellipse(plane, place, _ORGAN, bend), hu + 6 * fine, content)
    return field, content


def _ellipse(shape: Sequence[int], place: list[float], radii: tuple[float, float], bend: Tensor) -> Tensor:
    """(H, W) of a turned ellipse with a bent outline; ``place`` is row, column, two radii and turn, each drawn from 0 to 1."""
    rows = torch.linspace(0, 1, shape[0], device=bend.device)[:, None] - place[0]
    columns = torch.linspace(0, 1, shape[1], device=bend.device) - place[1]
    turn = torch.tensor(torch.pi * place[4], device=bend.device)
    along, across = torch.cos(turn) * rows + torch.sin(turn) * columns, torch.cos(turn) * columns - torch.sin(turn) * rows
    return (along / _between(radii, place[2])) ** 2 + (across / _between(radii, place[3])) ** 2 < (1 + 0.25 * bend).clamp(min=0.2)


def _grain(shape: Sequence[int], cells: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Smooth noise of ``shape`` (C, H, W), each of the C drawn apart, so many cells along each side, of about unit spread."""
    coarse = torch.randn((1, shape[0], max(2, cells), max(2, cells)), generator=generator).to(device)
    return F.interpolate(coarse, size=tuple(shape[1:]), mode="bilinear", align_corners=False)[0]


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
