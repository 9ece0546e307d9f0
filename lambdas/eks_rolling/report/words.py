"""Words of the report: what a wait was for, lengths of time and moments. Pure."""

from collections.abc import Mapping

from eks_rolling.documents.finding import Severity
from eks_rolling.payloads import HoldKind
from eks_rolling.wording import moment

KIND_WORDS: Mapping[HoldKind, tuple[str, str]] = {
    HoldKind.INSTANCE: ("N", "a new node"),
    HoldKind.BUDGET: ("B", "a disruption budget"),
    HoldKind.PODS: ("P", "pods: ending, or Ready again elsewhere"),
    HoldKind.TRAFFIC: ("T", "load balancers and their connections"),
    HoldKind.VOLUMES: ("V", "volumes to detach"),
    HoldKind.REDIS: ("R", "Redis: moves, synchronization, switches"),
    HoldKind.GATE: ("G", "the gate: health, alarms, bake time"),
    HoldKind.PERSON: ("H", "a person: approval, pause"),
    HoldKind.LOCK: ("L", "another roll"),
    HoldKind.ENDING: ("E", "the old instance's end, and what is put back"),
    HoldKind.OTHER: ("O", "other things"),
}
"""Kind -> its letter in the timeline, and what was waited for."""


def duration(seconds: float) -> str:
    """As people say it: "0.4 s", "58 s", "4 min 29 s", "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def offset(seconds: float) -> str:
    """Time since the roll began: "4:29", "1:02:00"."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def clock(when: float | None) -> str:
    """Date and time in UTC; "" for none."""
    return moment(when) if when else ""


NOUNS = {Severity.BLOCKS: "blocker", Severity.HOLDS: "hold", Severity.NOTE: "note"}
