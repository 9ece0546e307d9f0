"""A finding: what an operator should know before a roll. The plan makes it; every view of it uses these words."""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


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


def blocks(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.BLOCKS, object=subject, reason=reason, remedy=remedy)


def holds(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.HOLDS, object=subject, reason=reason, remedy=remedy)


def note(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.NOTE, object=subject, reason=reason, remedy=remedy)


def by_severity(findings: Iterable[Finding]) -> dict[Severity, list[Finding]]:
    """The findings by what they do, the gravest first; severities without any are left out."""
    listed = list(findings)
    sorted_out = {severity: [f for f in listed if f.severity is severity] for severity in HEADINGS}
    return {severity: found for severity, found in sorted_out.items() if found}


def blockers(findings: Iterable[Finding]) -> int:
    """How many of them block the roll."""
    return sum(f.severity is Severity.BLOCKS for f in findings)
