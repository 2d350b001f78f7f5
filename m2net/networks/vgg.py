"""The encoder of the weakly supervised detector (Hu et al., IEEE Access 8, 2020, published code)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from m2net.networks.memory import run

_STAGES = ((32, 2), (64, 2), (128, 3), (256, 3), (256, 3))


class HuEncoder(nn.Module):
    """VGG-like: 2x32, 2x64, 3x128, 3x256, 3x256 {conv 3x3, BN, ReLU}, each stage closed by max-pooling 2.

    The published code's widths and depths; the convolutions carry no bias, for the batch norm behind each has one. On 224x224 the
    maps of stages 3, 4 and 5, on which the score maps sit, are 28, 14 and 7 cells wide.
    """

    def __init__(self, in_channels: int, width: float = 1.0) -> None:
        """Build for ``in_channels`` image channels; ``width`` multiplies the published widths."""
        super().__init__()
        stages: list[nn.Module] = []
        before = in_channels
        self.channels: Sequence[int] = tuple(max(1, round(w * width)) for w, _ in _STAGES)
        for channels, (_, depth) in zip(self.channels, _STAGES, strict=True):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                before = channels
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.saving = False
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to the pooled maps of 1/2, 1/4, 1/8, 1/16 and 1/32 size."""
        maps = []
        for stage in self.stages:
            images = F.max_pool2d(run(stage, images, saving=self.saving), 2)
            maps.append(images)
        return maps
