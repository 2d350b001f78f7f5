"""Diagnosis from labels that are classes, or sets of classes where the class is only partly known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from scipy.special import log_softmax, logsumexp
from torch import Tensor
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Judged, Objective, Statistic, nan_mean, nothing, number, together
from m2net.objectives.bootstrap import of_two
from m2net.objectives.calibration import FITS, calibrated
from m2net.objectives.kept import Kept
from m2net.objectives.reliability import brier, calibration_band, class_error
from m2net.objectives.severity import auc
from m2net.vocabulary import Column, Diagnosis, Lobe

_CLASSES = list(Diagnosis)
_CALIBRATIONS = ("none", "temperature", "shift")  # isotonic regression is of ordered cuts


class DiagnosisObjective(Objective):
    """Non-pneumonia, COVID-19, community-acquired pneumonia: class-weighted focal cross-entropy at every depth of the head.

    loss = mean over depths and bags of w (1 - p)^gamma (-log p), p being the summed probability of the label's set. With single classes,
    gamma 1 and w_c = N / N_c that is the published loss (Hu et al. 2020); w is scaled to average 1 over the training studies,
    and N_c counts label sets, as the training part has them.
    """

    primary = "auc"

    def __init__(
        self,
        gamma: float = 1.0,
        balanced: bool = True,
        smoothing: float = 0.0,
        groups: Sequence[Sequence[str]] = (),
        calibrate: str = "none",
    ) -> None:
        """Choose the loss and between which groups of classes is decided.

        Args:
            gamma: exponent of the focal factor; 0 is cross-entropy.
            balanced: weight label sets by the inverse of their frequency in training.
            smoothing: share of the target moved to the complement of the label's set.
            groups: classes that are told from each other, each a list of names; the three classes one by one by default. A data set that
                knows COVID-19 or not has [[covid19], [non_pneumonia, cap]].
            calibrate: how the groups' probabilities are put right on the validation studies whose label excludes some group: none,
                temperature, or shift (temperature and a bias a group). A balanced loss asks the network for probabilities as if every
                label were as frequent; ``shift`` brings the validation studies' own frequencies back. A label that leaves several groups
                counts by their sum.

        Raises:
            ConfigError: impossible values, an unknown calibration, or groups that do not hold each class once.
        """
        super().__init__()
        if calibrate not in _CALIBRATIONS:
            raise ConfigError(f"calibrate is {calibrate!r}", expected=f"one of {', '.join(_CALIBRATIONS)}")
        if gamma < 0 or not 0 <= smoothing < 0.5:
            raise ConfigError(f"gamma {gamma} and smoothing {smoothing}", expected="gamma from 0, smoothing from 0 to below 0.5")
        self.gamma, self.balanced, self.smoothing, self.how = gamma, balanced, smoothing, calibrate
        self.target = self.task = str(Column.DIAGNOSIS)
        self.classes = len(_CLASSES)
        self.register_buffer("set_weight", torch.ones(2 ** len(_CLASSES)))  # by bit mask of the label's set
        self.membership: Tensor
        self.set_weight: Tensor
        self.decide_between(groups)

    def decide_between(self, groups: Sequence[Sequence[str]]) -> None:
        """Tell these groups of classes from each other, whatever was told before: the head answers by class.

        A calibration of other groups no longer holds.

        Raises:
            ConfigError: groups that do not hold each class once.
        """
        self.groups = [list(group) for group in groups] or [[str(d)] for d in _CLASSES]
        if not self.holds(self.calibration):
            self.calibration = {}
        named = sorted(name for group in self.groups for name in group)
        if named != sorted(map(str, _CLASSES)) or len(self.groups) < 2:
            raise ConfigError(f"the groups are {self.groups}", expected=f"each of {', '.join(_CLASSES)} in one of two groups or more")
        membership = torch.tensor([[str(d) in group for d in _CLASSES] for group in self.groups], device=self.set_weight.device)
        self.register_buffer("membership", membership, persistent=False)  # (groups, classes)
        many = len(self.groups)
        self.diagnosed = Kept(log_p=(torch.float64, many), possible=(torch.bool, many), patient=(torch.int64, 1))

    @property
    def names(self) -> list[str]:
        """Names of the groups: ``non_pneumonia+cap``."""
        return ["+".join(group) for group in self.groups]

    @property
    def answers(self) -> list[str]:
        """The classes, whatever their groups."""
        return [str(d) for d in _CLASSES]

    def prepare(self, counts: dict[str, int]) -> None:
        """Weigh label sets by their counts in training, so that each set weighs alike in sum."""
        if not self.balanced:
            return
        sets = {k.partition(":")[2]: n for k, n in counts.items() if k.startswith(f"{self.target}:") and n}
        for name, count in sets.items():
            code = sum(1 << _CLASSES.index(Diagnosis(d)) for d in name.split("|"))
            self.set_weight[code] = sum(sets.values()) / (len(sets) * count)

    def _truth(self, batch: BagBatch) -> Tensor:
        empty = torch.zeros((batch.num_bags, self.classes), dtype=torch.bool, device=batch.instances.device)
        return batch.bag_targets.get(self.target, empty)

    def labels(self, batch: BagBatch) -> int:
        """Bags of which something is known: some class is excluded."""
        truth = self._truth(batch)
        return int((truth.any(1) & ~truth.all(1)).sum())

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Mean over depths and labelled bags; bags that may have every class teach nothing."""
        truth = self._truth(batch)
        known = truth.any(1) & ~truth.all(1)
        if not bool(known.any()):
            return nothing(output)
        truth = truth[known]
        code = (truth.long() * (2 ** torch.arange(self.classes, device=truth.device))).sum(1)
        deep = output.logits[None] if output.deep is None else output.deep
        log_p = F.log_softmax(deep.float()[:, known], dim=2)  # (depths, n, classes)
        inside = log_p.masked_fill(~truth, -torch.inf).logsumexp(2)
        outside = log_p.masked_fill(truth, -torch.inf).logsumexp(2)
        entropy = -(1 - self.smoothing) * inside - self.smoothing * outside
        focus = (1 - inside.exp()).clamp(min=1e-6) ** self.gamma if self.gamma else torch.ones_like(inside)
        return (self.set_weight[code] * focus * entropy).mean()

    def probabilities(self, output: Output) -> NDArray[np.float64]:
        """Group probabilities (B, groups) of the depths' mean logits, calibrated if the checkpoint holds a calibration."""
        return self.grouped(output.logits)

    def grouped(self, logits: Tensor) -> NDArray[np.float64]:
        """Group probabilities (n, groups) of class logits (n, classes), calibrated likewise.

        Raises:
            ConfigError: the checkpoint's calibration is of other groups than those decided between.
        """
        return self._put_right(self._log_grouped(logits).numpy())

    def _put_right(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.holds(self.calibration):
            raise ConfigError(
                f"{self.task} decides between {', '.join(self.names)}",
                expected=f"{', '.join(self.calibration['groups'])}, which the checkpoint's calibration is of",
                remedy="Leave the groups as they were trained, or fine-tune",
            )  # fmt: skip
        return calibrated(log_p, self.calibration)

    def _log_grouped(self, logits: Tensor) -> Tensor:
        """Logarithms of group probabilities (n, groups) as the network gives them, in double precision whatever the run's."""
        log_p = log_softmax(logits.detach().double().cpu().numpy(), axis=1)
        inside = np.where(self.membership.cpu().numpy()[None], log_p[:, None], -np.inf)
        return torch.from_numpy(np.asarray(logsumexp(inside, axis=2)))

    def of_lobes(self, output: Output) -> NDArray[np.float64] | None:
        """Group probabilities that each lobe gives by itself (B, 5, groups), NaN where it is absent; None where the head tells no lobes."""
        if output.lobe_logits is None:
            return None
        bags, lobes, _ = output.lobe_logits.shape
        return self.grouped(output.lobe_logits.flatten(0, 1)).reshape(bags, lobes, -1)

    def _possible(self, batch: BagBatch) -> Tensor:
        """(B, groups) whether the label allows the group."""
        return (self._truth(batch)[:, None] & self.membership[None]).any(2)

    def update(self, output: Output, batch: BagBatch) -> None:
        """Keep the labelled bags."""
        possible = self._possible(batch)
        known = possible.any(1)
        if bool(known.any()):
            log_p = self._log_grouped(output.logits[known]).to(possible.device)
            self.diagnosed.update(log_p=log_p, possible=possible[known], patient=batch.bag_targets[Column.PATIENT_ID][known])

    def holds(self, calibration: dict[str, Any]) -> bool:
        """A bias belongs to a group, and a temperature to the groups that it was fitted for."""
        return bool(calibration.get("groups", self.names) == self.names)

    @property
    def wants_validation(self) -> bool:
        """A calibration."""
        return self.how != "none"

    def calibrate(self) -> None:
        """Fit the calibration on the bags kept whose label excludes some group.

        Where these labels are all alike, or there are none, the probabilities stay as they are, which is said.
        """
        kept = self.diagnosed.rows()
        log_p, possible = kept["log_p"].numpy(), kept["possible"].numpy()
        telling = possible.any(1) & ~possible.all(1)
        self.calibration = {}
        if self.how == "none":
            return
        if len(np.unique(possible[telling], axis=0)) > 1:
            self.calibration = FITS[self.how](log_p[telling], possible[telling]) | {"groups": self.names}
        else:
            rank_zero_warn(f"{self.task} is not calibrated: the validation studies that would do it are of one group, or none.")

    def compute(self) -> dict[str, float]:
        """Metrics of the bags whose label settles one group, with their n."""
        kept = self.diagnosed.rows()
        probability, possible = self._put_right(kept["log_p"].numpy()), kept["possible"]
        said = torch.from_numpy(probability)
        settled = all_settled(possible)
        band = calibration_band(probability[settled], kept["patient"][:, 0].numpy()[settled], class_error)
        return group_metrics(said, possible, self.names) | group_trust(said, possible) | {"ece_band": band}

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """Possible groups, the predicted one, and the probability of each: of the patient and, where the head tells them, of each lobe."""
        rows = []
        for possible, row in zip(self._possible(batch).tolist(), self.probabilities(output).tolist(), strict=True):
            columns: dict[str, Any] = {self.task: "|".join(name for name, may in zip(self.names, possible, strict=True) if may)}
            columns[f"{self.task}_predicted"] = self.names[int(np.argmax(row))]
            rows.append(columns | {f"{self.task}_p_{name}": p for name, p in zip(self.names, row, strict=True)})
        lobes = self.of_lobes(output)
        for columns, each in zip(rows, [] if lobes is None else lobes.tolist(), strict=False):
            columns |= {
                f"{self.task}_{lobe.key}_p_{name}": p
                for lobe, own in zip(Lobe, each, strict=True)
                for name, p in zip(self.names, own, strict=True)
            }
        return rows

    def known(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_]:
        """Rows whose label excludes some group."""
        return np.array([0 < len({*str(row.get(self.task) or "").split("|")} & {*self.names}) < len(self.names) for row in rows], np.bool_)

    def judged(self, rows: list[dict[str, Any]]) -> Judged:
        """Group probabilities, and groups where the label allows one only."""
        probability = np.array([[number(row.get(f"{self.task}_p_{name}")) for name in self.names] for row in rows])
        said = [str(row.get(self.task) or "") for row in rows]
        group = [self.names.index(name) if name in self.names else -1 for name in said]
        return probability.reshape(-1, len(self.names)), np.array(group, dtype=np.int64)

    def allowed(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_]:
        """Groups that each label leaves possible."""
        return np.array([[n in str(row.get(self.task) or "").split("|") for n in self.names] for row in rows], np.bool_).reshape(
            -1, len(self.names)
        )

    def rewritten(self, rows: list[dict[str, Any]], probability: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Rows with other group probabilities and predicted groups."""
        return [
            row
            | {f"{self.task}_p_{name}": float(p) for name, p in zip(self.names, own, strict=True)}
            | {f"{self.task}_predicted": self.names[int(own.argmax())]}
            for row, own in zip(rows, probability, strict=True)
        ]

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """Accuracy, weighted precision, recall and F1, and per group AUC, sensitivity and specificity."""
        names = self.names
        probability = torch.tensor([[number(r.get(f"{self.task}_p_{n}")) for n in names] for r in rows], dtype=torch.float64)
        return group_statistics(probability.reshape(-1, len(names)), torch.from_numpy(self.allowed(rows)), names)

    def bearing(self, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.bool_]]:
        """Those of a group, those of the others, and of both the fewer."""
        return group_bearing(torch.from_numpy(self.allowed(rows)), self.names)


def group_bearing(possible: Tensor, names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Studies (n,) that each figure of ``group_statistics`` rests on, of those that do not rest on all; ``possible`` is (n, G)."""
    allowed = possible.numpy()
    alone, told = allowed.sum(1) == 1, allowed.any(1)
    found: dict[str, NDArray[np.bool_]] = {}
    for k, name in enumerate(names):
        found |= of_two(alone & allowed[:, k], told & ~allowed[:, k], f"_{name}")
    between = [found[f"auc_{name}"] for name in names if found[f"auc_{name}"].any()]
    return found | ({"auc": min(between, key=lambda one: int(one.sum()))} if between else {})


def all_settled(possible: Tensor) -> NDArray[np.bool_]:
    """Studies (n,) whose label allows one of G groups; none where another label excludes a group and settles none.

    Those that are settled are then chosen by what they have (all that are healthy, and some of the ill), and their frequencies say nothing.
    """
    settled = possible.sum(1) == 1
    return np.asarray((settled & ~_partly(possible).any()).numpy(), dtype=np.bool_)


def _partly(possible: Tensor) -> Tensor:
    """Labels (n,) that exclude a group and leave several."""
    return possible.any(1) & ~possible.all(1) & (possible.sum(1) > 1)


def group_trust(probability: Tensor, possible: Tensor) -> dict[str, float]:
    """Calibration error (mean over the groups, each against the rest) and Brier score of group probabilities (n, G).

    NaN without labels, and where some exclude a group without settling one.
    """
    settled = all_settled(possible)
    said, label = probability.numpy()[settled], possible.long().argmax(1).numpy()[settled]
    return {"ece": class_error(said, label), "brier": brier(said, label)}


def group_metrics(probability: Tensor, possible: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Metrics of group probabilities (n, G) against the groups that labels allow (n, G).

    Accuracy and ``recall`` are of the labels that settle one group, NaN where these are of one group and others exclude it: what these
    groups are taken for is not in them. One group against the rest: positive is a label that allows it alone, negative one that excludes
    it; what may be either is left out. ``precision``, ``recall`` and ``f1`` are means over the groups weighted by their size (as
    scikit-learn's ``weighted``), ``auc`` is the plain mean over the groups.
    """
    settled = possible.sum(1) == 1
    truth, said = possible[settled].long().argmax(1), probability[settled].argmax(1)
    metrics = {"n": float(len(truth)), "accuracy": float((truth == said).double().mean()) if len(truth) else float("nan")}
    precision, recall, f1, size = [], [], [], []
    aucs = []
    for k, name in enumerate(names):
        positive, negative = settled & possible[:, k], ~possible[:, k] & possible.any(1)
        claimed = probability.argmax(1) == k
        hit, false = float((positive & claimed).sum()), float((negative & claimed).sum())
        present, absent = float(positive.sum()), float(negative.sum())
        precision.append(hit / (hit + false) if hit + false else 0.0)
        recall.append(hit / present if present else 0.0)
        f1.append(2 * hit / (hit + false + present) if hit + false + present else 0.0)
        size.append(present)
        either = positive | negative
        aucs.append(auc(probability[either, k], positive[either]))
        metrics |= {
            f"auc_{name}": aucs[-1],
            f"sensitivity_{name}": hit / present if present else float("nan"),
            f"specificity_{name}": 1 - false / absent if absent else float("nan"),
            f"n_{name}": present,
        }
    weight = np.array(size) / sum(size) if sum(size) else np.full(len(size), np.nan)
    for what, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        metrics[what] = float(np.dot(weight, values))
    if bool(_partly(possible).any()) and len(set(truth.tolist())) < 2:
        metrics |= dict.fromkeys(("accuracy", "recall"), float("nan"))
    metrics["auc"] = nan_mean(torch.tensor(aucs, dtype=torch.float64))
    return metrics


def group_statistics(probability: Tensor, possible: Tensor, names: Sequence[str]) -> dict[str, Statistic]:
    """The headline figures of ``group_metrics`` as functions of row indices, for intervals."""
    wanted = ["accuracy", "precision", "recall", "f1", "auc"]
    wanted += [f"{what}_{name}" for what in ("auc", "sensitivity", "specificity") for name in names]
    figures = together(lambda chosen: group_metrics(probability[chosen], possible[chosen], names), wanted)
    return figures | together(lambda chosen: group_trust(probability[chosen], possible[chosen]), ["ece", "brier"])
