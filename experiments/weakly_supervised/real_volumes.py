"""Slice-level and lobe-level infection on three real CT series, by models that were trained on SYNTHETIC patients only.

    python experiments/weakly_supervised/real_volumes.py ../shared/data/ct_volumes runs/weak_phantom/best.ckpt \
        runs/joint/best.ckpt runs/weak_phantom/real

Writes slices.csv, lobes.csv and figures.json into the last folder, explanations beside them; results.py takes the figures up.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from m2net.assessment import Assessor, Explainer, Explanation
from m2net.assessment.explainer import DEFAULT_METHOD
from m2net.machine import keep_big_blocks
from m2net.reports.explanation import write_explanation
from m2net.reports.results import write_json, write_table
from m2net.studies import read_image
from m2net.vocabulary import Lobe

CALLED_SHARE = 0.02  # of a lobe's voxels in boxes' saliency from which it is called


def slice_scores(explanation: Explanation) -> dict[int, float]:
    """P(pneumonia) of each slice that was read, by its index from the lowest."""
    return {s.slice_index: 1.0 - s.probabilities["non_pneumonia"] for s in explanation.slices}


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the slices that were read, which are those of the lungs' box: the others would be free of infection by their place alone."""
    read = [row for row in rows if row["score"] != ""]
    infected = [row["infected"] for row in read]
    found = {"slices": len(rows), "slices read": len(read), "slices read, infected": sum(infected)}
    found["slices not read, infected"] = sum(row["infected"] for row in rows) - sum(infected)
    if len(set(infected)) == 2:
        found["slice AUC"] = float(roc_auc_score(infected, [row["score"] for row in read]))
        found["slice AUC of lowness alone"] = float(roc_auc_score(infected, [-row["slice"] for row in read]))
    return found


def lobe_auc(saliency: NDArray[np.float32], lobes: NDArray[np.uint8], labels: dict[int, dict[str, str]]) -> float:
    """AUC of the mean saliency of a lobe in a slice, over all lobes in all slices (Z), against the radiologists' mark there."""
    marks, values = [], []
    for z, row in labels.items():
        for lobe in Lobe:
            if (inside := lobes[z] == lobe).any():
                marks.append(int(row[lobe.short]))
                values.append(float(saliency[z][inside].mean()))
    return float(roc_auc_score(marks, values))


def main(data: Path, model: Path, lobes_model: Path, out: Path) -> None:
    """Judge every series of the folder."""
    keep_big_blocks()
    with (data / "slice_labels.csv").open(newline="", encoding="utf-8") as file:
        labels = list(csv.DictReader(file))
    explainer, assessor = Explainer(model, DEFAULT_METHOD), Assessor(lobes_model)
    slices: list[dict[str, Any]] = []
    called: list[dict[str, Any]] = []
    told: dict[str, dict[str, float]] = {}
    for study in dict.fromkeys(row["study_id"] for row in labels):
        volume = read_image(data / study)
        explanation = explainer.explain(volume)
        write_explanation(out / study, explanation, study, 6)
        lobes = assessor.assess(volume).lobes
        assert lobes is not None
        scores = slice_scores(explanation)
        mine = [row for row in labels if row["study_id"] == study]
        at = {len(mine) - 1 - int(row["z_index_superior_first"]): row for row in mine}  # labels count from the top, volumes from below
        slices += [{"study": study, "slice": z, "infected": int(row["infected"]), "score": scores.get(z, "")} for z, row in at.items()]
        marked = (explanation.saliency >= explanation.threshold) & explanation.infected
        told[study] = {f"P({name})": p for name, p in explanation.probabilities.items()}
        if len({row["infected"] for row in mine}) == 2:
            told[study]["AUC of lobes in slices"] = lobe_auc(explanation.saliency, lobes, at)
        for lobe in Lobe:
            inside = lobes == lobe
            share = float(marked[inside].mean()) if inside.any() else float("nan")
            true = sum(int(row[lobe.short]) for row in mine)
            told[study] |= {f"{lobe.short}, slices marked": true, f"{lobe.short}, salient share": share}
            called.append(
                {"study": study, "lobe": lobe.short, "marked_slices": true, "salient_share": share, "called": int(share > CALLED_SHARE)}
            )
    write_table(out / "slices.csv", slices)
    write_table(out / "lobes.csv", called)
    for study in told:
        told[study] |= figures([row for row in slices if row["study"] == study])
    told["all three"] = figures(slices)
    write_json(out / "figures.json", told)
    for row in (*told.items(), *called):
        print(row)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:5]))
