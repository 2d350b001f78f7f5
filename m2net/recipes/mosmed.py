"""MosMedData (Morozov et al. 2020): ``studies/CT-0..CT-4/study_NNNN.nii.gz``, ``masks/study_NNNN_mask.nii.gz``."""

from __future__ import annotations

import re
from pathlib import Path

from m2net.errors import StudyError
from m2net.recipes.table import made_masks, recoded, row, write
from m2net.vocabulary import Column, Diagnosis, InfectionCode, Modality

_STUDY = re.compile(r"(study_\d+)\.nii(\.gz)?$")
_GRADES = 5
_CODES = {1: int(InfectionCode.KIND_UNKNOWN)}


def mosmed(raw: Path, manifest: Path) -> int:
    """Write the manifest of a MosMedData folder.

    The folder's name is the grade CT-0..CT-4 (share of the lungs involved: 0, <25, 25-50, 50-75, >75 %), so severity is
    ``ordinal:5``; CT-0 is no pneumonia, the others are COVID-19. One study a patient. Their infection masks hold 1 for ground
    glass and consolidation alike; copies with m2net's code for that (3, kind unknown) go beside the manifest.

    Returns:
        Number of studies.

    Raises:
        StudyError: no such layout.
    """
    found = [(p, m.group(1)) for p in sorted(raw.glob("studies/CT-*/*")) if (m := _STUDY.search(p.name))]
    rows = []
    for image, name in found:
        grade = image.parent.name.removeprefix("CT-")
        if grade not in map(str, range(_GRADES)):
            raise StudyError(f"{image.parent} is no grade", expected="CT-0 to CT-4")
        masks = sorted((raw / "masks").glob(f"{name}_mask.nii*"))
        more = {
            str(Column.INFECTION): recoded(masks[0], made_masks(manifest) / f"{name}.nii.gz", _CODES) if masks else None,
            str(Column.DIAGNOSIS): Diagnosis.NON_PNEUMONIA if grade == "0" else Diagnosis.COVID19,
            str(Column.INFECTED): int(grade != "0"),
            str(Column.SEVERITY): grade,
            str(Column.SEVERITY_SCHEME): f"ordinal:{_GRADES}",
            str(Column.SITE): "mosmed",
        }
        rows.append(row(manifest, name, name, Modality.CT, image, **more))
    return write(manifest, rows, raw, "studies/CT-*/study_*.nii.gz")
