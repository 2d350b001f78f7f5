"""NIfTI, MHA and NRRD files: values as stored, and a geometry that the header really states."""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from m2net.errors import GeometryError, StudyError
from m2net.files import check_name
from m2net.studies.geometry import Geometry
from m2net.studies.remarks import Remark

NIFTI_ENDINGS = (".nii.gz", ".nii")
VOLUME_ENDINGS = (*NIFTI_ENDINGS, ".mha", ".mhd", ".nrrd", ".nhdr")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_MOST_VOXELS = 2**31
_MOST_GZIP_RATIO = 1040  # deflate cannot do better than 1032
_EXACT = 1e-4  # axes this far from right angles are rounding
_MENDED = 0.02  # up to about one degree is mended, and said
_CORNERS = np.array(list(np.ndindex(2, 2, 2)), dtype=float)


@dataclass(frozen=True)
class Stored:
    """A file's voxels on its own axes.

    Attributes:
        values: (Z, Y, X), rescaled as the header says, of any number type.
        geometry: grid.
        remarks: what was found.
        names: label names by code, where the file holds them.
    """

    values: NDArray[Any]
    geometry: Geometry
    remarks: tuple[Remark, ...] = ()
    names: dict[int, str] = field(default_factory=dict)


def read_volume_file(path: Path) -> Stored:
    """Read a three-dimensional file.

    Raises:
        StudyError: unreadable, truncated, not three-dimensional, several values a voxel.
        GeometryError: the header does not say how the volume lies in the patient, or its axes are not at right angles.
    """
    stored = _read_nifti(path) if path.name.lower().endswith(NIFTI_ENDINGS) else _read_itk(path)
    if min(stored.values.shape) < 2:
        raise GeometryError(
            f"{path} has {stored.values.shape} voxels (z, y, x)", expected="at least two along each axis", remedy="Give the whole volume"
        )
    spacing = stored.geometry.spacing_mm
    if not all(0.05 <= mm <= 50 for mm in spacing):
        raise GeometryError(
            f"{path} has voxels of {' x '.join(f'{mm:.4g}' for mm in spacing)} mm (z, y, x)", expected="0.05 to 50 mm",
            remedy="Mend the header (its unit may be metres), or convert the original series again",
        )  # fmt: skip
    return stored


def _read_nifti(path: Path) -> Stored:
    broken = StudyError(
        f"{path} cannot be read as an image ({path.stat().st_size} bytes)",
        expected="a NIfTI volume",
        remedy="Check that it was copied whole",
    )
    try:
        image: Any = nibabel.load(path)
        header = image.header
        shape = tuple(int(n) for n in header.get_data_shape())
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise broken from error
    if not hasattr(header, "get_sform"):
        raise StudyError(f"{path} is an Analyze image", expected="NIfTI with an orientation", remedy="Convert the original series again")
    remarks: list[Remark] = []
    if len(shape) > 3 and set(shape[3:]) == {1}:
        remarks.append(Remark("dimensions", f"Trailing dimensions of size 1 dropped ({'x'.join(map(str, shape))}).", harmless=True))
    elif len(shape) != 3:
        raise StudyError(
            f"{path} has {len(shape)} dimensions ({'x'.join(map(str, shape))})", expected="a three-dimensional volume",
            remedy="Split time points or channels into files of their own",
        )  # fmt: skip
    dtype = header.get_data_dtype()
    if dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        raise StudyError(f"{path} holds {dtype} values", expected="one number a voxel", remedy="Give the grey-value volume")
    _check_size(path, shape[:3], dtype.itemsize)
    geometry, found = _nifti_geometry(path, header, shape[:3])
    try:
        values = _nifti_values(image).reshape(shape[:3])
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise broken from error
    return Stored(values.T, geometry, (*remarks, *found), _label_names(header))


def _check_size(path: Path, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse a header that claims more than the file can hold, before anything is unpacked."""
    voxels, size = int(np.prod([max(0, n) for n in shape], dtype=object)), path.stat().st_size
    ratio = _MOST_GZIP_RATIO if path.name.lower().endswith(".gz") else 1
    if voxels > _MOST_VOXELS or voxels * itemsize > size * ratio:
        raise StudyError(
            f"{path} claims {'x'.join(map(str, shape))} voxels but has {size} bytes", expected="a file that holds what its header says",
            remedy="It is truncated, damaged or hostile; copy it again",
        )  # fmt: skip


def _nifti_values(image: Any) -> NDArray[Any]:
    """Raw integers where the header's scaling is the identity, float32 otherwise; never float64 for a whole CT."""
    slope, inter = image.dataobj.slope, image.dataobj.inter  # nibabel clears the header's own
    raw: NDArray[Any] = np.asanyarray(image.dataobj.get_unscaled())
    if slope == 1 and inter == 0:
        return raw
    return np.asarray(raw.astype(np.float32) * np.float32(slope) + np.float32(inter))


def _nifti_geometry(path: Path, header: Any, shape: tuple[int, ...]) -> tuple[Geometry, list[Remark]]:
    try:
        sform, sform_code = header.get_sform(coded=True)
        qform, qform_code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(
            f"{path} has a damaged orientation ({error})", expected="a quaternion or an affine", remedy="Convert the original series again"
        ) from error
    if not sform_code and not qform_code:
        raise GeometryError(
            f"{path} does not say how it lies in the patient (qform and sform codes are 0)", expected="a header with an orientation",
            remedy="Convert the original series again; m2net never invents a geometry",
        )  # fmt: skip
    remarks = []
    affine = sform if sform_code else qform
    if sform_code and qform_code:
        last = np.column_stack([_CORNERS * (np.array(shape) - 1), np.ones(8)])
        apart = float(np.abs(last @ sform.T - last @ qform.T).max())
        if apart > 1.0:
            said = f"The header states two places up to {apart:.1f} mm apart (sform, qform); the sform was used."
            remarks.append(Remark("geometry", said, "Convert the original series again"))
    matrix = _RAS_TO_LPS @ affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise GeometryError(
            f"{path} has an affine without extent {np.round(affine, 3).tolist()}", expected="three axes", remedy="Mend the header"
        )
    axes, mended = square_up(path, matrix / spacing)
    x, y, z = spacing
    return Geometry.build((z, y, x), _RAS_TO_LPS @ affine[:3, 3], axes), [*remarks, *mended]


def square_up(path: Path, axes: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[Remark]]:
    """The nearest axes at right angles; rounding is not mentioned, up to about one degree is.

    Raises:
        GeometryError: axes further from right angles (a sheared volume).
    """
    off = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if off > _MENDED:
        raise GeometryError(
            f"{path} has axes that are not at right angles (cosine {off:.3f}; direction {np.round(axes, 3).tolist()})",
            expected="three perpendicular axes", remedy="Resample it to a regular grid first (gantry tilt?)",
        )  # fmt: skip
    if off <= 1e-9:
        return axes, []
    u, _, v = np.linalg.svd(axes)
    if off <= _EXACT:
        return u @ v, []
    degrees = float(np.degrees(np.arcsin(off)))
    said = f"The header's axes are off right angles by up to {degrees:.2f} degrees; the nearest right angles were taken."
    return u @ v, [Remark("geometry", said, "Convert the original series again if exact places matter")]


def _label_names(header: Any) -> dict[int, str]:
    """Names in a label table (Connectome Workbench XML), as TotalSegmentator writes them into the header."""
    names: dict[int, str] = {}
    for extension in header.extensions:
        content = extension.get_content()
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        if "<CaretExtension" not in text:
            continue
        for key, plain, quoted in re.findall(r'<Label\s[^>]*?Key="(-?\d+)"[^>]*>\s*(?:<!\[CDATA\[(.*?)\]\]>|([^<]*))', text):
            names[int(key)] = (plain or quoted).strip()
    return names


def _read_itk(path: Path) -> Stored:
    check_name(path)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        if reader.GetDimension() != 3 or components != 1:
            raise StudyError(
                f"{path} has {reader.GetDimension()} dimensions ({'x'.join(map(str, size))}) and {components} components a voxel",
                expected="a three-dimensional volume with one value a voxel",
                remedy="Split time points or channels into files of their own",
            )  # fmt: skip
        if int(np.prod([int(n) for n in size], dtype=object)) > _MOST_VOXELS:
            raise StudyError(
                f"{path} claims {'x'.join(map(str, size))} voxels", expected=f"at most {_MOST_VOXELS}", remedy="Check the header"
            )
        _check_stated(path)
        image = reader.Execute()
    except RuntimeError as error:
        raise StudyError(
            f"{path} cannot be read as an image ({path.stat().st_size} bytes)",
            expected="an MHA or NRRD volume",
            remedy="Check that it was copied whole",
        ) from error
    x, y, z = image.GetSpacing()
    axes, remarks = square_up(path, np.asarray(image.GetDirection()).reshape(3, 3))
    names = segment_names({k: image.GetMetaData(k) for k in image.GetMetaDataKeys() if k.startswith("Segment")})
    return Stored(sitk.GetArrayFromImage(image), Geometry.build((z, y, x), image.GetOrigin(), axes), tuple(remarks), names)


def segment_names(fields: dict[str, str]) -> dict[int, str]:
    """Names by code from the fields of a 3D Slicer segmentation (``Segment0_Name``, ``Segment0_LabelValue``)."""
    names = {}
    for key, name in fields.items():
        start, _, what = key.partition("_")
        value = fields.get(f"{start}_LabelValue", "")
        if what == "Name" and value.strip().lstrip("-").isdigit():
            names[int(value)] = name
    return names


def _check_stated(path: Path) -> None:
    """ITK takes the identity where a header states no orientation; m2net does not."""
    with path.open("rb") as file:
        text = file.read(20000).decode("latin-1")
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        head = text.split("\n\n", 1)[0].replace("\r", "")
        sided = re.search(
            r"^space:\s*(left|right|l|r)-?(anterior|posterior|a|p)-?(superior|s)(-?time|t)?\s*$", head, re.MULTILINE | re.IGNORECASE
        )
        stated = "space directions:" in head and sided is not None
        wanted = "space directions, or no space such as left-posterior-superior"
    else:
        head = text.split("ElementDataFile", 1)[0]
        stated = re.search(r"^(TransformMatrix|Rotation|Orientation)\s*=", head, re.MULTILINE) is not None
        wanted = "TransformMatrix"
    if not stated:
        raise GeometryError(
            f"{path} does not say how it lies in the patient (its header has no {wanted})", expected="a header with an orientation",
            remedy="Convert the original series again; m2net never invents a geometry",
        )  # fmt: skip
