"""Open a checkpoint safely: plain values only, and only m2net's own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from m2net.errors import CheckpointError
from m2net.training.module import CHECKPOINT_MARK, M2NetModule


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


def load_model(path: Path) -> M2NetModule:
    """The trained model of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: not one of m2net's, or its weights do not fit its own settings.
    """
    checkpoint = read_checkpoint(path)
    model = M2NetModule(**hyper_parameters(checkpoint))
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"the weights in {path} do not fit its settings", expected="an unchanged checkpoint") from error
    model.on_load_checkpoint(checkpoint)
    return model.eval()


def hyper_parameters(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments in a checkpoint, without what the command line adds."""
    return {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}


def file_hash(path: Path) -> str:
    """SHA-256 of a checkpoint file, for reports."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
