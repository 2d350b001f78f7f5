"""How much of the lungs is infected, and the severity scores that follow from it, read off the maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective, Statistic, number
from m2net.objectives.kept import Kept
from m2net.objectives.readings import Reading, need_map, own_pixels
from m2net.objectives.scores import score_figures, score_statistics
from m2net.studies.scores import EXTENT, OPACITY, SCORE_TITLES, geographic_extent, opacity
from m2net.vocabulary import Column, InfectionCode, LungCode

SIDES = ("right", "left")
ZONES = tuple(f"{side}_{third}" for side in SIDES for third in ("upper", "middle", "lower"))
"""Six zones: thirds of each lung's height."""

_SCORES = (EXTENT, OPACITY)


class BurdenReading(Reading):
    """How much of each lung and zone is infected, and the severity scores that follow from it."""

    def __init__(self, infection: str = "infection", lungs: str = "lungs") -> None:
        """Name the tasks with the infection and the lung map."""
        super().__init__()
        self.task, self.target = "burden", f"score:{EXTENT}"
        self.reads = (infection, lungs)
        self.tells_kinds = False
        self.scored = Kept(said=(torch.float64, 2), truth=(torch.float64, 2))

    def accept(self, objectives: Mapping[str, Objective]) -> None:
        """The lung map must tell the sides.

        Raises:
            ConfigError: a task is missing, or the lungs are merged.
        """
        super().accept(objectives)
        masks = (Column.INFECTION, Column.LUNGS)
        self.called = {name: need_map(objectives, name, mask) for name, mask in zip(self.reads, masks, strict=True)}
        if objectives[self.reads[1]].classes != 1 + len(SIDES):
            raise ConfigError(f"the task {self.reads[1]} does not tell right from left", expected="merged: false for the lungs")
        self.tells_kinds = objectives[self.reads[0]].classes > int(InfectionCode.CONSOLIDATION)

    @property
    def derived(self) -> tuple[str, ...]:
        """The scores that can be derived: opacity only from maps that tell kinds."""
        return _SCORES if self.tells_kinds else (EXTENT,)

    @property
    def scale(self) -> str:
        """What these scores are, with their ranges."""
        return "; ".join(SCORE_TITLES[name] for name in self.derived)

    def read(self, outputs: Mapping[str, Output], batch: BagBatch) -> Output:
        """Infected share of both lungs, consolidated share (NaN where kinds are not told) and infected share of six zones, (B, 10).

        A lung or zone that was not found has NaN, and so have zones where the instances' heights are not known (pictures of CT slices).
        """
        infection, lungs = (self.called[name](outputs[name].logits) for name in self.reads)
        height = _height(batch, infection.shape[1:])
        found = []
        for bag in range(batch.num_bags):
            members = batch.bag_index == bag
            own = own_pixels(batch, bag, infection.shape[1:])
            known = bool(batch.position_known[members, 2].all())
            found.append(self._shares(infection[members], lungs[members] * own, height[members] if known else None))
        return Output(torch.stack(found))

    def _shares(self, infection: Tensor, lungs: Tensor, height: Tensor | None) -> Tensor:
        sides = [lungs == side for side in (LungCode.RIGHT, LungCode.LEFT)]
        infected, solid = infection > 0, infection == InfectionCode.CONSOLIDATION
        shares = [_share(infected, side) for side in sides]
        kinds = [_share(solid, side) if self.tells_kinds else float("nan") for side in sides]
        zones = [share for side in sides for share in _thirds(infected, side, height)]
        return torch.tensor([*shares, *kinds, *zones], dtype=torch.float32)

    def _truth(self, batch: BagBatch) -> Tensor:
        unknown = torch.full((batch.num_bags,), float("nan"))
        return torch.stack([batch.bag_targets.get(f"score:{name}", unknown).cpu() for name in _SCORES], dim=1)

    def update(self, output: Output, batch: BagBatch) -> None:
        """Keep the bags with a score."""
        truth = self._truth(batch)
        known = (~truth.isnan()).any(1)
        if bool(known.any()):
            said = torch.from_numpy(derived_scores(output.logits.cpu().double().numpy(), tells_kinds=self.tells_kinds))
            self.scored.update(said=said[known], truth=truth[known])

    def compute(self) -> dict[str, float]:
        """Spearman's rho and the mean absolute error of each derived score, with n."""
        kept = self.scored.rows()
        said, truth = kept["said"].numpy(), kept["truth"].numpy()
        each = {name: score_figures(said[:, k], truth[:, k]) for k, name in enumerate(self.derived)}
        return {f"{name}_{figure}": value for name, figures in each.items() for figure, value in figures.items()}

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """Shares by lung and zone, the derived scores, and the readers' scores."""
        shares = output.logits.cpu().double().numpy()
        names = [f"{self.task}_{name}" for name in (*SIDES, *(f"solid_{side}" for side in SIDES), *ZONES)]
        rows = []
        for share, said, truth in zip(
            shares, derived_scores(shares, tells_kinds=self.tells_kinds), self._truth(batch).tolist(), strict=True
        ):
            row: dict[str, Any] = dict(zip(names, share.tolist(), strict=True))
            for k, name in enumerate(self.derived):
                row |= {f"{self.task}_{name}": float(said[k]), f"{self.task}_{name}_true": truth[k]}
            rows.append(row)
        return rows

    def known(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_]:
        """Rows with a reader's score that is derived."""
        told = [[number(row.get(f"{self.task}_{name}_true")) for name in self.derived] for row in rows]
        return np.asarray(np.isfinite(np.array(told, dtype=np.float64).reshape(len(rows), -1)).any(axis=1))

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """Spearman's rho and the mean absolute error of each derived score."""
        return {
            f"{name}_{figure}": statistic
            for name in self.derived
            for figure, statistic in score_statistics(rows, f"{self.task}_{name}", f"{self.task}_{name}_true").items()
        }


def derived_scores(shares: NDArray[np.float64], *, tells_kinds: bool) -> NDArray[np.float64]:
    """Geographic extent and opacity (n, 2) from shares (n, 10); opacity is NaN unless the map tells the kinds of infection.

    A lung that was not found adds nothing, so that a model that misses lungs is judged on those studies too.
    """
    infected, solid = np.nan_to_num(shares[:, :2]), shares[:, 2:4]
    graded = opacity(infected, np.nan_to_num(solid)) if tells_kinds else np.full(len(shares), np.nan)
    return np.stack([geographic_extent(infected), graded], axis=1)


def _thirds(infected: Tensor, side: Tensor, height: Tensor | None) -> list[float]:
    """Infected share of the upper, middle and lower third of a lung."""
    if height is None or not bool(side.any()):
        return [float("nan")] * 3
    low, high = np.quantile(height[side].cpu().numpy(), [0.01, 0.99]).tolist()  # specks do not stretch it
    third = ((high - height) / max(high - low, 1e-6) * 3).clamp(0, 2.999).long()
    return [_share(infected, side & (third == k)) for k in range(3)]


def _share(what: Tensor, of: Tensor) -> float:
    size = int(of.sum())
    return float((what & of).sum()) / size if size else float("nan")


def _height(batch: BagBatch, size: torch.Size) -> Tensor:
    """Coordinate z (ΣN, H, W) of every pixel, +1 superior."""
    rows, columns = (torch.arange(n, dtype=torch.float32, device=batch.position.device) - (n - 1) / 2 for n in size)
    step = batch.position_step[:, :, 2]
    return batch.position[:, 2, None, None] + step[:, 0, None, None] * rows[:, None] + step[:, 1, None, None] * columns
