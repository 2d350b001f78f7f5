"""``m2net audit``: how well trivial facts of the images tell the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2net.cli.options import add_store, check_apart, count, new_file, parser, progress
from m2net.errors import ConfigError
from m2net.vocabulary import DEFAULT_SPACING_MM, Column, SeverityScheme

if TYPE_CHECKING:
    from m2net.bags.store import Store
    from m2net.studies import Manifest, Study

LABELS = ("diagnosis", "infected", "severity")
_FEW = 10  # different texts may be categories even in a small manifest


def run(argv: list[str]) -> int:
    """Audit a label, and a model's predictions of it."""
    options = parser(
        argv[0],
        "How well do trivial facts alone (image size, spacing, saturation, histogram, border, marks, kernel, site) tell a label? "
        "With --predictions also: what is left of a model's AUC within strata of the strongest of them?",
    )
    add_store(options)
    options.add_argument(
        "--spacing", type=float, help=f"pixel size in mm (data.input.spacing_mm); else the store's, {DEFAULT_SPACING_MM} for a new one"
    )
    options.add_argument("--label", choices=LABELS, default="diagnosis")
    options.add_argument("--predictions", type=Path, help="predictions.csv of m2net test or crossval")
    options.add_argument("--strata", default="", metavar="FACT", help="stratify by this fact, as saturation/white_share")
    options.add_argument("--columns", nargs="+", default=[], help="further columns of the manifest to count as facts (dates count anyway)")
    options.add_argument("--out", type=new_file, help="also write the table as JSON to this file")
    options.add_argument("--seed", type=count, default=0, help="seed of folds and forests")
    given = options.parse_args(argv[1:])
    from m2net.bags.preparing import prepare_missing
    from m2net.bags.store import Store
    from m2net.reports.results import read_rows
    from m2net.studies import read_manifest

    check_apart("--out", given.out, [given.manifest, given.predictions])
    manifest = read_manifest(given.manifest)
    check_columns(manifest, given.columns, "--columns")
    rows = None
    if given.predictions:
        rows = read_rows(given.predictions)
    store = Store(given.store, _only_spacing(given.store) if given.spacing is None else given.spacing, repair=given.repair)
    prepare_missing(store, list(manifest), given.workers)
    columns = with_dates(manifest, given.columns)
    judge(list(manifest), store, given.label, rows, given.out, strata=given.strata, columns=columns, seed=given.seed)
    return 0


def check_columns(manifest: Manifest, columns: Sequence[str], option: str) -> None:
    """Refuse columns, given by this option, that cannot be facts.

    Raises:
        ConfigError: one is not in the manifest, is m2net's own, or is text that nearly every study has to itself.
    """
    if not columns:
        return
    from m2net.assessment.shortcuts import as_fact

    further = sorted(set(manifest.columns) - set(Column))
    for name in columns:
        if name not in further:
            found = "is m2net's own" if name in manifest.columns else f"is not in {manifest.path}"
            raise ConfigError(f"{option}: the column {name} {found}", expected=f"some of {', '.join(further) or 'none'}")
        texts = [fact for fact in (as_fact(study.extra.get(name, "")) for study in manifest) if isinstance(fact, str) and fact]
        if len(set(texts)) > max(_FEW, len(texts) / 2):
            raise ConfigError(
                f"{option}: the column {name} holds {len(set(texts))} different texts, as {texts[0]!r}",
                expected="numbers, dates as 2020-03-31, or categories that studies share",
            )  # fmt: skip


def with_dates(manifest: Manifest, columns: Sequence[str]) -> tuple[str, ...]:
    """These columns, and those of the manifest named ``date`` or ``..._date`` that hold dates and numbers only: when may tell who."""
    from m2net.assessment.shortcuts import as_fact

    named = [c for c in manifest.columns if c.lower() == "date" or c.lower().endswith("_date")]
    dates = [c for c in named if not any(isinstance(as_fact(text), str) for s in manifest if (text := s.extra.get(c, "").strip()))]
    return tuple(dict.fromkeys([*columns, *dates]))


def _only_spacing(folder: Path) -> float:
    from m2net.bags.store import spacings

    found = spacings(folder)
    if len(found) == 1:
        return found[0]
    if not found and not (folder / "index.json").exists():
        return DEFAULT_SPACING_MM
    sizes = f"{', '.join(f'{mm:g}' for mm in found)} mm" if found else "a pixel size that it does not tell"
    raise ConfigError(
        f"{folder} is prepared at {sizes}", expected="one pixel size",
        remedy="Say which with --spacing (data.input.spacing_mm of the model's configuration)",
    )  # fmt: skip


def judge(
    studies: list[Study], store: Store, label: str, rows: list[dict[str, Any]] | None, out: Path | None, *,
    strata: str = "", columns: tuple[str, ...] = (), seed: int = 0,
) -> None:  # fmt: skip
    """Audit, print and (with ``out``) write; with predictions only the studies that they hold are looked at."""
    from m2net.assessment.audit import audit
    from m2net.assessment.shortcuts import trivial_facts
    from m2net.objectives import folds_of
    from m2net.reports.audit import show_audit, write_audit

    if rows is not None:
        held = {row["study_id"]: row for row in rows}
        studies = [s for s in studies if s.study_id in held]
        if not studies:
            raise ConfigError("the predictions hold no study of this manifest", expected="predictions of the same studies")
    schemes = {s.severity_scheme for s in studies if s.severity is not None} if label == "severity" else set()
    if len(schemes) > 1:
        raise ConfigError(f"severity is given in {', '.join(sorted(map(str, schemes)))}", expected="one scheme", remedy="Audit them apart")
    if schemes and SeverityScheme.kind(str(*schemes)) is SeverityScheme.SCORE:
        raise ConfigError(f"severity is given in {str(*schemes)}", expected="grades (binary or ordinal:GRADES): a score has no classes")
    labels = [_text(study, label) for study in studies]
    facts = [trivial_facts(s, store.open(s), columns) for s in progress(studies, "Looking at the images", len(studies))]
    told = None if rows is None else [held[s.study_id] for s in studies]
    scores = None if told is None else _scores(told, label, sorted(set(labels) - {""}))
    folds = None if told is None else folds_of(told)
    audits = audit(labels, [s.patient_id for s in studies], facts, scores, folds, strata, seed)
    show_audit(label, audits)
    if out is not None:
        write_audit(out, label, audits)
        print(out)


def _text(study: Study, label: str) -> str:
    if label == "diagnosis":
        return study.possible_text
    value = study.infected if label == "infected" else study.severity
    return "" if value is None else str(int(value) if float(value).is_integer() else value)


def _scores(rows: list[dict[str, Any]], label: str, classes: list[str]) -> dict[str, Any]:
    """Per class what the predictions say of it: a probability, or an area that grows with it; other classes are left out.

    Raises:
        ConfigError: they speak of no class, or hold what is no number.
    """
    import numpy as np

    starts = "diagnosis_p_"
    groups = {"+".join(sorted(c.removeprefix(starts).split("+"))): c for c in rows[0] if c.startswith(starts)}

    def column(name: str) -> Any:
        try:
            return np.array([float(row.get(name) or "nan") for row in rows])
        except ValueError as error:
            raise ConfigError(
                f"the predictions' column {name} holds no number ({error})", expected="decimal points",
                remedy="Take the file as m2net wrote it; a spreadsheet may have changed it",
            ) from error  # fmt: skip

    found: dict[str, Any] = {}
    for name in classes:
        group = "+".join(sorted(name.split("|")))
        if label == "diagnosis" and group in groups:
            found[name] = column(groups[group])
        elif label == "infected" and "non_pneumonia" in groups:
            healthy = column(groups["non_pneumonia"])
            found[name] = healthy if name == "0" else 1 - healthy
        elif label == "infected" and "detection_area" in rows[0]:
            found[name] = column("detection_area") * (-1 if name == "0" else 1)
        elif label == "severity" and name.isdigit() and "severity_ge1" in rows[0]:
            above = column(f"severity_ge{name}") if name != "0" else np.ones(len(rows))
            after = f"severity_ge{int(name) + 1}"
            found[name] = above - (column(after) if after in rows[0] else 0.0)
    if not found:
        raise ConfigError(f"the predictions say nothing of {', '.join(classes)}", expected=f"predictions of the label {label}")
    return found
