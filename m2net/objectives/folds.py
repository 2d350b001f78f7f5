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
    """Whether a figure compares the scores of studies with each other, as ``auc``, ``auc_share``, ``auc_covid19`` and ``spearman``."""
    return figure.partition("_")[0] in _RANKING


def within_folds(statistic: Statistic, folds: NDArray[np.int64]) -> Statistic:
    """Mean of a figure over folds, by their number of studies, where it is defined.

    Args:
        statistic: the figure.
        folds: (studies,) of each study.
    """

    def of(chosen: NDArray[np.int64]) -> float:
        parts = [chosen[folds[chosen] == fold] for fold in np.unique(folds)]
        values = np.array([statistic(part) if len(part) else np.nan for part in parts])
        sizes = np.array([len(part) for part in parts], dtype=float)
        defined = np.isfinite(values)
        return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else float("nan")

    return of


def folds_of(rows: list[dict[str, Any]]) -> NDArray[np.int64]:
    """The fold of each row of predictions.csv; 0 where it tells none, as that of ``m2net test``."""
    return np.array([int(row.get("fold") or 0) for row in rows], dtype=np.int64)


def statistics_within_folds(objective: Objective, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
    """An objective's figures of rows; those of ranking within each fold that the rows tell."""
    folds = folds_of(rows)
    return {name: within_folds(figure, folds) if ranks(name) else figure for name, figure in objective.statistics(rows).items()}
