"""``m2net crossval``: K folds by patient, out-of-fold predictions, intervals over patients."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2net.cli.done import Done
from m2net.cli.options import count, folder, parser
from m2net.errors import ConfigError
from m2net.vocabulary import Split

if TYPE_CHECKING:
    from m2net.studies import Manifest, Study

AUDITED = ("diagnosis", "severity")


def run(argv: list[str]) -> int:
    """Cross-validate a configuration; a fold that is done with the same configuration is not run again."""
    options = parser(
        argv[0],
        "Cross-validate by patient: fold k is judged, fold k+1 chooses the checkpoint, the rest trains. Loggers of the "
        "configuration are replaced by a CSV logger in each fold's folder.",
    )
    options.add_argument(
        "--config", type=Path, required=True, action="append", help="the same YAML that m2net fit takes; several are laid over one another"
    )
    options.add_argument("--folds", type=int, required=True, help="number of folds, at least 3 (test, validation, training)")
    options.add_argument("--out", type=folder, help="folder for the results; default crossval in the configured run folder")
    options.add_argument(
        "--seed", type=count, help="seed of new folds; without it the manifest's own are taken, or those of seed 0 where it has none"
    )
    options.add_argument(
        "--judge-sites", nargs="+", metavar="SITE", help="sites whose studies are judged; others train, and choose with data.validate"
    )
    options.add_argument(
        "--audit-columns", nargs="+", default=[], metavar="COLUMN", help="columns of the manifest that its audit counts as facts, as a date"
    )
    options.add_argument("--without-test", action="store_true", help="leave out the manifest's test part, so that it stays unseen")
    given, overrides = options.parse_known_args(argv[1:])
    if given.folds < 3:
        raise ConfigError(f"{given.folds} folds", expected="at least 3: one judged, one that chooses, one that trains")
    for config in given.config:
        if not config.is_file():
            raise ConfigError(f"the configuration {config} does not exist", expected="a YAML file")
    from m2net.cli.lightning import lightning_run

    with lightning_run():
        _run(given, overrides)
    return 0


def _run(given: argparse.Namespace, overrides: list[str]) -> None:
    from m2net import __version__
    from m2net.cli.audit import check_columns, with_dates
    from m2net.cli.lightning import make_cli
    from m2net.training import file_hash

    words = [word for config in given.config for word in ("--config", str(config))] + overrides
    cli = make_cli(words, run_now=False)
    if held := [study for study in cli.datamodule.manifest if study.split is Split.TEST]:
        if given.without_test:
            words.append(f"--data.manifest={without(cli.datamodule.manifest, held)}")
            cli = make_cli(words, run_now=False)
        else:
            told = f"{len(held)} studies of the test part of {cli.datamodule.manifest_path} are cross-validated as all others are"
            print(f"{told}; --without-test leaves them out.")
    elif given.without_test:
        raise ConfigError(
            f"--without-test, and no study of {cli.datamodule.manifest_path} is in the test part", expected="rows with split = test",
            remedy="Run m2net split --parts, or leave it out",
        )  # fmt: skip
    out = given.out or Path(cli.trainer.default_root_dir) / "crossval"
    manifest = cli.datamodule.manifest_path
    check_columns(cli.datamodule.manifest, given.audit_columns, "--audit-columns")
    if given.audit_columns and not audited(cli.model):
        raise ConfigError(
            "--audit-columns where nothing is audited", expected=f"a task named {' or '.join(AUDITED)}", remedy="Leave it out"
        )
    if given.seed is not None or not has_folds(cli.datamodule.manifest, given.folds):
        manifest = with_folds(manifest, given.folds, given.seed or 0)
    sites = {str(study.site) for study in cli.datamodule.manifest if study.site}
    if unknown := sorted(set(given.judge_sites or ()) - sites):
        raise ConfigError(f"no study is of the site {unknown[0]!r}", expected=f"one of {', '.join(sorted(sites)) or 'no sites'}")
    cli.datamodule.prepare_data()
    content = cli.datamodule.store.hash(list(cli.datamodule.manifest))
    known = f"{__version__}{words}{content}".encode() + b"".join(file.read_bytes() for file in (*given.config, manifest))
    for start in (cli.model.start_from, cli.model.encoder_weights):
        if start and Path(start).is_file():
            known += file_hash(Path(start)).encode()
    tables = []
    for fold in range(given.folds):
        tables.append((fold, judged(fold_rows(words, known, manifest, fold, out / f"fold_{fold}"), given.judge_sites)))
    rows = _pool(out, cli.model, tables)
    _audit(out, cli, rows, with_dates(cli.datamodule.manifest, given.audit_columns))


def fold_rows(words: list[str], known: bytes, manifest: Path, fold: int, folder: Path) -> list[dict[str, Any]]:
    """Predictions of one fold, trained unless ``folder`` holds them from the same words and ``known`` content."""
    from m2net.cli.lightning import make_cli
    from m2net.reports.results import read_rows
    from m2net.training.crossval import run_fold

    done = Done(folder, known + str(fold).encode(), "predictions.csv")
    if not done.holds():
        folder.mkdir(parents=True, exist_ok=True)
        placed = [f"--data.manifest={manifest}", f"--data.fold={fold}", f"--trainer.default_root_dir={folder}"]
        cli = make_cli([*words, *placed], run_now=False)
        run_fold(cli.trainer, cli.model, cli.datamodule, folder)
        done.write()
    return read_rows(folder / "predictions.csv")


def judged(rows: list[dict[str, Any]], sites: list[str] | None) -> list[dict[str, Any]]:
    """Rows of these sites, all if None: synthetic studies, or another hospital's, may help to learn without being judged."""
    return rows if sites is None else [row for row in rows if row["site"] in sites]


def has_folds(manifest: Manifest, folds: int) -> bool:
    """Whether a manifest has so many folds, as of ``m2net split --leave-one-site-out``; False where it has none.

    Raises:
        ConfigError: folds in some rows only, or another number of them.
    """
    found = {study.fold for study in manifest}
    if found == {None}:
        return False
    if found != set(range(folds)):
        said = ", ".join("none" if fold is None else str(fold) for fold in sorted(found, key=lambda f: (f is None, f)))
        raise ConfigError(
            f"{manifest.path} has the folds {said}", expected=f"0 to {folds - 1} with --folds {folds}, in every row",
            remedy="Give another --folds, or --seed to draw new ones",
        )  # fmt: skip
    return True


def with_folds(source: Path, folds: int, seed: int) -> Path:
    """The manifest with a fold column, written beside the one that the configuration names."""
    from m2net.studies import assign_folds, read_manifest, write_assignment
    from m2net.vocabulary import Column

    out = source.with_name(f"{source.stem}.{folds}folds-{seed}.csv")
    manifest = read_manifest(source)
    chosen = {patient: str(fold) for patient, fold in assign_folds(manifest.studies, folds, seed).items()}
    write_assignment(manifest, Column.FOLD, chosen, out)
    return out


def without(manifest: Manifest, left_out: list[Study]) -> Path:
    """The manifest without some of its studies, written beside it."""
    from m2net.studies.manifest import write_clean

    out = manifest.path.with_name(f"{manifest.path.stem}.without-test.csv")
    write_clean(manifest.path, out, {study.row for study in left_out})
    return out


def audited(module: Any) -> list[str]:
    """Labels that the audit looks at: those with a task of their name."""
    return [task for task, objective in module.objectives.items() if task in AUDITED and str(objective.target).partition(":")[0] == task]


def _audit(out: Path, cli: Any, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Which shortcuts tell each label that the tasks judge, and what is left of the model within their strata."""
    from m2net.cli.audit import judge
    from m2net.errors import M2NetError

    data = cli.datamodule
    for label in audited(cli.model):
        try:
            judge(list(data.manifest), data.store, label, rows, out / f"audit_{label}.json", columns=columns)
        except M2NetError as error:
            print(f"no shortcut audit of {label}: {error}")


def _pool(out: Path, module: Any, tables: list[tuple[int, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    from rich.console import Console
    from rich.table import Table

    from m2net.reports.results import print_scales, scales, task_intervals, write_json, write_table
    from m2net.training.crossval import pool_rows

    rows = pool_rows(tables)
    write_table(out / "predictions.csv", rows)
    figures = task_intervals(module, rows)
    plain = {f"{t}/{n}": {"value": i.value, "low": i.low, "high": i.high} for t, f in figures.items() for n, i in f.items()}
    versions = sorted({row["phantom_version"] for row in rows if row.get("phantom_version")})
    facts: dict[str, Any] = {"phantom_version": ", ".join(versions)} if versions else {}
    facts |= {"scales": scales(module)}
    write_json(out / "crossval.json", {**facts, "studies": len(rows), "patients": len({r["patient_id"] for r in rows}), "figures": plain})
    table = Table("figure", "value (95 % interval over patients)", title=f"Out of fold, {len(rows)} studies")
    for task, those in figures.items():
        for name, interval in those.items():
            table.add_row(f"{task}/{name}", str(interval))
    Console().print(table)
    print_scales(module)
    print(out / "crossval.json")
    return rows
