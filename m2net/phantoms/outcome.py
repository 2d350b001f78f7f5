"""Severity drawn from a stated model, so that the best reachable figure is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SeverityModel:
    """A cumulative (proportional-odds) logistic model of the involved shares.

    P(grade >= k) = sigmoid(slope * burden - cut_k), with
    burden = sqrt(sum_l weight_l * (share_l + consolidation * solid_l)), share_l and solid_l being the infected and the
    consolidated share of lobe l. The square root makes small involvement count, as it does in visual scores. Drawing the
    grade from these probabilities is the noise.

    Attributes:
        lobe_weight: weights in the order of the lobe codes, summing to 1.
        consolidation: extra weight of consolidated tissue.
        slope: logits per unit of burden.
        cuts: one a grade above 0, rising.
    """

    lobe_weight: tuple[float, ...] = (0.18, 0.25, 0.17, 0.10, 0.30)
    consolidation: float = 0.6
    slope: float = 11.0
    cuts: tuple[float, ...] = (4.4,)

    def burden(self, share: NDArray[np.float64], solid: NDArray[np.float64]) -> float:
        """Burden from (5,) shares of each lobe."""
        return float(np.sqrt(np.dot(self.lobe_weight, share + self.consolidation * solid)))

    def probabilities(self, share: NDArray[np.float64], solid: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(grade >= k) for k = 1..K-1."""
        logits = self.slope * self.burden(share, solid) - np.asarray(self.cuts)
        return np.asarray(1 / (1 + np.exp(-logits)))

    def draw(self, probabilities: NDArray[np.float64], rng: np.random.Generator) -> int:
        """A grade."""
        return int((rng.random() < probabilities).sum())


SEVERITY_MODELS = {
    2: SeverityModel(),
    3: SeverityModel(cuts=(3.3, 6.2)),
    4: SeverityModel(cuts=(2.7, 4.8, 7.0)),
    5: SeverityModel(cuts=(2.2, 3.9, 5.6, 7.4)),
}
"""The stated model by number of grades."""
