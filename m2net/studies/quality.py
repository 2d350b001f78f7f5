"""What can be told about a study's fitness from its files: pass, warn or reject, with reason and remedy."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2net.errors import GeometryError, LateralityError, M2NetError, StudyError
from m2net.studies.lungs import Box, Thorax, find_thorax
from m2net.studies.mask_quality import judge_flag, judge_masks
from m2net.studies.masks import Mask, read_mask
from m2net.studies.options import ReadOptions
from m2net.studies.pictures import RELATIVE_12_BIT, RELATIVE_MAX, may_be_12_bit
from m2net.studies.radiograph_look import unlike_radiograph
from m2net.studies.readers import read_image
from m2net.studies.study import Study
from m2net.studies.verdict import Status, Verdict
from m2net.studies.volume import Volume
from m2net.vocabulary import Column, Intensity, LungCode, Modality

_THICK_MM = 5.01
_UNUSABLE_MM = 10.01
_FEW_SLICES = 20
LUNG_ML = (1000.0, 10500.0)
"""Both lungs of an adult, in the field of view."""
_LEAST_ML = 400.0
_CUT_REJECTED = 0.40
_CUT_SHARE = 0.25  # lung area on an end slice, against the widest slice
_BORDER_CM2 = 15.0
_LUNG_HU = (-920, -500)
_LUNG_WIDE_MM = 25.0
_REACH_MM = 8.0
_ONE_SIDED = 0.25
_PASSING = frozenset({
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY, errno.EAGAIN, errno.ESTALE,
    errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENETDOWN,
})  # fmt: skip
_TISSUE_HU = (-150, 200)
_COARSE_MM = 1.6
_SMALL = 64
_LEAST_CONTRAST = 0.05  # of the range, between the 2nd and the 98th percentile


def judge(study: Study, options: ReadOptions) -> Verdict:
    """Read a study's files once and judge them; never raises for what a file holds."""
    verdict = Verdict(study.study_id)
    try:
        volume = read_image(study.image, options, study.modality)
    except GeometryError as error:
        verdict.add(Status.REJECT, "geometry", str(error), "Mend or remove the row")
        return verdict
    except (M2NetError, OSError) as error:
        _unreadable(verdict, "unreadable", error, "Mend or remove the row")
        return verdict
    masks = _read_masks(study, volume, verdict)
    judge_read(volume, masks, verdict)
    judge_flag(study, masks, verdict)
    return verdict


def unreached(study: Study, error: OSError) -> Verdict:
    """The verdict of a study whose files the system does not give."""
    verdict = Verdict(study.study_id)
    _unreadable(verdict, "unreadable", error, "Mend or remove the row")
    return verdict


def _unreadable(verdict: Verdict, check: str, error: Exception, remedy: str) -> None:
    """Reject, for now only where the system is the reason."""
    system = _of_the_system(error)
    if system is None:
        verdict.add(Status.REJECT, check, str(error), remedy)
        return
    verdict.lasting = False
    verdict.add(Status.REJECT, check, f"{system.filename or error}: {system.strerror}", "Check its rights and the disk, and verify again")


def _of_the_system(error: BaseException | None) -> OSError | None:
    """The error of the operating system behind another, if it is one that goes without the file's being changed."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _PASSING:
            return error
        error = error.__cause__
    return None


def judge_read(volume: Volume, masks: dict[Column, Mask], verdict: Verdict) -> None:
    """Judge what was read already, into ``verdict``."""
    verdict.content = hashlib.sha256(repr(volume.array.shape).encode() + np.ascontiguousarray(volume.array).tobytes()).hexdigest()[:32]
    for remark in [*volume.remarks, *(r for mask in masks.values() for r in mask.remarks)]:
        verdict.facts.setdefault("remarks", []).append(str(remark))
        if not remark.harmless:
            verdict.add(Status.WARN, remark.check, remark.text, remark.remedy)
    verdict.facts |= {"shape": list(volume.array.shape), "modality": str(volume.modality), "intensity": str(volume.intensity)}
    verdict.facts["acquisition"] = {k: v for k, v in volume.tags.items() if isinstance(v, (str, int, float, bool))}
    if volume.geometry is not None:
        verdict.facts["spacing_mm"] = [round(mm, 4) for mm in volume.geometry.spacing_mm]
    if volume.modality is Modality.CT and volume.intensity is Intensity.HU and volume.geometry is not None:
        _judge_ct(volume, volume.geometry.spacing_mm, masks, verdict)
    else:
        _judge_picture(volume, verdict)


def _read_masks(study: Study, volume: Volume, verdict: Verdict) -> dict[Column, Mask]:
    masks = {}
    for kind, path in study.masks.items():
        try:
            masks[kind] = read_mask(path, kind, volume, study.mask_schemes.get(kind, ""))
        except (StudyError, OSError) as error:
            check = "laterality" if isinstance(error, LateralityError) else "mask"
            _unreadable(verdict, check, error, "Mend the mask, or leave its cell empty")
    return masks


def _judge_ct(volume: Volume, spacing: tuple[float, float, float], masks: dict[Column, Mask], verdict: Verdict) -> None:
    slices = len(volume.array)
    apart = max(spacing)  # of a coronal series another axis than the first
    if apart > _UNUSABLE_MM:
        verdict.add(Status.REJECT, "spacing", f"slices lie {apart:.1f} mm apart", f"Give a series with at most {_UNUSABLE_MM:.0f} mm")
        return
    if apart > _THICK_MM:
        verdict.add(Status.WARN, "spacing", f"slices lie {apart:.1f} mm apart", "Prefer a thinner reconstruction")
    if slices < _FEW_SLICES:
        verdict.add(Status.WARN, "slices", f"only {slices} slices", "Check that the series is whole")
    if volume.tags.get("contrast"):
        verdict.add(Status.WARN, "contrast", "the header names a contrast agent", "Vessels are brighter; keep such studies apart or say so")
    if not _plausible_hu(volume, verdict):
        return
    strides = [max(1, round(_COARSE_MM / mm)) for mm in spacing[1:]]
    coarse = Volume(np.ascontiguousarray(volume.array[:, :: strides[0], :: strides[1]]), None, Intensity.HU)
    coarse_mm = (spacing[0], spacing[1] * strides[0], spacing[2] * strides[1])
    try:
        thorax = find_thorax(coarse, coarse_mm)
    except StudyError as error:
        verdict.add(Status.REJECT, "lungs", str(error), "Check units and field of view")
        return
    _judge_lungs(thorax, coarse.array, coarse_mm, verdict)
    judge_masks(masks, thorax.lungs, strides, verdict)


def _plausible_hu(volume: Volume, verdict: Verdict) -> bool:
    some = volume.array[:, ::3, ::3]
    tissue = float(((some > _TISSUE_HU[0]) & (some < _TISSUE_HU[1])).mean())
    air = float((some < -700).mean())
    verdict.facts |= {"tissue_share": round(tissue, 3), "air_share": round(air, 3)}
    if air < 0.02 or tissue < 0.02:
        verdict.add(
            Status.REJECT, "hu", f"{100 * air:.1f} % of the voxels are air (below -700 HU) and {100 * tissue:.1f} % soft tissue",
            "These are hardly HU of a chest; check slope, intercept and window",
        )  # fmt: skip
        return False
    return True


def _judge_lungs(thorax: Thorax, array: NDArray[np.int16], mm: tuple[float, float, float], verdict: Verdict) -> None:
    found = thorax.lungs > 0
    ml = float(found.sum()) * float(np.prod(mm)) / 1000
    verdict.facts["lungs_ml"] = round(ml)
    if ml < _LEAST_ML:
        verdict.add(Status.REJECT, "lungs", f"only {ml:.0f} ml of lung were found", "Check that the series shows the chest")
        return
    if not LUNG_ML[0] <= ml <= LUNG_ML[1]:
        said = f"{ml:.0f} ml of lung were found, outside {LUNG_ML[0]:.0f} to {LUNG_ML[1]:.0f} ml"
        verdict.add(Status.WARN, "lungs", said, "Look at the study")
    right, left = (int((thorax.lungs == code).sum()) for code in (LungCode.RIGHT, LungCode.LEFT))
    if min(right, left) < _ONE_SIDED * max(right, left):
        side, share = ("right", right / left) if right < left else ("left", left / right)
        verdict.add(
            Status.WARN, "lungs", f"the {side} lung that was found holds {100 * share:.0f} % of the other's air",
            "Look at the study: of a lung that is white or was taken out, patches see little",
        )  # fmt: skip
    area = found.sum(axis=(1, 2))
    for size, name in ((int(area[:2].max()), "lowest"), (int(area[-2:].max()), "highest")):  # the finder leaves out the last plane
        if size > _CUT_SHARE * area.max():
            verdict.add(
                Status.REJECT if size > _CUT_REJECTED * area.max() else Status.WARN,
                "field_of_view", f"the {name} slice shows {100 * size / area.max():.0f} % of the widest lung area",
                "The lungs are cut; give the whole series",
            )  # fmt: skip
    _judge_border(array, mm, thorax.body_box, verdict)


def _judge_border(array: NDArray[np.int16], mm: tuple[float, float, float], body: Box, verdict: Verdict) -> None:
    """Lung along the edge of the image with body on both sides of it: the reconstruction cuts the chest."""
    reach = {1: (body.y0, array.shape[1] - body.y1), 2: (body.x0, array.shape[2] - body.x1)}
    for axis in (1, 2):
        square_cm = mm[0] * mm[3 - axis] / 100
        for end in (0, -1):
            if reach[axis][end] * mm[axis] > _REACH_MM:
                continue  # the body ends before this edge; what is dense there is the table
            edge = np.take(array, end, axis=axis)
            tissue = (edge > _TISSUE_HU[0]) & (edge < _TISSUE_HU[1])
            between = np.logical_or.accumulate(tissue, axis=1) & np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
            airy = between & (edge > _LUNG_HU[0]) & (edge < _LUNG_HU[1])
            solid = ndimage.binary_opening(airy, np.ones([max(1, round(_LUNG_WIDE_MM / m)) for m in (mm[0], mm[3 - axis])], bool))
            lung = float(solid.sum()) * square_cm  # clothes, blankets and the table's foam are thinner than any lung
            if lung > _BORDER_CM2:
                said = f"lung lies along the image's border over {lung:.0f} square cm"
                verdict.add(Status.REJECT, "field_of_view", said, "The reconstruction cuts the lungs; give one with a larger field of view")


def _judge_picture(volume: Volume, verdict: Verdict) -> None:
    rows, columns = volume.array.shape[1:]
    if min(rows, columns) < _SMALL:
        status = Status.REJECT if min(rows, columns) < _SMALL / 2 else Status.WARN
        verdict.add(status, "size", f"the picture has {columns}x{rows} pixels", f"Prefer one of at least {_SMALL} pixels")
    plane = volume.array[0]
    unlike = unlike_radiograph(plane.astype(np.float32)) if volume.modality is Modality.CXR else ""
    if unlike:
        verdict.add(Status.WARN, "modality", f"the picture does not look like a frontal radiograph: {unlike}", "Check the modality column")
    low, high = np.percentile(plane, [2, 98])
    share = (high - low) / (RELATIVE_12_BIT if may_be_12_bit(volume) else RELATIVE_MAX)
    if share < _LEAST_CONTRAST:
        verdict.add(Status.REJECT, "contrast", f"nearly all pixels lie within {100 * share:.1f} % of the range", "Export it again")


def find_duplicates(studies: Iterable[Study], verdicts: Iterable[Verdict]) -> None:
    """Add findings for images of equal content: rejected across patients or splits, a warning within one patient."""
    first: dict[str, Study] = {}
    for study, verdict in zip(studies, verdicts, strict=True):
        if not verdict.content:
            continue
        other = first.setdefault(verdict.content, study)
        if other is study:
            continue
        said = f"the image equals that of study {other.study_id}"
        if study.patient_id != other.patient_id:
            verdict.add(Status.REJECT, "duplicate", f"{said}, of another patient ({other.patient_id})", "Find out whose it is; remove one")
        elif (study.split, study.fold) != (other.split, other.fold):
            verdict.add(Status.REJECT, "duplicate", f"{said}, in another split", "Remove one")
        else:
            verdict.add(Status.WARN, "duplicate", said, "Remove one, or it counts twice")
