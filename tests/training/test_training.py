from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from m2net.assessment.applied import AppliedModel
from m2net.cli.main import main
from m2net.errors import CheckpointError, ConfigError
from m2net.recipes.table import read_table
from m2net.reports.page import trained_on
from m2net.reports.results import write_table
from m2net.studies import write_manifest
from m2net.training import load_model, read_checkpoint
from m2net.training.schedules import factor, run_length

Configure = Callable[..., Path]


def test_networks_lie_channels_last(trained: Path) -> None:
    """Kernels and every map: convolutions of a CPU read them faster so (benchmarks/train_step.py)."""
    model = load_model(trained / "best.ckpt")
    network, images = model.network, torch.zeros(2, model.spec.channels, 64, 64)
    kernels = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert kernels
    for values in (*kernels, *network.features(images.contiguous(memory_format=torch.channels_last)).maps):
        assert values.is_contiguous(memory_format=torch.channels_last)


def test_fit_leaves_a_safe_checkpoint_that_says_what_it_saw(trained: Path) -> None:
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    about = checkpoint["m2net"]["trained_on"]
    assert about["studies"] == 6
    assert about["labels"] == {"lobes": 6, "severity:binary": 6, "diagnosis": 6, "infected": 6}
    assert about["phantom_versions"]
    kept = {"network", "tasks", "input", "optimizer", "schedule", "warmup", "mirror", "weighting", "tuning"}
    assert set(checkpoint["hyper_parameters"]) == kept
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["input"] == config["data"]["input"]
    model = load_model(trained / "best.ckpt")
    assert not model.training
    assert model.spec.patch == 32


@pytest.mark.parametrize(("hardware", "used"), [(False, "32-true"), (True, "bf16-mixed")])
def test_bfloat16_without_hardware_for_it_is_float32_and_said(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: bool, used: str
) -> None:
    monkeypatch.setattr("m2net.cli.lightning.fast_bfloat16", lambda: hardware)
    words = ["fit", "--config", str(trained / "config.in.yaml"), "--trainer.max_steps", "1", "--trainer.precision", "bf16-mixed"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["precision"] == used
    assert any("no hardware for bfloat16" in str(warning.message) for warning in said) is not hardware


def test_a_second_fit_in_the_same_folder(trained: Path) -> None:
    assert main(["fit", "--config", str(trained / "config.in.yaml"), "--trainer.max_steps", "1"]) == 0


def test_test_writes_metrics_and_a_row_a_study(trained: Path, tmp_path: Path, cohort: Path) -> None:
    words = ["test", "--config", str(trained / "config.in.yaml"), "--ckpt_path", str(trained / "best.ckpt")]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert metrics["studies"] == len(rows) == 2
    assert metrics["lobes/n"] == 2
    assert metrics["lobes/dice_mean"] > 0
    assert metrics["lobes/dice_mean_low"] is metrics["lobes/dice_mean_high"] is None  # two patients have no interval
    assert {"severity/auc", "severity/n", "severity/f1", "phantom_version"} <= set(metrics)
    assert {"study_id", "patient_id", "severity", "severity_ge1", "lobes_dice_left_upper"} <= set(rows[0])
    mean = sum(float(r["lobes_dice_left_upper"]) for r in rows) / 2
    assert metrics["lobes/dice_left_upper"] == pytest.approx(mean, abs=1e-6)


def test_test_on_a_new_manifest_without_split_or_labels(trained: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert main(["phantom", "--out", str(new), "--patients", "2", "--seed", "8", "--matrix", "64", "--slice-mm", "8"]) == 0
    with (new / "manifest.csv").open() as file:
        rows = [{k: r[k] for k in ("study_id", "patient_id", "modality", "image")} for r in csv.DictReader(file)]
    with (new / "bare.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    words = ["test", "--config", str(trained / "config.in.yaml"), "--ckpt_path", str(trained / "best.ckpt"),
             "--data.manifest", str(new / "bare.csv"), "--trainer.default_root_dir", str(tmp_path)]  # fmt: skip
    assert main(words) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["studies"] == 2
    assert metrics["severity/n"] == 0
    assert metrics["severity/auc"] is None
    told = (tmp_path / "predictions.csv").read_text()
    assert main(words) == 0
    assert not list(tmp_path.glob("*_1.*"))  # the same studies again
    rows[0]["study_id"] = "another"
    with (new / "bare.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(words) == 0
    assert (tmp_path / "predictions_1.csv").read_text() == told  # of other studies they may be all there is
    assert json.loads((tmp_path / "metrics_1.json").read_text()) == metrics
    (tmp_path / "predictions.csv").write_text("something else\n")
    assert main(words) == 0
    assert (tmp_path / "predictions_2.csv").read_text() == "something else\n"
    told = (tmp_path / "predictions.csv").read_text()
    assert main(["predict", *words[1:]]) == 0
    assert (tmp_path / "predictions.csv").read_text() == told  # what was judged stays
    assert len((tmp_path / "predicted.csv").read_text().splitlines()) == 3


def test_evaluation_takes_the_model_from_the_checkpoint(trained: Path, tmp_path: Path, configure: Configure) -> None:
    network = {"encoder": {"name": "m2unet", "width": 8}, "decoder": {"name": "m2unet", "width": 8}}
    own = read_checkpoint(trained / "best.ckpt")["hyper_parameters"]
    other = configure(tmp_path, model={"network": network}, data={"input": {"spacing_mm": 6.0, "patch": own["input"]["patch"] // 2}})
    assert main(["test", "--config", str(other), "--ckpt_path", str(trained / "best.ckpt")]) == 0
    assert yaml.safe_load((tmp_path / "config_test.yaml").read_text())["data"]["input"]["patch"] == own["input"]["patch"]


def test_resuming_an_unchanged_model_only(trained: Path, tmp_path: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path)
    assert main(["fit", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt"), "--trainer.max_steps", "6"]) == 0
    wider = ["--model.network", json.dumps({"encoder": {"name": "m2unet", "width": 8}, "decoder": {"name": "m2unet", "width": 8}})]
    assert main(["fit", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt"), *wider]) == 2
    assert "holds a run with another network" in capsys.readouterr().err
    for words, name in ((["--model.optimizer.lr", "0.1"], "optimizer"), (["--model.tuning.frozen", "0.5"], "tuning")):
        assert main(["fit", "--config", str(config), "--ckpt_path", str(trained / "best.ckpt"), *words]) == 2
        assert f"holds a run with another {name};" in capsys.readouterr().err


def test_the_same_seed_trains_the_same_weights(tmp_path: Path, configure: Configure) -> None:
    weights = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert main(["fit", "--config", str(configure(tmp_path / name))]) == 0
        weights.append(read_checkpoint(tmp_path / name / "best.ckpt")["state_dict"])
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_one_batch_is_learnt(tmp_path: Path, configure: Configure, cohort: Path) -> None:
    """The whole chain can fit what it is shown: lobes of the training patients, fully covered."""
    with cohort.open(newline="") as file:
        seen = [row for row in csv.DictReader(file) if row["split"] == "train"]
    placed = [row | {c: str(cohort.parent / row[c]) for c in ("image", "lobes", "lungs", "infection")} | {"split": "test"} for row in seen]
    write_manifest(tmp_path / "seen.csv", list(seen[0]), placed)
    trainer = yaml.safe_load(configure(tmp_path).read_text())["trainer"] | {"max_steps": 150, "val_check_interval": 150}
    network = {"encoder": {"name": "m2unet", "width": 8}, "decoder": {"name": "m2unet", "width": 8}}
    task = {"lobes": {"head": {"name": "dense"}, "objective": {"name": "segmentation"}}}
    config = configure(
        tmp_path, trainer=trainer, model={"network": network, "tasks": task, "optimizer": {"name": "adamw", "lr": 0.01}},
        data={"instances": 12, "augmentation": {}},
    )  # fmt: skip
    assert main(["fit", "--config", str(config)]) == 0
    words = ["--ckpt_path", str(tmp_path / "best.ckpt"), "--data.manifest", str(tmp_path / "seen.csv")]
    assert main(["test", "--config", str(config), *words]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["lobes/dice_mean"] > 0.6


def test_missing_labels_cost_nothing_but_a_task_without_any_is_an_error(
    tmp_path: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"severity": {"head": {"name": "hierarchical", "concepts": [8, 4]}, "objective": {"name": "severity", "scheme": "ordinal:4"}}}
    assert main(["fit", "--config", str(configure(tmp_path, model={"tasks": task}))]) == 2
    message = capsys.readouterr().err
    assert "no training study has a label severity:ordinal:4" in message
    assert "severity:binary (6)" in message


def test_one_label_for_all_is_said(tmp_path: Path, configure: Configure, rows: list[dict[str, str]], cohort: Path) -> None:
    placed = [row | {c: str(cohort.parent / row[c]) for c in ("image", "lobes", "lungs", "infection")} for row in rows]
    config = str(configure(tmp_path, trainer={"max_steps": 1, "val_check_interval": 1}))
    for name, grade in (("all", "1"), ("own", "")):
        told = [row | {"severity": grade or row["severity"]} if row["split"] == "train" else row for row in placed]
        write_manifest(tmp_path / f"{name}.csv", list(rows[0]), told)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert main(["fit", "--config", config, "--data.manifest", str(tmp_path / f"{name}.csv")]) == 0
        found = any("for the task severity has the same one (1)" in str(one.message) for one in said)
        assert found is (name == "all")


@pytest.mark.parametrize(("real", "version"), [(3, "1"), (0, "1 in real lobes"), (0, "1")])
def test_a_model_says_what_of_patients_it_has_seen(
    tmp_path: Path, configure: Configure, rows: list[dict[str, str]], cohort: Path, real: int, version: str
) -> None:
    placed = [row | {c: str(cohort.parent / row[c]) for c in ("image", "lobes", "lungs", "infection")} for row in rows]
    train = [row["study_id"] for row in rows if row["split"] == "train"]
    told = [row | {"phantom_version": "" if row["study_id"] in train[:real] else version} for row in placed]
    write_manifest(tmp_path / "m.csv", list(rows[0]), told)
    config = str(configure(tmp_path, trainer={"max_steps": 2, "val_check_interval": 2}))
    words = ["fit", "--config", config, "--data.manifest", str(tmp_path / "m.csv")]
    assert main(words) == 0
    model = AppliedModel(tmp_path / "best.ckpt")
    assert model.facts["trained_on"]["real_studies"] == real
    said = f"{len(train) - real} synthetic studies (version {version}) beside {real} of patients" if real else "not on patients"
    assert said in model.doubts()[0]
    assert ("of patients and the others synthetic" in trained_on(model.facts)) == bool(real)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main([*words, "--model.start_from", str(tmp_path / "best.ckpt"), "--trainer.default_root_dir", str(tmp_path / "next")]) == 0
    assert any("honest only if none of their patients" in str(w.message) for w in caught) == (real > 0 or version != "1")


def test_weights_that_no_callback_kept_are_not_lost(tmp_path: Path, configure: Configure) -> None:
    never = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(tmp_path / "kept"), "every_n_train_steps": 9}}
    trainer = {"max_steps": 2, "limit_val_batches": 0, "callbacks": [never]}
    config = configure(tmp_path, data={"validate": False}, trainer=trainer)
    with pytest.warns(UserWarning, match="before its ModelCheckpoint kept anything"):
        assert main(["fit", "--config", str(config)]) == 0
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2
    assert not (tmp_path / "kept").exists()


def test_checkpoints_of_others(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("no")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "pickle.ckpt")
    for name, message in (("other", "another program"), ("text", "cannot be read"), ("pickle", "cannot be read"), ("none", "not exist")):
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path / f"{name}.ckpt")


def test_schedules() -> None:
    with pytest.raises(ConfigError, match="has no end"):
        run_length(math.inf, "constant", 0.05, 0.0)  # it would warm up for ever
    assert run_length(math.inf, "constant", 0.0, 0.0) == math.inf
    assert factor("cosine", 0.0, 0.1) == pytest.approx(0.1)
    assert factor("cosine", 0.1, 0.1) == pytest.approx(1.0)
    assert factor("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert factor("polynomial", 1.0, 0.0) == 0
    assert factor("constant", 0.9, 0.0) == 1
    assert [factor("staircase", step / 10000, 0.0) for step in (0, 2999, 3000, 5999, 6000, 9000)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.001]
    )


def test_pictures_take_the_same_path(tmp_path: Path, configure: Configure, cohort: Path, rows: list[dict[str, str]]) -> None:
    """Grey PNG slices: relative intensity, no geometry, bags of one slice; the answer lies on the picture's own pixels."""
    import numpy as np
    from PIL import Image

    from m2net.studies import read_image

    lines = ["study_id,patient_id,modality,image,severity,severity_scheme,split"]
    for row, split in zip(rows[:6], ["train"] * 4 + ["val", "test"], strict=True):
        volume = read_image(cohort.parent / row["image"]).array
        plane = np.clip((volume[len(volume) // 2] + 1000) / 1400 * 255, 0, 255).astype(np.uint8)
        Image.fromarray(plane).save(tmp_path / f"{row['study_id']}.png")
        lines.append(f"{row['study_id']},{row['patient_id']},ct,{row['study_id']}.png,{row['severity']},binary,{split}")
    (tmp_path / "pictures.csv").write_text("\n".join(lines))
    spec = {"intensity": "relative", "patch": 32, "slices": 1, "positions": True, "window": [0, 32767]}
    config = configure(tmp_path, data={"manifest": str(tmp_path / "pictures.csv"), "input": spec})
    tasks = {"severity": {"head": {"name": "hierarchical", "concepts": [8, 4]}, "objective": {"name": "severity"}}}
    assert main(["fit", "--config", str(config), "--data.masks", "[]", "--model.tasks", json.dumps(tasks)]) == 0
    picture = tmp_path / f"{rows[5]['study_id']}.png"
    assert main(["assess", str(picture), "--model", str(tmp_path / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / rows[5]["study_id"] / "assessment.json").read_text())
    assert found["image"]["spacing_mm_zyx"] is None
    assert any("No HU and no millimetres" in w for w in found["warnings"])
    volume = cohort.parent / rows[0]["image"]
    assert main(["assess", str(volume), "--model", str(tmp_path / "best.ckpt"), "--out", str(tmp_path / "out")]) == 2


def test_a_checkpoint_after_further_steps_has_no_calibration_of_the_weights_before(trained: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((trained / "config.in.yaml").read_text())
    config["model"]["tasks"]["severity"]["objective"]["calibrate"] = "temperature"
    steps = {"dirpath": str(tmp_path), "filename": "later", "every_n_train_steps": 3}
    best = {"dirpath": str(tmp_path), "filename": "best", "monitor": "val/score", "mode": "max"}
    config["trainer"]["callbacks"] = [{"class_path": "ModelCheckpoint", "init_args": given} for given in (best, steps)]
    config["trainer"] |= {"max_steps": 3, "val_check_interval": 2, "check_val_every_n_epoch": None, "default_root_dir": str(tmp_path)}
    (tmp_path / "in.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "in.yaml")]) == 0
    kept = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "later")}
    assert (kept["best"]["global_step"], kept["later"]["global_step"]) == (2, 3)
    assert "temperature" in kept["best"]["m2net"]["calibration"]["severity"]
    assert kept["later"]["m2net"]["calibration"] == {}


def one_class(manifest: Path, out: Path) -> Path:
    """The cohort with one grade in its validation part, and severity alone to choose by."""
    rows = read_table(manifest)
    for row in rows:
        row |= {name: str(manifest.parent / row[name]) if row[name] else "" for name in ("image", "lobes", "lungs", "infection")}
        row["severity"] = "0" if row["split"] == "val" else row["severity"]
    write_table(out, rows)
    return out


def test_a_checkpoint_that_nothing_chose_is_no_best(
    configure: Configure, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Of one class there is no AUC: Lightning keeps the first validation's weights; the last are kept beside them, and it is said."""
    tasks = {"severity": {"head": {"name": "pooled"}, "objective": {"name": "severity", "scheme": "binary"}}}
    network = {"encoder": {"name": "residual", "width": 4}}
    manifest = str(one_class(cohort, tmp_path / "m.csv"))
    config = configure(tmp_path, model={"network": network, "tasks": tasks}, data={"manifest": manifest, "masks": []})
    with pytest.warns(UserWarning, match="val/score was undefined in every validation"):
        assert main(["fit", "--config", str(config)]) == 0
    steps = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")]
    assert steps == [2, 4]
    words = ["finetune", "--from", str(tmp_path / "last.ckpt"), "--manifest", manifest, "--store", str(tmp_path / "store")]
    assert main([*words, "--out", str(tmp_path / "tuned"), "--trainer.max_steps", "8", "--trainer.val_check_interval", "4"]) == 2
    assert "undefined in every validation, so that nothing chose a checkpoint" in capsys.readouterr().err


def test_finetune_does_not_write_over_what_it_starts_from(trained: Path, cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "best.ckpt").read_bytes()
    words = ["finetune", "--from", str(trained / "best.ckpt"), "--manifest", str(cohort), "--store", str(trained / "store")]
    assert main([*words, "--out", str(trained)]) == 2
    assert "which the run would write over" in capsys.readouterr().err
    assert (trained / "best.ckpt").read_bytes() == before


def test_a_split_of_before_is_not_lost(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = [{k: v for k, v in row.items() if k != "split"} for row in read_table(one_class(cohort, tmp_path / "with.csv"))]
    write_table(tmp_path / "m.csv", bare)
    parts = ["split", str(tmp_path / "m.csv"), "--parts", "0.5", "0.3", "0.2"]
    assert main(parts) == main(parts) == 0
    assert main(["split", str(tmp_path / "m.csv"), "--folds", "3"]) == 2
    assert "m.split.csv holds the split column of an earlier m2net split" in capsys.readouterr().err
    assert main(["split", str(tmp_path / "m.csv"), "--folds", "3", "--out", str(tmp_path / "folds.csv")]) == 0
    assert main(["split", str(tmp_path / "m.split.csv"), "--folds", "3", "--out", str(tmp_path / "m.split.csv")]) == 0
    assert {"split", "fold"} <= set(read_table(tmp_path / "m.split.csv")[0])
