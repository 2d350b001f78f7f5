"""From the tasks' losses to one: fixed weights, learnt uncertainty, or equal pull on the shared encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

_MEMORY = 0.95


class Weighting(nn.Module):
    """A sum of the tasks' losses; a task without a label in the batch adds its zero."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Begin from the YAML's weight of each task."""
        super().__init__()
        self.weights = dict(weights)

    def forward(self, losses: Mapping[str, Tensor], labelled: set[str], shared: Sequence[Tensor]) -> Tensor:
        """One loss from the tasks'.

        Args:
            losses: scalar per task.
            labelled: tasks with a label in this batch.
            shared: the encoder's maps, where the tasks' gradients meet.
        """
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()

    def now(self) -> dict[str, float]:
        """The weight each task has at present."""
        return dict(self.weights)


class Uncertainty(Weighting):
    """sum_t w_t (exp(-s_t) L_t + s_t) with learnt s_t, the logarithm of task t's variance (Kendall et al. 2018)."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Begin with s_t = 0."""
        super().__init__(weights)
        self.log_variance = nn.ParameterDict({t: nn.Parameter(torch.zeros(()), requires_grad=bool(w)) for t, w in weights.items()})

    def forward(self, losses: Mapping[str, Tensor], labelled: set[str], shared: Sequence[Tensor]) -> Tensor:
        """As Weighting; variances of tasks without a label get no gradient."""
        terms = []
        for task, loss in losses.items():
            s = self.log_variance[task]
            terms.append(self.weights[task] * (torch.exp(-s) * loss + s) if task in labelled else loss + 0.0 * s)
        return torch.stack(terms).sum()

    def now(self) -> dict[str, float]:
        """w_t exp(-s_t)."""
        return {task: w * float(torch.exp(-self.log_variance[task].detach())) for task, w in self.weights.items()}


class GradientNorm(Weighting):
    """Weights under which every task pulls alike at the encoder's maps, times the YAML's weight.

    The norm of each task's gradient there, over all maps together, is averaged over steps; a task's weight is the mean norm of all tasks
    divided by its own. That is the aim of GradNorm (Chen et al. 2018) without its second loss, which speeds up tasks that lag behind.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Begin with equal norms unknown."""
        super().__init__(weights)
        self.register_buffer("norms", torch.zeros(len(weights)))  # 0 while unknown: an average of weights would keep NaN for ever
        self.norms: Tensor

    def forward(self, losses: Mapping[str, Tensor], labelled: set[str], shared: Sequence[Tensor]) -> Tensor:
        """As Weighting; outside training the norms stay as they are."""
        if torch.is_grad_enabled():
            shared = [map_ for map_ in shared if map_.requires_grad]  # some encoders' first map is empty
            for place, task in enumerate(self.weights):
                if task in labelled:
                    gradients = torch.autograd.grad(losses[task], list(shared), retain_graph=True, allow_unused=True)
                    squares = [g.detach().float().square().sum() for g in gradients if g is not None]
                    norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
                    if not norm or not norm.isfinite():
                        continue  # a task that reads maps without a gradient pulls at nothing
                    kept = self.norms[place]
                    self.norms[place] = _MEMORY * kept + (1 - _MEMORY) * norm if kept > 0 else norm
        weights = self.now()
        return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()

    def now(self) -> dict[str, float]:
        """Present weights; 1 times the YAML's while a task's norm is not known."""
        known = self.norms[self.norms > 0]
        mean = float(known.mean()) if len(known) else 1.0
        found = {}
        for place, (task, weight) in enumerate(self.weights.items()):
            norm = float(self.norms[place])
            found[task] = weight * (mean / max(norm, 1e-12) if norm > 0 else 1.0)
        return found


WEIGHTINGS: dict[str, Callable[[Mapping[str, float]], Weighting]] = {
    "fixed": Weighting,
    "gradient_norm": GradientNorm,
    "uncertainty": Uncertainty,
}
"""Weightings by name."""
