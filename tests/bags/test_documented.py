"""docs/reference/configuration.md names every setting of input and augmentation, with its default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import yaml

from m2net.bags.inputs import InputSpec
from m2net.bags.transforms import Augmentation

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without its head."""
    below = PAGE.split(f"### `{heading}`")[1].split("\n#")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in below.splitlines() if line.startswith("| `")]


def test_every_setting_of_the_input_with_its_default() -> None:
    told = {key.strip("`"): yaml.safe_load(default.strip("`")) for key, default, _ in rows("data.input")}
    assert told == InputSpec().plain()


def test_every_augmentation_and_that_all_are_off() -> None:
    told = {name for keys, _ in rows("data.augmentation") for name in re.findall(r"`(\w+)`", keys)}
    assert told == {f.name for f in fields(Augmentation)}
    assert not any(getattr(Augmentation(), name) for name in told)
