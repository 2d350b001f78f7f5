"""What one or several cross-validations say together: the mean of their out-of-fold probabilities, judged as those of one.

    python experiments/weakly_supervised/ensemble.py runs/covid_ct/crossval runs/covid_ct/crossval_1 runs/covid_ct/crossval_2 \
        --out runs/covid_ct/ensemble.json
    python experiments/weakly_supervised/ensemble.py runs/covid_ct/crossval_hull --against runs/covid_ct/crossval \
        --out runs/covid_ct/hull_difference.json

All must have judged the same studies in the same folds. With --against the difference of AUC from another's on the same draws of patients.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from m2net.objectives import DiagnosisObjective, intervals, statistics_within_folds
from m2net.reports.results import read_rows, write_json

CONFIG = Path(__file__).with_name("covid_ct.yaml")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folders", nargs="+", type=Path, help="of m2net crossval, with the same folds")
    options.add_argument("--against", type=Path, help="another folder of m2net crossval")
    options.add_argument("--out", required=True, type=Path, help="JSON of the figures, as crossval.json has them")
    given = options.parse_args()
    groups = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["tasks"]["diagnosis"]["objective"]["groups"]
    objective = DiagnosisObjective(groups=groups)
    folders = given.folders + ([given.against] if given.against else [])
    tables = [sorted(read_rows(folder / "predictions.csv"), key=lambda row: str(row["study_id"])) for folder in folders]
    if any([(row["study_id"], row["fold"]) for row in table] != [(row["study_id"], row["fold"]) for row in tables[0]] for table in tables):
        raise SystemExit("The folders differ in their studies or folds; expected those of one manifest.")
    rows = objective.rewritten(tables[0], np.mean([objective.judged(table)[0] for table in tables[: len(given.folders)]], axis=0))
    figures = statistics_within_folds(objective, rows)
    if given.against:
        own, other = figures["auc"], statistics_within_folds(objective, tables[-1])["auc"]
        figures = {"auc_difference": lambda chosen: own(chosen) - other(chosen)}
    found = intervals(figures, [str(row["patient_id"]) for row in rows])
    write_json(given.out, {"studies": len(rows), "figures": {f"diagnosis/{name}": asdict(value) for name, value in found.items()}})
    for name in ("auc", "auc_difference"):
        if name in found:
            print(f"{name}: {found[name]}")


if __name__ == "__main__":
    main()
