"""A finding: what an operator should know before a roll. The plan makes it; every view of it uses these words."""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from eks_rolling.legible import short


class Severity(StrEnum):
    """What a finding does to the roll."""

    BLOCKS = "blocks"
    HOLDS = "holds"
    NOTE = "note"


HEADINGS = {
    Severity.BLOCKS: "Blocks the roll",
    Severity.HOLDS: "Will hold it",
    Severity.NOTE: "Worth knowing",
}
"""Severity -> what its findings stand under, the gravest first."""


class Finding(BaseModel):
    """One finding: the object, what is so, and what to do about it. `code` names its kind in docs/plan.md."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str = ""
    severity: Severity = Severity.NOTE
    object: str = ""
    reason: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.object}: {self.reason}; {self.remedy}"


LONGEST = 2000
"""Characters of a reason: what annotations and servers say is among them, and an annotation may have 256 KiB."""


def blocks(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return _finding(Severity.BLOCKS, code, subject, reason, remedy)


def holds(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return _finding(Severity.HOLDS, code, subject, reason, remedy)


def note(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return _finding(Severity.NOTE, code, subject, reason, remedy)


def _finding(severity: Severity, code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code=code, severity=severity, object=subject, reason=short(reason, LONGEST), remedy=remedy)


def by_severity(findings: Iterable[Finding]) -> dict[Severity, list[Finding]]:
    """The findings by what they do, the gravest first; severities without any are left out."""
    listed = list(findings)
    sorted_out = {severity: [f for f in listed if f.severity is severity] for severity in HEADINGS}
    return {severity: found for severity, found in sorted_out.items() if found}


def blockers(findings: Iterable[Finding]) -> int:
    """How many of them block the roll."""
    return sum(f.severity is Severity.BLOCKS for f in findings)
