"""How fine-tuning's defaults were chosen: a few settings on the pilot hospital, which is like B but of its own seed.

python experiments/new_hospital/settings.py     # settings.csv; what is done is kept
"""

from __future__ import annotations

import json
from pathlib import Path

from run import HERE, RUNS, prepare, subset

from m2net.cli.chain import command, is_done
from m2net.reports.results import write_table

SIZES, SEEDS = (20, 120), (0,)
HEADS = {"lr": 0.01, "layer_decay": 0.3, "least": 200}
SETTINGS = {
    "heads for half of the run": {**HEADS, "frozen": 0.5},
    "heads for nearly all of it": {**HEADS, "frozen": 0.98},
    "all, rate 0.005": {"lr": 0.005, "layer_decay": 0.7, "frozen": 0.3, "least": 200},
    "all, rate 0.001, short": {"lr": 0.001, "layer_decay": 0.7, "frozen": 0.3, "least": 30},
}


def tuned(name: str, place: int, size: int, seed: int) -> dict[str, object]:
    """One setting on so many patients of the pilot: a row of the table."""
    out = RUNS / "settings" / f"{place}-n{size}-s{seed}"
    if not is_done(out / "outcome.json", RUNS / "base" / "best.ckpt"):
        how = SETTINGS[name]
        steps = max(int(how["least"]), 16 * (size // 8))
        words: list[str | Path] = [f"--model.optimizer.lr={how['lr']}", f"--trainer.max_steps={steps}", f"--seed_everything={seed}"]
        words += [f"--model.tuning.{key}={how[key]}" for key in ("frozen", "layer_decay")]
        manifest = subset(size, seed, hospital="pilot")
        words += ["--from", RUNS / "base" / "best.ckpt", "--manifest", manifest, "--store", RUNS / "store", "--out", out]
        command("finetune", *words, "--trainer.precision=bf16-mixed", ends=(0, 3))
    (figure,) = [f for f in json.loads((out / "outcome.json").read_text())["figures"] if f["primary"]]
    values = {way: f"{figure[way]['value']:.4f}" for way in ("base", "tuned")}
    gain = {f"gain_{k}" if k != "value" else "gain": f"{figure['gain'][k]:.4f}" for k in ("value", "low", "high")}
    return {"setting": name, "patients": size, "seed": seed, **values, **gain}


def main() -> None:
    prepare("pilot")
    rows = [tuned(name, k, size, seed) for size in SIZES for seed in SEEDS for k, name in enumerate(SETTINGS)]
    write_table(HERE / "settings.csv", rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
