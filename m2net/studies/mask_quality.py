"""Masks of a study against its lungs, its labels and each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2net.studies.masks import Mask
from m2net.studies.study import Study
from m2net.studies.verdict import Status, Verdict
from m2net.vocabulary import MASK_UNLABELLED, Column, Lobe, LungCode

_MASK_SHARE = 0.6
_INFECTION_SHARE = 0.5
_SWAPPED = 0.5  # of a one-sided mask's lung in the other lung: it is that one
_BOTH = 0.35


def judge_masks(masks: dict[Column, Mask], found: NDArray[np.uint8], strides: list[int], verdict: Verdict) -> None:
    """Masks against the lungs that were found (codes of ``LungCode``)."""
    lungs = found > 0
    for kind in (Column.LOBES, Column.LUNGS):
        if kind not in masks:
            continue
        array = masks[kind].array[:, :: strides[0], :: strides[1]]
        inside = (array > 0) & (array < MASK_UNLABELLED)
        if not inside.any():
            verdict.add(Status.REJECT, "mask", f"the {kind} mask is empty", "Mend the mask, or leave its cell empty")
            continue
        both = float((inside & lungs).sum())
        of_mask, of_lungs = both / float(inside.sum()), both / max(1.0, float(lungs.sum()))
        if max(of_mask, of_lungs) < _MASK_SHARE:
            said = f"only {100 * of_mask:.0f} % of the {kind} mask lies in the lungs found, and covers {100 * of_lungs:.0f} % of them"
            verdict.add(Status.REJECT, "mask", said, "The mask lies elsewhere, or belongs to another study")
            continue
        if of_mask < _MASK_SHARE:
            said = f"the lungs found are {100 * of_mask:.0f} % of the {kind} mask"
            verdict.add(Status.WARN, "mask", said, "Look at the study: patches are cut where lungs are found, and miss the rest")
        if _one_sided(kind, array, found, verdict):
            continue
        missing = _missing(kind, array)
        if missing:
            verdict.add(Status.WARN, "mask", f"the {kind} mask lacks the {', '.join(missing)}", "Right after surgery; else mend the mask")
    if Column.INFECTION in masks:
        _judge_infection(masks, lungs, strides, verdict)


def _one_sided(kind: Column, array: NDArray[np.uint8], found: NDArray[np.uint8], verdict: Verdict) -> bool:
    """Whether a mask of one side only is refused: it lies in the other lung, or in both."""
    left = [code for code in Lobe if code.is_left] if kind is Column.LOBES else [LungCode.LEFT]
    right = [code for code in Lobe if not code.is_left] if kind is Column.LOBES else [LungCode.RIGHT]
    drawn = {LungCode.LEFT: np.isin(array, left), LungCode.RIGHT: np.isin(array, right)}
    there = [side for side, mask in drawn.items() if mask.any()]
    if len(there) != 1 or (kind is Column.LUNGS and (array == LungCode.SIDE_UNKNOWN).any()):
        return False
    side, mask = there[0], drawn[there[0]]
    other = LungCode.LEFT if side is LungCode.RIGHT else LungCode.RIGHT
    own, across = (int((mask & (found == code)).sum()) for code in (side, other))
    share = across / max(1, own + across)
    swapped, both = share > _SWAPPED, share > _BOTH and across > _SWAPPED * int((found == other).sum())
    if swapped:
        said = f"{100 * share:.0f} % of what the {kind} mask calls {side.name.lower()} lie in the {other.name.lower()} lung found"
        verdict.add(Status.REJECT, "laterality", said, "Check the codes, and whether image or mask was flipped")
    elif both:
        remedy = "Name its code in lungs_scheme (lungs_one_code), or mend the mask" if kind is Column.LUNGS else "Mend the mask"
        verdict.add(Status.REJECT, "laterality", f"the {kind} mask calls both lungs {side.name.lower()}", remedy)
    return swapped or both


def _judge_infection(masks: dict[Column, Mask], lungs: NDArray[np.bool_], strides: list[int], verdict: Verdict) -> None:
    """Infection lies in the lungs: those of a mask, else the rectangle around those found, slice by slice."""
    codes = masks[Column.INFECTION].array[:, :: strides[0], :: strides[1]]
    infected = (codes > 0) & (codes < MASK_UNLABELLED)
    if not infected.any():
        return  # a study without infection
    drawn = next((masks[kind].array[:, :: strides[0], :: strides[1]] for kind in (Column.LUNGS, Column.LOBES) if kind in masks), None)
    within = _spanned(lungs) if drawn is None else (drawn > 0) & (drawn < MASK_UNLABELLED)
    share = float((infected & within).sum()) / float(infected.sum())
    if share < _INFECTION_SHARE:
        said = f"only {100 * share:.0f} % of the infection mask lies in the lungs"
        verdict.add(Status.WARN, "mask", said, "The mask may lie elsewhere, or belong to another study; look at it")


def _spanned(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Slice by slice the rectangle around the lungs found: consolidation is no air."""
    out = np.zeros_like(lungs)
    for plane, filled in zip(lungs, out, strict=True):
        if plane.any():
            rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
            filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return out


def _missing(kind: Column, array: NDArray[np.uint8]) -> list[str]:
    there = {int(code) for code in np.unique(array)}
    if kind is Column.LOBES:
        return [f"{lobe.title.lower()} lobe" for lobe in Lobe if lobe not in there]
    return [f"{side.name.lower()} lung" for side in (LungCode.RIGHT, LungCode.LEFT) if not there & {side, LungCode.SIDE_UNKNOWN}]


def judge_flag(study: Study, masks: dict[Column, Mask], verdict: Verdict) -> None:
    """Whether the column ``infected`` and the infection mask say the same."""
    if study.infected is None or Column.INFECTION not in masks:
        return
    codes = masks[Column.INFECTION].array
    drawn = bool(((codes > 0) & (codes < MASK_UNLABELLED)).any())
    if drawn is not study.infected and not (codes == MASK_UNLABELLED).any():
        said = f"infected is {int(study.infected)} while the infection mask holds {'some' if drawn else 'none'}"
        verdict.add(Status.WARN, "labels", said, "Mend the one that is wrong")
