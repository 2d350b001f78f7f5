"""Learning from studies without labels, through the front door, and what becomes of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from m2net.bags.datamodule import BagDataModule
from m2net.batch import BagBatch
from m2net.cli.main import main
from m2net.errors import ConfigError
from m2net.reports.watching import panel
from m2net.studies import read_manifest
from m2net.training import M2NetModule, load_model
from m2net.training.finetuning import plan_finetuning
from m2net.training.loading import read_checkpoint

Configure = Callable[..., Path]
NETWORK = {"encoder": {"name": "residual", "width": 8}, "decoder": {"name": "smp_unet", "channels": [32, 16, 16, 8]}, "chunk": 16}
RESTORATION = {"head": {"name": "dense"}, "objective": {"name": "restoration", "share": 0.3, "square": 4}}
DIAGNOSIS = {"head": {"name": "pooled"}, "objective": {"name": "diagnosis"}}


@pytest.fixture(scope="module")
def bare(cohort: Path, rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort's images, patients and parts, and nothing else."""
    path = tmp_path_factory.mktemp("bare") / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["study_id", "patient_id", "image", "modality", "split"])
        writer.writeheader()
        for row in rows:
            writer.writerow({name: row[name] for name in writer.fieldnames} | {"image": str(cohort.parent / row["image"])})
    return path


@pytest.fixture(scope="module")
def restored(bare: Path, configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run on studies without labels."""
    folder = tmp_path_factory.mktemp("restored")
    data = {"manifest": str(bare), "masks": [], "augmentation": {}}
    model = {"tasks": {"restoration": RESTORATION}, "network": NETWORK}
    config = configure(folder, model=model, data=data, trainer={"max_steps": 60, "val_check_interval": 30})
    assert main(["fit", "--config", str(config)]) == 0
    return folder


def judged(folder: Path, checkpoint: Path, out: Path) -> dict[str, Any]:
    words = ["test", "--config", str(folder / "config.in.yaml"), "--ckpt_path", str(checkpoint)]
    assert main([*words, "--trainer.default_root_dir", str(out)]) == 0
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


def test_studies_without_labels_teach_what_is_hidden(restored: Path, tmp_path: Path) -> None:
    metrics = judged(restored, restored / "best.ckpt", tmp_path)
    assert metrics["restoration/r2"] > 0.3  # one grey for all that is hidden explains nothing: 0
    assert metrics["restoration/n"] == metrics["studies"] == 2
    with (tmp_path / "predictions.csv").open() as file:
        assert not [name for name in next(csv.reader(file)) if name.startswith("restoration")]
    about = read_checkpoint(restored / "best.ckpt")["m2net"]["trained_on"]
    assert about["labels"] == {}


def test_few_labels_start_from_it(restored: Path, configure: Configure, tmp_path: Path) -> None:
    tasks = {
        "lobes": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "lobes"}},
        "diagnosis": DIAGNOSIS,
    }
    model = {"tasks": tasks, "network": NETWORK, "start_from": str(restored / "best.ckpt"), "start_parts": ["encoder", "decoder"]}
    assert main(["fit", "--config", str(configure(tmp_path, model=model)), "--model.optimizer.lr", "0"]) == 0
    before, after = (load_model(folder / "best.ckpt").network for folder in (restored, tmp_path))
    for part in ("encoder", "decoder"):
        one, other = (dict(getattr(network, part).named_parameters()) for network in (before, after))
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def both(store: Path, cohort: Path, tasks: dict[str, Any]) -> tuple[M2NetModule, BagDataModule]:
    data = {"spacing_mm": 6.0, "patch": 32, "slices": 3, "positions": True}
    module = M2NetModule(network=NETWORK, tasks=tasks, input=data)
    return module, BagDataModule(str(cohort), str(store), input=data, instances=6, studies_per_batch=2)


def test_other_tasks_never_see_hidden_squares(cohort: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, too: neither the pictures nor the running statistics of batch norm."""
    torch.manual_seed(0)
    module, data = both(store, cohort, {"diagnosis": DIAGNOSIS, "restoration": RESTORATION})
    data.prepare_data()
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(module, "_losses", lambda outputs, batch, stage: seen.update(outputs=outputs, batch=batch))
    start = {name: value.clone() for name, value in module.network.state_dict().items()}
    module.train()
    torch.manual_seed(1)  # dropout
    module.training_step(batch, 0)
    after = {name: value.clone() for name, value in module.network.state_dict().items() if "running" in name}
    module.network.load_state_dict(start)
    torch.manual_seed(1)
    plain = module(batch)
    alone = {name: value for name, value in module.network.state_dict().items() if "running" in name}
    assert any(not torch.equal(value, start[name]) for name, value in after.items())
    assert all(torch.equal(value, alone[name]) for name, value in after.items())
    torch.testing.assert_close(seen["outputs"]["diagnosis"].logits, plain["diagnosis"].logits)
    assert not torch.allclose(seen["outputs"]["restoration"].logits, plain["restoration"].logits)
    assert seen["batch"] is batch
    assert {layer.momentum for layer in module.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize(("weight", "primary"), [(1.0, ""), (0.0, "r2")])
def test_the_checkpoint_is_chosen_by_other_tasks_if_one_learns(cohort: Path, store: Path, weight: float, primary: str) -> None:
    module, _ = both(store, cohort, {"diagnosis": {**DIAGNOSIS, "weight": weight}, "restoration": RESTORATION})
    assert module.objectives["restoration"].primary == primary


def test_a_restoration_that_is_kept_takes_no_part(cohort: Path, store: Path) -> None:
    module, data = both(store, cohort, {"diagnosis": DIAGNOSIS, "restoration": {**RESTORATION, "weight": 0.0}})
    data.prepare_data()
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    asked: list[BagBatch] = []
    module.network.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.train()
    module.training_step(batch, 0)
    assert len(asked) == 1
    assert torch.equal(asked[0].instances, batch.instances)


def test_the_panel_shows_hidden_and_restored(restored: Path, bare: Path, store: Path) -> None:
    module = load_model(restored / "best.ckpt")
    data = BagDataModule(str(bare), str(store), input=module.spec.plain(), instances=6)
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    picture, _ = panel(module, batch, module._asked(batch))
    assert picture.shape[1] == 3 * 32
    plain, hidden, drawn = (picture[:32, k * 32 : (k + 1) * 32, 0].astype(int) for k in range(3))
    covered = module.objectives["restoration"].hidden(batch)[len(batch.instances) // 2].numpy()
    assert (plain == hidden)[~covered].all()
    assert (plain == drawn)[~covered].all()
    assert abs(plain - drawn)[covered].mean() < abs(plain - hidden)[covered].mean() / 2


def test_a_study_is_told_of_by_the_other_tasks_alone(
    restored: Path, configure: Configure, cohort: Path, rows: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    tasks = {"restoration": RESTORATION, "diagnosis": DIAGNOSIS}
    (tmp_path / "fit").mkdir()
    config = configure(tmp_path / "fit", model={"tasks": tasks, "network": NETWORK})
    assert main(["fit", "--config", str(config)]) == 0
    metrics = judged(tmp_path / "fit", tmp_path / "fit" / "best.ckpt", tmp_path / "test")
    assert metrics["score"] == metrics["diagnosis/auc"]
    assert metrics["restoration/n"] == 2
    words = ["assess", str(cohort.parent / rows[0]["image"]), "--out", str(tmp_path / "out"), "--model"]
    assert main([*words, str(tmp_path / "fit" / "best.ckpt")]) == 0
    assessment = next((tmp_path / "out").rglob("assessment.json")).read_text()
    assert "restoration" not in assessment
    assert main([*words, str(restored / "best.ckpt")]) == 2
    assert "nothing to say of a study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "weighting", "said"),
    [
        ({"restoration": {**RESTORATION, "head": {"name": "pooled"}}}, "fixed", "expected name: dense"),
        ({"a": RESTORATION, "b": RESTORATION}, "fixed", "expected one of them"),
        ({"restoration": RESTORATION, "diagnosis": DIAGNOSIS}, "gradient_norm", "expected fixed or uncertainty"),
    ],
)
def test_what_cannot_be(tasks: dict[str, Any], weighting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        M2NetModule(network=NETWORK, tasks=tasks, weighting=weighting)


def test_fine_tuning_asks_for_tasks_with_labels(
    restored: Path, configure: Configure, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--from", str(restored / "best.ckpt"), "--manifest", str(cohort), "--store", str(tmp_path / "s")]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "without labels only" in capsys.readouterr().err
    tasks = {"diagnosis": DIAGNOSIS, "restoration": RESTORATION}
    assert main(["fit", "--config", str(configure(tmp_path, model={"tasks": tasks, "network": NETWORK}))]) == 0
    checkpoint = read_checkpoint(tmp_path / "best.ckpt")
    studies = list(read_manifest(cohort))
    more = {"model": {"tasks": {"diagnosis": DIAGNOSIS, "restoration": RESTORATION}}}
    places = (studies, cohort, tmp_path / "s", tmp_path / "run")
    plan = plan_finetuning(checkpoint, tmp_path / "best.ckpt", *places, validate=False)
    assert plan.trained == ["diagnosis"]
    assert "restoration: left out, it learns from no label" in plan.changed
    plan = plan_finetuning(checkpoint, tmp_path / "best.ckpt", *places, validate=False, more=more)
    assert plan.trained == ["diagnosis", "restoration"]
    assert yaml.safe_dump(plan.config)
