from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from m2net.files import folder_whole, written_whole


def test_what_stood_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("before", encoding="utf-8")

    def write() -> None:
        with written_whole(path) as file:
            file.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def write_often(path: Path, letter: str) -> None:
    for _ in range(300):
        with written_whole(path) as file:
            file.write(letter * 9)


def test_processes_that_write_the_same_do_not_disturb_each_other(tmp_path: Path) -> None:
    """As two cross-validations of one manifest do, whose folds are written beside it."""
    path = tmp_path / "folds.csv"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(write_often, [path] * 2, "ab"))
    assert path.read_text(encoding="utf-8") in ("a" * 9, "b" * 9)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def write() -> None:
        with folder_whole(tmp_path / "a") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())


def test_what_cannot_take_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file of that name")
    with pytest.raises(OSError, match="directory"), folder_whole(tmp_path / "a", replacing=True):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("replacing", "left"), [(True, "second"), (False, "first")])
def test_who_keeps_the_place_of_a_folder(tmp_path: Path, replacing: bool, left: str) -> None:
    for name in ("first", "second"):
        with folder_whole(tmp_path / "a", replacing=replacing) as folder:
            (folder / name).touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["a", left]
