"""MosMedData (Morozov et al. 2020): ``studies/CT-0..CT-4/study_NNNN.nii.gz``, ``masks/study_NNNN_mask.nii.gz``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from m2net.errors import StudyError
from m2net.studies import write_manifest
from m2net.vocabulary import Column, Diagnosis, InfectionCode, Modality

_STUDY = re.compile(r"(study_\d+)\.nii(\.gz)?$")
_GRADES = 5


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
    if not found:
        raise StudyError(f"{raw} holds no studies/CT-*/study_*.nii.gz", expected="MosMedData's own folder", remedy="Check the path")
    rows = []
    for image, name in found:
        grade = image.parent.name.removeprefix("CT-")
        if grade not in map(str, range(_GRADES)):
            raise StudyError(f"{image.parent} is no grade", expected="CT-0 to CT-4")
        masks = [p for p in (raw / "masks").glob(f"{name}_mask.nii*")]
        mask = _recode(masks[0], manifest.parent / "m2net_masks" / f"{name}.nii.gz") if masks else None
        rows.append(
            {
                str(Column.STUDY_ID): name,
                str(Column.PATIENT_ID): name,
                str(Column.MODALITY): str(Modality.CT),
                str(Column.IMAGE): os.path.relpath(image, manifest.parent),
                str(Column.INFECTION): os.path.relpath(mask, manifest.parent) if mask else "",
                str(Column.DIAGNOSIS): str(Diagnosis.NON_PNEUMONIA if grade == "0" else Diagnosis.COVID19),
                str(Column.INFECTED): str(int(grade != "0")),
                str(Column.SEVERITY): grade,
                str(Column.SEVERITY_SCHEME): f"ordinal:{_GRADES}",
                str(Column.SITE): "mosmed",
            }
        )
    write_manifest(manifest, list(rows[0]), rows)
    return len(rows)


def _recode(source: Path, target: Path) -> Path:
    target.parent.mkdir(exist_ok=True)
    mask = sitk.ReadImage(str(source))
    coded = np.where(sitk.GetArrayFromImage(mask) > 0, InfectionCode.KIND_UNKNOWN, 0).astype(np.uint8)
    out = sitk.GetImageFromArray(coded)
    out.CopyInformation(mask)
    sitk.WriteImage(out, str(target))
    return target
