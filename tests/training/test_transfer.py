"""Starting from an earlier run, mirrored evaluation, moving averages and folds by patient."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from m2net.bags import add_coordinates, apply_window
from m2net.bags.datamodule import BagDataModule
from m2net.cli.main import main
from m2net.errors import CheckpointError, ConfigError
from m2net.networks import M2Net
from m2net.training import M2NetModule, load_model
from m2net.training.loading import read_checkpoint
from m2net.training.transfer import take_over
from m2net.vocabulary import Split

HEAD = {"name": "score_maps", "depths": [3, 4, 5], "bag_pool": "mean", "activation": "none"}
TASK = {"diagnosis": {"head": HEAD, "objective": {"name": "diagnosis"}}}


def test_the_encoder_is_taken_over_and_it_is_said(
    trained: Path, configure: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(
        tmp_path,
        model={"start_from": str(trained / "best.ckpt"), "network": {"encoder": {"name": "m2unet", "width": 4}}, "tasks": TASK},
        data={"masks": []},
        trainer={"max_steps": 2, "val_check_interval": 2},
    )
    assert main(["fit", "--config", str(config), "--model.optimizer.lr", "1e-30", "--model.schedule", "constant"]) == 0
    saved, started = (read_checkpoint(folder / "best.ckpt")["state_dict"] for folder in (trained, tmp_path))
    weights = [k for k in started if k.startswith("network.encoder.") and k.endswith("weight")]
    assert len(weights) == 20
    for name in weights:
        torch.testing.assert_close(started[name], saved[name])
    about = load_model(tmp_path / "best.ckpt").about["started_from"]
    assert about["trained_on"]["studies"] == 6
    assert about["loaded"] >= 40
    assert "tensors taken over" in caplog.text


def test_what_does_not_fit_is_told(trained: Path) -> None:
    wide = M2Net(9, {"name": "m2unet", "width": 6}, {"severity": {"name": "hierarchical", "classes": 2, "concepts": [4, 4]}})
    with pytest.raises(CheckpointError, match="no weight of"):
        take_over(wide, read_checkpoint(trained / "best.ckpt"), trained / "best.ckpt")
    other = M2Net(1, {"name": "m2unet", "width": 4}, {"severity": {"name": "hierarchical", "classes": 2, "concepts": [4, 4]}})
    transfer = take_over(other, read_checkpoint(trained / "best.ckpt"), trained / "best.ckpt")
    assert "encoder.blocks.0.0.weight" in transfer.fresh  # one channel instead of nine
    assert "encoder.blocks.1.0.weight" in transfer.loaded
    assert any(name.startswith("decoder.") for name in transfer.skipped)


@pytest.mark.parametrize("parts", [("encoder",), ("encoder", "decoder"), ("encoder", "decoder", "heads")])
def test_parts_that_are_asked_for_are_taken(trained: Path, parts: tuple[str, ...]) -> None:
    checkpoint = read_checkpoint(trained / "best.ckpt")
    fresh = M2NetModule(**{k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")})
    transfer = take_over(fresh.network, checkpoint, trained / "best.ckpt", parts)
    assert {name.split(".")[0] for name in transfer.loaded} == set(parts)
    assert {name.split(".")[0] for name in transfer.fresh} == {"encoder", "decoder", "heads"} - set(parts)


def test_wrong_starts_are_named(trained: Path, configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["fit", "--config", str(configure(tmp_path))]
    checkpoint = ["--model.start_from", str(trained / "best.ckpt")]
    for words, message in (
        ([*checkpoint, "--model.start_parts", "[neck]"], "start_parts has neck"),
        ([*checkpoint, "--model.encoder_weights", "imagenet"], "are both given"),
        (["--model.encoder_weights", "imagenet"], "encoder of m2net's own"),
    ):
        assert main([*config, *words]) == 2
        assert message in capsys.readouterr().err


def test_a_reading_takes_no_head_and_knows_its_tasks() -> None:
    network = {"encoder": {"name": "residual", "width": 4}, "decoder": {"name": "grid"}}
    dense = {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "infection"}}
    with pytest.raises(ConfigError, match="task burden has weight; expected an objective only"):
        M2NetModule(network, {"infection": dense, "burden": {"objective": {"name": "burden"}, "weight": 2.0}})
    with pytest.raises(ConfigError, match="reads lungs"):
        M2NetModule(network, {"infection": dense, "burden": {"objective": {"name": "burden"}}})


def test_mirrored_evaluation_gives_both_sides_the_same_answer(cohort: Path, store: Path) -> None:
    spec = {"spacing_mm": 6.0, "patch": 32, "view": "slices"}
    data = BagDataModule(str(cohort), str(store), input=spec)
    data.prepare_data()
    torch.manual_seed(0)
    model = M2NetModule({"encoder": {"name": "residual", "width": 4}}, TASK, spec, mirror=True).eval()
    batch = add_coordinates(apply_window(next(iter(data.val_dataloader())), data.spec), data.spec)
    flipped = batch.map(lambda t: t)
    flipped.instances = batch.instances.flip(3)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)["diagnosis"].logits, model(flipped)["diagnosis"].logits)
        model.mirror = False
        assert not torch.allclose(model(batch)["diagnosis"].logits, model(flipped)["diagnosis"].logits)
    with pytest.raises(ConfigError, match="mirror"):
        M2NetModule({"encoder": {"name": "residual", "width": 4}}, TASK, {**spec, "positions": True}, mirror=True)


def test_averaged_weights_are_the_checkpoint(configure: Callable[..., Path], tmp_path: Path, cohort: Path) -> None:
    config = configure(tmp_path, model={"network": {"encoder": {"name": "residual", "width": 4}}, "tasks": TASK}, data={"masks": []})
    average = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    assert main(["fit", "--config", str(config), "--trainer.callbacks+", json.dumps(average)]) == 0
    assert main(["test", "--config", str(config), "--ckpt_path", str(tmp_path / "best.ckpt")]) == 0
    assert "diagnosis/auc" in json.loads((tmp_path / "metrics.json").read_text())


def test_no_fold_shares_a_patient(cohort: Path, tmp_path: Path, store: Path) -> None:
    """Every fold's training, validation and test part, as the data module hands them out; patients have several studies each."""
    with cohort.open(newline="") as file:
        rows = [row | {"patient_id": f"p{k // 2}", "split": ""} for k, row in enumerate(csv.DictReader(file))]
    for row in rows:
        row["image"] = str(cohort.parent / row["image"])
        row |= {"lobes": "", "lungs": "", "infection": ""}
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(["split", str(tmp_path / "m.csv"), "--folds", "3"]) == 0
    judged = []
    for fold in range(3):
        data = BagDataModule(str(tmp_path / "m.split.csv"), str(store), fold=fold)
        parts = [{s.patient_id for s in data.part(split)} for split in Split]
        assert sum(len(part) for part in parts) == len(set().union(*parts)) == 5
        judged += [s.study_id for s in data.part(Split.TEST)]
    assert sorted(judged) == sorted(row["study_id"] for row in rows)


def test_crossval_audits_what_it_judged(configure: Callable[..., Path], tmp_path: Path) -> None:
    config = configure(
        tmp_path, model={"network": {"encoder": {"name": "residual", "width": 4}}, "tasks": TASK}, data={"masks": []},
        trainer={"max_steps": 1, "val_check_interval": 1},
    )  # fmt: skip
    assert main(["crossval", "--config", str(config), "--folds", "3", "--out", str(tmp_path / "cv")]) == 0
    found = json.loads((tmp_path / "cv" / "audit_diagnosis.json").read_text())
    assert len(found["classes"]) == 3
    assert all(0 <= c["model"]["value"] <= 1 for c in found["classes"])
