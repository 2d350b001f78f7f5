"""Judge ensembles out of fold: the folds' checkpoints of several cross-validations, fused fold by fold and tested on their fold.

    python experiments/weakly_supervised/ensemble.py experiments/weakly_supervised/covid_ct.yaml runs/covid_ct/ensemble \
        runs/covid_ct/train.5folds-0.csv runs/covid_ct/crossval_0 runs/covid_ct/crossval_1

The cross-validations differ in ``--seed_everything`` only. Writes predictions.csv and crossval.json into the second folder.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from m2net.cli.chain import command
from m2net.cli.lightning import make_cli
from m2net.reports.results import read_rows, task_intervals, write_json, write_table
from m2net.training.crossval import pool_rows


def main(config: Path, out: Path, manifest: Path, folders: list[Path]) -> None:
    """Fuse, test and pool."""
    tables = []
    for fold, first in enumerate(sorted(folders[0].glob("fold_*/best.ckpt"))):
        members, place = [folder / first.parent.name / first.name for folder in folders], out / f"fold_{fold}"
        command("fuse", *members, "--out", place / "best.ckpt")
        words = [f"--data.manifest={manifest}", f"--data.fold={fold}", f"--trainer.default_root_dir={place}", "--trainer.logger=false"]
        command("test", "--config", config, *words, "--ckpt_path", place / "best.ckpt")
        tables.append((fold, read_rows(place / "predictions.csv")))
    rows = pool_rows(tables)
    write_table(out / "predictions.csv", rows)
    model = make_cli(["--config", str(config)], run_now=False).model
    figures = {f"{t}/{name}": asdict(found) for t, named in task_intervals(model, rows).items() for name, found in named.items()}
    write_json(out / "crossval.json", {"studies": len(rows), "patients": len({r["patient_id"] for r in rows}), "figures": figures})
    for name, found in figures.items():
        print(f"{name:32} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), [Path(word) for word in sys.argv[4:]])
