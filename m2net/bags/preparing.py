"""Fill a store with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from m2net.bags.store import Store
from m2net.errors import ConfigError, StudyError
from m2net.studies import Study
from m2net.studies.quality import find_duplicates
from m2net.studies.verdict import Status, Verdict


def prepare_missing(store: Store, studies: list[Study], workers: int) -> int:
    """Prepare with a progress bar; returns how many were prepared.

    Args:
        store: where to.
        studies: all studies of the manifest.
        workers: processes.

    Raises:
        StudyError: naming the studies that could not be prepared; all others are in the store by then.
    """
    todo = store.missing(studies)
    failures = []
    if todo:
        with Progress(console=Console(file=sys.stderr)) as bar:
            task = bar.add_task(f"Preparing {len(todo)} studies", total=len(todo))
            for done in store.prepare(todo, workers):
                bar.advance(task)
                if done.failure:
                    failures.append(done)
    if failures:
        first = failures[0].failure.rstrip(".")
        more = f" (and {len(failures) - 1} more: {', '.join(f.study_id for f in failures[1:6])})" if len(failures) > 1 else ""
        raise StudyError(
            f"{first}{more}", expected="every study of the manifest to be readable",
            remedy=f"Mend or remove these rows; the other {len(todo) - len(failures)} studies are prepared",
        )  # fmt: skip
    return len(todo)


def rejected_verdicts(store: Store, studies: list[Study]) -> list[Verdict]:
    """Verdicts of the prepared studies that ``m2net verify`` rejects, duplicates among them included."""
    verdicts = [replace(store.verdict(study), study_id=study.study_id) for study in studies]  # rows of equal content share an entry
    find_duplicates(studies, verdicts)
    return [v for v in verdicts if v.status is Status.REJECT]


def refuse_rejected(store: Store, studies: list[Study], allow: Collection[str]) -> None:
    """Let no rejected study through to training.

    Args:
        store: where they are prepared.
        studies: all studies of the manifest: a training image may have its double in the test part.
        allow: study_ids that may be used all the same.

    Raises:
        StudyError: rejected studies that are not allowed.
        ConfigError: an allowed study is not in the manifest.
    """
    strange = set(allow) - {s.study_id for s in studies}
    if strange:
        raise ConfigError(f"{', '.join(sorted(strange))} is allowed but not in the manifest", expected="study_ids of the manifest")
    rejected = [v for v in rejected_verdicts(store, studies) if v.study_id not in allow]
    if rejected:
        reason = next(f.reason for f in rejected[0].findings if f.status is Status.REJECT)
        more = f" (and {len(rejected) - 1} more: {', '.join(v.study_id for v in rejected[1:6])})" if len(rejected) > 1 else ""
        raise StudyError(
            f"study {rejected[0].study_id} is rejected: {reason}{more}", expected="studies that m2net verify does not reject",
            remedy="Run m2net verify to see all, then mend or remove the rows, or allow them by name (--allow, data.allow)",
        )  # fmt: skip
