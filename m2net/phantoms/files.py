"""Synthetic patients as files: NIfTI, or a DICOM series as a scanner would write it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from m2net.phantoms.patient import Phantom
from m2net.phantoms.scanner import Scanner
from m2net.studies import Geometry, Volume, write_on_own_grid
from m2net.vocabulary import Intensity


def write_nifti(path: Path, array: NDArray[np.int16] | NDArray[np.uint8], geometry: Geometry) -> None:
    """Write an LPS array (Z, Y, X) as a NIfTI/MHA/NRRD file."""
    like = Volume(np.zeros(array.shape, np.int16), geometry, Intensity.HU, own_geometry=geometry)
    write_on_own_grid(path, array, like)


def write_dicom_series(folder: Path, phantom: Phantom, scanner: Scanner, patient_id: str) -> None:
    """Write the image as one axial CT series, one file a slice, names that do not follow the position.

    The array's axes must be LPS. Identifiers are derived from the patient's name and the pixels.
    """
    folder.mkdir(parents=True)
    root = _uid(patient_id, phantom.image.tobytes())
    z_mm, row_mm, column_mm = phantom.geometry.spacing_mm
    x0, y0, z0 = phantom.geometry.origin_mm
    order = np.random.default_rng(int(root.rsplit(".", 1)[-1][:9])).permutation(len(phantom.image))
    for number, index in enumerate(order, start=1):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"{root}.3.{index + 1}")
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = folder / f"IM{number:04d}.dcm"
        data = FileDataset(str(name), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = f"{root}.1", f"{root}.2"
        data.FrameOfReferenceUID = f"{root}.4"
        data.PatientID = data.PatientName = patient_id
        data.PatientPosition = "HFS"
        data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Manufacturer, data.ConvolutionKernel = scanner.manufacturer, scanner.kernel
        data.SeriesNumber, data.InstanceNumber = 1, int(index) + 1
        data.ImagePositionPatient = [f"{v:.5f}" for v in (x0, y0, z0 + z_mm * int(index))]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [f"{row_mm:.8f}", f"{column_mm:.8f}"]
        data.SliceThickness = f"{z_mm:.4f}"
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = phantom.image.shape[1:]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.PixelData = (phantom.image[index] + 1024).astype(np.uint16).tobytes()
        data.save_as(name, enforce_file_format=True)


def _uid(*parts: str | bytes) -> str:
    digest = hashlib.sha256(b"/".join(p.encode() if isinstance(p, str) else p for p in parts)).digest()
    return "2.25." + str(int.from_bytes(digest[:11], "big"))
