"""A small residual encoder, for data sets of hundreds of slices and machines without an accelerator."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from m2net.errors import ConfigError
from m2net.networks.memory import run


class _Block(nn.Module):
    """Two {conv 3x3, BN} with a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.stride = stride
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        # pixels are picked before the conv 1x1 instead of by its stride: oneDNN's backward pass of a strided one with fewer than 8 channels
        # writes past its memory on CPUs without AVX-512 (torch 2.15)
        picked = images[:, :, :: self.stride, :: self.stride]
        return F.relu(self.shortcut(picked) + self.second(self.first(images)))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Module:
    first = _Block(inputs, outputs, 2)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1))) if blocks > 1 else first


class ResidualEncoder(nn.Module):
    """A 5x5 stem of stride 2, then four stages of residual blocks, each at half the size of the last: five maps down to 1/32."""

    def __init__(self, in_channels: int, width: int = 24, blocks: Sequence[int] = (1, 1, 1, 1)) -> None:
        """Build for ``in_channels`` image channels; stem and stages are width, width, 2, 4 and 8 times ``width`` wide.

        Args:
            in_channels: of an instance.
            width: of the stem.
            blocks: a stage. Those of the last two stages see the most and cost the least.

        Raises:
            ConfigError: not four stages, or one without a block.
        """
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1:
            raise ConfigError(f"{list(blocks)} blocks", expected="four numbers of at least 1")
        self.channels = (width, width, 2 * width, 4 * width, 8 * width)
        stem = nn.Sequential(nn.Conv2d(in_channels, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        widths = itertools.pairwise(self.channels)
        self.stages = nn.ModuleList([stem, *(_stage(i, o, n) for (i, o), n in zip(widths, blocks, strict=True))])
        self.saving = False

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to maps of 1/2, 1/4, 1/8, 1/16 and 1/32 size."""
        maps = []
        for stage in self.stages:
            images = run(stage, images, saving=self.saving)
            maps.append(images)
        return maps


class GridDecoder(nn.Module):
    """One encoder map as it is, through a conv 1x1: dense answers on a coarse grid at the price of nothing."""

    def __init__(self, encoder_channels: tuple[int, ...], depth: int = 4, width: int = 64) -> None:
        """Take the map of stage ``depth``, counted from 1.

        Raises:
            ValueError: no such stage.
        """
        super().__init__()
        if not 1 <= depth <= len(encoder_channels):
            raise ValueError(f"depth {depth} of {len(encoder_channels)} stages")
        self.depth, self.channels = depth, width
        self.mix = nn.Sequential(nn.Conv2d(encoder_channels[depth - 1], width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.saving = False

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first, to (N, width, h, w) of the chosen stage's size."""
        mixed: Tensor = run(self.mix, maps[self.depth - 1], saving=self.saving)
        return mixed
