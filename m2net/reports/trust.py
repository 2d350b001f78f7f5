"""Whether a judged model's probabilities can be trusted: lines of a results.csv, and a curve, from what ``m2net test`` left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from m2net.reports.figures import FigureRow, figure_row
from m2net.reports.results import read_rows

_GROUPS = 10


def trust_rows(what: str, folder: Path, stated: float) -> Iterator[FigureRow]:
    """What a calibrated model's error stays below at 95 %, error rate of the more confident half, coverage with its binomial interval.

    Args:
        what: the experiment, as the lines name it.
        folder: with metrics.json and predictions.csv; none where nothing was run.
        stated: coverage that the conformal sets promise.

    Yields:
        Lines; the interval of the coverage is that of Clopper and Pearson, 95 %, over studies with a grade.
    """
    if not (folder / "metrics.json").exists():
        return
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for name in ("ece_band", "risk_half"):
        yield figure_row(what, f"severity/{name}", found[f"severity/{name}"], n=found["studies"])
    rows = graded(folder / "predictions.csv")
    if rows and "severity_set" in rows[0]:
        hits = sum(row["severity"] in row["severity_set"].split("|") for row in rows)
        low, high = binomtest(hits, len(rows)).proportion_ci()
        yield figure_row(what, f"severity/coverage, binomial (stated {stated})", hits / len(rows), float(low), float(high), len(rows))


def graded(path: Path) -> list[dict[str, Any]]:
    """Rows of predictions.csv with a grade; none where nothing was run."""
    return [row for row in read_rows(path) if row["severity"]] if path.exists() else []


def reliability(axes: Any, said: NDArray[np.float64], happened: NDArray[np.float64], colour: str, label: str) -> None:
    """Draw how often it happened against what was said: ten groups of equal size, binomial 95 % bars.

    Args:
        axes: of matplotlib.
        said: (n,) probabilities.
        happened: (n,) 0 or 1.
        colour: of the curve.
        label: of the curve.
    """
    groups = np.array_split(np.argsort(said, kind="stable"), _GROUPS)
    means, shares = [said[g].mean() for g in groups], [happened[g].mean() for g in groups]
    bounds = [binomtest(int(happened[g].sum()), len(g)).proportion_ci() for g in groups]
    bars = np.array([[share - b.low, b.high - share] for share, b in zip(shares, bounds, strict=True)]).T
    axes.errorbar(means, shares, yerr=bars.clip(0), fmt="o-", color=colour, capsize=2, lw=1, label=label)
