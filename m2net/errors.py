"""Every error a user can cause. Each message is one line: what was found, what was expected, what to do."""

from __future__ import annotations

import struct
import zlib


class M2NetError(Exception):
    """Base of all errors that a user can cause and mend; the command line prints it as one line and exits with 2."""

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        """Compose the one-line message.

        Args:
            found: what is wrong, naming the file, row or option.
            expected: what would have been right.
            remedy: what the user can do about it.
        """
        parts = [found.rstrip(".")]
        if expected:
            parts.append(f"expected {expected.rstrip('.')}")
        message = "; ".join(parts) + "."
        if remedy:
            message += f" {remedy.rstrip('.')}."
        super().__init__(" ".join(message.split()))


class ManifestError(M2NetError):
    """The table of studies is not usable; the message names the row."""


class MissingFileError(ManifestError):
    """A row names a file that is not there."""


class StudyError(M2NetError):
    """An image or mask cannot be read or trusted."""


class GeometryError(StudyError):
    """The place of the voxels in the patient is missing, contradictory or not supported."""


class LateralityError(StudyError):
    """Left and right of a mask are not the patient's."""


class StoreError(M2NetError):
    """The prepared store is missing, unwritable or was prepared otherwise."""


class ConfigError(M2NetError):
    """A value in the configuration or on the command line is not usable."""


class CheckpointError(M2NetError):
    """A checkpoint is missing, of another program or of another model."""


BROKE = (ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError, EOFError, zlib.error, struct.error)
"""What a reader may raise on a file that nobody foresaw: one study's fault, which must not end the work on the others."""
