"""How a set of prepared studies looks, in sums that name nobody: kept with a model, so that the next hospital's can be held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.bags.prepared import Prepared
from m2net.bags.sampling import evenly
from m2net.bags.store import Store
from m2net.studies import Study
from m2net.vocabulary import Column, Intensity

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST = 40
_SLICES = 5
_ENDS = {Intensity.HU: (-1024.0, 256.0), Intensity.RELATIVE: (0.0, 32768.0)}
_BINS = 40
_SOFT = (-150.0, 250.0)  # HU in which noise is measured: muscle, fat, blood


def look_of(store: Store, studies: Sequence[Study], most: int = _MOST) -> dict[str, Any]:
    """Histogram within the lungs, noise, spacing and case mix of studies.

    Args:
        store: where they are prepared.
        studies: rows of a manifest.
        most: the images of so many, evenly chosen, are looked at; the case mix counts all.

    Returns:
        ``studies`` and ``looked_at``; ``case_mix``, per label the count of each value; where there is a study, ``ends`` and
        ``histogram`` (mean shares of the values within the lungs; what lies outside the ends counts in the outermost bins) and ``facts``,
        per fact its QUANTILES.
    """
    chosen = [studies[k] for k in evenly(len(studies), most)]
    found: dict[str, Any] = {"studies": len(studies), "looked_at": len(chosen), "case_mix": case_mix(studies)}
    if not chosen:
        return found
    histograms, facts = [], []
    for study in chosen:
        prepared = store.open(study)
        histograms.append(lung_histogram(prepared))
        facts.append(image_facts(prepared))
    ends = _ENDS[prepared.intensity]
    quantiles = {}
    for name in facts[0]:
        values = np.array([fact[name] for fact in facts])
        known = values[np.isfinite(values)]
        if len(known):
            quantiles[name] = [float(q) for q in np.quantile(known, QUANTILES)]
    histogram = [float(v) for v in np.mean(histograms, axis=0)]
    return {**found, "intensity": str(prepared.intensity), "ends": list(ends), "histogram": histogram, "facts": quantiles}


def case_mix(studies: Sequence[Study]) -> dict[str, dict[str, int]]:
    """Counts of each value of each label."""
    counts: dict[str, Counter[str]] = {}
    for study in studies:
        if study.severity is not None and not str(study.severity_scheme).startswith("score:"):
            counts.setdefault(f"{Column.SEVERITY}:{study.severity_scheme}", Counter())[str(int(study.severity))] += 1
        if study.possible:
            counts.setdefault(str(Column.DIAGNOSIS), Counter())[study.possible_text] += 1
        if study.infected is not None:
            counts.setdefault(str(Column.INFECTED), Counter())[str(int(study.infected))] += 1
    return {label: dict(sorted(values.items())) for label, values in sorted(counts.items())}


def _planes(prepared: Prepared) -> NDArray[np.int64]:
    box = prepared.lung_box
    return box.z0 + evenly(box.z1 - box.z0, _SLICES)


def lung_histogram(prepared: Prepared) -> NDArray[np.float64]:
    """Shares (40,) of the values within the lungs found, in even bins between the ends of the study's intensity."""
    planes = _planes(prepared)
    image, lungs = np.asarray(prepared.image[planes]), np.asarray(prepared.masks["found_lungs"][planes]) > 0
    low, high = _ENDS[prepared.intensity]
    values = np.clip(image[lungs] if lungs.any() else image.ravel(), low, np.nextafter(high, low))
    counts = np.histogram(values, bins=_BINS, range=(low, high))[0]
    return np.asarray(counts / max(1, counts.sum()), dtype=np.float64)


def image_facts(prepared: Prepared) -> dict[str, float]:
    """Noise and spacing of one study.

    ``noise``: spread of the differences of neighbouring pixels along a row, over the root of two, robust; of soft tissue where HU are
    known, in HU, otherwise of all pixels. ``slice_mm`` and ``pixel_mm``: of the study as it came; NaN where unknown.
    """
    planes = _planes(prepared)
    image = np.asarray(prepared.image[planes]).astype(np.float32)
    pairs = image[..., 1:] - image[..., :-1]
    if prepared.intensity is Intensity.HU:
        soft = (image > _SOFT[0]) & (image < _SOFT[1])
        pairs = pairs[soft[..., 1:] & soft[..., :-1]]
    noise = 1.4826 * float(np.median(np.abs(pairs - np.median(pairs)))) / np.sqrt(2) if pairs.size else float("nan")
    slice_mm, pixel_mm = prepared.source_mm
    return {"noise": noise, "slice_mm": slice_mm, "pixel_mm": pixel_mm}
