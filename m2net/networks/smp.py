"""Encoders and the U-Net decoder of segmentation-models-pytorch behind the same interface."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from m2net.errors import ConfigError


class SmpEncoder(nn.Module):
    """Any encoder of segmentation-models-pytorch by name, five stages deep."""

    def __init__(self, in_channels: int, encoder: str = "resnet18", depth: int = 5) -> None:
        """Build without pretrained weights: nothing is downloaded.

        Raises:
            ConfigError: the library does not know the encoder.
        """
        import segmentation_models_pytorch as smp  # six seconds, so only where it is asked for

        super().__init__()
        try:
            self.encoder = smp.encoders.get_encoder(encoder, in_channels=in_channels, depth=depth, weights=None)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"segmentation-models-pytorch cannot build the encoder {encoder!r} ({error})"[:200],
                expected="one of its names, as resnet18",
            ) from error
        self.channels = tuple(self.encoder.out_channels[1:])
        self.saving = False

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to maps of 1/2, 1/4, ... size, finest first."""
        return list(self.encoder(images))[1:]


class SmpUnetDecoder(nn.Module):
    """The library's U-Net decoder; the answer is at full size."""

    def __init__(self, encoder_channels: Sequence[int], channels: Sequence[int] = (256, 128, 64, 32, 16)) -> None:
        """Build on an encoder's channels; the first ``len(encoder_channels)`` widths of ``channels`` are used, widest first."""
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__()
        widths = list(channels)[-len(encoder_channels) :]
        self.decoder = UnetDecoder([0, *encoder_channels], widths, n_blocks=len(encoder_channels))
        self.channels = int(widths[-1])
        self.saving = False

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of 1/2, 1/4, ... size to (N, width, H, W)."""
        height, width = maps[0].shape[2] * 2, maps[0].shape[3] * 2
        full = maps[0].new_empty((maps[0].shape[0], 0, height, width))
        decoded: Tensor = self.decoder([full, *maps])
        return decoded if decoded.shape[2:] == (height, width) else F.interpolate(decoded, size=(height, width))
