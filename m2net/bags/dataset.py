"""Studies as bags for a DataLoader, with draws keyed by seed, step and study."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from m2net.bags.cutting import cut_bag
from m2net.bags.inputs import InputSpec
from m2net.bags.sampling import cover, sample
from m2net.bags.store import Store
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.studies import Study
from m2net.vocabulary import TRUE_SEVERITY_PREFIX, Column, Diagnosis, Modality, SeverityScheme

Key = tuple[int, int]  # index of the study, number of the draw
_KEPT_BYTES = 2**30  # of training radiographs in memory


def severity_target(scheme: str) -> str:
    """Key of a batch's bag target for severity in one scheme; studies graded otherwise carry no label for it."""
    return f"{Column.SEVERITY}:{scheme}"


def score_target(name: str) -> str:
    """Key of a batch's bag target for a real-valued score."""
    return f"score:{name}"


class BagDataset(Dataset[BagBatch]):
    """Prepared studies as bags of one.

    A radiograph is cut alike at every draw, so that training ones stay in memory, up to a gigabyte over all loading processes.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        store: Store,
        spec: InputSpec,
        masks: tuple[str, ...],
        *,
        schemes: Sequence[str],
        scores: Sequence[str] = (),
        cap: int | None,
        seed: int,
    ) -> None:
        """Wrap studies.

        Args:
            studies: rows of a manifest, all in the store.
            store: where they are prepared.
            spec: how to cut.
            masks: masks that travel as dense targets.
            schemes: severity schemes that travel as bag targets.
            scores: real-valued scores that travel as bag targets.
            cap: instances of a training bag; None covers the lungs fully (evaluation).
            seed: part of every draw's key.
        """
        self.studies = list(studies)
        self.store = store
        self.spec = spec
        self.masks = masks
        self.schemes, self.scores = tuple(schemes), tuple(scores)
        self.cap = cap
        self.seed = seed
        self._kept: dict[int, BagBatch] = {}
        self._keeps = spec.modality == Modality.CXR and cap is not None

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.studies)

    def __getitem__(self, key: Key | int) -> BagBatch:
        """Cut the bag of one draw."""
        index, number = key if isinstance(key, tuple) else (key, 0)
        study = self.studies[index]
        draw = self._key(study, number)
        if index not in self._kept:
            batch = self._cut(study, draw)
            if self._keeps:
                self._keep(index, batch)
            return batch
        kept = self._kept[index]
        dense = {name: target.long() for name, target in kept.dense.items()}
        return replace(kept, instances=kept.instances.clone(), dense=dense, draws=torch.tensor([draw], dtype=torch.int64))

    def _keep(self, index: int, batch: BagBatch) -> None:
        """Remember a bag, its masks as small numbers, until there is no room for another: radiographs are all of one size here."""
        small = replace(batch, instances=batch.instances.clone(), dense={name: target.short() for name, target in batch.dense.items()})
        size = sum(tensor.nbytes for tensor in (small.instances, *small.dense.values()))
        worker = get_worker_info()
        self._keeps = (len(self._kept) + 1) * size <= _KEPT_BYTES // (worker.num_workers if worker else 1)
        if self._keeps:
            self._kept[index] = small

    def _cut(self, study: Study, draw: int) -> BagBatch:
        prepared = self.store.open(study)
        if prepared.modality != self.spec.modality:
            raise ConfigError(f"study {study.study_id} is {prepared.modality}", expected=f"{self.spec.modality}, as input.modality says")
        if prepared.intensity != self.spec.intensity:
            raise ConfigError(
                f"study {study.study_id} has {prepared.intensity} intensity", expected=f"{self.spec.intensity}, as the input says",
                remedy="HU and relative studies never share a model",
            )  # fmt: skip
        cut = cover(prepared, self.spec) if self.cap is None else sample(prepared, self.spec, self.cap, np.random.default_rng(draw))
        batch = cut_bag(prepared, cut, self.spec, study.study_id, draw, self.masks)
        batch.bag_targets = bag_targets(study, self.schemes, self.scores)
        return batch

    def _key(self, study: Study, number: int) -> int:
        name = zlib.crc32(study.study_id.encode())
        return int(np.random.SeedSequence([self.seed, number, name]).generate_state(1, np.uint64)[0] >> 2)


def bag_targets(study: Study, schemes: Sequence[str], scores: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Labels of one study as (1,) or (1, classes) tensors; unknown is NaN, or a set with no member; the patient is a number."""
    targets = {
        str(Column.DIAGNOSIS): torch.tensor([[d in study.possible for d in Diagnosis]]),
        str(Column.PATIENT_ID): torch.tensor([zlib.crc32(study.patient_id.encode())]),
        str(Column.INFECTED): torch.tensor([float("nan") if study.infected is None else float(study.infected)]),
    }
    for scheme in schemes:
        known = study.severity is not None and study.severity_scheme == scheme
        targets[severity_target(scheme)] = torch.tensor([study.severity if known else float("nan")], dtype=torch.float32)
        if grades := SeverityScheme.grades(scheme):
            targets[f"true:{severity_target(scheme)}"] = _true_probabilities(study, scheme, grades)
    for name in scores:
        targets[score_target(name)] = torch.tensor([study.scores.get(name, float("nan"))], dtype=torch.float32)
    return targets


def _true_probabilities(study: Study, scheme: str, grades: int) -> torch.Tensor:
    """(1, grades - 1) P(grade >= 1), ... that a phantom's grade was drawn from, NaN where the manifest has none in this scheme."""
    given = study.extra if study.severity_scheme == scheme else {}
    return torch.tensor([[float(given.get(f"{TRUE_SEVERITY_PREFIX}{k}") or "nan") for k in range(1, grades)]], dtype=torch.float32)


class EpochSampler(Sampler[Key]):
    """Studies in a new order every epoch; each draw carries its number, so that it can be repeated."""

    def __init__(self, size: int, seed: int, chances: Sequence[float] | None = None) -> None:
        """Sample ``size`` studies an epoch: each once, or drawn anew with ``chances`` proportional to these."""
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.start = 0
        """Draws left out at the next iteration, whose numbers go on all the same."""
        self.chances = None if chances is None else np.asarray(chances) / np.sum(chances)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Draws an epoch."""
        return self.size

    def __iter__(self) -> Iterator[Key]:
        """Yield (study, number of the draw)."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.size) if self.chances is None else rng.choice(self.size, self.size, p=self.chances)
        start, self.start = self.start, 0
        for slot, index in enumerate(order[start:], start):
            yield int(index), self.epoch * self.size + slot


def balanced_chances(labels: Sequence[set[str]], targets: Sequence[str]) -> list[float]:
    """Chances of studies, summing to 1, to which every target gives the same weight, shared by the studies that carry it.

    A study's chance is the sum over its targets, so that a rare target is in at least its share of the draws, and a common one, which
    studies with rare ones carry as well, in more.

    Args:
        labels: targets that each study carries.
        targets: those that give weight; studies with none of them are drawn as often as without balance.
    """
    counts = {target: sum(target in own for own in labels) for target in targets}
    shares = [sum(1 / counts[t] for t in targets if t in own) for own in labels]
    named = sum(share > 0 for share in shares) / len(labels)
    return [share / len(targets) * named if share else 1 / len(labels) for share in shares]
