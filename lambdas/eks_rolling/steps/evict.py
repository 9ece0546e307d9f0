"""Evict pods: within their budgets, until the node is empty and what left it is Ready elsewhere.

- Pods that a budget covers: as many at a time as it allows. The Eviction API has the last word.
- Pods of a workload without a budget: a temporary one is made, one pod at a time.
- Pods with volumes and StatefulSet pods: one at a time, the next when the last one is Ready elsewhere.
- Deployments that ask for it by annotation: a rollout restart, which starts the new pod before it stops the old one.
- Once empty, the node is cordoned, so that pods which tolerate everything do not come back.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from eks_rolling.clients.protocols import Clients, EvictionStatus
from eks_rolling.errors import NotFound
from eks_rolling.observed.kubernetes import RESTARTED_FOR, Budget, Node, Owner, Pod, Strategy, Workload
from eks_rolling.observed.marks import NODE_CORDONED, NODE_MOVING, NODE_ROLL
from eks_rolling.payloads import Hold, HoldKind, NodeTask, StepResult, backoff
from eks_rolling.redis.groups import GROUP
from eks_rolling.runtime import handler_for
from eks_rolling.wording import counted

BUDGET_PREFIX = "eks-rolling-"

BUDGETABLE = frozenset({"Deployment", "StatefulSet", "ReplicaSet"})
"""Kinds whose size the disruption controller knows, so that maxUnavailable works for them."""

SEPARATOR = " | "

BUDGETS_TOLD = 20
"""Budgets that one answer describes, the tightest first: what a step answers should stay small."""

REFUSALS_TOLD = 10
"""Refusals that one answer words; it counts all."""


@dataclass(frozen=True, slots=True)
class Moving:
    """A workload that pods of this node belong to and that is awaited whole again; `pods` only while it is not."""

    workload: Workload
    pods: tuple[Pod, ...] = ()

    @property
    def lacking(self) -> str:
        """What is missing, and why; "" if nothing is."""
        if self.workload.all_ready:
            return ""
        reasons = [f"pod {p} {p.not_ready_because}" for p in self.pods if p.not_ready_because]
        counts = f"{self.workload.owner}: {self.workload.ready} of {self.workload.desired} pods are Ready again"
        return f"{counts} ({'; '.join(reasons)})" if reasons else counts


@dataclass(frozen=True, slots=True)
class NodeToEmpty:
    """A node that is being emptied, and everything its pods' going depends on."""

    node: Node
    pods: tuple[Pod, ...]
    budgets: tuple[Budget, ...] = ()
    workloads: dict[Owner, Workload | None] = field(default_factory=dict)
    moving: tuple[Moving, ...] = ()


@dataclass(frozen=True, slots=True)
class EvictPods:
    """Ask for these evictions now; `moving` are the workloads to see Ready again afterwards."""

    pods: tuple[Pod, ...]
    moving: frozenset[Owner]


@dataclass(frozen=True, slots=True)
class MakeBudgets:
    workloads: tuple[Workload, ...]


@dataclass(frozen=True, slots=True)
class DropBudgets:
    """Temporary budgets of ours beside one that came later: two on a pod forbid every eviction."""

    budgets: tuple[Budget, ...]


@dataclass(frozen=True, slots=True)
class Restart:
    workload: Workload


@dataclass(frozen=True, slots=True)
class Cordon:
    pass


@dataclass(frozen=True, slots=True)
class Empty:
    reason: str


Decision = EvictPods | MakeBudgets | DropBudgets | Restart | Cordon | Hold | Empty


def decide(seen: NodeToEmpty) -> Decision:
    """The next action on the way to an empty node. One kind of action at a time; then look again."""
    here = [p for p in seen.pods if not p.stays_with_node]
    movers = [p for p in here if not p.deleting]
    covering = {p.uid: [b for b in seen.budgets if b.covers(p)] for p in movers}
    if not here:
        return _finish(seen)
    if surplus := _surplus_budgets(covering):
        return DropBudgets(surplus)
    for pod in movers:
        workload = seen.workloads.get(pod.owner) if pod.owner else None
        if workload and workload.strategy is Strategy.RESTART and workload.restarted_for != restart_mark(seen.node):
            return Restart(workload)
    if missing := _without_budget(seen, movers, covering):
        return MakeBudgets(missing)
    allowed, holds = _allowed(seen, movers, covering)
    if allowed:
        moving = frozenset(p.owner for p in allowed if p.owner and _was_whole(seen, p.owner))
        return EvictPods(tuple(allowed), moving)
    ending = [f"pod {p} is ending" for p in here if p.deleting]
    kind = next((why.kind for why in holds if why.kind), HoldKind.PODS)
    return Hold("; ".join([why.reason for why in holds] + ending), kind)


def _finish(seen: NodeToEmpty) -> Decision:
    late = [m.lacking for m in seen.moving if m.lacking]
    if not seen.node.unschedulable:
        return Cordon()
    if late:
        return Hold("; ".join(late), HoldKind.PODS)
    return Empty("the node is empty")


def _surplus_budgets(covering: dict[str, list[Budget]]) -> tuple[Budget, ...]:
    return tuple({b for budgets in covering.values() if len(budgets) > 1 for b in budgets if b.ours})


def _without_budget(seen: NodeToEmpty, movers: list[Pod], covering: dict[str, list[Budget]]) -> tuple[Workload, ...]:
    wanted = {
        workload.owner: workload
        for pod in movers
        if pod.owner
        and not covering[pod.uid]
        and pod.owner.kind in BUDGETABLE
        and (workload := seen.workloads.get(pod.owner))
        and workload.strategy is not Strategy.RESTART
        and GROUP not in workload.annotations
    }
    return tuple(wanted.values())


def _allowed(seen: NodeToEmpty, movers: list[Pod], covering: dict[str, list[Budget]]) -> tuple[list[Pod], list[Hold]]:
    """Which pods may be asked for now, and why not the others."""
    left: dict[Budget, int] = {}
    taken: defaultdict[Owner, int] = defaultdict(int)
    one_by_one_busy = any(p.deleting and _one_by_one(p) for p in seen.pods) or any(
        m.workload.owner.kind not in {"Deployment", "ReplicaSet"} and m.lacking for m in seen.moving
    )
    allowed: list[Pod] = []
    holds: list[Hold] = []
    for pod in movers:
        if why := _why_not(seen, pod, covering[pod.uid], left, taken, one_by_one_busy=one_by_one_busy):
            holds.append(replace(why, reason=f"pod {pod}: {why.reason}"))
            continue
        allowed.append(pod)
        one_by_one_busy = one_by_one_busy or _one_by_one(pod)
        if pod.owner:
            taken[pod.owner] += 1
        for budget in covering[pod.uid]:
            left[budget] = left.get(budget, budget.allowed) - 1
    return allowed, holds


def _why_not(
    seen: NodeToEmpty,
    pod: Pod,
    budgets: list[Budget],
    left: dict[Budget, int],
    taken: dict[Owner, int],
    *,
    one_by_one_busy: bool,
) -> Hold | None:
    workload = seen.workloads.get(pod.owner) if pod.owner else None
    if workload and GROUP in workload.annotations:
        return Hold(
            f"it belongs to Redis group {workload.annotations[GROUP]}, which is migrated, not evicted", HoldKind.REDIS
        )
    if workload and workload.strategy is Strategy.RESTART:
        return Hold(f"{workload.owner} is restarting")
    if len(budgets) > 1:
        both = " and ".join(str(b) for b in budgets)
        return Hold(f"budgets {both} both cover it; narrow the selector of one", HoldKind.BUDGET)
    if budgets:
        budget = budgets[0]
        if not budget.observed:
            return Hold(f"budget {budget} has not been looked at yet", HoldKind.BUDGET)
        # A pod that is not Ready may go where the budget is met by the others; the API decides that.
        if pod.ready and left.get(budget, budget.allowed) < 1:
            needs = f"budget {budget} needs {budget.desired_healthy} healthy pods and has {budget.healthy}"
            return Hold(needs, HoldKind.BUDGET)
    elif pod.owner and pod.owner.kind not in {"Job", "Node"} and pod.owner in taken:
        return Hold(f"another pod of {pod.owner} goes first")
    if _one_by_one(pod) and one_by_one_busy:
        return Hold("pods with volumes go one at a time")
    return None


def _one_by_one(pod: Pod) -> bool:
    return bool(pod.claims) or (pod.owner is not None and pod.owner.kind == "StatefulSet")


def _was_whole(seen: NodeToEmpty, owner: Owner) -> bool:
    workload = seen.workloads.get(owner)
    return workload is not None and workload.all_ready


def restart_mark(node: Node) -> str:
    """What a Deployment's pod template says once it was restarted for this node in this roll."""
    return f"{node.annotations.get(NODE_ROLL, '')}/{node.name}"


def describe_budgets(seen: NodeToEmpty) -> dict[str, list[int]]:
    """The budgets of what leaves the node, for the report: allowed, healthy, needed, expected, and whether ours."""
    pods = [*(p for p in seen.pods if not p.stays_with_node), *(p for m in seen.moving for p in m.pods)]
    # The labels of a workload's selector are on all of its pods.
    labels = [
        (m.workload.owner.namespace, dict(m.workload.selector.labels)) for m in seen.moving if m.workload.selector
    ]
    found = [
        b
        for b in seen.budgets
        if any(b.covers(p) for p in pods)
        or any(b.namespace == namespace and b.selector and b.selector.matches(on) for namespace, on in labels)
    ]
    tightest = sorted(found, key=lambda b: (b.allowed, str(b)))[:BUDGETS_TOLD]
    return {str(b): [b.allowed, b.healthy, b.desired_healthy, b.expected, int(b.ours)] for b in tightest}


def run(task: NodeTask, clients: Clients) -> StepResult:
    """Its answers tell of the budgets as well, which is what the report knows of them."""
    seen = observe(task.node, clients)
    result = act(seen, task, clients)
    return result.model_copy(update={"output": result.output | {"budgets": describe_budgets(seen)}})


def act(seen: NodeToEmpty, task: NodeTask, clients: Clients) -> StepResult:
    """One action."""
    decision = decide(seen)
    waited = clients.now() - (task.since or clients.now())
    match decision:
        case EvictPods(pods, moving):
            return _evict(seen.node, pods, moving, clients)
        case MakeBudgets(workloads):
            for workload in workloads:
                name = f"{BUDGET_PREFIX}{workload.owner.kind.lower()}-{workload.owner.name}"
                clients.kubernetes.create_budget(workload, name, {NODE_ROLL: task.roll})
            names = ", ".join(str(w.owner) for w in workloads)
            return StepResult.wait(f"{names}: without a budget, so one pod at a time", 1)
        case DropBudgets(budgets):
            for budget in budgets:
                clients.kubernetes.delete_budget(budget)
            return StepResult.wait("temporary budgets gave way to ones of the cluster's own", 1)
        case Restart(workload):
            clients.kubernetes.update_workload(workload, template_annotations={RESTARTED_FOR: restart_mark(seen.node)})
            return StepResult.wait(f"{workload.owner} restarts elsewhere, as it asks for", 2)
        case Cordon():
            clients.kubernetes.update_node(seen.node, unschedulable=True, annotations={NODE_CORDONED: "true"})
            return StepResult.wait("the node is empty and was cordoned", 1)
        case Hold(reason, kind):
            return StepResult.wait(reason, backoff(waited), kind=kind)
        case Empty(reason):
            return StepResult.done(reason)
        case _:
            assert_never(decision)


def observe(node_name: str, clients: Clients) -> NodeToEmpty:
    """The node, its pods and what they belong to. Raises NotFound when the node is gone."""
    kubernetes = clients.kubernetes
    node = kubernetes.node(node_name)
    if node is None:
        raise NotFound(f"Node {node_name} left the cluster before it was empty; start a new roll.")
    pods = tuple(kubernetes.pods_on(node_name))
    owners = {p.owner for p in pods if p.owner and not p.stays_with_node}
    return NodeToEmpty(
        node=node,
        pods=pods,
        budgets=tuple(kubernetes.budgets()),
        workloads={owner: kubernetes.workload(owner) for owner in owners},
        moving=tuple(_look_at_moving(node, clients)),
    )


def _look_at_moving(node: Node, clients: Clients) -> Iterator[Moving]:
    for owner in sorted(_moving(node), key=str):
        workload = clients.kubernetes.workload(owner)
        if workload is not None:
            pods = () if workload.all_ready else tuple(clients.kubernetes.pods_of(workload))
            yield Moving(workload, pods)


def _moving(node: Node) -> frozenset[Owner]:
    text = node.annotations.get(NODE_MOVING, "")
    return frozenset(Owner.parse(part) for part in text.split(SEPARATOR) if part)


def _evict(node: Node, pods: tuple[Pod, ...], moving: frozenset[Owner], clients: Clients) -> StepResult:
    """Remembers whom to wait for, then evicts: after a crash in between, somebody is waited for in vain at worst."""
    if moving - _moving(node):
        text = SEPARATOR.join(sorted(str(o) for o in _moving(node) | moving))
        clients.kubernetes.update_node(node, annotations={NODE_MOVING: text})
    refused = []
    retry_after = 1.0
    for pod in pods:
        answer = clients.kubernetes.evict(pod)
        if answer.status in {EvictionStatus.REFUSED, EvictionStatus.FORBIDDEN_BY_TWO_BUDGETS}:
            refused.append(f"pod {pod}: {answer.reason}")
            retry_after = max(retry_after, answer.retry_after)
    evicted = len(pods) - len(refused)
    reasons = ([f"{counted(evicted, 'pod')} evicted"] if evicted else []) + refused
    kind = {"kind": HoldKind.BUDGET, "refusals": refused[:REFUSALS_TOLD]} if refused else {}
    return StepResult.wait("; ".join(reasons), retry_after, refused=len(refused), evicted=evicted, **kind)


handler = handler_for(run, NodeTask)
