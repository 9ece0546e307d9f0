"""Plan the roll: which nodes are outdated, what stands in the way. Changes nothing."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lambdas.clients import Clients
from lambdas.entry import handler_for
from lambdas.errors import Permanent, sentence
from lambdas.findings import Finding, Severity
from lambdas.marks import AUTOSCALER_REPLICAS, GROUP_MAXIMUM, GROUP_RESUME, NODE_ROLL
from lambdas.migration import look
from lambdas.model import PlanTask, RollRequest, StepResult, Targets, counted
from lambdas.observed import Node, Pod
from lambdas.preflight import Candidate, View, candidates, findings, resolve
from lambdas.redis_groups import Part, RedisGroup, declared
from lambdas.redis_preflight import RedisView, describe
from lambdas.settings import Settings


class Outcome(StrEnum):
    """Where the roll goes from here."""

    ROLL = "roll"
    NOTHING = "nothing"
    BLOCKED = "blocked"
    DRY_RUN = "dry-run"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the roll will do, and what was found."""

    outcome: Outcome
    reason: str
    chosen: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    targets: Targets
    redis: tuple[RedisView, ...] = ()

    @property
    def groups(self) -> list[str]:
        return sorted({c.group.name for c in self.chosen})


def decide(view: View, request: RollRequest, settings: Settings) -> Plan:
    """The plan. A blocker blocks even a roll that would otherwise have work to do; all of them are named."""
    targets = resolve(view.groups, view.versions)
    chosen = candidates(view, targets, request)
    found = findings(view, request, settings, chosen)
    blockers = [f for f in found if f.severity is Severity.BLOCKS]
    nodes = counted(len(chosen), "outdated node")
    if blockers:
        outcome, reason = Outcome.BLOCKED, f"{nodes}; blocked: {' | '.join(str(b) for b in blockers)}"
    elif not chosen:
        outcome, reason = Outcome.NOTHING, "no node is outdated"
    elif request.dry_run:
        outcome, reason = Outcome.DRY_RUN, f"{nodes} would be replaced"
    else:
        outcome, reason = Outcome.ROLL, f"{nodes} will be replaced"
    return Plan(outcome, reason, tuple(_masters_last(view, chosen)), tuple(found), targets, view.redis)


def redis_to_move(view: View, chosen: list[Candidate]) -> list[str]:
    """The Redis groups that have pods on nodes of the plan."""
    nodes = {c.name for c in chosen}
    owners = {p.owner for p in view.pods if p.node in nodes}
    return [str(r.group) for r in view.redis if any(r.group.part_set(owner) for owner in owners)]


def _masters_last(view: View, chosen: list[Candidate]) -> list[Candidate]:
    """Nodes of Redis masters after all others: their replicas are on new nodes by then, and need not move again."""
    masters = {s.owner for r in view.redis for s in r.group.of(Part.MASTER)}
    hosts = {p.node for p in view.pods if p.owner in masters}
    return sorted(chosen, key=lambda c: c.name in hosts)


def leftovers(view: View) -> bool:
    """Whether a roll is at work or died: its marks are on groups, nodes, budgets or workloads [R4]."""
    return (
        any(key in group.tags for group in view.groups for key in (GROUP_MAXIMUM, GROUP_RESUME))
        or any(NODE_ROLL in node.annotations for node in view.nodes)
        or any(budget.ours for budget in view.budgets)
        or any(AUTOSCALER_REPLICAS in workload.annotations for workload in view.workloads)
    )


def run(task: PlanTask, clients: Clients) -> StepResult:
    request = RollRequest.from_input(task.input)
    settings = clients.settings
    view = observe(request, clients)
    plan = decide(view, request, settings)
    clients.aws.save(f"rolls/{task.roll}/plan.json", json.dumps(document(plan, request), indent=2), "application/json")
    return StepResult.done(
        plan.reason,
        outcome=plan.outcome,
        nodes=[c.instance.id for c in plan.chosen],
        groups=plan.groups,
        targets={group: plan.targets[group] for group in plan.groups},
        surge=request.surge or settings.surge,
        approval=settings.approval if request.approval is None else request.approval,
        dry_run=request.dry_run,
        leftovers=leftovers(view) and not request.dry_run,
        keep_taints=request.keep_taints,
        redis=redis_to_move(view, list(plan.chosen)),
        unready=[str(w.owner) for w in view.workloads if not w.all_ready],
    )


def observe(request: RollRequest, clients: Clients) -> View:
    """Everything the plan looks at, read once."""
    aws, kubernetes = clients.aws, clients.kubernetes
    groups = aws.groups(request.groups)
    rollable = [g for g in groups if not g.managed]
    templates = [t.id for g in rollable for t in (g.template, *(t for _, t in g.overrides)) if t]
    nodes, pods, workloads = kubernetes.nodes(), kubernetes.pods(), kubernetes.workloads()
    redis_groups, problems = declared(workloads)
    return View(
        groups=tuple(groups),
        nodes=tuple(nodes),
        pods=tuple(pods),
        budgets=tuple(kubernetes.budgets()),
        workloads=tuple(workloads),
        volumes=tuple(kubernetes.volumes()),
        versions=aws.template_versions(templates),
        free_addresses={g.name: aws.free_addresses(g) for g in rollable},
        redis=tuple(_look_at(group, nodes, pods, clients) for group in redis_groups),
        redis_problems=tuple(problems),
    )


def _look_at(group: RedisGroup, nodes: list[Node], pods: list[Pod], clients: Clients) -> RedisView:
    zones = {n.name: n.zone for n in nodes}
    placed = tuple((p.name, zones.get(p.node, "")) for p in pods if group.part_set(p.owner))
    try:
        lease = clients.kubernetes.lease(group.lease)
        seen = look(group, "", clients).seen
    except Permanent as error:
        return RedisView(group, fault=sentence(error), zones=placed)
    return RedisView(group, seen, begun_by=lease.holder if lease else "", zones=placed)


def document(plan: Plan, request: RollRequest) -> dict[str, Any]:
    """The plan as people read it, kept beside the report."""
    return {
        "outcome": plan.outcome,
        "reason": plan.reason,
        "request": request.model_dump(mode="json"),
        "nodes": [
            {
                "node": c.name,
                "instance": c.instance.id,
                "group": c.group.name,
                "zone": c.instance.zone,
                "from": c.instance.template,
                "to": plan.targets[c.group.name].get(c.instance.type, plan.targets[c.group.name][""]),
            }
            for c in plan.chosen
        ],
        "redis": [describe(view) for view in plan.redis],
        "findings": [asdict(f) for f in plan.findings],
    }


handler = handler_for(run, PlanTask, locked=False)
