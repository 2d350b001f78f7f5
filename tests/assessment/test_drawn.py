"""Infection that a model draws, judged as saliency: against the maps that m2net assess writes, and through the front door."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from m2net.assessment import DRAWN, Assessor, DrawnInfection
from m2net.bags import Prepared, prepare_volume
from m2net.batch import BagBatch, Output
from m2net.cli.main import main
from m2net.phantoms import Phantom
from m2net.studies import Volume
from m2net.training import M2NetModule

MM = 6.0
TASKS = {
    "infection": {"head": {"name": "dense"}, "objective": {"name": "segmentation", "mask": "infection", "merged": True}},
    "detection": {"objective": {"name": "detection"}},
}


@pytest.fixture(scope="module")
def drawing(configure: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that draws infection, and tells from it whether there is any."""
    folder = tmp_path_factory.mktemp("drawing")
    network = {"encoder": {"name": "m2unet", "width": 4}, "decoder": {"name": "m2unet", "width": 4}, "chunk": 16}
    model = {"network": network, "tasks": TASKS, "optimizer": {"name": "adamw", "lr": 0.01}}
    data = {"masks": ["infection"], "input": {"spacing_mm": MM, "patch": 32}}
    assert main(["fit", "--config", str(configure(folder, model=model, data=data))]) == 0
    return folder / "best.ckpt"


def prepared(phantom: Phantom, **masks: np.ndarray) -> tuple[Volume, Prepared]:
    volume = Volume.from_own(phantom.image, phantom.geometry)
    return volume, prepare_volume(volume, masks, phantom.geometry.spacing_mm[1])


def test_it_is_the_map_that_assess_writes(drawing: Path, phantom: Phantom) -> None:
    """Of two classes the likelier one has at least one half; inside the found lungs nothing is cut off."""
    judge = DrawnInfection(drawing)
    judge.model.spec = replace(judge.model.spec, spacing_mm=phantom.geometry.spacing_mm[1])  # so that nothing is resampled on the way back
    volume, study = prepared(phantom)
    lungs = np.asarray(study.masks["found_lungs"]) > 0
    p = float(np.median(judge.judge(study, [DRAWN]).saliency[DRAWN][lungs]))
    assessor = Assessor(drawing, precision="float32", islands=True)
    for model in (judge.model, assessor.model):  # half of the lungs are called, whatever four steps taught
        with torch.no_grad():
            model.module.network.heads["infection"].classify.bias[1] -= np.log(p / (1 - p))
    told = judge.judge(study, [DRAWN]).saliency[DRAWN]
    assessor.model.spec = judge.model.spec
    written = assessor.assess(volume).maps["infection"] > 0
    sure = lungs & (np.abs(told - 0.5) > 2e-6)  # the median itself is put on the border, where rounding decides
    assert sure.sum() > 0.99 * lungs.sum()
    np.testing.assert_array_equal((told >= 0.5)[sure], written[sure])
    assert 0 < written[lungs].mean() < 1
    assert 0 < told[lungs].min() < told.max() <= 1
    assert not told[:, 0].any()  # in front of the chest


@pytest.mark.parametrize(("area", "infected"), [(0.0, True), (2.0, False)])
def test_the_calibrated_rule_calls_it_infected(drawing: Path, phantom: Phantom, area: float, infected: bool) -> None:
    """Nothing is shown of a study that the rule calls free of infection, where only infected ones are asked for."""
    judge = DrawnInfection(drawing)
    judge.detections["detection"].calibration = {"probability": 0.5, "area": area}
    study = prepared(phantom)[1]
    found = judge.judge(study, [DRAWN], only_infected=True)
    assert found.infected is infected
    assert bool(found.saliency) is infected
    assert len(judge.judge(study, [DRAWN]).saliency) == 1


@pytest.mark.parametrize("pixels", [0, 1])
def test_without_a_rule_any_pixel_does(drawing: Path, phantom: Phantom, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(module: M2NetModule, batch: BagBatch) -> dict[str, Output]:
        logits = torch.zeros(batch.num_instances, 2, 32, 32)
        logits[:, 0] = 5.0
        logits[:1, 1, 16, 16 : 16 + pixels] = 9.0
        return {"infection": Output(logits), "detection": Output(torch.zeros(1, 8))}

    judge = DrawnInfection(drawing)
    judge.detections["detection"].calibration = {}
    monkeypatch.setattr(M2NetModule, "answers", drawn)
    assert judge.judge(prepared(phantom)[1], [DRAWN]).infected is bool(pixels)


def test_through_the_front_door(
    drawing: Path, trained: Path, cohort: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["localise", str(cohort), "--store", str(store), "--out", str(tmp_path), "--model"]
    assert main([*words, str(drawing), "--methods", DRAWN]) == 0
    report = json.loads((tmp_path / "localisation.json").read_text())
    assert set(report["methods"]) == {DRAWN}
    assert not report["slices"]
    with (tmp_path / "localisation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] in ("infected", "free") for row in rows] == [True] * report["studies"]
    capsys.readouterr()
    assert main([*words, str(trained / "best.ckpt"), "--methods", DRAWN]) == 2
    assert "draws infection" in capsys.readouterr().err
    assert main([*words, str(drawing), "--methods", DRAWN, "joint"]) == 2
    assert "alone" in capsys.readouterr().err
    assert main([*words, str(drawing)]) == 2
    assert "--methods drawn" in capsys.readouterr().err
