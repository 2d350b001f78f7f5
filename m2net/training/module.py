"""The LightningModule: it only wires batch -> network -> objectives -> log."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from m2net import __version__
from m2net.bags.inputs import InputSpec
from m2net.bags.transforms import SIDED
from m2net.batch import BagBatch, Output
from m2net.errors import CheckpointError, ConfigError
from m2net.networks import M2Net, build
from m2net.objectives import Objective, Reading, RestorationObjective
from m2net.training.loading import CHECKPOINT_MARK
from m2net.training.optimizers import DEFAULT_OPTIMIZER, make_optimizer
from m2net.training.schedules import factor, run_length
from m2net.training.starting import start_from_run, start_published
from m2net.training.tasks import check_kept, check_labels, read_tasks, tell_idle
from m2net.training.transfer import PARTS, Meaning, Transfer
from m2net.training.tuning import Anchor, Tuning, running_statistics_left
from m2net.training.weighting import WEIGHTINGS, GradientNorm


class M2NetModule(pl.LightningModule):
    """A network with its tasks.

    A task is a head, an objective and a weight; a task of which a batch has no label adds a graph-connected zero to the loss
    and logs nothing.
    """

    def __init__(
        self,
        network: dict[str, Any],
        tasks: dict[str, dict[str, Any]],
        input: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        schedule: str = "cosine",
        warmup: float = 0.05,
        start_from: str | None = None,
        start_parts: list[str] | None = None,
        encoder_weights: str | None = None,
        mirror: bool | None = None,
        weighting: str = "fixed",
        tuning: dict[str, Any] | None = None,
    ) -> None:
        """Build from plain values, which are saved in every checkpoint.

        Args:
            network: encoder, decoder, chunk, checkpointing; see M2Net.
            tasks: per task ``head``, ``objective`` (names with arguments) and ``weight``.
            input: what an instance shows; linked to ``data.input``.
            optimizer: name (adamw, adam, sgd) and its arguments; AdamW with lr 1e-3 by default.
            schedule: cosine, polynomial, staircase or constant.
            warmup: share of the run with a rising learning rate.
            start_from: checkpoint whose weights a fit starts from; what was taken over is said and kept with the model.
            start_parts: what is taken over: encoder (the default), decoder, heads.
            encoder_weights: published weights of an smp encoder to start a fit from: a local file, or a name (which downloads them).
            mirror: average answers over the study and its mirror image when evaluating; refused with lobes or positions. The
                checkpoint's own choice holds unless one is given.
            weighting: how the tasks' losses become one: fixed (the tasks' weights), uncertainty or gradient_norm, both on top of them.
            tuning: how gently weights taken over are moved; see Tuning.

        Raises:
            ConfigError: a part or value is not usable.
        """
        super().__init__()
        self.transfer: Transfer | None = None
        self.spec = InputSpec.of(input)
        optimizer = dict(optimizer or DEFAULT_OPTIMIZER)
        self.save_hyperparameters(
            {
                "network": network, "tasks": tasks, "input": self.spec.plain(), "optimizer": optimizer,
                "schedule": schedule, "warmup": warmup, "mirror": bool(mirror), "weighting": weighting, "tuning": dict(tuning or {}),
            }
        )  # fmt: skip
        self.start_from, self.start_parts, self.encoder_weights = start_from, tuple(start_parts or ("encoder",)), encoder_weights
        if strange := set(self.start_parts) - set(PARTS):
            raise ConfigError(f"model.start_parts has {', '.join(sorted(strange))}", expected=f"some of {', '.join(PARTS)}")
        if start_from and encoder_weights:
            raise ConfigError("model.start_from and model.encoder_weights are both given", expected="one of them")
        self.mirror = bool(mirror)
        self.tuning = Tuning.of(tuning)
        factor(schedule, 0.0, warmup)
        objectives, heads, self.weights, self.restoring = read_tasks(tasks, self.spec)
        self.objectives = nn.ModuleDict(objectives)
        if weighting == "gradient_norm" and self.restoring and len(objectives) > 1:
            raise ConfigError("weighting gradient_norm with a restoration", expected="fixed or uncertainty: it sees other pictures")
        if weighting == "gradient_norm" and network.get("freeze_encoder"):
            raise ConfigError("weighting gradient_norm with a frozen encoder", expected="fixed or uncertainty: no task pulls at it")
        self.weighting = build(WEIGHTINGS, {"name": weighting}, "weighting", self.weights)
        self.network = build({"m2net": M2Net}, {"name": "m2net", **network}, "network", self.spec.channels, heads=heads)
        if self.spec.patch % self.network.multiple:
            raise ConfigError(
                f"the decoder {network['decoder']['name']} on a patch of {self.spec.patch} pixels",
                expected=f"data.input.patch a multiple of {self.network.multiple}: it joins maps that were halved so often",
            )
        self.network = self.network.to(memory_format=torch.channels_last)
        self.network.keep_maps = weighting == "gradient_norm"
        self.kept = [task for task, weight in self.weights.items() if not weight]
        self.network.leave_out(self.kept)
        if mirror and (self.spec.positions or SIDED in {o.target for o in objectives.values()}):
            raise ConfigError("model.mirror is on where lobes or positions are used", remedy="Set mirror: false")
        self.about: dict[str, Any] = {"version": __version__, "trained_on": {}}
        self._started: dict[str, Any] = {}
        self.anchor: Anchor | None = None
        self.results: dict[str, float] = {}
        self.predictions: list[dict[str, Any]] = []

    def train(self, mode: bool = True) -> M2NetModule:
        """Switch to training or evaluation; batch statistics that are kept stay as they are."""
        super().train(mode)
        self._hold_still()
        return self

    def _hold_still(self) -> None:
        """Heads of tasks that are kept, and batch statistics that are, do not change."""
        self.tuning.hold_statistics(self.network, () if self.transfer is None else self.transfer.loaded)
        for task in self.kept:
            self.network.heads[task].eval()

    @property
    def meaning(self) -> Meaning:
        """What channels and answers stand for."""
        return Meaning(self.spec.channel_names, {task: o.answers for task, o in self.named_objectives() if task in self.weights})

    def forward(self, batch: BagBatch) -> dict[str, Output]:
        """Per task the head's output."""
        outputs: dict[str, Output] = self.network(batch)
        if not self.mirror or self.training:
            return outputs
        mirrored: dict[str, Output] = self.network(replace(batch, instances=batch.instances.flip(3)))
        back = {task: self.objectives[task].turned_back(output) for task, output in mirrored.items()}  # type: ignore[operator]
        return {task: outputs[task].mean_with(back[task]) for task in outputs}

    def is_kept(self, task: str) -> bool:
        """Whether a task stays as it was taken over: its weight is 0, or it reads such tasks only."""
        objective: Any = self.objectives[task]
        return all(self.is_kept(read) for read in objective.reads) if isinstance(objective, Reading) else task in self.kept

    def named_objectives(self) -> list[tuple[str, Objective]]:
        """Objectives by task, in the order of the configuration."""
        return list(self.objectives.items())  # type: ignore[arg-type]

    def answers(self, batch: BagBatch) -> dict[str, Output]:
        """Per task the head's output or, for a task that reads other tasks' maps, what it reads there."""
        outputs = self(batch)
        read = {task: o.read(outputs, batch) for task, o in self.named_objectives() if isinstance(o, Reading)}
        return {**outputs, **read}

    def _restored(self, batch: BagBatch) -> dict[str, Output]:
        """What a task that restores says of the batch with parts hidden, which the other tasks never see."""
        objective = self.objectives[self.restoring] if self.restoring else None
        return {self.restoring: self(objective.hide(batch))[self.restoring]} if isinstance(objective, RestorationObjective) else {}

    def _asked(self, batch: BagBatch) -> dict[str, Output]:
        """What is judged of each task."""
        return self._restored(batch) if self.weights.keys() == {self.restoring} else self.answers(batch) | self._restored(batch)

    def _losses(self, outputs: dict[str, Output], batch: BagBatch, stage: str) -> Tensor:
        losses, labelled, trains = {}, set(), stage == "train"
        for task, objective in self.named_objectives():
            if not self.weights.get(task):
                continue
            losses[task] = loss = objective.loss(outputs[task], batch)
            if labels := objective.labels(batch):
                labelled.add(task)
                self.log(
                    f"{stage}/{task}/loss", loss.detach(), batch_size=labels, on_step=trains, on_epoch=not trains, sync_dist=not trains
                )
        total: Tensor = self.weighting(losses, labelled, self.network.maps)
        self.log(f"{stage}/loss", total.detach(), batch_size=batch.num_bags, prog_bar=True, sync_dist=not trains)
        return total

    def on_train_epoch_end(self) -> None:
        """Log the weights that were found."""
        if self.hparams["weighting"] != "fixed":
            self.log_dict({f"weight/{task}": value for task, value in self.weighting.now().items()})

    def on_train_batch_start(self, batch: BagBatch, batch_idx: int) -> None:
        """Key dropout by seed, batch and process, so that a resumed run draws as the uninterrupted one."""
        key = (int(os.environ.get("PL_GLOBAL_SEED", "0")), self.trainer.fit_loop.total_batch_idx, self.trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: BagBatch, batch_idx: int) -> Tensor:
        """Weighted sum of the tasks' losses."""
        if self.weights.keys() == {self.restoring}:
            return self._losses(self._restored(batch), batch, "train")
        outputs = self(batch)
        if self.weights.get(self.restoring):
            with running_statistics_left(self.network):
                outputs |= self._restored(batch)
        return self._losses(outputs, batch, "train")

    def on_validation_epoch_start(self) -> None:
        """While fitting, judge as if nothing had been calibrated yet."""
        if self.fitting:
            self._uncalibrate()

    def _uncalibrate(self) -> None:
        """Forget what was fitted to other weights; what was taken over with a kept head stays."""
        for task, objective in self.named_objectives():
            if not self.is_kept(task):
                objective.calibration = {}

    @property
    def fitting(self) -> bool:
        """Whether validation is a part of training."""
        return self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def validation_step(self, batch: BagBatch, batch_idx: int) -> dict[str, Output]:
        """Loss and metrics of one study; its answers go to the callbacks."""
        outputs = self._asked(batch)
        self._losses(outputs, batch, "val")
        for task, objective in self.named_objectives():
            objective.update(outputs[task], batch)
        return outputs

    def test_step(self, batch: BagBatch, batch_idx: int) -> None:
        """Metrics and a row of predictions of one study."""
        outputs = self._asked(batch)
        for task, objective in self.named_objectives():
            objective.update(outputs[task], batch)
        self.predictions += self._rows(outputs, batch)

    def predict_step(self, batch: BagBatch, batch_idx: int) -> list[dict[str, Any]]:
        """A row of predictions a study."""
        rows = self._rows(self.answers(batch), batch)
        self.predictions += rows
        return rows

    def _rows(self, outputs: dict[str, Output], batch: BagBatch) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"study_id": name} for name in batch.study_ids]
        for task, objective in self.named_objectives():
            for row, more in zip(rows, objective.rows(outputs[task], batch), strict=True):
                row |= more
        return rows

    def _finish(self, stage: str, *, calibrate: bool = False) -> dict[str, float]:
        results: dict[str, float] = {}
        primary = []
        for task, objective in self.named_objectives():
            metrics = objective.compute()
            if calibrate and not self.is_kept(task):
                objective.calibrate()
            objective.reset()
            results |= {f"{task}/{name}": value for name, value in metrics.items()}
            if objective.primary and math.isfinite(metrics[objective.primary]):
                primary.append(metrics[objective.primary])
        results["score"] = sum(primary) / len(primary) if primary else float("nan")
        shown = {f"{stage}/{name}": value for name, value in results.items()}
        self.log_dict(shown, batch_size=1, sync_dist=True)  # every process has the same
        return results

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all validation studies; ``val/score`` is the mean of the tasks' primary metrics.

        While fitting these are figures without calibration: it would be judged on the studies it is fitted to. Then it is fitted, so that a
        checkpoint holds thresholds for its own weights.
        """
        self._finish("val", calibrate=self.fitting)

    def on_test_epoch_start(self) -> None:
        """Start a new table."""
        self.predictions = []

    def on_test_epoch_end(self) -> None:
        """Keep the metrics for metrics.json."""
        self.results = self._finish("test")

    def on_predict_epoch_start(self) -> None:
        """Start a new table."""
        self.predictions = []

    def setup(self, stage: str) -> None:
        """Refuse data that are cut otherwise than the model expects.

        Raises:
            ConfigError: data.input differs from the model's.
        """
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        if data.spec != self.spec:
            raise ConfigError(f"data.input is {data.spec.plain()}", expected=f"the model's {self.spec.plain()}")
        if stage == "fit":
            self._check_precision()
            counts = data.label_counts()
            learning = [(task, o.target) for task, o in self.named_objectives() if self.weights.get(task) and o.needs_labels]
            check_labels(learning, counts, data.only_labels())
            for _, objective in self.named_objectives():
                objective.prepare(counts)
            if self.tuning.needs_start and not self.start_from:
                raise ConfigError("model.tuning has an anchor or kept batch statistics", expected="model.start_from: whence they are taken")
            check_kept(self.kept, self.start_from)
            tell_idle([(task, o) for task, o in self.named_objectives() if not self.is_kept(task)], validates=data.validate)
            if self.start_from:
                self._started = start_from_run(self, Path(self.start_from))
            if self.encoder_weights:
                self._started = start_published(self, self.encoder_weights)

    def _check_precision(self) -> None:
        if isinstance(self.weighting, GradientNorm) and str(self.trainer.precision).startswith("16"):
            raise ConfigError(
                f"weighting gradient_norm with precision {self.trainer.precision}, which takes small gradients for none",
                expected="bf16-mixed or 32-true",
            )

    def on_fit_start(self) -> None:
        """Remember what the model is trained on (after a checkpoint was restored, which says what it had seen before)."""
        self._hold_still()  # Lightning keeps the mode it finds instead of calling train()
        data = getattr(self.trainer, "datamodule", None)
        resumed = {k: v for k, v in self.about.items() if k in ("started_from", "encoder_weights")}
        seen = {"trained_on": {}} if data is None else {"trained_on": data.describe(), "drawing": data.drawing(), "look": data.look()}
        self.about = {"version": __version__, **seen, **resumed, **self._started}

    def configure_optimizers(self) -> Any:
        """The named optimizer; learning rates follow the schedule over the run's progress."""
        schedule, warmup = self.hparams["schedule"], float(self.hparams["warmup"])
        steps = run_length(self.trainer.estimated_stepping_batches, schedule, warmup, self.tuning.frozen)
        return make_optimizer(self, self.network, self.hparams["optimizer"], self.tuning, schedule, warmup, steps)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """A step, and the pull towards the start; a calibration of the weights before it no longer holds."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._uncalibrate()
        if self.anchor is not None:
            self.anchor.pull(optimizer, self.tuning.anchor)

    def on_train_start(self) -> None:
        """Lay a resumed loader's place within its epoch over the loader again: with ``max_epochs`` it was made before that was restored."""
        self.trainer.fit_loop._load_combined_loader_states()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as m2net's and say what it was trained on."""
        calibration = {task: o.calibration for task, o in self.named_objectives() if o.calibration}
        checkpoint[CHECKPOINT_MARK] = {**self.about, "calibration": calibration}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what the checkpoint says of itself.

        Raises:
            CheckpointError: another program's.
        """
        if CHECKPOINT_MARK not in checkpoint:
            raise CheckpointError("the checkpoint is not one of m2net's", expected="a file written by m2net fit")
        self.about = dict(checkpoint[CHECKPOINT_MARK])
        calibration = self.about.pop("calibration", {})
        for task, objective in self.named_objectives():
            objective.calibration = dict(calibration.get(task, {}))
