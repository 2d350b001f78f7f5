"""What a run tells its loggers beyond curves: where it comes from, and panels to look at; no path and no name leaves."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from m2net.batch import BagBatch, Output, telling_weights
from m2net.files import put_aside
from m2net.objectives import RestorationObjective, SegmentationObjective, SeverityObjective
from m2net.reports.pictures import COLOURS, INFECTION_COLOURS, overlay
from m2net.training import M2NetModule
from m2net.vocabulary import Column, LungCode

_PATCHES = 6  # of each, those that weighed most
_HIDDEN = "(path)"
_NAMING = frozenset(
    {"manifest", "store", "allow", "dirpath", "save_dir", "default_root_dir", "start_from", "encoder_weights", "ckpt_path", "config"}
)
"""Settings that name files, folders or studies."""
_ID_FILE, _SALT_FILE = "wandb_run_id.txt", ".case_salt"
_PRIVATE = {
    "WANDB__DISABLE_META": "true",  # program, arguments, host and user
    "WANDB__DISABLE_MACHINE_INFO": "true",
    "WANDB_DISABLE_GIT": "true",  # it would send the remote's address and the changes; the commit is told in the configuration
    "WANDB_DISABLE_CODE": "true",
    "WANDB_CONSOLE": "off",  # printed lines name files
    "WANDB_HOST": "private",
}
_LUNGS = {LungCode.RIGHT: (86, 180, 233), LungCode.LEFT: (0, 114, 178), LungCode.SIDE_UNKNOWN: (0, 158, 115)}
_COLOURS: dict[str, Any] = {Column.LOBES: COLOURS, Column.INFECTION: INFECTION_COLOURS, Column.LUNGS: _LUNGS}


def keep_private() -> None:
    """Tell wandb to send neither machine, user, path, code nor console; who wants that sets wandb's own environment variables."""
    for name, value in _PRIVATE.items():
        os.environ.setdefault(name, value)


def begin(trainer: pl.Trainer, config: dict[str, Any], stage: str) -> None:
    """Hand every logger the configuration without paths, and remember the Weights & Biases run of a fit."""
    folder = Path(trainer.default_root_dir)
    told = {"config": without_paths(config), "git": git_state()} if trainer.loggers else {}
    for logger in trainer.loggers:
        logger.log_hyperparams(told)
        if isinstance(logger, WandbLogger) and stage == "fit":
            (folder / _ID_FILE).write_text(str(logger.experiment.id), encoding="utf-8")


def keep_curves(trainer: pl.Trainer) -> None:
    """Put the ``metrics.csv`` of an earlier command aside, as ``metrics_1.csv`` and so on: Lightning's CSVLogger would delete it."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, CSVLogger) and (path := Path(logger.log_dir) / "metrics.csv").is_file():
            put_aside(path)
            warnings.filterwarnings("ignore", message="Experiment logs directory .* will be deleted")  # nothing is left there to delete


def finish() -> None:
    """Close the Weights & Biases run of this command, if there is one."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def take_up(trainer: pl.Trainer) -> None:
    """Go on in the Weights & Biases run that the folder's fit was, where no run is named; before the logger is opened."""
    path = Path(trainer.default_root_dir) / _ID_FILE
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and path.is_file() and not logger.version:
            logger._id = path.read_text(encoding="utf-8").strip()
            logger._wandb_init |= {"id": logger._id, "resume": "allow"}


def without_paths(value: Any) -> Any:
    """Plain values without those that name files, folders or studies, and without what looks like a path."""
    if isinstance(value, dict):
        return {k: v if k == "monitor" else _HIDDEN if k in _NAMING and v is not None else without_paths(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v) for v in value]
    return _HIDDEN if isinstance(value, str) and ("/" in value or "\\" in value) else value


def git_state() -> dict[str, Any]:
    """Commit of the working folder and whether it is changed; empty outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


class CaseNames:
    """Names for cases that only the owner of the run's folder can turn back: salted hashes."""

    def __init__(self, folder: Path) -> None:
        """Read the folder's salt, or make one."""
        path = folder / _SALT_FILE
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16), encoding="utf-8")
        self.salt = path.read_text(encoding="utf-8").strip()

    def of(self, study_id: str) -> str:
        """Twelve hexadecimal digits."""
        return hashlib.sha256(f"{self.salt}:{study_id}".encode()).hexdigest()[:12]


class Watcher(Callback):
    """Sends what was trained on, and at each validation a few studies as pictures: predicted and true masks, the heaviest patches.

    Every run has one; one that is named under ``trainer.callbacks`` takes its place.
    """

    def __init__(self, studies: int = 4) -> None:
        """Say how much leaves.

        Args:
            studies: shown a validation. With 0 nothing of a single study is sent: no picture, and no table of predictions.
        """
        self.studies = studies

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hash of the store's studies, and their counts."""
        assert isinstance(pl_module, M2NetModule)
        seen = {k: v for k, v in pl_module.about.get("trained_on", {}).items() if k != "sites"}
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, WandbLogger) and watcher_of(trainer) is self:
                logger.experiment.config.update({"trained_on": seen}, allow_val_change=True)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the first studies."""
        if watcher_of(trainer) is not self or batch_idx >= self.studies or trainer.sanity_checking:
            return
        shown = [lo for lo in trainer.loggers if isinstance(lo, WandbLogger | TensorBoardLogger)]
        if not shown or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, M2NetModule)
        picture, caption = panel(pl_module, batch, outputs)
        case = CaseNames(Path(trainer.default_root_dir)).of(batch.study_ids[0])
        for logger in shown:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"panels/{batch_idx}", [picture], trainer.global_step, caption=[f"{case}: {caption}"])
            else:
                logger.experiment.add_image(f"panels/{case}", picture, trainer.global_step, dataformats="HWC")


def watcher_of(trainer: pl.Trainer) -> Watcher | None:
    """The one that acts: Lightning puts the configuration's before the default."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((one for one in callbacks if isinstance(one, Watcher)), None)


def panel(module: M2NetModule, batch: BagBatch, outputs: dict[str, Output]) -> tuple[NDArray[np.uint8], str]:
    """One study as a picture (rows, columns, 3), and what is said of it.

    First row: the instance with most predicted foreground (where nothing is drawn the heaviest, or the middle one), plain, then predicted
    and true masks of each dense task, or hidden squares and how they were restored. Second row, where instances are weighed: the heaviest.
    """
    middle = module.spec.slices // 2
    grey = _grey(batch.instances[:, middle])
    dense = {task: o for task, o in module.named_objectives() if isinstance(o, SegmentationObjective)}
    said = {task: o.called(outputs[task].logits).cpu().numpy().astype(np.uint8) for task, o in dense.items()}
    weight = telling_weights(outputs)
    chosen = _shown(said, weight, len(grey))
    row = [overlay(grey[chosen], None)]
    for task, labels in said.items():
        objective = dense[task]
        colours = _COLOURS[objective.target]
        row.append(overlay(grey[chosen], objective.as_codes(labels[chosen]), colours))
        truth = batch.dense.get(objective.target)
        if truth is not None and bool((truth[chosen] >= 0).any()):
            row.append(overlay(grey[chosen], truth[chosen].clamp(min=0).cpu().numpy().astype(np.uint8), colours))
    for task, one in module.named_objectives():
        if isinstance(one, RestorationObjective):
            row += [overlay(_grey(picture), None) for picture in one.shown(outputs[task], batch, chosen)]
    rows = [np.concatenate(row, axis=1)]
    if weight is not None and len(grey) > 1:
        order = torch.argsort(weight, descending=True)[:_PATCHES].tolist()
        rows.append(np.concatenate([overlay(grey[k], None) for k in order], axis=1))
    width = max(r.shape[1] for r in rows)
    picture = np.concatenate([np.pad(r, ((0, 2), (0, width - r.shape[1]), (0, 0))) for r in rows], axis=0)
    return picture, _caption(module, outputs, batch, weight)


def _grey(values: Tensor) -> NDArray[np.uint8]:
    """Windowed values as grey levels."""
    return ((values.float() + 1) * 127.5).clamp(0, 255).byte().cpu().numpy()


def _shown(said: dict[str, NDArray[np.uint8]], weight: Tensor | None, count: int) -> int:
    for labels in said.values():
        if labels.any():
            return int((labels > 0).sum((1, 2)).argmax())
    return count // 2 if weight is None else int(weight.argmax())


def _caption(module: M2NetModule, outputs: dict[str, Output], batch: BagBatch, weight: Tensor | None) -> str:
    texts = []
    for task, objective in module.objectives.items():
        if isinstance(objective, SeverityObjective):
            (row,) = objective.rows(outputs[task], batch)
            texts.append(f"{task} P(>=1) {row[f'{task}_ge1']:.2f}, true {row[task] if row[task] != '' else 'unknown'}")
    if weight is not None and len(weight) > 1:
        texts.append(f"heaviest patches {', '.join(f'{w:.2f}' for w in weight.sort(descending=True).values[:_PATCHES].tolist())}")
    return "; ".join(texts)
