"""Read a checkpoint safely: plain values only, and only m2net's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from m2net.errors import CheckpointError

CHECKPOINT_MARK = "m2net"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Raises:
        CheckpointError: missing, unreadable, or written by another program.
    """
    expected, remedy = "a checkpoint written by m2net fit", "Give the .ckpt file of a run"
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist", expected=expected, remedy=remedy)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the safe unpickler fails in many ways on what is no checkpoint
        raise CheckpointError(f"{path} cannot be read as a checkpoint", expected=expected, remedy=remedy) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_MARK not in checkpoint or "hyper_parameters" not in checkpoint:
        raise CheckpointError(f"{path} was written by another program", expected=expected, remedy=remedy)
    return checkpoint


def hyper_parameters(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments in a checkpoint, without what the command line adds."""
    return {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
