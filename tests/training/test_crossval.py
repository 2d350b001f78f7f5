"""``m2net crossval``: folds pooled and kept, the test part, and whose studies are judged."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from m2net.cli.main import main
from m2net.studies import write_manifest
from m2net.training import read_checkpoint
from m2net.training.loading import CHECKPOINT_MARK

Configure = Callable[..., Path]


def test_crossval_pools_folds_and_keeps_what_is_done(tmp_path: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = configure(tmp_path), tmp_path / "cv"
    words = ["crossval", "--config", str(config), "--folds", "3", "--out", str(out)]
    assert main(words) == 0
    results = json.loads((out / "crossval.json").read_text())
    assert results["scales"] == {"severity": "binary"}
    assert results["patients"] == results["studies"] == 10
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted({r["study_id"] for r in rows}) == sorted(r["study_id"] for r in rows)
    assert {r["fold"] for r in rows} == {"0", "1", "2"}
    figure = results["figures"]["lobes/dice_mean"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    folds = [[(int(r["severity"]), float(r["severity_ge1"])) for r in rows if r["fold"] == fold] for fold in "012"]
    aucs = [(len(part), roc_auc_score(*zip(*part, strict=True))) for part in folds if len({grade for grade, _ in part}) == 2]
    assert results["figures"]["severity/auc"]["value"] == pytest.approx(sum(n * a for n, a in aucs) / sum(n for n, _ in aucs))
    before = (out / "fold_1" / "best.ckpt").stat().st_mtime_ns
    assert "2 studies of the test part of" in capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out.count("done before, kept") == 3
    assert (out / "fold_1" / "best.ckpt").stat().st_mtime_ns == before
    over = tmp_path / "over.yaml"
    over.write_text("data: {instances: 3}\n")
    assert main([*words, "--config", str(over)]) == 0
    assert read_checkpoint(out / "fold_1" / "best.ckpt")[CHECKPOINT_MARK]["drawing"]["instances"] == 3


def test_crossval_without_the_test_part(
    tmp_path: Path, configure: Configure, rows: list[dict[str, str]], cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = configure(tmp_path, trainer={"max_steps": 1, "val_check_interval": 1}), tmp_path / "cv"
    assert main(["crossval", "--config", str(config), "--folds", "3", "--out", str(out), "--without-test"]) == 0
    with (out / "predictions.csv").open() as file:
        told = {row["study_id"] for row in csv.DictReader(file)}
    held = {row["study_id"] for row in rows if row["split"] == "test"}
    assert held
    assert told == {row["study_id"] for row in rows} - held
    bare = cohort.with_name("bare.csv")
    write_manifest(bare, list(rows[0]), [row | {"split": ""} for row in rows])
    words = ["crossval", "--config", str(config), "--data.manifest", str(bare), "--folds", "3", "--out", str(tmp_path / "no")]
    assert main([*words, "--without-test"]) == 2
    assert "bare.csv is in the test part; expected rows with split = test" in capsys.readouterr().err


def test_crossval_judges_the_sites_that_it_is_asked_to(
    tmp_path: Path, configure: Configure, rows: list[dict[str, str]], cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {row["study_id"] for row in rows[:5]}
    manifest = tmp_path / "two.csv"
    placed = [row | {c: str(cohort.parent / row[c]) for c in ("image", "lobes", "lungs", "infection")} for row in rows]
    write_manifest(
        manifest,
        [*rows[0], "fold"],
        [row | {"site": "ours" if row["study_id"] in own else "theirs", "fold": str(k % 3)} for k, row in enumerate(placed)],
    )
    config, out = configure(tmp_path), tmp_path / "cv"
    words = ["crossval", "--config", str(config), "--folds", "3", "--out", str(out), "--data.manifest", str(manifest)]
    assert main([*words, "--judge-sites", "ours"]) == 0
    assert json.loads((out / "crossval.json").read_text())["studies"] == 5
    with (out / "predictions.csv").open() as file:
        told = {row["study_id"]: row["fold"] for row in csv.DictReader(file)}
    assert told == {row["study_id"]: str(k % 3) for k, row in enumerate(rows) if row["study_id"] in own}  # the manifest's own
    capsys.readouterr()
    assert main([*words, "--judge-sites", "nowhere"]) == 2
    assert "no study is of the site 'nowhere'; expected one of ours, theirs" in capsys.readouterr().err
