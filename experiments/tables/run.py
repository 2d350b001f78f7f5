"""The papers' tables on the same work: every row cross-validated on the same SYNTHETIC patients of two sites with the same steps.

python experiments/tables/run.py --at-once 2   # rows side by side, each on its share of the cores; what is done is kept
python experiments/tables/run.py --screen      # the same with few patients and steps: does everything run?
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from m2net.cli.chain import cohort_once, command, side_by_side
from m2net.machine import cpu_count
from m2net.objectives import SegmentationObjective, SeverityObjective, intervals
from m2net.recipes.table import read_table
from m2net.reports.figures import audit_rows, write_figures
from m2net.reports.results import read_rows, write_table

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/tables")
FOLDS = 3
SITES = {"home": 91, "north": 92}
"""Sites that half of the patients are from, with their seeds."""
SEVERITY = (
    "resnet50_max", "instance_mil", "embedding_mil", "gated_attention", "transformer", "classification_only", "one_level", "m2unet",
    "joint_lobe_aware", "joint_shares",
)  # fmt: skip
LOBES = ("lobes_unet", "lobes_unetplusplus", "lobes_m2unet", "m2unet", "lobes_position_aware")
FEWER = (25, 5)
"""Share of the studies that keep their lobe mask, in per cent; these rows are repeated with fewer masks."""
FEWER_ROWS = ("m2unet", "joint_lobe_aware")
FIGURES = ("severity/auc_share", "severity/auc", "lobes/dice_mean")
PAIRS = (
    ("m2unet", "classification_only", "severity/auc"), ("joint_lobe_aware", "classification_only", "severity/auc"),
    ("joint_shares", "classification_only", "severity/auc"), ("gated_attention", "classification_only", "severity/auc"),
    ("one_level", "m2unet", "severity/auc"), ("m2unet", "lobes_m2unet", "lobes/dice_mean"),
    ("joint_lobe_aware", "lobes_m2unet", "lobes/dice_mean"), ("lobes_position_aware", "lobes_m2unet", "lobes/dice_mean"),
    *((f"{row}-{percent}", "classification_only", "severity/auc") for percent in FEWER for row in FEWER_ROWS),
)  # fmt: skip
"""Does learning together help, and what does each part bring?"""


def cohort(folder: Path, patients: int) -> Path:
    """Half of the patients from each of two sites, in one manifest, without the few whose lungs are cut by the picture."""
    manifest = folder / "manifest.csv"
    sites = [
        cohort_once(folder / site, patients // 2, seed, "--site", site, "--matrix", "96", "--slice-mm", "4", verified=True)
        for site, seed in SITES.items()
    ]
    subprocess.run([sys.executable, str(HERE.parent / "join.py"), str(manifest), *map(str, sites)], check=True)
    return manifest


def with_fewer_lobes(manifest: Path, percent: int) -> Path:
    """The same studies; only so many keep their lobe mask, drawn at random."""
    rows = read_table(manifest)
    kept = set(np.random.default_rng(percent).permutation(len(rows))[: max(4 * FOLDS, round(len(rows) * percent / 100))].tolist())
    fewer = manifest.with_name(f"lobes-{percent}.csv")
    write_table(fewer, [row if k in kept else row | {"lobes": ""} for k, row in enumerate(rows)])
    return fewer


def crossval(row: str, manifest: Path, out: Path, more: list[str], log: Path | None) -> None:
    """One row's folds; those done with the same words are kept. What the row took is noted where all of it was run at once."""
    configs = ["--config", HERE / "common.yaml", "--config", HERE / "rows" / f"{row}.yaml"]
    placed = [f"--data.manifest={manifest}", f"--trainer.default_root_dir={out}"]
    before = trained(out)
    ended = command("crossval", *configs, "--folds", str(FOLDS), "--out", out, *placed, *more, log=log)
    if trained(out) != before:
        clock = out / "clock.json"
        clock.unlink(missing_ok=True)
        if not before:
            took = {"minutes": ended.seconds / 60, "cores": cpu_count(), "beside": log is not None}
            clock.write_text(json.dumps(took), encoding="utf-8")


def trained(out: Path) -> list[float]:
    """When each fold that is done was done."""
    return sorted(path.stat().st_mtime for path in out.glob("fold_*/done.json"))


def table(runs: Path) -> list[dict[str, object]]:
    """Figures of every row that is done; with fewer lobe masks, of severity."""
    rows: list[dict[str, object]] = []
    for path in sorted(runs.glob("*/crossval.json")):
        name, labelled = parted(path.parent.name)
        found = json.loads(path.read_text(encoding="utf-8"))
        for figure in FIGURES[: 3 if labelled == 100 else 2]:
            if figure in found["figures"]:
                rows.append(_line(name, labelled, figure, found["figures"][figure], found["patients"]))
    return rows


def clocks(runs: Path) -> list[dict[str, object]]:
    """Minutes that rows took, by the number of cores they could run on, and whether others ran beside them."""
    rows: list[dict[str, object]] = []
    for path in sorted(runs.glob("*/clock.json")):
        name, labelled = parted(path.parent.name)
        found = json.loads(path.read_text(encoding="utf-8"))
        on = f"{found['cores']} core{'s' * (found['cores'] > 1)}" + (", beside others" if found.get("beside") else "")
        rows.append(_line(name, labelled, f"minutes/{on}", {"value": found["minutes"]}, ""))
    return rows


def audits(runs: Path) -> list[dict[str, object]]:
    """How well trivial facts of these studies tell the severity: the same for every row, so those of one row that is done."""
    for path in sorted(runs.glob("*/audit_severity.json"))[:1]:
        told = [row for row in audit_rows("trivial facts", path) if "alone" in row["figure"] or "strongest" in row["figure"]]
        return [{"row": row.pop("experiment"), "lobes labelled": "100 %"} | row for row in told]
    return []


def differences(runs: Path) -> list[dict[str, object]]:
    """What a pair of rows that are done differ by, on the same draws of patients."""
    rows: list[dict[str, object]] = []
    for one, other, figure in PAIRS:
        paths = [runs / name / "predictions.csv" for name in (one, other)]
        if all(path.exists() for path in paths):
            tables = [sorted(read_rows(path), key=lambda row: str(row["study_id"])) for path in paths]
            task, _, statistic = figure.partition("/")
            objective = SegmentationObjective("lobes") if task == "lobes" else SeverityObjective("binary")
            first, second = (objective.statistics(table)[statistic] for table in tables)
            found = intervals({"difference": lambda c, a=first, b=second: a(c) - b(c)}, [row["patient_id"] for row in tables[0]])
            name, labelled = parted(one)
            rows.append(_line(f"{name} minus {other}", labelled, figure, asdict(found["difference"]), len(tables[0])))
    return rows


def parted(name: str) -> tuple[str, int]:
    """A row's name and the share of studies with a lobe mask, per cent: ``m2unet-25`` is m2unet with 25."""
    row, _, percent = name.partition("-")
    return row, int(percent or 100)


def _line(row: str, labelled: int, figure: str, interval: dict[str, float], n: int | str) -> dict[str, object]:
    value = {k: f"{interval[k]:.4f}" if k in interval else "" for k in ("value", "low", "high")}
    return {"row": row, "lobes labelled": f"{labelled} %", "figure": figure, **value, "n": n}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--screen", action="store_true", help="48 patients and 40 steps a fold")
    every = list(dict.fromkeys((*SEVERITY, *LOBES))) + [f"{row}-{percent}" for percent in FEWER for row in FEWER_ROWS]
    options.add_argument("--rows", nargs="+", default=every, choices=every, metavar="ROW", help="some of: " + ", ".join(every))
    beside = "rows side by side, each on its share of the cores; output in log.txt"
    options.add_argument("--at-once", type=int, default=1, choices=range(1, 65), metavar="N", help=beside)
    given = options.parse_args()
    runs, patients = (RUNS / "screen", 48) if given.screen else (RUNS, 240)
    more = ["--trainer.max_steps=40", "--trainer.val_check_interval=40"] if given.screen else []
    more.append(f"--data.store={runs / 'store'}")
    manifest = cohort(runs / "cohort", patients)
    out = runs / "results.csv" if given.screen else HERE / "results.csv"
    manifests = {100: manifest, **{percent: with_fewer_lobes(manifest, percent) for percent in FEWER}}
    command("prepare", manifest, "--store", runs / "store", "--spacing", "4")  # so that the first row's minutes do not hold it

    def run(row: str) -> None:
        name, labelled = parted(row)
        crossval(name, manifests[labelled], runs / row, more, runs / row / "log.txt" if given.at_once > 1 else None)

    for _ in side_by_side(run, given.rows, given.at_once):
        write_figures(out, [*table(runs), *differences(runs), *clocks(runs), *audits(runs)], by=("row", "lobes labelled", "figure"))
    for one in read_table(out):
        print(*one.values(), sep="  ")
    print(out)


if __name__ == "__main__":
    main()
