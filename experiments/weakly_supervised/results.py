"""Collect the figures of the runs into results.csv beside this file.

    python experiments/weakly_supervised/results.py

Reads what `m2net test`, `localise`, `crossval` and `audit` wrote below runs/; figures of what was not run this time stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from m2net.reports.figures import FigureRow, audit_rows, crossval_rows, localisation_rows, metrics_rows, named_rows, write_figures

RUNS = Path("runs")
PAINTINGS = RUNS / "paintings"
TESTS = {
    "phantom (synthetic), test part": RUNS / "weak_phantom" / "metrics.json",
    "phantom (synthetic), fresh patients": RUNS / "weak_phantom" / "fresh_test" / "metrics.json",
    "covid_ct, val": RUNS / "covid_ct" / "val" / "metrics.json",
    "real series by slices, learnt with paintings": PAINTINGS / "series" / "painted" / "metrics.json",
    "real series by slices, learnt without": PAINTINGS / "series" / "unpainted" / "metrics.json",
}
CROSSVALS = {
    "covid_ct, cross-validation in train": RUNS / "covid_ct" / "crossval" / "crossval.json",
    "covid_ct, cross-validation in train, seed 1": RUNS / "covid_ct" / "crossval_1" / "crossval.json",
    "covid_ct, cross-validation in train, seed 2": RUNS / "covid_ct" / "crossval_2" / "crossval.json",
    "covid_ct, cross-validation in train, mean of seeds 0 to 2": RUNS / "covid_ct" / "ensemble.json",
    "covid_ct, cross-validation in train, lungs only": RUNS / "covid_ct" / "crossval_lungs_only" / "crossval.json",
    "covid_ct, cross-validation in train, hull of the lungs": RUNS / "covid_ct" / "crossval_hull" / "crossval.json",
    "covid_ct, cross-validation in train, hull of the lungs minus the whole square": RUNS / "covid_ct" / "hull_difference.json",
    "covid_ct, cross-validation in train, restoration beside": RUNS / "covid_ct" / "crossval_restored" / "crossval.json",
    "covid_ct, cross-validation in train, restoration beside minus without": RUNS / "covid_ct" / "restored_difference.json",
    "covid_ct, cross-validation in train, twice as long": RUNS / "covid_ct" / "crossval_long" / "crossval.json",
    "covid_ct, cross-validation in train, twice as long minus once": RUNS / "covid_ct" / "long_difference.json",
    "covid_ct, cross-validation in train, gently": RUNS / "covid_ct" / "crossval_gentle" / "crossval.json",
    "covid_ct, cross-validation in train, gently minus plainly": RUNS / "covid_ct" / "gentle_difference.json",
    "covid_ct, cross-validation in train, richer start": RUNS / "covid_rich" / "crossval" / "crossval.json",
    "covid_ct, 5 folds, started with paintings, seed 0": PAINTINGS / "crossval_0" / "crossval.json",
    "covid_ct, 5 folds, started with paintings, seed 1": PAINTINGS / "crossval_1" / "crossval.json",
    "covid_ct, 5 folds, started with real lobes, seed 0": PAINTINGS / "crossval_real_lobes" / "crossval.json",
}
LOCALISATIONS = {
    "phantom (synthetic), localisation": RUNS / "weak_phantom" / "localisation" / "localisation.json",
    "phantom (synthetic), score maps alone, all of the test part": RUNS / "weak_phantom" / "pointing" / "localisation.json",
    "phantom (synthetic), score maps alone, fresh patients": RUNS / "weak_phantom" / "fresh_pointing" / "localisation.json",
    "phantom (synthetic), densest lung, without a model, test part": RUNS / "weak_phantom" / "densest" / "localisation.json",
    "phantom (synthetic), densest lung, without a model, fresh patients": RUNS / "weak_phantom" / "fresh_densest" / "localisation.json",
    "pictures (synthetic), localisation": RUNS / "covid_ct" / "localisation" / "localisation.json",
}
AUDITS = {
    "phantom (synthetic), test part": RUNS / "weak_phantom" / "audit.json",
    "covid_ct, cross-validation in train": RUNS / "covid_ct" / "crossval" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, strata of marks": RUNS / "covid_ct" / "crossval" / "audit_marks.json",
    "covid_ct, cross-validation in train, seed 1": RUNS / "covid_ct" / "crossval_1" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, seed 2": RUNS / "covid_ct" / "crossval_2" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, lungs only": RUNS / "covid_ct" / "crossval_lungs_only" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, hull of the lungs": RUNS / "covid_ct" / "crossval_hull" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, restoration beside": RUNS / "covid_ct" / "crossval_restored" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, twice as long": RUNS / "covid_ct" / "crossval_long" / "audit_diagnosis.json",
    "covid_ct, cross-validation in train, richer start": RUNS / "covid_rich" / "crossval" / "audit_diagnosis.json",
    "covid_ct, 5 folds, started with paintings, seed 0": PAINTINGS / "crossval_0" / "audit_diagnosis.json",
    "covid_ct, 5 folds, started with real lobes, seed 0": PAINTINGS / "crossval_real_lobes" / "audit_diagnosis.json",
    "covid_ct, val": RUNS / "covid_ct" / "val" / "audit.json",
}


def rows() -> Iterator[FigureRow]:
    """Every figure there is."""
    for what, path in TESTS.items():
        yield from metrics_rows(what, path)
    for what, path in LOCALISATIONS.items():
        yield from localisation_rows(what, path)
    yield from named_rows("real series {}, learnt from synthetic patients", RUNS / "weak_phantom" / "real" / "figures.json")
    for what, path in CROSSVALS.items():
        yield from crossval_rows(what, path)
    for what, path in AUDITS.items():
        yield from audit_rows(what, path)


if __name__ == "__main__":
    out = Path(__file__).with_name("results.csv")
    table = list(rows())
    kept = write_figures(out, table)
    print(f"{out}: {len(table)} figures, {kept} of earlier runs kept")
