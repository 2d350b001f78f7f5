"""What leaves for one study: assessment.json, lobes.nii.gz and report.html."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from m2net.assessment import Assessment
from m2net.reports.head import study_head
from m2net.reports.page import write_page
from m2net.reports.results import write_json
from m2net.studies import PICTURE_ENDINGS, VOLUME_ENDINGS, write_on_own_grid

SCHEMA_VERSION = 1
"""Version of assessment.json; its JSON Schema lies beside this file."""


def output_names(studies: list[Path]) -> list[str]:
    """A folder name for each study: its folder's name, or its file's without the image ending; numbered where two are alike."""
    names: list[str] = []
    for study in studies:
        base = study.resolve().name or "study"
        if not study.is_dir():
            base = next((base[: -len(e)] for e in (*VOLUME_ENDINGS, *PICTURE_ENDINGS, ".dcm", ".zip") if base.lower().endswith(e)), base)
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def write_assessment(folder: Path, assessment: Assessment, name: str) -> Path:
    """Write all files of one study; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if assessment.lobes is not None:
        ending = "nii.gz" if assessment.volume.geometry is not None else "png"
        write_on_own_grid(folder / f"lobes.{ending}", assessment.lobes, assessment.volume)
    write_json(folder / "assessment.json", as_json(assessment, name))
    page = folder / "report.html"
    write_page(page, assessment, name)
    return page


def as_json(assessment: Assessment, name: str) -> dict[str, Any]:
    """The content of assessment.json."""
    return {
        **study_head(SCHEMA_VERSION, name, assessment.volume, assessment.model),
        "instances": assessment.instances,
        "severity": {task: {**asdict(finding), "calibrated": False} for task, finding in assessment.severity.items()},
        "lobes": {
            m.lobe.key: {"code": int(m.lobe), "volume_ml": m.volume_ml, "mean_hu": m.mean_hu, "density_shares": m.bands}
            for m in assessment.lobe_measures
        },
        "patches": [{"weight": p.weight, "slice_index": p.slice_index} for p in assessment.patches],
        "warnings": assessment.warnings,
    }
