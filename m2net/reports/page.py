"""The report page: one self-contained HTML file that can be read in ten seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from m2net.assessment import Assessment, ScoreFinding
from m2net.objectives.burden import SIDES
from m2net.reports.pictures import COLOURS, INFECTION_COLOURS, OUTLINE_COLOURS, data_url, grey, outline, overlay
from m2net.studies import Volume
from m2net.vocabulary import Column, Diagnosis, InfectionCode, Lobe, Modality, SeverityScheme

_LONG_SIDE = 400
_FILM_SIDE = 620
_THIRDS = ("upper", "middle", "lower")


@dataclass(frozen=True)
class View:
    """One plane through the study; the letters name the patient's sides at the picture's edges."""

    title: str
    url: str
    left: str
    right: str
    top: str
    bottom: str


def write_page(path: Path, assessment: Assessment, study_name: str) -> None:
    """Write ``report.html``."""
    environment = Environment(loader=PackageLoader("m2net.reports"), autoescape=select_autoescape(["html", "j2"]))
    volume = assessment.volume
    page = environment.get_template("report.html.j2").render(
        name=study_name,
        a=assessment,
        views=_views(assessment),
        patches=[{"url": data_url(overlay(grey(p.pixels, volume.intensity), None), (132, 132)), "p": p} for p in assessment.patches],
        severity=[{"task": t, "f": f, "grades": _grades(f.scheme, len(f.probabilities))} for t, f in assessment.findings.severity.items()],
        colours={lobe.key: f"rgb{colour}" for lobe, colour in COLOURS.items()},
        scores=_by_scheme(assessment.findings.scores),
        kinds=_kinds(assessment),
        zones=[(third, [assessment.findings.shares[f"{side}_{third}"] for side in SIDES]) for third in _THIRDS]
        if assessment.findings.shares
        else [],
        percent=_percent,
        titled=_titled,
        total_ml=sum(m.volume_ml or 0.0 for m in assessment.lobe_measures),
        trained=trained_on(assessment.model),
        grid=_grid(volume),
    )
    path.write_text(page, encoding="utf-8")


def trained_on(model: dict[str, Any]) -> str:
    """One sentence on the training data."""
    facts = model.get("trained_on") or {}
    if not facts:
        return "The checkpoint does not say what it was trained on."
    sites = ", ".join(f"{name} ({n})" for name, n in facts["sites"].items())
    made, real = f"synthetic studies (phantom version {', '.join(facts['phantom_versions'])})", facts.get("real_studies", 0)
    kind = "studies" if not facts["phantom_versions"] else f"studies, {real} of patients and the others {made}," if real else made
    labels = ", ".join(f"{name} on {n}" for name, n in facts["labels"].items() if n)
    return f"{facts['studies']} {kind} of {facts['patients']} patients; sites: {sites}; labels: {labels}."


def _grades(scheme: str, count: int) -> list[str]:
    if SeverityScheme.kind(scheme) is SeverityScheme.BINARY:
        return ["not severe", "severe"]
    return [f"grade {k}" for k in range(count)]


def _grid(volume: Volume) -> str:
    z, y, x = volume.array.shape
    if volume.geometry is None:
        return f"{x} x {y} pixels; millimetres unknown"
    dz, dy, dx = volume.geometry.spacing_mm
    return f"{x} x {y} x {z} voxels of {dx:.2f} x {dy:.2f} x {dz:.2f} mm"


def _titled(group: str) -> str:
    """A group of diagnoses, ``non_pneumonia+cap``, in words."""
    words = " or ".join(Diagnosis(name).words for name in group.split("+"))
    return words[0].upper() + words[1:]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _by_scheme(scores: list[ScoreFinding]) -> list[tuple[str, dict[str, str]]]:
    """Each scheme with its values as text, by where they come from."""
    table: dict[str, dict[str, str]] = {}
    for score in scores:
        table.setdefault(score.scheme, {})[score.source] = f"{score.value:.1f}"
    return list(table.items())


def _kinds(a: Assessment) -> list[tuple[str, str]]:
    """Kinds of infection in the map with their colours: filled on a radiograph, outlined over a CT's lobes."""
    colours = INFECTION_COLOURS if a.volume.modality is Modality.CXR else OUTLINE_COLOURS
    codes = [InfectionCode(code) for code in np.unique(a.maps[Column.INFECTION]).tolist() if code] if Column.INFECTION in a.maps else []
    return [(code.name.replace("_", " ").capitalize(), f"rgb{colours[code]}") for code in codes]


def _views(a: Assessment) -> list[View]:
    return _film(a) if a.volume.modality is Modality.CXR else _planes(a)


def _film(a: Assessment) -> list[View]:
    """The radiograph as it is, and with the infection in colour within the outlines of the lungs."""
    pixels = grey(a.volume.array[0], a.volume.intensity)
    drawn = overlay(pixels, a.maps[Column.INFECTION][0], INFECTION_COLOURS) if Column.INFECTION in a.maps else overlay(pixels, None)
    if Column.LUNGS in a.maps:
        drawn = outline(drawn, a.maps[Column.LUNGS][0])
    scale = _FILM_SIDE / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    shown = [text for mask, text in ((Column.INFECTION, "infection in colour"), (Column.LUNGS, "lungs outlined")) if mask in a.maps]
    titles = [("The radiograph", overlay(pixels, None))]
    if shown:
        titles.append((f"As predicted: {', '.join(shown)}", drawn))
    return [View(title, data_url(picture, size), "R", "L", "", "") for title, picture in titles]


def _planes(a: Assessment) -> list[View]:
    """Axial, coronal and sagittal planes through the predicted lungs where they are widest (sagittal: the right lung).

    Lobes are coloured, infection is outlined; the axial slice with most of it is shown as well.
    """
    volume, lobes, infection = a.volume, a.lobes, a.maps.get(Column.INFECTION)
    z, y, x = _centre(a)
    spacing = volume.geometry.spacing_mm if volume.geometry else (1.0, 1.0, 1.0)

    def plane(axis: int, index: int, title: str, edges: tuple[str, str, str, str]) -> View:
        pixels = np.take(volume.array, index, axis)
        labels, ill = (None if codes is None else np.take(codes, index, axis) for codes in (lobes, infection))
        if axis:  # superior on top
            pixels, labels, ill = pixels[::-1], None if labels is None else labels[::-1], None if ill is None else ill[::-1]
        across, down = spacing[2] if axis != 2 else spacing[1], spacing[1] if axis == 0 else spacing[0]
        width, height = pixels.shape[1] * across, pixels.shape[0] * down
        scale = _LONG_SIDE / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        drawn = overlay(grey(pixels, volume.intensity), labels, COLOURS)
        return View(title, data_url(drawn if ill is None else outline(drawn, ill, OUTLINE_COLOURS), size), *edges)

    views = [plane(0, z, f"Axial, slice {z + 1} from below", ("R", "L", "A", "P"))]
    if volume.array.shape[0] > 1:
        views.append(plane(1, y, "Coronal", ("R", "L", "S", "I")))
        views.append(plane(2, x, "Sagittal, right lung", ("A", "P", "S", "I")))
        if infection is not None and infection.any():
            most = int((infection > 0).sum(axis=(1, 2)).argmax())
            views.append(plane(0, most, f"Axial, slice {most + 1} from below: most infection", ("R", "L", "A", "P")))
    return views


def _centre(a: Assessment) -> tuple[int, int, int]:
    shape = a.volume.array.shape
    if a.lobes is None or not a.lobes.any():
        return shape[0] // 2, shape[1] // 2, shape[2] // 3
    by_slice = (a.lobes > 0).sum(axis=(1, 2))
    inside = np.flatnonzero(by_slice > 0.5 * by_slice.max())
    widest_row = int((a.lobes > 0).sum(axis=(0, 2)).argmax())
    right = (a.lobes >= Lobe.RIGHT_UPPER).sum(axis=(0, 1))
    return int(np.median(inside)), widest_row, int(right.argmax()) if right.any() else shape[2] // 3
