"""Synthetic patients as files: NIfTI, or DICOM as a scanner or a radiography unit would write it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from m2net.errors import ConfigError
from m2net.phantoms.grid import Field
from m2net.phantoms.patient import Phantom
from m2net.phantoms.scanner import Scanner
from m2net.studies import Geometry, Volume, write_on_own_grid
from m2net.vocabulary import Intensity


def new_manifest(out: Path) -> Path:
    """Path of the manifest of a new folder, which is made.

    Raises:
        ConfigError: there is one already.
    """
    manifest = out / "manifest.csv"
    if manifest.exists():
        raise ConfigError(f"{manifest} exists", expected="a folder without a cohort", remedy="Choose another --out, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    return manifest


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
        name = folder / f"IM{number:04d}.dcm"
        data = _file(name, CTImageStorage, root, int(index) + 1, patient_id)
        data.FrameOfReferenceUID = f"{root}.4"
        data.PatientPosition = "HFS"
        data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Manufacturer, data.ConvolutionKernel = scanner.manufacturer, scanner.kernel
        data.SeriesNumber, data.InstanceNumber = 1, int(index) + 1
        data.ImagePositionPatient = [f"{v:.5f}" for v in (x0, y0, z0 + z_mm * int(index))]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [f"{row_mm:.8f}", f"{column_mm:.8f}"]
        data.SliceThickness = f"{z_mm:.4f}"
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
        _save(data, name, (phantom.image[index] + 1024).astype(np.uint16), "MONOCHROME2")


def write_dicom_radiograph(path: Path, image: Field, pixel_mm: float, view: str, patient_id: str, *, inverted: bool) -> None:
    """Write a radiograph (rows, columns), 0 to 1, as one DX file of 12 bit; ``inverted`` stores it as MONOCHROME1."""
    stored = np.rint((1 - image if inverted else image) * 4095).astype(np.uint16)
    data = _file(path, DigitalXRayImageStorageForPresentation, _uid(patient_id, stored.tobytes()), 1, patient_id)
    data.Modality, data.ImageType, data.BodyPartExamined = "DX", ["ORIGINAL", "PRIMARY"], "CHEST"
    data.ViewPosition, data.PresentationIntentType = view, "FOR PRESENTATION"
    data.ImagerPixelSpacing = [f"{pixel_mm:.6f}"] * 2
    _save(data, path, stored, "MONOCHROME1" if inverted else "MONOCHROME2")


def _file(path: Path, kind: pydicom.uid.UID, root: str, number: int, patient_id: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"{root}.3.{number}")
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{root}.1", f"{root}.2"
    data.PatientID = data.PatientName = patient_id
    return data


def _save(data: FileDataset, path: Path, stored: NDArray[np.uint16], photometric: str) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)


def _uid(*parts: str | bytes) -> str:
    digest = hashlib.sha256(b"/".join(p.encode() if isinstance(p, str) else p for p in parts)).digest()
    return "2.25." + str(int.from_bytes(digest[:11], "big"))
