"""Label maps of other programs: codes become m2net's by the NAME of what they label."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2net.errors import StudyError
from m2net.vocabulary import Column, InfectionCode, Lobe, LungCode

SCHEMES: dict[str, dict[int, str]] = {
    "lungmask_lobes": {1: "left upper lobe", 2: "left lower lobe", 3: "right upper lobe", 4: "right middle lobe", 5: "right lower lobe"},
    "lungmask_r231": {1: "right lung", 2: "left lung"},
    "totalsegmentator": {
        10: "lung_upper_lobe_left", 11: "lung_lower_lobe_left", 12: "lung_upper_lobe_right", 13: "lung_middle_lobe_right",
        14: "lung_lower_lobe_right",
    },
    "totalsegmentator_v1": {
        13: "lung_upper_lobe_left", 14: "lung_lower_lobe_left", 15: "lung_upper_lobe_right", 16: "lung_middle_lobe_right",
        17: "lung_lower_lobe_right",
    },
    "luna16_lungs": {3: "lung", 4: "lung"},
    "lungs_one_code": {1: "lung", 255: "lung"},
    "infection_one_code": {1: "infection", 255: "infection"},
    "covid19_ct_seg": {1: "left lung", 2: "right lung"},
    "lobes_rul_first": {4: "RUL", 5: "RML", 6: "RLL", 7: "LUL", 8: "LLL"},
}  # fmt: skip
"""Schemes that store codes without names; a manifest names them in ``lobes_scheme``, ``lungs_scheme`` or ``infection_scheme``."""

OWN_SCHEME = "m2net"
"""m2net's own codes, said expressly: needed only where a mask holds nothing but 0 and 255 (unlabelled)."""

_SHORT = {"lul": Lobe.LEFT_UPPER, "lll": Lobe.LEFT_LOWER, "rul": Lobe.RIGHT_UPPER, "rml": Lobe.RIGHT_MIDDLE, "rll": Lobe.RIGHT_LOWER}
_PLURAL = {
    "consolidations": "consolidation", "ggos": "ggo", "infections": "infection", "lesions": "lesion", "opacities": "opacity",
    "infiltrates": "infiltrate", "lobes": "lobe",
}  # fmt: skip
_NODULE = {"nodule", "nodules"}
_DENIED = re.compile(
    r"\b(?:no|non|not|without|excluding)\s+(?:ggo|ground|consolidation|infect|lesion|pneumonia|opacit|infiltrat|lung|lobe)"
    r"|(?:ggo|glass|consolidation|infection|lesion|pneumonia|opacity|infiltrate)s?\s+free\b"
)
_NO_FINDING = {
    "artery", "vein", "vessel", "vessels", "trachea", "bronchi", "bronchia", "bronchus", "airway", "airways", "heart", "aorta", "esophagus",
    "oesophagus", "liver", "spleen", "stomach", "kidney", "spine", "vertebra", "vertebrae", "rib", "ribs", "bone", "bones", "muscle", "fat",
    "skin", "body", "table", "background", "mediastinum",
}  # fmt: skip
_BESIDE_LUNG = {"pleura", "pleural", "hepatic", "renal", "cardiac"}
_OF_LUNG = {"lung", "lungs", "left", "right", "field", "fields", "parenchyma", "mask", "masks", "label", "segmentation", "whole", "both"}
_OF_LOBE = {
    *_OF_LUNG, *_SHORT, "lobe", "upper", "superior", "middle", "lower", "inferior", "lingula", "lingular", "with", "and", "including", "of",
    "the", "pulmonary", "segment", "structure", "region", "roi", "ct",
}  # fmt: skip
_LEVELS = {"upper": "UPPER", "superior": "UPPER", "middle": "MIDDLE", "lower": "LOWER", "inferior": "LOWER"}


def code_of(name: str, kind: Column) -> int | None:
    """m2net's code of what a name says, None where it names something else.

    Understands ``lung_upper_lobe_left``, ``Left upper lobe``, ``LUL``, ``Right lung``, ``GGO``, ``Consolidation``.
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # RightLowerLobe
    plain = re.sub(r"[^a-z]+", " ", parted.lower())
    words = {_PLURAL.get(word, word) for word in plain.split()}
    if words & _NODULE or _DENIED.search(plain):
        return None
    if kind is Column.LOBES:
        if not words <= _OF_LOBE:  # a lobe's tumour, bronchus or consolidation is no lobe
            return None
        short = [lobe for key, lobe in _SHORT.items() if key in words]
        side = {"left", "right"} & words
        level = {_LEVELS[w] for w in words if w in _LEVELS}
        if len(short) == 1:
            return int(short[0])
        if len(side) == 1 and len(level) == 1 and "lobe" in words:
            return int(Lobe.__members__.get(f"{next(iter(side)).upper()}_{next(iter(level))}", 0)) or None
        return None
    if kind is Column.LUNGS:
        side = {"left", "right"} & words
        if {"lung", "lungs"} & words and words <= _OF_LUNG:  # a lung's lesion, vessel or lobe is no lung
            return int(LungCode[next(iter(side)).upper()]) if len(side) == 1 else int(LungCode.SIDE_UNKNOWN)
        return None
    if "consolidation" in words:
        return int(InfectionCode.CONSOLIDATION)
    if "ggo" in words or {"ground", "glass"} <= words:
        return int(InfectionCode.GROUND_GLASS)
    if words & (_NO_FINDING | _BESIDE_LUNG):
        return None
    return int(InfectionCode.KIND_UNKNOWN) if words & {"infection", "infected", "lesion", "pneumonia", "opacity", "infiltrate"} else None


def schemes_of(kind: Column) -> list[str]:
    """Schemes that a manifest may name for a kind of mask."""
    return [OWN_SCHEME, *(scheme for scheme, names in SCHEMES.items() if names_any(names, kind))]


def names_any(names: dict[int, str], kind: Column) -> bool:
    """Whether a label map's names hold anything of ``kind``."""
    return any(meant(name, kind) is not None for name in names.values())


def meant(name: str, kind: Column) -> int | None:
    """As ``code_of``; for a lung mask a lobe counts as its side."""
    own = code_of(name, kind)
    if own is None and kind is Column.LUNGS and (lobe := code_of(name, Column.LOBES)) is not None:
        return int(LungCode.LEFT if Lobe(lobe).is_left else LungCode.RIGHT)
    return own


def not_understood(names: dict[int, str], kind: Column) -> list[str]:
    """Names of labels that become background though they may be part of ``kind``: a finding, or a piece of lung."""
    kinds = (Column.LOBES, Column.LUNGS, Column.INFECTION)
    lost = [
        name
        for name in names.values()
        if not set(re.findall("[a-z]+", name.lower())) & _NO_FINDING and all(meant(name, k) is None for k in kinds)
    ]
    return (
        lost
        if kind is Column.INFECTION
        else [name for name in lost if re.search(r"lung|lobe|lingula|pulmon|\b[rl][uml]l\b", name.lower().replace("_", " "))]
    )


def recode(path: Path, array: NDArray[Any], names: dict[int, str], kind: Column) -> NDArray[np.uint8]:
    """Codes of a label map as m2net's; what is not named as part of ``kind`` becomes background.

    A map of lobes can serve as a lung mask: each lobe then counts as its side.

    Raises:
        StudyError: nothing in it is named as part of ``kind``.
    """
    wanted = {code: own for code, name in names.items() if (own := meant(name, kind)) is not None}
    if not wanted:
        some = ", ".join(list(names.values())[:6])
        raise StudyError(
            f"{path} names no {kind} (it names {some})",
            expected=f"labels that name {kind}",
            remedy=f"Give another mask, rename its labels, or say {OWN_SCHEME} in the mask's scheme column if its codes are m2net's",
        )
    out = np.zeros(array.shape, np.uint8)
    for code, own in wanted.items():
        out[array == code] = own
    return out
