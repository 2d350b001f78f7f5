"""A DataLoader that goes on where a killed training stopped, within the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, DistributedSampler

from m2net.bags.dataset import EpochSampler
from m2net.batch import BagBatch


class EveryStudy(DistributedSampler[int]):
    """All studies, in order, in every process.

    Lightning would otherwise part validation and test studies among processes and repeat some to make the parts even: figures would hold
    studies twice, and a process would know the predictions of its own part only.
    """

    def __init__(self, studies: Dataset[Any]) -> None:
        """Take them as one process would."""
        super().__init__(studies, num_replicas=1, rank=0, shuffle=False)


class ResumableLoader(DataLoader[BagBatch]):
    """Counts the batches handed out; Lightning keeps the count in its checkpoints (``state_dict``, ``load_state_dict``)."""

    _handed_out = 0
    _loaded: dict[str, int] | None = None

    def __iter__(self) -> Iterator[BagBatch]:  # type: ignore[override]
        """Batches of the epoch, from where the loaded state stopped.

        Nothing is drawn before the first batch is asked for, by when Lightning has told the sampler its epoch.
        """
        sampler: Any = self.sampler
        loaded, self._loaded = self._loaded, None
        skip = loaded["handed_out"] if loaded and loaded["epoch"] == _epoch(sampler) else 0
        self._handed_out = skip
        if isinstance(sampler, EpochSampler):
            sampler.start = skip * (self.batch_size or 1)
            batches: Iterator[BagBatch] = super().__iter__()
        else:  # wrapped for several processes: drawn and left
            batches = islice(super().__iter__(), skip, None)
        for batch in batches:
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed out, and the epoch that they belong to."""
        return {"handed_out": self._handed_out, "epoch": _epoch(self.sampler)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out as many when that epoch goes on; another one begins at its beginning."""
        self._loaded = {name: int(value) for name, value in state.items()}


def _epoch(sampler: Any) -> int:
    """Epoch of a sampler, or of the one that it wraps."""
    return int(getattr(sampler, "epoch", getattr(getattr(sampler, "sampler", None), "epoch", 0)))
