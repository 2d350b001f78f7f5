"""Few labels with and without a start from studies that have none, on SYNTHETIC patients, by the commands that a user would type.

python experiments/unlabelled/run.py                       # what is done is kept
python experiments/unlabelled/run.py --at-once 2           # fits side by side, a core each
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from m2net.cli.chain import cohort_once, command, fit_once, is_done, side_by_side, split_once
from m2net.objectives import DiagnosisObjective, SegmentationObjective, SeverityObjective, intervals
from m2net.objectives.base import Statistic
from m2net.recipes.table import read_table
from m2net.reports.figures import FigureRow, audit_rows, figure_row, interval_row, metrics_rows, write_figures
from m2net.reports.results import read_rows, write_table

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/unlabelled")
COHORTS = {"unlabelled": (240, 401), "labelled": (60, 402), "judged": (150, 403)}
"""Patients and seed."""
SIZE = ["--matrix", "96", "--slice-mm", "5"]
BARE = ("study_id", "patient_id", "image", "modality", "site", "phantom_version")
"""All that the manifest of the unlabelled says."""
MASKS = 12
"""Labelled patients who have a mask of lobes and of infection, drawn at random; all 60 have a diagnosis and a grade."""
SEEDS = (0, 1)
AUDITED = ("severity", "diagnosis")
STARTS = {"scratch": [], "restored": ["--model.start_from", RUNS / "restore" / "best.ckpt", "--model.start_parts=[encoder,decoder]"]}
CONFIGS = ["--config", HERE / "restore.yaml", "--config", HERE / "few_labels.yaml"]
FIGURES = {
    "lobes": (SegmentationObjective("lobes"), ("dice_mean",)),
    "infection": (SegmentationObjective("infection"), ("pooled_f1",)),
    "severity": (SeverityObjective("binary"), ("auc", "auc_share")),
    "diagnosis": (DiagnosisObjective(), ("auc", "accuracy")),
}


def prepare() -> None:
    """The cohorts: one without labels, one with few, one to judge on."""
    manifests = {name: cohort_once(RUNS / name, patients, seed, *SIZE) for name, (patients, seed) in COHORTS.items()}
    bare = [{column: row[column] for column in BARE} for row in read_table(manifests["unlabelled"])]
    write_table(RUNS / "unlabelled" / "bare.csv", bare)
    split_once(RUNS / "unlabelled" / "bare.csv", "0.9 0.1 0")
    split_once(manifests["labelled"], "1 0 0")
    rows = read_table(RUNS / "labelled" / "manifest.split.csv")
    for k in np.random.default_rng(402).permutation(len(rows))[MASKS:]:
        rows[k] |= {"lobes": "", "lungs": "", "infection": ""}
    write_table(RUNS / "labelled" / "few.csv", rows)
    split_once(manifests["judged"], "0 0 1")


def fit_and_judge(name: str) -> None:
    """One start with one seed: fit on the few labels, test on the judged cohort."""
    folder, (start, seed) = RUNS / name, name.split("-")
    fit_once(
        folder,
        *CONFIGS,
        *STARTS[start],
        f"--seed_everything={seed}",
        f"--trainer.default_root_dir={folder}",
        log=folder / "fit.log",
        model="checkpoints/best.ckpt",
    )
    judge(folder, folder / "checkpoints" / "best.ckpt", *CONFIGS)


def judge(folder: Path, model: Path, *words: str | Path) -> None:
    """Test a model on the judged cohort."""
    out = folder / "test"
    if not is_done(out / "metrics.json", model):
        where = [f"--data.manifest={RUNS / 'judged' / 'manifest.split.csv'}", f"--trainer.default_root_dir={out}", "--trainer.logger=false"]
        command("test", *words, *where, "--ckpt_path", model, log=folder / "test.log")


def audit() -> None:
    """What trivial facts tell of the judged patients' labels."""
    manifest = RUNS / "judged" / "manifest.split.csv"
    for label in AUDITED:
        if not is_done(found := RUNS / f"audit_{label}.json", manifest):
            command("audit", manifest, "--store", RUNS / "store", "--spacing", "4", "--label", label, "--out", found)


Rows = list[dict[str, Any]]


def answers(start: str) -> list[Rows]:
    """Rows of predictions.csv by study, one table a seed."""
    return [sorted(read_rows(RUNS / f"{start}-{seed}" / "test" / "predictions.csv"), key=lambda row: row["study_id"]) for seed in SEEDS]


def mean_of_seeds(tables: list[Rows], task: str, figure: str) -> Statistic:
    """A figure's mean over the seeds, as a function of rows."""
    found = [FIGURES[task][0].statistics(rows)[figure] for rows in tables]
    return lambda chosen: float(np.mean([one(chosen) for one in found]))


def audited() -> Iterator[FigureRow]:
    """Figures of the audits."""
    for label in AUDITED:
        yield from audit_rows(f"judged patients, {label}", RUNS / f"audit_{label}.json")


def figures() -> Iterator[FigureRow]:
    """Every run's figures, the mean over seeds of each start, and the difference on the same draws of patients."""
    metrics = json.loads((RUNS / "restore" / "test" / "metrics.json").read_text(encoding="utf-8"))
    for name in ("restoration/r2", "restoration/rmse"):
        yield figure_row("hidden squares of the judged patients", name, metrics[name], n=metrics["studies"])
    for start in STARTS:
        for seed in SEEDS:
            yield from metrics_rows(f"{start}, seed {seed}", RUNS / f"{start}-{seed}" / "test" / "metrics.json")
    tables = {start: answers(start) for start in STARTS}
    patients = [row["patient_id"] for row in tables["scratch"][0]]
    for task, (_, names) in FIGURES.items():
        for name in names:
            scratch, restored = (mean_of_seeds(tables[start], task, name) for start in STARTS)
            compared: dict[str, Any] = {
                "scratch, mean of seeds": scratch,
                "restored, mean of seeds": restored,
                "restored minus scratch": lambda chosen, a=restored, b=scratch: a(chosen) - b(chosen),
            }
            for what, found in intervals(compared, patients).items():
                yield interval_row(what, f"{task}/{name}", asdict(found), len(patients))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--at-once", type=int, default=1, help="fits side by side")
    given = options.parse_args()
    prepare()
    restore = ["--config", HERE / "restore.yaml"]
    fit_once(RUNS / "restore", *restore)
    judge(RUNS / "restore", RUNS / "restore" / "best.ckpt", *restore)
    for _ in side_by_side(fit_and_judge, [f"{start}-{seed}" for seed in SEEDS for start in STARTS], given.at_once):
        pass
    audit()
    write_figures(HERE / "results.csv", [*figures(), *audited()])
    print(HERE / "results.csv")


if __name__ == "__main__":
    main()
