"""Starting from an earlier run, mirrored evaluation, moving averages and folds by patient."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from m2net.bags import add_coordinates, apply_window
from m2net.bags.datamodule import BagDataModule
from m2net.cli.main import main
from m2net.errors import CheckpointError, ConfigError
from m2net.networks import M2Net
from m2net.objectives import DiagnosisObjective, SeverityObjective
from m2net.training import M2NetModule, load_model
from m2net.training.loading import CHECKPOINT_MARK, hyper_parameters, read_checkpoint
from m2net.training.starting import start_from_run
from m2net.training.tasks import tell_idle
from m2net.training.transfer import PARTS, Transfer, take_over
from m2net.training.tuning import Anchor, Tuning
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


def changed(trained: Path, **changes: object) -> tuple[M2NetModule, M2NetModule, Transfer]:
    """The trained model, a new one with other arguments, and what the new one took over."""
    checkpoint = read_checkpoint(trained / "best.ckpt")
    arguments = hyper_parameters(checkpoint)
    torch.manual_seed(8)
    new = M2NetModule(**(arguments | changes))
    old = load_model(trained / "best.ckpt")
    return old, new, take_over(new.network, checkpoint, trained / "best.ckpt", PARTS, old.meaning, new.meaning)


def test_what_does_not_fit_is_told(trained: Path) -> None:
    network = {"encoder": {"name": "m2unet", "width": 6}, "decoder": {"name": "m2unet", "width": 4}}
    with pytest.raises(CheckpointError, match="of the new encoder's tensors are not in"):
        changed(trained, network=network)
    with pytest.raises(CheckpointError, match="of the new encoder's tensors are not in"):
        changed(trained, network={"encoder": {"name": "residual", "width": 4}, "decoder": {"name": "grid", "depth": 2}})


@pytest.mark.parametrize("parts", [("encoder",), ("encoder", "decoder"), ("encoder", "decoder", "heads")])
def test_parts_that_are_asked_for_are_taken(trained: Path, parts: tuple[str, ...]) -> None:
    checkpoint = read_checkpoint(trained / "best.ckpt")
    fresh = M2NetModule(**hyper_parameters(checkpoint))
    transfer = take_over(fresh.network, checkpoint, trained / "best.ckpt", parts, fresh.meaning, fresh.meaning)
    assert {name.split(".")[0] for name in transfer.loaded} == set(parts)
    assert {name.split(".")[0] for name in transfer.fresh} == {"encoder", "decoder", "heads"} - set(parts)
    assert not transfer.adapted


def test_channels_are_matched_by_name_and_new_ones_are_silent(trained: Path) -> None:
    """The first convolution of the trained model sees three slices and six coordinate channels."""
    spec = {"spacing_mm": 6.0, "patch": 32, "slices": 5, "positions": False}
    old, new, transfer = changed(trained, input=spec)
    assert transfer.adapted == ["encoder.blocks.0.0.weight"]
    before, after = old.network.encoder.blocks[0][0].weight, new.network.encoder.blocks[0][0].weight  # type: ignore[union-attr, index]
    torch.testing.assert_close(after[:, 1:4], before[:, :3])
    assert not after[:, [0, 4]].any()
    picture = torch.randn(2, 5, 32, 32)
    known = torch.cat([picture[:, 1:4], torch.zeros(2, 6, 32, 32)], 1)
    torch.testing.assert_close(new.eval().network.features(picture).maps[-1], old.network.features(known).maps[-1], atol=1e-5, rtol=1e-4)


def test_rows_of_classes_with_the_same_name_are_kept(trained: Path) -> None:
    """From five lobes to both lungs only the background is the same; from lobes to lobes all rows are."""
    hierarchical = {"name": "hierarchical", "concepts": [16, 8]}
    lungs = {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "lungs"}}
    ordinal = {"head": hierarchical, "objective": {"name": "severity", "scheme": "ordinal:3"}}
    diagnosis = {"head": {"name": "pooled"}, "objective": {"name": "diagnosis"}}
    old, new, transfer = changed(trained, tasks={"lobes": lungs, "severity": ordinal, "diagnosis": diagnosis})
    assert transfer.adapted == ["heads.lobes.classify.bias", "heads.lobes.classify.weight"]
    before, after = old.network.heads["lobes"].classify.weight, new.network.heads["lobes"].classify.weight  # type: ignore[union-attr]
    torch.testing.assert_close(after[0], before[0])
    assert len(after) == 3
    assert not any(torch.allclose(row, other) for row in after[1:] for other in before)
    answers = [name for name in transfer.fresh if name.startswith("heads.severity")]
    assert len(answers) == 2  # weight and bias of the last layer; grades of another scheme mean something else
    assert all(new.network.state_dict()[name].shape[0] == 3 for name in answers)
    assert any(name.startswith("heads.severity.") for name in transfer.loaded)  # the concepts stay
    assert any(name.startswith("heads.diagnosis.") for name in transfer.fresh)


def test_classes_of_other_names_are_not_taken_for_each_other(trained: Path) -> None:
    """Six classes then and now, but not the same six: order and identity go by name."""
    checkpoint = read_checkpoint(trained / "best.ckpt")
    model = M2NetModule(**hyper_parameters(checkpoint))
    before = dataclasses.replace(model.meaning, answers={**model.meaning.answers, "lobes": ["background", "e", "d", "c", "b", "a"]})
    now = dataclasses.replace(model.meaning, answers={**model.meaning.answers, "lobes": ["background", "a", "b", "f", "d", "e"]})
    row = "heads.lobes.classify.bias"
    own = model.network.state_dict()[row].clone()
    transfer = take_over(model.network, checkpoint, trained / "best.ckpt", PARTS, before, now)
    saved, taken = checkpoint["state_dict"][f"network.{row}"], model.network.state_dict()[row]
    torch.testing.assert_close(taken, torch.stack([saved[0], saved[5], saved[4], own[3], saved[2], saved[1]]))
    assert row in transfer.adapted


def test_a_frozen_start_moves_the_heads_alone(trained: Path, configure: Callable[..., Path], tmp_path: Path) -> None:
    """Half of the run frozen; batch statistics kept; then deeper stages move further than shallow ones."""
    tuning = {"frozen": 0.5, "layer_decay": 0.1, "norm": "keep"}
    start = {"start_from": str(trained / "best.ckpt"), "start_parts": ["encoder", "decoder", "heads"], "tuning": tuning}
    sgd = {"optimizer": {"name": "sgd", "lr": 0.01}, "schedule": "constant", "warmup": 0.0}
    before = read_checkpoint(trained / "best.ckpt")["state_dict"]
    config = configure(tmp_path, model={**start, **sgd}, trainer={"max_steps": 4, "val_check_interval": 2})
    keep = {"filename": "{step}", "save_top_k": "-1", "monitor": "null"}
    words = [w for k, v in keep.items() for w in (f"--trainer.callbacks.init_args.{k}", v)]
    assert main(["fit", "--config", str(config), *words]) == 0
    moved = {}
    for steps in (2, 4):
        after = read_checkpoint(tmp_path / f"step={steps}.ckpt")["state_dict"]
        pairs = {k: (v.float(), before[k].float()) for k, v in after.items() if not k.endswith("num_batches_tracked")}
        moved[steps] = {k: float((a - b).norm() / b.norm().clamp(min=1e-9)) for k, (a, b) in pairs.items()}
    assert max(v for k, v in moved[2].items() if ".encoder." in k or ".decoder." in k) == 0
    assert max(v for k, v in moved[2].items() if ".heads." in k) > 0
    assert max(v for k, v in moved[4].items() if "running" in k) == 0
    weights = {k: v for k, v in moved[4].items() if ".encoder." in k and k.endswith("weight")}
    assert 0 < weights["network.encoder.blocks.0.3.weight"] < weights["network.encoder.blocks.4.3.weight"]


def test_the_anchor_pulls_back_what_was_taken_over() -> None:
    """A decoupled pull of rate times strength, against the closed form."""
    network = M2Net(1, {"name": "m2unet", "width": 2}, {"severity": {"name": "hierarchical", "classes": 2, "concepts": [4, 4]}})
    weight = network.encoder.blocks[0][0].weight  # type: ignore[union-attr, index]
    head = next(network.heads.parameters())
    anchor = Anchor(network, ["encoder.blocks.0.0.weight"])
    start, other = weight.detach().clone(), head.detach().clone()
    with torch.no_grad():
        weight += 1
        head += 1
    anchor.pull(torch.optim.SGD(network.parameters(), lr=0.1), strength=2.0)
    torch.testing.assert_close(weight.detach(), start + 0.8)
    torch.testing.assert_close(head.detach(), other + 1)


def test_every_parameter_is_in_one_group_with_its_rate(trained: Path) -> None:
    model = load_model(trained / "best.ckpt")
    groups = Tuning.of({"layer_decay": 0.5}).groups(model, model.network, 1.0)
    grouped = [p for group in groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    blocks = model.network.encoder.blocks
    assert [rate[id(block[0].weight)] for block in blocks] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5]  # type: ignore[union-attr, index]
    assert {rate[id(p)] for p in model.network.decoder.parameters()} == {0.5}  # type: ignore[union-attr]
    assert {rate[id(p)] for p in model.network.heads.parameters()} == {1.0}
    for wrong in ({"frozen": 1.0}, {"layer_decay": 0.0}, {"anchor": -1.0}, {"norm": "batch"}, {"thaw": 1}):
        with pytest.raises(ConfigError, match="model.tuning"):
            Tuning.of(wrong)


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
    network = {"encoder": {"name": "residual", "width": 4}, "decoder": {"name": "grid", "depth": 2}}
    dense = {mask: {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": mask}} for mask in ("lungs", "lobes")}
    model = M2NetModule(network, {"lungs": dense["lungs"]}, spec, mirror=True).eval()
    with torch.no_grad():
        one, other = model(batch)["lungs"].logits, model(flipped)["lungs"].logits
    assert not torch.allclose(one, other.flip(3))
    torch.testing.assert_close(one, other.flip(3)[:, [0, 2, 1]])
    with pytest.raises(ConfigError, match="lobes or positions"):
        M2NetModule(network, {"lobes": dense["lobes"]}, spec, mirror=True)


def test_averaged_weights_are_the_checkpoint(configure: Callable[..., Path], tmp_path: Path, cohort: Path) -> None:
    config = configure(tmp_path, model={"network": {"encoder": {"name": "residual", "width": 4}}, "tasks": TASK}, data={"masks": []})
    average = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    assert main(["fit", "--config", str(config), "--trainer.callbacks+", json.dumps(average)]) == 0
    assert main(["test", "--config", str(config), "--ckpt_path", str(tmp_path / "best.ckpt")]) == 0
    assert "diagnosis/auc" in json.loads((tmp_path / "metrics.json").read_text())
    kept = read_checkpoint(tmp_path / "best.ckpt")
    averaged, current = kept["state_dict"], kept["current_model_state"]
    weight = next(name for name in averaged if name.startswith("network.encoder.") and name.endswith("weight"))
    assert not torch.equal(averaged[weight], current[weight])
    torch.testing.assert_close(load_model(tmp_path / "best.ckpt").state_dict()[weight], averaged[weight])


def test_folds_are_judged_by_the_weights_that_they_keep(configure: Callable[..., Path], cohort: Path, tmp_path: Path) -> None:
    """Averaged weights: what crossval writes of a fold is what m2net test says of its checkpoint, and not what the last step's own do."""
    network = {"encoder": {"name": "residual", "width": 4}}
    config = configure(tmp_path, model={"network": network, "tasks": TASK, "optimizer": {"name": "adamw", "lr": 0.02}}, data={"masks": []})
    average = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.6}}
    words = ["--config", str(config), "--trainer.callbacks+", json.dumps(average)]
    assert main(["crossval", *words, "--folds", "3", "--out", str(tmp_path / "cv")]) == 0
    fold = tmp_path / "cv" / "fold_1"
    kept = read_checkpoint(fold / "best.ckpt")
    assert any(not torch.equal(kept["state_dict"][name], value) for name, value in kept["current_model_state"].items())
    manifest = cohort.with_name(f"{cohort.stem}.3folds-0.csv")
    place = ["--data.manifest", str(manifest), "--data.fold", "1", "--trainer.default_root_dir", str(tmp_path / "again")]
    assert main(["test", *words, *place, "--ckpt_path", str(fold / "best.ckpt")]) == 0
    with (fold / "predictions.csv").open(newline="") as one, (tmp_path / "again" / "predictions.csv").open(newline="") as other:
        crossed, tested = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert crossed == tested


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


def test_what_lightning_cannot_run_is_one_line(configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeper = {"class_path": "ModelCheckpoint", "init_args": {"filename": "best", "monitor": "val/nothing", "mode": "max"}}
    config = configure(
        tmp_path, model={"network": {"encoder": {"name": "residual", "width": 4}}, "tasks": TASK}, data={"masks": []},
        trainer={"max_steps": 1, "val_check_interval": 1, "callbacks": [keeper]},
    )  # fmt: skip
    assert main(["crossval", "--config", str(config), "--folds", "3", "--out", str(tmp_path / "cv")]) == 2
    assert "Lightning cannot run this configuration" in capsys.readouterr().err


def test_crossval_audits_what_it_judged(configure: Callable[..., Path], tmp_path: Path) -> None:
    config = configure(
        tmp_path, model={"network": {"encoder": {"name": "residual", "width": 4}}, "tasks": TASK}, data={"masks": []},
        trainer={"max_steps": 1, "val_check_interval": 1},
    )  # fmt: skip
    words = ["crossval", "--config", str(config), "--folds", "3", "--out", str(tmp_path / "cv"), "--audit-columns"]
    assert main([*words, "date"]) == 2
    assert not (tmp_path / "cv").exists()
    assert main([*words, "true_severity_ge1"]) == 0
    found = json.loads((tmp_path / "cv" / "audit_diagnosis.json").read_text())
    assert len(found["classes"]) == 3
    assert all("column true_severity_ge1" in c["families"] for c in found["classes"])
    assert all(0 <= c["model"]["value"] <= 1 for c in found["classes"])


KEPT = {"lobes": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "lobes"}, "weight": 0.0}}
LEARNS = {"severity": {"head": {"name": "pooled"}, "objective": {"name": "severity"}}}


@pytest.mark.parametrize(
    ("start", "said"),
    [({}, "lobes of weight 0 would stay untrained"), ({"start_parts": ["encoder"]}, "lobes of weight 0 would stay as they begin")],
)
def test_a_task_that_is_kept_must_come_from_somewhere(
    trained: Path, configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], start: dict[str, object], said: str
) -> None:
    given = start | ({"start_from": str(trained / "best.ckpt")} if start else {})
    network = {"encoder": {"name": "m2unet", "width": 4}, "decoder": {"name": "m2unet", "width": 4}}
    config = configure(tmp_path, model={"tasks": KEPT | LEARNS, "network": network, **given})
    assert main(["fit", "--config", str(config)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "trains"),
    [
        ({"name": "pooled"}, False),
        ({"name": "lobe_aware", "lobes": "lobes"}, True),
        ({"name": "lobe_aware", "lobes": "lobes", "source": "encoder", "gradient": False}, False),
    ],
)
def test_a_decoder_that_nothing_trains_stands_still(head: dict[str, object], trains: bool) -> None:
    """Several processes would wait for its gradient."""
    tasks = KEPT | {"severity": {"head": head, "objective": {"name": "severity"}}}
    network = {"encoder": {"name": "residual", "width": 4}, "decoder": {"name": "smp_unet", "channels": [16, 8, 8, 8]}}
    module = M2NetModule(network, tasks, input={"patch": 32})
    assert all(weight.requires_grad is trains for weight in module.network.decoder.parameters())


@pytest.mark.parametrize("name", ["type", "values", "train", "severity.v2"])
def test_names_that_torch_uses_itself(name: str) -> None:
    with pytest.raises(ConfigError, match="a task is named"):
        M2NetModule({"encoder": {"name": "residual", "width": 4}}, {name: LEARNS["severity"]}, input={"patch": 32})


def test_a_warm_up_in_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="a warm-up of 500"):
        M2NetModule({"encoder": {"name": "residual", "width": 4}}, LEARNS, input={"patch": 32}, warmup=500)


def test_what_no_part_can_fit_is_told(recwarn: pytest.WarningsRecorder) -> None:
    calibrated = SeverityObjective(calibrate="shift", coverage=0.9)
    tell_idle([("severity", calibrated), ("diagnosis", DiagnosisObjective())], validates=False)
    assert ["what severity would fit there" in str(one.message) for one in recwarn] == [True]
    tell_idle([("severity", calibrated)], validates=True)
    assert len(recwarn) == 1


def test_a_calibration_of_other_groups_is_not_taken_over(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    network = {"encoder": {"name": "residual", "width": 4}}
    head = {"name": "pooled"}
    tasks = {"diagnosis": {"head": head, "objective": {"name": "diagnosis"}}}
    other = {
        "diagnosis": {"head": head, "objective": {"name": "diagnosis", "groups": [["covid19"], ["non_pneumonia", "cap"]]}, "weight": 0.0}
    }
    old = M2NetModule(network, tasks, input={"patch": 32})
    calibration = {"temperature": 2.0, "bias": [0.0, 1.0, 2.0], "groups": ["non_pneumonia", "covid19", "cap"]}
    saved = {"state_dict": old.state_dict(), "hyper_parameters": dict(old.hparams)}
    torch.save(saved | {CHECKPOINT_MARK: {"version": "0", "calibration": {"diagnosis": calibration}}}, tmp_path / "old.ckpt")
    for groups, expected in ((tasks | {"diagnosis": tasks["diagnosis"] | {"weight": 0.0}}, calibration), (other, {})):
        new = M2NetModule(network, groups | {"severity": LEARNS["severity"]}, input={"patch": 32}, start_from="x", start_parts=list(PARTS))
        start_from_run(new, tmp_path / "old.ckpt")
        assert dict(new.named_objectives())["diagnosis"].calibration == expected
    assert any("decides between other groups" in str(one.message) for one in recwarn)


@pytest.mark.parametrize(("processes", "size"), [(1, 4), (2, 3), (3, 2), (6, 1), (7, None)])
def test_few_studies_on_several_processes(cohort: Path, store: Path, processes: int, size: int | None) -> None:
    """Six training studies: each process has its share of them, and the last batch of a share is dropped if it is not full."""
    data = BagDataModule(str(cohort), str(store), input={"patch": 32, "spacing_mm": 6.0}, studies_per_batch=4)
    data.prepare_data()
    data.setup("fit")
    data.trainer = SimpleNamespace(world_size=processes)  # type: ignore[assignment]
    if size is None:
        with pytest.raises(ConfigError, match="6 training studies for more processes"):
            data.train_dataloader()
    else:
        assert data.train_dataloader().batch_size == size
