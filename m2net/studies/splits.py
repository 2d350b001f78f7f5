"""Patient-grouped, stratified folds."""

from __future__ import annotations

import csv
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m2net.errors import ManifestError
from m2net.studies.manifest import Manifest, write_manifest
from m2net.studies.row import one_spelling
from m2net.studies.study import Study
from m2net.vocabulary import Column, Split


def assign_folds(studies: tuple[Study, ...], folds: int, seed: int) -> dict[str, int]:
    """Give every patient a fold.

    Patients stay whole; folds are stratified by severity grade, diagnosis and site and, within these, by the masks that there are, as far
    as the numbers allow.

    Args:
        studies: the rows of a manifest.
        folds: number of folds, at least 2.
        seed: seeds the shuffle.

    Returns:
        Fold from 0 by patient id.

    Raises:
        ManifestError: fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = [s.patient_id for s in studies]
    if folds < 2 or len(set(patients)) < folds:
        raise ManifestError(f"{len(set(patients))} patients in {folds} folds", expected="2 folds or more, a patient in each")
    strata = _with_masks(studies, folds)
    codes = np.unique(strata, return_inverse=True)[1]
    rare = np.bincount(codes)[codes] < folds
    codes = np.where(rare, codes.max() + 1, codes)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    chosen: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # the rare together may be fewer than the folds
        for fold, (_, test) in enumerate(splitter.split(np.zeros(len(patients)), codes, patients)):
            chosen |= {patients[i]: fold for i in test}
    return chosen


def assign_sites(studies: tuple[Study, ...]) -> dict[str, int]:
    """One fold a site, in the order of their names (leave one site out): one is judged, the next chooses the checkpoint, the others train.

    Returns:
        Fold by patient id.

    Raises:
        ManifestError: a study without a site, a patient at two sites, or a single site.
    """
    sites = sorted({s.site for s in studies})
    if "" in sites or len(sites) < 2:
        raise ManifestError(
            f"the sites are {', '.join(site or '(empty)' for site in sites)}", expected="a site in every row, and two or more of them",
            remedy="Fill in the site column",
        )  # fmt: skip
    chosen: dict[str, int] = {}
    for study in studies:
        fold = sites.index(study.site)
        if chosen.setdefault(study.patient_id, fold) != fold:
            raise ManifestError(
                f"patient {study.patient_id} is at the sites {sites[chosen[study.patient_id]]} and {study.site}",
                expected="every patient at one site", remedy="Leave one of them out, or use --folds",
            )  # fmt: skip
    return chosen


def _stratum(study: Study) -> str:
    return f"{study.site}/{'|'.join(sorted(study.diagnosis))}/{study.severity_scheme}/{_grade(study)}"


def _with_masks(studies: Sequence[Study], folds: int) -> list[str]:
    """Strata parted by masks where each part has a study a fold; the rest of a stratum stays with its largest part."""
    parts: dict[str, Counter[str]] = defaultdict(Counter)
    for study in studies:
        parts[_stratum(study)][_masks(study)] += 1
    strata = []
    for study in studies:
        own, masks = parts[_stratum(study)], _masks(study)
        often = masks if own[masks] >= folds else own.most_common(1)[0][0]
        strata.append(f"{_stratum(study)}/{often}")
    return strata


def _masks(study: Study) -> str:
    return ",".join(sorted(study.masks))


def _grade(study: Study) -> str:
    if study.severity is None:
        return ""
    return str(int(study.severity)) if (study.severity_scheme or "").split(":")[0] != "score" else str(int(study.severity // 3))


def assign_parts(studies: tuple[Study, ...], shares: tuple[float, float, float], seed: int) -> dict[str, Split]:
    """Give every patient a part: train, val or test.

    Args:
        studies: the rows of a manifest.
        shares: wanted shares of train, val and test, summing to 1; 0 leaves a part empty.
        seed: seeds the shuffle.

    Returns:
        Part by patient id; stratified as the folds are, by the labels of a patient's first study and the masks of all.

    Raises:
        ManifestError: shares that do not sum to 1, or a negative one.
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ManifestError(f"the shares {shares}", expected="three numbers from 0 that sum to 1")
    stratum = {s.patient_id: _stratum(s) for s in reversed(studies)}
    masks: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        masks[study.patient_id] |= set(study.masks)
    rng = np.random.default_rng(seed)
    chance = dict(zip(sorted(stratum), rng.random(len(stratum)), strict=True))
    parts, chosen = list(Split), {}
    given = np.zeros(len(parts))
    for count, patient in enumerate(sorted(stratum, key=lambda p: (sorted(masks[p]), stratum[p], chance[p])), start=1):
        part = int(np.argmax(np.asarray(shares) * count - given))  # the part that is furthest behind its share
        given[part] += 1
        chosen[patient] = parts[part]
    return chosen


def write_assignment(manifest: Manifest, column: Column, chosen: dict[str, str], out: Path) -> None:
    """Copy a manifest with one column set by patient; the copy lies in the same folder so that its paths stay true.

    Raises:
        ManifestError: if ``out`` lies in another folder.
    """
    if out.parent.resolve() != manifest.path.parent.resolve():
        raise ManifestError(
            f"{out} lies in another folder than {manifest.path}",
            expected="the same folder",
            remedy="Paths in a manifest are relative to it",
        )
    with manifest.path.open(newline="", encoding="utf-8-sig") as file:
        rows = [{k: v or "" for k, v in row.items() if k is not None} for row in csv.DictReader(file)]
    columns = [c for c in manifest.columns if c != column] + [str(column)]
    for row in rows:
        row[str(column)] = chosen[one_spelling(row[Column.PATIENT_ID])]
    write_manifest(out, columns, rows)


def part_of(study: Study, fold: int | None, folds: int) -> Split | None:
    """Which part a study plays.

    With ``fold`` given, that fold is the test part and the next one validates (so the fold that chooses the checkpoint
    is never the one that is judged); otherwise the manifest's own split counts.
    """
    if fold is None:
        return study.split
    if study.fold is None:
        return None
    if study.fold == fold:
        return Split.TEST
    return Split.VAL if study.fold == (fold + 1) % folds else Split.TRAIN
