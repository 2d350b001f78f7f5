"""Collect what the demo, and the commands of README.md beside it, left in runs/demo into results.csv beside this file.

python experiments/demo/results.py

Figures of what was not run this time stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from m2net.reports.figures import FigureRow, audit_rows, figure_row, metrics_rows, write_figures

DEMO = Path("runs/demo")
ROWS = {
    "joint": "joint, with positions and neighbouring slices",
    "plain": "plain patches",
    "strong_positions": "joint, positions at full strength",
}


def rows() -> Iterator[FigureRow]:
    """Every figure there is, of synthetic patients."""
    for name, what in ROWS.items():
        yield from metrics_rows(what, DEMO / name / "metrics.json")
    yield from audit_rows("what trivial facts tell", DEMO / "audit.json")
    if (DEMO / "metrics.json").exists():
        found = json.loads((DEMO / "metrics.json").read_text(encoding="utf-8"))
        for name in ("fit_seconds", "plain/fit_seconds", "seconds"):
            yield figure_row("the demo", name, found[name])


if __name__ == "__main__":
    out = Path(__file__).with_name("results.csv")
    kept = write_figures(out, list(rows()))
    print(f"{out}: {kept} figures of earlier runs kept")
