"""The prepared store: studies by the hash of their content and settings, resumable."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from m2net.bags.prepared import STORE_VERSION, Prepared, load, load_verdict, prepare_study, save
from m2net.errors import BROKE, ConfigError, M2NetError, StoreError, StudyError
from m2net.files import written_whole
from m2net.machine import processes
from m2net.studies import Study
from m2net.studies.fingerprint import content_hash, fingerprint
from m2net.studies.verdict import Verdict

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One study done: its id, and the message if it failed."""

    study_id: str
    failure: str = ""


class Store:
    """A folder of prepared studies.

    ``index.json`` remembers the content hash of files by path, size and time of change, so that unchanged files are not
    read again; ``spacings.json`` the pixel sizes that studies were prepared at.
    """

    def __init__(self, root: Path, spacing_mm: float, *, repair: bool = False) -> None:
        """Open or create a store for one in-plane pixel size (mm), with irregular series repaired or refused.

        Raises:
            ConfigError: a negative size.
        """
        if not spacing_mm >= 0:
            raise ConfigError(f"a spacing of {spacing_mm} mm", expected="more than 0 mm; 0 where there are pictures only")
        self.root = root
        self.repair = repair
        self.spacing_mm = float(spacing_mm)
        self._index: dict[str, str] = {}
        self._signatures: dict[str, str] = {}
        self._load_index()

    def _load_index(self) -> None:
        self._index = _remembered(self.root / "index.json", {})

    def _remember(self, name: str, value: object) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with written_whole(self.root / f"{name}.json") as file:
            json.dump(value, file)

    def _signature(self, study: Study) -> str:
        """Signature of the study's files, looked up once in the life of this store."""
        name = f"{study.study_id}/{study.image}"
        if name not in self._signatures:
            self._signatures[name] = fingerprint(study)
        return self._signatures[name]

    def missing(self, studies: Iterable[Study]) -> list[Study]:
        """Studies that are not prepared yet, or whose files have changed."""
        return [s for s in studies if not self._is_there(s)]

    def _is_there(self, study: Study) -> bool:
        content = self._index.get(self._signature(study))
        return content is not None and (self._folder(content) / "study.json").exists()

    def _folder(self, content: str) -> Path:
        settings = json.dumps({"version": STORE_VERSION, "spacing_mm": self.spacing_mm, "repair": self.repair})
        return self.root / hashlib.sha256(f"{content}/{settings}".encode()).hexdigest()[:24]

    def prepare(self, studies: Iterable[Study], workers: int = 1) -> Iterator[Progress]:
        """Prepare what is missing; failures are yielded, not raised, so that one bad study costs nothing else.

        Raises:
            StoreError: a process died, as for want of memory; what was prepared by then stays.
        """
        todo = self.missing(studies)
        if not todo:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        done_well = False
        try:
            with processes(workers) as pool:
                waiting = {pool.submit(_prepare_one, self, study): study for study in todo}
                for done in as_completed(waiting):
                    study = waiting[done]
                    try:
                        self._index[self._signature(study)] = done.result()
                        done_well = True
                        yield Progress(study.study_id)
                    except M2NetError as error:
                        yield Progress(study.study_id, str(error))
                    except BrokenExecutor as error:
                        raise StoreError(
                            f"a process that prepared studies died before {study.study_id} was done",
                            expected="enough memory for every process", remedy=f"Run again with fewer --workers than {workers}",
                        ) from error  # fmt: skip
                    except OSError as error:
                        if error.errno == errno.ENOSPC:
                            raise StoreError(f"no space is left for {self.root}", remedy="Make room; what is prepared stays") from error
                        yield Progress(study.study_id, f"{study.image} could not be prepared ({error})")
                    except BROKE as error:
                        yield Progress(study.study_id, f"{study.image} broke the reader ({type(error).__name__}: {error})")
        finally:
            self._index = {**_remembered(self.root / "index.json", {}), **self._index}  # another process may have prepared others since
            self._remember("index", self._index)
            if done_well:
                self._remember("spacings", sorted({*spacings(self.root), self.spacing_mm}))

    def open(self, study: Study) -> Prepared:
        """Open a prepared study.

        Raises:
            StoreError: it was not prepared, or its files changed since.
        """
        return load(self._prepared(study))

    def verdict(self, study: Study) -> Verdict:
        """What was judged of a prepared study, without opening its voxels.

        Raises:
            StoreError: it was not prepared, or its files changed since.
        """
        return load_verdict(self._prepared(study))

    def _prepared(self, study: Study) -> Path:
        if not self._is_there(study):
            self._load_index()  # another store on the same folder may have prepared it since
        if not self._is_there(study):
            raise StoreError(
                f"study {study.study_id} is not in the store {self.root} at {self.spacing_mm} mm",
                remedy="Run m2net prepare with this manifest",
            )
        return self._folder(self._index[self._signature(study)])

    def hash(self, studies: Iterable[Study]) -> str:
        """One hash over the content of all these studies and the settings, for logs."""
        parts = sorted(self._index.get(self._signature(s), "") for s in studies)
        return hashlib.sha256("/".join([*parts, str(self.spacing_mm), str(self.repair)]).encode()).hexdigest()[:16]


def spacings(root: Path) -> list[float]:
    """In-plane pixel sizes (mm; 0 for pictures only) that the studies of a store were prepared at.

    None where there is no store yet, or one that is older than ``spacings.json``.
    """
    return _remembered(root / "spacings.json", [])


def _remembered(path: Path, otherwise: T) -> T:
    try:
        found: T = json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise
    except ValueError:
        return otherwise  # a cache: it is made again
    return found


def _prepare_one(store: Store, study: Study) -> str:
    try:
        content = content_hash(study)
    except OSError as error:
        raise StudyError(
            f"study {study.study_id}: {error.filename} cannot be read ({error.strerror})", expected="a readable file"
        ) from error
    folder = store._folder(content)
    if not (folder / "study.json").exists():
        save(prepare_study(study, store.spacing_mm, repair=store.repair), folder)
    return content
