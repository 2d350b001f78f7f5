"""CT slices as pictures: CC-CCII and UCSD COVID-CT. A row a slice; intensities are relative."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from m2net.errors import StudyError
from m2net.recipes.table import Row, files_below, find_folder, read_table, row, write
from m2net.vocabulary import Diagnosis, Modality, Split

_CCCII = {"cp": Diagnosis.CAP, "ncp": Diagnosis.COVID19, "normal": Diagnosis.NON_PNEUMONIA}


def cc_ccii(raw: Path, manifest: Path) -> int:
    """CC-CCII: ``CP|NCP|Normal/PATIENT/SCAN/SLICE.jpg``, ``lesions_slices.csv``.

    Pictures of unknown window without geometry, so a row is a slice and not a scan; ``scan`` tells which belong together. The
    diagnosis is the scan's and carried by its slices; ``infected`` is 1 for slices listed with lesions, 0 for Normal, else
    unknown (only lesion slices are listed).

    Raises:
        StudyError: no such layout.
    """
    listed = next((p for p in files_below(raw, (".csv",)) if p.name.lower() in ("lesions_slices.csv", "lesion_slices.csv")), None)
    lesions = {e.get("imgpath", "").lower() for e in read_table(listed)} if listed else set()

    def rows() -> Iterator[Row]:
        for path in files_below(raw):
            parts = path.relative_to(raw).parts[-4:]
            if len(parts) < 4 or parts[0].lower() not in _CCCII:
                continue
            diagnosis = _CCCII[parts[0].lower()]
            infected = 1 if "/".join(parts).lower() in lesions else (0 if diagnosis is Diagnosis.NON_PNEUMONIA else None)
            patient, scan = "-".join(parts[:2]), "-".join(parts[:3])
            yield row(
                manifest,
                f"{scan}-{path.stem}",
                patient,
                Modality.CT,
                path,
                diagnosis=diagnosis,
                infected=infected,
                site="cc_ccii",
                scan=scan,
            )

    return write(manifest, rows(), raw, "CP, NCP or Normal/PATIENT/SCAN/SLICE")


def covid_ct(raw: Path, manifest: Path) -> int:
    """UCSD COVID-CT: ``CT_COVID/``, ``CT_NonCOVID/``, ``Data-split/{COVID,NonCOVID}/{train,val,test}CT_*.txt``.

    The diagnosis of non-COVID images is left empty: they are no health, but tumours, other pneumonias, fibrosis. ``infected`` is
    1 for COVID and unknown for the others; ``covid`` holds the published label. Patients come from
    ``COVID-CT-MetaInfo.csv`` and ``NonCOVID-CT-MetaInfo.csv`` (save the .xlsx as .csv); without them every image counts as its own
    patient, and the published split is what keeps patients apart.

    Raises:
        StudyError: no such layout.
    """
    patients = _patients(raw)

    def rows() -> Iterator[Row]:
        for name, covid in (("CT_COVID", 1), ("CT_NonCOVID", 0)):
            folder = find_folder(raw, name)
            splits = _splits(raw, name)
            for path in files_below(folder) if folder else []:
                yield row(
                    manifest, f"{name}-{path.stem}", f"{name}-{patients.get(path.stem, path.stem)}", Modality.CT, path,
                    diagnosis=Diagnosis.COVID19 if covid else None, infected=1 if covid else None, site="covid_ct",
                    split=splits.get(path.stem), covid=covid,
                )  # fmt: skip

    return write(manifest, rows(), raw, "CT_COVID or CT_NonCOVID with pictures")


def _splits(raw: Path, name: str) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for split in Split:
        for path in files_below(raw, (f"{split}{name}.txt".lower(),)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip():
                    found[line.strip().rsplit(".", 1)[0]] = split  # the lists and the files differ in their endings
    return found


def _patients(raw: Path) -> dict[str, str]:
    patients: dict[str, str] = {}
    for path in files_below(raw, ("metainfo.csv",)):
        entries = read_table(path)
        if not entries:
            continue
        file = next((k for k in entries[0] if k in ("file name", "image name")), None)
        person = next((k for k in entries[0] if k == "patient id"), None)
        if file is None or person is None:
            raise StudyError(f"{path} has no columns for file and patient", expected="'File name' or 'image name', and 'Patient ID'")
        for entry in entries:
            stem = entry[file].rsplit(".", 1)[0] if entry[file].lower().endswith((".png", ".jpg", ".jpeg")) else entry[file]
            patients[stem] = entry[person] or stem
    return patients
