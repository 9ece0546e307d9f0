"""Reports of every ending, made by hand: for tests of the page."""

from collections.abc import Callable, Mapping

from eks_rolling.documents.finding import Finding
from eks_rolling.documents.report import (
    BudgetLine,
    BudgetLook,
    Capacity,
    Ending,
    Failover,
    HoldRecord,
    NodePage,
    Orphan,
    PlannedReplacement,
    Refusal,
    Report,
    StepCalls,
    StepRecord,
)
from eks_rolling.payloads import HoldKind
from eks_rolling.steps.report import redis_timeline, waits

BEGAN = 1_795_000_000.0
ROLL = "change-4f2d1c9e-8a77"
ZONES = ("eu-central-1a", "eu-central-1b")

HOSTILE = "<script>alert('no')</script><img src=x onerror=alert(1)>\" onmouseover=\"alert(2)"
"""What must never become markup."""


def hold(kind: HoldKind, since: float, seconds: float, reason: str) -> HoldRecord:
    return HoldRecord(kind=kind, since=BEGAN + since, seconds=seconds, reason=reason)


def step(name: str, started: float, ended: float, *holds: HoldRecord, redis: str = "", faults: int = 0) -> StepRecord:
    return StepRecord(
        name=name,
        started=BEGAN + started,
        ended=BEGAN + ended,
        looks=len(holds) + 1,
        holds=holds,
        redis=redis,
        faults=faults,
    )


def planned(number: int) -> PlannedReplacement:
    zone = number % 2
    return PlannedReplacement(
        node=f"ip-10-0-{zone}-{10 + number}.eu-central-1.compute.internal",
        instance=f"i-0a{number:04d}",
        group=f"workers-{'ab'[zone]}",
        zone=ZONES[zone],
        before="lt-0c3f:7",
        to="lt-0c3f:8",
    )


def node_page(number: int, began: float, *, failure: str = "", stretched: float = 1.0) -> NodePage:
    """A node's way, by seconds since the roll began."""
    plan = planned(number)

    def at(seconds: float) -> float:
        return began + seconds * stretched

    boot = hold(HoldKind.INSTANCE, at(1), 28 * stretched, f"i-0b{number:04d} is pending and has not joined the cluster")
    steps = [
        step("Launch the replacement", at(0), at(1)),
        step("Wait for the replacement", at(1), at(30), boot),
        step("Close the old node to new pods", at(30), at(31)),
        step("Look at the Redis pods", at(31), at(32), redis="shop/cache"),
        step(
            "Move the replica",
            at(32),
            at(41),
            hold(HoldKind.REDIS, at(33), 8 * stretched, "redis-replica-1 synchronizes, 41 MB left at 12 MB/s"),
            redis="shop/cache",
        ),
        step(
            "Leave the load balancers",
            at(41),
            at(44),
            hold(HoldKind.TRAFFIC, at(42), 2 * stretched, "deregistered from web"),
        ),
        step(
            "Evict pods",
            at(44),
            at(66),
            hold(HoldKind.BUDGET, at(45), 9 * stretched, "budget shop/web needs 5 healthy pods and has 5"),
            hold(HoldKind.PODS, at(54), 12 * stretched, "Deployment shop/web: 5 of 6 pods are Ready again"),
            faults=1,
        ),
    ]
    if not failure:
        steps += [
            step(
                "Wait for the last connections",
                at(66),
                at(71),
                hold(HoldKind.TRAFFIC, at(66), 5 * stretched, "connections of web are draining"),
            ),
            step(
                "Wait for volumes to detach",
                at(71),
                at(74),
                hold(HoldKind.VOLUMES, at(71), 3, "volumes are attached: pv-1"),
            ),
            step(
                "Terminate the instance",
                at(74),
                at(84),
                hold(HoldKind.ENDING, at(75), 9 * stretched, f"{plan.instance} is being terminated"),
            ),
        ]
    budget = [
        BudgetLook(at=BEGAN + at(44), allowed=1, healthy=6, needed=5, expected=6),
        BudgetLook(at=BEGAN + at(46), allowed=0, healthy=5, needed=5, expected=6),
        BudgetLook(at=BEGAN + at(64), allowed=1, healthy=6, needed=5, expected=6),
    ]
    return NodePage(
        node=plan.node,
        instance=plan.instance,
        group=plan.group,
        replacement=f"i-0b{number:04d}",
        replacement_node=f"ip-10-0-{number % 2}-{110 + number}.eu-central-1.compute.internal",
        outcome="failed" if failure else "replaced",
        failure=failure,
        started=steps[0].started,
        ended=steps[-1].ended,
        evicted=7,
        refused=2,
        steps=tuple(steps),
        refusals=(Refusal(at=BEGAN + at(46), reason="pod shop/web-1: needs 5 healthy pods and has 5 currently"),),
        capacity=(Capacity(at=BEGAN + at(30), zones=dict.fromkeys(ZONES, 3) | {ZONES[number % 2]: 4}),),
        budgets=(BudgetLine(budget="shop/web", looks=tuple(budget)),),
        calls=(StepCalls(step="Evict pods", calls=("create pods/eviction", "list pods", "list poddisruptionbudgets")),),
    )


def rolled(
    pages: list[NodePage], *, count: int, outcome: Ending = Ending.REPLACED, reason: str = "", hostile: str = ""
) -> Report:
    """A roll that changed something, of `count` planned nodes."""
    last = max(p.ended or 0 for p in pages) - BEGAN
    own = (
        step("Plan the roll", 0, 2),
        step("Take the lock", 2, 3),
        step("Pause what interferes", 3, 6, hold(HoldKind.OTHER, 4, 2, "cluster-autoscaler is stopping (1 pod left)")),
        step("Taint every outdated node", 6, 7),
        step("Pick the next nodes", 7, 8),
        step("Replace node", 8, last),
        step("Open the gate to the next wave", last, last + 20, hold(HoldKind.GATE, last, 20, "baking for 20 s more")),
        step("Restore", last + 20, last + 22),
    )
    capacity = [Capacity(at=BEGAN + 7, zones=dict.fromkeys(ZONES, 3))]
    for page in pages:
        capacity += [*page.capacity, Capacity(at=page.ended or BEGAN, zones=dict.fromkeys(ZONES, 3))]
    failovers = (
        Failover(
            at=BEGAN + 40,
            group="shop/cache",
            node=pages[0].node,
            step="Fail over to a replica",
            reason="redis-replica-0 is master, every sentinel names it (writes stood still for 0.48 s)",
            stalled_ms=480,
        ),
        Failover(
            at=BEGAN + 60, group="shop/cache", node=pages[0].node, step="Fail back to the master pod", reason="led back"
        ),
    )
    replaced = sum(p.outcome == "replaced" for p in pages)
    return Report(
        roll=ROLL,
        cluster="production" + hostile,
        outcome=outcome,
        reason=reason or f"{replaced} of {count} nodes were replaced",
        request={"surge": 2, "note": hostile} if hostile else {"surge": 2},
        trigger="CreateLaunchTemplateVersion (4f2d1c9e)",
        execution=f"arn:aws:states:eu-central-1:123456789012:execution:eks-rolling-production-roll:{ROLL}",
        began=BEGAN,
        ended=BEGAN + last + 23,
        planned=count,
        replaced=replaced,
        evicted=sum(p.evicted for p in pages),
        refused=sum(p.refused for p in pages),
        plan=tuple(planned(n) for n in range(count)),
        nodes=tuple(pages),
        steps=own,
        redis=redis_timeline(pages),
        failovers=failovers,
        refusals=tuple(r for p in pages for r in p.refusals),
        capacity=tuple(sorted(capacity, key=lambda c: c.at)),
        budgets=(
            BudgetLine(budget="shop/web" + hostile, looks=tuple(x for p in pages for x in p.budgets[0].looks)),
            BudgetLine(budget="shop/eks-rolling-deployment-api", ours=True, looks=pages[0].budgets[0].looks[:1]),
        ),
        waits=waits([*own, *(s for p in pages for s in p.steps)]),
        findings=(
            Finding(
                code="maximum-raised",
                severity="note",
                object="group workers-a",
                reason="its maximum size 3 leaves no room for replacements and is raised for the roll" + hostile,
                remedy="nothing; it is put back",
            ),
        ),
        restored=(
            "group workers-a: maximum size back to 3",
            "group workers-a: AZRebalance, AlarmNotification resumed",
            "group workers-b: AZRebalance, AlarmNotification resumed",
            "cluster-autoscaler: back at 1",
        ),
        calls=pages[0].calls,
    )


def replaced(hostile: str = "") -> Report:
    pages = [node_page(0, 10), node_page(1, 118), node_page(2, 120, stretched=1.2), node_page(3, 230)]
    return rolled(pages, count=4, hostile=hostile)


def failed() -> Report:
    why = (
        "Node ip-10-0-1-11.eu-central-1.compute.internal waited 3600 s (deadline 3600 s): pod shop/web-6d5f: budget "
        "shop/web needs 5 healthy pods and has 5"
    )
    pages = [node_page(0, 10), node_page(1, 118, failure=why)]
    report = rolled(pages, count=6, outcome=Ending.FAILED, reason=f"{pages[1].node} was not replaced: {why}")
    left = "group workers-b keeps the maximum size 5 (was 3) while its desired capacity is 4; the next roll finishes it"
    orphan = Orphan(
        kind="tainted node", object="ip-10-0-1-19", since="2026-11-24 20:11 UTC", remedy="run restore, or untaint it"
    )
    return report.model_copy(update={"left_behind": (left,), "orphans": (orphan,)})


def aborted() -> Report:
    reason = "The roll was aborted: the shop has its sale tonight."
    return rolled([node_page(0, 10), node_page(1, 118)], count=6, outcome=Ending.ABORTED, reason=reason)


def stopped() -> Report:
    gap = "What was done to ip-10-0-1-11 is not in this report: its record was not there yet."
    reason = "The roll's execution was stopped: lunch."
    report = rolled([node_page(0, 10)], count=6, outcome=Ending.STOPPED, reason=reason)
    return report.model_copy(update={"gaps": (gap,)})


def blocked() -> Report:
    found = (
        Finding(
            code="budget-never-allows",
            severity="blocks",
            object="budget shop/db",
            reason="minAvailable 3 with 3 pods allows no disruption even when all are healthy",
            remedy="set maxUnavailable to 1, or add a replica",
        ),
        Finding(
            code="two-budgets",
            severity="blocks",
            object="pod shop/api-0",
            reason="budgets shop/api and shop/all both cover it, so every eviction fails",
            remedy="narrow the selector of one",
        ),
        Finding(
            code="redis-one-copy",
            severity="holds",
            object="Redis group shop/cache",
            reason="its master has one replica",
            remedy="nothing; it is waited for",
        ),
        Finding(
            code="local-storage",
            severity="note",
            object="pod shop/worker-1",
            reason="what it keeps in scratch is lost with the old node",
            remedy="nothing, if it can be lost",
        ),
    )
    return Report(
        roll=ROLL,
        cluster="production",
        outcome=Ending.BLOCKED,
        reason="6 outdated nodes; blocked: " + " | ".join(f.reason for f in found[:2]),
        request={},
        trigger="a person",
        began=BEGAN,
        ended=BEGAN + 3,
        planned=6,
        plan=tuple(planned(n) for n in range(6)),
        steps=(step("Plan the roll", 0, 2),),
        findings=found,
    )


def dry_run() -> Report:
    report = blocked()
    return report.model_copy(
        update={
            "outcome": Ending.DRY_RUN,
            "reason": "6 outdated nodes would be replaced",
            "request": {"dry_run": True},
            "findings": report.findings[2:],
        }
    )


def nothing() -> Report:
    return Report(
        roll=ROLL,
        cluster="production",
        outcome=Ending.NOTHING,
        reason="no node is outdated",
        request={},
        began=BEGAN,
        ended=BEGAN + 2,
        steps=(step("Plan the roll", 0, 2),),
    )


def refused() -> Report:
    """Failed before anything was changed, before there was a plan."""
    return Report(
        roll=ROLL,
        cluster="production",
        outcome=Ending.FAILED,
        reason="The roll request has 1 problem: grups is not a known field "
        "(known: accept, approval, dry_run, force, groups).",
        request={"grups": ["workers-a"]},
        gaps=("The roll's own steps are not in this report. Cannot read the history: AccessDenied.",),
    )


def not_approved() -> Report:
    reason = "The roll was not approved: refused by arn:aws:iam::123456789012:user/ana: not today. Nothing was changed."
    return nothing().model_copy(
        update={"outcome": Ending.NOT_APPROVED, "reason": reason, "plan": dry_run().plan, "planned": 6}
    )


def large(count: int = 300) -> Report:
    pages = [node_page(n, 10 + 45 * (n // 10), stretched=1 + n % 7 / 10) for n in range(count)]
    return rolled(pages, count=count)


ALL: Mapping[str, Callable[[], Report]] = {
    "replaced": replaced,
    "failed": failed,
    "aborted": aborted,
    "stopped": stopped,
    "blocked": blocked,
    "dry-run": dry_run,
    "nothing": nothing,
    "refused": refused,
    "not-approved": not_approved,
    "large": large,
    "hostile": lambda: replaced(HOSTILE),
}
"""Name -> a report that looks so."""
