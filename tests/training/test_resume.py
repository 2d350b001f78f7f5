"""A training that is killed goes on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from m2net.bags.datamodule import BagDataModule
from m2net.cli.main import main
from m2net.errors import ConfigError
from m2net.vocabulary import Split

KILL = """
import os, signal, sys
import pytorch_lightning as pl
from m2net.cli.lightning import make_cli

class Killer(pl.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)

cli = make_cli(sys.argv[2:], run_now=False)
cli.trainer.callbacks.insert(0, Killer())  # before this step's checkpoint is written
cli.trainer.fit(cli.model, datamodule=cli.datamodule)
"""
STOP = """
import os, signal, sys
from m2net.cli.main import main
from m2net.training.module import M2NetModule

M2NetModule.on_train_batch_end = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""
HEAD = {"name": "pooled", "dropout": 0.5}  # draws at random in every step
TASKS = {"severity": {"head": HEAD, "objective": {"name": "severity", "scheme": "binary"}}}
EMA = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}


@pytest.mark.parametrize(
    ("killed_at", "validate_every", "length"), [(5, 100, {"max_steps": 12}), (6, 2, {"max_steps": 12}), (5, 100, {"max_epochs": 4})]
)
def test_kill_minus_nine(
    configure: Callable[..., Path], tmp_path: Path, killed_at: int, validate_every: int, length: dict[str, int]
) -> None:  # fmt: skip
    """Six studies in batches of two: three steps an epoch; killed in the middle of one, and at the end of one where validation runs."""

    def config(name: str) -> list[str]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        keeper = {"dirpath": str(folder), "filename": "{step}", "every_n_train_steps": 2, "save_top_k": -1}
        callbacks = [EMA, {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": keeper}]
        changes = {"max_steps": -1, **length, "callbacks": callbacks, "val_check_interval": validate_every}
        network = {"encoder": {"name": "residual", "width": 4}}
        path = configure(folder, model={"network": network, "tasks": TASKS}, data={"masks": [], "workers": 1}, trainer=changes)
        return ["--config", str(path)]

    assert main(["fit", *config("whole")]) == 0
    words = config("killed")
    done = subprocess.run([sys.executable, "-c", KILL, str(killed_at), *words], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    last = max((tmp_path / "killed").glob("step=*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    assert last.name == "step=4.ckpt"
    assert main(["fit", *words, "--ckpt_path", str(last)]) == 0
    one, other = (torch.load(tmp_path / name / "step=12.ckpt", weights_only=True) for name in ("whole", "killed"))
    assert one["global_step"] == other["global_step"] == 12
    for part in ("state_dict", "current_model_state"):
        assert set(one[part]) == set(other[part])
        different = [k for k in one[part] if not torch.equal(one[part][k], other[part][k])]
        assert not different, (part, different)


def test_a_fit_that_was_told_to_stop_is_not_done(configure: Callable[..., Path], tmp_path: Path) -> None:
    """As a queue does when the time is up: what comes after it in a script must not take it for finished."""
    words = ["--config", str(configure(tmp_path, trainer={"max_steps": 50}))]
    done = subprocess.run([sys.executable, "-c", STOP, "fit", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in done.stderr


def test_curves_of_an_earlier_command_are_kept(configure: Callable[..., Path], tmp_path: Path) -> None:
    """Lightning's CSVLogger deletes the metrics.csv of its folder when the next command opens it."""
    (folder := tmp_path / "run").mkdir()
    logger = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(folder), "name": "csv", "version": ""}}
    words = ["--config", str(configure(folder, trainer={"logger": logger, "log_every_n_steps": 1}))]
    assert main(["fit", *words]) == 0
    curves = (folder / "csv" / "metrics.csv").read_text()
    assert "train/loss" in curves
    assert main(["test", *words, "--ckpt_path", str(folder / "best.ckpt")]) == 0
    assert main(["validate", *words, "--ckpt_path", str(folder / "best.ckpt")]) == 0
    assert (folder / "csv" / "metrics_1.csv").read_text() == curves
    assert "test/score" in (folder / "csv" / "metrics_2.csv").read_text()
    assert main(["predict", *words, "--ckpt_path", str(folder / "best.ckpt")]) == 0
    assert "val/score" in (folder / "csv" / "metrics_3.csv").read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_goes_on_within_the_epoch(cohort: Path, store: Path, workers: int) -> None:
    data = BagDataModule(str(cohort), str(store), input={"spacing_mm": 6.0, "patch": 32}, instances=2, studies_per_batch=2, workers=workers)
    data.prepare_data()

    def drawn(loader: object, epoch: int) -> list[tuple[list[str], list[int]]]:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return [(batch.study_ids, batch.draws.tolist()) for batch in loader]  # type: ignore[attr-defined]

    whole = data.train_dataloader()
    expected = [drawn(whole, epoch) for epoch in (0, 1)]
    assert whole.state_dict() == {"handed_out": 3, "epoch": 1}  # type: ignore[attr-defined]
    stopped = data.train_dataloader()
    stopped.sampler.set_epoch(0)  # type: ignore[union-attr]
    batches = iter(stopped)
    next(batches)
    state = stopped.state_dict()  # type: ignore[attr-defined]
    assert state == {"handed_out": 1, "epoch": 0}
    resumed = data.train_dataloader()
    resumed.load_state_dict(state)  # type: ignore[attr-defined]
    assert drawn(resumed, 0) == expected[0][1:]
    assert drawn(resumed, 1) == expected[1]
    over = data.train_dataloader()
    over.load_state_dict({"handed_out": 1, "epoch": 0})  # type: ignore[attr-defined]
    assert drawn(over, 1) == expected[1]  # an epoch that was cut short is not taken for the next


def test_a_part_that_trains_does_not_validate(cohort: Path, store: Path) -> None:
    """With ``validate`` off the validation patients are among those trained on, and nobody is judged by them."""
    kept, merged = (BagDataModule(str(cohort), str(store), validate=validate) for validate in (True, False))
    train, val = ({s.study_id for s in kept.part(split)} for split in (Split.TRAIN, Split.VAL))
    assert {s.study_id for s in merged.part(Split.TRAIN)} == train | val
    with pytest.raises(ConfigError, match="data.validate is off"):
        merged.val_dataloader()
