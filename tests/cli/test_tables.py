"""The papers' tables: what is compared with what."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from m2net.cli.lightning import make_cli
from m2net.recipes.table import read_table
from m2net.reports.results import write_table

TABLES = Path(__file__).parents[2] / "experiments" / "tables"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """run.py, which imports results.py beside it."""
    monkeypatch.syspath_prepend(str(TABLES))
    yield importlib.import_module("run")
    for name in ("run", "results", "paper_size", "page"):
        sys.modules.pop(name, None)


def test_every_row_has_its_file_and_every_pair_its_rows(script: ModuleType) -> None:
    assert {path.stem for path in (TABLES / "rows").glob("*.yaml")} == set(script.ROWS)
    rows = {*script.ROWS, *(f"{row}-{percent}" for percent in script.FEWER for row in script.FEWER_ROWS)}
    pairs = sys.modules["results"].PAIRS
    assert {name for one, other, _ in pairs for name in (one, other)} <= rows
    assert len(set(pairs)) == len(pairs)
    assert all(one != other for one, other, _ in pairs)


def test_the_page_shows_what_results_csv_holds(script: ModuleType) -> None:
    page = importlib.import_module("page")
    text = (TABLES / "README.md").read_text(encoding="utf-8")
    anew = text
    for table in page.tables(page.Figures(TABLES / "results.csv")):
        anew = page.written(anew, table)
    assert anew == text
    assert set(page.WHAT) == set(script.ROWS)


@pytest.mark.parametrize("row", ["m2unet", "diagnosis_alone", "lobes_position_aware"])
def test_a_row_at_paper_size_is_the_published_network(row: str, script: ModuleType, tmp_path: Path) -> None:
    published = yaml.safe_load((TABLES.parent / "m2unet" / "paper.yaml").read_text())
    configs = script.configurations(row, script.PAPER._replace(runs=tmp_path))
    built = make_cli([*map(str, configs), "--trainer.logger=false", "--trainer.accelerator=cpu"], run_now=False)
    found = yaml.safe_load(built.parser.dump(built.config))
    network, data = found["model"]["network"], found["data"]
    if "decoder" in network:
        assert network == published["model"]["network"]
    assert network["encoder"] == published["model"]["network"]["encoder"]
    for task in found["model"]["tasks"].values():
        if task["head"]["name"] == "hierarchical":
            assert task["head"]["concepts"] == published["model"]["tasks"]["severity"]["head"]["concepts"]
    assert data["studies_per_batch"] == published["data"]["studies_per_batch"]
    assert data["input"]["spacing_mm"] == script.PAPER.spacing_mm
    if data["input"].get("view") != "slices":
        assert (data["input"]["patch"], data["instances"]) == (published["data"]["input"]["patch"], published["data"]["instances"])
    assert script.configurations(f"{row}-25", script.SMALL) == script.configurations(row, script.SMALL)


def test_fewer_masks_are_as_many_in_each_fold(script: ModuleType, tmp_path: Path) -> None:
    rows = [{"study_id": f"s{k}", "lobes": f"{k}.nii.gz", "fold": str(k % 3)} for k in range(240)]
    write_table(tmp_path / "m.csv", rows)
    for percent, each in ((25, 20), (5, 4)):
        fewer = read_table(script.with_fewer_lobes(tmp_path / "m.csv", percent))
        assert Counter(row["fold"] for row in fewer if row["lobes"]) == {"0": each, "1": each, "2": each}
        assert all(row["lobes"] in ("", whole["lobes"]) and row["fold"] == whole["fold"] for row, whole in zip(fewer, rows, strict=True))


def rows_of(rng: np.random.Generator, shift: float) -> list[dict[str, Any]]:
    grade, fold = rng.random(60) < 0.5, np.arange(60) % 3
    logit = rng.normal(1.5 * grade, 1.0) + shift * fold
    return [
        {"study_id": f"s{k:02}", "patient_id": f"p{k}", "fold": fold[k], "severity": int(grade[k]),
         "severity_ge1": 1 / (1 + np.exp(-logit[k])), **{f"lobes_dice_{lobe}": 0.1 for lobe in ("left_upper", "left_lower")}}
        for k in range(60)
    ]  # fmt: skip


def test_a_difference_is_of_auc_within_folds(script: ModuleType, tmp_path: Path) -> None:
    results = sys.modules["results"]
    rows, moved = (rows_of(np.random.default_rng(0), shift) for shift in (0.0, 3.0))
    one, other, fewer = (tmp_path / name for name in ("one", "other", "fewer"))
    for folder, told in ((one, rows), (other, moved), (fewer, moved[1:])):
        folder.mkdir()
        write_table(folder / "predictions.csv", told)
    found = results.measured("severity/auc", one, other)
    assert (found.value, found.low, found.high) == (0, 0, 0)  # the same ranks in every fold
    expected = [roc_auc_score(*zip(*((r["severity"], r["severity_ge1"]) for r in rows if r["fold"] == k), strict=True)) for k in range(3)]
    assert results.measured("severity/auc", other).value == pytest.approx(np.mean(expected))
    assert results.measured("infection/pooled_f1", one) is None
    assert results.measured("severity/auc", one, tmp_path / "not run") is None
    with pytest.raises(ValueError, match="different studies"):
        results.measured("severity/auc", one, fewer)


def test_lobes_of_fewer_masks_are_those_of_all_masks_or_none(script: ModuleType, tmp_path: Path, rng: np.random.Generator) -> None:
    results, folder = sys.modules["results"], tmp_path / "m2unet-5"
    rows = rows_of(rng, 0.0)
    folder.mkdir()
    write_table(folder / "predictions.csv", rows)
    for fold in range(3):
        results.predictions.cache_clear()
        assert not any(name.startswith("lobes_") for row in results.predictions(folder) for name in row)
        judged = folder / results.BY_ALL_MASKS / f"fold_{fold}"
        judged.mkdir(parents=True)
        told = [{"study_id": r["study_id"], "severity_ge1": 0.0, "lobes_dice_left_upper": 0.9} for r in rows if r["fold"] == fold]
        write_table(judged / "predictions.csv", told)
    results.predictions.cache_clear()
    found = results.predictions(folder)
    assert [row["study_id"] for row in found] == [row["study_id"] for row in rows]
    assert {row["lobes_dice_left_upper"] for row in found} == {"0.9"}
    assert not any("lobes_dice_left_lower" in row for row in found)
    assert [float(row["severity_ge1"]) for row in found] == pytest.approx([row["severity_ge1"] for row in rows])
