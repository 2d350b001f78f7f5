"""Figures of runs as the rows of an experiment's results.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from m2net.reports.results import read_rows, write_table

FigureRow = dict[str, Any]


def figure_row(what: str, figure: str, value: Any, low: Any = "", high: Any = "", n: Any = "") -> FigureRow:
    """One line: the experiment, the figure's name, value and bounds to four digits, n; undefined is an empty cell."""
    texts = ["" if v is None or v != v else f"{v:.4f}" if isinstance(v, float) else v for v in (value, low, high)]
    return {"experiment": what, "figure": figure, "value": texts[0], "low": texts[1], "high": texts[2], "n": n}


def interval_row(what: str, figure: str, found: dict[str, Any], n: Any = "") -> FigureRow:
    """A figure as JSON holds an interval."""
    return figure_row(what, figure, found["value"], found["low"], found["high"], n)


def metrics_rows(what: str, path: Path) -> Iterator[FigureRow]:
    """Figures with bounds of the metrics.json of ``m2net test``, with the studies that a task was judged on; none where it was not run."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, value in found.items():
        if f"{name}_low" in found:
            yield figure_row(what, name, value, found[f"{name}_low"], found[f"{name}_high"], _judged_on(found, name))


def _judged_on(found: dict[str, Any], figure: str) -> int:
    """Studies with a truth for the figure's task: ``TASK/n``, of all where the task does not tell."""
    return int(found.get(f"{figure.partition('/')[0]}/n", found["studies"]))


def crossval_rows(what: str, path: Path, n: Callable[[str], int] | None = None) -> Iterator[FigureRow]:
    """Figures of a crossval.json; ``n`` says of a task how many studies it was judged on (all by default)."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"figures": {}}
    for name, value in found["figures"].items():
        yield interval_row(what, name, value, found["studies"] if n is None else n(name.partition("/")[0]))


def named_rows(what: str, path: Path) -> Iterator[FigureRow]:
    """Figures without bounds of a JSON that holds some for each of several names; ``what`` has a place for the name: {}."""
    for name, figures in json.loads(path.read_text(encoding="utf-8")).items() if path.exists() else ():
        for figure, value in figures.items():
            yield figure_row(what.format(name), figure, value)


def audit_rows(what: str, path: Path) -> Iterator[FigureRow]:
    """What trivial facts tell, and the model within their strata, of an audit.json; with the class where there are several."""
    classes = json.loads(path.read_text(encoding="utf-8"))["classes"] if path.exists() else []
    for one in classes:
        of = f"audit of {one['name']}" if len(classes) > 1 else "audit"
        for family, value in one["families"].items():
            yield interval_row(what, f"{of}/{family} alone", value)
        yield figure_row(what, f"{of}/strongest: {one['strongest']['name']}", one["strongest"]["auc"])
        for name in ("model", "within", "lost", "fact"):
            if one.get(name):
                yield interval_row(what, f"{of}/{name} ({one['strata']})", one[name])


def localisation_rows(what: str, path: Path) -> Iterator[FigureRow]:
    """Figures of a localisation.json and of the localisation.csv beside it; none where nothing was run.

    The pointing game has its binomial interval as well (Clopper-Pearson): a bootstrap of hits alone has none.
    """
    if not path.exists():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    studies = read_rows(path.with_suffix(".csv"))
    for method, figures in found["methods"].items():
        yield figure_row(what, f"{method}/threshold", figures.pop("threshold"))
        for name, value in figures.items():
            told = sum(bool(row.get(f"{method}_{name}")) for row in studies)  # pointing and AUPRC are of the infected that are called so
            yield interval_row(what, f"{method}/{name}", value, told or found["studies"])
        hits = [float(row[f"{method}_pointing"]) for row in studies if row.get(f"{method}_pointing")]
        if hits:
            game = binomtest(round(sum(hits)), len(hits))
            low, high = game.proportion_ci()
            yield figure_row(what, f"{method}/pointing, binomial", game.statistic, float(low), float(high), len(hits))
    for name, value in found["auprc_difference"].items():
        yield interval_row(what, f"auprc {name}", value, found["studies"])
    for name, value in found["slices"].items():
        yield interval_row(what, f"single slices/{name}", value, found["studies"])


def write_figures(path: Path, rows: list[FigureRow], by: Sequence[str] = ("experiment", "figure")) -> int:
    """Write a results.csv: rows of what was not run this time stay as they are.

    The figures of a task (what stands before the "/") are made together: an earlier one that is not among the new ones is gone.

    Args:
        path: the file; there need not be one yet.
        rows: of what was run.
        by: columns that say what a row is about; earlier rows that agree with a new one in all of them (of the figure, in its task) are
            replaced.

    Returns:
        Number of earlier rows that stayed.
    """

    def about(row: FigureRow) -> tuple[str, ...]:
        return tuple(str(row[name]).partition("/")[0] if name == "figure" else str(row[name]) for name in by)

    earlier = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []
    anew = {about(row) for row in rows}
    kept = [row for row in earlier if about(row) not in anew]
    place = {row[by[0]]: number for number, row in reversed(list(enumerate([*earlier, *rows])))}  # where each was first told
    write_table(path, sorted([*kept, *rows], key=lambda row: place[row[by[0]]]))
    return len(kept)
