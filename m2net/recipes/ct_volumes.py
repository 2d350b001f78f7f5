"""Volumes of chest CT: STOIC2021, COVID-19-CT-Seg, COVID-CT-MD."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.errors import StudyError
from m2net.recipes.table import Row, files_below, find_folder, made_masks, read_table, recoded, row, write
from m2net.vocabulary import Diagnosis, InfectionCode, Lobe, Modality


def stoic2021(raw: Path, manifest: Path) -> int:
    """STOIC2021, public training set: ``data/mha/ID.mha`` and ``metadata/reference.csv`` (PatientID, probCOVID, probSevere).

    ``pcr`` is the PCR result; ``infected`` is 1 where it is positive, unknown otherwise. ``severity`` (binary: death
    or intubation within a month) is given to COVID-positive patients only; it is not defined for the others.
    Rows without a file are left out: partial downloads are common.

    Raises:
        StudyError: no such layout.
    """
    table = next((p for p in files_below(raw, (".csv",)) if p.name.lower() == "reference.csv"), None)
    if table is None:
        raise StudyError(f"{raw} holds no metadata/reference.csv", expected="STOIC2021's own folder", remedy="Check the path")
    images = {p.stem: p for p in files_below(raw, (".mha",))}

    def rows() -> Iterator[Row]:
        for entry in read_table(table):
            name = entry.get("patientid", "").removesuffix(".0")
            if name not in images:
                continue
            positive, severe = (int(float(entry[k])) for k in ("probcovid", "probsevere"))
            yield row(
                manifest, f"stoic-{name}", f"stoic-{name}", Modality.CT, images[name], diagnosis=Diagnosis.COVID19 if positive else None,
                infected=positive or None, severity=severe if positive else None,
                severity_scheme="binary" if positive else None, site="stoic2021",
                pcr=positive,
            )  # fmt: skip

    return write(manifest, rows(), raw, "data/mha/ID.mha named in metadata/reference.csv")


def covid19_ct_seg(raw: Path, manifest: Path) -> int:
    """COVID-19-CT-Seg (Ma et al., Zenodo 3757476): images, ``Lung_Mask`` (1 left, 2 right), ``Infection_Mask`` (1), same file names.

    The ten ``radiopaedia`` volumes are windowed to 8 bit and hold no HU; they are listed, and ``m2net verify`` rejects them. Studies of
    one case share a patient (``radiopaedia_10_...``). The Kaggle copy's names are understood.

    Raises:
        StudyError: no such layout.
    """
    images = find_folder(raw, r"COVID-19-CT-Seg_20cases|ct_scans") or raw
    lungs, infection = (find_folder(raw, name) for name in ("lung_mask", "infection_mask"))

    def rows() -> Iterator[Row]:
        for path in files_below(images, (".nii", ".nii.gz")):
            if "mask" in path.parent.name.lower():
                continue
            name = _plain(path)
            case = "_".join(name.split("_")[:2])
            drawn = _named(infection, name)
            mask = recoded(drawn, made_masks(manifest) / f"{name}_infection.nii.gz", {1: InfectionCode.KIND_UNKNOWN}) if drawn else None
            yield row(
                manifest, name, case, Modality.CT, path, lungs=_named(lungs, name), lungs_scheme="covid19_ct_seg" if lungs else None,
                infection=mask, diagnosis=Diagnosis.COVID19, infected=1, site=name.split("_")[0],
            )  # fmt: skip

    return write(manifest, rows(), raw, "coronacases_*.nii.gz or radiopaedia_*.nii.gz")


def _plain(path: Path) -> str:
    """``coronacases_org_001.nii`` and ``radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm.nii`` as Zenodo names them."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
    return re.sub(r"-dcm$", "", re.sub(r"(_org_?)?(_?covid-19-pneumonia-)?(case)?(?=\d)", "_", stem, count=1)).replace("__", "_")


def _named(folder: Path | None, name: str) -> Path | None:
    return next((p for p in files_below(folder, (".nii", ".nii.gz")) if _plain(p) == name), None) if folder else None


_MD = {"covid-19": Diagnosis.COVID19, "cap": Diagnosis.CAP, "normal": Diagnosis.NON_PNEUMONIA}
_MD_LOBES = (Lobe.LEFT_LOWER, Lobe.LEFT_UPPER, Lobe.RIGHT_LOWER, Lobe.RIGHT_MIDDLE, Lobe.RIGHT_UPPER)


def covid_ct_md(raw: Path, manifest: Path) -> int:
    """COVID-CT-MD (Afshar et al. 2021): ``COVID-19 Cases/P001/*.dcm``, ``Cap Cases/cap001``, ``Normal Cases/normal001`` (or ``subjects``).

    The folder's name is the patient; headers name others. Where ``Lobe-level-labels*.npy`` and ``Index.csv`` are there, the
    further columns ``marked_LOBE`` say whether the radiologists marked infection in any slice of a lobe (a lobe not marked is weak
    evidence). The file updated in 2021 is preferred.

    Raises:
        StudyError: no such layout, or labels whose rows do not fit the index.
    """
    marked = _marked_lobes(raw)

    def rows() -> Iterator[Row]:
        for kind, diagnosis in _MD.items():
            folder = find_folder(raw, rf"{kind} (cases|subjects)")
            for study in sorted(p for p in folder.iterdir() if p.is_dir()) if folder else []:
                lobes = marked.get(study.name)
                more = {} if lobes is None else {f"marked_{lobe.key}": int(lobes[k]) for k, lobe in enumerate(_MD_LOBES)}
                yield row(
                    manifest, study.name, study.name, Modality.CT, study, diagnosis=diagnosis,
                    infected=int(diagnosis is not Diagnosis.NON_PNEUMONIA),
                    site="covid_ct_md", **more,
                )  # fmt: skip

    return write(manifest, rows(), raw, "folders 'COVID-19 Cases', 'Cap Cases' or 'Normal Cases'")


def _marked_lobes(raw: Path) -> dict[str, NDArray[Any]]:
    arrays = sorted((p for p in raw.rglob("*.npy") if p.name.lower().startswith("lobe-level-labels")), key=lambda p: "updated" in p.name)
    index = next((p for p in files_below(raw, (".csv",)) if p.name.lower() == "index.csv"), None)
    if not arrays or index is None:
        return {}
    labels = np.load(arrays[-1], allow_pickle=False)  # (case, slice, lobe); one study's slices from the top
    entries = read_table(index)
    places = [int(float(e["label index"])) for e in entries]
    if len(labels) == len(entries):
        places = list(np.argsort(np.argsort(places)))  # the published index skips a number; rows do not
    elif len(labels) != max(places) + 1:
        raise StudyError(
            f"{arrays[-1]} has {len(labels)} rows while {index} names {len(entries)} cases up to {max(places)}", expected="both alike",
            remedy="Download both again",
        )  # fmt: skip
    names = [e.get("folder/id") or e.get("folder", "") for e in entries]
    return {name: labels[place].any(axis=0) for name, place in zip(names, places, strict=True)}


def luna16_lobes(raw: Path, manifest: Path) -> int:
    """Lobes of LUNA16 scans (Tang et al. 2019): ``UID_LobeSegmentation.nrrd`` beside ``subset*/UID.mhd``.

    4 RUL, 5 RML, 6 RLL, 7 LUL, 8 LLL in the low byte, airway flags in the high byte (an airway in a lobe counts as that lobe);
    recoded copies go beside the manifest. LIDC's patients are not in the files: a series counts as one.

    Raises:
        StudyError: no such layout.
    """
    codes = {4: Lobe.RIGHT_UPPER, 5: Lobe.RIGHT_MIDDLE, 6: Lobe.RIGHT_LOWER, 7: Lobe.LEFT_UPPER, 8: Lobe.LEFT_LOWER}
    both = {old | flag: int(new) for old, new in codes.items() for flag in (0, 512)}
    images = {p.name.removesuffix(".mhd"): p for p in files_below(raw, (".mhd",)) if "seg-lungs" not in str(p.parent)}

    def rows() -> Iterator[Row]:
        for mask in files_below(raw, ("_lobesegmentation.nrrd",)):
            uid = mask.name[: -len("_LobeSegmentation.nrrd")]
            if uid in images:
                lobes = recoded(mask, made_masks(manifest) / f"{uid}_lobes.nii.gz", both)
                yield row(manifest, uid, uid, Modality.CT, images[uid], lobes=lobes, site="luna16")

    return write(manifest, rows(), raw, "UID_LobeSegmentation.nrrd with its UID.mhd")
