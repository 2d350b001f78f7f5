"""Encoders and decoders of segmentation-models-pytorch behind the same interface."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.errors import ConfigError
from m2net.networks.memory import run

_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])(?=\.)")
_WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


class SmpEncoder(nn.Module):
    """Any encoder of segmentation-models-pytorch by name, five stages deep."""

    def __init__(self, in_channels: int, encoder: str = "resnet18", depth: int = 5) -> None:
        """Build without pretrained weights: nothing is downloaded.

        Raises:
            ConfigError: the library does not know the encoder.
        """
        super().__init__()
        self.name, self.in_channels, self.depth = encoder, in_channels, depth
        self.encoder = self._made(None)
        self.channels = tuple(self.encoder.out_channels[1:])
        self.saving = False

    def _made(self, weights: str | None) -> Any:
        import segmentation_models_pytorch as smp  # six seconds, so only where it is asked for

        try:
            return smp.encoders.get_encoder(self.name, in_channels=self.in_channels, depth=self.depth, weights=weights)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"segmentation-models-pytorch cannot build the encoder {self.name!r} ({error})"[:200],
                expected="one of its names, as resnet18",
            ) from error

    def load_weights(self, source: str) -> None:
        """Take over weights from a local file, or the library's by name (which downloads them).

        Args:
            source: a file of one of the usual kinds holding this encoder's state, or a name such as imagenet.

        Raises:
            ConfigError: no such name, the download failed, or the file lacks weights of this encoder.
        """
        if Path(source).suffix in _WEIGHT_FILES or Path(source).exists():
            self._take(_read_state(Path(source)), source)
            return
        try:
            self.encoder.load_state_dict(self._made(source).state_dict())
        except ConfigError:
            raise
        except Exception as error:  # what fails in a download is the hub's own
            raise ConfigError(
                f"the weights {source!r} of {self.name} could not be downloaded ({type(error).__name__})", expected="a connection",
                remedy="Download them elsewhere and give the file's path as model.encoder_weights, or leave it null",
            ) from error  # fmt: skip

    def _take(self, state: dict[str, Tensor], source: str) -> None:
        own = self.encoder.state_dict()
        found = _under_names(state, own)
        fits = {k: v for k, w in own.items() if (v := _adapted(found.get(k), w)) is not None}
        missing = [k for k in own if k not in fits and not k.endswith("num_batches_tracked")]
        if missing:
            raise ConfigError(
                f"{source} lacks {len(missing)} of {len(own)} tensors of the encoder {self.name}, as {missing[0]}",
                expected="a state of the same encoder",
            )
        self.encoder.load_state_dict({**own, **fits})

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to maps of 1/2, 1/4, ... size, finest first."""
        return list(run(self.encoder, images, saving=self.saving))[1:]


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"the weights {path} do not exist", expected="a local file, or the name of published weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers fail in many ways on what holds no weights
        raise ConfigError(f"{path} cannot be read as weights", expected="a safetensors file or a PyTorch state dict") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}


def _under_names(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the prefix dropped or added by which most of it has the encoder's own names.

    Files wrap a network as ``module.densenet121.features...`` or have its keys without the library's own ``model.``; DenseNets of
    torchvision's first files write ``norm.1`` for ``norm1``.
    """
    state = {_DOTTED.sub(r"\1\2", name): tensor for name, tensor in state.items()}
    pairs = [(drop, add) for drop in _leads(state) for add in _leads(own, 0.5)]
    drop, add = max(pairs, key=lambda pair: sum(pair[1] + k.removeprefix(pair[0]) in own for k in state if k.startswith(pair[0])))
    return {add + k.removeprefix(drop): tensor for k, tensor in state.items() if k.startswith(drop)}


def _leads(names: Collection[str], share: float = 0.0) -> list[str]:
    """Beginnings, of up to three parts, of more than this share of the names; none at all comes first."""
    parts = [name.split(".")[:-1] for name in names]
    counted = Counter("".join(f"{p}." for p in one[:n]) for n in (1, 2, 3) for one in parts if len(one) >= n)
    return ["", *(lead for lead, count in counted.items() if count > share * len(names))]


def _adapted(found: Tensor | None, own: Tensor) -> Tensor | None:
    """The tensor if it fits; a first convolution made for colour is summed over colours: its answer to grey is unchanged.

    Where an instance has several channels (neighbouring slices, coordinates) the sum is spread over all of them.
    """
    if found is None or found.shape == own.shape:
        return found
    if found.dim() != 4 or own.dim() != 4 or found.shape[0] != own.shape[0] or found.shape[2:] != own.shape[2:]:
        return None
    channels = own.shape[1]
    return found.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels if found.shape[1] == 3 else None


class _SmpDecoder(nn.Module):
    """A decoder of the library; it ends at full size, or at half, a quarter, ... where it has stages less than the encoder."""

    decoder: nn.Module
    channels: int
    stages_left = 0
    multiple = 1
    saving = False

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of 1/2, 1/4, ... size to (N, width, H, W)."""
        height, width = maps[0].shape[2] * 2, maps[0].shape[3] * 2
        full = maps[0].new_empty((maps[0].shape[0], 0, height, width))
        decoded: Tensor = run(self.decoder, [full, *maps], saving=self.saving)
        size = maps[self.stages_left - 1].shape[2:] if self.stages_left else torch.Size((height, width))
        return decoded if decoded.shape[2:] == size else F.interpolate(decoded, size=size)


class SmpUnetDecoder(_SmpDecoder):
    """U-Net (Ronneberger et al. 2015)."""

    def __init__(self, encoder_channels: Sequence[int], channels: Sequence[int] = (256, 128, 64, 32, 16)) -> None:
        """Build on an encoder's channels.

        Args:
            encoder_channels: of its maps, finest first.
            channels: widths of the stages, widest first; one fewer than the encoder has stops at half size, two at a quarter, which
                saves the costliest stages. Of more, the last are used.

        Raises:
            ValueError: no width.
        """
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__()
        widths = list(channels)[-len(encoder_channels) :]
        if not widths:
            raise ValueError("channels is empty, expected at least one width")
        self.stages_left = len(encoder_channels) - len(widths)
        self.decoder = UnetDecoder([0, *encoder_channels], widths, n_blocks=len(widths))
        self.channels = int(widths[-1])


class SmpUnetPlusPlusDecoder(_SmpDecoder):
    """UNet++: nested, dense skip connections (Zhou et al. 2018)."""

    def __init__(self, encoder_channels: Sequence[int], channels: Sequence[int] = (256, 128, 64, 32, 16)) -> None:
        """Build on an encoder's channels; the last ``len(encoder_channels)`` widths of ``channels`` are used, widest first."""
        from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder

        super().__init__()
        widths = list(channels)[-len(encoder_channels) :]
        self.multiple = 2 ** len(encoder_channels)
        self.decoder = UnetPlusPlusDecoder([0, *encoder_channels], widths, n_blocks=len(encoder_channels))
        self.channels = int(widths[-1])


class SmpLinknetDecoder(_SmpDecoder):
    """LinkNet (Chaurasia and Culurciello 2017): stages are aggregated by addition, from the deepest up.

    On the encoder ``tu-dla34`` this is what the library offers nearest to the segmentation network of deep layer aggregation (Yu et al.
    2018): that encoder aggregates hierarchically, and iterative aggregation upwards is left to the decoder.
    """

    def __init__(self, encoder_channels: Sequence[int], width: int = 32) -> None:
        """Build on an encoder's channels; the answer is ``width`` wide."""
        from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder

        super().__init__()
        self.multiple = 2 ** len(encoder_channels)
        self.decoder = LinknetDecoder([0, *encoder_channels], prefinal_channels=width, n_blocks=len(encoder_channels))
        self.channels = width
