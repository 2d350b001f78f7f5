"""What is said of one study: findings with a status, a reason and a remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a study is judged."""

    PASS = "pass"
    WARN = "warn"
    REJECT = "reject"


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        status: warn or reject.
        check: short name of what was looked at.
        reason: what was found, with numbers.
        remedy: what to do about it.
    """

    status: Status
    check: str
    reason: str
    remedy: str


@dataclass
class Verdict:
    """What is said of one study.

    Attributes:
        study_id: name of the study.
        findings: in the order they were made.
        facts: plain numbers (shape, spacing, lung volume), for the JSON.
        content: hash of the image's voxels, "" if unreadable.
        lasting: whether it rests on what the files hold; not where the system (rights, a network disk) kept them from being read.
    """

    study_id: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    content: str = ""
    lasting: bool = True

    @property
    def status(self) -> Status:
        """The worst finding's."""
        found = {f.status for f in self.findings}
        return next((s for s in (Status.REJECT, Status.WARN) if s in found), Status.PASS)

    def add(self, status: Status, check: str, reason: str, remedy: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(status, check, reason, remedy))

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        findings = [{**asdict(f), "status": str(f.status)} for f in self.findings]
        return {"study_id": self.study_id, "status": str(self.status), "findings": findings, "facts": self.facts, "content": self.content}

    @staticmethod
    def of(values: dict[str, Any]) -> Verdict:
        """From plain values."""
        findings = [Finding(Status(f["status"]), f["check"], f["reason"], f["remedy"]) for f in values["findings"]]
        return Verdict(values["study_id"], findings, values["facts"], values["content"])
