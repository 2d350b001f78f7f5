"""Small files for the tests: DICOM slices and NIfTI volumes with one thing wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

SPACING = (2.5, 1.5, 1.25)  # z, y, x
ORIGIN = np.array([-20.0, -30.0, -400.0])


def at(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    """A place in mm from the series' first pixel."""
    return ORIGIN + np.array([x, y, z])


def volume(seed: int = 0, shape: tuple[int, int, int] = (12, 24, 20)) -> np.ndarray:
    """Air with a block of tissue and grain, no two planes alike; (Z, Y, X) int16 HU, LPS."""
    rng = np.random.default_rng(seed)
    array = rng.integers(-1010, -990, shape)
    array[2:-2, 4:-6, 3:-8] = rng.integers(-900, 200, array[2:-2, 4:-6, 3:-8].shape)
    array[:, 8:12, 10:14] = rng.integers(30, 60, (shape[0], 4, 4))
    return array.astype(np.int16)


def around(lungs: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    """What a field of view of so many pixels around the lungs (Z, Y, X) shows."""
    rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return np.s_[:, max(0, rows[0] - margin) : rows[-1] + 1 + margin, max(0, columns[0] - margin) : columns[-1] + 1 + margin]


def write_slice(path: Path, plane: np.ndarray, position: Any, orientation: Any = (1, 0, 0, 0, 1, 0), **tags: Any) -> None:
    """One CT slice (rows, columns) in HU; ``tags`` set or (None) remove attributes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "1.2.1", "1.2.2", 2
    data.PatientID, data.Modality, data.ImageType = "P1", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.ImagePositionPatient = [f"{float(v):.6f}" for v in position]
    data.ImageOrientationPatient = [f"{float(v):.8f}" for v in orientation]
    data.PixelSpacing, data.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = plane.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = (plane.astype(np.int32) + 1024).astype(np.uint16).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_series(folder: Path, array: np.ndarray, start: str = "", shift: Any = (0, 0, 0), seed: int = 1, **tags: Any) -> list[Path]:
    """An axial series, one file a slice from the lowest, names shuffled; returns the files from the lowest slice."""
    order = np.random.default_rng(seed).permutation(len(array))
    files = []
    for z, plane in enumerate(array):
        files.append(folder / f"{start}{order[z]:04d}")
        write_slice(files[-1], plane, ORIGIN + np.array(shift) + [0, 0, SPACING[0] * z], **tags)
    return files


def change(file: Path, **tags: Any) -> None:
    """Set or (None) remove attributes of a DICOM file."""
    data = pydicom.dcmread(file)
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(file)


def compress(file: Path, syntax: str) -> None:
    """Store a slice compressed without loss."""
    data = pydicom.dcmread(file)
    if syntax in ("rle", "jpegls"):
        data.compress({"rle": RLELossless, "jpegls": JPEGLSLossless}[syntax], generate_instance_uid=False)
        data.save_as(file)
        return
    image = sitk.GetImageFromArray(data.pixel_array[None].astype(np.int16))
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(file.with_suffix(".tmp.dcm")))
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor({"jpeg": "JPEG", "jpeg2000": "JPEG2000"}[syntax])
    writer.Execute(image)
    made = pydicom.dcmread(file.with_suffix(".tmp.dcm"))
    frames = list(pydicom.encaps.generate_frames(made.PixelData, number_of_frames=1))
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    data.PixelRepresentation = made.PixelRepresentation
    data.BitsStored, data.HighBit = made.BitsStored, made.HighBit
    data.file_meta.TransferSyntaxUID = {"jpeg": JPEGLosslessSV1, "jpeg2000": JPEG2000Lossless}[syntax]
    data.save_as(file)
    file.with_suffix(".tmp.dcm").unlink()


def affine(spacing: tuple[float, float, float] = SPACING, origin: Any = ORIGIN) -> np.ndarray:
    """RAS affine of an LPS grid."""
    z, y, x = spacing
    matrix = np.diag([x, y, z, 1.0])
    matrix[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def write_nifti(path: Path, array: np.ndarray, matrix: np.ndarray | None = None) -> nibabel.Nifti1Image:
    """An LPS array (Z, Y, X) as NIfTI."""
    image = nibabel.Nifti1Image(array.T, affine() if matrix is None else matrix)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return image


def enhanced(path: Path, array: np.ndarray, order: Any, slopes: Any = None, first: int = 0) -> None:
    """An enhanced multi-frame CT whose frames are stored in ``order``; plane 0 is the series' plane ``first``."""
    from pydicom.dataset import Dataset

    write_slice(path, array[0], ORIGIN, ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    del data.RescaleSlope, data.RescaleIntercept

    def group(**items: Any) -> Dataset:
        made = Dataset()
        for name, values in items.items():
            inner = Dataset()
            for key, value in values.items():
                setattr(inner, key, value)
            setattr(made, name, [inner])
        return made

    slopes = [1.0] * len(array) if slopes is None else slopes
    data.SharedFunctionalGroupsSequence = [
        group(
            PixelMeasuresSequence={"PixelSpacing": [SPACING[1], SPACING[2]], "SliceThickness": SPACING[0]},
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        )
    ]
    data.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [float(v) for v in at(z=SPACING[0] * (first + z))]},
            PixelValueTransformationSequence={"RescaleSlope": slopes[z], "RescaleIntercept": -1024, "RescaleType": "HU"},
        )
        for z in order
    ]
    data.NumberOfFrames = len(array)
    data.PixelData = np.stack([(array[z].astype(np.int32) + 1024) / slopes[z] for z in order]).astype(np.uint16).tobytes()
    data.save_as(path)
