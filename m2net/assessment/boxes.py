"""Boxes around what a saliency map holds, and how well they meet the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class InfectionBox:
    """A box around one connected component in one slice.

    Attributes:
        slice_index: slice of the LPS volume, from the lowest.
        row0: first row (anterior).
        row1: one past the last row.
        column0: first column (the patient's right).
        column1: one past the last column.
        score: highest saliency inside, 0 to 1.
    """

    slice_index: int
    row0: int
    row1: int
    column0: int
    column1: int
    score: float

    def overlap(self, other: InfectionBox) -> float:
        """Intersection over union; 0 in different slices."""
        if self.slice_index != other.slice_index:
            return 0.0
        rows = min(self.row1, other.row1) - max(self.row0, other.row0)
        columns = min(self.column1, other.column1) - max(self.column0, other.column0)
        both = max(0, rows) * max(0, columns)
        return both / (self.area + other.area - both)

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.row1 - self.row0) * (self.column1 - self.column0)


def find_boxes(saliency: NDArray[np.float32], threshold: float, least_pixels: int) -> list[InfectionBox]:
    """Connected components of ``saliency >= threshold``, slice by slice, of at least ``least_pixels``, highest score first.

    Args:
        saliency: (Z, Y, X).
        threshold: lowest saliency inside.
        least_pixels: smaller components are left out.
    """
    boxes = []
    for z, plane in enumerate(saliency):
        labels, count = ndimage.label(plane >= threshold)
        if not count:
            continue
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        for k, place in enumerate(ndimage.find_objects(labels), start=1):
            if place is not None and sizes[k] >= least_pixels:
                rows, columns = place
                top = float(plane[place][labels[place] == k].max())
                boxes.append(InfectionBox(z, rows.start, rows.stop, columns.start, columns.stop, top))
    return sorted(boxes, key=lambda box: -box.score)


def match(found: list[InfectionBox], true: list[InfectionBox], least_overlap: float) -> tuple[int, int]:
    """(true boxes met, found boxes that meet one) at this intersection over union; each box is matched once, highest score first."""
    left = list(true)
    hits = 0
    for box in found:
        best = max(left, key=box.overlap, default=None)
        if best is not None and box.overlap(best) >= least_overlap:
            left.remove(best)
            hits += 1
    return len(true) - len(left), hits
