"""From stored int16 pixels to network input, on the batch and on its device: window, augmentation, coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m2net.bags.inputs import InputSpec
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.vocabulary import UNLABELLED


def to_input(batch: BagBatch, spec: InputSpec) -> BagBatch:
    """Window the stored values and add coordinate channels; instances become (ΣN, spec.channels, H, W) float32."""
    return add_coordinates(apply_window(batch, spec), spec)


def apply_window(batch: BagBatch, spec: InputSpec) -> BagBatch:
    """Map the window to [-1, 1], clipped."""
    low, high = spec.window
    values = (batch.instances.float() - low) * (2.0 / (high - low)) - 1.0
    return replace(batch, instances=values.clamp_(-1.0, 1.0))


def add_coordinates(batch: BagBatch, spec: InputSpec) -> BagBatch:
    """Append x, y, z of every pixel, times ``position_scale``, and three validity flags, if the spec asks for positions."""
    if not spec.positions:
        return batch
    count, _, height, width = batch.instances.shape
    rows = torch.arange(height, device=batch.instances.device, dtype=torch.float32) - (height - 1) / 2
    columns = torch.arange(width, device=batch.instances.device, dtype=torch.float32) - (width - 1) / 2
    step = batch.position_step[:, :, :, None, None]  # (ΣN, 2, 3, 1, 1)
    at = batch.position[:, :, None, None] + step[:, 0] * rows[:, None] + step[:, 1] * columns  # (ΣN, 3, H, W)
    flags = batch.position_known.float()[:, :, None, None].expand(count, 3, height, width)
    return replace(batch, instances=torch.cat([batch.instances, at * flags * spec.position_scale, flags], dim=1))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training bags; each bag draws from its own key, so a draw depends on seed, step and study only.

    Rotation, scale and coordinate jitter are one draw a bag (a patient lies as he lies); noise is drawn a pixel.

    Attributes:
        rotation_deg: largest in-plane rotation, degrees.
        scale: largest relative change of size.
        position_jitter: standard deviation of a shift of the coordinates.
        brightness: standard deviation of a shift, in units of half the window.
        contrast: standard deviation of the logarithm of a factor.
        noise: largest standard deviation of added noise, in units of half the window.
        flip: mirror left and right; refused where lobes or positions are used.
    """

    rotation_deg: float = 0.0
    scale: float = 0.0
    position_jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    flip: bool = False

    @staticmethod
    def of(values: dict[str, Any] | None, spec: InputSpec, masks: tuple[str, ...]) -> Augmentation:
        """Build from plain values.

        Raises:
            ConfigError: unknown setting, or a flip where the side matters.
        """
        values = dict(values or {})
        unknown = set(values) - set(Augmentation.__dataclass_fields__)
        if unknown:
            raise ConfigError(
                f"the augmentation has unknown settings {', '.join(sorted(unknown))}",
                expected=f"only {', '.join(Augmentation.__dataclass_fields__)}",
            )
        made = Augmentation(**values)
        if made.flip and (spec.positions or masks):
            raise ConfigError(
                "flip is on where lobes, sides or positions are used", remedy="Set flip: false; the left lung has no middle lobe"
            )
        return made

    def __call__(self, batch: BagBatch) -> BagBatch:
        """Augment windowed instances and everything that must follow them."""
        bags = [self._draw(int(key)) for key in batch.draws]
        matrix = torch.stack([b[0] for b in bags])[batch.bag_index.cpu()].to(batch.instances.device)  # (ΣN, 2, 2)
        shift, scale, jitter = (torch.stack([b[k] for b in bags]).to(batch.instances.device)[batch.bag_index] for k in (1, 2, 3))
        batch = _turn(batch, matrix)
        values = batch.instances * scale[:, None, None, None] + shift[:, None, None, None]
        if self.noise:
            values = values + self._noise(batch, values)
        return replace(batch, instances=values.clamp(-1.0, 1.0), position=batch.position + jitter)

    def _draw(self, key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotation-and-scale matrix (output pixel offset -> input pixel offset; row, column), shift, factor, jitter (3,)."""
        generator = torch.Generator().manual_seed(key)
        uniform = torch.rand(3, generator=generator) * 2 - 1
        normal = torch.randn(5, generator=generator)
        angle = torch.deg2rad(uniform[0] * self.rotation_deg)
        size = 1 + uniform[1] * self.scale
        mirror = -1.0 if self.flip and uniform[2] > 0 else 1.0
        cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
        matrix = torch.stack([torch.stack([cos, -sin * mirror]), torch.stack([sin, cos * mirror])])
        return matrix, normal[0] * self.brightness, torch.exp(normal[1] * self.contrast), normal[2:] * self.position_jitter

    def _noise(self, batch: BagBatch, values: Tensor) -> Tensor:
        noise = torch.empty(values.shape, dtype=values.dtype)
        for bag, key in enumerate(batch.draws.tolist()):
            generator = torch.Generator().manual_seed(key ^ 0x5EED)
            strength = self.noise * torch.rand(1, generator=generator)
            members = (batch.bag_index == bag).cpu()
            noise[members] = strength * torch.randn((int(members.sum()), *values.shape[1:]), generator=generator)
        return noise.to(values.device)


def _turn(batch: BagBatch, matrix: Tensor) -> BagBatch:
    """Resample instances and dense targets by ``matrix`` about the patch centre; position steps follow."""
    identity = torch.eye(2, device=matrix.device)
    if torch.equal(matrix, identity.expand_as(matrix)):
        return batch
    # affine_grid wants (x, y) order: columns first
    theta = torch.stack(
        [torch.stack([matrix[:, 1, 1], matrix[:, 1, 0]], dim=1), torch.stack([matrix[:, 0, 1], matrix[:, 0, 0]], dim=1)], dim=1
    )
    theta = torch.cat([theta, torch.zeros(len(theta), 2, 1, device=theta.device)], dim=2)
    grid = F.affine_grid(theta, list(batch.instances.shape), align_corners=False)
    values = F.grid_sample(batch.instances, grid, mode="bilinear", padding_mode="border", align_corners=False)
    dense = {}
    for name, target in batch.dense.items():
        moved = F.grid_sample((target - UNLABELLED).float()[:, None], grid, mode="nearest", padding_mode="zeros", align_corners=False)
        dense[name] = moved[:, 0].round().long() + UNLABELLED
    # position(out offset o) = centre + step^T (M o): the new row step is column 0 of M in the old steps
    step = torch.einsum("nij,nik->njk", matrix, batch.position_step)
    return replace(batch, instances=values, dense=dense, position_step=step)
