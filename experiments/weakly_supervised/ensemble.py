"""What an ensemble of several cross-validations of one configuration says out of fold: the mean of the logits, as ``m2net fuse`` makes it.

    python experiments/weakly_supervised/ensemble.py experiments/weakly_supervised/covid_ct.yaml runs/covid_ct/ensemble \
        runs/covid_ct/crossval_0 runs/covid_ct/crossval_1 runs/covid_ct/crossval_2

The cross-validations differ in ``--seed_everything`` only, so that a study is judged by members that did not see its patient. Writes
predictions.csv and crossval.json into the second folder.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from m2net.cli.lightning import make_cli
from m2net.objectives import DiagnosisObjective
from m2net.reports.results import read_rows, task_intervals, write_json, write_table

TASK = "diagnosis"


def main(config: Path, out: Path, folders: list[Path]) -> None:
    """Average and judge."""
    model = make_cli(["--config", str(config)], run_now=False).model
    objective = model.objectives[TASK]
    assert isinstance(objective, DiagnosisObjective)
    tables = [sorted(read_rows(folder / "predictions.csv"), key=lambda row: str(row["study_id"])) for folder in folders]
    same = [[(row["study_id"], row["fold"]) for row in table] for table in tables]
    if any(one != same[0] for one in same):
        sys.exit("the cross-validations judged other studies or folds; expected runs that differ in --seed_everything only")
    logits = np.mean([np.log(objective.judged(table)[0].clip(1e-7)) for table in tables], axis=0)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = objective.rewritten(tables[0], probability)
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "predictions.csv", rows)
    figures = {f"{t}/{name}": asdict(found) for t, named in task_intervals(model, rows).items() for name, found in named.items()}
    write_json(out / "crossval.json", {"studies": len(rows), "patients": len({r["patient_id"] for r in rows}), "figures": figures})
    for name, found in figures.items():
        print(f"{name:32} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
