"""The encoder and decoder of M²UNet (He et al., Pattern Recognition 113:107828, 2021, table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.networks.memory import run


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _xavier(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class M2UNetEncoder(nn.Module):
    """Five blocks of two {conv 3x3, BN, ReLU}, parted by 2x2 max-pooling.

    Blocks 1-4 are ``width`` wide, block 5 eight times that. The paper's width is 64.
    """

    def __init__(self, in_channels: int, width: int = 64) -> None:
        """Build for ``in_channels`` image channels."""
        super().__init__()
        self.channels = (width, width, width, width, 8 * width)
        inputs = (in_channels, *self.channels[:-1])
        self.blocks = nn.ModuleList(nn.Sequential(*_conv(i, o), *_conv(o, o)) for i, o in zip(inputs, self.channels, strict=True))
        self.saving = False
        _xavier(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to maps of 1, 1/2, 1/4, 1/8 and 1/16 size."""
        maps = []
        for level, block in enumerate(self.blocks):
            if level:
                images = F.max_pool2d(images, 2)
            images = run(block, images, saving=self.saving)
            maps.append(images)
        return maps


class _Up(nn.Module):
    """Up-sample, conv to ``width``, concatenate the encoder's map, two convs."""

    def __init__(self, below: int, skip: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(*_conv(below, width))
        self.merge = nn.Sequential(*_conv(width + skip, width), *_conv(width, width))

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        raised = F.interpolate(below, size=skip.shape[2:], mode="bilinear", align_corners=False)
        merged: Tensor = self.merge(torch.cat([self.reduce(raised), skip], dim=1))
        return merged


class M2UNetDecoder(nn.Module):
    """Decoder blocks 5 to 2, each ``width`` wide."""

    def __init__(self, encoder_channels: Sequence[int], width: int = 64) -> None:
        """Build on an encoder's channels, finest first."""
        super().__init__()
        self.channels = width
        below, blocks = encoder_channels[-1], []
        for skip in reversed(encoder_channels[:-1]):
            blocks.append(_Up(below, skip, width))
            below = width
        self.blocks = nn.ModuleList(blocks)
        self.saving = False
        _xavier(self)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Encoder maps, finest first, to (N, width, h, w) at the finest map's size."""
        raised = maps[-1]
        for block, skip in zip(self.blocks, reversed(maps[:-1]), strict=True):
            raised = run(block, raised, skip, saving=self.saving)
        return raised
