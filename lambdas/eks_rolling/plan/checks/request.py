"""Findings about what is asked for, by the request or the settings: names and codes that do not exist."""

from collections.abc import Iterator

from eks_rolling.documents.finding import Finding, blocks, holds, note
from eks_rolling.observed.kubernetes import ACCEPT
from eks_rolling.payloads import RollRequest
from eks_rolling.plan.snapshot import ClusterSnapshot
from eks_rolling.settings import Settings


def request_findings(
    view: ClusterSnapshot,
    request: RollRequest,
    settings: Settings,
    acceptable: frozenset[str],
    one_at_a_time: frozenset[str],
) -> Iterator[Finding]:
    """`acceptable`: codes that may be accepted, of which those `one_at_a_time` name their object, CODE:OBJECT."""
    known = {g.name for g in view.groups}
    for name in request.groups:
        if why := view.left_out.get(name):
            yield blocks(
                "group-left-out",
                f"group {name}",
                f"the settings exclude it: {why}",
                "remove it from the request too, or change the setting and deploy",
            )
        elif name not in known:
            yield blocks(
                "unknown-group",
                f"group {name}",
                "there is no such Auto Scaling group",
                "correct the name, or leave groups out to take all of the cluster",
            )
    for name, why in view.left_out.items():
        if name not in request.groups:
            yield note(
                "group-left-out", f"group {name}", f"the settings exclude it: {why}", "nothing, if that is intended"
            )
    nodes = {n.name for n in view.nodes} | {i.id for g in view.groups for i in g.instances}
    for name in request.nodes:
        if name not in nodes:
            yield blocks(
                "unknown-node",
                f"node {name}",
                f"neither a node of {settings.cluster} nor an instance of its groups",
                "correct the name",
            )
    for given in sorted(set(request.accept) | set(settings.accept)):
        code, _, named = given.partition(":")
        if code in one_at_a_time and not named:
            yield blocks(
                "accept-for-all",
                f"accept {code}",
                "this is accepted for one object at a time",
                f"name it, as its finding does: {code}:OBJECT, or annotate it with {ACCEPT}: {code}",
            )
        if code in acceptable:
            continue
        yield blocks(
            "unknown-code",
            f"accept {code}",
            "this is not the code of a blocker that can be accepted",
            f"use any of {', '.join(sorted(acceptable))}",
        )


def alarm_findings(view: ClusterSnapshot, request: RollRequest) -> Iterator[Finding]:
    """About alarms that the gate would wait for in vain, once a wave has been replaced."""
    for name in view.alarms_missing:
        subject, said = f"alarm {name}", "the settings name it for the gate, which fails where it does not exist"
        remedy = "correct the setting alarms, and deploy again"
        if request.rolls_back:
            # Its first wave at least leaves the version that has failed.
            yield holds("no-such-alarm", subject, said, remedy)
        else:
            yield blocks("no-such-alarm", subject, said, remedy)
