"""What leaves for one study: assessment.json, the maps on its own grid, and report.html."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m2net.assessment import Assessment
from m2net.files import stem
from m2net.reports.head import ASSESSMENT, study_head
from m2net.reports.page import write_page
from m2net.reports.results import write_json
from m2net.studies import PICTURE_ENDINGS, VOLUME_ENDINGS, write_on_own_grid
from m2net.vocabulary import Column, InfectionCode, Lobe, LungCode

SCHEMA_VERSION = 6
"""Version of assessment.json; its JSON Schema lies beside this file."""

_CODES: dict[Column, dict[str, int]] = {
    column: {code.name.lower(): int(code) for code in codes}
    for column, codes in ((Column.LOBES, Lobe), (Column.LUNGS, LungCode), (Column.INFECTION, InfectionCode))
}


def output_names(studies: list[Path]) -> list[str]:
    """A folder name for each study: its folder's name, or its file's without the image ending.

    Where two are alike the folders above them stand before (``anna-series``); a path given twice is numbered.
    """
    paths = [study.resolve() for study in studies]
    names = [_plain_name(path) for path in paths]
    for above in range(max((len(path.parents) for path in paths), default=0)):
        times = Counter(names)
        names = [
            f"{path.parents[above].name}-{name}" if times[name] > 1 and above < len(path.parents) and path.parents[above].name else name
            for path, name in zip(paths, names, strict=True)
        ]
    return [f"{name}-{names[:k].count(name) + 1}" if name in names[:k] else name for k, name in enumerate(names)]


def _plain_name(path: Path) -> str:
    endings = () if path.is_dir() else (*VOLUME_ENDINGS, *PICTURE_ENDINGS, ".dcm", ".zip")
    return stem(path.name, endings) or "study"


def write_assessment(folder: Path, assessment: Assessment, name: str) -> Path:
    """Write all files of one study; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = "nii.gz" if assessment.volume.geometry is not None else "png"
    for stale in (folder / f"{mask}.{kind}" for mask in _CODES for kind in ("nii.gz", "png")):
        stale.unlink(missing_ok=True)  # of another model: a page must not stand beside maps that it does not speak of
    for mask, codes in assessment.maps.items():
        write_on_own_grid(folder / f"{mask}.{ending}", codes, assessment.volume)
    write_json(folder / ASSESSMENT, as_json(assessment, name))
    page = folder / "report.html"
    write_page(page, assessment, name)
    return page


def as_json(assessment: Assessment, name: str) -> dict[str, Any]:
    """The content of assessment.json."""
    found = assessment.findings
    return {
        **study_head(SCHEMA_VERSION, name, assessment.volume, assessment.model),
        "instances": assessment.instances,
        "severity": {task: asdict(finding) for task, finding in found.severity.items()},
        "diagnosis": {task: asdict(finding) for task, finding in found.diagnosis.items()},
        "detection": None if found.detection is None else asdict(found.detection),
        "infected_shares": found.shares,
        "scores": [asdict(score) for score in found.scores],
        "maps": {mask: _CODES[Column(mask)] for mask in assessment.maps},
        "lobes": {
            m.lobe.key: {"code": int(m.lobe), "volume_ml": m.volume_ml, "mean_hu": m.mean_hu, "density_shares": m.bands}
            for m in assessment.lobe_measures
        },
        "patches": [{"weight": p.weight, "slice_index": p.slice_index} for p in assessment.patches],
        "warnings": assessment.warnings,
    }
