"""The trained model of a checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

from m2net.errors import CheckpointError
from m2net.training.loading import hyper_parameters, read_checkpoint
from m2net.training.module import M2NetModule


def load_model(path: Path) -> M2NetModule:
    """The trained model of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: not one of m2net's, or its weights do not fit its own settings.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = M2NetModule(**hyper_parameters(checkpoint))
    except TypeError as error:
        raise CheckpointError(
            f"{path} holds a setting that this m2net does not know ({error})", expected="a checkpoint of this version or before",
            remedy="Update m2net",
        ) from error  # fmt: skip
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"the weights in {path} do not fit its settings", expected="an unchanged checkpoint") from error
    model.on_load_checkpoint(checkpoint)
    return model.eval()


def file_hash(path: Path) -> str:
    """SHA-256 of a checkpoint file, for reports."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
