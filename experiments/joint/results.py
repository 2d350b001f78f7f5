"""Collect what run.py and experiments/series.py left in runs/joint into results.csv and trust.png beside this file.

python experiments/joint/results.py

Figures of what was not run this time stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binomtest

from m2net.assessment.outcome import recalibrate
from m2net.objectives import SeverityObjective, intervals
from m2net.objectives.reliability import (
    brier,
    calibration_band,
    calibration_error,
    conformal_set,
    conformal_threshold,
    cut_error,
    selective_risk,
)
from m2net.recipes.table import read_table
from m2net.reports.figures import (
    FigureRow,
    audit_rows,
    figure_row,
    interval_row,
    localisation_rows,
    metrics_rows,
    named_rows,
    write_figures,
)
from m2net.reports.trust import graded, reliability, trust_rows

HERE, RUNS = Path(__file__).parent, Path("runs/joint")
ROWS = {"": RUNS, ", labels of a hospital": RUNS / "few_labels"}
"""Where run.py put its rows, by what is said of them."""
COVERAGE = 0.9
OWN = 100
"""Patients of the other site whose grades put its probabilities right, as `m2net finetune` does; the others judge."""
COLOURS = {"home": "#0072b2", "north": "#d55e00"}


def recalibrated(what: str, path: Path) -> Iterator[FigureRow]:
    """What can be trusted of the model's probabilities before and after its first OWN patients put them right, on the others."""
    objective = SeverityObjective("binary")
    rows = graded(path)
    own, others = rows[:OWN], rows[OWN:]
    put_right = recalibrate(objective, own, others) if others else None
    if put_right is None:
        return
    for when, table in (("as it was", others), (f"recalibrated on {OWN} of its patients", put_right)):
        judged = objective.judged(table)
        assert judged is not None
        found = intervals(objective.statistics(table), [row["patient_id"] for row in table])
        for name in ("ece", "brier"):
            yield interval_row(f"{what}, {when}", f"severity/{name}", asdict(found[name]), len(table))
        yield figure_row(f"{what}, {when}", "severity/ece_band", calibration_band(judged[0]), n=len(table))


def own_sets(what: str, path: Path) -> Iterator[FigureRow]:
    """Coverage of conformal sets whose threshold the first OWN patients set, on the others."""
    judged = SeverityObjective("binary").judged(graded(path)) if path.exists() else None
    if judged is not None and len(judged[1]) > OWN:
        probability, grade = judged
        inside = conformal_set(probability[OWN:], conformal_threshold(probability[:OWN], grade[:OWN], COVERAGE))
        hits = inside[np.arange(len(inside)), grade[OWN:]]
        low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci()
        name = f"severity/coverage, binomial (stated {COVERAGE})"
        yield figure_row(f"{what}, threshold of {OWN} of its patients", name, float(hits.mean()), float(low), float(high), len(hits))
        yield figure_row(f"{what}, threshold of {OWN} of its patients", "severity/set_size", float(inside.sum(1).mean()), n=len(hits))


def true_answers(cohort: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The probabilities (n, 2) that the grades (n,) of a cohort were drawn with, and these; none where it was not made."""
    path = cohort / "good.csv"
    rows = [row for row in read_table(path) if row["severity"]] if path.exists() else []
    severe = np.array([float(row["true_severity_ge1"]) for row in rows])
    return np.stack([1 - severe, severe], axis=1), np.array([int(row["severity"]) for row in rows], dtype=np.int64)


def of_the_truth() -> Iterator[FigureRow]:
    """What a model that knew every patient's true probability would show: chance alone, in the draw of these grades.

    Its sets hold what is as likely as the threshold that covers COVERAGE of ``home``.
    """
    answers = {site: true_answers(RUNS / site) for site in COLOURS}
    if not all(len(grade) for _, grade in answers.values()):
        return
    least = conformal_threshold(*answers["home"], COVERAGE)
    for site, (probability, grade) in answers.items():
        what, n = f"synthetic, the true probabilities of site {site}", len(grade)
        hits = conformal_set(probability, least)[np.arange(n), grade]
        low, high = binomtest(int(hits.sum()), n).proportion_ci()
        yield figure_row(what, f"severity/coverage, binomial (stated {COVERAGE})", float(hits.mean()), float(low), float(high), n)
        yield figure_row(what, "severity/ece", cut_error(probability, grade), n=n)
        yield figure_row(what, "severity/ece_band", calibration_band(probability), n=n)
        yield figure_row(what, "severity/brier", brier(probability, grade), n=n)


def without_the_draw(what: str, path: Path) -> Iterator[FigureRow]:
    """Calibration error and coverage by the probabilities that the grades were drawn with: the model's doing, whatever grades fell."""
    rows = graded(path)
    if rows:
        said, severe = (np.array([float(row[name]) for row in rows]) for name in ("severity_ge1", "true_severity_ge1"))
        yield figure_row(what, "severity/ece against the true probabilities", calibration_error(said, severe), n=len(rows))
        held = [np.array([grade in row["severity_set"].split("|") for row in rows]) for grade in ("0", "1")]
        yield figure_row(
            what,
            "severity/coverage expected by the true probabilities",
            float((held[0] * (1 - severe) + held[1] * severe).mean()),
            n=len(rows),
        )


def draw(out: Path) -> None:
    """Reliability (ten groups of equal size, binomial 95 % bars) and the error rate among the most confident studies."""
    picture = Figure(figsize=(8.6, 4.0), layout="constrained")
    reliable, risk = picture.subplots(1, 2)
    for site, colour in COLOURS.items():
        rows = graded(RUNS / f"test_{site}" / "predictions.csv")
        if rows:
            p, y = (np.array([float(row[name]) for row in rows]) for name in ("severity_ge1", "severity"))
            reliability(reliable, p, y, colour, f"{site}, n = {len(rows)}")
            rate = selective_risk(np.maximum(p, 1 - p), (p >= 0.5) != (y == 1))
            risk.plot(np.arange(1, len(rate) + 1) / len(rate), rate, color=colour, label=site)
    reliable.plot([0, 1], [0, 1], color="#999999", lw=1, zorder=0)
    reliable.set(xlabel="predicted P(severe)", ylabel="share that is severe", title="Reliability, SYNTHETIC patients")
    risk.set(xlabel="share of studies answered, most confident first", ylabel="error rate", title="Selective risk", ylim=(0, None))
    reliable.legend(frameon=False)
    picture.savefig(out, dpi=130)


if __name__ == "__main__":
    out = HERE / "results.csv"
    table: list[FigureRow] = []
    for whose, runs in ROWS.items():
        for site in COLOURS:
            folder, what = runs / f"test_{site}", f"synthetic, held out, site {site}{whose}"
            table += [
                *metrics_rows(what, folder / "metrics.json"),
                *trust_rows(what, folder, COVERAGE),
                *without_the_draw(what, folder / "predictions.csv"),
                *(row for label in ("severity", "diagnosis") for row in audit_rows(f"{what}, {label}", folder / f"audit_{label}.json")),
            ]
        table += localisation_rows(f"synthetic, held out, site home{whose}", runs / "test_home" / "localisation.json")
    table += recalibrated("synthetic, site north", RUNS / "test_north" / "predictions.csv")
    table += own_sets("synthetic, site north", RUNS / "test_north" / "predictions.csv")
    table += of_the_truth()
    table += named_rows("real series {}, from synthetic patients only", RUNS / "series" / "series.json")
    kept = write_figures(out, table)
    if any((RUNS / f"test_{site}" / "predictions.csv").exists() for site in COLOURS):
        draw(HERE / "trust.png")
    print(f"{out}: {len(table)} figures, {kept} of earlier runs kept")
