"""Weights of an earlier run as the start of a new one, always told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from m2net.errors import CheckpointError


@dataclass(frozen=True)
class Transfer:
    """What became of the weights: names taken over, names the new model lacks or has in another shape, names that start anew."""

    loaded: list[str]
    skipped: list[str]
    fresh: list[str]

    def __str__(self) -> str:
        """One line."""
        return f"{len(self.loaded)} tensors taken over, {len(self.skipped)} of the checkpoint left, {len(self.fresh)} start anew"


PARTS = ("encoder", "decoder", "heads")


def take_over(network: nn.Module, checkpoint: dict[str, Any], path: Path, parts: Sequence[str] = ("encoder",)) -> Transfer:
    """Copy the weights of a checkpoint wherever name and shape agree.

    Args:
        network: the new network.
        checkpoint: as ``read_checkpoint`` gives it.
        path: where it lies, for messages.
        parts: of the network: encoder, decoder, heads.

    Raises:
        CheckpointError: nothing of the encoder fits.
    """
    saved = {k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items() if k.startswith("network.")}
    own = network.state_dict()
    wanted = {k: v for k, v in saved.items() if k.split(".")[0] in parts and not k.endswith("num_batches_tracked")}
    fits = {k: v for k, v in wanted.items() if k in own and own[k].shape == v.shape}
    if not any(v.dim() > 1 for k, v in fits.items() if k.startswith("encoder.")):
        raise CheckpointError(
            f"no weight of {path} fits the new model's encoder", expected="a checkpoint with the same encoder",
            remedy="Check network.encoder, or leave model.start_from out",
        )  # fmt: skip
    network.load_state_dict({**own, **fits})
    fresh = [k for k in own if k not in fits and not k.endswith("num_batches_tracked")]
    return Transfer(sorted(fits), sorted(set(saved) - set(fits)), fresh)
