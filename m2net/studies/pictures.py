"""Pictures (PNG, JPG, TIFF) of one CT slice or one radiograph: relative intensity, no geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from m2net.errors import StudyError
from m2net.studies.remarks import Remark
from m2net.studies.volume import Volume
from m2net.vocabulary import Intensity, Modality

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
RELATIVE_MAX = 32767
RELATIVE_12_BIT = RELATIVE_MAX * 4095 / 65535  # what 12 bit come to where all 16 are taken for the range
_PHOTOMETRIC = 262  # TIFF's tag; 0: white is low
_GREY_ENOUGH = 8  # largest difference of colour channels of a grey picture stored in colour (JPEG rounds)


def read_picture(path: Path, modality: Modality) -> Volume:
    """A picture in display convention (image left = patient right, top = anterior or superior).

    8 and 16 bit are scaled by their full range to 0..32767; ``tags['picture_max']`` keeps the constant.

    Raises:
        StudyError: unreadable, several pictures in the file, colour, or no whole grey values.
    """
    pixels = grey_pixels(path)
    top = 255 if pixels.max() <= 255 and pixels.dtype == np.uint8 else 65535
    scaled = np.rint(pixels.astype(np.float32) * (RELATIVE_MAX / top)).astype(np.int16)
    remarks = [
        Remark(
            "intensity",
            "A picture without HU or geometry: relative intensity; image left is taken to be the patient's right.",
            harmless=True,
        )
    ]
    if int(pixels.max()) == int(pixels.min()):
        raise StudyError(f"{path} is a picture of one grey value ({int(pixels.min())})", expected="an image", remedy="Export it again")
    volume = Volume(scaled[None], None, Intensity.RELATIVE, modality, remarks=tuple(remarks), tags={"picture_max": top})
    if not may_be_12_bit(volume):
        return volume
    said = f"16 bit stored, but no value above {int(pixels.max())}: the picture may be 12 bit and look dark."
    return replace(volume, remarks=(*remarks, Remark("intensity", said)))


def may_be_12_bit(volume: Volume) -> bool:
    """Whether a picture is stored with 16 bit and uses the lowest 12 of them only."""
    return volume.tags.get("picture_max") == 65535 and int(volume.array.max()) <= RELATIVE_12_BIT


def grey_pixels(path: Path) -> NDArray[Any]:
    """(rows, columns) uint8 or uint16 of a grey picture; colour pictures whose channels agree count as grey.

    Raises:
        StudyError: unreadable, several pictures in the file, colour, or no whole grey values.
    """
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                count = int(getattr(picture, "n_frames", 1))
                raise StudyError(f"{path} holds {count} pictures", expected="one", remedy="Split it")
            mode = {"P": "RGB", "1": "L"}.get(picture.mode, picture.mode)
            low_is_white = mode.startswith("I;16") and getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow turns 8 bit only
            upright = ImageOps.exif_transpose(picture)  # as every viewer shows it
            pixels = np.asarray(upright.convert(mode) if mode != upright.mode else upright)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StudyError(
            f"{path} cannot be read as an image ({path.stat().st_size} bytes)", expected="a picture with one grey channel",
            remedy="Check that it was copied whole",
        ) from error  # fmt: skip
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]  # LA: grey and alpha
        if np.ptp(colours.astype(np.int32), axis=-1).max() > _GREY_ENOUGH:
            raise StudyError(f"{path} is a colour picture", expected="a grey picture", remedy="Export it in grey")
        pixels = colours[..., 0]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if low_is_white:
        pixels = (4095 if pixels.max() < 4096 else 65535) - pixels
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)  # Pillow opens some 16-bit files as 32-bit
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise StudyError(f"{path} has shape {pixels.shape} of {pixels.dtype}", expected="one grey picture of 8 or 16 bit")
    return np.asarray(pixels)
