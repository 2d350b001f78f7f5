"""A cohort of synthetic patients as a hospital would hand it over: files and a manifest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from m2net.errors import ConfigError
from m2net.files import folder_whole
from m2net.machine import processes
from m2net.phantoms.disease import checked_mix
from m2net.phantoms.donors import Donor, donor_name, read_donor
from m2net.phantoms.files import new_manifest, write_dicom_radiograph, write_dicom_series, write_nifti
from m2net.phantoms.outcome import GRADERS
from m2net.phantoms.patient import PHANTOM_VERSION, Phantom, make_phantom
from m2net.phantoms.pictures import write_pictures
from m2net.phantoms.radiographs import RADIOGRAPH_VERSION, make_radiograph
from m2net.phantoms.radiography import RADIOGRAPHY
from m2net.phantoms.scanner import SCANNERS
from m2net.phantoms.vessels import FEWEST_TIPS, MOST_TIPS
from m2net.studies import write_manifest
from m2net.studies.labels import schemes_of
from m2net.studies.scores import EXTENT, OPACITY
from m2net.vocabulary import DONATED, MASK_COLUMNS, SCORE_PREFIX, TRUE_SEVERITY_PREFIX, Column, Diagnosis, Lobe, Modality

FORMATS = ("nifti", "dicom", "png")


@dataclass(frozen=True)
class CohortPlan:
    """What to make.

    Attributes:
        patients: number of patients, one study each.
        seed: with the site and the phantom's version it fixes every voxel.
        site: name of a scanner profile.
        modality: ct, or cxr: one frontal radiograph a patient.
        file_format: CT: nifti or dicom (masks are NIfTI in both), or png: pictures of single slices, a study each, their window lost.
            Radiographs: png or dicom (masks are PNG in both).
        matrix: pixels along each in-plane axis (ct), or along the longer side (cxr).
        slice_mm: slice thickness in mm; drawn from the site's if None.
        grades: number of severity grades.
        pictures: slices of each patient (png only).
        graders: what the site's graders weigh, see GRADERS (ct only).
        mix: chances of the diagnoses, in their order; equal if None.
        lobes: lobe masks of real patients whose lungs the patients get, each as many as the next (ct only); none: lungs of drawn shape.
        lobes_scheme: codes of these masks, as a manifest names them.
        scars: emphysema, cysts, fibrosis and masses as well, each in some patients whatever the diagnosis (ct only).
        tips: vessels' ends in a lobe; with more they are finer (ct only).
    """

    patients: int
    seed: int
    site: str = "home"
    file_format: str = "nifti"
    matrix: int = 192
    slice_mm: float | None = None
    grades: int = 2
    pictures: int = 16
    modality: str = "ct"
    graders: str = "extent"
    mix: tuple[float, ...] | None = None
    lobes: tuple[str, ...] = ()
    lobes_scheme: str = ""
    scars: bool = False
    tips: int = FEWEST_TIPS

    @property
    def version(self) -> str:
        """Of what is made: CT and radiographs change at their own times."""
        return RADIOGRAPH_VERSION if self.modality == Modality.CXR else PHANTOM_VERSION

    @property
    def told(self) -> str:
        """The version, and what it was asked to draw beyond it, as a manifest has it."""
        vessels = f" with {self.tips} vessel tips" if self.tips != FEWEST_TIPS else ""
        return self.version + (" with scars" if self.scars else "") + vessels

    def check(self) -> None:
        """Raise ConfigError for what cannot be made."""
        if self.site not in SCANNERS:
            raise ConfigError(f"the site {self.site!r} is unknown", expected=f"one of {', '.join(SCANNERS)}")
        if self.graders not in GRADERS:
            raise ConfigError(f"the graders {self.graders!r} are unknown", expected=f"one of {', '.join(GRADERS)}")
        if self.grades not in GRADERS[self.graders]:
            raise ConfigError(f"{self.grades} severity grades", expected=f"one of {', '.join(map(str, GRADERS[self.graders]))}")
        checked_mix(self.mix)
        if self.file_format not in FORMATS:
            raise ConfigError(f"the format {self.file_format!r} is unknown", expected=f"one of {', '.join(FORMATS)}")
        graded = self.grades != 2 or self.graders != "extent"
        if self.modality == Modality.CXR and (self.file_format == "nifti" or self.slice_mm is not None or graded):
            raise ConfigError(
                "radiographs with nifti files, a slice thickness or severity grades", expected="--format png or dicom, and none of these"
            )
        if self.modality == Modality.CXR and (self.lobes or self.scars or self.tips != FEWEST_TIPS):
            what = "around real lobes" if self.lobes else "with scars" if self.scars else "with another number of vessels"
            raise ConfigError(f"radiographs {what}", expected="--modality ct")
        if not FEWEST_TIPS <= self.tips <= MOST_TIPS:
            raise ConfigError(f"{self.tips} vessels' ends in a lobe", expected=f"{FEWEST_TIPS} to {MOST_TIPS}")
        if self.lobes_scheme and (not self.lobes or self.lobes_scheme not in schemes_of(Column.LOBES)):
            expected = f"--lobes, and one of {', '.join(schemes_of(Column.LOBES))}"
            raise ConfigError(f"the scheme {self.lobes_scheme!r} of {len(self.lobes)} lobe masks", expected=expected)
        if len(donors := [donor_name(Path(path)) for path in self.lobes]) != len(set(donors)):
            raise ConfigError(
                "two lobe masks of one name", expected="file names that tell the patients apart", remedy="Rename them, or link to them"
            )
        if missing := [path for path in self.lobes if not Path(path).exists()]:
            raise ConfigError(f"the lobe mask {missing[0]} does not exist", expected="files or folders", remedy="Check the paths")
        if self.lobes and self.patients < len(self.lobes):
            raise ConfigError(f"{self.patients} patients of {len(self.lobes)} lobe masks", expected="at least one patient a mask")
        if self.pictures < 1:
            raise ConfigError(f"{self.pictures} pictures a patient", expected="at least 1")
        if self.patients < 1 or self.seed < 0:
            raise ConfigError(f"{self.patients} patients with seed {self.seed}", expected="at least one patient and a seed from 0")
        if not 48 <= self.matrix <= 1024:
            raise ConfigError(f"a matrix of {self.matrix}", expected="48 to 1024 pixels")
        if self.slice_mm is not None and not 1 <= self.slice_mm <= 8:
            raise ConfigError(f"slices of {self.slice_mm} mm", expected="1 to 8 mm")


def write_cohort(plan: CohortPlan, out: Path, workers: int = 1) -> Iterator[int]:
    """Write the cohort and yield the number of patients done.

    ``cohort.json`` (the plan, and the best AUC that severity can be told with on these patients) and ``manifest.csv`` come last.

    Args:
        plan: what to make.
        out: folder; must not hold a manifest yet.
        workers: processes.

    Raises:
        ConfigError: the plan cannot be made, or ``out`` already holds a cohort.
    """
    plan.check()
    manifest = new_manifest(out)
    rows: list[dict[str, str]] = []
    done = 0
    with processes(workers) as pool:
        masks = list(
            pool.map(partial(read_donor, scheme=plan.lobes_scheme), map(Path, plan.lobes))
        )  # all, before the first patient is made
        donors = [masks[k * len(masks) // plan.patients] if masks else None for k in range(plan.patients)]
        for made in pool.map(_write_patient, [plan] * plan.patients, range(plan.patients), [out] * plan.patients, donors):
            rows += made
            done += 1
            yield done
    facts = {**asdict(plan), "phantom_version": plan.version, "severity_auc_best": best_auc(rows)}
    (out / "cohort.json").write_text(json.dumps(facts, indent=1).replace("NaN", "null"), encoding="utf-8")
    write_manifest(manifest, list(rows[0]), rows)


def best_auc(rows: list[dict[str, str]]) -> float:
    """AUC that the true probabilities reach on these patients, mean over the cuts; NaN where a cut has one class."""
    from sklearn.metrics import roc_auc_score

    if Column.SEVERITY not in rows[0]:
        return float("nan")
    grade = np.array([int(row[Column.SEVERITY]) for row in rows])
    cuts = [k for k in range(1, 9) if f"{TRUE_SEVERITY_PREFIX}{k}" in rows[0] and 0 < (grade >= k).mean() < 1]
    each = [roc_auc_score(grade >= k, [float(row[f"{TRUE_SEVERITY_PREFIX}{k}"]) for row in rows]) for k in cuts]
    return float(np.mean(each)) if each else float("nan")


def _write_patient(plan: CohortPlan, index: int, out: Path, donor: Donor | None) -> list[dict[str, str]]:
    seed = (int(plan.version), zlib.crc32(plan.site.encode()), plan.seed, index)
    drawing = np.random.default_rng([*seed, 1])
    diagnosis = list(Diagnosis)[int(drawing.integers(3) if plan.mix is None else drawing.choice(3, p=checked_mix(plan.mix)))]
    name = f"{plan.site}-{plan.seed}-{index:04d}"
    with folder_whole(out / name, replacing=True) as folder:
        if plan.modality == Modality.CXR:
            rows = _radiograph(plan, seed, diagnosis, folder, name)
        else:
            rows = _slices(plan, seed, diagnosis, folder, name, donor)
    return [_finished(row, plan, name, None if donor is None else donor.name) for row in rows]


def _finished(row: dict[str, str], plan: CohortPlan, name: str, donor: str | None) -> dict[str, str]:
    """A row of the patient's folder as the cohort's manifest has it; all with one donor's lungs are one patient, whom no split parts."""
    own = row.pop(Column.STUDY_ID, "")
    paths = {c: f"{name}/{row.pop(c)}" for c in (Column.IMAGE, *MASK_COLUMNS) if c in row}
    head = {
        Column.STUDY_ID: f"{name}-{own}" if own else name,
        Column.PATIENT_ID: name if donor is None else donor,
        Column.MODALITY: plan.modality,
    }
    made = {**head, **paths, Column.SITE: plan.site, "phantom_version": plan.told + ("" if donor is None else f" {DONATED}"), **row}
    return {str(key): str(value) for key, value in made.items()}


def _radiograph(plan: CohortPlan, seed: tuple[int, ...], diagnosis: Diagnosis, folder: Path, name: str) -> list[dict[str, str]]:
    site = RADIOGRAPHY[plan.site]
    radiograph = make_radiograph(seed, site, diagnosis, plan.matrix)
    image = "image.dcm" if plan.file_format == "dicom" else "image.png"
    if plan.file_format == "dicom":
        write_dicom_radiograph(
            folder / image, radiograph.image, radiograph.pixel_mm, radiograph.view, name, inverted=site.monochrome1
        )  # fmt: skip
    else:
        Image.fromarray(np.rint(radiograph.image * 255).astype(np.uint8)).save(folder / image)
    masks = {Column.LUNGS: radiograph.lungs, Column.INFECTION: radiograph.infection}
    for column, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{column}.png")
    row: dict[str, str] = {
        Column.IMAGE: image,
        **{column: f"{column}.png" for column in masks},
        Column.DIAGNOSIS: diagnosis,
        Column.INFECTED: "" if radiograph.infected is None else str(int(radiograph.infected)),
        f"{SCORE_PREFIX}{EXTENT}": f"{radiograph.extent:g}",
        f"{SCORE_PREFIX}{OPACITY}": f"{radiograph.opacity:g}",
        "view": radiograph.view,
    }
    row |= {f"infected_share_{side}": f"{share:.5f}" for side, share in zip(("right", "left"), radiograph.share, strict=True)}
    return [row]


def _slices(
    plan: CohortPlan, seed: tuple[int, ...], diagnosis: Diagnosis, folder: Path, name: str, donor: Donor | None
) -> list[dict[str, str]]:
    model = GRADERS[plan.graders][plan.grades]
    phantom = make_phantom(
        seed,
        SCANNERS[plan.site],
        diagnosis,
        model,
        matrix=plan.matrix,
        slice_mm=plan.slice_mm,
        donor=donor,
        scars=plan.scars,
        tips=plan.tips,
    )
    if plan.file_format == "png":
        return write_pictures(folder, phantom, plan.pictures, np.random.default_rng([*seed, 2]))
    return [_volume(plan, phantom, folder, name)]


def _volume(plan: CohortPlan, phantom: Phantom, temporary: Path, name: str) -> dict[str, str]:
    scanner, diagnosis = SCANNERS[plan.site], phantom.diagnosis
    image = "series" if plan.file_format == "dicom" else "image.nii.gz"
    if plan.file_format == "dicom":
        write_dicom_series(temporary / image, phantom, scanner, name)
    else:
        write_nifti(temporary / image, phantom.image, phantom.geometry)
    for column, mask in zip(MASK_COLUMNS, (phantom.lobes, phantom.lungs, phantom.infection), strict=True):
        write_nifti(temporary / f"{column}.nii.gz", mask, phantom.geometry)
    row: dict[str, str] = {
        Column.IMAGE: image,
        **{c: f"{c}.nii.gz" for c in MASK_COLUMNS},
        Column.DIAGNOSIS: diagnosis,
        Column.SEVERITY: str(phantom.severity),
        Column.SEVERITY_SCHEME: "binary" if plan.grades == 2 else f"ordinal:{plan.grades}",
        Column.INFECTED: str(int(diagnosis is not Diagnosis.NON_PNEUMONIA)),
    }
    row |= {f"{TRUE_SEVERITY_PREFIX}{k}": f"{p:.6f}" for k, p in enumerate(phantom.true_probabilities, start=1)}
    row |= {f"infected_share_{lobe.key}": f"{phantom.share[i]:.5f}" for i, lobe in enumerate(Lobe)}
    row |= {f"consolidated_share_{lobe.key}": f"{phantom.solid[i]:.5f}" for i, lobe in enumerate(Lobe)}
    return row
