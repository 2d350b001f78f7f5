"""Open whatever a manifest or a user names as an image."""

from __future__ import annotations

from pathlib import Path

from m2net.errors import ConfigError, StudyError
from m2net.studies.dicom import read_dicom
from m2net.studies.files import VOLUME_ENDINGS, read_volume_file
from m2net.studies.options import ReadOptions
from m2net.studies.pictures import PICTURE_ENDINGS, read_picture
from m2net.studies.radiographs import read_radiograph
from m2net.studies.units import settle_hu
from m2net.studies.volume import Volume
from m2net.vocabulary import Modality


def read_image(path: Path, options: ReadOptions | None = None, modality: Modality = Modality.CT) -> Volume:
    """Read a study's image.

    Args:
        path: CT: a DICOM folder, file, DICOMDIR or zip, a NIfTI/MHA/NRRD file, or a picture of one slice. Radiograph: a DICOM file
            or a picture (PNG, JPG, TIFF; 8 or 16 bit).
        options: choices where the files leave one.
        modality: what the study is said to be; contradicting files are refused.

    Returns:
        A volume on LPS axes; int16 HU for CT, relative intensity without geometry for a picture or radiograph.

    Raises:
        StudyError: missing, unreadable or of a kind that m2net does not read.
        GeometryError: the geometry is missing or contradictory.
    """
    if not path.exists():
        raise StudyError(f"{path} does not exist", expected="an image file or a DICOM folder", remedy="Check the path")
    name = path.name.lower()
    if path.is_file() and name.endswith(PICTURE_ENDINGS):
        return read_picture(path, modality)
    if path.is_file() and name.endswith(VOLUME_ENDINGS):
        if modality is not Modality.CT:
            raise ConfigError(f"{path} is a volume while the study is said to be a radiograph", expected="a picture or a DICOM file")
        stored = read_volume_file(path)
        values, units = settle_hu(path, stored.values)
        return Volume.from_own(values, stored.geometry, remarks=(*stored.remarks, *units))
    if modality is Modality.CXR:
        return read_radiograph(path)
    return read_dicom(path, options)
