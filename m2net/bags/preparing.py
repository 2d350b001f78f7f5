"""Fill a store with a progress bar."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import Progress

from m2net.bags.store import Store
from m2net.errors import StudyError
from m2net.studies import Study


def prepare_missing(store: Store, studies: list[Study], workers: int) -> int:
    """Prepare with a progress bar; returns how many were prepared.

    Raises:
        StudyError: naming the studies that could not be prepared; all others are in the store by then.
    """
    todo = store.missing(studies)
    if not todo:
        return 0
    failures = []
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
