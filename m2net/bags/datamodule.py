"""The LightningDataModule: manifest and store in, BagBatches out."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from m2net.bags.beside import LUNG_MASKS
from m2net.bags.cutting import join
from m2net.bags.dataset import BagDataset, EpochSampler, balanced_chances, score_target, severity_target
from m2net.bags.inputs import InputSpec
from m2net.bags.loader import EveryStudy, ResumableLoader
from m2net.bags.look import look_of
from m2net.bags.preparing import prepare_missing, refuse_rejected, rejected_verdicts
from m2net.bags.store import Store
from m2net.bags.transforms import Augmentation, add_coordinates, apply_window
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.studies import Manifest, Study, part_of, read_manifest
from m2net.vocabulary import MASK_COLUMNS, Column, Split


class BagDataModule(pl.LightningDataModule):
    """Studies of a manifest as bags.

    Training draws at most ``instances`` patches a study; validation, test and prediction cover the lungs fully, one study a
    batch. ``test`` takes the manifest's test part, or every study if the manifest has no split.
    """

    def __init__(
        self,
        manifest: str,
        store: str,
        input: dict[str, Any] | None = None,
        masks: list[str] | None = None,
        instances: int = 32,
        studies_per_batch: int = 4,
        augmentation: dict[str, Any] | None = None,
        fold: int | None = None,
        workers: int = 0,
        prepare_workers: int = 2,
        repair: bool = False,
        allow: list[str] | None = None,
        seed: int = 0,
        balance: list[str] | None = None,
        validate: bool = True,
    ) -> None:
        """Configure; all values are plain.

        Args:
            manifest: CSV of studies.
            store: folder of prepared studies; what is missing is prepared first.
            input: see InputSpec.
            masks: masks that travel as dense targets (lobes, lungs, infection).
            instances: most patches of a training bag.
            studies_per_batch: bags of a training batch.
            augmentation: see Augmentation.
            fold: held-out fold of the manifest's ``fold`` column; None uses its ``split`` column.
            workers: processes of the DataLoader.
            prepare_workers: processes that prepare studies.
            repair: resample irregular series (uneven, missing or sheared slices) instead of refusing them.
            allow: study_ids to train on although m2net verify rejects them.
            seed: seeds order, sampling and augmentation.
            balance: labels of equal weight in the training draws, as ``lobes`` and ``severity:binary``: a study that carries a rare one is
                drawn more often, one that carries none of them as often as before; each study once an epoch without it.
            validate: whether a part is kept to choose the checkpoint; otherwise it trains too, and the trainer must not ask for it
                (limit_val_batches: 0).

        Raises:
            ConfigError: a value is not usable.
        """
        super().__init__()
        self.spec = InputSpec.of(input)
        self.masks = tuple(masks or ())
        strange = set(self.masks) - {str(c) for c in MASK_COLUMNS}
        if strange:
            raise ConfigError(f"data.masks has {', '.join(sorted(strange))}", expected=f"some of {', '.join(MASK_COLUMNS)}")
        if instances < 1 or studies_per_batch < 1:
            raise ConfigError(f"{instances} instances, {studies_per_batch} studies a batch", expected="at least 1 of each")
        if workers < 0 or prepare_workers < 1 or seed < 0:
            raise ConfigError(
                f"data has workers {workers}, prepare_workers {prepare_workers} and seed {seed}",
                expected="workers and seed from 0, prepare_workers from 1",
            )  # fmt: skip
        self.augmentation = Augmentation.of(augmentation, self.spec, self.masks)
        self.manifest_path = Path(manifest)
        self.store = Store(Path(store), self.spec.spacing_mm, repair=repair)
        self.instances = instances
        self.studies_per_batch = studies_per_batch
        self.fold = fold
        self.workers = workers
        self.prepare_workers = prepare_workers
        self.allow = tuple(allow or ())
        self.seed = seed
        self.balance = tuple(balance or ())
        self.validate = validate
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """The checked manifest."""
        if self._manifest is None:
            self._manifest = read_manifest(self.manifest_path)
        return self._manifest

    @property
    def schemes(self) -> list[str]:
        """Severity schemes in the manifest."""
        return sorted({s.severity_scheme for s in self.manifest if s.severity_scheme})

    @property
    def scores(self) -> list[str]:
        """Real-valued scores in the manifest."""
        return sorted({name for s in self.manifest for name in s.scores})

    def part(self, split: Split) -> list[Study]:
        """Studies of one part.

        Raises:
            ConfigError: the part is empty.
        """
        folded = any(s.fold is not None for s in self.manifest)
        if self.fold is not None and (folded or split is not Split.TEST):
            folds = 1 + max((s.fold for s in self.manifest if s.fold is not None), default=-1)
            if not 0 <= self.fold < folds:
                raise ConfigError(
                    f"fold {self.fold} of {folds} in {self.manifest_path}",
                    remedy="Run m2net split --folds, or leave data.fold out (null) where the manifest has a split",
                )
            parts = [(s, part_of(s, self.fold, folds)) for s in self.manifest]
        else:
            parts = [(s, s.split) for s in self.manifest]
        wanted = (Split.TRAIN, Split.VAL) if split is Split.TRAIN and not self.validate else (split,)
        chosen = [s for s, part in parts if part in wanted]
        if split is Split.TEST and not (self.fold is not None and folded) and all(s.split is None for s in self.manifest):
            chosen = list(self.manifest)
        if not chosen:
            raise ConfigError(
                f"no study of {self.manifest_path} is in the {split} part", expected=f"rows with split = {split}, or a fold",
                remedy="Run m2net split on the manifest",
            )  # fmt: skip
        return chosen

    def label_counts(self) -> dict[str, int]:
        """How many training studies carry each target."""
        counts: Counter[str] = Counter()
        for study in self.part(Split.TRAIN):
            counts.update(self._labels(study))
        return dict(counts)

    def only_labels(self) -> dict[str, str]:
        """Targets of which every training study that carries them has the same label, with that label."""
        found: dict[str, set[str]] = defaultdict(set)
        for study in self.part(Split.TRAIN):
            for target, label in self._told(study).items():
                found[target].add(label)
        return {target: labels.pop() for target, labels in found.items() if len(labels) == 1}

    def _told(self, study: Study) -> dict[str, str]:
        """What a study's row says of it, by target."""
        told = {score_target(name): f"{value:g}" for name, value in study.scores.items()}
        if study.severity is not None:
            told[severity_target(str(study.severity_scheme))] = f"{study.severity:g}"
        if study.possible:
            told[str(Column.DIAGNOSIS)] = study.possible_text
        return told

    def _labels(self, study: Study) -> set[str]:
        """Targets that a study carries."""
        carried = {name for name in self.masks if name in study.masks} | set(self._told(study))
        if study.possible:
            carried.add(f"{Column.DIAGNOSIS}:{study.possible_text}")
        return carried | ({str(Column.INFECTED)} if study.infected is not None else set())

    def _chances(self, studies: list[Study]) -> list[float] | None:
        if not self.balance:
            return None
        labels = [self._labels(study) for study in studies]
        if missing := [target for target in self.balance if not any(target in own for own in labels)]:
            known = ", ".join(sorted(set().union(*labels)))
            raise ConfigError(f"data.balance names {', '.join(missing)}, which no training study carries", expected=f"some of {known}")
        return balanced_chances(labels, self.balance)

    def drawing(self) -> dict[str, Any]:
        """How training bags are drawn, in plain values: where a fine-tuning of the model begins."""
        return {
            "instances": self.instances, "studies_per_batch": self.studies_per_batch, "augmentation": asdict(self.augmentation),
            "masks": list(self.masks),
        }  # fmt: skip

    def look(self) -> dict[str, Any]:
        """How the training studies look; see ``look_of``."""
        return look_of(self.store, self.part(Split.TRAIN))

    def describe(self) -> dict[str, Any]:
        """What a model is trained on, in plain values without any identifier."""
        train = self.part(Split.TRAIN)
        return {
            "studies": len(train),
            "patients": len({s.patient_id for s in train}),
            "sites": dict(Counter(s.site or "unknown" for s in train)),
            "labels": {k: n for k, n in self.label_counts().items() if not k.startswith(f"{Column.DIAGNOSIS}:")},
            "phantom_versions": sorted({s.extra["phantom_version"] for s in train if s.extra.get("phantom_version")}),
            "real_studies": sum(not s.extra.get("phantom_version") for s in train),
            "store_hash": self.store.hash(train),
        }

    def prepare_data(self) -> None:
        """Prepare what the store lacks.

        Raises:
            StudyError: studies that could not be prepared, after all others were.
        """
        prepare_missing(self.store, list(self.manifest), self.prepare_workers)

    def setup(self, stage: str) -> None:
        """Refuse rejected studies before training; elsewhere say which they are and judge them all the same.

        Raises:
            StudyError: rejected studies that are not allowed by name (fit only).
        """
        studies = list(self.manifest)
        if stage == "fit":
            refuse_rejected(self.store, studies, self.allow)
            self._warn_of_painting()
            return
        rejected = [v.study_id for v in rejected_verdicts(self.store, studies)]
        if rejected:
            named = f"{', '.join(rejected[:5])}{', ...' if len(rejected) > 5 else ''}"
            rank_zero_warn(f"m2net verify rejects {len(rejected)} of these {len(studies)} studies ({named}); they are used all the same.")

    def _warn_of_painting(self) -> None:
        """Gas and organs are painted beside masks only: a label that goes with the masks could be learnt from them."""
        train = self.part(Split.TRAIN)
        bare = sum(not any(mask in self.masks and mask in study.masks for mask in LUNG_MASKS) for study in train)
        named = " and ".join(self.augmentation.painted)
        if named and bare:
            rank_zero_warn(
                f"augmentation: {named} are painted only where a mask says that there is no lung: {bare} of {len(train)} training studies "
                f"have none and stay without. If some label goes with the masks, set {named} to 0."
            )

    def _loader(self, studies: list[Study], *, training: bool) -> DataLoader[BagBatch]:
        data = BagDataset(
            studies, self.store, self.spec, self.masks, schemes=self.schemes, scores=self.scores,
            cap=self.instances if training else None, seed=self.seed,
        )  # fmt: skip
        most = len(data) // (self.trainer.world_size if self.trainer else 1)  # each process has its share of the studies
        if training and not most:
            raise ConfigError(
                f"{len(data)} training studies for more processes", expected="at least one each", remedy="Lower trainer.devices"
            )
        sampler = EpochSampler(len(data), self.seed, self._chances(studies)) if training else EveryStudy(data)
        return (ResumableLoader if training else DataLoader)(
            data,
            batch_size=min(self.studies_per_batch, most) if training else 1,
            sampler=sampler,  # type: ignore[arg-type]
            collate_fn=join,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            drop_last=training,
        )

    def train_dataloader(self) -> DataLoader[BagBatch]:
        """Training bags."""
        return self._loader(self.part(Split.TRAIN), training=True)

    def val_dataloader(self) -> DataLoader[BagBatch]:
        """Validation studies, fully covered.

        Raises:
            ConfigError: they train (``validate`` is off).
        """
        if not self.validate:
            raise ConfigError("data.validate is off, and the trainer validates", expected="trainer.limit_val_batches: 0 with it")
        return self._loader(self.part(Split.VAL), training=False)

    def test_dataloader(self) -> DataLoader[BagBatch]:
        """Test studies, fully covered."""
        return self._loader(self.part(Split.TEST), training=False)

    def predict_dataloader(self) -> DataLoader[BagBatch]:
        """All studies, fully covered."""
        return self._loader(list(self.manifest), training=False)

    def on_after_batch_transfer(self, batch: BagBatch, dataloader_idx: int) -> BagBatch:
        """Window, augment (training only) and add coordinates on the device."""
        training = self.trainer is not None and self.trainer.training
        batch = apply_window(self.augmentation.paint(batch) if training else batch, self.spec)
        return add_coordinates(self.augmentation(batch) if training else batch, self.spec)
