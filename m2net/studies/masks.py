"""Masks on the grid of their image: read, named, put in place, and held against the body's sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from m2net.errors import GeometryError, LateralityError, StudyError
from m2net.files import is_litter
from m2net.studies.dicom.headers import read_header
from m2net.studies.files import VOLUME_ENDINGS, read_volume_file
from m2net.studies.geometry import Geometry, to_lps
from m2net.studies.labels import OWN_SCHEME, SCHEMES, meant, not_understood, recode, schemes_of
from m2net.studies.pictures import PICTURE_ENDINGS, grey_pixels
from m2net.studies.remarks import Remark
from m2net.studies.volume import Volume
from m2net.vocabulary import MASK_CODES, MASK_UNLABELLED, SCHEME_COLUMNS, Column, Lobe, LungCode

_LEAST_VOXELS = 50
_BINARY = {0, 255}


@dataclass(frozen=True)
class Mask:
    """A mask on the LPS grid of its image.

    Attributes:
        array: (Z, Y, X) uint8, the codes of DESIGN (255 = unlabelled).
        remarks: what was found and done.
    """

    array: NDArray[np.uint8]
    remarks: tuple[Remark, ...] = ()


def read_mask(path: Path, kind: Column, like: Volume, scheme: str = "") -> Mask:
    """Read a mask onto the grid of ``like``.

    Codes become m2net's by name where the file names them (TotalSegmentator's label table or its folder of one file a structure,
    3D Slicer's .seg.nrrd, DICOM-SEG); by ``scheme`` where the manifest names one; otherwise they must be m2net's own.

    Args:
        path: NIfTI/MHA/NRRD file, DICOM-SEG file, folder of one file a structure, or a picture for a study that is a picture.
        kind: lobes, lungs or infection; fixes the codes that may occur.
        like: the image that the mask belongs to.
        scheme: one of ``schemes_of(kind)``, or "".

    Raises:
        StudyError: unreadable, codes outside the vocabulary, no label of this kind, left and right swapped.
        GeometryError: a picture of another size, or a volume that does not meet its image.
    """
    _must_exist(path, kind)
    if path.is_file() and path.name.lower().endswith(PICTURE_ENDINGS):
        mask = Mask(_picture(path, kind, like, scheme))
    else:
        codes, geometry, remarks = _volume(path, kind, scheme)
        mask = _place(path, kind, codes, geometry, like, remarks)
    _check(path, kind, mask.array)
    return mask


def read_mask_alone(path: Path, kind: Column, scheme: str = "") -> tuple[NDArray[np.uint8], Geometry]:
    """Read a volume mask whose image is not at hand, on its own grid.

    Args:
        path: NIfTI/MHA/NRRD file, DICOM-SEG file, or folder of one file a structure.
        kind: lobes, lungs or infection.
        scheme: one of ``schemes_of(kind)``, or "".

    Returns:
        (Z, Y, X) uint8 on LPS axes in m2net's codes, and its geometry.

    Raises:
        StudyError: as ``read_mask``, and for a picture.
        GeometryError: its axes are not at right angles.
    """
    _must_exist(path, kind)
    if path.is_file() and path.name.lower().endswith(PICTURE_ENDINGS):
        raise StudyError(f"the {kind} mask {path} is a picture", expected="a volume")
    codes, geometry, _ = _volume(path, kind, scheme)
    array, turned, _ = to_lps(codes, geometry)
    _check(path, kind, array)
    return array, turned


def _must_exist(path: Path, kind: Column) -> None:
    if not path.exists():
        raise StudyError(f"the {kind} mask {path} does not exist", expected="a mask", remedy="Check the path")


def _check(path: Path, kind: Column, array: NDArray[np.uint8]) -> None:
    found = {int(code) for code in np.unique(array)}
    if not found <= MASK_CODES[kind]:
        raise StudyError(
            f"the {kind} mask {path} holds the codes {sorted(found - MASK_CODES[kind])[:5]}", expected=f"only {sorted(MASK_CODES[kind])}",
            remedy=f"Name its codes in {SCHEME_COLUMNS[kind]} ({', '.join(schemes_of(kind))}), or recode it",
        )  # fmt: skip
    _check_sides(path, kind, array)


def _picture(path: Path, kind: Column, like: Volume, scheme: str) -> NDArray[np.uint8]:
    pixels = grey_pixels(path)[None]
    if pixels.shape != like.array.shape:
        raise GeometryError(
            f"the {kind} mask {path} has {pixels.shape[1:]} pixels", expected=f"{like.array.shape[1:]} as its image",
            remedy="A picture has no geometry to resample by; give the mask in the image's size",
        )  # fmt: skip
    return _coded(path, pixels, {}, kind, scheme)


def _volume(path: Path, kind: Column, scheme: str) -> tuple[NDArray[np.uint8], Geometry, tuple[Remark, ...]]:
    if path.is_dir():
        return _folder(path, kind)
    if not path.name.lower().endswith(VOLUME_ENDINGS):
        header = read_header(path, ["Modality"])
        if header is not None and header.get("Modality") == "SEG":
            from m2net.studies.dicom.segmentation import read_segmentation

            array, geometry, names = read_segmentation(path)
            return recode(path, array, names, kind), geometry, _left_out(names, kind)
        raise StudyError(
            f"the {kind} mask {path} is of no kind that m2net reads",
            expected="NIfTI, MHA, NRRD, DICOM-SEG or a picture",
            remedy="Convert it",
        )
    stored = read_volume_file(path)
    present = np.unique(stored.values) if stored.names and not scheme else ()
    there = {code: name for code, name in stored.names.items() if code and code in present}
    codes = _coded(path, stored.values, stored.names if there else {}, kind, scheme)
    return codes, stored.geometry, (*stored.remarks, *_left_out(there, kind))


def _left_out(names: dict[int, str], kind: Column) -> tuple[Remark, ...]:
    """What is said of labels, all of which are there."""
    lost = not_understood(names, kind)
    said = f"Labels that were not understood as {kind} count as background: {', '.join(lost[:6])}."
    return (Remark("mask", said, "Rename them, or leave them out of the mask"),) if lost else ()


def _coded(path: Path, values: NDArray[Any], names: dict[int, str], kind: Column, scheme: str) -> NDArray[np.uint8]:
    if not np.array_equal(values, np.rint(values)):
        raise StudyError(
            f"the {kind} mask {path} holds fractions",
            expected="whole codes",
            remedy="Give the label map, not probabilities or a resampled image",
        )
    if scheme and scheme not in schemes_of(kind):
        raise StudyError(f"{SCHEME_COLUMNS[kind]} is {scheme!r}", expected=f"one of {', '.join(schemes_of(kind))}")
    if scheme and scheme != OWN_SCHEME:
        return recode(path, values, SCHEMES[scheme], kind)
    if names:
        return recode(path, values, names, kind)
    if values.min() < 0 or values.max() > MASK_UNLABELLED:
        raise StudyError(
            f"the {kind} mask {path} holds codes from {values.min():.0f} to {values.max():.0f}",
            expected=f"only {sorted(MASK_CODES[kind])}",
            remedy=f"Name its codes in {SCHEME_COLUMNS[kind]} ({', '.join(schemes_of(kind))}), or recode it",
        )  # fmt: skip
    if not scheme and {int(v) for v in np.unique(values)} == _BINARY:
        raise StudyError(
            f"the {kind} mask {path} holds 0 and 255 only, and 255 means unlabelled", expected=f"codes of {kind}",
            remedy=f"Name what 255 is in {SCHEME_COLUMNS[kind]} ({', '.join(schemes_of(kind))}; {OWN_SCHEME}: unlabelled indeed)",
        )  # fmt: skip
    return values.astype(np.uint8)


def _folder(folder: Path, kind: Column) -> tuple[NDArray[np.uint8], Geometry, tuple[Remark, ...]]:
    """One binary file a structure, named as what it holds (TotalSegmentator's default output)."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(VOLUME_ENDINGS) and not is_litter(p))
    named = [(p, code) for p in files if (code := meant(p.name.split(".")[0], kind)) is not None]
    if not named:
        raise StudyError(
            f"{folder} holds no file named as {kind}", expected="files such as lung_upper_lobe_left.nii.gz", remedy="Check the folder"
        )
    first = read_volume_file(named[0][0])
    out = np.zeros(first.values.shape, np.uint8)
    for path, code in named:
        part = read_volume_file(path)
        if part.values.shape != out.shape or not part.geometry.matches(first.geometry, out.shape):
            raise GeometryError(
                f"{path} lies on another grid than {named[0][0].name}", expected="one grid a folder", remedy="Write them again"
            )
        out[part.values > 0] = code
    return out, first.geometry, first.remarks


def _place(path: Path, kind: Column, codes: NDArray[np.uint8], geometry: Geometry, like: Volume, remarks: tuple[Remark, ...]) -> Mask:
    """On the image's LPS grid: by exact turns where the grids agree, else by nearest neighbours with a remark."""
    array, turned, _ = to_lps(codes, geometry)
    if like.geometry is None:
        raise GeometryError(f"the {kind} mask {path} is a volume while its image has no geometry", expected="a picture of the image's size")
    if array.shape == like.array.shape and like.geometry.matches(turned, array.shape):
        return Mask(array, remarks)
    source = turned.place(sitk.GetImageFromArray(array))
    target = like.geometry.place(sitk.Image(like.array.shape[::-1], sitk.sitkUInt8))
    moved = sitk.GetArrayFromImage(sitk.Resample(source, target, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    before = float((array > 0).sum()) * turned.voxel_ml
    after = float((moved > 0).sum()) * like.geometry.voxel_ml
    if before > 0 and after < 0.5 * before:
        raise GeometryError(
            f"the {kind} mask {path} lies elsewhere in the patient than its image ({after:.0f} of {before:.0f} ml inside it)",
            expected="a mask of this study", remedy="Check that image and mask belong together",
        )  # fmt: skip
    said = f"The {kind} mask lay on another grid ({_words(turned, array.shape)}) and was resampled by nearest neighbours."
    return Mask(moved, (*remarks, Remark("mask", said, "Draw or export the mask on the image's own grid")))


def _words(geometry: Geometry, shape: tuple[int, ...]) -> str:
    z, y, x = geometry.spacing_mm
    return f"{shape[2]}x{shape[1]}x{shape[0]} voxels of {x:.2f}x{y:.2f}x{z:.2f} mm"


def _check_sides(path: Path, kind: Column, array: NDArray[np.uint8]) -> None:
    """Left is at higher x than right, and lobes lie in their order from the top, by their centres.

    LPS axes for volumes; pictures are in display convention, where the patient's left is image right as well.
    """
    if kind is Column.LOBES:
        left, right = (np.isin(array, [lobe for lobe in Lobe if lobe.is_left is side]) for side in (True, False))
    elif kind is Column.LUNGS:
        left, right = array == LungCode.LEFT, array == LungCode.RIGHT
    else:
        return
    if min(int(left.sum()), int(right.sum())) >= _LEAST_VOXELS and _centre(left, 2) < _centre(right, 2):
        raise LateralityError(
            f"the {kind} mask {path} has left and right swapped (its left lies on the patient's right)",
            expected="the patient's sides", remedy="Check the codes, and whether image or mask was flipped",
        )  # fmt: skip
    if kind is Column.LOBES and array.shape[0] > 1:
        for upper, lower in ((Lobe.LEFT_UPPER, Lobe.LEFT_LOWER), (Lobe.RIGHT_UPPER, Lobe.RIGHT_LOWER)):
            above, below = array == upper, array == lower
            if min(int(above.sum()), int(below.sum())) >= _LEAST_VOXELS and _centre(above, 0) < _centre(below, 0):
                raise StudyError(
                    f"the lobes mask {path} has its {upper.title.lower()} lobe below its {lower.title.lower()} lobe",
                    expected="upper above lower", remedy="Check the codes, and whether image or mask is upside down",
                )  # fmt: skip


def _centre(mask: NDArray[np.bool_], axis: int) -> float:
    along = mask.sum(axis=tuple(a for a in range(3) if a != axis))
    return float(np.average(np.arange(len(along)), weights=along))
