"""Commands of m2net one after the other, as an experiment's script runs them."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """Exit code and seconds of a command."""

    code: int
    seconds: float


def command(*words: str | Path, ends: Collection[int] = (0,), folder: Path | None = None) -> Ended:
    """Print one m2net command and run it, with this Python.

    Args:
        words: subcommand and arguments.
        ends: exit codes that are no failure: ``verify`` ends with 1 where it rejects a study, ``finetune`` with 3 where the model is worse.
        folder: to run it in.

    Raises:
        SystemExit: it ended with another code.
    """
    arguments = [str(word) for word in words]
    print(f"\n$ m2net {shlex.join(arguments)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "m2net.cli.main", *arguments], check=False, cwd=folder).returncode
    if code not in ends:
        sys.exit(f"m2net {arguments[0]} failed with exit code {code}")
    return Ended(code, time.monotonic() - start)


def cohort_once(folder: Path, patients: int, seed: int, *words: str | Path, verified: bool = False) -> Path:
    """Write a synthetic cohort into ``folder`` unless it is there.

    Args:
        folder: of the cohort.
        patients: how many.
        seed: of the phantoms.
        words: more of ``m2net phantom``, as ``--site north``.
        verified: whether the studies that ``m2net verify`` rejects are left out.

    Returns:
        Its manifest.

    Raises:
        SystemExit: a command failed.
    """
    manifest, good = folder / "manifest.csv", folder / "good.csv"
    if not manifest.exists():
        command("phantom", "--out", folder, "--patients", str(patients), "--seed", str(seed), *words)
    if not verified:
        return manifest
    if not good.exists():
        command("verify", manifest, "--clean", good, ends=(0, 1))
    return good


def split_once(manifest: Path, parts: str) -> Path:
    """Give a manifest's patients a part unless that was done, as ``"0.8 0.2 0"`` for train, val and test; returns the parted manifest.

    Raises:
        SystemExit: it failed.
    """
    out = manifest.with_suffix(".split.csv")
    if not out.exists():
        command("split", manifest, "--parts", *parts.split())
    return out


def fit_once(folder: Path, *words: str | Path) -> None:
    """Run ``m2net fit`` into ``folder`` unless it ended there before: a checkpoint of one that was killed is not taken for its last.

    Raises:
        SystemExit: it failed.
    """
    ended = folder / "fit.ended"
    if not ended.exists():
        command("fit", *words)
        ended.touch()
