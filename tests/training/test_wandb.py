"""Offline runs of Weights & Biases, read back from their own files; other loggers by YAML alone; sweeps."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import wandb
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint

from m2net.bags.datamodule import BagDataModule
from m2net.cli.lightning import M2NetCLI
from m2net.cli.main import main
from m2net.reports.watching import CaseNames, without_paths
from m2net.studies import read_manifest
from m2net.training import M2NetModule, read_checkpoint
from m2net.training.finetuning import plan_finetuning
from tests.training.wandb_file import records

Configure = Callable[..., Path]
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
JOINT = EXPERIMENTS / "demo" / "joint.yaml"


def offline(folder: Path) -> dict[str, Any]:
    return {"class_path": "WandbLogger", "init_args": {"save_dir": str(folder), "offline": True, "project": "t"}}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, configure: Configure) -> Path:
    """Folder of a fit that was watched by wandb, offline."""
    folder = tmp_path_factory.mktemp("watched")
    config = configure(folder, trainer={"logger": offline(folder), "max_steps": 4, "val_check_interval": 2, "log_every_n_steps": 1})
    assert main(["fit", "--config", str(config)]) == 0
    return folder


def runs(folder: Path) -> list[Path]:
    """Files of the folder's offline runs, whole: wandb's service may still be writing when a run is finished, not when it is gone."""
    wandb.teardown()
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def test_an_offline_run_holds_configuration_curves_and_panels(watched: Path) -> None:
    (path,) = runs(watched)
    config: dict[str, Any] = {}
    curves: dict[str, list[float]] = {}
    for record in records(path):
        for item in [*record.run.config.update, *record.config.update]:
            config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.history.item:
            curves.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    flat = json.dumps(config)
    assert config["config"]["model"]["network"]["encoder"] == {"name": "m2unet", "width": 4} or '"width": 4' in flat
    assert config["trained_on"]["store_hash"]
    assert config["trained_on"]["labels"]["lobes"] == 6
    assert {"train/lobes/loss", "train/severity/loss", "val/lobes/dice_mean", "val/score"} <= set(curves)
    assert len(curves["train/loss"]) == 4
    panels = list(path.parent.rglob("media/images/panels/*.png"))
    assert len(panels) == 2 * 2  # two validations of two studies


def test_nothing_that_names_a_case_a_path_or_a_machine_leaves(watched: Path, rows: list[dict[str, str]]) -> None:
    secrets = {row["study_id"] for row in rows} | {str(watched), f"/{getpass.getuser()}/", str(Path.cwd())}
    hosts = {record.run.host for path in runs(watched) for record in records(path)} - {""}
    assert hosts
    assert socket.gethostname() not in hosts  # too short a name to be looked for among bytes
    for file in (watched / "wandb").rglob("*"):
        if file.is_file() and not file.is_symlink() and "logs" not in file.parts:
            content = file.read_bytes()
            found = [secret for secret in secrets if secret.encode() in content]
            assert not found, (file.name, found)


def test_the_test_table_names_cases_by_salted_hashes(watched: Path, tmp_path: Path) -> None:
    words = ["--config", str(watched / "config.in.yaml"), "--ckpt_path", str(watched / "best.ckpt")]
    place = ["--trainer.logger", json.dumps(offline(tmp_path)), "--trainer.default_root_dir", str(watched)]
    assert main(["test", *words, *place]) == 0
    (file,) = (tmp_path / "wandb").rglob("*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"][0] == "case"
    assert not {"study_id", "patient_id", "site"} & set(table["columns"])
    names = CaseNames(watched)
    predictions = (watched / "predictions.csv").read_text().splitlines()[1:]
    assert [row[0] for row in table["data"]] == [names.of(line.split(",")[0]) for line in predictions]
    assert CaseNames(tmp_path / "other").of("a") != names.of("a")
    assert (watched / ".case_salt").stat().st_mode & 0o077 == 0


def test_nothing_of_a_single_study_leaves_if_so_wished(configure: Configure, tmp_path: Path) -> None:
    """A watcher that is named takes the default's place: curves go, pictures and predictions stay."""
    keeper = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(tmp_path), "filename": "best", "monitor": "val/score"}}
    quiet = {"class_path": "m2net.reports.watching.Watcher", "init_args": {"studies": 0}}
    config = configure(
        tmp_path,
        trainer={
            "logger": offline(tmp_path),
            "max_steps": 2,
            "val_check_interval": 2,
            "log_every_n_steps": 1,
            "callbacks": [keeper, quiet],
        },
    )
    assert main(["fit", "--config", str(config)]) == 0
    assert main(["test", "--config", str(config), "--ckpt_path", str(tmp_path / "best.ckpt")]) == 0
    fitted, tested = (list(records(path)) for path in runs(tmp_path))
    keys = {item.key or "/".join(item.nested_key) for record in [*fitted, *tested] for item in record.history.item}
    assert {"train/loss", "val/score"} <= keys
    assert not [key for key in keys if "panels" in key or "predictions" in key]
    assert not list((tmp_path / "wandb").rglob("media/*"))
    assert (tmp_path / "predictions.csv").exists()


def test_a_resumed_fit_is_the_same_run(watched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(watched, folder, symlinks=True)
    place = ["--trainer.default_root_dir", str(folder), "--trainer.logger", json.dumps(offline(folder))]
    words = ["--ckpt_path", str(folder / "best.ckpt"), "--trainer.max_steps", "6", *place]
    assert main(["fit", "--config", str(watched / "config.in.yaml"), *words]) == 0
    names = {path.name for path in runs(folder)}
    assert len(runs(folder)) == 2
    assert len(names) == 1


def test_a_checkpoint_is_an_artifact_only_if_asked_for(
    watched: Path, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [r for path in runs(watched) for r in records(path) if r.HasField("artifact")]
    monkeypatch.setenv("WANDB_MODE", "offline")  # the logger's own offline switch refuses log_model
    logger = {"class_path": "WandbLogger", "init_args": {"save_dir": str(tmp_path), "project": "t", "log_model": True}}
    config = configure(tmp_path, trainer={"logger": logger, "max_steps": 1, "val_check_interval": 1})
    assert main(["fit", "--config", str(config)]) == 0
    (path,) = runs(tmp_path)
    (artifact,) = [r.artifact for r in records(path) if r.HasField("artifact")]
    assert artifact.type == "model"
    assert str(tmp_path) not in artifact.metadata
    (entry,) = artifact.manifest.contents
    assert entry.size == (tmp_path / "best.ckpt").stat().st_size


@pytest.mark.parametrize("name", ["TensorBoardLogger", "MLFlowLogger"])
def test_other_loggers_by_yaml_alone(name: str, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    arguments = {"save_dir": str(tmp_path / "log")}
    config = configure(tmp_path, trainer={"logger": {"class_path": name, "init_args": arguments}, "max_steps": 1, "val_check_interval": 1})
    assert main(["fit", "--config", str(config)]) == 0
    assert any((tmp_path / "log").rglob("*"))


def test_paths_are_taken_out() -> None:
    private = {"allow": ["MEIER-1955"], "store": "ward_seven", "default_root_dir": "ward", "start_from": None}
    assert without_paths(private) == {"allow": "(path)", "store": "(path)", "default_root_dir": "(path)", "start_from": None}
    given = {"a": "/data/x", "b": ["runs/store", 3, "m2unet"], "c": {"d": "C:\\x", "e": None}, "manifest": "m.csv", "monitor": "val/score"}
    assert without_paths(given) == {
        "a": "(path)",
        "b": ["(path)", 3, "m2unet"],
        "c": {"d": "(path)", "e": None},
        "manifest": "(path)",
        "monitor": "val/score",
    }


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_sweeps_are_what_wandb_takes(path: Path) -> None:
    """By wandb's own schema."""
    sweep = yaml.safe_load(path.read_text())
    jsonschema.validate(sweep, json.loads((Path(__file__).parent / "wandb_sweep.schema.json").read_text()))
    assert sweep["command"][-1] == "${args}"


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_sweeps_change_what_exists(path: Path, trained: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that wandb's agent would send are understood, take effect, and leave the folder of a judged model alone."""
    monkeypatch.chdir(tmp_path)
    sweep = yaml.safe_load(path.read_text())
    tuned = Path("runs/tuned")
    checkpoint, studies = read_checkpoint(trained / "best.ckpt"), list(read_manifest(cohort))
    plan = plan_finetuning(checkpoint, trained / "best.ckpt", studies, cohort, Path("store"), tuned, validate=True)
    for name, text in (("runs/tuned/finetune.yaml", yaml.safe_dump(plan.config)), ("experiments/demo/joint.yaml", JOINT.read_text())):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    chosen = {name: p["values"][-1] if "values" in p else p["max"] for name, p in sweep["parameters"].items()}
    words = [*sweep["command"][3:-1], *(f"--{name}={value}" for name, value in chosen.items())]
    cli = M2NetCLI(M2NetModule, BagDataModule, args=[word for word in words if "logger" not in word], run=False)
    config = cli.config.as_dict()
    for name, value in chosen.items():
        found: Any = config
        for part in name.split("."):
            found = found[part]
        assert found == value, name
    keepers = [c for c in cli.trainer.callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]
    assert all("tuned" not in str(c.dirpath) for c in keepers)
    assert "tuned" not in str(cli.trainer.default_root_dir)
