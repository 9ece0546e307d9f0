"""A plan as plain text, for messages: what will happen, what is in the way. Pure."""

from collections import Counter
from collections.abc import Iterator

from eks_rolling.documents.finding import HEADINGS, Finding, by_severity
from eks_rolling.documents.plan import PlanDocument, PlannedNode, Way
from eks_rolling.wording import spoken

SHOWN = 40
"""Nodes, and findings of a severity, that a message lists; SNS takes 256 KiB, people less."""


def plan_text(plan: PlanDocument) -> str:
    """The plan in lines of text."""
    return "\n".join(_lines(plan))


def _lines(plan: PlanDocument) -> Iterator[str]:
    yield f"{plan.cluster}: {plan.headline}"
    if plan.nodes:
        yield ""
        yield from _summary(plan)
        yield ""
        yield from _nodes(plan)
    for severity, found in by_severity(plan.findings).items():
        yield ""
        yield from _findings(HEADINGS[severity], found)


def _summary(plan: PlanDocument) -> Iterator[str]:
    zones = Counter(n.zone for n in plan.nodes if not n.place)
    replacements = ", ".join(f"{count} in {zone}" for zone, count in sorted(zones.items()))
    yield f"Replacements: {replacements or 'none'}."
    if plan.in_short:
        yield f"{plan.in_short} It costs about {plan.estimate.transitions:,} state transitions."
    moves = Counter(move.way for node in plan.nodes for move in node.moves)
    ways = {Way.EVICT: "evicted", Way.RESTART: "restarted elsewhere first", Way.MIGRATE: "of Redis, with their role"}
    if moves:
        yield "Pods: " + ", ".join(f"{moves[way]:,} {said}" for way, said in ways.items() if moves[way]) + "."
    for group in plan.groups:
        if group.raised_to is not None:
            yield f"{group.group}: maximum size {group.maximum}, raised to {group.raised_to} meanwhile."
    for way_back in plan.former:
        yield f"If the first wave fails, or a gate does not open: {way_back.sentence}."
    for quota in plan.quotas:
        if quota.limit is None:
            yield f"Not known: the quota of {quota.name} ({quota.unknown})."


def _nodes(plan: PlanDocument) -> Iterator[str]:
    for number, node in enumerate(plan.nodes[:SHOWN], start=1):
        yield f"{number:4}. {_node(node)}"
    if len(plan.nodes) > SHOWN:
        yield f"      and {len(plan.nodes) - SHOWN:,} more"


def _node(node: PlannedNode) -> str:
    changed = f" ({', '.join(c.what for c in node.changes)})" if node.changes else ""
    age = f", {spoken(node.age_seconds)} old" if node.age_seconds is not None else ""
    where = f"wave {node.wave}, {node.zone}, {node.group}"
    why = f"; replaced because {node.reason}" if node.reason else ""
    spare = f"; {node.spare}" if node.spare else ""
    return f"{node.node}: {where}, version {node.versions}{changed}{age}{why}{spare}; moves: {node.what_moves}"


def _findings(title: str, found: list[Finding]) -> Iterator[str]:
    yield f"{title} ({len(found)}):"
    for finding in found[:SHOWN]:
        yield f"  - {finding.object}: {finding.reason} [{finding.code}]"
        yield f"    -> {finding.remedy}"
    if len(found) > SHOWN:
        yield f"  and {len(found) - SHOWN:,} more, all in plan.json"
