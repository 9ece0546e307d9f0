"""Fills the plan's document: nodes in order, what moves on each, the room there is, how long it takes. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from eks_rolling.documents.finding import Finding
from eks_rolling.documents.plan import (
    FormerVersion,
    GroupRoom,
    Move,
    PlanDocument,
    PlannedNode,
    Quota,
    TemplateChange,
    VolumeHeld,
    Way,
    ZoneRoom,
)
from eks_rolling.observed.aws import STANDARD_VCPUS
from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.marks import target_of
from eks_rolling.payloads import RollRequest, Targets
from eks_rolling.plan.checks.redis_sentinel import describe
from eks_rolling.plan.checks.scheduling import vcpus_needed
from eks_rolling.plan.estimates import estimate, node_seconds
from eks_rolling.plan.placement import Stuck
from eks_rolling.plan.snapshot import Candidate, ClusterSnapshot
from eks_rolling.settings import Settings


@dataclass(frozen=True)
class PlanDecision:
    """What was decided."""

    outcome: str
    reason: str
    chosen: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    targets: Targets
    stuck: tuple[Stuck, ...] = ()
    former: tuple[FormerVersion, ...] = ()

    @cached_property
    def stuck_reasons(self) -> dict[str, str]:
        """Pod UID -> why it would stay Pending."""
        return {s.pod.uid: s.reason for s in self.stuck}


def write(
    plan: PlanDecision, view: ClusterSnapshot, request: RollRequest, settings: Settings, *, roll: str = ""
) -> PlanDocument:
    """The document of a plan."""
    surge = request.surge_in(settings)
    described = tuple(describe(r) for r in view.redis)
    roles = {
        f"{r.group.namespace}/{s['pod']}": s for r, d in zip(view.redis, described, strict=True) for s in _servers(d)
    }
    numbers = waves(len(plan.chosen), settings)
    nodes = tuple(
        _node(candidate, wave, plan, view, roles) for candidate, wave in zip(plan.chosen, numbers, strict=True)
    )
    lengths: defaultdict[int, list[float]] = defaultdict(list)
    for node in nodes:
        lengths[node.wave].append(node.seconds or 0.0)
    redis_pods = sum(move.way is Way.MIGRATE for node in nodes for move in node.moves)
    return PlanDocument(
        roll=roll,
        cluster=settings.cluster,
        made=view.now,
        outcome=plan.outcome,
        reason=plan.reason,
        request=request.model_dump(mode="json"),
        surge=surge,
        nodes=nodes,
        zones=_zones(plan.chosen, view, surge),
        groups=_groups(plan.chosen, surge),
        quotas=(_quota(plan.chosen, view, surge),) if plan.chosen else (),
        former=plan.former,
        estimate=estimate([lengths[n] for n in sorted(lengths)], surge, settings.bake_seconds, redis_pods),
        redis=described,
        findings=plan.findings,
    )


def waves(nodes: int, settings: Settings) -> list[int]:
    """The wave of each node of the plan, in its order, as `select_wave` cuts it. Only an estimate for a spare
    replacement: that comes a wave later where its wave would have the node in whose place it is."""
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
    plan: PlanDecision,
    view: ClusterSnapshot,
    roles: dict[str, dict[str, object]],
) -> PlannedNode:
    instance, node = candidate.instance, candidate.node
    pods = view.pods_on(node.name) if node else []
    leaving = [p for p in pods if not p.stays_with_node]
    moves = tuple(_move(p, view, roles, plan.stuck_reasons.get(p.uid, "")) for p in leaving)
    held = sum(int(str(roles.get(m.pod, {}).get("used_bytes") or 0)) for m in moves)
    to = target_of(instance, plan.targets[candidate.group.name])
    return PlannedNode(
        node=candidate.name,
        instance=instance.id,
        group=candidate.group.name,
        zone=instance.zone,
        type=instance.type,
        wave=wave,
        age_seconds=view.now - node.created if node and node.created else None,
        reason=candidate.reason,
        place=candidate.place,
        before=instance.template,
        to=to,
        changes=_changes(view.template_data, instance.template, to),
        moves=moves,
        stays=len(pods) - len(leaving),
        seconds=round(node_seconds(moves, held)),
    )


def _changes(data: dict[str, dict[str, str]], before: str, after: str) -> tuple[TemplateChange, ...]:
    """What the two versions say differently; nothing where one of them is not known any more."""
    if before not in data or after not in data:
        return ()
    old, new = data[before], data[after]
    return tuple(
        TemplateChange(what=name, before=old.get(name, ""), after=new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _move(pod: Pod, view: ClusterSnapshot, roles: dict[str, dict[str, object]], stuck: str) -> Move:
    budgets = view.budgets_of(pod)
    redis = view.redis_set(pod.owner)
    restarts = view.restarts(view.workload(pod.owner))
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
        stays_pending=stuck,
    )


def _zones(chosen: Sequence[Candidate], view: ClusterSnapshot, surge: int) -> tuple[ZoneRoom, ...]:
    wanted = Counter((c.group.name, c.instance.zone) for c in chosen if c.launches)
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
    wanted = Counter(c.group.name for c in chosen if c.launches)
    groups = {c.group.name: c.group for c in chosen}
    return tuple(
        GroupRoom(
            group=name,
            desired=group.desired,
            maximum=group.maximum,
            at_once=min(surge, wanted[name]),
            raised_to=needed if group.maximum < (needed := group.desired + surge + group.strays) else None,
        )
        for name, group in sorted(groups.items())
    )


def _quota(chosen: Sequence[Candidate], view: ClusterSnapshot, surge: int) -> Quota:
    return Quota(
        code=STANDARD_VCPUS,
        name="vCPUs of running on-demand standard instances",
        limit=view.quota.limit,
        used=view.quota.used,
        needed=vcpus_needed(view, chosen, surge),
        unknown=view.quota.unknown,
    )
