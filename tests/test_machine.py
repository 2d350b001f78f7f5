"""Worker processes: where the parent stops, what waits is not begun."""

from __future__ import annotations

from concurrent.futures import wait
from pathlib import Path

import pytest

from m2net.machine import processes


def leave_a_mark(folder: Path, name: int) -> None:
    (folder / str(name)).touch()


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
