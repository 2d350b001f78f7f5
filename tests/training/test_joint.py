"""All tasks on one encoder, over studies that carry any subset of the labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from m2net.cli.main import main
from m2net.vocabulary import Lobe
from tests.assessment.test_assessment import SCHEMA

TASKS = {
    "lobes": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "lobes"}},
    "diagnosis": {"head": {"name": "score_maps", "depths": [4, 5]}, "objective": {"name": "diagnosis"}, "weight": 0.5},
    "aware": {
        "head": {"name": "lobe_aware", "width": 8, "pool": "attention"},
        "objective": {"name": "diagnosis", "groups": [["covid19"], ["non_pneumonia", "cap"]], "calibrate": "shift"},
    },
    "severity": {
        "head": {"name": "lobe_aware", "width": 8},
        "objective": {"name": "severity", "scheme": "binary", "calibrate": "temperature", "coverage": 0.8},
    },
}


@pytest.fixture(scope="module")
def sparse(cohort: Path, rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest in which each study lacks something: two lobe masks, no outcome for some, no diagnosis for others."""
    path = tmp_path_factory.mktemp("sparse") / "manifest.csv"
    made = []
    for k, row in enumerate(rows):
        own = {**row, **{c: str(cohort.parent / row[c]) for c in ("image", "lobes")}, "lungs": "", "infection": ""}
        if row["split"] == "train":
            own |= {"lobes": own["lobes"] if k % 3 == 0 else "", "severity": "" if k % 4 == 1 else row["severity"]}
            own |= {"diagnosis": "" if k % 2 else row["diagnosis"], "infected": "" if k % 2 else row["infected"]}
        made.append(own)
        if row["split"] == "val":  # as many that both halves of them, which calibrate and set the threshold, have both grades
            made += [own | {"study_id": f"{k}-{n}", "patient_id": f"{k}-{n}", "severity": str(n % 2)} for n in range(4)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return path


@pytest.fixture(scope="module")
def joint(sparse: Path, configure: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    network = {"encoder": {"name": "residual", "width": 4}, "decoder": {"name": "smp_unet", "channels": [16, 8, 8, 8]}, "chunk": 16}
    with sparse.open(newline="") as file:
        twins = [row["study_id"] for row in csv.DictReader(file) if not row["study_id"].startswith("home")]
    data = {"manifest": str(sparse), "balance": ["lobes", "diagnosis", "severity:binary"], "allow": twins}
    config = configure(folder, model={"tasks": TASKS, "network": network}, data=data)
    assert main(["fit", "--config", str(config)]) == 0
    return folder


def test_the_joint_model_answers_every_task(joint: Path, tmp_path: Path) -> None:
    words = ["test", "--config", str(joint / "config.in.yaml"), "--ckpt_path", str(joint / "best.ckpt")]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"lobes/dice_mean", "diagnosis/accuracy", "severity/coverage", "severity/ece_band"} <= set(metrics)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_lobe = [float(row[f"severity_{lobe.key}_ge1"]) for row in rows for lobe in Lobe if row[f"severity_{lobe.key}_ge1"]]
    assert by_lobe
    assert all(0 <= p <= 1 for p in by_lobe)
    sets = {row["severity_set"] for row in rows}
    assert sets - {""}
    assert sets <= {"", "0", "1", "0|1"}


def test_each_lobe_is_said_on_the_page(joint: Path, rows: list[dict[str, str]], cohort: Path, tmp_path: Path) -> None:
    image = cohort.parent / rows[0]["image"]
    assert main(["assess", str(image), "--model", str(joint / "best.ckpt"), "--out", str(tmp_path)]) == 0
    folder = next(tmp_path.iterdir())
    found = json.loads((folder / "assessment.json").read_text())
    jsonschema.validate(found, SCHEMA)
    severity = found["severity"]["severity"]
    assert severity["calibrated"] is True
    assert set(severity["lobes"]) == {lobe.key for lobe in Lobe}
    there = [p for p in severity["lobes"].values() if p is not None]
    assert all(len(p) == 1 for p in there)
    assert found["diagnosis"]["diagnosis"]["lobes"] == {}  # score maps tell no lobes
    assert (found["diagnosis"]["diagnosis"]["calibrated"], found["diagnosis"]["aware"]["calibrated"]) == (False, True)
    lobes = found["diagnosis"]["aware"]["lobes"]
    assert {key for key, own in lobes.items() if own} == {key for key, own in severity["lobes"].items() if own}
    assert all(set(own) == {"covid19", "non_pneumonia+cap"} for own in lobes.values() if own)
    page = (folder / "report.html").read_text()
    assert page.count("Each lobe by itself") == 2
    assert page.count("Probabilities calibrated on validation studies") == 2  # severity and one of the two diagnoses
    assert page.count("they were not calibrated") == 1
