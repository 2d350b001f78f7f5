from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from m2net.assessment import Explainer
from m2net.assessment.saliency import SALIENCY, DepthScores
from m2net.cli.main import main
from m2net.studies import read_image
from m2net.training import load_model
from m2net.vocabulary import Diagnosis

Configure = Callable[..., Path]
HEAD = {"name": "score_maps", "depths": [4, 5], "activation": "none", "place_pool": "mean"}
TASK = {"diagnosis": {"head": HEAD, "objective": {"name": "diagnosis"}}}
INPUT = {"spacing_mm": 6.0, "patch": 32, "slices": 3, "view": "slices"}
NETWORK = {"encoder": {"name": "residual", "width": 4}, "chunk": 64}


@pytest.fixture(scope="module")
def runs(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny runs of one configuration with different seeds."""
    folders = [tmp_path_factory.mktemp(f"member{seed}") for seed in (1, 2)]
    for seed, folder in enumerate(folders, start=1):
        config = configure(folder, model={"network": NETWORK, "tasks": TASK}, data={"masks": [], "input": INPUT})
        assert main(["fit", "--config", str(config), "--seed_everything", str(seed)]) == 0
    return folders


def test_an_ensemble_answers_the_mean_of_its_members(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "fused.ckpt"
    assert main(["fuse", *(str(run / "best.ckpt") for run in runs), "--out", str(out)]) == 0
    probabilities = []
    for name, checkpoint in (("a", runs[0] / "best.ckpt"), ("b", runs[1] / "best.ckpt"), ("both", out)):
        words = ["test", "--config", str(runs[0] / "config.in.yaml"), "--ckpt_path", str(checkpoint)]
        assert main([*words, "--trainer.default_root_dir", str(tmp_path / name)]) == 0
        with (tmp_path / name / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        probabilities.append(np.array([[float(row[f"diagnosis_p_{d}"]) for d in Diagnosis] for row in rows]))
    mean = np.log(probabilities[:2]).mean(0)  # the softmax of the mean of logits is the normalised geometric mean of the probabilities
    expected = np.exp(mean) / np.exp(mean).sum(1, keepdims=True)
    assert np.abs(probabilities[0] - probabilities[1]).max() > 1e-3
    np.testing.assert_allclose(probabilities[2], expected, atol=2e-4)
    kept = torch.load(out, weights_only=True)
    assert [part["file"] for part in kept["m2net"]["fused"]] == ["best.ckpt", "best.ckpt"]
    assert kept["hyper_parameters"]["network"]["encoder"]["members"] == 2


def test_an_ensemble_is_explained_by_the_maps_of_all_members(runs: list[Path], tmp_path: Path, cohort: Path) -> None:
    out = tmp_path / "fused.ckpt"
    assert main(["fuse", *(str(run / "best.ckpt") for run in runs), "--out", str(out)]) == 0
    image = next(cohort.parent.glob("*/image.nii.gz"))
    assert main(["explain", str(image), "--model", str(out), "--out", str(tmp_path / "seen")]) == 0
    assert len(list((tmp_path / "seen").glob("*/explanation.json"))) == 1
    explainers = [Explainer(path) for path in (runs[0] / "best.ckpt", runs[1] / "best.ckpt", out)]
    prepared = explainers[0].model.prepare(read_image(image))
    _, given = explainers[0].model.bag(prepared)
    one, other, both = (SALIENCY["score_maps"](DepthScores(e.model.module.network, "diagnosis"), given.instances, 1, 3) for e in explainers)
    torch.testing.assert_close(both, (one + other) / 2)
    assert not torch.allclose(one, other)
    assert main(["explain", str(image), "--model", str(out), "--out", str(tmp_path / "no"), "--method", "grad_cam"]) == 2


def test_an_ensemble_can_be_trained_on(runs: list[Path], configure: Configure, tmp_path: Path) -> None:
    several = {"encoder": {"name": "several", "of": NETWORK["encoder"], "members": 2}, "chunk": 64}
    tasks = {"diagnosis": {"head": {**HEAD, "depths": [4, 5, 9, 10]}, "objective": {"name": "diagnosis"}}}
    config = configure(tmp_path, model={"network": several, "tasks": tasks}, data={"masks": []})
    assert main(["fit", "--config", str(config)]) == 0
    one, other = load_model(tmp_path / "best.ckpt").network.encoder.members  # type: ignore[misc, union-attr]
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_what_cannot_be_fused_is_one_line(
    runs: list[Path], trained: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = configure(
        tmp_path, model={"network": {**NETWORK, "encoder": {"name": "residual", "width": 6}}, "tasks": TASK}, data={"masks": []}
    )
    assert main(["fit", "--config", str(other), "--trainer.default_root_dir", str(tmp_path)]) == 0
    mine, wider, dense = (str(folder / "best.ckpt") for folder in (runs[0], tmp_path, trained))
    capsys.readouterr()
    for given, said in (([mine], "at least two"), ([mine, wider], "another network"), ([dense, dense], "has a decoder")):
        assert main(["fuse", *given, "--out", str(tmp_path / "no.ckpt")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "no.ckpt").exists()
