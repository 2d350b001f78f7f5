"""Trivial facts of an image that may tell the label without any medicine."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from m2net.bags import Prepared, evenly
from m2net.studies import Study
from m2net.vocabulary import Intensity

_SLICES = 9  # of a volume are looked at, evenly spaced
_EDGE = 0.03
_MARK_SHARE = 0.002  # a pure white piece smaller than this share of the picture may be a letter or an arrow
_HU_RANGE = (-1024, 3071)

Facts = dict[str, dict[str, float | str]]


def trivial_facts(study: Study, prepared: Prepared, columns: tuple[str, ...] = ()) -> Facts:
    """Facts by family: image size, spacing, saturation, histogram, border, marks, acquisition, site, and manifest columns asked for.

    Numbers are floats (NaN where unknown), categories are text ("" where unknown).
    """
    count = len(prepared.image)
    image = np.asarray(prepared.image[evenly(count, _SLICES)])
    slices, rows, across = prepared.source_shape
    slice_mm, pixel_mm = prepared.source_mm
    acquisition = prepared.verdict.facts.get("acquisition") or {}
    facts: Facts = {
        "image size": {"rows": float(rows), "columns": float(across), "slices": float(slices), "aspect": across / rows},
        "spacing": {"slice_mm": slice_mm, "pixel_mm": pixel_mm},
        "saturation": _saturation(image, prepared.intensity),
        "histogram": _histogram(image),
        "border": _border(image),
        "marks": _marks(image, prepared.intensity),
        "acquisition": {k: as_fact(v) for k, v in acquisition.items()},
        "site": {"site": study.site},
    }  # fmt: skip
    facts |= {f"column {name}": {name: as_fact(study.extra.get(name, ""))} for name in columns}
    return facts


def _ends(image: NDArray[np.int16], intensity: Intensity) -> tuple[int, int]:
    return _HU_RANGE if intensity is Intensity.HU else (0, 32767)


def _saturation(image: NDArray[np.int16], intensity: Intensity) -> dict[str, float | str]:
    low, high = _ends(image, intensity)
    return {"white_share": float((image >= high).mean()), "black_share": float((image <= low).mean())}


def _histogram(image: NDArray[np.int16]) -> dict[str, float | str]:
    values = image.ravel().astype(np.float64)
    spread = float(values.std())
    skew, tail = (float(stats.skew(values)), float(stats.kurtosis(values))) if spread else (0.0, 0.0)
    return {"mean": float(values.mean()), "spread": spread, "skewness": skew, "kurtosis": tail}


def _border(image: NDArray[np.int16]) -> dict[str, float | str]:
    """The outer frame: its mean and spread, and the share of blank rows and columns at the margins."""
    height, width = image.shape[1:]
    reach = max(1, round(_EDGE * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[reach:-reach, reach:-reach] = False
    values = image[:, frame].astype(np.float64)
    blank = [float(np.mean([_margin(np.ptp(plane, axis=axis) == 0) for plane in image])) for axis in (0, 1)]
    return {"mean": float(values.mean()), "spread": float(values.std()), "blank_columns": blank[0], "blank_rows": blank[1]}


def _margin(blank: NDArray[np.bool_]) -> float:
    """Share of a row of flags that is true from either end without a break."""
    kept = np.flatnonzero(~blank)
    return 1.0 - (kept[-1] - kept[0] + 1) / len(blank) if len(kept) else 1.0


def _marks(image: NDArray[np.int16], intensity: Intensity) -> dict[str, float | str]:
    """Small pieces of pure white: letters, arrows, rulers."""
    high = _ends(image, intensity)[1]
    count, area = 0, 0
    for plane in image:
        labels, found = ndimage.label(plane >= high, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=found + 1)[1:]
        small = sizes[sizes < _MARK_SHARE * plane.size]
        count, area = count + len(small), area + int(small.sum())
    return {"pieces": count / len(image), "share": area / image.size}


def as_fact(value: Any) -> float | str:
    """A number as it is, a date (ISO 8601) as its day, anything else as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return str(value)
    return moment.toordinal() + (moment.hour + moment.minute / 60) / 24
