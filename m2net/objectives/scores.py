"""Real-valued severity scores, regressed directly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective, Statistic, nothing, number, together
from m2net.objectives.kept import Kept
from m2net.studies.scores import SCORE_LIMITS, SCORE_TITLES


class ScoreObjective(Objective):
    """A score between 0 and its highest value: smooth L1 on the score's share of that."""

    classes = 1
    primary = "spearman"

    def __init__(self, score: str = "geographic_extent", highest: float | None = None) -> None:
        """Name the score, as in the manifest's column ``score_NAME``.

        Args:
            score: its name.
            highest: its highest value; known for geographic_extent (8) and opacity (6).

        Raises:
            ConfigError: no highest value, or one that is not positive.
        """
        super().__init__()
        top = SCORE_LIMITS.get(score) if highest is None else float(highest)
        if top is None or top <= 0:
            raise ConfigError(f"the score {score} has the highest value {highest}", expected="highest: a number above 0")
        self.score, self.highest = score, top
        self.task, self.target = score, f"score:{score}"
        self.kept = Kept(said=(torch.float64, 1), truth=(torch.float64, 1))

    @property
    def answers(self) -> list[str]:
        """The score."""
        return [self.score]

    @property
    def scale(self) -> str:
        """What the score is, with its range."""
        return SCORE_TITLES.get(self.score, f"{self.score}, 0 to {self.highest:g}")

    def _truth(self, batch: BagBatch) -> Tensor:
        unknown = torch.full((batch.num_bags,), float("nan"), device=batch.instances.device)
        return batch.bag_targets.get(self.target, unknown)

    def predicted(self, output: Output) -> Tensor:
        """Score (B,) within its range."""
        return output.logits.float()[:, 0].sigmoid() * self.highest

    def labels(self, batch: BagBatch) -> int:
        """Bags with the score."""
        return int((~self._truth(batch).isnan()).sum())

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Mean smooth L1 of the scored bags, turning linear at a tenth of the range."""
        truth = self._truth(batch)
        known = ~truth.isnan()
        if not bool(known.any()):
            return nothing(output)
        return F.smooth_l1_loss(self.predicted(output)[known] / self.highest, truth[known] / self.highest, beta=0.1)

    def update(self, output: Output, batch: BagBatch) -> None:
        """Keep the scored bags."""
        truth = self._truth(batch)
        known = ~truth.isnan()
        if bool(known.any()):
            self.kept.update(said=self.predicted(output)[known], truth=truth[known])

    def compute(self) -> dict[str, float]:
        """Spearman's rho, mean absolute error and n."""
        kept = self.kept.rows()
        return score_figures(kept["said"][:, 0].numpy(), kept["truth"][:, 0].numpy())

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """The readers' score and the predicted one."""
        pairs = zip(self._truth(batch).tolist(), self.predicted(output).tolist(), strict=True)
        return [{self.task: "" if math.isnan(truth) else truth, f"{self.task}_predicted": said} for truth, said in pairs]

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """Spearman's rho and the mean absolute error."""
        return score_statistics(rows, f"{self.task}_predicted", self.task)


def score_figures(said: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    """Spearman's rho, mean absolute error and n over pairs that are both known.

    A rho of truth that does not vary is NaN; one answer to all, where it does, is 0, as its AUC is one half.
    """
    known = ~(np.isnan(said) | np.isnan(truth))
    said, truth = said[known], truth[known]
    rho = float("nan")
    if len(truth) > 1 and np.ptp(truth) > 0:
        rho = float(spearmanr(said, truth).statistic) if np.ptp(said) > 0 else 0.0
    return {"spearman": rho, "mae": float(np.abs(said - truth).mean()) if len(said) else float("nan"), "n": float(len(said))}


def score_statistics(rows: list[dict[str, Any]], said: str, truth: str) -> dict[str, Statistic]:
    """Spearman's rho and the mean absolute error of two columns of rows."""
    table = np.array([[number(row.get(said)), number(row.get(truth))] for row in rows], dtype=np.float64).reshape(-1, 2)

    return together(lambda chosen: score_figures(table[chosen, 0], table[chosen, 1]), ("spearman", "mae"))
