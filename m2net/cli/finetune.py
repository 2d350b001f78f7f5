"""``m2net finetune``: bring a trained model to new studies, and say whether it got better."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2net.cli.options import parser
from m2net.errors import ConfigError

if TYPE_CHECKING:
    from m2net.assessment.outcome import Comparison
    from m2net.objectives import Objective
    from m2net.studies import Manifest
    from m2net.training import M2NetModule

Rows = list[dict[str, Any]]
WORSE_EXIT = 3
_SHARES = (0.6, 0.15, 0.25)


@dataclass(frozen=True)
class Judged:
    """How held-out patients are found.

    Attributes:
        manifest: that the run reads.
        folds: 0 where a test part is held out, else folds of each repeat.
        validate: whether a part chooses the checkpoint.
    """

    manifest: Path
    folds: int
    validate: bool


def run(argv: list[str]) -> int:
    """Plan, train, judge, write; 3 if the model got worse."""
    options = parser(
        argv[0],
        "Fine-tune a trained model on new studies and judge it against the model as it was, and as it was but recalibrated, on the same "
        "held-out patients: those of the manifest's test part; without a split, repeated folds below 50 patients, a quarter of them above. "
        "Further words are settings of the run, as --trainer.max_steps 500.",
    )
    options.add_argument("--from", dest="source", type=Path, required=True, help="checkpoint of the trained model")
    options.add_argument("--manifest", type=Path, required=True, help="the new studies")
    options.add_argument("--store", type=Path, required=True, help="folder of prepared studies; what is missing is prepared")
    options.add_argument("--out", type=Path, required=True, help="folder of the run: best.ckpt, outcome.json, report.html and more")
    options.add_argument("--config", type=Path, help="YAML with what shall differ from the checkpoint's settings and the defaults")
    options.add_argument("--folds", type=int, default=5, help="folds, where the patients are few and not split")
    options.add_argument("--repeats", type=int, default=3, help="how often they are drawn anew")
    options.add_argument("--seed", type=int, default=0, help="seed of the folds and parts")
    options.add_argument("--accept", action="store_true", help=f"exit with 0 even if the model got worse (otherwise {WORSE_EXIT})")
    given, overrides = options.parse_known_args(argv[1:])
    if given.config and not given.config.is_file():
        raise ConfigError(f"the configuration {given.config} does not exist", expected="a YAML file")
    if given.folds < 2 or given.repeats < 1:
        raise ConfigError(f"{given.folds} folds, {given.repeats} repeats", expected="at least 2 folds and 1 repeat")
    from m2net.studies import read_manifest
    from m2net.training import read_checkpoint
    from m2net.training.finetuning import plan_finetuning

    checkpoint = read_checkpoint(given.source)
    manifest = read_manifest(given.manifest)
    judged = _judged(manifest, given.folds, given.seed)
    trainable = [s for s in manifest if s.split is None or str(s.split) != "test"]
    plan = plan_finetuning(checkpoint, given.source, trainable, judged.manifest, given.store, given.out, validate=judged.validate)
    words = _write_config(plan.config, given.out, given.config, overrides)
    for line in (f"learning: {', '.join(plan.trained)}", *(f"kept as it is, no label: {task}" for task in plan.kept), *plan.changed):
        print(line)
    return _judge(given, words, judged, manifest, overrides)


def _judged(manifest: Manifest, folds: int, seed: int) -> Judged:
    """Parts that the manifest has, folds for few patients, or parts drawn here.

    Raises:
        ConfigError: a split without a training or a test part.
    """
    from m2net.studies.splits import assign_parts, write_assignment
    from m2net.training.finetuning import FEW
    from m2net.vocabulary import Column

    parts = {str(s.split) for s in manifest if s.split is not None}
    if parts:
        if not {"train", "test"} <= parts:
            raise ConfigError(
                f"the split of {manifest.path} has {', '.join(sorted(parts))}", expected="train and test; val chooses the checkpoint",
                remedy="Leave the column out: m2net finetune then holds patients out by itself",
            )  # fmt: skip
        return Judged(manifest.path, 0, "val" in parts)
    if len({s.patient_id for s in manifest}) < FEW:
        return Judged(manifest.path, folds, False)
    out = manifest.path.with_name(f"{manifest.path.stem}.parts-{seed}.csv")
    chosen = {patient: str(part) for patient, part in assign_parts(manifest.studies, _SHARES, seed).items()}
    write_assignment(manifest, Column.SPLIT, chosen, out)
    return Judged(out, 0, True)


def _write_config(config: dict[str, Any], out: Path, more: Path | None, overrides: list[str]) -> list[str]:
    import yaml

    out.mkdir(parents=True, exist_ok=True)
    path = out / "finetune.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return ["--config", str(path), *(["--config", str(more)] if more else []), *overrides]


def _judge(given: Any, words: list[str], judged: Judged, manifest: Manifest, overrides: list[str]) -> int:
    from m2net.assessment.outcome import Outcome, aligned, verdict
    from m2net.cli.lightning import make_cli
    from m2net.reports.finetuning import show_outcome, write_outcome
    from m2net.training import load_model

    cli = make_cli(words, run_now=False)
    data = cli.datamodule
    base = load_model(given.source)
    known = _content(given, words)
    before = _base_rows(base, data, judged.manifest, cli.trainer.precision, given.out / "base", known)
    if judged.folds:
        repeats = [
            _folded(words, known, manifest.path, judged.folds, given.seed + k, given.out / f"repeat_{k}") for k in range(given.repeats)
        ]
        _fit_all(words, known, manifest, given.out)
    else:
        repeats = [_held_out(words, known, given.out)]
    studies = [row["study_id"] for row in repeats[0]]
    tables = [aligned(rows, studies) for rows in repeats]
    compared = _compare(cli.model, base, before, repeats[0], tables, studies, judged.folds)
    _write_predictions(given.out, tables)
    outcome = verdict(compared)
    shift = _shift(base, data, before)
    facts = {"patients": len({r["patient_id"] for r in tables[0]}), "studies": len(studies), "folds": judged.folds, "repeats": len(tables)}
    write_outcome(given.out, outcome, compared, shift, facts, _transferred(given.out))
    show_outcome(outcome, compared, facts, given.out)
    return WORSE_EXIT if outcome is Outcome.WORSE and not given.accept else 0


def _content(given: Any, words: list[str]) -> bytes:
    """What the results hang on, for telling whether they are there already."""
    from m2net import __version__
    from m2net.training import file_hash

    files = [given.manifest, given.out / "finetune.yaml", *([given.config] if given.config else [])]
    return f"{__version__}{words}{file_hash(given.source)}".encode() + b"".join(f.read_bytes() for f in files)


def _base_rows(base: M2NetModule, data: Any, manifest: Path, precision: Any, folder: Path, known: bytes) -> Rows:
    """Predictions of the model as it was, for every study."""
    import hashlib

    import pytorch_lightning as pl

    from m2net.bags.datamodule import BagDataModule
    from m2net.reports.results import ResultsWriter

    key, done, table = hashlib.sha256(known).hexdigest(), folder / "done.txt", folder / "predictions.csv"
    if not (done.exists() and done.read_text(encoding="utf-8") == key):
        own = BagDataModule(
            str(manifest), str(data.store.root), input=base.spec.plain(), masks=list(data.masks), repair=data.store.repair,
            workers=data.workers, prepare_workers=data.prepare_workers,
        )  # fmt: skip
        trainer = pl.Trainer(
            accelerator="auto", devices=1, precision=precision, logger=False, enable_checkpointing=False, callbacks=[ResultsWriter()],
            default_root_dir=folder,
        )  # fmt: skip
        trainer.predict(base, datamodule=own, return_predictions=False)
        done.write_text(key, encoding="utf-8")
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _folded(words: list[str], known: bytes, source: Path, folds: int, seed: int, folder: Path) -> Rows:
    """Out-of-fold predictions of one repeat; each row says its fold."""
    from m2net.cli.crossval import fold_rows, with_folds
    from m2net.training.crossval import pool_rows

    manifest = with_folds(source, folds, seed)
    return pool_rows(
        (fold, fold_rows(words, known + manifest.read_bytes(), manifest, fold, folder / f"fold_{fold}")) for fold in range(folds)
    )


def _fit_all(words: list[str], known: bytes, manifest: Manifest, out: Path) -> None:
    """The model that is handed on: trained on every patient, its settings judged by the folds."""
    from m2net.studies.splits import write_assignment
    from m2net.vocabulary import Column

    everyone = manifest.path.with_name(f"{manifest.path.stem}.everyone.csv")
    write_assignment(manifest, Column.SPLIT, {s.patient_id: "train" for s in manifest}, everyone)
    _fit([*words, f"--data.manifest={everyone}"], known, out)


def _held_out(words: list[str], known: bytes, out: Path) -> Rows:
    """Predictions of the held-out part."""
    cli, kept = _fit(words, known, out)
    cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=kept, weights_only=True, verbose=False)
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _fit(words: list[str], known: bytes, out: Path) -> tuple[Any, str]:
    """Train with the configuration's own loggers, unless it is done."""
    import hashlib

    from m2net.cli.lightning import make_cli
    from m2net.training.crossval import fit_below

    cli = make_cli([*words, f"--trainer.default_root_dir={out}"], run_now=False)
    key, done, kept = hashlib.sha256(known).hexdigest(), out / "done.txt", out / "best.ckpt"
    if done.exists() and done.read_text(encoding="utf-8") == key and kept.exists():
        print(f"{kept}: done before, kept")
        return cli, str(kept)
    done.unlink(missing_ok=True)
    made = fit_below(cli.trainer, cli.model, cli.datamodule, out)
    done.write_text(key, encoding="utf-8")
    return cli, made


def _compare(
    tuned: M2NetModule, base: M2NetModule, before: Rows, folded: Rows, tables: list[Rows], studies: list[str], folds: int
) -> list[Comparison]:  # fmt: skip
    """Each task that learnt, against the base where that knows the same answers."""
    from m2net.assessment.outcome import aligned, compare

    fold_of = {row["study_id"]: row.get("fold") for row in folded}
    found = []
    objectives: dict[str, Objective] = dict(tuned.objectives.items())  # type: ignore[arg-type]
    for task, objective in objectives.items():
        if not tuned.weights.get(task) or not objective.primary:
            continue
        was: Any = base.objectives[task] if task in base.weights else None
        same = was is not None and was.target == objective.target and was.answers == objective.answers
        rows = aligned(before, studies) if same else None
        right = _put_right(objective, before, studies, fold_of, folds) if same else None
        found += compare(task, objective, rows, right, tables)
    return found


def _put_right(objective: Any, before: Rows, studies: list[str], fold_of: dict[str, Any], folds: int) -> Rows | None:
    """The base recalibrated on the patients that the fine-tuned model was trained on, and on no other."""
    from m2net.assessment.outcome import aligned, recalibrate

    if not folds:
        fitting = [row for row in before if row["study_id"] not in fold_of]
        return recalibrate(objective, fitting, aligned(before, studies))
    done: Rows = []
    for fold in range(folds):
        fitting, held = ([r for r in before if (fold_of.get(r["study_id"]) == fold) is inside] for inside in (False, True))
        rows = recalibrate(objective, fitting, held)
        if rows is None:
            return None
        done += rows
    return aligned(done, studies)


def _write_predictions(out: Path, tables: list[Rows]) -> None:
    from m2net.reports.results import write_table

    if len(tables) > 1 or "fold" in tables[0][0]:
        write_table(out / "predictions.csv", [{"repeat": k, **row} for k, rows in enumerate(tables) for row in rows])


def _shift(base: M2NetModule, data: Any, before: Rows) -> Any:
    from m2net.assessment.shift import shift_of
    from m2net.bags.look import look_of

    studies = list(data.manifest)
    return shift_of(base, base.about.get("look"), look_of(data.store, studies), data.store, studies)


def _transferred(out: Path) -> dict[str, list[str]]:
    """What became of the weights, as the fit wrote it."""
    import json

    path = out / "transfer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
