"""Figures of out-of-fold predictions: who is ranked above whom is asked within a fold only, where the scores are of one model.

Scores of different folds come from different models and are not on one scale: pooled, a fold whose model says more of everyone loses and
wins pairs by that, and a model without any skill comes out below 0.5 (Forman and Scholz 2010).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.objectives.base import Objective, Statistic

_RANKING = frozenset({"auc", "spearman"})


def ranks(figure: str) -> bool:
    """Whether a figure compares the scores of studies with each other, as ``auc``, ``auc_covid19`` and ``opacity_spearman``."""
    return bool(_RANKING & {figure.partition("_")[0], figure.rpartition("_")[2]})


def within_folds(statistic: Statistic, folds: NDArray[np.int64], known: NDArray[np.bool_] | None = None) -> Statistic:
    """Mean of a figure over folds, by their number of studies whose truth is known, where it is defined.

    Args:
        statistic: the figure.
        folds: (studies,) of each study.
        known: (studies,) whether its truth is known; of all by default.
    """
    counted = np.ones(len(folds), bool) if known is None else known

    def of(chosen: NDArray[np.int64]) -> float:
        parts = [chosen[folds[chosen] == fold] for fold in np.unique(folds)]
        values = np.array([statistic(part) if len(part) else np.nan for part in parts])
        sizes = np.array([counted[part].sum() for part in parts], dtype=float)
        defined = np.isfinite(values) & (sizes > 0)
        return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else float("nan")

    return of


def folds_of(rows: list[dict[str, Any]]) -> NDArray[np.int64]:
    """The fold of each row of predictions.csv; 0 where it tells none, as that of ``m2net test``."""
    return np.array([int(row.get("fold") or 0) for row in rows], dtype=np.int64)


def statistics_within_folds(objective: Objective, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
    """An objective's figures of rows; those of ranking within each fold that the rows tell."""
    folds, known = folds_of(rows), objective.known(rows)
    figures = objective.statistics(rows)
    return objective.within({name: within_folds(figure, folds, known) if ranks(name) else figure for name, figure in figures.items()})
