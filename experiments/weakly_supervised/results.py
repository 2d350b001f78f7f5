"""Collect the figures of the runs into results.csv beside this file.

    python experiments/weakly_supervised/results.py

Reads what `m2net test`, `localise`, `crossval` and `audit` wrote below runs/; what was not run is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m2net.reports.results import write_table

RUNS = Path("runs")
TESTS = {
    "phantom (synthetic), test part": RUNS / "weak_phantom" / "metrics.json",
    "covid_ct, val": RUNS / "covid_ct" / "val" / "metrics.json",
}
CROSSVALS = {"covid_ct, cross-validation in train": RUNS / "covid_ct" / "crossval" / "crossval.json"}
AUDITS = {
    "phantom (synthetic), test part": RUNS / "weak_phantom" / "audit.json",
    "covid_ct, cross-validation in train": RUNS / "covid_ct" / "crossval" / "audit_diagnosis.json",
    "covid_ct, val": RUNS / "covid_ct" / "val" / "audit.json",
}


def row(what: str, figure: str, value: Any, low: Any = "", high: Any = "", n: Any = "") -> dict[str, Any]:
    """One line of results.csv; undefined is an empty cell."""
    texts = [f"{v:.4f}" if isinstance(v, float) else ("" if v is None else v) for v in (value, low, high)]
    return {"experiment": what, "figure": figure, "value": texts[0], "low": texts[1], "high": texts[2], "n": n}


def interval(what: str, figure: str, found: dict[str, Any], n: Any = "") -> dict[str, Any]:
    """A figure with its bounds."""
    return row(what, figure, found["value"], found["low"], found["high"], n)


def rows() -> Iterator[dict[str, Any]]:
    """Every figure there is."""
    for what, path in TESTS.items():
        if path.exists():
            found = json.loads(path.read_text())
            for name, value in found.items():
                if f"{name}_low" in found:
                    yield row(what, name, value, found[f"{name}_low"], found[f"{name}_high"], found["studies"])
    path = RUNS / "weak_phantom" / "localisation" / "localisation.json"
    if path.exists():
        found = json.loads(path.read_text())
        what = "phantom (synthetic), localisation"
        for method, figures in found["methods"].items():
            yield row(what, f"{method}/threshold", figures.pop("threshold"))
            for name, value in figures.items():
                yield interval(what, f"{method}/{name}", value, found["studies"])
        for name, value in found["auprc_difference"].items():
            yield interval(what, f"auprc {name}", value, found["studies"])
        for name, value in found["slices"].items():
            yield interval(what, f"single slices/{name}", value, found["studies"])
    for what, path in CROSSVALS.items():
        if path.exists():
            found = json.loads(path.read_text())
            for name, value in found["figures"].items():
                yield interval(what, name, value, found["studies"])
    for what, path in AUDITS.items():
        if path.exists():
            for one in json.loads(path.read_text())["classes"]:
                for family, value in one["families"].items():
                    yield interval(what, f"audit/{family} alone", value)
                yield row(what, f"audit/strongest: {one['strongest']['name']}", one["strongest"]["auc"])
                for name in ("model", "within", "lost"):
                    if one[name]:
                        yield interval(what, f"audit/{name} ({one['strata']})", one[name])


if __name__ == "__main__":
    out = Path(__file__).with_name("results.csv")
    table = list(rows())
    write_table(out, table)
    print(f"{out}: {len(table)} figures")
