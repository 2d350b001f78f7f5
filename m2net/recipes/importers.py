"""Other programs' lists of files: nnU-Net folders and MONAI datalists."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m2net.errors import StudyError
from m2net.files import stem
from m2net.recipes.table import Row, files_below, made_masks, recoded, row, write
from m2net.studies import VOLUME_ENDINGS
from m2net.studies.labels import OWN_SCHEME, code_of
from m2net.vocabulary import MASK_COLUMNS, MASK_UNLABELLED, SCHEME_COLUMNS, Column, Modality, Split

_ENDINGS = (*VOLUME_ENDINGS, ".png", ".tif", ".tiff")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} is no readable JSON ({error})", expected="a JSON object", remedy="Check the file") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path} holds a {type(content).__name__}", expected="a JSON object")
    return content


def nnunet(raw: Path, manifest: Path) -> int:
    """A folder of nnU-Net (v1 or v2) or of the Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr``, ``labelsTr``, ``imagesTs``.

    Labels are taken by NAME: those that name lobes, lungs or infection become masks of that kind (recoded copies beside the
    manifest); the label ``ignore`` is unlabelled in each. Cases with a first channel only; several channels are refused.
    ``imagesTs`` becomes the test part, without labels.

    Raises:
        StudyError: no such layout, several channels, or labels that name nothing m2net knows.
    """
    path = raw / "dataset.json"
    if not path.is_file():
        raise StudyError(f"{raw} holds no dataset.json", expected="a folder of nnU-Net", remedy="Check the path")
    content = _json(path)
    channels = content.get("channel_names") or content.get("modality") or {"0": "CT"}
    if len(channels) != 1:
        raise StudyError(f"{path} has {len(channels)} channels", expected="one (CT)", remedy="Split the channels off")
    kinds = _kinds(path, content.get("labels") or {})
    ending = str(content.get("file_ending") or "")
    endings = (ending.lower(),) if ending else _ENDINGS

    def rows() -> Iterator[Row]:
        for folder, split in (("imagesTr", None), ("imagesTs", Split.TEST)):
            for image in files_below(raw / folder, endings) if (raw / folder).is_dir() else []:
                case = re.sub(r"_\d{4}$", "", stem(image.name, _ENDINGS))
                label = next((p for e in endings if (p := raw / "labelsTr" / f"{case}{e}").is_file()), None) if split is None else None
                masks = {kind: _one(label, manifest, case, kind, codes) for kind, codes in kinds.items()} if label else {}
                schemes = {SCHEME_COLUMNS[Column(kind)]: OWN_SCHEME for kind in masks}
                yield row(manifest, case, case, Modality.CT, image, split=split, **masks, **schemes)

    count = write(manifest, rows(), raw, "imagesTr")
    _tell_nameless(count)
    return count


def _tell_nameless(files: int) -> None:
    """Patients, never studies, are split, and these lists need not say whose a file is."""
    if files > 1:
        print(f"{files} files name no patient, and each is taken for one: give those of one patient one patient_id.", file=sys.stderr)


def _one(label: Path, manifest: Path, case: str, kind: str, codes: dict[int, int]) -> Path:
    ending = ".png" if label.suffix.lower() in (".png", ".tif", ".tiff") else ".nii.gz"
    return recoded(label, made_masks(manifest) / f"{case}_{kind}{ending}", codes)


def _kinds(path: Path, labels: dict[str, Any]) -> dict[str, dict[int, int]]:
    """Per kind of mask m2net's codes by theirs; v1 writes number: name, v2 name: number (or a list of numbers for a region)."""
    numbered: list[tuple[int, str]] = []
    for key, value in labels.items():
        if key.lstrip("-").isdigit() and isinstance(value, str) and not value.isdigit():
            numbered.append((int(key), value))
        elif isinstance(value, list):
            raise StudyError(f"{path} labels regions ({key}: {value})", expected="one number a label", remedy="Write plain labels first")
        else:
            numbered.append((int(value), key))
    ignored = {number: MASK_UNLABELLED for number, name in numbered if name.strip().lower() == "ignore"}
    kinds: dict[str, dict[int, int]] = {}
    for kind in MASK_COLUMNS:
        codes = {number: own for number, name in numbered if (own := code_of(name, Column(kind))) is not None}
        if codes:
            kinds[str(kind)] = codes | ignored
    if not kinds:
        names = ", ".join(name for _, name in numbered)
        raise StudyError(
            f"{path} labels {names or 'nothing'}", expected="labels that name lobes, lungs or infection", remedy="Rename the labels"
        )
    return kinds


def monai(raw: Path, manifest: Path) -> int:
    """A MONAI datalist (JSON): lists ``training``, ``validation``, ``testing`` or ``test`` of {image, label, fold} or of paths.

    ``label`` paths become lobe masks if they hold m2net's codes; numbers become ``severity`` (binary) if all are 0 or 1.
    A case is named as its file, and as its path where files of several folders have the same name.

    Raises:
        StudyError: no readable list, several images a case, or labels of another kind.
    """
    path = raw if raw.is_file() else next(iter(files_below(raw, (".json",))), raw)
    content = _json(path)
    lists = {"training": Split.TRAIN, "validation": Split.VAL, "testing": Split.TEST, "test": Split.TEST}

    def rows() -> Iterator[Row]:
        seen: dict[str, int] = {}
        names = Counter(_case(image) for image in {item for key in lists for item in map(_image, content.get(key) or []) if item})
        for key, split in lists.items():
            for number, item in enumerate(content.get(key) or []):
                entry = {"image": item} if isinstance(item, str) else item
                if not isinstance(entry, dict) or not _image(entry):
                    raise StudyError(f"{path}, {key}[{number}]: image is {entry!r}"[:200], expected="one path", remedy="One image a case")
                image = path.parent / entry["image"]
                case = _case(entry["image"])
                if names[case] > 1:
                    case = "_".join([*(p for p in Path(entry["image"]).parent.parts if p not in ("/", "..")), case])
                seen[case] = seen.get(case, 0) + 1
                study = case if seen[case] == 1 else f"{case}-{seen[case]}"
                modality = Modality.CXR if entry.get("modality") == "cxr" else Modality.CT
                folded = isinstance(entry.get("fold"), int)
                yield row(
                    manifest, study, str(entry.get("patient_id") or case), modality, image, split=None if folded else split,
                    fold=entry["fold"] if folded else None, **_label(path, entry.get("label")),
                )  # fmt: skip

    count = write(manifest, rows(), raw, "training, validation or testing list")
    listed = [item for key in lists for item in content.get(key) or []]
    _tell_nameless(sum(not (isinstance(item, dict) and item.get("patient_id")) for item in listed))
    return count


def _image(item: Any) -> str:
    """The path that an entry of a list names, "" where it names none."""
    image = item.get("image") if isinstance(item, dict) else item
    return image if isinstance(image, str) else ""


def _case(image: str) -> str:
    return re.sub(r"_0000$", "", stem(Path(image).name, _ENDINGS))


def _label(path: Path, label: Any) -> dict[str, Any]:
    if label is None:
        return {}
    if isinstance(label, str):
        return {"lobes": path.parent / label}
    if isinstance(label, bool) or label not in (0, 1):
        raise StudyError(
            f"{path} has the label {label!r}", expected="a path, 0 or 1", remedy="Write the manifest yourself for other labels"
        )
    return {"severity": int(label), "severity_scheme": "binary"}
