"""Infection or not, read off the infection map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective, Statistic, number, together
from m2net.objectives.bootstrap import of_two
from m2net.objectives.kept import Kept
from m2net.objectives.readings import Reading, need_map, own_pixels
from m2net.objectives.segmentation import foreground_probability
from m2net.objectives.severity import auc
from m2net.vocabulary import Column

_COLUMNS = ("", "_any_pixel", "_rule", "_area")


class DetectionReading(Reading):
    """Whether there is infection, read off the infection map by two rules.

    ``any``: any pixel that is called infected (Degerli et al. 2021). Calibrated: the infected area, at a probability threshold, is at
    least a share of the lungs (of the picture without a lung task); both thresholds are chosen on validation studies: among those
    that reach the wanted sensitivity, the pair with the highest specificity.
    """

    def __init__(
        self,
        infection: str = "infection",
        lungs: str = "",
        sensitivity: float = 0.95,
        probabilities: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    ) -> None:
        """Choose tasks and the sensitivity wanted on validation.

        Args:
            infection: task with the infection map.
            lungs: task with the lung map, or with the lobes, which together are the lungs; "" for none.
            sensitivity: wanted on validation.
            probabilities: thresholds of the infection's probability to choose from.

        Raises:
            ConfigError: impossible values.
        """
        super().__init__()
        if not 0 < sensitivity <= 1 or not probabilities or not all(0 < p < 1 for p in probabilities):
            raise ConfigError(f"sensitivity {sensitivity}, probabilities {list(probabilities)}", expected="values between 0 and 1")
        self.task, self.target = "detection", str(Column.INFECTED)
        self.reads = (infection, lungs) if lungs else (infection,)
        self.sensitivity, self.probabilities = float(sensitivity), [float(p) for p in probabilities]
        columns = len(self.probabilities) + 1
        self.seen = Kept(areas=(torch.float64, columns), infected=(torch.float64, 1))

    def accept(self, objectives: Mapping[str, Objective]) -> None:
        """The maps must be of infection, and of lungs or lobes.

        Raises:
            ConfigError: a task is missing, or draws something else.
        """
        super().accept(objectives)
        masks = ((Column.INFECTION,), (Column.LUNGS, Column.LOBES))[: len(self.reads)]
        self.called = {name: need_map(objectives, name, *mask) for name, mask in zip(self.reads, masks, strict=True)}

    def read(self, outputs: Mapping[str, Output], batch: BagBatch) -> Output:
        """Infected share of the lungs at each probability threshold, NaN without lungs, and the number of pixels called, (B, P + 1)."""
        probability = foreground_probability(outputs[self.reads[0]].logits)
        called = self.called[self.reads[0]](outputs[self.reads[0]].logits) > 0
        likeliest = [outputs[name].logits.argmax(1) > 0 for name in self.reads[1:]]  # the same lungs before and after they are calibrated
        lung = likeliest[0] if likeliest else torch.ones_like(called)
        found = []
        for bag in range(batch.num_bags):
            members = batch.bag_index == bag
            own = own_pixels(batch, bag, called.shape[1:])
            inside = lung[members] & own
            areas = [((probability[members] >= p) & inside).sum() / inside.sum() for p in self.probabilities]  # NaN without lungs
            found.append(torch.stack([*areas, (called[members] & own).sum().float()]))
        return Output(torch.stack(found))

    def _truth(self, batch: BagBatch) -> Tensor:
        return batch.bag_targets.get(self.target, torch.full((batch.num_bags,), float("nan")))

    def update(self, output: Output, batch: BagBatch) -> None:
        """Keep the bags whose answer is known."""
        truth = self._truth(batch)
        known = ~truth.isnan()
        if bool(known.any()):
            self.seen.update(areas=output.logits[known], infected=truth[known])

    def calibrate(self) -> None:
        """Choose both thresholds on what was kept, where both answers occur."""
        kept = self.seen.rows()
        known = ~kept["areas"].isnan().any(1)
        areas, infected = kept["areas"][known].numpy()[:, :-1], kept["infected"][known].numpy()[:, 0] > 0.5
        self.calibration = {}
        if infected.all() or not infected.any():
            rank_zero_warn(f"{self.task} has no rule: the validation studies that would set it are all infected, or none is.")
            return
        best = (-1.0, 0.0, 0.0)
        for k, p in enumerate(self.probabilities):
            needed = math.ceil(self.sensitivity * infected.sum() - 1e-9)
            area = float(np.sort(areas[infected, k])[::-1][needed - 1])
            specificity = float((areas[~infected, k] < area).mean())
            if area > 0 and specificity > best[0]:
                below = areas[:, k][areas[:, k] < area]  # halfway to the next study, so that equal areas do not hang on rounding
                best = (specificity, p, (area + float(below.max(initial=0.0))) / 2)
        if best[0] < 0:
            rank_zero_warn(f"{self.task} has no rule: no area reaches a sensitivity of {self.sensitivity:g} on the validation studies.")
            return
        self.calibration = {"probability": best[1], "area": best[2]}

    def decide(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rule ``any`` (B,), calibrated rule (B,) and area (B,); NaN where no threshold was chosen."""
        nothing_known = torch.full((len(logits),), float("nan"), dtype=logits.dtype)
        paper = (logits[:, -1] > 0).to(logits.dtype).cpu()
        if not self.calibration:
            return paper, nothing_known, logits[:, self._nearest(0.5)].cpu()
        area = logits[:, self._nearest(self.calibration["probability"])].cpu()
        rule = (area >= self.calibration["area"]).to(logits.dtype)
        return paper, torch.where(area.isnan(), nothing_known, rule), area

    def _nearest(self, probability: float) -> int:
        return min(range(len(self.probabilities)), key=lambda k: abs(self.probabilities[k] - probability))

    def compute(self) -> dict[str, float]:
        """Sensitivity and specificity of both rules, and the AUC of the area, with n."""
        kept = self.seen.rows()
        paper, rule, area = self.decide(kept["areas"])
        truth = kept["infected"][:, 0]
        figures = detection_figures(np.stack([truth, paper, rule, area], axis=1))
        return figures | {"n": float(len(truth)), "n_infected": float((truth > 0.5).sum())}

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """Truth, both rules' answers, and the area."""
        columns = (self._truth(batch), *self.decide(output.logits))
        names = [f"{self.task}{column}" for column in _COLUMNS]
        return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """The same figures of rows."""
        names = [f"{self.task}{column}" for column in _COLUMNS]
        table = np.array([[number(row.get(name)) for name in names] for row in rows], dtype=np.float64).reshape(-1, len(names))

        return together(lambda chosen: detection_figures(table[chosen]), detection_figures(table))

    def bearing(self, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.bool_]]:
        """The infected, the others, and of both the fewer."""
        truth, rule, area = (np.array([number(row.get(f"{self.task}{what}")) for row in rows]) for what in ("", "_rule", "_area"))
        answered = _answered(rule, area)
        found = of_two(truth > 0.5, truth <= 0.5)
        any_pixel = {f"any_pixel_{name}": found[name] for name in ("sensitivity", "specificity")}
        return found | any_pixel | {name: found[name] & answered for name in ("sensitivity", "specificity")}


def detection_figures(table: NDArray[np.float64]) -> dict[str, float]:
    """Figures from (n, 4) truth, rule ``any``, calibrated rule and area; rows of unknown truth are left out.

    A study without an area (no lungs were found) counts against a rule. A rule that was not set, as in a fold whose validation part had one
    answer only, answers none: its studies are left out, and it is undefined where it was never set.
    """
    table = table[~np.isnan(table[:, 0])]
    infected = table[:, 0] > 0.5
    figures = {}
    for name, column in (("any_pixel_", 1), ("", 2)):
        said = table[:, column]
        answered = _answered(said, table[:, 3]) & ~np.isnan(said).all()
        for figure, group, hit in (("sensitivity", infected, said > 0.5), ("specificity", ~infected, said <= 0.5)):
            figures[f"{name}{figure}"] = float(hit[group & answered].mean()) if (group & answered).any() else float("nan")
    area = torch.from_numpy(np.nan_to_num(table[:, 3], nan=0.0))
    figures["auc"] = auc(area, torch.from_numpy(infected)) if len(table) else float("nan")
    return figures


def _answered(said: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Studies (n,) that a rule answers or, without an area, should have answered."""
    return ~(np.isnan(said) & np.isfinite(area))
