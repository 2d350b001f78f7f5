"""Collect the figures of the runs into results.csv beside this file, with the trivial baselines beside them.

    python experiments/infection_maps/results.py

Reads what `m2net test`, `crossval` and `audit` wrote below runs/; figures of what was not run this time stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from m2net.bags import InputSpec, Store, cover, cut_bag
from m2net.cli.lightning import make_cli
from m2net.objectives import Interval, intervals
from m2net.recipes.table import read_table
from m2net.reports.figures import FigureRow, audit_rows, crossval_rows, interval_row, metrics_rows, write_figures
from m2net.studies import read_manifest

RUNS, HERE = Path("runs"), Path(__file__).parent
RUN = RUNS / "infection_maps"
CROSSVALS = {
    "real infection, cross-validation": ("infection.yaml", RUNS / "cxr_infection"),
    "real severity, cross-validation": ("severity.yaml", RUNS / "cxr_severity"),
}
PHANTOM, PART = "phantom (synthetic), fresh patients", "phantom (synthetic), test part of the cohort"


def lung_overlap(manifest: Path, store: Path, spec: InputSpec) -> dict[str, tuple[int, int, int]]:
    """Per study with both masks: pixels of lung that are infected, of lung, of infection, on the network's grid."""
    found = {}
    opened = Store(store, spec.spacing_mm)
    for study in read_manifest(manifest):
        if {"lungs", "infection"} <= set(study.masks):
            prepared = opened.open(study)
            dense = cut_bag(prepared, cover(prepared, spec), spec, study.study_id, 0, ("lungs", "infection")).dense
            lung, sick = dense["lungs"] > 0, dense["infection"] > 0
            found[study.study_id] = (int((lung & sick).sum()), int(lung.sum()), int(sick.sum()))
    return found


def against_whole_lung(rows: list[dict[str, str]], trivial: dict[str, tuple[int, int, int]]) -> dict[str, Interval]:
    """Pooled pixel F1 of the model and of "the whole lung is infected", on the studies with both masks, and their difference."""
    both = [r for r in rows if r["study_id"] in trivial and r["infection_hit"]]
    model = np.array([[float(r[f"infection_{n}"]) for n in ("hit", "claimed", "present")] for r in both])
    plain = np.array([trivial[r["study_id"]] for r in both], dtype=float)

    def f1(counts: np.ndarray) -> float:
        hit, claimed, present = counts.sum(0)
        return float(2 * hit / (claimed + present))

    figures = {
        "pooled_f1 where both masks are known": lambda c: f1(model[c]),
        "pooled_f1 if the whole lung were infected": lambda c: f1(plain[c]),
        "pooled_f1 above that": lambda c: f1(model[c]) - f1(plain[c]),
    }
    return intervals(figures, [r["patient_id"] for r in both])


def judged(rows: list[dict[str, str]], task: str) -> int:
    """Studies that carry the task's label."""
    columns = (f"{task}_hit", f"{task}_geographic_extent_true", task)
    return sum(any(r.get(column) for column in columns) for r in rows)


def mean_score(rows: list[dict[str, str]], task: str) -> Interval:
    """MAE of always saying the mean score of the other folds."""
    scored = [(r["fold"], float(r[task]), r["patient_id"]) for r in rows if r.get(task)]
    folds, truth = np.array([s[0] for s in scored]), np.array([s[1] for s in scored])
    error = np.array([abs(truth[k] - truth[folds != folds[k]].mean()) for k in range(len(truth))])
    return intervals({"mae": lambda c: float(error[c].mean())}, [s[2] for s in scored])["mae"]


def at_sensitivity(wanted: float) -> Iterator[FigureRow]:
    """Specificity of the infected area at a sensitivity on these very patients: what no threshold chosen elsewhere can exceed by much."""
    path = RUN / "predictions.csv"
    rows = [r for r in read_table(path) if r["detection"]] if path.exists() else []
    if not rows:
        return
    area, sick = np.array([float(r["detection_area"]) for r in rows]), np.array([float(r["detection"]) for r in rows]) == 1

    def specificity(chosen: np.ndarray) -> float:
        threshold = np.quantile(area[chosen][sick[chosen]], 1 - wanted)
        return float((area[chosen][~sick[chosen]] < threshold).mean())

    found = intervals({"specificity": specificity}, [r["patient_id"] for r in rows])["specificity"]
    yield interval_row(PHANTOM, f"detection/specificity at sensitivity {wanted}", asdict(found), len(rows))


def real() -> Iterator[FigureRow]:
    """The cross-validations, with baselines."""
    for what, (config, folder) in CROSSVALS.items():
        path = folder / "crossval" / "crossval.json"
        if not path.exists():
            continue
        rows = read_table(folder / "crossval" / "predictions.csv")
        yield from crossval_rows(what, path, partial(judged, rows))
        data = make_cli(["--config", str(HERE / config)], run_now=False).datamodule
        trivial = lung_overlap(folder / "manifest.csv", data.store.root, data.spec)
        for name, interval in against_whole_lung(rows, trivial).items():
            yield interval_row(what, f"infection/{name}", asdict(interval), len(trivial))
        for task in ("extent", "opacity"):
            if any(r.get(task) for r in rows):
                yield interval_row(what, f"{task}/mae of the other folds' mean", asdict(mean_score(rows, task)), judged(rows, task))


if __name__ == "__main__":
    out = HERE / "results.csv"
    table = [
        *metrics_rows(PHANTOM, RUN / "metrics.json"),
        *at_sensitivity(0.95),
        *audit_rows(PHANTOM, RUN / "audit.json"),
        *metrics_rows(PART, RUN / "test_part" / "metrics.json"),
        *real(),
    ]
    kept = write_figures(out, table)
    print(f"{out}: {len(table)} figures, {kept} of earlier runs kept")
