"""Learning from studies without any label: parts of every picture are hidden, and the network draws what was there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from m2net.bags.inputs import InputSpec
from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives.base import Objective, Statistic
from m2net.objectives.kept import Kept

_MASK_KEY = 0x41DE


class RestorationObjective(Objective):
    """Restoring hidden squares of the pictures, which every study teaches (in-painting: Pathak et al. 2016, Zhou et al. 2021).

    The picture is the middle slice of an instance as the network would see it, after augmentation. A square is hidden in all slices of an
    instance, and filled with one value drawn from the window. Only hidden pixels count.
    """

    primary = ""
    needs_labels = False
    target = ""

    def __init__(self, share: float = 0.4, square: int = 8) -> None:
        """Choose what is hidden.

        Args:
            share: of the squares of each instance.
            square: pixels along its side.

        Raises:
            ConfigError: nothing or everything would be hidden.
        """
        super().__init__()
        if not 0 < share < 1 or not isinstance(square, int) or square < 1:
            raise ConfigError(
                f"restoration of a share of {share} in squares of {square} pixels",
                expected="a share between 0 and 1, a whole number from 1",
            )
        self.task, self.classes = "restoration", 1
        self.share, self.square, self.slices = float(share), square, 1
        self.sums = Kept(sums=(torch.float64, 4))

    def look_at(self, spec: InputSpec) -> None:
        """Learn which channels of an instance are slices.

        Raises:
            ConfigError: a square is as large as an instance.
        """
        self.slices = spec.slices
        if self.square >= spec.patch:
            raise ConfigError(
                f"restoration in squares of {self.square} pixels on a patch of {spec.patch}",
                expected="squares smaller than data.input.patch",
            )

    @property
    def answers(self) -> list[str]:
        """The middle slice's value."""
        return ["value"]

    def labels(self, batch: BagBatch) -> int:
        """Every bag teaches."""
        return batch.num_bags

    def hidden(self, batch: BagBatch) -> Tensor:
        """Which pixels are hidden, (ΣN, H, W) bool; by the bags' keys, so that the same draw hides the same."""
        return self._drawn(batch)[0]

    def _drawn(self, batch: BagBatch) -> tuple[Tensor, Tensor]:
        """Hidden pixels (ΣN, H, W), and the value that each square would be filled with (ΣN, H, W)."""
        height, width = batch.instances.shape[2:]
        high, wide = -(-height // self.square), -(-width // self.square)
        count = min(max(round(self.share * high * wide), 1), high * wide - 1)
        order, value = torch.empty(2, batch.num_instances, high * wide)
        for bag, key in enumerate(batch.draws.tolist()):
            members = (batch.bag_index == bag).cpu()
            generator = torch.Generator().manual_seed(key ^ _MASK_KEY)
            order[members], value[members] = torch.rand((2, int(members.sum()), high * wide), generator=generator)
        chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order.argsort(1)[:, :count], value=True)

        def spread(squares: Tensor) -> Tensor:
            laid = squares.view(-1, high, wide).repeat_interleave(self.square, 1).repeat_interleave(self.square, 2)
            return laid[:, :height, :width].to(batch.instances.device)

        return spread(chosen), spread(2 * value - 1)

    def hide(self, batch: BagBatch) -> BagBatch:
        """The batch with hidden squares painted over in its slices; coordinates stay."""
        hidden, value = self._drawn(batch)
        slices, rest = batch.instances[:, : self.slices], batch.instances[:, self.slices :]
        painted = torch.where(hidden[:, None], value[:, None], slices)
        return replace(batch, instances=torch.cat([painted, rest], dim=1))

    def shown(self, output: Output, batch: BagBatch, instance: int) -> tuple[Tensor, Tensor]:
        """The middle slice of an instance as it was given, and with its hidden squares as they were drawn; (H, W) each."""
        given = self.hide(batch).instances[instance, self.slices // 2].float()
        return given, torch.where(self.hidden(batch)[instance], output.logits[instance, 0].float(), given)

    def turned_back(self, output: Output) -> Output:
        """The restored picture flipped."""
        return replace(output, logits=output.logits.flip(3))

    def loss(self, output: Output, batch: BagBatch) -> Tensor:
        """Mean squared error over hidden pixels, in units of half the window; ``batch`` is the one before ``hide``."""
        hidden = self.hidden(batch)
        return (output.logits[:, 0].float() - self._truth(batch))[hidden].square().mean()

    def _truth(self, batch: BagBatch) -> Tensor:
        return batch.instances[:, self.slices // 2].float()

    def update(self, output: Output, batch: BagBatch) -> None:
        """Add each study's hidden pixels; padding does not count."""
        counted = self.hidden(batch) if batch.owned is None else self.hidden(batch) & batch.owned.to(batch.instances.device)
        truth, said = self._truth(batch), output.logits[:, 0]
        for bag in range(batch.num_bags):
            chosen = counted & (batch.bag_index == bag)[:, None, None]
            value = truth[chosen].double()
            error = said[chosen].double() - value
            self.sums.update(
                sums=torch.stack([torch.tensor(float(len(value))).to(value), value.sum(), value.square().sum(), error.square().sum()])[None]
            )

    def compute(self) -> dict[str, float]:
        """R2 (explained share of the hidden pixels' variance) and root mean square error in half windows, with n studies."""
        rows = self.sums.rows()["sums"]
        pixels, value, square, error = rows.sum(0).tolist()
        spread = square - value**2 / pixels if pixels else 0.0
        return {
            "r2": 1 - error / spread if spread > 0 else float("nan"),
            "rmse": (error / pixels) ** 0.5 if pixels else float("nan"),
            "n": float(len(rows)),
        }

    def statistics(self, rows: list[dict[str, Any]]) -> dict[str, Statistic]:
        """None: it has no columns."""
        return {}

    def rows(self, output: Output, batch: BagBatch) -> list[dict[str, Any]]:
        """No column: what was hidden is nothing to predict of a study."""
        return [{} for _ in range(batch.num_bags)]
