"""From what a user names (folder, file, DICOMDIR, zip) to DICOM files on disk."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset

from m2net.errors import StudyError
from m2net.files import is_litter
from m2net.studies.dicom.headers import read_header

_MOST_BYTES = 16 * 2**30
_MOST_RATIO = 500  # no medical image shrinks so far; a file that does is made to fill a disk
_SMALL = 64 * 2**20


@contextmanager
def dicom_files(path: Path) -> Iterator[list[Path]]:
    """Files to look at; those of a zip lie in a temporary folder that is removed afterwards.

    Raises:
        StudyError: a damaged, encrypted or hostile zip, or a DICOMDIR whose files are missing.
    """
    if path.is_dir():
        yield sorted(p for p in path.rglob("*") if p.is_file() and p.name.upper() != "DICOMDIR" and not is_litter(p))
    elif path.name.upper() == "DICOMDIR":
        yield _of_dicomdir(path)
    elif zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="m2net-") as folder:
            yield _unpack(path, Path(folder))
    elif path.suffix.lower() == ".zip":
        raise StudyError(f"{path} is no whole zip file", expected="a zip of DICOM files", remedy="Check that it was copied whole")
    else:
        yield sorted(p for p in path.parent.iterdir() if p.is_file() and (p == path or not is_litter(p)))


def _of_dicomdir(path: Path) -> list[Path]:
    header = read_header(path, ["DirectoryRecordSequence"])
    records: list[Dataset] = [] if header is None else list(header.get("DirectoryRecordSequence") or [])
    named = [_parts(record) for record in records if record.get("ReferencedFileID")]
    files = [found for parts in named if (found := _find(path.parent, parts)) is not None]
    if not named or len(files) < len(named):
        raise StudyError(
            f"{path} names {len(named)} images of which {len(named) - len(files)} are missing", expected="every image beside it",
            remedy="Copy the whole medium, or give the folder of the images",
        )  # fmt: skip
    return files


def _parts(record: Dataset) -> list[str]:
    value = record.ReferencedFileID
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _find(folder: Path, parts: list[str]) -> Path | None:
    """A referenced file; media copied under another system may have lower-case names."""
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part:
            return None
        exact = folder / part
        folder = exact if exact.exists() else next((p for p in folder.iterdir() if p.name.lower() == part.lower()), exact)
        if not folder.exists():
            return None
    return folder


def _unpack(path: Path, folder: Path) -> list[Path]:
    """Members under numbered names, of which they keep a plain ending: nothing in the archive decides where a file goes."""
    files = []
    try:
        with zipfile.ZipFile(path) as archive:
            named = ((m, PurePosixPath(m.filename)) for m in archive.infolist() if not m.is_dir())
            members = [(m, inside) for m, inside in named if inside.name.upper() != "DICOMDIR" and not is_litter(inside)]
            size, packed = sum(m.file_size for m, _ in members), sum(m.compress_size for m, _ in members)
            if size > _MOST_BYTES or (size > _SMALL and size > _MOST_RATIO * max(1, packed)):
                raise StudyError(
                    f"{path} would unpack to {size / 2**30:.1f} GiB from {packed / 2**20:.1f} MiB", expected="a zip of one study",
                    remedy="Unpack it yourself if you trust it",
                )  # fmt: skip
            if any(m.flag_bits & 1 for m, _ in members):
                raise StudyError(f"{path} is encrypted", expected="a zip without a password", remedy="Unpack it first")
            for number, (member, inside) in enumerate(members):
                target = folder / f"{number:06d}{inside.suffix if inside.suffix[1:].isalnum() else ''}"
                target.write_bytes(archive.read(member))
                files.append(target)
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:
        raise StudyError(f"{path} is damaged ({error})", expected="a whole zip of DICOM files", remedy="Copy it again") from error
    return files
