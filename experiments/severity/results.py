"""Collect what run.py left in runs/severity into results.csv and trust.png beside this file.

python experiments/severity/results.py

Figures of what was not run this time stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from m2net.objectives import SeverityObjective, intervals
from m2net.reports.figures import FigureRow, audit_rows, interval_row, localisation_rows, metrics_rows, write_figures
from m2net.reports.trust import graded, reliability, trust_rows

HERE, RUNS = Path(__file__).parent, Path("runs/severity")
ROWS = ("shares", "lobe_aware")
COLOURS = {1: "#0072b2", 2: "#d55e00", 3: "#009e73"}
"""Of each cut: P(grade >= k)."""


def difference(one: Path, other: Path) -> Iterator[FigureRow]:
    """What two rows differ by in every figure, on the same draws of the same patients; none unless both were run."""
    tables = [{row["study_id"]: row for row in graded(path)} for path in (one, other)]
    if not all(tables):
        return
    if tables[0].keys() != tables[1].keys():
        raise ValueError(f"{one} and {other} judged different studies")
    studies = sorted(tables[0])
    first, second = (SeverityObjective("ordinal:4").statistics([table[study] for study in studies]) for table in tables)
    apart = {name: lambda chosen, name=name: first[name](chosen) - second[name](chosen) for name in first}
    for name, found in intervals(apart, [tables[0][study]["patient_id"] for study in studies]).items():
        yield interval_row("shares minus lobe_aware", f"severity/{name}", asdict(found), len(studies))


def draw(out: Path) -> None:
    """Reliability of P(grade >= k) of each row, ten groups of equal size, binomial 95 % bars."""
    picture = Figure(figsize=(8.6, 4.2), layout="constrained")
    for axes, row in zip(picture.subplots(1, 2, sharey=True), ROWS, strict=True):
        rows = graded(RUNS / row / "test" / "predictions.csv")
        grade = np.array([int(float(one["severity"])) for one in rows])
        for k, colour in COLOURS.items() if rows else ():
            said = np.array([float(one[f"severity_ge{k}"]) for one in rows])
            reliability(axes, said, (grade >= k).astype(float), colour, f"grade {k} or above")
        axes.plot([0, 1], [0, 1], color="#999999", lw=1, zorder=0)
        axes.set(xlabel="predicted probability", title=f"{row}, {len(rows)} SYNTHETIC patients")
    axes.legend(frameon=False)
    picture.axes[0].set_ylabel("share that is")
    picture.savefig(out, dpi=130)


if __name__ == "__main__":
    out = HERE / "results.csv"
    table: list[FigureRow] = []
    for row in ROWS:
        folder, what = RUNS / row / "test", f"{row}, synthetic, fresh patients"
        table += [*metrics_rows(what, folder / "metrics.json"), *trust_rows(what, folder, 0.9), *audit_rows(what, folder / "audit.json")]
        table += localisation_rows(f"{what}, infection drawn", folder / "localisation.json")
    table += difference(*(RUNS / row / "test" / "predictions.csv" for row in ROWS))
    kept = write_figures(out, table)
    if any((RUNS / row / "test" / "predictions.csv").exists() for row in ROWS):
        draw(HERE / "trust.png")
    print(f"{out}: {len(table)} figures, {kept} of earlier runs kept")
