"""From stored int16 pixels to network input, on the batch and on its device: window, augmentation, coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m2net.bags.beside import LUNG_MASKS
from m2net.bags.inputs import InputSpec
from m2net.bags.organs import draw_organs
from m2net.bags.plain import check_plain
from m2net.bags.pockets import draw_pockets
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.vocabulary import UNLABELLED, Column, Intensity, LungCode


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


PAINTED = ("pockets", "organs")
"""Settings of ``Augmentation`` that paint beside the lungs."""
SIDED = str(Column.LOBES)
"""The mask that no mirror image has: the left lung has no middle lobe. Lungs change their names."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training bags; each bag draws from its own key, so a draw depends on seed, step and study only.

    Rotation, scale and coordinate jitter are one draw a bag (a patient lies as he lies); noise is drawn a pixel, on the batch's device, so
    that an accelerator's is another draw than the CPU's of the same key.

    Attributes:
        rotation_deg: largest in-plane rotation, degrees.
        scale: largest relative change of size.
        position_jitter: standard deviation of a shift of the coordinates.
        brightness: standard deviation of a shift, in units of half the window.
        contrast: standard deviation of the logarithm of a factor.
        noise: largest standard deviation of added noise, in units of half the window.
        flip: mirror left and right, for half of the bags: a chest with the heart on the right, whose lungs are named by their place in
            the picture as ever; refused where lobes or positions are used.
        shift: largest shift in-plane, as a share of the instance's side.
        stretch: largest relative change of width against height.
        gamma: standard deviation of the logarithm of an exponent on values scaled to 0..1.
        blur: largest share of a 3x3 mean mixed in, for half of the bags: a softer kernel.
        sharpen: largest share of the difference from that mean added, for the other half: a harder kernel.
        erase: probability that a rectangle of each instance, up to a third of its sides, is filled with one value.
        pockets: probability that an instance with a mask of lobes or lungs gets gas and food in the body outside them: stomach and bowel,
            of which few training sets show enough. CT in HU only.
        organs: probability that an instance with such a mask gets fat with organs in it, plain or enhanced, in the body outside the lungs:
            spleen, stomach and heart are not to be taken for consolidated lung. CT in HU only.
    """

    rotation_deg: float = 0.0
    scale: float = 0.0
    position_jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    flip: bool = False
    shift: float = 0.0
    stretch: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    erase: float = 0.0
    pockets: float = 0.0
    organs: float = 0.0

    @property
    def painted(self) -> dict[str, float]:
        """What is painted beside the lungs, and so needs a mask that tells where they are: probability by setting."""
        return {name: getattr(self, name) for name in PAINTED if getattr(self, name)}

    @staticmethod
    def of(values: dict[str, Any] | None, spec: InputSpec, masks: tuple[str, ...]) -> Augmentation:
        """Build from plain values.

        Raises:
            ConfigError: unknown setting, or a flip where the side matters.
        """
        values = dict(values or {})
        check_plain(Augmentation, values, "augmentation")
        made = Augmentation(**values)
        if made.flip and (spec.positions or SIDED in masks):
            raise ConfigError("flip is on where lobes or positions are used", remedy="Set flip: false; the left lung has no middle lobe")
        for name, probability in made.painted.items():
            if not set(LUNG_MASKS) & set(masks) or spec.intensity != Intensity.HU:
                raise ConfigError(
                    f"{name}: {probability} without a mask of lobes or lungs, or without HU",
                    expected="CT in HU with masks: [lobes] or [lungs]",
                )
        return made

    def paint(self, batch: BagBatch) -> BagBatch:
        """Change what is in the picture: for the stored values, before they are windowed."""
        if self.organs:
            batch = replace(batch, instances=draw_organs(batch, self.organs))
        return replace(batch, instances=draw_pockets(batch, self.pockets)) if self.pockets else batch

    def __call__(self, batch: BagBatch) -> BagBatch:
        """Augment windowed instances and everything that must follow them."""
        bags = [self._draw(int(key)) for key in batch.draws]
        place = batch.bag_index.cpu()
        matrix, move, tone, jitter = (torch.stack([b[k] for b in bags])[place].to(batch.instances.device) for k in range(4))
        batch = _turn(batch, matrix, move)
        bright, factor, exponent, softness = (column[:, None, None, None] for column in tone.unbind(1))
        values = batch.instances
        if self.gamma:
            values = 2 * ((values + 1) / 2).clamp(0, 1) ** exponent - 1
        values = values * factor + bright
        if self.blur or self.sharpen:
            values = values * (1 - softness) + softness * F.avg_pool2d(values, 3, 1, 1, count_include_pad=False)
        if self.noise:
            values = values + self._noise(batch, values)
        values = values.clamp(-1.0, 1.0)
        if self.erase:
            values = self._erased(batch, values)
        return replace(batch, instances=values, position=batch.position + jitter)

    def _draw(self, key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One bag's draw.

        Returns:
            Matrix (2, 2) from output to input pixel offset (row, column); shift (2,) in shares of the side; brightness, factor, exponent
            and softness, below 0 for sharper (4,); jitter of the coordinates (3,).
        """
        generator = torch.Generator().manual_seed(key)
        uniform = torch.rand(3, generator=generator) * 2 - 1
        normal = torch.randn(5, generator=generator)
        more = torch.rand(5, generator=generator) * 2 - 1
        angle = torch.deg2rad(uniform[0] * self.rotation_deg)
        size = 1 + uniform[1] * self.scale
        mirror = -1.0 if self.flip and uniform[2] > 0 else 1.0
        cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
        wide = (1 + more[0] * self.stretch) * mirror
        matrix = torch.stack([torch.stack([cos, -sin * wide]), torch.stack([sin, cos * wide])])
        tone = torch.stack(
            [
                normal[0] * self.brightness,
                torch.exp(normal[1] * self.contrast),
                torch.exp(torch.randn((), generator=generator) * self.gamma),
                more[3].clamp(min=0) * self.blur + more[3].clamp(max=0) * self.sharpen,
            ]
        )
        return matrix, more[1:3] * self.shift, tone, normal[2:] * self.position_jitter

    def _erased(self, batch: BagBatch, values: Tensor) -> Tensor:
        height, width = values.shape[2:]
        for bag, key in enumerate(batch.draws.tolist()):
            generator = torch.Generator().manual_seed(key ^ 0xE7A5)
            for n in torch.nonzero(batch.bag_index == bag)[:, 0].tolist():
                chance, tall, wide, top, left, value = torch.rand(6, generator=generator).tolist()
                if chance < self.erase:
                    h, w = round((0.05 + 0.3 * tall) * height), round((0.05 + 0.3 * wide) * width)
                    y, x = round(top * (height - h)), round(left * (width - w))
                    values[n, :, y : y + h, x : x + w] = 2 * value - 1
        return values

    def _noise(self, batch: BagBatch, values: Tensor) -> Tensor:
        noise = torch.empty_like(values)
        generator = torch.Generator(values.device)
        for bag, key in enumerate(batch.draws.tolist()):
            generator.manual_seed(key ^ 0x5EED)
            strength = self.noise * torch.rand(1, generator=generator, device=values.device)
            members = batch.bag_index == bag
            noise[members] = strength * torch.randn((int(members.sum()), *values.shape[1:]), generator=generator, device=values.device)
        return noise


def _turn(batch: BagBatch, matrix: Tensor, move: Tensor) -> BagBatch:
    """Resample instances and dense targets by ``matrix`` (N, 2, 2) about the patch centre after a shift (N, 2); positions follow."""
    identity = torch.eye(2, device=matrix.device)
    if torch.equal(matrix, identity.expand_as(matrix)) and not bool(move.any()):
        return batch
    # affine_grid wants (x, y) order: columns first
    theta = torch.stack(
        [torch.stack([matrix[:, 1, 1], matrix[:, 1, 0]], dim=1), torch.stack([matrix[:, 0, 1], matrix[:, 0, 0]], dim=1)], dim=1
    )
    theta = torch.cat([theta, 2 * move.flip(1)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(batch.instances.shape), align_corners=False)
    values = F.grid_sample(batch.instances, grid, mode="bilinear", padding_mode="border", align_corners=False)
    dense = {}
    for name, target in batch.dense.items():
        moved = F.grid_sample((target - UNLABELLED).float()[:, None], grid, mode="nearest", padding_mode="zeros", align_corners=False)
        dense[name] = moved[:, 0].round().long() + UNLABELLED
    if str(Column.LUNGS) in dense:
        dense[str(Column.LUNGS)] = _renamed(dense[str(Column.LUNGS)], torch.linalg.det(matrix) < 0)
    # position(out offset o) = centre + step^T (M o): the new row step is column 0 of M in the old steps
    step = torch.einsum("nij,nik->njk", matrix, batch.position_step)
    pixels = move * torch.tensor(batch.instances.shape[2:], device=move.device, dtype=move.dtype)
    position = batch.position + torch.einsum("ni,nik->nk", pixels, batch.position_step)
    return replace(batch, instances=values, dense=dense, position_step=step, position=position)


def _renamed(lungs: Tensor, mirrored: Tensor) -> Tensor:
    """Lung codes (N, H, W) with right and left changed in instances that were mirrored (N,)."""
    right, left = (lungs == int(code) for code in (LungCode.RIGHT, LungCode.LEFT))
    other = torch.where(right, int(LungCode.LEFT), torch.where(left, int(LungCode.RIGHT), lungs))
    return torch.where(mirrored[:, None, None], other, lungs)
