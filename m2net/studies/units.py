"""What stored numbers mean: HU as they are, HU stored with an offset, or no HU at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.errors import StudyError
from m2net.studies.remarks import Remark

_OFFSET = 1024
_LEAST_SHARE = 0.05
_SAMPLE = 400_000


def settle_hu(path: Path, values: NDArray[Any]) -> tuple[NDArray[np.int16], list[Remark]]:
    """Values as int16 HU.

    Unsigned storage (HU + 1024) is recognised by its two heaps, air near 0 and soft tissue near 1060, and shifted back with a
    remark; whatever else has no negative value, or spans too little, is refused: units are never guessed.

    Args:
        path: for messages.
        values: numbers of any type, rescaled as the header says.

    Raises:
        StudyError: NaN or infinite values, or no HU.
    """
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise StudyError(
            f"{path} holds {bad} NaN or infinite values", expected="HU in every voxel", remedy="Set what was not scanned to -1024"
        )
    low, high = float(values.min()), float(values.max())
    if high - low < 20:
        raise StudyError(
            f"{path} holds values from {low:.3g} to {high:.3g}", expected="HU, from air near -1000 to bone",
            remedy="These look scaled or normalised, or the image is empty; give the HU themselves",
        )  # fmt: skip
    remarks = []
    if low >= 0:
        if not _stored_with_offset(values):
            raise StudyError(
                f"{path} has no negative value (from {low:.0f} to {high:.0f})", expected="HU, with air near -1000",
                remedy="Windowed pictures hold no HU; stored with another offset, subtract it",
            )  # fmt: skip
        values = values.astype(np.float32 if np.issubdtype(values.dtype, np.floating) else np.int32) - _OFFSET
        said = f"Stored from {low:.0f} to {high:.0f} with air near 0 and tissue near 1060: read as HU + {_OFFSET}."
        remarks.append(Remark("units", said, "Check one voxel of known HU, or convert the original again"))
    if values.dtype != np.int16:
        limits = np.iinfo(np.int16)
        values = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    return np.asarray(values), remarks


def _stored_with_offset(values: NDArray[Any]) -> bool:
    some = values.ravel()[:: max(1, values.size // _SAMPLE)]
    air = float(((some >= 0) & (some < 300)).mean())
    tissue = float(((some > 900) & (some < 1250)).mean())
    between = float(((some >= 400) & (some <= 800)).mean())
    return air > _LEAST_SHARE and tissue > _LEAST_SHARE and between < min(air, tissue) and float(some.max()) > 1150
