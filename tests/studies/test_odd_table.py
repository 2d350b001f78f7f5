from __future__ import annotations

import re
from pathlib import Path

from tests.studies import test_odd_dicom, test_odd_files, test_odd_masks, test_odd_series

TABLE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "odd_inputs.md"


def test_every_row_of_the_table_is_a_case() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    cases = [name for module in (test_odd_dicom, test_odd_files, test_odd_masks, test_odd_series) for name in module.case]
    assert len(rows) >= 40
    assert sorted(rows) == sorted(cases)
