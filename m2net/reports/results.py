"""metrics.json and predictions.csv of a test, and the same table in Weights & Biases."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from m2net import __version__
from m2net.errors import ConfigError
from m2net.files import put_aside, written_whole
from m2net.objectives import Interval, Objective, intervals, statistics_within_folds
from m2net.reports.watching import CaseNames, watcher_of
from m2net.training import M2NetModule


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write atomically; NaN becomes null, for JSON knows none."""
    with written_whole(path) as file:
        file.write(json.dumps(_without_nan(values), indent=2) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, atomically; NaN becomes an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(path) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of predictions.csv.

    Raises:
        ConfigError: none, or not of studies.
    """
    expected = "predictions.csv of m2net test or crossval"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no table of text ({error})", expected=expected) from error
    if not rows or "study_id" not in rows[0]:
        raise ConfigError(f"{path} has no column study_id, or no row", expected=expected)
    if broken := next((number for number, row in enumerate(rows, 1) if None in row or None in row.values()), None):
        raise ConfigError(f"{path}, row {broken}: more or fewer cells than the table has columns", expected=expected)
    if strange := next((row["fold"] for row in rows if row.get("fold") and not str(row["fold"]).isdecimal()), None):
        raise ConfigError(f"{path} has the fold {strange!r}", expected="numbers from 0")
    return rows


def _keep_earlier(folder: Path, studies: set[str]) -> None:
    """Put the results of another test aside: of the same studies they are replaced, of others they may be all there is."""
    table = folder / "predictions.csv"
    try:
        earlier = {row["study_id"] for row in read_rows(table)}
    except FileNotFoundError:
        return
    except ConfigError:
        earlier = set()  # whatever it is, it is not ours to write over
    if earlier != studies:
        aside = [put_aside(path).name for path in (table, folder / "metrics.json") if path.is_file()]
        print(f"The results of other studies in {folder} are put aside: {', '.join(aside)}")


def bounds(module: M2NetModule, rows: list[dict[str, Any]]) -> dict[str, float]:
    """95 % patient-bootstrap bounds of each task's headline figures: ``TASK/NAME_low`` and ``TASK/NAME_high``."""
    found: dict[str, float] = {}
    for task, figures in task_intervals(module, rows).items():
        for name, interval in figures.items():
            found |= {f"{task}/{name}_low": interval.low, f"{task}/{name}_high": interval.high}
    return found


def task_intervals(module: M2NetModule, rows: list[dict[str, Any]]) -> dict[str, dict[str, Interval]]:
    """Headline figures with patient-bootstrap intervals, by task; of rows with folds, those of ranking within each fold."""
    patients = [str(row["patient_id"]) for row in rows]
    objectives: dict[str, Objective] = dict(module.objectives.items())  # type: ignore[arg-type]
    return {
        task: intervals(statistics_within_folds(one, rows), patients, one.known(rows), bearing=one.bearing(rows))
        for task, one in objectives.items()
    }


def scales(module: M2NetModule) -> dict[str, str]:
    """The scheme that each task's grades or scores are in, of those that have one."""
    objectives: dict[str, Objective] = dict(module.objectives.items())  # type: ignore[arg-type]
    return {task: objective.scale for task, objective in objectives.items() if objective.scale}


@rank_zero_only
def print_scales(module: M2NetModule) -> None:
    """Say below a table of figures what its scores are."""
    for task, scale in scales(module).items():
        print(f"{task}: {scale}")


class ResultsWriter(Callback):
    """After ``test`` metrics.json and predictions.csv in the run's folder, after ``predict`` predicted.csv; transfer.json of a start."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what became of the weights that the fit starts from."""
        assert isinstance(pl_module, M2NetModule)
        if trainer.is_global_zero and pl_module.transfer is not None:
            write_json(self._folder(trainer) / "transfer.json", pl_module.transfer.plain())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both files and log the table; other processes wait, since what comes next reads them."""
        assert isinstance(pl_module, M2NetModule)
        if trainer.is_global_zero:
            self._write_test(trainer, pl_module)
        trainer.strategy.barrier()

    def _write_test(self, trainer: pl.Trainer, pl_module: M2NetModule) -> None:
        folder = self._folder(trainer)
        data = trainer.datamodule  # type: ignore[attr-defined]
        rows = self._rows(pl_module, data)
        versions = {row["phantom_version"] for row in rows if row.get("phantom_version")}
        facts = {"studies": len(rows), "patients": len({r["patient_id"] for r in rows}), "m2net_version": __version__}
        facts |= {f"{task}/scale": scale for task, scale in scales(pl_module).items()}
        if versions:
            facts["phantom_version"] = ", ".join(sorted(versions))
        _keep_earlier(folder, {row["study_id"] for row in rows})
        write_json(folder / "metrics.json", {**pl_module.results, **bounds(pl_module, rows), **facts})
        write_table(folder / "predictions.csv", rows)
        watcher = watcher_of(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and rows and (watcher is None or watcher.studies):
                names = CaseNames(folder)
                columns = dict.fromkeys(column for row in rows for column in row)
                shown = [c for c in columns if c not in ("study_id", "patient_id", "site")]  # no identifier leaves
                data = [[names.of(row["study_id"]), *(row.get(c) for c in shown)] for row in rows]
                logger.log_table("test/predictions", columns=["case", *shown], data=data)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the predictions of all studies, those that trained included: not where those of a test are."""
        assert isinstance(pl_module, M2NetModule)
        if trainer.is_global_zero:
            write_table(self._folder(trainer) / "predicted.csv", self._rows(pl_module, trainer.datamodule))  # type: ignore[attr-defined]

    def _folder(self, trainer: pl.Trainer) -> Path:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _rows(self, module: M2NetModule, data: Any) -> list[dict[str, Any]]:
        """One row a study: who, where from, then the tasks' columns."""
        rows = []
        studies = {s.study_id: s for s in data.manifest}
        for row in module.predictions:
            study = studies[row["study_id"]]
            who = {"study_id": study.study_id, "patient_id": study.patient_id, "site": study.site}
            if study.extra.get("phantom_version"):
                who["phantom_version"] = study.extra["phantom_version"]
            rows.append({**who, **{k: v for k, v in row.items() if k != "study_id"}})
        return rows
