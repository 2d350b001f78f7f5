"""Small phantoms are the fixtures; they are made once a session through the front door."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from m2net.cli.main import main
from m2net.phantoms import SCANNERS, SEVERITY_MODELS, Phantom, make_phantom
from m2net.vocabulary import Diagnosis

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom((3, 1), SCANNERS["home"], Diagnosis.COVID19, SEVERITY_MODELS[2], matrix=96, slice_mm=6.0)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small patients with a split; returns the manifest."""
    folder = tmp_path_factory.mktemp("cohort")
    assert main(["phantom", "--out", str(folder), "--patients", "10", "--seed", "5", "--matrix", "64", "--slice-mm", "8"]) == 0
    assert main(["split", str(folder / "manifest.csv"), "--parts", "0.6", "0.2", "0.2"]) == 0
    return folder / "manifest.split.csv"


@pytest.fixture(scope="session")
def rows(cohort: Path) -> list[dict[str, str]]:
    with cohort.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def configure(cohort: Path, store: Path) -> Callable[..., Path]:
    """Write a tiny configuration into a folder; keyword arguments replace top-level parts of model, data and trainer."""

    def write(folder: Path, **changes: dict[str, object]) -> Path:
        head = {"name": "hierarchical", "concepts": [16, 8]}
        config: dict[str, dict[str, object]] = {
            "model": {
                "network": {"encoder": {"name": "m2unet", "width": 4}, "decoder": {"name": "m2unet", "width": 4}, "chunk": 16},
                "tasks": {
                    "lobes": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "lobes"}},
                    "severity": {"head": head, "objective": {"name": "severity", "scheme": "binary"}},
                },
                "optimizer": {"name": "adamw", "lr": 0.005},
            },
            "data": {
                "manifest": str(cohort), "store": str(store), "masks": ["lobes"], "instances": 6, "studies_per_batch": 2,
                "input": {"spacing_mm": 6.0, "patch": 32, "slices": 3, "positions": True},
                "augmentation": {"rotation_deg": 5, "noise": 0.02},
            },
            "trainer": {
                "max_steps": 4, "accelerator": "cpu", "devices": 1, "default_root_dir": str(folder), "enable_progress_bar": False,
                "check_val_every_n_epoch": None, "val_check_interval": 2, "num_sanity_val_steps": 0, "logger": False,
                "callbacks": [{
                    "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": str(folder), "filename": "best", "monitor": "val/score", "mode": "max",
                                  "enable_version_counter": False},
                }],
            },
        }  # fmt: skip
        for part, values in changes.items():
            config[part] = {**config[part], **values}
        path = folder / "config.in.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


@pytest.fixture(scope="session")
def trained(configure: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny trained run with config.in.yaml and best.ckpt."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", "--config", str(configure(folder))]) == 0
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
