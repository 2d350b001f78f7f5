"""The cases of docs/reference/odd_inputs.md: three modules add theirs, one test drives each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2net.errors import M2NetError, StudyError
from m2net.studies import ReadOptions, Volume, read_image
from tests.studies.made import ORIGIN, SPACING, volume

Case = Callable[[Path], None]
A = volume()


class Cases(dict[str, Case]):
    """Cases by name; used as a decorator."""

    def __call__(self, function: Case) -> Case:
        self[function.__name__] = function
        return function


def refused(path: Path, match: str, error: type[M2NetError] = StudyError, **options: Any) -> None:
    with pytest.raises(error, match=match):
        read_image(path, ReadOptions(**options))


def same(path: Path, array: np.ndarray = A, remark: str = "", **options: Any) -> Volume:
    """Reads as ``array`` in its place; the remarks are harmless, or one holds ``remark``."""
    found = read_image(path, ReadOptions(**options))
    np.testing.assert_array_equal(found.array, array)
    assert found.geometry is not None
    np.testing.assert_allclose(found.geometry.spacing_mm, SPACING, rtol=1e-4)
    np.testing.assert_allclose(found.geometry.origin_mm, ORIGIN, atol=1e-3)
    if remark:
        assert any(remark in text for text in found.notes), found.notes
    else:
        assert not found.remarks
    return found
