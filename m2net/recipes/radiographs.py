"""Radiographs: QaTa-COV19, COVID-QU-Ex, the Cohen collection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from m2net.errors import StudyError
from m2net.recipes.table import Row, files_below, find_folder, made_masks, need_folder, read_table, recoded, row, write
from m2net.vocabulary import Diagnosis, InfectionCode, LungCode, Modality, Split

_BIMCV = re.compile(r"(sub-S\d+)")
_SPLITS = {"train": Split.TRAIN, "train set": Split.TRAIN, "val": Split.VAL, "test": Split.TEST, "test set": Split.TEST}
_BRIGHT = 127


def _patient(prefix: str, path: Path) -> str:
    """BIMCV names hold the patient; otherwise an image is taken to be its own patient."""
    found = _BIMCV.search(path.name)
    return found.group(1) if found else f"{prefix}-{path.stem}"


def qata_cov19(raw: Path, manifest: Path) -> int:
    """QaTa-COV19 v2: ``Train Set|Test Set/Images/NAME.png`` with ``Ground-truths/mask_NAME.png``.

    Masks are bright where infected (kind unknown); recoded copies go beside the manifest. Images are paired by name; one without a
    mask is listed without, as not annotated. v1 holds the same images: point at one version.

    Raises:
        StudyError: no such layout, or both versions.
    """
    if find_folder(raw, "QaTa-COV19-v1") and find_folder(raw, "QaTa-COV19-v2"):
        raise StudyError(f"{raw} holds version 1 and 2, which share images", expected="one version", remedy="Give the folder QaTa-COV19-v2")

    def rows() -> Iterator[Row]:
        for images in sorted(p for p in raw.rglob("*") if p.is_dir() and p.name.lower() == "images"):
            split = _SPLITS.get(images.parent.name.lower())
            masks = {p.name: p for p in files_below(images.parent / "Ground-truths")} if (images.parent / "Ground-truths").is_dir() else {}
            for path in files_below(images):
                drawn = masks.get(f"mask_{path.name}")
                target = made_masks(manifest) / "qata" / f"{split or 'all'}_{path.stem}.png"
                mask = recoded(drawn, target, {1: InfectionCode.KIND_UNKNOWN}, threshold=_BRIGHT) if drawn else None
                yield row(
                    manifest, f"{split or 'all'}-{path.stem}", _patient("qata", path), Modality.CXR, path, infection=mask,
                    diagnosis=Diagnosis.COVID19, infected=1, site="qata_cov19", source_split=split,
                )  # fmt: skip

    return write(manifest, rows(), raw, "Images/*.png")


_QUEX = {"covid-19": Diagnosis.COVID19, "non-covid": Diagnosis.CAP, "normal": Diagnosis.NON_PNEUMONIA}


def covid_qu_ex(raw: Path, manifest: Path) -> int:
    """COVID-QU-Ex: ``Infection|Lung Segmentation Data/{Train,Val,Test}/{COVID-19,Non-COVID,Normal}/{images,lung masks,infection masks}``.

    The infection part repeats images of the lung part; an image is listed once, with the infection part's split. Lung masks do not
    tell sides (side unknown). Infection masks of Non-COVID are empty because only COVID was drawn: they are left out; those of
    Normal are true zeros. Non-COVID is other pneumonia.

    Raises:
        StudyError: no such layout.
    """
    parts = [find_folder(raw, rf"{name}[ _]segmentation[ _]data") for name in ("infection", "lung")]
    if not any(parts):
        need_folder(raw, "infection[ _]segmentation[ _]data", "'Infection Segmentation Data' or 'Lung Segmentation Data'")
    seen: set[tuple[str, str]] = set()

    def rows() -> Iterator[Row]:
        for part in (p for p in parts if p is not None):
            for path in files_below(part):
                kind, group = path.parent.name.lower(), path.parent.parent.name.lower()
                if kind != "images" or group not in _QUEX or (group, path.name) in seen:
                    continue
                seen.add((group, path.name))
                yield _quex_row(manifest, path, group)

    return write(manifest, rows(), raw, "Train, Val or Test/CLASS/images/*.png")


def _quex_row(manifest: Path, path: Path, group: str) -> Row:
    folder, target = path.parent.parent, made_masks(manifest) / "covid_qu_ex"
    drawn = {
        name: next((p for s in (" ", "_") if (p := folder / f"{name}{s}masks" / path.name).is_file()), None)
        for name in ("lung", "infection")
    }
    lung, infection = drawn["lung"], drawn["infection"] if group != "non-covid" else None
    name = f"{group}-{path.stem}"
    return row(
        manifest, name, _patient(group, path), Modality.CXR, path,
        lungs=recoded(lung, target / f"{name}_lungs.png", {1: LungCode.SIDE_UNKNOWN}, threshold=_BRIGHT) if lung else None,
        infection=recoded(
            infection, target / f"{name}_infection.png", {1: InfectionCode.KIND_UNKNOWN}, threshold=_BRIGHT
        ) if infection else None,
        diagnosis=_QUEX[group], infected=int(group != "normal"), site="covid_qu_ex", split=_SPLITS.get(folder.parent.name.lower()),
    )  # fmt: skip


def cohen(raw: Path, manifest: Path) -> int:
    """The COVID-19 image data collection (Cohen et al.): ``metadata.csv``, ``images/``, ``annotations/covid-severity-scores.csv``.

    Frontal radiographs only (X-ray; PA, AP and their variants). ``finding`` is a path (``Pneumonia/Viral/COVID-19``): COVID-19, other
    pneumonias (``cap`` for bacterial ones and those not said to be more than Pneumonia), ``No Finding``; everything else leaves the
    diagnosis empty. Severity scores go into the columns ``score_geographic_extent`` (0 to 8) and ``score_opacity`` (0 to 6).

    Raises:
        StudyError: no such layout.
    """
    table = next((p for p in files_below(raw, (".csv",)) if p.name.lower() == "metadata.csv"), None)
    if table is None:
        raise StudyError(f"{raw} holds no metadata.csv", expected="the collection's own folder", remedy="Check the path")
    images = {p.name.lower(): p for p in files_below(table.parent / "images")} if (table.parent / "images").is_dir() else {}
    scores = _scores(table.parent)
    seen: dict[str, int] = {}

    def rows() -> Iterator[Row]:
        for entry in read_table(table):
            path = images.get(entry.get("filename", "").lower())
            frontal = entry.get("view", "").upper().split(" ")[0] in ("PA", "AP", "APS")
            if path is None or entry.get("modality", "X-ray").lower() != "x-ray" or not frontal:
                continue
            seen[path.stem] = seen.get(path.stem, 0) + 1
            study = path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}"
            diagnosis = _finding(entry.get("finding", ""))
            geographic, opacity = scores.get(path.name.lower(), ("", ""))
            yield row(
                manifest, study, f"cohen-{entry.get('patientid') or path.stem}", Modality.CXR, path, diagnosis=diagnosis,
                infected=None if diagnosis is None else int(diagnosis is not Diagnosis.NON_PNEUMONIA), site="cohen", view=entry.get("view"),
                day_offset=entry.get("offset"), finding=entry.get("finding"), licence=entry.get("license"),
                score_geographic_extent=geographic, score_opacity=opacity,
            )  # fmt: skip

    return write(manifest, rows(), raw, "frontal radiographs named in metadata.csv")


def _finding(text: str) -> Diagnosis | None:
    words = [w.strip().lower() for w in re.split(r"[/,]", text)]
    if "covid-19" in words:
        return Diagnosis.COVID19
    if "no finding" in words:
        return Diagnosis.NON_PNEUMONIA
    return Diagnosis.CAP if "bacterial" in words or words == ["pneumonia"] else None


def _scores(folder: Path) -> dict[str, tuple[str, str]]:
    path = next((p for p in files_below(folder, (".csv",)) if p.name.lower() == "covid-severity-scores.csv"), None)
    found = {}
    for entry in read_table(path, comment="#") if path else []:
        geographic = entry.get("geographic_mean") or entry.get("geographic_extent_mean", "")
        found[entry.get("filename", "").lower()] = (geographic, entry.get("opacity_mean", ""))
    return found
