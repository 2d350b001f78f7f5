"""Severity drawn from a stated model, so that the best reachable figure is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SeverityModel:
    """A cumulative (proportional-odds) logistic model of the involved shares.

    P(grade >= k) = sigmoid(slope * burden - cut_k), with
    burden = sqrt(sum_l weight_l * (extent * share_l + consolidation * solid_l) / (sum_l weight_l * share_l) ^ relative),
    share_l and solid_l being the infected and the consolidated share of lobe l. The square root makes small involvement
    count, as it does in visual scores. Drawing the grade from these probabilities is the noise.

    Attributes:
        lobe_weight: weights in the order of the lobe codes, summing to 1.
        extent: weight of infected tissue.
        consolidation: extra weight of consolidated tissue.
        relative: 0 counts tissue; at 1 it is judged against the extent of the infection: how dense that is.
        slope: logits per unit of burden.
        cuts: one a grade above 0, rising.
    """

    lobe_weight: tuple[float, ...] = (0.18, 0.25, 0.17, 0.10, 0.30)
    extent: float = 1.0
    consolidation: float = 0.6
    relative: float = 0.0
    slope: float = 11.0
    cuts: tuple[float, ...] = (4.4,)

    def burden(self, share: NDArray[np.float64], solid: NDArray[np.float64]) -> float:
        """Burden from (5,) shares of each lobe."""
        seen = float(np.dot(self.lobe_weight, self.extent * share + self.consolidation * solid))
        return float(np.sqrt(seen / np.dot(self.lobe_weight, share) ** self.relative)) if seen > 0 else 0.0

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

_DENSITY = SeverityModel(extent=0.0, consolidation=1.0, relative=1.0, slope=14.0)
GRADERS = {
    "extent": SEVERITY_MODELS,
    "consolidation": {
        2: replace(_DENSITY, cuts=(7.0,)),
        3: replace(_DENSITY, cuts=(5.6, 8.4)),
        4: replace(_DENSITY, cuts=(4.9, 7.0, 9.1)),
        5: replace(_DENSITY, cuts=(4.2, 6.2, 7.8, 9.6)),
    },
}
"""Models by what a hospital's graders look at, and by number of grades: how much lung is infected, or how dense the infection is."""
