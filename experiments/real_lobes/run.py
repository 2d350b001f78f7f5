"""Lobes of real single slices, learnt from synthetic pictures around lobe masks of other patients, as they are and fine-tuned.

python experiments/real_lobes/run.py ../shared/data/ct_lobes          # what is done is kept
python experiments/real_lobes/run.py ../shared/data/ct_lobes --rows real

The data are not part of the project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from m2net.cli.chain import cohort_once, command, fit_once, is_done, join_once, split_once
from m2net.recipes.table import Row, joined, read_table, write
from m2net.recipes.table import row as study
from m2net.reports.figures import FigureRow, crossval_rows, metrics_rows, write_figures
from m2net.vocabulary import Modality

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/real_lobes")
SLICES = RUNS / "slices"
FOLDS = "5"
SITE = "luna16"
COHORTS = {"home": (303, "4"), "north": (304, "3")}
"""Seed and slice thickness in mm, by site."""
BESIDE = {"home": (305, "4"), "north": (306, "3")}
SIZE = ["--matrix", "256", "--format", "png", "--mix", "0.6", "0.2", "0.2"]
ROWS = {"real": [HERE / "pictures.yaml"], "drawn": [HERE / "pictures.yaml", HERE / "drawn.yaml"]}
"""Pictures around lobe masks of patients none of whose slices is used, and around lungs of drawn shape."""
NAMES = {"real": "pictures around real lobes", "drawn": "pictures of drawn lungs"}
BOTH = "both"


def pairs(source: Path, out: Path) -> Iterator[Row]:
    """A study each real slice; two slices of one scan are one patient."""
    for entry in read_table(source / "pairs.csv"):
        image = source / entry["image"]
        yield study(out, image.stem, entry["case_id"], Modality.CT, image, lobes=source / entry["mask"], site=SITE)


def phantoms(folder: Path, cohorts: dict[str, tuple[int, str]], patients: int, pictures: int, masks: list[Path]) -> list[Path]:
    """Pictures of two sites; returns their manifests."""
    words = ["--pictures", str(pictures), *SIZE, *(["--lobes", *masks] if masks else [])]
    return [
        cohort_once(folder / site, patients, seed, "--site", site, "--slice-mm", slice_mm, *words)
        for site, (seed, slice_mm) in cohorts.items()
    ]


def prepare(name: str, source: Path) -> None:
    """The pictures of one row, parted by patient."""
    folder = RUNS / "pictures"
    manifests = phantoms(folder / name, COHORTS, 102, 20, lobe_masks(source, "U") if name == "real" else [])
    join_and_part(folder / f"{name}.csv", manifests)


def join_and_part(out: Path, manifests: list[Path]) -> None:
    """Write several manifests as one, and a ninth of its patients to validate, unless that was done."""
    split_once(join_once(out, manifests), "0.89 0.11 0")


def lobe_masks(source: Path, letter: str) -> list[Path]:
    """Masks of the patients without slices (U) or with (L)."""
    return sorted((source / "volumes").glob(f"{letter}*_lobes.nii.gz")) or sys.exit(f"{source / 'volumes'} holds no {letter}*_lobes.nii.gz")


def prepare_both(source: Path) -> None:
    """The real slices, and pictures around the masks of the same patients, who are one patient to every fold."""
    manifests = phantoms(SLICES / "pictures", BESIDE, 34, 6, lobe_masks(source, "L"))
    out = SLICES / f"{BOTH}.csv"
    rows = joined([SLICES / "manifest.csv", *manifests], out)
    write(out, (entry | {"patient_id": entry["patient_id"].removesuffix("_lobes")} for entry in rows), source, "pairs.csv")


def row(name: str) -> None:
    """Fit on pictures; judge on the real slices as it is, then fine-tuned, cross-validated by patient."""
    configs = [word for path in ROWS[name] for word in ("--config", path)]
    fit_once(RUNS / name, *configs)
    best = RUNS / name / "best.ckpt"
    plain, tuned = SLICES / name / "as_it_is", SLICES / name / "crossval"
    if not is_done(plain / "metrics.json", best):
        words = [f"--data.manifest={SLICES / 'manifest.split.csv'}", f"--data.store={SLICES / 'store'}"]
        words += [f"--trainer.default_root_dir={plain}", "--trainer.logger=false"]
        command("test", *configs, *words, "--ckpt_path", best)
    crossval(tuned, "slices.yaml", start=best)


def final_fit() -> None:
    """All real slices train the model that is handed on, runs/real_lobes/slices/best.ckpt."""
    train = SLICES / "manifest.train.csv"
    command("split", SLICES / "manifest.csv", "--parts", "1", "0", "0", "--out", train)
    configs = [word for name in ("pictures.yaml", "slices.yaml") for word in ("--config", HERE / name)]
    fit_once(SLICES, *configs, f"--data.manifest={train}")


def crossval(out: Path, *over: str, start: Path = RUNS / "real" / "best.ckpt") -> None:
    """Fine-tune from ``start``, cross-validated by patient; real slices alone are judged."""
    configs = [word for name in ("pictures.yaml", *over) for word in ("--config", HERE / name)]
    command("crossval", *configs, f"--model.start_from={start}", "--folds", FOLDS, "--judge-sites", SITE, "--out", out)


def figures() -> Iterator[FigureRow]:
    """What was run, as rows of results.csv."""
    for name, title in NAMES.items():
        yield from metrics_rows(f"real slices, learnt from {title}", SLICES / name / "as_it_is" / "metrics.json")
        yield from crossval_rows(f"real slices, learnt from {title} and fine-tuned", SLICES / name / "crossval" / "crossval.json")
    what = "real slices, fine-tuned beside pictures around their patients' lobes"
    yield from crossval_rows(what, SLICES / BOTH / "crossval" / "crossval.json")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path, help="folder with pairs.csv, images/, masks/ and volumes/")
    options.add_argument(
        "--rows", nargs="+", default=[*ROWS, BOTH], choices=[*ROWS, BOTH], metavar="ROW", help=f"of {', '.join([*ROWS, BOTH])}"
    )
    given = options.parse_args()
    if not (given.source / "pairs.csv").is_file():
        sys.exit(f"{given.source / 'pairs.csv'} does not exist")
    SLICES.mkdir(parents=True, exist_ok=True)
    write(SLICES / "manifest.csv", pairs(given.source, SLICES / "manifest.csv"), given.source, "pairs.csv")
    command("split", SLICES / "manifest.csv", "--parts", "0", "0", "1")
    for name in given.rows:
        if name == BOTH:
            prepare_both(given.source)
            crossval(SLICES / BOTH / "crossval", "slices.yaml", "both.yaml")
        else:
            prepare(name, given.source)
            row(name)
    if "real" in given.rows:
        final_fit()
    write_figures(HERE / "results.csv", list(figures()))
    print(HERE / "results.csv")


if __name__ == "__main__":
    main()
