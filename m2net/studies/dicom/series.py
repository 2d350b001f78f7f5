"""Which of the series in a folder is read, by stated rules."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from m2net.errors import GeometryError, StudyError
from m2net.studies.dicom.headers import Frame
from m2net.studies.options import ReadOptions
from m2net.studies.remarks import Remark

_LEAST_SLICES = 3
_AXIAL = 0.82  # cosine between the slice normal and the body's axis: gantries tilt by up to 30 degrees or so
_SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 5e-3
_SHARP = re.compile(r"lung|bone|sharp|edge|^l$|^y[a-c]$|^fc[358]\d", re.IGNORECASE)
_SOFT = re.compile(r"soft|standard|stnd|chest|detail|^[abc]$|^fc[01]\d", re.IGNORECASE)
_NUMBERED = re.compile(r"^[a-z]{1,2}(\d\d)", re.IGNORECASE)  # Siemens: B30f, Br40d, Bl57; the number grows with sharpness
_SHARP_FROM = 50


@dataclass(frozen=True)
class Series:
    """Frames of one series that could be one stack.

    Attributes:
        uid: SeriesInstanceUID as written.
        number: SeriesNumber.
        part: which acquisition or orientation within the series, "" if it is all of it.
        frames: planes, in no order.
    """

    uid: str
    number: str
    part: str
    frames: tuple[Frame, ...]

    @property
    def plane(self) -> str:
        """axial, coronal, sagittal, or unknown."""
        if self.frames[0].missing:
            return "unknown"
        along = np.abs(self.frames[0].normal)
        return ("sagittal", "coronal", "axial")[int(along.argmax())] if along.max() > _AXIAL else "oblique"

    @property
    def derived(self) -> bool:
        """Whether the images were computed from others (reformats, projections, screenshots)."""
        return any(v in ("DERIVED", "SECONDARY", "MPR", "MIP", "PROJECTION IMAGE") for v in self.frames[0].image_type[:4])

    @property
    def kernel(self) -> str:
        """soft, lung, or "" where the kernel's name does not tell."""
        return kernel_kind(self.frames[0].kernel)

    def __str__(self) -> str:
        """Words for people: ``series 3 (axial, 148 slices, kernel B30f)``."""
        name = f"series {self.number}" if self.number else "a series without number"
        facts = [self.plane, f"{len(self.frames)} slices"]
        facts += [f"kernel {self.frames[0].kernel}"] if self.frames[0].kernel else []
        facts += ["derived"] if self.derived else []
        return f"{name}{f' {self.part}' if self.part else ''} ({', '.join(facts)})"


def kernel_kind(name: str) -> str:
    """Whether a reconstruction kernel's name means a soft or a lung (sharp) kernel; "" where it does not tell."""
    numbered = _NUMBERED.match(name.strip())
    if numbered and not name.strip().lower().startswith("fc"):  # Toshiba's numbers are names
        return "lung" if int(numbered.group(1)) >= _SHARP_FROM else "soft"
    if _SHARP.search(name.strip()):
        return "lung"
    return "soft" if _SOFT.search(name.strip()) else ""


def choose_series(path: Path, frames: list[Frame], options: ReadOptions) -> tuple[Series, list[Remark]]:
    """The series to read, and what was set aside.

    Rules, in this order: the series that was asked for; one with a full geometry; original before derived images; axial
    before other planes; the kernel that was asked for; most slices; soft before other kernels; the lowest number.

    Args:
        path: for messages.
        frames: all planes found.
        options: what was asked for.

    Raises:
        StudyError: no CT, colour, or no series as asked for.
        GeometryError: no series with a geometry.
    """
    patients = len({f.patient for f in frames if f.patient})
    if patients > 1 and not options.series:
        raise StudyError(
            f"{path} holds images of {patients} patients",
            expected="one patient",
            remedy="Give each patient a folder, or the UID of a series (option or column series)",
        )
    frames, remarks = _ct_only(path, frames)
    candidates = [s for group in _by_series(frames).values() for s in _stacks(group, remarks)]
    if options.series:
        wanted = [s for s in candidates if options.series in (s.uid, s.number)]
        if not wanted:
            there = ", ".join(sorted({s.number or s.uid for s in candidates}))
            raise StudyError(f"{path} holds no series {options.series}", expected=f"one of {there}", remedy="Mend the series asked for")
        owners = {f.patient for s in wanted for f in s.frames if f.patient}
        if len(owners) > 1:  # numbers repeat between patients
            raise StudyError(
                f"{path} holds a series {options.series} of {len(owners)} patients", expected="one", remedy="Give the series' UID"
            )
        candidates = wanted
    originals = [s for s in candidates if not s.derived] or candidates
    examinations = len({f.study for s in originals for f in s.frames if f.study and not f.missing})
    if examinations > 1 and len({s.uid for s in originals}) > 1:
        raise StudyError(
            f"{path} holds {'series ' + options.series if options.series else 'series'} of {examinations} examinations of a patient",
            expected="one examination: a label belongs to one", remedy="Give each a folder, or a series' UID (option or column series)",
        )  # fmt: skip
    ranked = sorted(candidates, key=lambda s: _rank(s, options))
    chosen = ranked[0]
    _check(path, chosen)
    if len(ranked) > 1:
        others = "; ".join(str(s) for s in ranked[1:4]) + ("; ..." if len(ranked) > 4 else "")
        remarks.append(
            Remark(
                "series",
                f"Of {len(ranked)} stacks {chosen} was read; also there: {others}.",
                "Choose another (option or column series)",
                harmless=True,
            )
        )
    if _woven(chosen.frames):
        said = "Acquisitions take turns from slice to slice and are read as one volume."
        remarks.append(Remark("series", said, "Look at it; if these are two (breathing in and out), give each a folder"))
    if chosen.plane != "axial":
        said = f"The slices are {chosen.plane}: no axial series is there."
        remarks.append(Remark("series", said, "Prefer the axial series; patches are cut from axial slices"))
    return chosen, remarks


def _rank(series: Series, options: ReadOptions) -> tuple[object, ...]:
    return (
        any(f.missing for f in series.frames),
        series.derived,
        series.plane != "axial",
        bool(options.kernel) and series.kernel != options.kernel,
        -len(series.frames),
        series.kernel != "soft",
        int(series.number) if series.number.lstrip("-").isdigit() else 0,
        series.uid,
        series.part,
    )


def _check(path: Path, chosen: Series) -> None:
    first = next((f for f in chosen.frames if f.missing), chosen.frames[0])
    if first.samples > 1:
        raise StudyError(f"{path} holds colour images", expected="CT slices in HU", remedy="Give the original series")
    if first.missing:
        raise GeometryError(
            f"{first.path} has no usable {', '.join(first.missing)}", expected="every slice to have it",
            remedy="Export the series again with its geometry; m2net never invents one",
        )  # fmt: skip
    if len(chosen.frames) == 1:
        raise GeometryError(f"{path} holds a single slice", expected="at least two", remedy="Give the whole series")


def _ct_only(path: Path, frames: list[Frame]) -> tuple[list[Frame], list[Remark]]:
    remarks = []
    other = Counter(f.modality or "no modality" for f in frames if f.modality != "CT")
    rest = [f for f in frames if f.modality == "CT"]
    if not rest:
        said = ", ".join(other) if set(other) != {"no modality"} else "nothing"
        raise StudyError(f"{path} says its modality is {said}", expected="CT", remedy="Give a CT series")
    if other:
        said = ", ".join(f"{n} {name}" for name, n in other.items())
        remarks.append(Remark("series", f"Images that are no CT were left out ({said}).", harmless=True))
    scouts = [f for f in rest if "LOCALIZER" in f.image_type]
    if scouts and len(scouts) < len(rest):
        remarks.append(Remark("series", f"{_images(len(scouts))} marked as localizer (scout) left out.", harmless=True))
        rest = [f for f in rest if "LOCALIZER" not in f.image_type]
    elif scouts:
        raise StudyError(f"{path} holds nothing but localizers (scouts)", expected="an axial CT series", remedy="Give the series itself")
    return rest, remarks


def _images(count: int) -> str:
    return f"{count} image was" if count == 1 else f"{count} images were"


def _by_series(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.series].append(frame)
    return groups


def _stacks(group: list[Frame], remarks: list[Remark]) -> list[Series]:
    """Split a series by orientation, size and pixel spacing, then by acquisition where places repeat; drop strays."""
    kinds: list[list[Frame]] = []
    for frame in sorted(group, key=lambda f: bool(f.missing)):
        alike = next((frames for frames in kinds if _alike(frames[0], frame)), None)
        if alike is None:
            kinds.append([frame])
        else:
            alike.append(frame)
    largest = max(len(frames) for frames in kinds)
    stacks = []
    for frames in kinds:
        if len(frames) < largest and len(frames) < max(_LEAST_SLICES, 0.1 * largest):
            said = f"{_images(len(frames))} left out: another orientation, size or pixel spacing than the rest of the series."
            remarks.append(Remark("series", said, harmless=True))
            continue
        part = f"with {frames[0].size[0]}x{frames[0].size[1]} pixels" if len(kinds) > 1 else ""
        stacks += _acquisitions(frames, part)
    return stacks


def _alike(a: Frame, b: Frame) -> bool:
    """Whether two planes can lie in one stack; with a tolerance, for headers differ in their last digits."""
    if a.size != b.size or a.samples != b.samples:
        return False
    if a.missing or b.missing:  # a slice that lost its place still belongs to its series; a screenshot never had one
        return ("SECONDARY" in a.image_type) == ("SECONDARY" in b.image_type)
    turned = float(np.abs(np.subtract(a.orientation, b.orientation)).max())  # type: ignore[arg-type]
    return turned < _SAME_DIRECTION and bool(np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3))  # type: ignore[arg-type]


def _woven(frames: Sequence[Frame]) -> bool:
    """Whether acquisitions take turns from slice to slice, as breathing in and out half a slice apart do."""
    normal = frames[0].normal
    along = [f.acquisition for f in sorted(frames, key=lambda f: float(normal @ f.position))]  # type: ignore[operator]
    turns = sum(a != b for a, b in pairwise(along))
    sizes = Counter(along)
    return len(sizes) > 1 and "" not in sizes and turns >= 1.5 * min(sizes.values())


def _acquisitions(frames: list[Frame], part: str) -> list[Series]:
    """One stack, or one an acquisition where that alone explains why places repeat."""

    def series(some: list[Frame], name: str) -> Series:
        return Series(some[0].series, some[0].number, name, tuple(some))

    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.acquisition].append(frame)
    if any(f.missing for f in frames) or not _repeats(frames):
        return [series(frames, part)]
    if len(groups) > 1 and not any(_repeats(g) for g in groups.values()):
        return [series(g, f"{part} acquisition {name}".strip()) for name, g in groups.items()]
    return [series(frames, part)]


def _repeats(frames: list[Frame]) -> bool:
    places = np.sort(np.array([f.position @ frames[0].normal for f in frames]))  # type: ignore[operator]
    return bool((np.diff(places) < _SAME_PLACE_MM).any())
