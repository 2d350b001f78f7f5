"""What a fine-tuning came to: outcome.json, a page, and the table on the terminal."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from rich.console import Console
from rich.table import Table

from m2net import __version__
from m2net.assessment.outcome import Comparison, Outcome
from m2net.assessment.shift import Shift
from m2net.objectives import Interval
from m2net.reports.pictures import as_data_url
from m2net.reports.results import write_json

_BEFORE, _NOW = "#0072b2", "#d55e00"
_NAMES = {"noise": "noise", "slice_mm": "slice spacing, mm", "pixel_mm": "pixel size, mm"}
_MEANING = {
    Outcome.BETTER: "Fine-tuning helped: a primary figure rose beyond chance, and none fell.",
    Outcome.SAME: "These patients cannot tell the fine-tuned model from the one it came from. More might; until then use the simpler one.",
    Outcome.WORSE: "Fine-tuning harmed: a primary figure fell beyond chance. Look at the labels and at the shift before using this model.",
    Outcome.UNKNOWN: "The base model answers none of these tasks, or too few held-out patients are labelled: nothing can be compared.",
}


def write_outcome(
    out: Path, outcome: Outcome, compared: list[Comparison], shift: Shift, facts: dict[str, Any], transfer: dict[str, list[str]]
) -> None:  # fmt: skip
    """Write outcome.json and report.html."""
    counts = {name: len(tensors) for name, tensors in transfer.items()}
    write_json(
        out / "outcome.json",
        {
            "verdict": str(outcome), "m2net_version": __version__, **facts, "figures": [asdict(c) for c in compared],
            "transfer": counts, "shift": asdict(shift),
        },
    )  # fmt: skip
    environment = Environment(loader=PackageLoader("m2net.reports"), autoescape=select_autoescape(["html", "j2"]))
    page = environment.get_template("finetuning.html.j2").render(
        outcome=outcome, meaning=_MEANING[outcome], compared=compared, facts=facts, shift=shift, transfer=transfer, names=_NAMES,
        pictures=[p for p in (_histogram(shift), _facts(shift), _drift(shift)) if p], mixes=_mixes(shift), version=__version__,
    )  # fmt: skip
    (out / "report.html").write_text(page, encoding="utf-8")


def show_outcome(outcome: Outcome, compared: list[Comparison], facts: dict[str, Any], out: Path) -> None:
    """Print the table and the verdict."""
    judged = f"{facts['folds']} folds, {facts['repeats']} times" if facts["folds"] else "held-out part"
    table = Table(
        "task", "figure", "base", "recalibrated", "fine-tuned", "gain (95 %)", "", title=f"{facts['patients']} patients, {judged}"
    )  # fmt: skip
    for c in compared:
        table.add_row(c.task, c.figure, _text(c.base), _text(c.recalibrated), _text(c.tuned), _text(c.gain), str(c.outcome))
    Console(width=150).print(table)
    print(f"verdict: {str(outcome).upper() if outcome is Outcome.WORSE else outcome}. {_MEANING[outcome]}")
    print(out / "report.html")


def _text(interval: Interval | None) -> str:
    return "" if interval is None else str(interval)


def _mixes(shift: Shift) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Per label its values with their shares before and now."""
    before, now = (shift.before or {}).get("case_mix", {}), shift.now["case_mix"]

    def share(mix: dict[str, int], value: str) -> str:
        return f"{mix.get(value, 0)} ({100 * mix.get(value, 0) / sum(mix.values()):.0f} %)" if mix else ""

    labels = sorted({*before, *now})
    each = {label: sorted({*before.get(label, {}), *now.get(label, {})}) for label in labels}
    return [(label, [(v, share(before.get(label, {}), v), share(now.get(label, {}), v)) for v in each[label]]) for label in labels]


def _picture(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return as_data_url(buffer.getvalue())


def _axes(columns: int, width: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: no windows, no global state

    figure = Figure(figsize=(width, 2.7), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, columns))


def _histogram(shift: Shift) -> str:
    if "histogram" not in shift.now:
        return ""
    figure, (axes,) = _axes(1, 5.2)
    ends = shift.now["ends"]
    edges = np.linspace(ends[0], ends[1], len(shift.now["histogram"]) + 1)
    if shift.histogram_distance is not None and shift.before:
        axes.stairs(shift.before["histogram"], edges, color=_BEFORE, label="training data of the base model", linewidth=1.6)
    axes.stairs(shift.now["histogram"], edges, color=_NOW, label="new data", linewidth=1.6)
    axes.set(xlabel="HU" if ends[0] < 0 else "relative intensity", ylabel="share", title="Values within the lungs")
    axes.legend(frameon=False, fontsize=8)
    return _picture(figure)


def _facts(shift: Shift) -> str:
    """Quantiles of noise and spacing: median, quarters, 5 and 95 %."""
    names = [name for name in _NAMES if name in shift.now.get("facts", {})]
    if not names:
        return ""
    figure, panels = _axes(len(names), 2.1 * len(names))
    before = (shift.before or {}).get("facts", {})
    for axes, name in zip(panels, names, strict=True):
        for place, (facts, colour) in enumerate(((before, _BEFORE), (shift.now["facts"], _NOW))):
            if name in facts:
                low, first, middle, third, high = facts[name]
                axes.vlines(place, low, high, color=colour, linewidth=1.5)
                axes.vlines(place, first, third, color=colour, linewidth=8, alpha=0.5)
                axes.plot(place, middle, "o", color=colour)
        axes.set(xticks=[0, 1], xticklabels=["before", "new"], xlim=(-0.6, 1.6), title=_NAMES[name])
    return _picture(figure)


def _drift(shift: Shift) -> str:
    if not shift.drift:
        return ""
    figure, (axes,) = _axes(1, 4.0)
    axes.bar([str(k) for k in range(1, len(shift.drift) + 1)], shift.drift, color=_NOW)
    axes.axhline(1.0, color="#888888", linewidth=0.8, linestyle="--")
    axes.set(xlabel="stage of the encoder", ylabel="standard deviations", title="Drift of the features' means")
    return _picture(figure)
