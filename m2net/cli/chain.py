"""Commands of m2net one after the other, as an experiment's script runs them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from rich.progress import track

from m2net.cli.done import Done
from m2net.recipes.table import joined, write


class Ended(NamedTuple):
    """Exit code and seconds of a command."""

    code: int
    seconds: float


def command(*words: str | Path, ends: Collection[int] = (0,), folder: Path | None = None, log: Path | None = None) -> Ended:
    """Run one m2net command, with this Python, and print it before.

    Args:
        words: subcommand and arguments.
        ends: exit codes that are no failure: ``verify`` ends with 1 where it rejects a study, ``finetune`` with 3 where the model is worse.
        folder: to run it in.
        log: file that its output goes to where commands run side by side; nothing is printed then.

    Raises:
        SystemExit: it ended with another code.
    """
    arguments = [str(word) for word in words]
    start = time.monotonic()
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    else:
        print(f"\n$ m2net {shlex.join(arguments)}", flush=True)
    with log.open("wb") if log else nullcontext() as output:
        code = subprocess.run(
            [sys.executable, "-m", "m2net.cli.main", *arguments], check=False, cwd=folder, stdout=output, stderr=output
        ).returncode
    if code not in ends:
        sys.exit(f"m2net {arguments[0]} failed with exit code {code}" + (f", see {log}" if log else ""))
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
        SystemExit: a command failed, or the folder holds another cohort.
    """
    manifest, good = folder / "manifest.csv", folder / "good.csv"
    if not manifest.exists():
        command("phantom", "--out", folder, "--patients", str(patients), "--seed", str(seed), *words)
    found = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    if (found["patients"], found["seed"]) != (patients, seed):
        sys.exit(
            f"{folder} holds {found['patients']} patients of seed {found['seed']}; expected {patients} of seed {seed}. "
            "Move it away, and what was made of it."
        )
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


def join_once(out: Path, manifests: Sequence[Path]) -> Path:
    """Write several manifests as one unless that was done; returns it."""
    if not out.exists():
        print(f"{out}: {write(out, joined(manifests, out), manifests[0], 'studies')} studies")
    return out


def fit_once(folder: Path, *words: str | Path, log: Path | None = None, model: str = "best.ckpt") -> None:
    """Run ``m2net fit`` into ``folder`` unless it ended there before: a checkpoint of one that was killed is not taken for its last.

    Words that are Paths, as configurations and a checkpoint to start from, count by what they hold: where that or another word has
    changed, it is fitted anew. Its output goes to ``log`` where it is given; ``model`` is the checkpoint that it leaves.

    Raises:
        SystemExit: it failed.
    """
    known = b"\0".join(word.read_bytes() if isinstance(word, Path) and word.is_file() else str(word).encode() for word in words)
    done = Done(folder, known, model)
    if not done.holds():
        command("fit", *words, log=log)
        done.write()


def is_done(result: Path, *made_of: Path) -> bool:
    """Whether a file is there and no older than what it is made of."""
    return result.exists() and all(result.stat().st_mtime >= source.stat().st_mtime for source in made_of if source.exists())


def side_by_side(work: Callable[[str], None], names: Sequence[str], at_once: int) -> Iterator[str]:
    """Do pieces of work, so many at once, each with commands on its own share of the cores: a small network gains little from a second.

    Args:
        work: what is done of a name; its commands need a ``log``, or their output is mixed.
        names: of the pieces, begun in this order.
        at_once: how many; 1 is one after the other, here.

    Yields:
        Names as they are done.

    Raises:
        SystemExit: a command failed. What runs beside it ends by itself, what waits is not begun.
    """
    if at_once == 1:
        for name in names:
            work(name)
            yield name
        return
    with ThreadPoolExecutor(at_once, initializer=_take_cores, initargs=(_shares(at_once),)) as pool:
        running = {pool.submit(work, name): name for name in names}
        try:
            for done in track(as_completed(running), f"{at_once} at once", total=len(names)):
                done.result()
                yield running[done]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _shares(at_once: int) -> SimpleQueue[list[int]]:
    """The cores of this process in so many parts; all of them in each where they are fewer, none where the system does not tell."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: SimpleQueue[list[int]] = SimpleQueue()
    for k in range(at_once):
        shares.put(cores[k::at_once] or cores)
    return shares


def _take_cores(shares: SimpleQueue[list[int]]) -> None:
    """On Linux a thread has cores of its own, and the commands that it starts have them, too."""
    if share := shares.get():
        os.sched_setaffinity(0, share)
