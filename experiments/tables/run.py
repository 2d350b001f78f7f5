"""The papers' tables on the same work: every row cross-validated on the same SYNTHETIC patients of two sites with the same steps.

python experiments/tables/run.py --at-once 2   # rows side by side, each on its share of the cores; what is done is kept
python experiments/tables/run.py --screen      # the same with few patients and steps: does everything run?
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from results import BY_ALL_MASKS, HERE, RUNS, parted, write_results

from m2net.cli.chain import cohort_once, command, side_by_side
from m2net.machine import cpu_count
from m2net.recipes.table import read_table
from m2net.reports.results import write_table

FOLDS = 3
SITES = {"home": 91, "north": 92}
"""Sites that half of the patients are from, with their seeds."""
ROWS = (
    "resnet50_max", "instance_mil", "embedding_mil", "gated_attention", "transformer", "classification_only", "one_level", "m2unet",
    "joint_lobe_aware", "joint_lobe_aware_infection", "joint_shares", "joint_shares_apart",
    "lobes_unet", "lobes_unetplusplus", "lobes_m2unet", "lobes_position_aware",
    "infection_alone", "diagnosis_alone", "all_tasks", "all_tasks_uncertainty",
)  # fmt: skip
FEWER = (25, 5)
"""Share of the studies that keep their lobe mask, in per cent; these rows are repeated with fewer masks."""
FEWER_ROWS = ("m2unet", "lobes_m2unet")


def cohort(folder: Path, patients: int) -> Path:
    """Half of the patients from each of two sites, in one manifest with its folds, without the few whose lungs are cut by the picture."""
    manifest = folder / "manifest.csv"
    sites = [
        cohort_once(folder / site, patients // 2, seed, "--site", site, "--matrix", "96", "--slice-mm", "4", verified=True)
        for site, seed in SITES.items()
    ]
    subprocess.run([sys.executable, str(HERE.parent / "join.py"), str(manifest), *map(str, sites)], check=True)
    command("split", manifest, "--folds", str(FOLDS))
    return manifest.with_suffix(".split.csv")


def with_fewer_lobes(manifest: Path, percent: int) -> Path:
    """The same studies and folds; only so many keep their lobe mask, drawn at random, as many of each fold."""
    rows = read_table(manifest)
    order = np.random.default_rng(percent).permutation(len(rows)).tolist()
    each = max(4, round(len(rows) * percent / 100 / FOLDS))
    kept = {k for fold in range(FOLDS) for k in [k for k in order if rows[k]["fold"] == str(fold)][:each]}
    fewer = manifest.with_name(f"lobes-{percent}.csv")
    write_table(fewer, [row if k in kept else row | {"lobes": ""} for k, row in enumerate(rows)])
    return fewer


def crossval(configs: Sequence[str | Path], out: Path, log: Path | None) -> None:
    """One row's folds; those done with the same words are kept. What the row took is noted where all of it was run at once."""
    before = trained(out)
    ended = command("crossval", *configs, "--folds", str(FOLDS), "--out", out, log=log)
    if trained(out) != before:
        clock = out / "clock.json"
        clock.unlink(missing_ok=True)
        if not before:
            took = {"minutes": ended.seconds / 60, "cores": cpu_count(), "beside": log is not None}
            clock.write_text(json.dumps(took), encoding="utf-8")


def trained(out: Path) -> list[float]:
    """When each fold that is done was done."""
    return sorted(path.stat().st_mtime for path in out.glob("fold_*/done.json"))


def judge_by_all_masks(configs: Sequence[str | Path], out: Path, log: Path | None) -> None:
    """Test each fold of a row with fewer lobe masks on the same studies with all of theirs, unless that was done since it was trained."""
    for fold in range(FOLDS):
        model, judged = out / f"fold_{fold}" / "best.ckpt", out / BY_ALL_MASKS / f"fold_{fold}"
        done = judged / "predictions.csv"
        if not done.exists() or done.stat().st_mtime < model.stat().st_mtime:
            placed = [f"--data.fold={fold}", f"--trainer.default_root_dir={judged}", "--trainer.logger=false"]
            command("test", *configs, *placed, "--ckpt_path", model, log=log and log.with_name(f"log_{BY_ALL_MASKS}_{fold}.txt"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--screen", action="store_true", help="48 patients and 40 steps a fold")
    every = list(ROWS) + [f"{row}-{percent}" for percent in FEWER for row in FEWER_ROWS]
    options.add_argument("--rows", nargs="+", default=every, choices=every, metavar="ROW", help="some of: " + ", ".join(every))
    beside = "rows side by side, each on its share of the cores; output in log.txt"
    options.add_argument("--at-once", type=int, default=1, choices=range(1, 65), metavar="N", help=beside)
    given = options.parse_args()
    runs, patients = (RUNS / "screen", 48) if given.screen else (RUNS, 240)
    more = ["--trainer.max_steps=40", "--trainer.val_check_interval=40"] if given.screen else []
    manifest = cohort(runs / "cohort", patients)
    out = runs / "results.csv" if given.screen else HERE / "results.csv"
    manifests = {100: manifest, **{percent: with_fewer_lobes(manifest, percent) for percent in FEWER}}
    command("prepare", manifest, "--store", runs / "store", "--spacing", "4")  # so that the first row's minutes do not hold it

    def run(row: str) -> None:
        name, labelled = parted(row)
        configs: list[str | Path] = ["--config", HERE / "common.yaml", "--config", HERE / "rows" / f"{name}.yaml"]
        configs += [f"--data.store={runs / 'store'}", f"--trainer.default_root_dir={runs / row}", *more]
        log = runs / row / "log.txt" if given.at_once > 1 else None
        crossval([*configs, f"--data.manifest={manifests[labelled]}"], runs / row, log)
        if labelled < 100:
            judge_by_all_masks([*configs, f"--data.manifest={manifest}"], runs / row, log)

    try:
        for _ in side_by_side(run, given.rows, given.at_once):
            pass
    finally:
        write_results(runs, out)
    for one in read_table(out):
        print(*one.values(), sep="  ")
    print(out)


if __name__ == "__main__":
    main()
