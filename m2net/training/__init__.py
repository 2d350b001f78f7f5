"""LightningModule, checkpoints, cross-validation."""

from m2net.training.checkpoint import file_hash, load_model
from m2net.training.loading import read_checkpoint
from m2net.training.module import M2NetModule

__all__ = ["M2NetModule", "file_hash", "load_model", "read_checkpoint"]
