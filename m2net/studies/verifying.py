"""Judge every study of a manifest, in parallel, each file read once, resumable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from pathlib import Path

from m2net.errors import BROKE, StudyError
from m2net.machine import processes
from m2net.studies.fingerprint import fingerprint
from m2net.studies.options import ReadOptions
from m2net.studies.quality import judge, unreached
from m2net.studies.study import Study
from m2net.studies.verdict import Status, Verdict

_RULES = "3"  # raised with every change of the checks, so that earlier verdicts are not taken up again


class Journal:
    """Verdicts of earlier runs, one JSON line a study, appended as they come."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        """Open or create; lines that were cut off are passed over."""
        self.path = path
        self.options = f"{_RULES}/{options.kernel}/{options.repair}"
        self.known: dict[str, Verdict] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
                self.known[entry["key"]] = Verdict.of(entry["verdict"])
            except (ValueError, KeyError, TypeError):
                continue

    def key(self, study: Study) -> str:
        """Changes with the study's files, the way they are read, and the rules."""
        return f"{study.study_id}/{fingerprint(study)}/{self.options}"

    def add(self, key: str, verdict: Verdict) -> None:
        """Append one verdict."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "verdict": verdict.plain()}) + "\n")


def verify(studies: Sequence[Study], options: ReadOptions, journal: Journal, workers: int) -> Iterator[tuple[Study, Verdict]]:
    """Verdict of every study as it is reached: those in the journal first.

    Raises:
        StudyError: a process died, as for want of memory; verdicts reached by then are in the journal.
    """
    todo = []
    for study in studies:
        try:
            key = journal.key(study)
        except OSError as error:  # gone, or closed, since the manifest was read
            yield study, unreached(study, error)
            continue
        known = journal.known.get(key)
        if known is None:
            todo.append((study, key))
        else:
            yield study, known
    if not todo:
        return
    with processes(workers) as pool:
        waiting = {pool.submit(judge, study, _options(study, options)): (study, key) for study, key in todo}
        for done in as_completed(waiting):
            study, key = waiting[done]
            try:
                verdict = done.result()
                if verdict.lasting:
                    journal.add(key, verdict)
            except BrokenExecutor as error:
                raise StudyError(
                    f"a process that read studies died before {study.study_id} was judged",
                    expected="enough memory for every process",
                    remedy=f"Run again with fewer --workers than {workers}; what was judged is kept",
                ) from error
            except BROKE as error:
                verdict = Verdict(study.study_id)  # a bug must not hide the other studies' verdicts
                verdict.add(
                    Status.REJECT,
                    "unreadable",
                    f"{study.image} broke the reader ({type(error).__name__}: {error})",
                    "Report this file's kind",
                )
            yield study, verdict


def _options(study: Study, options: ReadOptions) -> ReadOptions:
    return ReadOptions(study.series or options.series, options.kernel, options.repair)
