"""Worker processes: where the parent stops, what waits is not begun; and the allocator."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import pytest

from m2net.machine import processes


def leave_a_mark(folder: Path, name: int) -> None:
    (folder / str(name)).touch()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_big_blocks_are_kept() -> None:
    """A block of 200 MB that is given back and asked for again stays where it was: the system would have mapped it anew, and zeroed it."""
    code = """
import ctypes, resource, sys
from m2net.machine import keep_big_blocks
if sys.argv[1] == "kept":
    assert keep_big_blocks()
def fill():
    block = ctypes.create_string_buffer(200 << 20)
    ctypes.memset(block, 1, len(block))
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {way: int(subprocess.check_output([sys.executable, "-c", code, way], text=True)) for way in ("plain", "kept")}
    assert faults["kept"] < faults["plain"] / 10


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, GeneratorExit, ValueError])
def test_what_waits_is_not_begun_where_this_process_stops(tmp_path: Path, stopped: type[BaseException]) -> None:
    with pytest.raises(stopped), processes(1) as pool:  # noqa: PT012
        first = pool.submit(leave_a_mark, tmp_path, 0)
        wait([first])
        waiting = [pool.submit(leave_a_mark, tmp_path, k) for k in range(1, 2000)]
        raise stopped
    assert any(one.cancelled() for one in waiting)
    assert (tmp_path / "0").exists()
    assert len(list(tmp_path.iterdir())) < 1000


def test_without_a_stop_everything_is_done(tmp_path: Path) -> None:
    with processes(0) as pool:
        for k in range(5):
            pool.submit(leave_a_mark, tmp_path, k)
    assert len(list(tmp_path.iterdir())) == 5


COMMAND = """
import os, signal, sys
from pathlib import Path
from m2net.cli import main as entry
from m2net.machine import processes

def work(k):
    if k == 500:
        os.killpg(0, signal.SIGINT)  # as a terminal does: to every process of the group
    Path(sys.argv[1], str(k)).touch()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background has it ignored

def run(argv):
    with processes(3) as pool:
        list(pool.map(work, range(20000)))

sys.modules["m2net.cli.split"] = type("Split", (), {"run": staticmethod(run)})
sys.exit(entry.main(["split"]))
"""


def test_ctrl_c_of_a_terminal_is_one_line_and_what_runs_is_finished(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path)], start_new_session=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == "m2net: stopped.\n"
    assert done.returncode == 130
    assert (tmp_path / "500").exists()
    assert len(list(tmp_path.iterdir())) < 20000
