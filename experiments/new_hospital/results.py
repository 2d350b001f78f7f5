"""results.csv and learning_curve.png from what run.py left in runs/new_hospital.

Intervals: 95 %, by resampling test patients and seeds together; every model is judged on the same draw of patients.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from run import HERE, REPEATS, RUNS, SIZES
from scipy.stats import rankdata

from m2net.assessment.outcome import recalibrate
from m2net.objectives import SeverityObjective
from m2net.recipes.table import read_table
from m2net.reports.results import write_table

DRAWS = 2000
WAYS = ("fine-tuned", "recalibrated", "from scratch")
Table = dict[tuple[str, int], np.ndarray]


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    return {row["study_id"]: row for row in read_table(path)}


def read(sizes: list[int], repeats: int) -> tuple[Table, np.ndarray, np.ndarray]:
    """Predicted P(severe) (seeds, patients) by way and size, of the test patients; their grades and true probabilities."""
    seeds = range(repeats)
    test = list(rows_of(RUNS / "tuned" / f"n{sizes[0]}-s{seeds[0]}" / "predictions.csv"))
    table: Table = {}

    def scores(rows: dict[str, dict[str, str]]) -> list[float]:
        return [float(rows[study]["severity_ge1"]) for study in test]

    for n in sizes:
        made: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for s in seeds:
            tuned = RUNS / "tuned" / f"n{n}-s{s}"
            made["fine-tuned"].append(scores(rows_of(tuned / "predictions.csv")))
            made["from scratch"].append(scores(rows_of(RUNS / "scratch" / f"n{n}-s{s}" / "predictions.csv")))
            base = rows_of(tuned / "base" / "predicted.csv")
            fitting = [row for study, row in base.items() if study not in set(test)]
            right = recalibrate(SeverityObjective("binary"), fitting, [base[study] for study in test])
            made["recalibrated"].append(scores(base) if right is None else [row["severity_ge1"] for row in right])
            table["base", 0] = np.array([scores(base)] * len(seeds))
        table |= {(way, n): np.array(values) for way, values in made.items()}
    some = rows_of(RUNS / "tuned" / f"n{sizes[0]}-s{seeds[0]}" / "predictions.csv")
    grade = np.array([int(some[study]["severity"]) for study in test])
    return table, grade, np.array([float(some[study]["true_severity_ge1"]) for study in test])


def auc_of(grade: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, by ranks (Mann and Whitney)."""
    severe = grade == 1
    count = int(severe.sum())
    wins = rankdata(scores)[severe].sum() - count * (count + 1) / 2
    return float(wins / (count * (len(grade) - count)))


def brier_of(grade: np.ndarray, scores: np.ndarray) -> float:
    return float(np.square(grade - scores).mean())


def figure(
    table: Table, key: tuple[str, int], grade: np.ndarray, measure: Callable[..., float], who: np.ndarray, seeds: np.ndarray
) -> float:
    return float(np.mean([measure(grade[who], table[key][s][who]) for s in seeds]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=HERE, help="folder for both files; beside this script by default")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options.add_argument("--seeds", type=int, default=REPEATS)
    given = options.parse_args()
    out = given.out
    table, grade, true = read(sorted(given.sizes), given.seeds)
    seeds, patients = len(table["base", 0]), len(grade)
    sizes = sorted({n for way, n in table if way == "fine-tuned"})
    rng = np.random.default_rng(0)
    draws = [(rng.integers(0, patients, patients), rng.integers(0, seeds, seeds)) for _ in range(DRAWS)]
    everyone = (np.arange(patients), np.arange(seeds))
    written: list[dict[str, object]] = []

    def add(what: str, n: int, name: str, of: Callable[[np.ndarray, np.ndarray], float]) -> tuple[float, float, float]:
        values = np.array([of(*draw) for draw in draws])
        low, high = np.nanquantile(values, [0.025, 0.975])
        value = of(*everyone)
        written.append({"model": what, "patients": n, "figure": name, "value": f"{value:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}"})
        return value, float(low), float(high)

    curves: dict[str, list[tuple[int, float, float, float]]] = {way: [] for way in ("base", *WAYS)}
    for way, n in sorted(table, key=lambda key: (key[1], key[0])):
        for name, measure in (("auc", auc_of), ("brier", brier_of)):
            found = add(way, n, name, lambda who, s, w=way, k=n, m=measure: figure(table, (w, k), grade, m, who, s))
            if name == "auc":
                curves[way].append((n, *found))
    add("best", 0, "auc", lambda who, s: auc_of(grade[who], true[who]))

    def auc(way: str, n: int, who: np.ndarray, s: np.ndarray) -> float:
        return figure(table, (way, n), grade, auc_of, who, s)

    top = max(sizes)
    add("fine-tuned", top, "gap_to_base", lambda who, s: auc("fine-tuned", top, who, s) - auc("base", 0, who, s))
    add("from scratch", top, "gap_to_base", lambda who, s: auc("from scratch", top, who, s) - auc("base", 0, who, s))
    for n in sizes[:-1]:
        add("fine-tuned", n, "share_of_gap", lambda who, s, k=n: (auc("fine-tuned", k, who, s) - auc("base", 0, who, s))
            / (auc("fine-tuned", top, who, s) - auc("base", 0, who, s)))  # fmt: skip
        add("fine-tuned", n, "auc_over_scratch", lambda who, s, k=n: auc("fine-tuned", k, who, s) - auc("from scratch", k, who, s))
    for hospital, folder in (("B", "tuned"), ("like A", "tuned_planted")):
        planted = json.loads((RUNS / folder / f"n{top}-s0-shuffled" / "outcome.json").read_text())
        (primary,) = [f for f in planted["figures"] if f["primary"]]
        what = f"shuffled labels, hospital {hospital}: {planted['verdict']}"
        written.append(
            {"model": what, "patients": top, "figure": "auc_gain", **{k: f"{primary['gain'][k]:.4f}" for k in ("value", "low", "high")}}
        )
    written += [*single_runs(table, grade, sizes), *luck(top)]
    write_table(out / "results.csv", written)
    draw(out / "learning_curve.png", curves, seeds, patients)
    for row in written:
        print(f"{row['model']:>40} {row['patients']:>4} {row['figure']:<18} {row['value']} ({row['low']} to {row['high']})")


def single_runs(table: Table, grade: np.ndarray, sizes: list[int]) -> Iterator[dict[str, object]]:
    """What single fine-tunings came to: the lowest and the highest AUC over the seeds, and how many had each verdict."""
    for n in sizes:
        each = [auc_of(grade, scores) for scores in table["fine-tuned", n]]
        extremes = {"low": f"{min(each):.4f}", "high": f"{max(each):.4f}"}
        yield {"model": "fine-tuned", "patients": n, "figure": "auc of single seeds", "value": f"{np.median(each):.4f}", **extremes}
        said = Counter(json.loads((RUNS / "tuned" / f"n{n}-s{s}" / "outcome.json").read_text())["verdict"] for s in range(len(each)))
        for verdict, count in sorted(said.items()):
            yield {"model": "fine-tuned", "patients": n, "figure": f"runs said to be {verdict}", "value": count, "low": "", "high": ""}


def luck(top: int) -> Iterator[dict[str, object]]:
    """How the exchanged labels of hospital B go with the true ones."""
    true, said = (rows_of(RUNS / "B" / name) for name in ("manifest.csv", f"n{top}-s0-shuffled.csv"))
    pairs = [(int(true[study]["severity"]), int(row["severity"])) for study, row in said.items() if row["split"] == "train"]
    value = f"{np.corrcoef(np.array(pairs).T)[0, 1]:.4f}"
    yield {
        "model": "shuffled labels, hospital B",
        "patients": top,
        "figure": "correlation with the true labels",
        "value": value,
        "low": "",
        "high": "",
    }


def draw(path: Path, curves: dict[str, list[tuple[int, float, float, float]]], seeds: int, patients: int) -> None:
    picture = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = picture.subplots()
    ((_, base, low, high),) = curves["base"]
    axes.axhline(base, color="#555555", label="model of hospital A (also recalibrated)")
    axes.axhspan(low, high, color="#555555", alpha=0.12)
    for way, colour in (("fine-tuned", "#d55e00"), ("from scratch", "#0072b2")):
        n, value, low_, high_ = (np.array(column) for column in zip(*curves[way], strict=True))
        axes.plot(n, value, "o-", color=colour, label=way)
        axes.fill_between(n, low_, high_, color=colour, alpha=0.15)
    axes.set(xscale="log", xlabel="labelled patients of hospital B", ylabel="AUC of severity", title="SYNTHETIC patients")
    ticks = [n for n, *_ in curves["fine-tuned"]]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, title=f"{patients} test patients, {seeds} seeds", loc="lower right")
    picture.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
