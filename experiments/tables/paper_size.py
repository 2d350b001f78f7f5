"""The rows' configurations, which are of a size for two cores, at the size of the published network.

Width 64, 256 and 128 concepts, patches of 128 pixels, some 200 of them a study (He et al., table 1 and the notes in ../m2unet/paper.yaml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SPACING_MM = 1.5
MATRIX = 256
"""Pixels of the phantoms' slices: theirs are about as large as those that the network sees."""
TIMES = {"width": 4, "channels": 4, "concepts": 2, "instances": 20, "max_steps": 6, "val_check_interval": 6}
"""What grows, by how much. Six times the steps of one study a batch see as many studies as six a batch do."""
INSTEAD = {"spacing_mm": SPACING_MM, "studies_per_batch": 1, "chunk": 64}
STEP = 32
"""Pixels of a patch are a multiple of this, as encoders need."""


def at_paper_size(config: Any, name: str = "", spacing_mm: float = 4.0) -> Any:
    """A configuration with the published sizes; what is no size stays.

    Args:
        config: as read from YAML, or a part of it.
        name: key that the part is found under.
        spacing_mm: pixel of the small size, mm: patches show about as many millimetres as theirs.
    """
    if isinstance(config, dict):
        grown = {key: at_paper_size(value, key, spacing_mm) for key, value in config.items()}
        return grown | {"checkpointing": True} if name == "network" else grown
    if isinstance(config, list):
        return [at_paper_size(value, name, spacing_mm) for value in config]
    if name == "patch":
        return STEP * round(config * spacing_mm / SPACING_MM / STEP)
    return INSTEAD.get(name, config * TIMES[name] if name in TIMES else config)


def write_at_paper_size(source: Path, out: Path) -> Path:
    """Write a row's configuration, read from ``source``, into ``out`` at the published size; returns ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(yaml.safe_dump(at_paper_size(yaml.safe_load(source.read_text(encoding="utf-8"))), sort_keys=False), encoding="utf-8")
    return out
