"""Option parsing shared by the plain commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

from m2net.errors import ConfigError
from m2net.files import standing
from m2net.machine import cpu_count

T = TypeVar("T")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with the defaults that say something: not "None", nor that a switch is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False or action.default in ("", [])
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, as all others."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        raise ConfigError(f"{self.prog}: {message}", remedy=f"See {self.prog} --help")


def parser(command: str, text: str) -> Parser:
    """A parser for one command."""
    return Parser(prog=f"m2net {command}", description=text, formatter_class=_Formatter)


def add_store(options: Parser) -> None:
    """The manifest and the store that it is prepared in, as every command that opens prepared studies takes them."""
    options.add_argument("manifest", type=Path)
    options.add_argument("--store", type=Path, required=True, help="folder of prepared studies; what is missing is prepared")
    options.add_argument("--repair", action="store_true", help="resample uneven, missing or sheared slices (data.repair)")
    options.add_argument("--workers", type=int, default=cpu_count(), help="processes that prepare")


def count(text: str) -> int:
    """A whole number from 0, as an option takes it.

    Raises:
        ArgumentTypeError: another text.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def folder(text: str) -> Path:
    """A folder to write into, there already or not, as an option takes it.

    Raises:
        ArgumentTypeError: it, or what it would lie in, is a file.
    """
    path = Path(text)
    there = standing(path)
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there if there != path.absolute() else path} is a file, expected a folder")
    return path


def new_file(text: str) -> Path:
    """A file to write, there already or not, as an option takes it.

    Raises:
        ArgumentTypeError: it is a folder, or lies in none.
    """
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder, or lies in none, expected a file to write")
    return path


def check_apart(name: str, path: Path | None, inputs: Iterable[Path | None]) -> None:
    """Refuse to write over what a command reads.

    Raises:
        ConfigError: ``path``, given by the option ``name``, is one of ``inputs``.
    """
    for source in inputs:
        if path and source and path.resolve() == source.resolve():
            raise ConfigError(f"{name} is {source} itself, which is read", expected="another file, for labels may stand in it")


def progress(items: Iterable[T], text: str, total: int) -> Iterable[T]:
    """Items with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    return track(items, text, total=total, console=Console(file=sys.stderr))
