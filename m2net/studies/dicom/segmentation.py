"""DICOM-SEG: labelled voxels with the names that the file gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.errors import StudyError
from m2net.studies.geometry import Geometry


def read_segmentation(path: Path) -> tuple[NDArray[Any], Geometry, dict[int, str]]:
    """Read a segmentation object.

    Returns:
        (Z, Y, X) segment numbers on the object's own axes, its grid, and the segments' labels by number.

    Raises:
        StudyError: not a readable binary segmentation on a regular grid.
    """
    import highdicom

    try:
        segmentation = highdicom.seg.segread(path)
        names = {n: str(segmentation.get_segment_description(n).SegmentLabel) for n in segmentation.segment_numbers}
        volume = segmentation.get_volume(combine_segments=True, skip_overlap_checks=False)
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise StudyError(
            f"the segmentation {path} cannot be read ({' '.join(str(error).split())[:120]})",
            expected="a binary DICOM-SEG on a regular grid",
            remedy="Export it again, without overlapping segments",
        ) from error  # fmt: skip
    affine = np.asarray(volume.affine)  # LPS, columns along the array's axes (slice, row, column)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing
    return np.asarray(volume.array), Geometry.build(spacing, affine[:3, 3], axes[:, ::-1]), names
