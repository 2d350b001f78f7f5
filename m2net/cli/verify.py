"""``m2net verify``: which studies of a manifest are fit for use."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from m2net.cli.options import check_apart, new_file, parser, progress
from m2net.machine import cpu_count
from m2net.vocabulary import SCORE_PREFIX, Column

if TYPE_CHECKING:
    from m2net.studies import Study
    from m2net.studies.verdict import Verdict


def run(argv: list[str]) -> int:
    """Judge every study; exit code 1 if any is rejected."""
    options = parser(
        argv[0], "Judge every study of a manifest: pass, warn or reject, with reason and remedy. Exit code 1 if any is rejected."
    )
    options.add_argument("manifest", type=Path)
    options.add_argument("--json", type=new_file, help="also write the verdicts here")
    options.add_argument("--clean", type=new_file, help="also write a manifest without the rejected rows here (in the manifest's folder)")
    options.add_argument("--repair", action="store_true", help="judge irregular series as --repair would resample them")
    options.add_argument(
        "--journal", type=new_file, help="verdicts of earlier runs; default MANIFEST.verify.jsonl; unchanged studies are not read again"
    )
    options.add_argument("--workers", type=int, default=cpu_count(), help="processes")
    given = options.parse_args(argv[1:])
    from m2net.errors import ConfigError
    from m2net.studies import ReadOptions, survey_manifest
    from m2net.studies.manifest import write_clean
    from m2net.studies.quality import find_duplicates
    from m2net.studies.verdict import Status, Verdict
    from m2net.studies.verifying import Journal, verify

    if given.clean and given.clean.parent.resolve() != given.manifest.parent.resolve():
        raise ConfigError(f"--clean {given.clean} lies in another folder", expected="the manifest's folder, for its paths are relative")
    for name, path in (("--clean", given.clean), ("--json", given.json), ("--journal", given.journal)):
        check_apart(name, path, [given.manifest])
    manifest, faults = survey_manifest(given.manifest)
    reading = ReadOptions(repair=given.repair)
    journal = Journal(given.journal or given.manifest.with_suffix(".verify.jsonl"), reading)
    found = dict(progress(_named(verify(manifest.studies, reading, journal, given.workers)), "Verifying", len(manifest)))
    verdicts = [found[s.study_id] for s in manifest]
    find_duplicates(manifest.studies, verdicts)
    for fault in faults:
        verdict = Verdict(fault.study_id)
        verdict.add(Status.REJECT, fault.check, fault.message, "Mend the row")
        verdicts.append(verdict)
    if given.json:
        given.json.write_text(json.dumps([v.plain() for v in verdicts], indent=1) + "\n", encoding="utf-8")
    if given.clean:
        bad = {s.row for s, v in zip(manifest, verdicts, strict=False) if v.status is Status.REJECT} | {fault.row for fault in faults}
        write_clean(given.manifest, given.clean, bad)
    _show(verdicts)
    for column, meant in almost(manifest.columns):
        print(f"The column {column!r} is not read; if {meant} is meant, rename it.")
    return 1 if any(v.status is Status.REJECT for v in verdicts) else 0


def almost(columns: Sequence[str]) -> list[tuple[str, str]]:
    """Columns that m2net passes over and that are spelt almost as one that it reads and that is not there, each with that one."""
    missing = [str(column) for column in Column if column not in columns]
    others = [column for column in columns if column not in set(Column) and not column.startswith(SCORE_PREFIX)]
    near = {column: get_close_matches(column.lower(), missing, 1, 0.8) for column in others}
    return [(column, meant[0]) for column, meant in near.items() if meant]


def _named(pairs: Iterable[tuple[Study, Verdict]]) -> Iterator[tuple[str, Verdict]]:
    for study, verdict in pairs:
        yield study.study_id, verdict


def _show(verdicts: list[Verdict]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("study", "verdict", "check", "what was found", "what to do")
    colours = {"warn": "yellow", "reject": "red"}
    for verdict in verdicts:
        for finding in verdict.findings:
            colour = colours[finding.status]
            told = (escape(text) for text in (finding.check, finding.reason, finding.remedy))  # brackets in paths are no markup
            table.add_row(escape(verdict.study_id), f"[{colour}]{finding.status}[/{colour}]", *told)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    if table.row_count:
        console.print(table)
    counts = {name: sum(v.status == name for v in verdicts) for name in ("pass", "warn", "reject")}
    console.print(f"{len(verdicts)} studies: {counts['pass']} pass, {counts['warn']} warn, {counts['reject']} rejected")
