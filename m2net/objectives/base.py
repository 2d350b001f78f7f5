"""What every task brings: a loss on its output, metrics, and its columns in predictions.csv."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from m2net.batch import BagBatch, Output

Statistic = Callable[[NDArray[np.int64]], float]
"""A figure of the rows of predictions.csv with these indices."""

Judged = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Class probabilities (n, K), and classes (n,) with -1 = unknown or several."""


class Objective(nn.Module):
    """A task's loss and metrics.

    A batch without any label for the task gives a graph-connected zero loss and leaves the metrics as they are.
    """

    classes: int
    """Outputs that the task's head must have."""

    target: str
    """Key of the target in the batch."""

    task: str
    """Name of the task; its columns in predictions.csv begin with it."""

    primary: str
    """The metric that speaks for the task when a checkpoint is chosen; "" leaves the choice to the other tasks."""

    needs_labels = True
    """Whether only studies that carry ``target`` teach it."""

    def __init__(self) -> None:
        """Begin uncalibrated."""
        super().__init__()
        self.calibration: dict[str, Any] = {}
        """What was fitted on validation studies, in plain values; kept in the checkpoint with the weights it was fitted for."""

    @property
    def answers(self) -> list[str]:
        """What each of the head's ``classes`` outputs stands for, so that weights can be matched by it."""
        raise TypeError(f"{type(self).__name__} does not define answers")

    @property
    def scale(self) -> str:
        """The scheme that the task's grades or scores are in; "" where it has none."""
        return ""

    def prepare(self, counts: dict[str, int]) -> None:
        """Take note, before training, of how many training studies carry each target; nothing to note by default."""

    def labels(self, batch: BagBatch) -> int:
        """Number of labelled bags in the batch."""
        raise TypeError(f"{type(self).__name__} does not define labels()")

    def turned_back(self, output: Output) -> Output:
        """The head's answer about the mirror image of a batch, as an answer about the batch; bag answers know no sides."""
        return output

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Scalar loss over what is labelled."""
        raise TypeError(f"{type(self).__name__} does not define loss()")

    def update(self, output: Output, batch: BagBatch) -> None:
        """Add a batch to the metrics."""
        raise TypeError(f"{type(self).__name__} does not define update()")

    def compute(self) -> dict[str, float]:
        """Metrics by name since the last reset, each with its n; undefined is NaN."""
        raise TypeError(f"{type(self).__name__} does not define compute()")

    @property
    def wants_validation(self) -> bool:
        """Whether the settings ask for something that is fitted on validation studies."""
        return False

    @property
    def is_calibrated(self) -> bool:
        """Whether the probabilities were put right on validation studies; thresholds alone do not change them."""
        return bool(self.calibration.keys() & {"temperature", "isotonic"})

    def holds(self, calibration: dict[str, Any]) -> bool:
        """Whether a calibration was fitted for what the task decides between; of any, by default."""
        return True

    def calibrate(self) -> None:
        """Fit ``calibration`` on the validation studies seen since the last reset; nothing to fit by default."""

    def reset(self) -> None:
        """Forget the batches seen."""
        for part in self.children():
            if isinstance(part, Metric):
                part.reset()

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """The task's headline figures as functions of rows, for intervals over patients."""
        raise TypeError(f"{type(self).__name__} does not define statistics()")

    def within(self, figures: dict[str, Statistic]) -> dict[str, Statistic]:
        """Figures whose ranking ones are means over folds; those that follow from several are worked out anew, none by default."""
        return figures

    def known(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_]:
        """Rows of predictions.csv (n,) whose truth is known: what the task's own column says, by default."""
        told = [str(row.get(self.task, "")) for row in rows]
        return np.array([text not in ("", "nan", "None") for text in told], dtype=np.bool_)

    def bearing(self, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.bool_]]:
        """Rows (n,) that a figure of ``statistics`` rests on, of those that do not rest on all that are ``known``; of none, by default."""
        return {}

    def judged(self, rows: list[dict[str, Any]]) -> Judged | None:
        """Class probabilities and classes in rows of predictions.csv; None where the task gives no probabilities."""
        return None

    def allowed(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_] | None:
        """Classes (n, K) that each label leaves possible, none where it is unknown; None where the task gives no probabilities."""
        judged = self.judged(rows)
        return None if judged is None else np.arange(judged[0].shape[1]) == judged[1][:, None]

    def rewritten(self, rows: list[dict[str, Any]], probability: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Copies of rows with other class probabilities (n, K), for tasks that are ``judged``."""
        raise TypeError(f"{type(self).__name__} gives no probabilities")

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """Per bag the task's columns of predictions.csv."""
        raise TypeError(f"{type(self).__name__} does not define rows()")


def together(figures: Callable[[NDArray[np.int64]], dict[str, float]], names: Iterable[str]) -> dict[str, Statistic]:
    """One statistic a name, of figures worked out together (NaN where one is missing), once for the same rows."""
    found: dict[bytes, dict[str, float]] = {}

    def of(chosen: NDArray[np.int64]) -> dict[str, float]:
        chosen = chosen.astype(np.int64)
        key = blake2b(chosen.tobytes(), digest_size=16).digest()
        if key not in found:
            found[key] = figures(chosen)
        return found[key]

    def one(name: str) -> Statistic:
        return lambda chosen: of(chosen).get(name, float("nan"))

    return {name: one(name) for name in names}


def nothing(output: Output) -> Tensor:
    """A zero that hangs on the graph, so that every parameter keeps a gradient."""
    return output.logits.sum() * 0.0


def nan_mean(values: Tensor) -> float:
    """Mean of what is defined, NaN if nothing is."""
    return float(values[~values.isnan()].mean()) if bool((~values.isnan()).any()) else float("nan")


def ratio(part: float, whole: float) -> float:
    """A share; of nothing it is NaN."""
    return part / whole if whole else float("nan")


def number(cell: Any) -> float:
    """A cell of a table as a number; empty is NaN."""
    return float("nan") if cell in (None, "") else float(cell)
