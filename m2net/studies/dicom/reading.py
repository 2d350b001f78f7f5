"""A CT series from whatever holds it: folder, file, DICOMDIR or zip."""

from __future__ import annotations

from pathlib import Path

from m2net.errors import StudyError
from m2net.studies.dicom.headers import Frame, read_frames
from m2net.studies.dicom.pixels import read_planes
from m2net.studies.dicom.series import choose_series
from m2net.studies.dicom.sources import dicom_files
from m2net.studies.dicom.stack import build_stack, geometry_of, refuse_irregular, repair
from m2net.studies.options import ReadOptions
from m2net.studies.units import settle_hu
from m2net.studies.volume import Volume


def read_dicom(path: Path, options: ReadOptions | None = None) -> Volume:
    """Read one CT series.

    Args:
        path: folder (nested ones too), zip or DICOMDIR, out of which a series is chosen by the rules of ``choose_series``; or one
            file, which stands for its series in the same folder.
        options: series, kernel and repair.

    Raises:
        StudyError: no DICOM image, not CT, several patients, pixels that cannot be decoded, or no HU.
        GeometryError: positions missing, duplicated, uneven or sheared (gantry tilt) and no repair wanted.
    """
    options = options or ReadOptions()
    with dicom_files(path) as files:
        frames = read_frames(files)
        if path in files:
            frames = _series_of(path, frames)
        if not frames:
            raise StudyError(
                f"{path} holds no DICOM image ({len(files)} files looked at)", expected="a folder with a CT series",
                remedy="Check the path, or export the series again",
            )  # fmt: skip
        chosen, remarks = choose_series(path, frames, options)
        stack = build_stack(path, chosen.frames)
        if not options.repair:
            refuse_irregular(path, stack)
        array, padding = read_planes(stack.frames)
    remarks += [*stack.remarks, *padding]
    geometry = geometry_of(stack)
    if options.repair and (stack.sheared or stack.uneven):
        array, geometry, mended = repair(path, array, stack)
        remarks.append(mended)
    array, units = settle_hu(path, array)
    return Volume.from_own(array, geometry, remarks=(*remarks, *units), tags=stack.frames[0].tags)


def _series_of(path: Path, frames: list[Frame]) -> list[Frame]:
    own = [f for f in frames if f.path == path]
    if own and own[0].index is not None:
        return own  # a multi-frame file is a stack by itself
    return [f for f in frames if own and f.series == own[0].series and f.index is None]
