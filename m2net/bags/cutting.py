"""From a prepared study and places to a bag: pixels, positions and targets."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from m2net.bags.hull import TISSUE, lungs_hull
from m2net.bags.inputs import InputSpec, LungsFrom
from m2net.bags.normalising import value_map
from m2net.bags.prepared import Prepared
from m2net.bags.sampling import Cut
from m2net.batch import BagBatch
from m2net.errors import StudyError
from m2net.vocabulary import MASK_UNLABELLED, UNLABELLED, Column, Modality

T = TypeVar("T", bound=np.generic)


def cut_bag(study: Prepared, cut: Cut, spec: InputSpec, study_id: str, draw: int, masks: tuple[str, ...] = ()) -> BagBatch:
    """Cut one study into a bag.

    Args:
        study: prepared study.
        cut: places of N instances.
        spec: patch size and neighbouring slices.
        study_id: name of the study.
        draw: key of this bag's random draws.
        masks: names of the masks that travel as dense targets; -1 everywhere where the study has none.

    Returns:
        A batch of one bag; instances (N, slices, H, W) int16.
    """
    count, patch = len(cut.corner), spec.patch
    side = cut.side or patch
    offsets = _slice_offsets(study, spec)
    slices = np.clip(cut.corner[:, :1] + offsets[None], 0, len(study.image) - 1)  # (N, slices)
    instances = np.empty((count, len(offsets), patch, patch), np.int16)
    put, beyond = value_map(study, spec), _beyond(study, spec)
    for n, (_, row, column) in enumerate(cut.corner):
        for channel, z in enumerate(slices[n]):
            plane = _window(_plane(study, z, spec), row, column, side, beyond)
            instances[n, channel] = put(plane if side == patch else _resize(plane, patch))
    position, known, step = _positions(study, cut, patch)
    batch = BagBatch(
        instances=torch.from_numpy(instances),
        bag_index=torch.zeros(count, dtype=torch.int64),
        position=torch.from_numpy(position),
        position_known=torch.from_numpy(known),
        position_step=torch.from_numpy(step),
        corner=torch.from_numpy(cut.corner),
        side=torch.full((count,), side, dtype=torch.int64),
        study_ids=[study_id],
        draws=torch.tensor([draw], dtype=torch.int64),
    )
    if cut.owned is not None:
        batch.owned = torch.from_numpy(_owned(cut.owned, patch) & _inside(study, cut, patch))
    missed = _outside(study, cut, cut.owned, patch) if masks and cut.owned is not None else None
    for name in masks:
        _add_dense(batch, study, cut, name, patch, missed)
    return batch


def _slice_offsets(study: Prepared, spec: InputSpec) -> NDArray[np.int64]:
    half = spec.slices // 2
    step = 1 if study.spacing_mm is None else max(1, round(spec.slice_gap_mm / study.spacing_mm[0]))
    return np.arange(-half, half + 1) * step


def _window(plane: NDArray[T], row: int, column: int, patch: int, fill: int) -> NDArray[T]:
    """A patch x patch window of a plane, filled where it lies outside."""
    height, width = plane.shape
    row0, row1, column0, column1 = max(row, 0), min(row + patch, height), max(column, 0), min(column + patch, width)
    if (row0, row1, column0, column1) == (row, row + patch, column, column + patch):
        return plane[row0:row1, column0:column1]
    out = np.full((patch, patch), fill, plane.dtype)
    if row1 > row0 and column1 > column0:
        out[row0 - row : row1 - row, column0 - column : column1 - column] = plane[row0:row1, column0:column1]
    return out


def _plane(study: Prepared, z: int, spec: InputSpec) -> NDArray[np.int16]:
    plane = np.asarray(study.image[z])
    if not spec.lungs_only:
        return plane
    name = str(Column.LUNGS) if spec.lungs_from == LungsFrom.MANIFEST else "found_lungs"
    if name not in study.masks:
        raise StudyError(
            "the model keeps the manifest's lungs only, and the study has no lung mask", expected="a mask in the lungs column",
            remedy="Give one, or train with data.input.lungs_from: found or hull",
        )  # fmt: skip
    codes = np.asarray(study.masks[name][z])
    lungs = (codes != 0) & (codes != MASK_UNLABELLED)
    masked = plane.copy()
    masked[~(lungs_hull(lungs) if spec.keeps_hull else lungs)] = _beyond(study, spec)
    return masked


def _beyond(study: Prepared, spec: InputSpec) -> int:
    """Stored value of what the model is not shown, and of what lies beyond the slice."""
    return TISSUE[study.intensity] if spec.keeps_hull else study.air


def _resize(plane: NDArray[np.int16], patch: int) -> NDArray[np.int16]:
    """With a triangle filter as wide as the step, so that reduction does not alias."""
    resized = Image.fromarray(plane.astype(np.float32)).resize((patch, patch), Image.Resampling.BILINEAR)
    return np.asarray(np.rint(np.asarray(resized)), dtype=np.int16)


def _positions(study: Prepared, cut: Cut, patch: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    body, lungs = study.body_box, study.lung_box
    side = cut.side or patch
    centre = cut.corner + np.array([0.5, side / 2, side / 2])  # edges of voxels, z y x
    width, down = body.x1 - body.x0, body.y1 - body.y0
    x = 2 * (centre[:, 2] - body.x0) / width - 1
    row = 2 * (centre[:, 1] - body.y0) / down - 1
    none = np.zeros_like(x)
    step = np.zeros((len(x), 2, 3), np.float32)
    step[:, 1, 0] = 2 / width * side / patch
    if study.modality is Modality.CXR:  # rows run downwards, not backwards
        axes, there = (x, none, -row), (True, False, True)
        step[:, 0, 2] = -2 / down * side / patch
    else:
        has_z = study.spacing_mm is not None
        z = 2 * (centre[:, 0] - lungs.z0) / (lungs.z1 - lungs.z0) - 1
        axes, there = (x, row, z if has_z else none), (True, True, has_z)
        step[:, 0, 1] = 2 / down * side / patch
    position = np.column_stack(axes).astype(np.float32)
    known = np.tile(np.array(there), (len(position), 1))
    return position, known, step


def _owned(ranges: NDArray[np.int64], patch: int) -> NDArray[np.bool_]:
    along = np.arange(patch)
    rows = (along >= ranges[:, 0:1]) & (along < ranges[:, 1:2])
    columns = (along >= ranges[:, 2:3]) & (along < ranges[:, 3:4])
    return rows[:, :, None] & columns[:, None, :]


def _inside(study: Prepared, cut: Cut, patch: int) -> NDArray[np.bool_]:
    """Pixels (N, H, W) that lie in the image; the rest of an instance is padding."""
    offset = ((np.arange(patch) + 0.5) * (cut.side or patch) / patch).astype(int)
    at = [cut.corner[:, axis : axis + 1] + offset for axis in (1, 2)]
    rows, columns = ((place >= 0) & (place < size) for place, size in zip(at, study.image.shape[1:], strict=True))
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def _outside(study: Prepared, cut: Cut, owned: NDArray[np.int64], patch: int) -> NDArray[np.bool_]:
    """Voxels of the store (Z, Y, X) that no instance stands for."""
    outside = np.ones(study.image.shape, bool)
    edges = np.rint(owned * ((cut.side or patch) / patch)).astype(np.int64)
    for (z, row, column), (row0, row1, column0, column1) in zip(cut.corner, edges, strict=True):
        rows, columns = slice(max(0, row + row0), max(0, row + row1)), slice(max(0, column + column0), max(0, column + column1))
        outside[z, rows, columns] = False
    return outside


def _add_dense(batch: BagBatch, study: Prepared, cut: Cut, name: str, patch: int, missed: NDArray[np.bool_] | None) -> None:
    """Targets (N, H, W); in full coverage only owned pixels keep theirs, and what no instance covers (``missed``) is counted."""
    codes = 256
    if name not in study.masks:
        batch.dense[name] = torch.full((len(cut.corner), patch, patch), UNLABELLED, dtype=torch.int64)
        batch.uncovered[name] = torch.zeros((1, codes), dtype=torch.int64)
        return
    mask = study.masks[name]
    side = cut.side or patch
    pick = ((np.arange(patch) + 0.5) * side / patch).astype(int)
    windows = np.stack([_window(mask[z], row, column, side, MASK_UNLABELLED)[pick[:, None], pick] for z, row, column in cut.corner])
    target = windows.astype(np.int64)
    target[windows == MASK_UNLABELLED] = UNLABELLED
    uncovered = np.zeros(codes, np.int64)
    if batch.owned is not None and missed is not None:
        target[~batch.owned.numpy()] = UNLABELLED
        in_pixels = (patch / side) ** 2  # of instances
        uncovered = np.rint(np.bincount(np.asarray(mask)[missed], minlength=codes) * in_pixels).astype(np.int64)
        uncovered[[0, MASK_UNLABELLED]] = 0
    batch.dense[name] = torch.from_numpy(target)
    batch.uncovered[name] = torch.from_numpy(uncovered)[None]


def join(batches: list[BagBatch]) -> BagBatch:
    """Lay batches end to end; they must carry the same targets."""
    if len(batches) == 1:
        return batches[0]
    shift, index = 0, []
    for batch in batches:
        index.append(batch.bag_index + shift)
        shift += batch.num_bags

    def together(name: str) -> dict[str, torch.Tensor]:
        return {key: torch.cat([getattr(b, name)[key] for b in batches]) for key in getattr(batches[0], name)}

    owned = [b.owned for b in batches if b.owned is not None]
    return BagBatch(
        instances=torch.cat([b.instances for b in batches]),
        bag_index=torch.cat(index),
        position=torch.cat([b.position for b in batches]),
        position_known=torch.cat([b.position_known for b in batches]),
        position_step=torch.cat([b.position_step for b in batches]),
        corner=torch.cat([b.corner for b in batches]),
        side=torch.cat([b.side for b in batches]),
        study_ids=[name for b in batches for name in b.study_ids],
        draws=torch.cat([b.draws for b in batches]),
        dense=together("dense"),
        bag_targets=together("bag_targets"),
        uncovered=together("uncovered"),
        owned=torch.cat(owned) if len(owned) == len(batches) else None,
    )
