"""The papers' tables on the same work: every row cross-validated on the same SYNTHETIC patients of two sites with the same steps.

python experiments/tables/run.py --at-once 2   # rows side by side, each on its share of the cores; what is done is kept
python experiments/tables/run.py --screen      # the same with few patients and steps: does everything run?
python experiments/tables/run.py --seed 1 --rows all_tasks_gradient_norm classification_only    # another training of some rows
python experiments/tables/run.py --paper-size  # at the size of the published network: wants an accelerator
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paper_size import MATRIX, SPACING_MM, write_at_paper_size
from results import BY_ALL_MASKS, HERE, RUNS, parted, write_results

from m2net.cli.chain import cohort_once, command, is_done, join_once, side_by_side
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
    "all_tasks_gradient_norm",
)  # fmt: skip
FEWER = (25, 5)
"""Share of the studies that keep their lobe mask, in per cent; these rows are repeated with fewer masks."""
FEWER_ROWS = ("m2unet", "lobes_m2unet")


class Size(NamedTuple):
    """Where runs are kept, pixels of the phantoms' slices, mm of those that the networks see, and whether networks are as published."""

    runs: Path
    matrix: int
    spacing_mm: float
    published: bool


SMALL, PAPER = Size(RUNS, 96, 4.0, False), Size(RUNS / "paper_size", MATRIX, SPACING_MM, True)


def cohort(folder: Path, patients: int, matrix: int) -> Path:
    """Half of the patients from each of two sites, in one manifest with its folds, without the few whose lungs are cut by the picture."""
    manifest = folder / "manifest.csv"
    sites = [
        cohort_once(folder / site, patients // 2, seed, "--site", site, "--matrix", str(matrix), "--slice-mm", "4", verified=True)
        for site, seed in SITES.items()
    ]
    command("split", join_once(manifest, sites), "--folds", str(FOLDS))
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
        if not is_done(done, model):
            placed = [f"--data.fold={fold}", f"--trainer.default_root_dir={judged}", "--trainer.logger=false"]
            command("test", *configs, *placed, "--ckpt_path", model, log=log and log.with_name(f"log_{BY_ALL_MASKS}_{fold}.txt"))


def configurations(row: str, size: Size) -> list[str | Path]:
    """The files that are one row, laid over each other, as words of the command line."""
    files = [HERE / "common.yaml", HERE / "rows" / f"{parted(row)[0]}.yaml"]
    if size.published:
        files = [write_at_paper_size(path, size.runs / "configurations" / row / path.name) for path in files]
    return [word for path in files for word in ("--config", path)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--screen", action="store_true", help="48 patients and 40 steps a fold")
    options.add_argument("--paper-size", action="store_true", help="width, patches and patches a study of the published network")
    every = list(ROWS) + [f"{row}-{percent}" for percent in FEWER for row in FEWER_ROWS]
    options.add_argument("--rows", nargs="+", default=every, choices=every, metavar="ROW", help="some of: " + ", ".join(every))
    beside = "rows side by side, each on its share of the cores; output in log.txt"
    options.add_argument("--at-once", type=int, default=1, choices=range(1, 65), metavar="N", help=beside)
    options.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the trainings, on the same patients and folds; into seed_N.csv"
    )
    given = options.parse_args()
    if given.seed and (given.screen or given.paper_size):
        options.error("--seed is of the tables themselves, without --screen and --paper-size")
    size = PAPER if given.paper_size else SMALL
    out = HERE / (f"seed_{given.seed}.csv" if given.seed else "paper_size.csv" if given.paper_size else "results.csv")
    patients, more = 240, []
    if given.screen:
        size = size._replace(runs=size.runs / "screen")
        out, patients, more = size.runs / "results.csv", 48, ["--trainer.max_steps=40", "--trainer.val_check_interval=40"]
    runs = size.runs
    manifest = cohort(runs / "cohort", patients, size.matrix)
    manifests = {100: manifest, **{percent: with_fewer_lobes(manifest, percent) for percent in FEWER}}
    command("prepare", manifest, "--store", runs / "store", "--spacing", f"{size.spacing_mm:g}")  # so that no row's minutes hold it
    kept = runs
    if given.seed:
        kept, more = runs / f"seed_{given.seed}", [*more, f"--seed_everything={given.seed}"]

    def run(row: str) -> None:
        labelled, folder = parted(row)[1], kept / row
        configs = [*configurations(row, size), f"--data.store={runs / 'store'}", f"--trainer.default_root_dir={folder}", *more]
        log = folder / "log.txt" if given.at_once > 1 else None
        crossval([*configs, f"--data.manifest={manifests[labelled]}"], folder, log)
        if labelled < 100:
            judge_by_all_masks([*configs, f"--data.manifest={manifest}"], folder, log)

    try:
        for _ in side_by_side(run, given.rows, given.at_once):
            pass
    finally:
        write_results(kept, out)
    for one in read_table(out):
        print(*one.values(), sep="  ")
    print(out)


if __name__ == "__main__":
    main()
