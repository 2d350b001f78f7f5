"""A study as the hospital has it: manifest, readers, geometry, lungs, splits."""

from m2net.studies.files import VOLUME_ENDINGS
from m2net.studies.geometry import Geometry, Orientation, to_lps
from m2net.studies.lungs import Box, Thorax, find_thorax
from m2net.studies.manifest import Fault, Manifest, read_manifest, survey_manifest, write_manifest
from m2net.studies.masks import Mask, read_mask, read_mask_alone
from m2net.studies.options import ReadOptions
from m2net.studies.pictures import PICTURE_ENDINGS
from m2net.studies.readers import read_image
from m2net.studies.remarks import Remark
from m2net.studies.splits import assign_folds, assign_parts, assign_sites, part_of, write_assignment
from m2net.studies.study import Study
from m2net.studies.volume import Volume, write_on_own_grid

__all__ = [
    "PICTURE_ENDINGS",
    "VOLUME_ENDINGS",
    "Box",
    "Fault",
    "Geometry",
    "Manifest",
    "Mask",
    "Orientation",
    "ReadOptions",
    "Remark",
    "Study",
    "Thorax",
    "Volume",
    "assign_folds",
    "assign_parts",
    "assign_sites",
    "find_thorax",
    "part_of",
    "read_image",
    "read_manifest",
    "read_mask",
    "read_mask_alone",
    "survey_manifest",
    "to_lps",
    "write_assignment",
    "write_manifest",
    "write_on_own_grid",
]
