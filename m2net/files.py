"""Files and folders that appear whole or not at all, and names that every reader can open."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path, PurePath
from typing import TextIO

from m2net.errors import StudyError


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file (UTF-8, line ends as written) that takes its place when all of it is there.

    What stood there stays where writing failed. Processes and threads that write the same file at once do not
    disturb each other: the last one's stays.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def standing(path: Path) -> Path:
    """The path, absolute, or of what does not exist yet the nearest folder or file above it that does."""
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())


def put_aside(path: Path) -> Path:
    """Rename a file to ``NAME_1.csv``, or the first number that is free; returns the new path."""
    free = next(new for k in count(1) if not (new := path.with_name(f"{path.stem}_{k}{path.suffix}")).exists())
    return path.rename(free)


@contextmanager
def folder_whole(folder: Path, *, replacing: bool = False) -> Iterator[Path]:
    """A folder to write into that takes its place when all of it is there; nothing is left of it where writing failed.

    What stands there at the end is removed (``replacing``) or stays, for then another process finished the same work first.

    Raises:
        OSError: it cannot be made or moved.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".partial-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        if replacing:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            temporary.rename(folder)
        except OSError:
            if replacing or not folder.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def stem(name: str, endings: Sequence[str]) -> str:
    """A file's name without the first of these endings (in lower case; of the name any case) that it has."""
    return next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), name)


def check_name(path: Path) -> None:
    """Refuse a path that ITK cannot be handed: it ends the whole process over bytes that are no UTF-8.

    Raises:
        StudyError: some part of the path is no UTF-8, as on media written under another system.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise StudyError(f"the name {str(path)!a} is no UTF-8", expected="a name in UTF-8", remedy="Rename the file or folder") from None


def is_litter(path: PurePath) -> bool:
    """Whether a file is what a system leaves in folders that are looked at (``.DS_Store``, ``._IM1.dcm``, ``Thumbs.db``), and no data."""
    return path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")
