"""Severity in two or more ordered grades."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Judged, Objective, Statistic, nan_mean, nothing, number, ratio, together
from m2net.objectives.bootstrap import of_two
from m2net.objectives.calibration import FITS, at_or_above, calibrated, of_grades
from m2net.objectives.kept import Kept
from m2net.objectives.reliability import brier, calibration_band, conformal_set, conformal_threshold, cut_error, selective_risk
from m2net.vocabulary import Column, Lobe, SeverityScheme


class SeverityObjective(Objective):
    """Ordered grades from K logits a bag.

    With p = softmax(logits) and q_k = P(grade >= k) = sum_{j >= k} p_j, the loss is the mean over k = 1..K-1 of the binary
    cross-entropy of q_k against [grade >= k]. For two grades that is the paper's cross-entropy (He et al. 2021).
    """

    primary = "auc"

    def __init__(self, scheme: str = "binary", calibrate: str = "none", coverage: float | None = None) -> None:
        """Grade in ``binary`` or ``ordinal:K``; studies graded in another scheme carry no label for this task.

        Args:
            scheme: of the grades.
            calibrate: how probabilities are put right on validation studies: none, temperature, shift (temperature and class biases) or
                isotonic.
            coverage: share of new studies whose conformal set shall hold the true grade; no sets without it. With both, every second
                validation study calibrates and the others set the threshold of the sets.

        Raises:
            ConfigError: no ordered scheme, an unknown calibration, or an impossible coverage.
        """
        super().__init__()
        if calibrate not in FITS:
            raise ConfigError(f"calibrate is {calibrate!r}", expected=f"one of {', '.join(FITS)}")
        if coverage is not None and not 0 < coverage < 1:
            raise ConfigError(f"a coverage of {coverage}", expected="between 0 and 1")
        self.how, self.coverage = calibrate, coverage
        self.scheme, self.task = scheme, str(Column.SEVERITY)
        self.target = f"{Column.SEVERITY}:{scheme}"
        self.classes = grades_of(scheme)
        columns = self.classes - 1
        self.graded = Kept(
            log_p=(torch.float64, self.classes), grade=(torch.int64, 1), patient=(torch.int64, 1), true=(torch.float64, columns)
        )

    def labels(self, batch: BagBatch) -> int:
        """Graded bags."""
        return int((~self._truth(batch).isnan()).sum())

    def _truth(self, batch: BagBatch) -> Tensor:
        unknown = torch.full((batch.num_bags,), float("nan"), device=batch.instances.device)
        return batch.bag_targets.get(self.target, unknown)

    @property
    def answers(self) -> list[str]:
        """The grades of the scheme; grade 1 of two is not grade 1 of five."""
        return [f"{self.scheme} {grade}" for grade in range(self.classes)]

    @property
    def scale(self) -> str:
        """The scheme."""
        return self.scheme

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Mean cumulative cross-entropy of the graded bags."""
        truth = self._truth(batch)
        known = ~truth.isnan()
        if not bool(known.any()):
            return nothing(output)
        log_p = F.log_softmax(output.logits.float()[known], dim=1)
        grade = truth[known]
        total = log_p.new_zeros(())
        for k in range(1, self.classes):
            above, below = log_p[:, k:].logsumexp(1), log_p[:, :k].logsumexp(1)
            total = total - torch.where(grade >= k, above, below).mean()
        return total / (self.classes - 1)

    def update(self, output: Output, batch: BagBatch) -> None:
        """Keep the graded bags."""
        truth = self._truth(batch)
        known = ~truth.isnan()
        if not bool(known.any()):
            return
        true = batch.bag_targets.get(f"true:{self.target}")
        if true is None:
            true = torch.full((batch.num_bags, self.classes - 1), float("nan"), device=truth.device)
        log_p = F.log_softmax(output.logits.double(), dim=1)[known]
        patient = batch.bag_targets[Column.PATIENT_ID]
        self.graded.update(log_p=log_p, grade=truth[known], patient=patient[known], true=true[known])

    @property
    def wants_validation(self) -> bool:
        """A calibration, or conformal sets."""
        return self.how != "none" or self.coverage is not None

    def calibrate(self) -> None:
        """Fit the calibration, and the threshold of conformal sets, on the graded bags kept: on those of every second patient each.

        Where they have one grade, or none, the probabilities stay as they are, which is said.
        """
        kept = self.graded.rows()
        log_p, grade = kept["log_p"].numpy(), kept["grade"][:, 0].numpy()
        self.calibration = {}
        if not len(grade):
            return
        both = self.how != "none" and self.coverage is not None
        patient = np.unique(kept["patient"][:, 0].numpy(), return_inverse=True)[1]  # by hash: a manifest may list them case, control, case
        fitting, sets = (patient % 2 == 0, patient % 2 == 1) if both else (patient >= 0, patient >= 0)
        if len(np.unique(grade[fitting])) > 1:
            self.calibration = FITS[self.how](log_p[fitting], grade[fitting])
        elif self.how != "none":
            rank_zero_warn(f"{self.task} is not calibrated: the validation studies that would do it have one grade, or none.")
        if self.coverage is not None:
            self.calibration["least"] = conformal_threshold(calibrated(log_p[sets], self.calibration), grade[sets], self.coverage)

    def probabilities(self, output: Output) -> NDArray[np.float64]:
        """Grade probabilities (B, K), calibrated if the checkpoint holds a calibration."""
        return calibrated(output.logits.detach().double().cpu().numpy(), self.calibration)

    def of_lobes(self, output: Output) -> NDArray[np.float64] | None:
        """P(grade >= k) that each lobe gives by itself (B, 5, K-1), NaN where a lobe is absent; None where the head tells no lobes."""
        if output.lobe_logits is None:
            return None
        flat = output.lobe_logits.detach().double().cpu().flatten(0, 1).numpy()
        return at_or_above(calibrated(flat, self.calibration)).reshape(len(output.lobe_logits), len(Lobe), -1)

    def likely(self, probability: NDArray[np.float64]) -> list[list[int]] | None:
        """Conformal set of grades of each bag, None where no threshold was fitted."""
        if "least" not in self.calibration:
            return None
        inside = conformal_set(probability, self.calibration["least"])
        return [np.flatnonzero(row).tolist() for row in inside]

    def compute(self) -> dict[str, float]:
        """Metrics, mean over the cuts, each defined or NaN, with n and the number of bags at or above each cut."""
        kept = self.graded.rows()
        probability, grade = calibrated(kept["log_p"].numpy(), self.calibration), kept["grade"][:, 0]
        metrics = figures_of(torch.from_numpy(at_or_above(probability)), grade, kept["true"]) | trust(
            probability, grade.numpy(), kept["patient"][:, 0].numpy()
        )
        if sets := self.likely(probability):
            inside = [int(g) in one for g, one in zip(grade.tolist(), sets, strict=True)]
            metrics |= {"coverage": float(np.mean(inside)), "set_size": float(np.mean([len(one) for one in sets]))}
        return metrics

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """True grade, predicted grade and P(grade >= k), of the patient and, where the head tells them, of each lobe by itself."""
        probability = self.probabilities(output)
        above, sets = at_or_above(probability), self.likely(probability)
        rows = []
        for bag, (truth, row) in enumerate(zip(self._truth(batch).tolist(), above.tolist(), strict=True)):
            columns: dict[str, Any] = {self.task: "" if math.isnan(truth) else int(truth)}
            columns[f"{self.task}_predicted"] = sum(q >= 0.5 for q in row)
            columns |= {f"{self.task}_ge{k}": q for k, q in enumerate(row, start=1)}
            if sets is not None:
                columns[f"{self.task}_set"] = "|".join(map(str, sets[bag]))
            rows.append(columns)
        lobes = self.of_lobes(output)
        for columns, scores in zip(rows, [] if lobes is None else lobes, strict=False):
            columns |= {
                f"{self.task}_{lobe.key}_ge{k + 1}": float(scores[i, k]) for i, lobe in enumerate(Lobe) for k in range(scores.shape[1])
            }
        true = batch.bag_targets.get(f"true:{self.target}")
        for columns, known in zip(rows, [] if true is None else true.tolist(), strict=False):
            columns |= {f"true_{self.task}_ge{k}": q for k, q in enumerate(known[: self.classes - 1], start=1) if not math.isnan(q)}
        return rows

    def judged(self, rows: list[dict[str, Any]]) -> Judged:
        """Grade probabilities and grades."""
        cuts = range(1, self.classes)
        above = np.array([[number(row.get(f"{self.task}_ge{k}")) for k in cuts] for row in rows]).reshape(-1, self.classes - 1)
        grade = np.array([number(row.get(self.task)) for row in rows])
        return of_grades(above), np.where(np.isnan(grade), -1, grade).astype(np.int64)

    def rewritten(self, rows: list[dict[str, Any]], probability: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Rows with other P(grade >= k) and predicted grades."""
        return [
            row
            | {f"{self.task}_ge{k}": float(q) for k, q in enumerate(above, start=1)}
            | {f"{self.task}_predicted": int((above >= 0.5).sum())}
            for row, above in zip(rows, at_or_above(probability), strict=True)
        ]

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """AUC, accuracy, kappa, sensitivity, specificity, F1 and (phantoms) the best AUC and the share of it."""
        cuts = range(1, self.classes)
        grade = torch.tensor([number(row.get(self.task)) for row in rows])
        above = torch.tensor([[number(row.get(f"{self.task}_ge{k}")) for k in cuts] for row in rows], dtype=torch.float64)
        true = torch.tensor([[number(row.get(f"true_{self.task}_ge{k}")) for k in cuts] for row in rows], dtype=torch.float64)

        def of_known(chosen: NDArray[np.int64]) -> dict[str, float]:
            index = torch.from_numpy(chosen)
            index = index[~grade[index].isnan()]
            return figures_of(above[index], grade[index].long(), true[index])

        def trusted(measure: Callable[[NDArray[np.float64], NDArray[np.int64]], float]) -> Statistic:
            def of(chosen: NDArray[np.int64]) -> float:
                chosen = chosen[~grade[chosen].isnan().numpy()]
                return measure(of_grades(above[chosen].numpy()), grade[chosen].long().numpy())

            return of

        names = ["auc", "accuracy", "kappa", "sensitivity", "specificity", "f1"]
        graded = ~grade.isnan()
        known = bool(graded.any()) and not bool(true[graded].isnan().any())
        figures = together(of_known, names + (["auc_best", "auc_share"] if known else []))
        figures |= {"ece": trusted(cut_error), "brier": trusted(brier)}
        return figures | self._set_statistics(rows, grade.numpy())

    def bearing(self, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.bool_]]:
        """Those on the smaller side of a cut, of the cut where they are fewest."""
        grade = np.array([number(row.get(self.task)) for row in rows])
        cuts = [of_two(grade >= k, grade < k) for k in range(1, self.classes)]
        there = [cut for cut in cuts if cut["auc"].any()] or cuts
        found = {name: min((cut[name] for cut in there), key=lambda told: int(told.sum())) for name in there[0]}
        return found | {"f1": found["sensitivity"], "auc_best": found["auc"], "auc_share": found["auc"]}

    def within(self, figures: dict[str, Statistic]) -> dict[str, Statistic]:
        """The share of the best AUC is that of both means: in a small fold the best may come close to chance, and its share anywhere."""
        if "auc_share" not in figures:
            return figures
        auc, best = figures["auc"], figures["auc_best"]
        return figures | {"auc_share": lambda chosen: share_above_chance(auc(chosen), best(chosen))}

    def _set_statistics(self, rows: list[dict[str, Any]], grade: NDArray[np.float32]) -> dict[str, Statistic]:
        """Coverage and size of the conformal sets, where the rows hold them."""
        name = f"{self.task}_set"
        if not any(name in row for row in rows):
            return {}
        sets = [[int(g) for g in str(row.get(name, "")).split("|") if g] for row in rows]
        told = np.array([name in row for row in rows]) & ~np.isnan(grade)  # a fold may have had no study to set a threshold on
        inside = np.array([float(int(g) in one) if k else float("nan") for g, one, k in zip(grade, sets, told, strict=True)])
        size = np.where(np.isnan(inside), np.nan, [float(len(one)) for one in sets])
        return {"coverage": lambda c: nan_mean(torch.from_numpy(inside[c])), "set_size": lambda c: nan_mean(torch.from_numpy(size[c]))}


def grades_of(scheme: str) -> int:
    """Number of grades of an ordered scheme.

    Raises:
        ConfigError: a score, or an unknown scheme.
    """
    try:
        grades = SeverityScheme.grades(scheme)
    except ValueError:
        grades = None
    if grades is None:
        raise ConfigError(f"the severity scheme {scheme!r} has no grades", expected="binary or ordinal:GRADES, as ordinal:5")
    return grades


def trust(probability: NDArray[np.float64], grade: NDArray[np.int64], patient: NDArray[np.int64]) -> dict[str, float]:
    """How far (n, K) grade probabilities of the studies of these patients (n,) can be trusted.

    Returns:
        ``ece``, ``ece_band`` (what a calibrated model stays below at 95 %), ``brier``, ``risk_half`` (error rate among the more confident
        half) and ``aurc`` (mean error rate over all shares kept); NaN without studies.
    """
    if not len(grade):
        return dict.fromkeys(("ece", "ece_band", "brier", "risk_half", "aurc"), float("nan"))
    said = (at_or_above(probability) >= 0.5).sum(1)
    risk = selective_risk(probability[np.arange(len(said)), said], said != grade)
    return {
        "ece": cut_error(probability, grade),
        "ece_band": calibration_band(probability, patient),
        "brier": brier(probability, grade),
        "risk_half": float(risk[(len(risk) - 1) // 2]),
        "aurc": float(risk.mean()),
    }


def share_above_chance(value: float, best: float) -> float:
    """(AUC - 0.5) / (best AUC - 0.5); NaN where the best is no better than chance."""
    return (value - 0.5) / (best - 0.5) if best > 0.5 else float("nan")


def cut_auc(above: Tensor, grade: Tensor) -> float:
    """Mean over the cuts of the AUC of P(grade >= k) against [grade >= k]; cuts with one class only are left out."""
    return nan_mean(torch.tensor([auc(above[:, k - 1], grade >= k) for k in range(1, above.shape[1] + 1)]))


def auc(score: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve, NaN where only one class is present."""
    if bool(positive.all()) or not bool(positive.any()):
        return float("nan")
    ranks = torch.from_numpy(rankdata(score.double().cpu().numpy()))
    hits, misses = int(positive.sum()), int((~positive).sum())
    above = float(ranks[positive.cpu()].sum()) - hits * (hits + 1) / 2  # Mann-Whitney; ties count half
    return above / (hits * misses)


def kappa(said: NDArray[np.int64], grade: NDArray[np.int64]) -> float:
    """Quadratic weighted kappa (Cohen 1968) of predicted and true grades (n,): 1 less mean squared distance over that of chance.

    Cohen's kappa where there are two grades; NaN where both are one and the same throughout.
    """
    if not len(grade):
        return float("nan")
    apart = float(((said - grade) ** 2).mean())
    chance = float(said.var() + grade.var() + (said.mean() - grade.mean()) ** 2)  # of pairs drawn apart
    return 1 - apart / chance if chance > 0 else float("nan")


def figures_of(above: Tensor, grade: Tensor, true: Tensor) -> dict[str, float]:
    """Metrics of P(grade >= k) (n, K-1) against grades (n,); with the true probabilities (n, K-1) also what they reach.

    auc_share = (auc - 0.5) / (auc_best - 0.5), where auc_best is the AUC of the probabilities that phantoms were drawn from.
    """
    metrics = grade_metrics(above, grade)
    if len(grade) and not bool(true.isnan().any()):
        best = cut_auc(true, grade)
        metrics["auc_best"] = best
        metrics["auc_share"] = share_above_chance(metrics["auc"], best)
    return metrics


def grade_metrics(above: Tensor, grade: Tensor) -> dict[str, float]:
    """Metrics of P(grade >= k) (n, K-1) against grades (n,).

    Accuracy and kappa are of the predicted grade (the number of cuts with P >= 0.5); the others are means over the cuts of the two-class
    figures (at or above k against below).
    """
    said = (above >= 0.5).sum(1)
    names = ("precision", "recall", "f1", "sensitivity", "specificity")
    per_cut: dict[str, list[float]] = {name: [] for name in names}
    for k in range(1, above.shape[1] + 1):
        truth, claim = grade >= k, above[:, k - 1] >= 0.5
        hit, false, miss = float((truth & claim).sum()), float((~truth & claim).sum()), float((truth & ~claim).sum())
        rest = float((~truth & ~claim).sum())
        sensitivity = ratio(hit, hit + miss)
        values = (ratio(hit, hit + false), sensitivity, ratio(2 * hit, 2 * hit + false + miss), sensitivity, ratio(rest, rest + false))
        for name, value in zip(names, values, strict=True):
            per_cut[name].append(value)
    metrics = {name: nan_mean(torch.tensor(values)) for name, values in per_cut.items()}
    metrics["accuracy"] = float((said == grade).double().mean()) if len(grade) else float("nan")
    metrics["kappa"] = kappa(said.numpy(), grade.numpy())
    metrics["auc"] = cut_auc(above, grade)
    metrics["n"] = float(len(grade))
    metrics |= {f"n_ge{k}": float((grade >= k).sum()) for k in range(1, above.shape[1] + 1)}
    return metrics
