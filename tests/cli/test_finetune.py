"""``m2net finetune`` as a user runs it: few patients, a held-out part, a planted failure, going on after a stop."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from sklearn.metrics import roc_auc_score

from m2net.assessment.outcome import Repeat, compare
from m2net.batch import Output
from m2net.cli.finetune import _ask_alike, _with_steps
from m2net.cli.main import main
from m2net.errors import ConfigError
from m2net.studies import read_manifest
from m2net.training import M2NetModule, load_model, read_checkpoint
from m2net.training.finetuning import labelled_patients, plan_finetuning
from m2net.training.loading import CHECKPOINT_MARK, hyper_parameters
from m2net.vocabulary import Split

SHORT = ["--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients of another site, without a split."""
    folder = tmp_path_factory.mktemp("elsewhere")
    words = ["--patients", "12", "--seed", "3", "--matrix", "64", "--slice-mm", "8", "--site", "north", "--graders", "consolidation"]
    assert main(["phantom", "--out", str(folder), *words]) == 0
    return folder / "manifest.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_few_patients_are_judged_by_repeated_folds(
    trained: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out = tmp_path / "run"
    words = ["finetune", "--from", str(trained / "best.ckpt"), "--manifest", str(elsewhere), "--store", str(tmp_path / "store")]
    words += ["--out", str(out), "--folds", "3", "--repeats", "2", "--accept", *SHORT]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "severity: binary\n" in said
    assert "verdict: " in said
    outcome = json.loads((out / "outcome.json").read_text())
    assert (outcome["patients"], outcome["folds"], outcome["repeats"]) == (12, 3, 2)
    figures = {(f["task"], f["figure"]) for f in outcome["figures"]}
    assert {("lobes", "dice_mean"), ("severity", "auc"), ("severity", "brier")} <= figures
    assert outcome["transfer"]["fresh"] == outcome["transfer"]["skipped"] == 0
    assert outcome["shift"]["before"]["case_mix"]["severity:binary"]
    rows = rows_of(out / "predictions.csv")
    assert sorted(row["study_id"] for row in rows if row["repeat"] == "1") == sorted(row["study_id"] for row in rows_of(elsewhere))
    page = (out / "report.html").read_text()
    assert "Research use only" in page
    assert page.count("data:image/png;base64,") == 3
    model = load_model(out / "best.ckpt")
    assert model.about["trained_on"]["patients"] == 12
    assert model.about["started_from"]["trained_on"]["patients"] == 6
    judged = [load_model(out / f"repeat_0/fold_{k}/best.ckpt").about["trained_on"]["patients"] for k in range(3)]
    assert judged == [8, 8, 8]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.ckpt")}
    assert main(words) == 0
    assert "done before, kept" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.ckpt")} == before


def test_the_base_is_asked_between_the_same_groups(rng: np.random.Generator) -> None:
    """A model of three classes is the base of one that tells COVID-19 or not: its rows are then figures of that question."""
    tasks = {"diagnosis": {"head": {"name": "pooled"}, "objective": {"name": "diagnosis"}}}
    network, spec = {"encoder": {"name": "residual", "width": 4}}, {"spacing_mm": 6.0, "patch": 32}
    groups = [["covid19"], ["non_pneumonia", "cap"]]
    base = M2NetModule(network, tasks, spec)
    tuned = M2NetModule(network, {"diagnosis": {**tasks["diagnosis"], "objective": {"name": "diagnosis", "groups": groups}}}, spec)
    _ask_alike(base, tuned)
    objective = base.objectives["diagnosis"]
    logits = torch.from_numpy(rng.normal(size=(40, 3)))
    batch = SimpleNamespace(num_bags=40, instances=torch.zeros(1), bag_targets={"diagnosis": torch.eye(3).bool()[torch.arange(40) % 3]})
    rows = [row | {"patient_id": str(k)} for k, row in enumerate(objective.rows(Output(logits), batch))]  # type: ignore[arg-type]
    (figure, *_) = compare("diagnosis", tuned.objectives["diagnosis"], rows, [Repeat(rows, np.zeros(40, np.int64), None)])  # type: ignore[arg-type]
    p = logits.softmax(1)[:, 1].numpy()
    assert figure.base is not None
    assert figure.base.value == pytest.approx(roc_auc_score(np.arange(40) % 3 == 1, p))
    assert figure.outcome == "not distinguishable"


def with_low_lobes(source: Path, target: Path) -> Path:
    """The mask with all of each lung given to its lower lobe, but for the topmost slice: wrong, and no check of quality can see it."""
    mask = sitk.ReadImage(str(source))
    codes = sitk.GetArrayFromImage(mask)
    wrong = np.array([0, 2, 2, 5, 5, 5], np.uint8)[codes]
    top = max(np.flatnonzero(codes.any(axis=(1, 2))), key=lambda z: mask.TransformIndexToPhysicalPoint((0, 0, int(z)))[2])
    wrong[top] = np.array([0, 1, 1, 3, 3, 3], np.uint8)[codes[top]]
    image = sitk.GetImageFromArray(wrong)
    image.CopyInformation(mask)
    sitk.WriteImage(image, str(target))
    return target


def test_wrong_labels_are_found_out(
    configure: Callable[..., Path], elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """A model that knows something of lobes, taught wrong ones, judged on right ones: worse than base, and all is kept."""
    tasks = {"lobes": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "lobes"}}}
    home = tmp_path / "home"
    home.mkdir()
    network = {"encoder": {"name": "residual", "width": 8}, "decoder": {"name": "grid", "depth": 2, "width": 16}}
    model = {"network": network, "tasks": tasks, "optimizer": {"name": "adamw", "lr": 0.01}}
    spec = {"spacing_mm": 6.0, "patch": 64, "view": "slices", "slices": 1, "positions": True}
    trainer = {"max_steps": 120, "val_check_interval": 120}
    assert main(["fit", "--config", str(configure(home, model=model, data={"input": spec, "instances": 8}, trainer=trainer))]) == 0
    rows = rows_of(elsewhere)
    for k, row in enumerate(rows):
        row |= {column: str(elsewhere.parent / row[column]) for column in ("image", "lobes")} | {"infection": "", "lungs": ""}
        row["split"] = "test" if k % 2 else "train"
        if row["split"] == "train":
            row["lobes"] = str(with_low_lobes(Path(row["lobes"]), tmp_path / f"{k}.nii.gz"))
    manifest = write(tmp_path / "m.csv", rows)
    words = ["finetune", "--from", str(home / "best.ckpt"), "--manifest", str(manifest), "--store", str(tmp_path / "store")]
    words += ["--out", str(tmp_path / "run"), "--trainer.max_steps", "60", "--model.optimizer.lr", "0.01", "--model.tuning.frozen", "0"]
    assert main(words) == 3
    assert "verdict: WORSE THAN BASE" in capsys.readouterr().out
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    (figure,) = [f for f in outcome["figures"] if f["primary"]]
    assert outcome["verdict"] == "worse than base"
    assert figure["gain"]["high"] < 0
    assert (tmp_path / "run" / "best.ckpt").is_file()
    curves = tmp_path / "run" / "csv"
    fitted = [path.read_text() for path in curves.glob("metrics*.csv") if "train/loss" in path.read_text()]
    assert main([*words, "--accept"]) == 0
    assert "done before, kept" in capsys.readouterr().out
    assert [path.read_text() for path in curves.glob("metrics*.csv") if "train/loss" in path.read_text()] == fitted


def test_another_scheme_starts_its_last_layer_anew_and_tasks_without_labels_are_kept(
    trained: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    rows = rows_of(elsewhere)
    for k, row in enumerate(rows):
        row |= {"image": str(elsewhere.parent / row["image"]), "lobes": "", "lungs": "", "infection": ""}
        row |= {"severity": str(k % 3), "severity_scheme": "ordinal:3", "split": "train" if k < 6 else "val" if k < 8 else "test"}
        row.pop("true_severity_ge1")
    manifest = write(tmp_path / "m.csv", rows)
    words = ["finetune", "--from", str(trained / "best.ckpt"), "--manifest", str(manifest), "--store", str(tmp_path / "store")]
    assert main([*words, "--out", str(tmp_path / "run"), *SHORT, "--trainer.val_check_interval", "3"]) == 0
    said = capsys.readouterr().out
    assert "graded ordinal:3 instead of binary; its last layer starts anew" in said
    assert "kept as it is, too few labels: lobes" in said
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert outcome["verdict"] == "nothing to compare"
    assert {f["task"] for f in outcome["figures"]} == {"severity"}
    transfer = json.loads((tmp_path / "run" / "transfer.json").read_text())
    assert [name.rpartition(".")[2] for name in transfer["fresh"]] == ["bias", "weight"]
    config = yaml.safe_load((tmp_path / "run" / "finetune.yaml").read_text())
    assert config["model"]["tasks"]["lobes"]["weight"] == 0
    saved, tuned = (load_model(p / "best.ckpt").network.heads["lobes"].state_dict() for p in (trained, tmp_path / "run"))
    for name, weights in saved.items():  # averaging rounds
        torch.testing.assert_close(tuned[name], weights, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_tuned_is_said(trained: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(elsewhere)
    for row in rows:
        row |= {column: str(elsewhere.parent / row[column]) for column in ("image", "lobes", "lungs", "infection")}
    unlabelled = write(tmp_path / "unlabelled.csv", [row | {"lobes": "", "severity": "", "severity_scheme": ""} for row in rows])
    untested = write(tmp_path / "untested.csv", [row | {"split": "train"} for row in rows])
    good = {
        "--from": str(trained / "best.ckpt"),
        "--manifest": str(elsewhere),
        "--store": str(tmp_path / "s"),
        "--out": str(tmp_path / "o"),
    }
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text("model: {network: {encoder: {name: m2unet, width: 2}, decoder: {name: m2unet, width: 2}}}")
    texts = {
        "broken": "model: [", "list": "- 1", "empty": "model:", "alone": "model: {tasks: {severity: {weight: 1}}}",
        "misspelt": "model: {tasks: {severity: {head: {name: pooled}, objective: {name: severty}}}}",
        "strange": "model: {tasks: {severity: {head: {name: pooled}, objective: {name: severity, colour: red}}}}",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    mistakes = {
        "broken": "is no YAML", "list": "settings by name", "empty": "model is None", "alone": "the task severity has no objective",
        "misspelt": "'severty' is unknown", "strange": "unexpected keyword argument 'colour'",
    }  # fmt: skip
    for changes, message in (
        *(({"--config": str(tmp_path / f"{name}.yaml")}, said) for name, said in mistakes.items()),
        ({"--from": str(elsewhere)}, "cannot be read as a checkpoint"),
        ({"--manifest": str(unlabelled)}, "has a label of 5 patients in the new data"),
        ({"--manifest": str(untested)}, "expected train and test"),
        ({"--config": str(tmp_path / "no.yaml")}, "does not exist"),
        ({"--config": str(narrow)}, "of the new encoder's tensors are not in"),
        ({"--folds": "1"}, "at least 2 folds"),
    ):
        assert main(["finetune", *(word for pair in {**good, **changes}.items() for word in pair)]) == 2
        assert message in capsys.readouterr().err


def test_a_run_does_not_end_before_the_shared_parts_moved(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Validations that may pass without a gain are more than those within the share of steps in which encoder and decoder stand still."""
    studies = [replace(s, split=Split.TRAIN if k % 3 else Split.VAL) for k, s in enumerate(read_manifest(elsewhere))]
    plan = plan_finetuning(
        read_checkpoint(trained / "best.ckpt"), trained / "best.ckpt", studies, elsewhere, tmp_path, tmp_path, validate=True
    )
    trainer = plan.config["trainer"]
    (stopper,) = (one["init_args"] for one in trainer["callbacks"] if one["class_path"].endswith("EarlyStopping"))
    frozen = plan.config["model"]["tuning"]["frozen"] * trainer["max_steps"]
    assert stopper["patience"] * trainer["val_check_interval"] > frozen


@pytest.mark.parametrize("more", [{"trainer": {"max_steps": 16}}, {"model": {"tasks": None}, "trainer": {"max_steps": 16}}])
def test_validations_are_spread_over_the_steps_that_are_asked_for(
    trained: Path, elsewhere: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    studies = [replace(s, split=Split.TRAIN if k % 3 else Split.VAL) for k, s in enumerate(read_manifest(elsewhere))]
    base = read_checkpoint(trained / "best.ckpt")
    plan = plan_finetuning(base, trained / "best.ckpt", studies, elsewhere, tmp_path, tmp_path, validate=True, more=more)
    assert plan.config["trainer"]["max_steps"] == 16
    assert plan.config["trainer"]["val_check_interval"] == 2
    assert plan.config["model"]["tasks"].keys() == {"lobes", "severity"}


def test_steps_on_the_command_line_are_heard() -> None:
    assert _with_steps({"data": {}}, ["--trainer.max_steps", "9", "--data.seed", "1"]) == {"data": {}, "trainer": {"max_steps": 9}}
    assert _with_steps({"trainer": {"max_steps": 4}}, ["--trainer.max_steps=7"]) == {"trainer": {"max_steps": 7}}
    assert _with_steps({}, ["--data.seed=1"]) == {}


def test_a_rule_that_nothing_can_set_anew_is_told(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Detection reads maps that learn: the rule that validation had chosen for them is gone where no part validates."""
    studies = list(read_manifest(elsewhere))
    tasks = {
        "infection": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "infection"}},
        "detection": {"objective": {"name": "detection"}},
    }
    for validate, told in ((False, True), (True, False)):
        parts = [replace(s, split=Split.TRAIN if k % 3 else Split.VAL) for k, s in enumerate(studies)]
        plan = plan_finetuning(
            read_checkpoint(trained / "best.ckpt"), trained / "best.ckpt", parts, elsewhere, tmp_path, tmp_path, validate=validate,
            more={"model": {"tasks": tasks}},
        )  # fmt: skip
        assert any("detection: without the rule" in line for line in plan.changed) is told


def test_calibrations_that_nothing_can_fit_are_told(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Without a validation part each task says what it loses, and no more."""
    studies = list(read_manifest(elsewhere))
    tasks = {
        "severity": {"head": {"name": "hierarchical"}, "objective": {"name": "severity", "calibrate": "shift", "coverage": 0.9}},
        "diagnosis": {"head": {"name": "hierarchical"}, "objective": {"name": "diagnosis", "calibrate": "shift"}},
    }
    plan = plan_finetuning(
        read_checkpoint(trained / "best.ckpt"), trained / "best.ckpt", studies, elsewhere, tmp_path, tmp_path, validate=False, folds=2,
        more={"model": {"tasks": tasks}},
    )  # fmt: skip
    assert "severity: not calibrated and without conformal sets, for no part validates" in plan.changed
    assert "diagnosis: not calibrated, for no part validates" in plan.changed
    assert not any("calibrate" in parts["objective"] for parts in plan.config["model"]["tasks"].values())


def test_grades_that_a_task_knows_are_not_given_to_another(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    """A model that grades in two schemes: the one of the new data learns, the other is kept."""
    studies = list(read_manifest(elsewhere))
    head = {"name": "hierarchical", "concepts": [16, 8]}
    tasks = {name: {"head": head, "objective": {"name": "severity", "scheme": name}} for name in ("ordinal:5", "binary")}
    tasks = {"five": tasks["ordinal:5"], "two": tasks["binary"]}
    plan = plan_finetuning(
        read_checkpoint(trained / "best.ckpt"), trained / "best.ckpt", studies, elsewhere, tmp_path, tmp_path, validate=False, folds=2,
        more={"model": {"tasks": tasks}},
    )  # fmt: skip
    made = plan.config["model"]["tasks"]
    assert {name: parts["objective"]["scheme"] for name, parts in made.items()} == {"five": "ordinal:5", "two": "binary"}
    assert (plan.trained, plan.kept) == (["two"], ["five"])


def test_a_weight_of_0_keeps_a_task_that_could_learn(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    studies = list(read_manifest(elsewhere))
    checkpoint = read_checkpoint(trained / "best.ckpt")
    tasks = hyper_parameters(checkpoint)["tasks"]
    plan = plan_finetuning(
        checkpoint, trained / "best.ckpt", studies, elsewhere, tmp_path, tmp_path, validate=False, folds=2,
        more={"model": {"tasks": tasks | {"lobes": tasks["lobes"] | {"weight": 0}}}},
    )  # fmt: skip
    assert (plan.trained, plan.kept) == (["severity"], ["lobes"])
    assert plan.config["model"]["tasks"]["lobes"]["weight"] == 0


def test_the_run_that_a_model_comes_from_is_not_written_over(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "best.ckpt", run / "last.ckpt")
    shutil.copy(trained / "best.ckpt", run / "best.ckpt")
    before = (run / "best.ckpt").read_bytes()
    words = ["--from", str(run / "last.ckpt"), "--manifest", str(elsewhere), "--store", str(tmp_path / "store"), "--out", str(run)]
    assert main(["finetune", *words, *SHORT]) == 2
    assert (run / "best.ckpt").read_bytes() == before


def test_what_a_plan_leaves_out(trained: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Pockets need a mask that the new hospital has not; only labels that some task learns from count as labels."""
    checkpoint = read_checkpoint(trained / "best.ckpt")
    checkpoint[CHECKPOINT_MARK]["drawing"]["augmentation"] |= {"pockets": 0.3, "organs": 0.2, "noise": 0.1}
    rows = rows_of(elsewhere)
    for k, row in enumerate(rows):
        row |= {"image": str(elsewhere.parent / row["image"]), "lobes": "", "lungs": "", "infection": ""}
        row |= {} if k < 5 else {"severity": "", "severity_scheme": ""}
    studies = list(read_manifest(write(tmp_path / "m.csv", rows)))
    plan = plan_finetuning(checkpoint, trained / "best.ckpt", studies, tmp_path / "m.csv", tmp_path, tmp_path, validate=False, folds=2)
    assert plan.config["data"]["augmentation"]["pockets"] == plan.config["data"]["augmentation"]["organs"] == 0
    assert plan.config["data"]["augmentation"]["noise"] == 0.1
    assert any("no pockets and organs" in line for line in plan.changed)
    parts = [replace(s, split=Split.VAL if s.severity is not None else Split.TRAIN, masks={}) for s in studies]
    with pytest.raises(
        ConfigError, match=r"has a label of 2 patients in the training part of the new data \(diagnosis\)"
    ):  # what lies in the validation part teaches nothing
        plan_finetuning(checkpoint, trained / "best.ckpt", parts, tmp_path / "m.csv", tmp_path, tmp_path, validate=True)
    assert labelled_patients(checkpoint, studies, {}) == 5  # every patient has a diagnosis, which the model does not learn
    more = {"model": {"tasks": {"diagnosis": {"head": {"name": "pooled"}, "objective": {"name": "diagnosis"}}}}}
    assert labelled_patients(checkpoint, studies, more) == 12
