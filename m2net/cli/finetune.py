"""``m2net finetune``: bring a trained model to new studies, and say whether it got better."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2net.cli.done import Done
from m2net.cli.options import count, folder, parser
from m2net.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from m2net.assessment.outcome import Comparison, Repeat
    from m2net.assessment.shift import Shift
    from m2net.bags.datamodule import BagDataModule
    from m2net.objectives import Objective
    from m2net.studies import Manifest, Study
    from m2net.training import M2NetModule

Rows = list[dict[str, Any]]
WORSE_EXIT = 3
_SHARES = (0.6, 0.15, 0.25)


@dataclass
class Run:
    """One call of the command.

    Attributes:
        given: its options.
        source: the manifest as given.
        manifest: that the model handed on is trained with.
        folds: 0 where a test part is held out, else folds of each repeat.
        words: configuration and overrides, as ``m2net fit`` takes them.
        known: what the results hang on, for telling whether they are there already.
    """

    given: argparse.Namespace
    source: Manifest
    manifest: Path
    folds: int
    words: list[str] = field(default_factory=list)
    known: bytes = b""

    @property
    def out(self) -> Path:
        """Folder of the run."""
        return Path(self.given.out)


def run(argv: list[str]) -> int:
    """Plan, train, judge, write; 3 if the model got worse."""
    given, overrides = _options(argv)
    from m2net.cli.lightning import lightning_run, make_cli
    from m2net.studies import read_manifest
    from m2net.training import read_checkpoint
    from m2net.training.finetuning import labelled_patients, read_changes

    source = read_manifest(given.manifest)
    base, more = read_checkpoint(given.start), _with_steps(read_changes(given.config), overrides)
    manifest, folds, trainable = _judged(source, given, lambda: labelled_patients(base, list(source), more))
    this = Run(given, source, manifest, folds)
    this.words = [
        *_write_config(this, base, more, trainable, validate=not folds and any(str(s.split) == "val" for s in trainable)),
        *overrides,
    ]
    with lightning_run():
        cli = make_cli(this.words, run_now=False)
        cli.datamodule.prepare_data()
        this.known = _content(this, cli.datamodule)
        return _judge(this, cli)


def _options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    options = parser(
        argv[0],
        "Fine-tune a trained model on new studies and judge it against the model as it was, and as it was but recalibrated, on the same "
        "held-out patients: those of the manifest's test part; without a split, repeated folds below 50 labelled patients, a quarter of "
        "them above. Further words are settings of the run, as --trainer.max_steps 500.",
    )
    options.add_argument("--from", dest="start", type=Path, required=True, help="checkpoint of the trained model")
    options.add_argument("--manifest", type=Path, required=True, help="the new studies")
    options.add_argument("--store", type=Path, required=True, help="folder of prepared studies; what is missing is prepared")
    options.add_argument("--out", type=folder, required=True, help="folder of the run: best.ckpt, outcome.json, report.html and more")
    options.add_argument("--config", type=Path, help="YAML with what shall differ from the checkpoint's settings and the defaults")
    options.add_argument("--folds", type=int, default=5, help="folds, where the patients are few and not split")
    options.add_argument("--repeats", type=int, default=3, help="how often they are drawn anew")
    options.add_argument("--seed", type=count, default=0, help="seed of the folds and parts")
    options.add_argument("--accept", action="store_true", help=f"exit with 0 even if the model got worse (otherwise {WORSE_EXIT})")
    given, overrides = options.parse_known_args(argv[1:])
    if given.config and not given.config.is_file():
        raise ConfigError(f"the configuration {given.config} does not exist", expected="a YAML file")
    if given.start.resolve().parent == given.out.resolve():
        raise ConfigError(
            f"--out is the folder of {given.start}, which the run would write over", expected="another folder",
            remedy="Give --out a new one",
        )  # fmt: skip
    if given.folds < 2 or given.repeats < 1:
        raise ConfigError(f"{given.folds} folds, {given.repeats} repeats", expected="at least 2 folds and 1 repeat")
    return given, overrides


def _with_steps(more: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The changes with a number of steps that stands among the words, for validations are spread over them."""
    told = [value for name, value in zip(overrides, [*overrides[1:], ""], strict=False) if name == "--trainer.max_steps"]
    told += [name.partition("=")[2] for name in overrides if name.startswith("--trainer.max_steps=")]
    if not told or not told[-1].isdecimal():
        return more
    return {**more, "trainer": {**more.get("trainer", {}), "max_steps": int(told[-1])}}


def _judged(source: Manifest, given: argparse.Namespace, labelled: Callable[[], int]) -> tuple[Path, int, list[Study]]:
    """How held-out patients are found: parts that the manifest has, folds for few ``labelled`` patients, or parts drawn here.

    Returns:
        Manifest of the model handed on, number of folds (0: a held-out part), studies that it may be trained on.

    Raises:
        ConfigError: a split without a training or a test part.
    """
    from m2net.studies import read_manifest
    from m2net.studies.splits import assign_parts, write_assignment
    from m2net.training.finetuning import FEW
    from m2net.vocabulary import Column

    parts = {str(s.split) for s in source if s.split is not None}
    if parts and not {"train", "test"} <= parts:
        raise ConfigError(
            f"the split of {source.path} has {', '.join(sorted(parts))}", expected="train and test; val chooses the checkpoint",
            remedy="Leave the column out: m2net finetune then holds patients out by itself",
        )  # fmt: skip
    path, folds = source.path, 0
    if not parts and labelled() < FEW:
        path, folds = source.path.with_name(f"{source.path.stem}.everyone.csv"), given.folds
        write_assignment(source, Column.SPLIT, {s.patient_id: "train" for s in source}, path)
    elif not parts:
        path = source.path.with_name(f"{source.path.stem}.parts-{given.seed}.csv")
        chosen = assign_parts(source.studies, _SHARES, given.seed)
        write_assignment(source, Column.SPLIT, {patient: str(part) for patient, part in chosen.items()}, path)
    return path, folds, [s for s in read_manifest(path) if str(s.split) in ("train", "val")]


def _write_config(this: Run, base: dict[str, Any], more: dict[str, Any], trainable: list[Study], *, validate: bool) -> list[str]:
    """Write finetune.yaml and say what it comes to; returns the words that name it."""
    import yaml

    from m2net.training.finetuning import plan_finetuning

    given = this.given
    plan = plan_finetuning(
        base, given.start, trainable, this.manifest, given.store, this.out, validate=validate, folds=this.folds, more=more
    )
    this.out.mkdir(parents=True, exist_ok=True)
    path = this.out / "finetune.yaml"
    path.write_text(yaml.safe_dump(plan.config, sort_keys=False), encoding="utf-8")
    for line in (f"learning: {', '.join(plan.trained)}", *(f"kept as it is, too few labels: {task}" for task in plan.kept), *plan.changed):
        print(line)
    return ["--config", str(path)]


def _content(this: Run, data: BagDataModule) -> bytes:
    from m2net import __version__
    from m2net.training import file_hash

    head = f"{__version__}{this.words}{file_hash(this.given.start)}{data.store.hash(list(data.manifest))}"
    files = [Path(this.given.manifest), this.out / "finetune.yaml"]
    return head.encode() + b"".join(file.read_bytes() for file in files)


def _judge(this: Run, cli: Any) -> int:
    from m2net.assessment.outcome import Outcome, verdict
    from m2net.reports.finetuning import show_outcome, write_outcome
    from m2net.reports.results import print_scales, write_table
    from m2net.training import load_model

    base = load_model(this.given.start)
    _ask_alike(base, cli.model)
    before, shift = _base(this, base, cli)
    if this.folds:
        tables = [_folded(this, this.given.seed + k, this.out / f"repeat_{k}") for k in range(this.given.repeats)]
        _fit(this)
    else:
        tables = [_held_out(this)]
    compared = _compare(cli.model, base, before, tables, _learnt_from(this))
    write_table(this.out / "predictions.csv", [{"repeat": k, **row} for k, rows in enumerate(tables) for row in rows])
    outcome = verdict(compared)
    facts = {
        "patients": len({r["patient_id"] for r in tables[0]}), "studies": len(tables[0]), "folds": this.folds, "repeats": len(tables),
        "words": this.words,
    }  # fmt: skip
    write_outcome(this.out, outcome, compared, shift, facts, _transferred(this.out))
    show_outcome(outcome, compared, facts, this.out)
    print_scales(cli.model)
    return WORSE_EXIT if outcome is Outcome.WORSE and not this.given.accept else 0


def _ask_alike(base: M2NetModule, tuned: M2NetModule) -> None:
    """Let the base decide between the same groups of diagnoses: its head answers by class, whatever they are."""
    from m2net.objectives import DiagnosisObjective

    objectives = dict(tuned.named_objectives())
    for task, was in base.named_objectives():
        own = objectives.get(task)
        if isinstance(was, DiagnosisObjective) and isinstance(own, DiagnosisObjective):
            was.decide_between(own.groups)


def _base(this: Run, base: M2NetModule, cli: Any) -> tuple[Rows, Shift]:
    """Predictions of the model as it was for every study, and how these differ from what it was trained on."""
    import pytorch_lightning as pl

    from m2net.assessment.shift import shift_of
    from m2net.bags.datamodule import BagDataModule
    from m2net.bags.look import look_of
    from m2net.reports.results import ResultsWriter, read_rows

    data, folder = cli.datamodule, this.out / "base"
    own = BagDataModule(
        str(this.source.path), str(data.store.root), input=base.spec.plain(), masks=list(data.masks), repair=data.store.repair,
        workers=data.workers, prepare_workers=data.prepare_workers,
    )  # fmt: skip
    own.prepare_data()
    done = Done(folder, this.known, "predicted.csv")
    if not done.holds():
        trainer = pl.Trainer(
            accelerator="auto", devices=1, precision=cli.trainer.precision, logger=False, enable_checkpointing=False,
            callbacks=[ResultsWriter()], default_root_dir=folder,
        )  # fmt: skip
        trainer.predict(base, datamodule=own, return_predictions=False)
        done.write()
    studies = list(own.manifest)
    return read_rows(done.result), shift_of(base, base.about.get("look"), look_of(own.store, studies), own.store, studies)


def _folded(this: Run, seed: int, folder: Path) -> Rows:
    """Out-of-fold predictions of one repeat; each row says its fold."""
    from m2net.cli.crossval import fold_rows, with_folds
    from m2net.training.crossval import pool_rows

    manifest = with_folds(this.source.path, this.folds, seed)
    known = this.known + manifest.read_bytes()
    words = [*this.words, "--data.validate=false"]
    return pool_rows((fold, fold_rows(words, known, manifest, fold, folder / f"fold_{fold}")) for fold in range(this.folds))


def _held_out(this: Run) -> Rows:
    """Predictions of the held-out part."""
    from m2net.reports.results import read_rows

    cli, kept = _fit(this)
    cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=kept, weights_only=True, verbose=False)
    return read_rows(this.out / "predictions.csv")


def _fit(this: Run) -> tuple[Any, str]:
    """Train the model that is handed on, with the configuration's own loggers, unless it is done."""
    from m2net.cli.lightning import SaveConfig, make_cli
    from m2net.reports.watching import keep_curves
    from m2net.training.crossval import fit_below

    cli = make_cli([*this.words, f"--trainer.default_root_dir={this.out}"], run_now=False)
    done = Done(this.out, this.known, "best.ckpt")
    if done.holds():
        if not this.folds:  # a test will open the loggers
            keep_curves(cli.trainer)
        return cli, str(done.result)
    keep_curves(cli.trainer)
    cli.trainer.callbacks.append(SaveConfig(cli.parser, cli.config, overwrite=True))  # type: ignore[attr-defined]
    made = Path(fit_below(cli.trainer, cli.model, cli.datamodule, this.out))
    if made != done.result:  # a ModelCheckpoint of the user's own names it otherwise
        shutil.copyfile(made, done.result)
    done.write()
    return cli, str(done.result)


def _learnt_from(this: Run) -> set[str]:
    """Studies that the model handed on learnt from, or was chosen by."""
    from m2net.studies import read_manifest

    return {s.study_id for s in read_manifest(this.manifest) if str(s.split) in ("train", "val")}


def _compare(tuned: M2NetModule, base: M2NetModule, before: Rows, tables: list[Rows], learnt_from: set[str]) -> list[Comparison]:
    """Each task that learnt, against the base where that knows the same answers."""
    import numpy as np

    from m2net.assessment.outcome import Repeat, aligned, compare

    studies = [row["study_id"] for row in tables[0]]
    tables = [aligned(rows, studies) for rows in tables]
    found = []
    objectives: dict[str, Objective] = dict(tuned.objectives.items())  # type: ignore[arg-type]
    for task, objective in objectives.items():
        if not tuned.weights.get(task) or not objective.primary:
            continue
        was: Any = base.objectives[task] if task in base.weights else None
        same = was is not None and was.target == objective.target and was.answers == objective.answers
        repeats: list[Repeat] = []
        for rows in tables:
            folds = np.array([int(row.get("fold", 0)) for row in rows])
            repeats.append(Repeat(rows, folds, _put_right(objective, before, rows, learnt_from) if same else None))
        found += compare(task, objective, aligned(before, studies) if same else None, repeats)
    return found


def _put_right(objective: Objective, before: Rows, rows: Rows, learnt_from: set[str]) -> Rows | None:
    """The base recalibrated on the patients that the fine-tuned model was trained on, and on no other."""
    from m2net.assessment.outcome import aligned, recalibrate

    fold_of = {row["study_id"]: row.get("fold") for row in rows}
    done: Rows = []
    for fold in sorted(set(fold_of.values()), key=str):
        held = [row for row in before if row["study_id"] in fold_of and fold_of[row["study_id"]] == fold]
        out = {row["study_id"] for row in held}
        put = recalibrate(objective, [row for row in before if row["study_id"] in learnt_from - out], held)
        if put is None:
            return None
        done += put
    return aligned(done, list(fold_of))


def _transferred(out: Path) -> dict[str, list[str]]:
    """What became of the weights, as the fit wrote it."""
    import json

    path = out / "transfer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
