"""The report's first lines: did it work, what did it cost meanwhile, and is anything left? Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from eks_rolling.documents.finding import blockers, by_severity
from eks_rolling.documents.report import Ending, Report
from eks_rolling.report.words import NOUNS
from eks_rolling.wording import counted


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """One of the questions that a reader of a report has. `mood` is good, bad, warn or plain."""

    question: str
    mood: str
    headline: str
    facts: tuple[str, ...] = ()


VERDICTS: Mapping[Ending, tuple[str, str]] = {
    Ending.REPLACED: ("good", "Replaced"),
    Ending.NOTHING: ("good", "Nothing to do"),
    Ending.DRY_RUN: ("plain", "Dry run"),
    Ending.BLOCKED: ("bad", "Blocked"),
    Ending.FAILED: ("bad", "Failed"),
    Ending.ABORTED: ("warn", "Aborted"),
    Ending.STOPPED: ("warn", "Stopped"),
    Ending.NOT_APPROVED: ("warn", "Not approved"),
}


def headline(report: Report) -> str:
    """The first thing that is read."""
    blocking = blockers(report.findings)
    match report.outcome:
        case Ending.BLOCKED:
            return f"The plan is blocked by {counted(blocking, 'finding')}; nothing was changed"
        case Ending.FAILED | Ending.ABORTED | Ending.STOPPED if report.planned:
            ended = {Ending.ABORTED: "was aborted", Ending.STOPPED: "was stopped"}.get(report.outcome, "failed")
            return f"The roll {ended}: {report.replaced} of {counted(report.planned, 'node')} replaced"
        case Ending.STOPPED | Ending.ABORTED:
            back = "not everything" if report.left_behind or report.orphans else "everything"
            return f"The roll was stopped and {back} was put back"
        case Ending.FAILED:
            return "The roll failed before anything was changed" if not _changed(report) else "The roll failed"
        case Ending.NOT_APPROVED:
            return "The roll was not approved; nothing was changed"
        case Ending.DRY_RUN:
            return f"{counted(report.planned, 'node')} would be replaced; nothing was changed"
        case Ending.NOTHING:
            return "No node is outdated"
        case _:
            return f"{report.replaced} of {counted(report.planned, 'node')} replaced"


def _changed(report: Report) -> bool:
    return bool(report.nodes or report.restored or report.left_behind)


def answers(report: Report) -> list[ReportAnswer]:
    """Did it work, what did it cost meanwhile, and is anything left?"""
    if report.outcome in {Ending.DRY_RUN, Ending.BLOCKED, Ending.NOTHING, Ending.NOT_APPROVED}:
        return [_would_work(report), _left(report)]
    return [_worked(report), _meanwhile(report), _left(report)]


def _would_work(report: Report) -> ReportAnswer:
    counts = [counted(len(found), NOUNS[severity]) for severity, found in by_severity(report.findings).items()]
    facts = (
        f"{counted(report.planned, 'node')} of the plan",
        f"the plan found {', '.join(counts)}" if counts else "the plan found nothing to report",
    )
    match report.outcome:
        case Ending.BLOCKED:
            return ReportAnswer("Would it work?", "bad", "No, not yet", facts)
        case Ending.NOTHING:
            return ReportAnswer("Would it work?", "good", "Every node is up to date", facts[1:])
        case _:
            return ReportAnswer("Would it work?", "good", "Yes, as far as the plan can see", facts)


def _worked(report: Report) -> ReportAnswer:
    failed = [n for n in report.nodes if n.failure]
    waiting = report.planned - len(report.nodes)
    facts = [f"{report.replaced} of {counted(report.planned, 'node')} replaced"]
    facts += [f"{counted(len(failed), 'node')} begun and not replaced"] if failed else []
    facts += [f"{counted(waiting, 'node')} not begun"] if waiting > 0 else []
    complete = report.outcome is Ending.REPLACED and report.replaced == report.planned
    mood = (
        "good" if complete else "warn" if report.outcome in {Ending.ABORTED, Ending.STOPPED, Ending.REPLACED} else "bad"
    )
    words = {"good": "Yes", "warn": "In part", "bad": "No" if not report.replaced else "In part"}
    return ReportAnswer("Did it work?", mood, words[mood], tuple(facts))


def _meanwhile(report: Report) -> ReportAnswer:
    lower = _lower_zones(report)
    broken = [b.budget for b in report.budgets if b.exceeded]
    facts = []
    if lower:
        facts += [f"Ready nodes in {zone} fell to {low}, from {start}" for zone, start, low in lower]
    elif report.capacity:
        facts.append("never fewer Ready nodes than at the start, in any zone")
    facts += [f"more pods of {budget} were unavailable than it allows" for budget in broken]
    refused = f", {counted(report.refused, 'eviction')} refused and tried again" if report.refused else ""
    facts.append(f"{counted(report.evicted, 'pod')} evicted within budgets{refused}")
    done = sum(f.completed for f in report.failovers)
    if report.failovers:
        stall = report.longest_stall_ms
        longest = f", longest stall of writes {stall:,} ms" if stall is not None else ""
        facts.append(f"{counted(done, 'Redis failover')}{longest}")
    if lower or broken:
        return ReportAnswer("Did capacity and budgets hold?", "warn", "Not all the time", tuple(facts))
    if not report.capacity:
        return ReportAnswer("Did capacity and budgets hold?", "plain", "It was not measured", tuple(facts))
    return ReportAnswer("Did capacity and budgets hold?", "good", "Yes", tuple(facts))


def _lower_zones(report: Report) -> list[tuple[str, int, int]]:
    """Zones with fewer Ready nodes than at the start: zone, start, lowest."""
    if not report.capacity:
        return []
    found = []
    for zone, start in sorted(report.capacity[0].zones.items()):
        low = min(look.zones.get(zone, 0) for look in report.capacity)
        if low < start:
            found.append((zone, start, low))
    return found


def _left(report: Report) -> ReportAnswer:
    left, orphans = len(report.left_behind), len(report.untold)
    if left or orphans:
        facts = [*report.left_behind[:3], *(f"{o.kind} {o.object}" for o in report.untold[:3])]
        return ReportAnswer("Is anything left?", "bad", counted(left + orphans, "thing"), tuple(facts))
    if not _changed(report):
        return ReportAnswer("Is anything left?", "good", "Nothing was changed")
    back = (f"{counted(len(report.restored), 'original')} put back",) if report.restored else ()
    return ReportAnswer("Is anything left?", "good", "Nothing", back)
