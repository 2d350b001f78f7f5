"""DICOM CT series: files -> headers -> series -> stack -> pixels."""

from m2net.studies.dicom.headers import Frame, read_frames
from m2net.studies.dicom.reading import read_dicom
from m2net.studies.dicom.series import Series, choose_series, kernel_kind

__all__ = ["Frame", "Series", "choose_series", "kernel_kind", "read_dicom", "read_frames"]
