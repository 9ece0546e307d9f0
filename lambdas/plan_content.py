"""Fills the plan's document: nodes in order, what moves on each, the room there is, how long it takes. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from lambdas.estimates import estimate, node_seconds
from lambdas.findings import Finding
from lambdas.model import RollRequest, Targets
from lambdas.observed import Pod, Strategy
from lambdas.plan_document import (
    Found,
    GroupRoom,
    Move,
    PlanDocument,
    PlannedNode,
    VolumeHeld,
    Way,
    ZoneRoom,
)
from lambdas.preflight.view import Candidate, View
from lambdas.redis_preflight import describe
from lambdas.settings import Settings


@dataclass(frozen=True, slots=True)
class Planned:
    """What was decided."""

    outcome: str
    reason: str
    chosen: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    targets: Targets


def write(
    plan: Planned, view: View, request: RollRequest, settings: Settings, *, roll: str = "", now: float | None = None
) -> PlanDocument:
    """The document of a plan."""
    surge = request.surge or settings.surge
    described = tuple(describe(r) for r in view.redis)
    roles = {
        f"{r.group.namespace}/{s['pod']}": s for r, d in zip(view.redis, described, strict=True) for s in _servers(d)
    }
    numbers = waves(len(plan.chosen), settings)
    nodes = tuple(
        _node(candidate, wave, plan.targets, view, roles, now)
        for candidate, wave in zip(plan.chosen, numbers, strict=True)
    )
    lengths: defaultdict[int, list[float]] = defaultdict(list)
    for node in nodes:
        lengths[node.wave].append(node.seconds or 0.0)
    return PlanDocument(
        roll=roll,
        cluster=settings.cluster,
        made=now,
        outcome=plan.outcome,
        reason=plan.reason,
        request=request.model_dump(mode="json"),
        surge=surge,
        nodes=nodes,
        zones=_zones(plan.chosen, view, surge),
        groups=_groups(plan.chosen, surge),
        estimate=estimate([lengths[n] for n in sorted(lengths)], surge, settings.bake_seconds),
        redis=described,
        findings=tuple(Found(**asdict(f)) for f in plan.findings),
    )


def waves(nodes: int, settings: Settings) -> list[int]:
    """The wave of each node of the plan, in its order (`pick_wave` cuts it so)."""
    first = 1 if settings.canary else settings.wave
    return [1 if index < first else 2 + (index - first) // settings.wave for index in range(nodes)]


def _servers(described: dict[str, object]) -> Iterable[dict[str, object]]:
    for key, role in (("servers", None), ("sentinels", "sentinel")):
        members = described.get(key, ())
        if isinstance(members, list):
            for member in members:
                yield {"role": role} | member


def _node(
    candidate: Candidate,
    wave: int,
    targets: Targets,
    view: View,
    roles: dict[str, dict[str, object]],
    now: float | None,
) -> PlannedNode:
    instance, node = candidate.instance, candidate.node
    pods = view.pods_on(node.name) if node else []
    leaving = [p for p in pods if not p.stays_with_node]
    moves = tuple(_move(p, view, roles) for p in leaving)
    held = sum(int(str(roles.get(m.pod, {}).get("used_bytes") or 0)) for m in moves)
    own = targets[candidate.group.name]
    return PlannedNode(
        node=candidate.name,
        instance=instance.id,
        group=candidate.group.name,
        zone=instance.zone,
        type=instance.type,
        wave=wave,
        age_seconds=now - node.created if node and node.created and now else None,
        before=instance.template,
        to=own.get(instance.type, own[""]),
        moves=moves,
        stays=len(pods) - len(leaving),
        seconds=round(node_seconds(moves, held)),
    )


def _move(pod: Pod, view: View, roles: dict[str, dict[str, object]]) -> Move:
    budgets = view.budgets_of(pod)
    workload, redis = view.workload(pod.owner), view.redis_set(pod.owner)
    restarts = workload is not None and workload.strategy is Strategy.RESTART
    volumes = (view.volume(pod.namespace, claim) for claim in pod.claims)
    return Move(
        pod=str(pod),
        owner=str(pod.owner or ""),
        way=Way.MIGRATE if redis else Way.RESTART if restarts else Way.EVICT,
        budget=str(budgets[0]) if budgets else "",
        allowed=budgets[0].allowed if budgets else None,
        volumes=tuple(VolumeHeld(name=v.name, zones=v.zones) for v in volumes if v),
        redis=str(redis[0]) if redis else "",
        role=str(roles.get(str(pod), {}).get("role") or "") if redis else "",
    )


def _zones(chosen: Sequence[Candidate], view: View, surge: int) -> tuple[ZoneRoom, ...]:
    wanted = Counter((c.group.name, c.instance.zone) for c in chosen)
    return tuple(
        ZoneRoom(
            group=group,
            zone=zone,
            nodes=count,
            at_once=min(surge, count),
            free_addresses=view.free_addresses.get(group, {}).get(zone),
        )
        for (group, zone), count in sorted(wanted.items())
    )


def _groups(chosen: Sequence[Candidate], surge: int) -> tuple[GroupRoom, ...]:
    wanted = Counter(c.group.name for c in chosen)
    groups = {c.group.name: c.group for c in chosen}
    return tuple(
        GroupRoom(
            group=name,
            desired=group.desired,
            maximum=group.maximum,
            at_once=min(surge, wanted[name]),
            raised_to=group.desired + surge if group.maximum < group.desired + surge else None,
        )
        for name, group in sorted(groups.items())
    )
