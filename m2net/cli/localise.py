"""``m2net localise``: how well a weakly supervised model points at infections whose masks are known."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m2net.cli.options import parser, progress
from m2net.errors import ConfigError


def run(argv: list[str]) -> int:
    """Judge the test part; the threshold of the boxes is chosen on the validation part."""
    options = parser(
        argv[0],
        "Pointing game, boxes and AUPRC of a model's saliency against infection masks, which training never saw. The threshold of the "
        "boxes is chosen on the manifest's validation part, everything is reported on its test part.",
    )
    options.add_argument("manifest", type=Path)
    options.add_argument("--store", type=Path, required=True, help="folder of prepared studies")
    options.add_argument("--model", type=Path, required=True, help="checkpoint written by m2net fit")
    options.add_argument("--out", type=Path, required=True, help="folder for localisation.json and localisation.csv")
    options.add_argument("--methods", nargs="+", default=["score_maps", "joint", "grad_cam"], help="saliencies to compare")
    options.add_argument("--most", type=int, default=0, help="judge at most this many studies of each part (0: all)")
    options.add_argument("--repair", action="store_true", help="the store's irregular series are resampled (data.repair)")
    given = options.parse_args(argv[1:])
    from m2net.assessment.explainer import Explainer
    from m2net.assessment.localisation import THRESHOLDS, choose_threshold, compare, figures, localise, slice_figures
    from m2net.bags.preparing import prepare_missing
    from m2net.bags.store import Store
    from m2net.machine import keep_big_blocks
    from m2net.reports.results import write_json, write_table
    from m2net.studies import read_manifest
    from m2net.vocabulary import Column, Diagnosis, Split

    keep_big_blocks()
    for method in given.methods:
        explainer = Explainer(given.model, method)
    store = Store(given.store, explainer.spec.spacing_mm, repair=given.repair)

    def usable(split: Split) -> list[Any]:
        chosen = [s for s in manifest if s.split is split and (Column.INFECTION in s.masks or s.diagnosis == {Diagnosis.NON_PNEUMONIA})]
        if not chosen:
            raise ConfigError(f"no study of {given.manifest} in the {split} part has an infection mask", expected="at least one")
        return chosen[: given.most] if given.most else chosen

    manifest = read_manifest(given.manifest)
    parts = {split: usable(split) for split in (Split.VAL, Split.TEST)}
    prepare_missing(store, [s for part in parts.values() for s in part], 2)
    judged = {
        split: [
            localise(explainer, s, store.open(s), given.methods, THRESHOLDS)
            for s in progress(part, f"Localising ({split})", len(part))
        ]
        for split, part in parts.items()
    }  # fmt: skip
    test = judged[Split.TEST]
    report: dict[str, Any] = {"studies": len(test), "infected": sum(s.row["infection"] for s in test)}
    report["phantom_version"] = ", ".join(sorted({s.extra.get("phantom_version", "") for s in parts[Split.TEST]} - {""}))
    report["slices"] = {name: asdict(value) for name, value in slice_figures(test, explainer.objective.names).items()}
    report["methods"] = {}
    for method in given.methods:
        threshold = choose_threshold(judged[Split.VAL], method, THRESHOLDS)
        found = {name: asdict(value) for name, value in figures(test, method, threshold).items()}
        report["methods"][method] = {"threshold": threshold, **found}
    pairs = itertools.combinations(given.methods, 2)
    report["auprc_difference"] = {f"{one} - {other}": asdict(compare(test, one, other)) for one, other in pairs}
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "localisation.json", report)
    write_table(given.out / "localisation.csv", [s.row for s in test])
    _show(report)
    print(given.out / "localisation.json")
    return 0


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    methods = report["methods"]
    table = Table("figure", *methods, title=f"Test part: {report['studies']} studies, {report['infected']} with an infection")
    for name in next(iter(methods.values())):
        if name == "threshold":
            table.add_row(name, *(f"{m[name]:.2f}" for m in methods.values()))
        else:
            table.add_row(name, *(_text(m[name]) for m in methods.values()))
    console = Console(width=160)
    console.print(table)
    for name, value in report["auprc_difference"].items():
        console.print(f"AUPRC, {name}: {_text(value)}")
    for name, value in report["slices"].items():
        console.print(f"single slices, {name}: {_text(value)}")


def _text(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
