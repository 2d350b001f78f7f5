"""A DataLoader that goes on where a killed training stopped, within the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from m2net.bags.dataset import EpochSampler
from m2net.batch import BagBatch


class ResumableLoader(DataLoader[BagBatch]):
    """Counts the batches handed out; Lightning keeps the count in its checkpoints (``state_dict``, ``load_state_dict``)."""

    _handed_out = 0
    _skip = 0

    def __iter__(self) -> Iterator[BagBatch]:  # type: ignore[override]
        """Batches of the epoch, from where the loaded state stopped.

        Nothing is drawn before the first batch is asked for, by when Lightning has told the sampler its epoch.
        """
        skip, self._skip = self._skip, 0
        self._handed_out = skip
        sampler: Any = self.sampler
        if isinstance(sampler, EpochSampler):
            sampler.start = skip * (self.batch_size or 1)
            batches: Iterator[BagBatch] = super().__iter__()
        else:  # wrapped for several processes: drawn and left
            batches = islice(super().__iter__(), skip, None)
        for batch in batches:
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed out in this epoch; none once it is over."""
        return {"handed_out": self._handed_out % max(1, len(self))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out as many at the next epoch."""
        self._skip = int(state["handed_out"])
