"""The audit's table, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from m2net.assessment.audit import ClassAudit
from m2net.reports.results import write_json


def write_audit(path: Path, label: str, audits: list[ClassAudit]) -> None:
    """Write audit.json."""
    write_json(path, {"label": label, "classes": [asdict(a) for a in audits]})


def show_audit(label: str, audits: list[ClassAudit]) -> None:
    """Print what shortcuts tell, and what is left of the model within their strata."""
    table = Table("what alone tells", *(a.name for a in audits), title=f"Shortcut audit of {label}: AUC, out of fold by patient")
    for family in dict.fromkeys(family for a in audits for family in a.families):
        table.add_row(family, *(str(a.families.get(family, "")) for a in audits))
    table.add_row("strongest single fact", *(f"{a.strongest.name}: {a.strongest.auc:.3f}" for a in audits))
    if any(a.model is not None for a in audits):
        table.add_section()
        table.add_row("the model", *(str(a.model or "") for a in audits))
        table.add_row("the model within strata of", *(a.strata for a in audits))
        table.add_row("", *(str(a.within or "") for a in audits))
        table.add_row("that fact itself, within them", *(str(a.fact or "") for a in audits))
        table.add_row("lost by stratifying", *(str(a.lost or "") for a in audits))
    Console(width=140).print(table)
