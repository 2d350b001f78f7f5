"""Rows of tensors kept over an epoch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Kept(Metric):
    """Named tables whose rows are added batch by batch; metrics that need every study are computed from them.

    Every process of a run sees every study that is judged (bags.loader.EveryStudy), so nothing is joined across processes.
    """

    full_state_update = False

    def __init__(self, **tables: tuple[torch.dtype, int]) -> None:
        """Keep tables by name, each of a type and a number of columns."""
        super().__init__(sync_on_compute=False)
        self.tables = tables
        for name in tables:
            self.add_state(name, default=[])

    def update(self, **rows: Tensor) -> None:
        """Add (n, columns) rows to every table, or (n,) to one of a single column."""
        for name, (kind, columns) in self.tables.items():
            getattr(self, name).append(rows[name].detach().to(self.device, kind).reshape(-1, columns))

    def rows(self) -> dict[str, Tensor]:
        """Every table (rows, columns), empty before the first update."""
        found = self.compute()  # torchmetrics squeezes what holds a single number
        return {name: found[name].reshape(-1, columns) for name, (_, columns) in self.tables.items()}

    def compute(self) -> dict[str, Tensor]:
        """The tables as they lie."""
        kept = {}
        for name, (kind, columns) in self.tables.items():
            kept[name] = torch.cat([torch.zeros((0, columns), dtype=kind), *(part.cpu() for part in getattr(self, name))])
        return kept
