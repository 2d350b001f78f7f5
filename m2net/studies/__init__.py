"""A study as the hospital has it: manifest, readers, geometry, lungs, splits."""

from m2net.studies.geometry import Geometry, Orientation, to_lps
from m2net.studies.lungs import Box, Thorax, find_thorax
from m2net.studies.manifest import Manifest, Study, read_manifest, write_manifest
from m2net.studies.readers import PICTURE_ENDINGS, VOLUME_ENDINGS, read_image
from m2net.studies.splits import assign_folds, assign_parts, part_of, write_assignment
from m2net.studies.volume import Volume, read_mask, write_on_own_grid

__all__ = [
    "PICTURE_ENDINGS",
    "VOLUME_ENDINGS",
    "Box",
    "Geometry",
    "Manifest",
    "Orientation",
    "Study",
    "Thorax",
    "Volume",
    "assign_folds",
    "assign_parts",
    "find_thorax",
    "part_of",
    "read_image",
    "read_manifest",
    "read_mask",
    "to_lps",
    "write_assignment",
    "write_manifest",
    "write_on_own_grid",
]
