"""Where would one point without any model? At the densest place deep in the found lungs: what a pointing game must be held against.

    python experiments/weakly_supervised/densest.py MANIFEST STORE OUT

Writes localisation.json and localisation.csv into OUT, as m2net localise does. Depth and smoothing were chosen on validation patients.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from m2net.assessment.explainer import Judgement, SliceFinding
from m2net.assessment.localisation import THRESHOLDS, localise
from m2net.bags import Prepared
from m2net.bags.store import Store
from m2net.cli.options import progress
from m2net.reports.localisation import write_localisation
from m2net.studies import read_manifest
from m2net.vocabulary import Split

NAME = "densest"
DEPTH_MM, SMOOTH_MM = 12.0, 4.0
SPACING_MM = 4.0
RANGE_HU = (-1000.0, 200.0)


class Densest:
    """A judge that calls everybody infected and points at dense lung."""

    def judge(self, prepared: Prepared, methods: Sequence[str], *, only_infected: bool = False) -> Judgement:
        """Smoothed density of the lungs that were found, from 12 mm within them, as saliency."""
        assert prepared.spacing_mm is not None
        _, *pixel = prepared.spacing_mm
        lungs = np.asarray(prepared.masks["found_lungs"]) > 0
        deep = np.stack([ndimage.distance_transform_edt(plane, sampling=pixel) > DEPTH_MM for plane in lungs])
        density = ndimage.gaussian_filter(np.asarray(prepared.image, np.float32), (0, *(SMOOTH_MM / mm for mm in pixel)))
        scaled = ((density - RANGE_HU[0]) / (RANGE_HU[1] - RANGE_HU[0])).clip(0.01, 1)
        box = prepared.lung_box
        return Judgement(
            probabilities={}, predicted="", explained="", infected=True,
            slices=[SliceFinding(z, 0.0, {}) for z in range(box.z0, box.z1)],
            saliency={NAME: np.where(deep, scaled, 0).astype(np.float32)}, side=max(box.y1 - box.y0, box.x1 - box.x0),
        )  # fmt: skip


def main(manifest: Path, store: Path, out: Path) -> None:
    """Judge the validation and the test part."""
    studies, prepared = read_manifest(manifest), Store(store, SPACING_MM)
    judged = {}
    for split in (Split.VAL, Split.TEST):
        part = [s for s in studies if s.split is split]
        judged[split] = [localise(Densest(), s, prepared.open(s), [NAME], THRESHOLDS) for s in progress(part, f"{split}", len(part))]
    print(write_localisation(out, judged[Split.VAL], judged[Split.TEST], [NAME], [], "1"))


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
