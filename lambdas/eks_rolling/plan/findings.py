"""What a plan says of a cluster: findings, each with object, reason and remedy."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What a finding does to the roll."""

    BLOCKS = "blocks"
    HOLDS = "holds"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing an operator should know before the roll."""

    code: str
    severity: Severity
    object: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.object}: {self.reason}; {self.remedy}"


def blocks(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code, Severity.BLOCKS, subject, reason, remedy)


def holds(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code, Severity.HOLDS, subject, reason, remedy)


def note(code: str, subject: str, reason: str, remedy: str) -> Finding:
    return Finding(code, Severity.NOTE, subject, reason, remedy)
