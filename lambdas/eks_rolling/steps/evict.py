"""Evict pods: within their budgets, until the node is empty and what left it is Ready elsewhere.

- Pods that a budget covers: as many at a time as it allows. The Eviction API has the last word.
- A budget that says 0 is asked about one of its pods all the same, once in a while: webhooks that move pods by
  themselves act when an eviction is asked for, and the count may be old.
- Pods of a workload without a budget: a temporary one is made, one pod at a time. Controllers of kinds that the
  disruption controller cannot count have it over the labels that their pods alone have; without such labels their pods
  are counted.
- Placeholders, which only keep room for others, go at once where no budget covers them, and nobody waits for them.
- Batch pods, which end by themselves, are given time to; pods that ask not to be disturbed are waited for.
- Pods with volumes and StatefulSet pods: one at a time, the next when the last one is Ready elsewhere.
- What left counts as whole by its Ready pods, not by its controller's status, which knows of an eviction seconds later.
- Deployments that ask for it by annotation: a rollout restart, which starts the new pod before it stops the old one.
  One serves all nodes of a roll; only a new pod that finds no place but on another old node asks for one more there.
  Where no Role in their namespace lets that be done, their pods are evicted; a single replica is left alone, unless a
  person accepted that it is away while it moves.
- Pods that come back to the node under other UIDs, because they tolerate its taint, are asked a few times more; then
  they are left alone, which holds the node and says so.
- On a dead node, whose kubelet is silent, nothing that was evicted ever ends: once its time is over it counts as gone,
  and nobody waits to see whole what cannot come back before the instance goes.
- Once empty, the node is cordoned.
- Then pods of DaemonSets that serve leave it, within their grace period: otherwise clients would be sent to them until
  the Node is gone. Our taint keeps their DaemonSet from making others; those that tolerate it go last (`terminate`).
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from eks_rolling.clients.protocols import Clients, Eviction, EvictionStatus
from eks_rolling.errors import AccessDenied, NotFound, OldNodeHeld
from eks_rolling.legible import line
from eks_rolling.observed.kubernetes import (
    ACCEPT,
    RESTARTED_FOR,
    Budget,
    Node,
    Owner,
    Pod,
    Selector,
    Strategy,
    Workload,
    as_their_pods_are,
    lost_with,
    placeholders,
    serving_daemons,
)
from eks_rolling.observed.marks import (
    HARD_TAINT,
    NODE_ASKED,
    NODE_CORDONED,
    NODE_MOVING,
    NODE_ROLL,
    NODE_SERVING,
    registered_as,
)
from eks_rolling.payloads import Hold, HoldKind, NodeTask, StepResult, backoff
from eks_rolling.plan.checks.other_controllers import autoscalers
from eks_rolling.plan.checks.workloads import DO_NOT_DISTURB, RESTART_NOT_PERMITTED
from eks_rolling.plan.permissions import needed_to_restart
from eks_rolling.redis.groups import GROUP
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.roll import lock, returns
from eks_rolling.runtime import handler_for
from eks_rolling.wording import counted

BUDGET_PREFIX = "eks-rolling-"

BUDGETABLE = frozenset({"Deployment", "StatefulSet", "ReplicaSet"})
"""Kinds whose size the disruption controller knows, so that maxUnavailable works for them."""

AT_ONCE = frozenset({"Deployment", "ReplicaSet"})
"""Kinds of which several pods may go at once, as far as their budgets let them."""

UNCOUNTED = frozenset({"DaemonSet", "Job", "Node"})
"""Kinds whose pods nobody waits to see Ready elsewhere."""

SCALED_DOWN_AFTER = 300.0
"""Seconds without a further eviction after which a controller whose present pods are all Ready is taken to want no
more: what it wants is not known."""

PLACED = "topology.kubernetes.io/"
"""The API server copies a node's labels with this prefix to the pods that are bound to it (PodTopologyLabelsAdmission,
since Kubernetes 1.35)."""

OF_ONE = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "controller-revision-hash",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels of one pod or of one revision, which those that come in a pod's place need not have."""

ASK_AFTER = 60.0
"""Seconds of a hold after which a budget that says 0 is asked about."""

BATCH = "batch-pod"
"""The plan's finding about pods that end by themselves, by which it is accepted that they are not waited for."""

COUNT = re.compile(r"[0-9]{1,6}")
"""A number of pods; budgets may also ask for a percentage."""

SEPARATOR = " | "

AWAITED = re.compile(r"(?P<owner>[^=]+)(=(?P<pods>[0-9]{1,6})@(?P<at>[0-9]{1,12}))?")
"""A controller in a node's record of whom its pods' going has left to be awaited."""

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
        reasons += [f"no pod can be made: {self.workload.fault}"] if self.workload.fault else []
        counts = f"{self.workload.owner}: {self.workload.ready} of {self.workload.desired} pods are Ready again"
        return f"{counts} ({'; '.join(reasons)})" if reasons else counts


@dataclass(frozen=True, slots=True)
class NodeToEmpty:
    """A node that is being emptied, and everything its pods' going depends on. `waited` and `batch_seconds` are
    seconds; `accepted` are codes, alone or as CODE:OBJECT."""

    node: Node
    pods: tuple[Pod, ...]
    budgets: tuple[Budget, ...] = ()
    workloads: dict[Owner, Workload | None] = field(default_factory=dict)
    moving: tuple[Moving, ...] = ()
    waited: float = 0.0
    batch_seconds: float = 0.0
    accepted: frozenset[str] = frozenset()
    serving: tuple[Pod, ...] = ()
    """Pods of DaemonSets that a Service leads to."""
    placeholders: frozenset[str] = frozenset()
    """UIDs of pods that only keep room for others."""
    dead: bool = False
    """Its kubelet has been silent for so long that it is replaced all the same."""
    lost: frozenset[str] = frozenset()
    """UIDs of pods that were to end by now and cannot, because the node is dead."""
    shared: frozenset[Owner] = frozenset()
    """Workloads for which no budget of ours can stand: it would be beside another one, because their selector also
    matches pods of others, or it is denied. Their pods are counted."""

    not_restartable: frozenset[Owner] = frozenset()
    """Workloads that ask for a restart where no Role lets this step do it."""
    stand_ins: frozenset[str] = frozenset()
    """UIDs of pods that stand in for one of a Redis group."""

    def restarts(self, workload: Workload | None) -> bool:
        """Whether its pods leave by a restart: it asks for that, and this step may do it."""
        if workload is None or workload.strategy is not Strategy.RESTART:
            return False
        return workload.owner not in self.not_restartable

    @property
    def asked(self) -> dict[Owner, returns.Asked]:
        """The pods that were asked to leave, by controller."""
        return returns.read(self.node.annotations.get(NODE_ASKED, ""))

    @property
    def present(self) -> tuple[Pod, ...]:
        """The pods that may still go."""
        return tuple(p for p in self.pods if p.uid not in self.lost)

    @property
    def awaited(self) -> tuple[Moving, ...]:
        """Without those whose lost pods keep their successors from coming before the instance is gone."""
        lost = {p.owner for p in self.pods if p.uid in self.lost}
        return tuple(m for m in self.moving if m.workload.owner not in lost)

    def came_back(self, pod: Pod) -> str:
        """Why a pod is not asked to leave any more; "" if it is."""
        said = returns.came_back(self.asked, pod)
        why = "they tolerate its taint, somebody removes it, or they name the node; keep them off it"
        return f"{said}: {why}" if said else ""

    def accepts(self, code: str, pod: Pod) -> bool:
        """Whether a person accepted that finding, of all objects or of this one, or by an annotation on the latter."""
        workload = self.workloads.get(pod.owner) if pod.owner else None
        said = workload.annotations.get(ACCEPT, "") if workload else ""
        if code in {each.strip() for each in said.split(",")}:
            return True
        return code in self.accepted or f"{code}:{pod.subject}" in self.accepted


@dataclass(frozen=True, slots=True)
class EvictPods:
    """Ask for these evictions now; `moving` are the workloads to see Ready again afterwards."""

    pods: tuple[Pod, ...]
    moving: frozenset[Owner]


@dataclass(frozen=True, slots=True)
class AskAll:
    """Ask for these evictions although a budget says 0; `hold` is what holds meanwhile."""

    pods: tuple[Pod, ...]
    moving: frozenset[Owner]
    hold: Hold


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
class EvictServing:
    """Evict these pods of DaemonSets: nothing else is left on the node, and a Service leads to them."""

    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class Why:
    """Why a pod may not be evicted now. `asks`: the budget about which it may be asked for all the same."""

    reason: str
    kind: HoldKind | None = None
    asks: Budget | None = None


@dataclass(frozen=True, slots=True)
class Empty:
    reason: str


Decision = EvictPods | AskAll | MakeBudgets | DropBudgets | Restart | Cordon | EvictServing | Hold | Empty


def decide(seen: NodeToEmpty) -> Decision:
    """The next action on the way to an empty node. One kind of action at a time; then look again."""
    here = [p for p in seen.present if not p.stays_with_node]
    movers = [p for p in here if not p.deleting]
    covering = {p.uid: [b for b in seen.budgets if b.covers(p)] for p in movers}
    if not here:
        return _finish(seen)
    if surplus := (*_surplus_budgets(covering), *_outgrown_budgets(seen, covering)):
        return DropBudgets(surplus)
    for pod in movers:
        workload = seen.workloads.get(pod.owner) if pod.owner else None
        if workload and seen.restarts(workload) and _needs_restart(workload, pod, seen):
            return Restart(workload)
    if missing := _without_budget(seen, movers, covering):
        return MakeBudgets(missing)
    allowed, holds = _allowed(seen, movers, covering)
    if allowed:
        return EvictPods(tuple(allowed), _to_await(seen, allowed))
    ending = [f"pod {p} is ending" for p in here if p.deleting]
    kind = next((why.kind for _, why in holds if why.kind), HoldKind.PODS)
    hold = Hold("; ".join([f"pod {pod}: {why.reason}" for pod, why in holds] + ending), kind)
    if to_ask := _to_ask_about(seen, holds):
        return AskAll(to_ask, _to_await(seen, to_ask), hold)
    return hold


def _to_await(seen: NodeToEmpty, pods: Iterable[Pod]) -> frozenset[Owner]:
    return frozenset(p.owner for p in pods if p.owner and p.uid not in seen.placeholders and _was_whole(seen, p.owner))


def _to_ask_about(seen: NodeToEmpty, holds: Iterable[tuple[Pod, Why]]) -> tuple[Pod, ...]:
    """A pod of each budget that says 0: at once where it can never say more, else once that has lasted."""
    found: dict[Budget, Pod] = {}
    for pod, why in holds:
        if why.asks and (why.asks.can_never_allow or seen.waited >= ASK_AFTER):
            found.setdefault(why.asks, pod)
    return tuple(found.values())


def _finish(seen: NodeToEmpty) -> Decision:
    late = [m.lacking for m in seen.awaited if m.lacking]
    if not seen.node.unschedulable:
        return Cordon()
    if late:
        return Hold("; ".join(late), HoldKind.PODS)
    leaving = [p for p in seen.serving if not p.deleting and not _comes_back(p)]
    if back := [why for p in leaving if (why := seen.came_back(p))]:
        return Hold("; ".join(back), HoldKind.PODS)
    if serving := tuple(leaving):
        return EvictServing(serving)
    if ending := [f"pod {p}, which serves, is ending" for p in seen.serving if p.deleting]:
        return Hold("; ".join(ending), HoldKind.PODS)
    return Empty("the node is empty")


def _comes_back(pod: Pod) -> bool:
    return any(t.tolerates(HARD_TAINT) for t in pod.tolerations)


def _surplus_budgets(covering: dict[str, list[Budget]]) -> tuple[Budget, ...]:
    return tuple({b for budgets in covering.values() if len(budgets) > 1 for b in budgets if b.ours})


def _outgrown_budgets(seen: NodeToEmpty, covering: dict[str, list[Budget]]) -> tuple[Budget, ...]:
    """Budgets of ours that ask for as many pods as their controller, scaled down since, now has."""
    return tuple(
        {
            budget
            for pod in seen.pods
            for budget in covering.get(pod.uid, ())
            if pod.owner and (workload := seen.workloads.get(pod.owner))
            if (least := _least(budget)) is not None and least >= workload.desired
        }
    )


def _least(budget: Budget) -> int | None:
    """How many pods a budget of ours asks for; None where it asks otherwise, or is somebody else's."""
    return int(budget.min_available) if budget.ours and COUNT.fullmatch(budget.min_available) else None


def _without_budget(seen: NodeToEmpty, movers: list[Pod], covering: dict[str, list[Budget]]) -> tuple[Workload, ...]:
    wanted = {
        workload.owner: workload
        for pod in movers
        if pod.owner
        and pod.uid not in seen.placeholders
        and not covering[pod.uid]
        and (workload := seen.workloads.get(pod.owner))
        and (pod.owner.kind in BUDGETABLE or (workload.selector is not None and workload.desired > 1))
        and not seen.restarts(workload)
        and GROUP not in workload.annotations
        and workload.owner not in seen.shared
    }
    return tuple(wanted.values())


def _allowed(
    seen: NodeToEmpty, movers: list[Pod], covering: dict[str, list[Budget]]
) -> tuple[list[Pod], list[tuple[Pod, Why]]]:
    """Which pods may be asked for now, and why not the others."""
    left: dict[Budget, int] = {}
    taken: defaultdict[Owner, int] = defaultdict(int)
    one_by_one_busy = any(p.deleting and not p.finished and _one_by_one(p) for p in seen.present) or any(
        m.workload.owner.kind not in AT_ONCE and m.lacking for m in seen.awaited
    )
    allowed: list[Pod] = []
    holds: list[tuple[Pod, Why]] = []
    for pod in movers:
        if why := _why_not(seen, pod, covering[pod.uid], left, taken, one_by_one_busy=one_by_one_busy):
            holds.append((pod, why))
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
) -> Why | None:
    workload = seen.workloads.get(pod.owner) if pod.owner else None
    if migrated := _migrated(seen, pod, workload):
        return Why(migrated, HoldKind.REDIS)
    if workload and seen.restarts(workload):
        return Why(_restarting(workload, pod, seen))
    if left_alone := _kept_for_a_restart(seen, pod) or seen.came_back(pod) or _awaited(seen, pod):
        return Why(left_alone)
    if len(budgets) > 1:
        both = " and ".join(str(b) for b in budgets)
        return Why(f"budgets {both} both cover it; narrow the selector of one", HoldKind.BUDGET)
    if budgets:
        budget = budgets[0]
        if not budget.observed:
            return Why(f"budget {budget} has not been processed by its controller yet", HoldKind.BUDGET)
        # A pod that is not Ready may go where the budget is met by the others; the API decides that.
        if pod.ready and left.get(budget, budget.allowed) < 1:
            needs = f"budget {budget} {budget.why_none}"
            in_order = not (_one_by_one(pod) and one_by_one_busy) and not budget.ours
            return Why(needs, HoldKind.BUDGET, budget if in_order else None)
    elif pod.uid in seen.placeholders:
        return None
    elif pod.owner and pod.owner.kind not in {"Job", "Node"} and pod.owner in taken:
        return Why(f"another pod of {pod.owner} goes first")
    elif workload and _is_counted(workload, seen) and pod.ready and not workload.all_ready:
        return Why(f"{workload.ready} of {workload.desired} pods of {pod.owner} are Ready")
    if _one_by_one(pod) and one_by_one_busy:
        return Why("pods with volumes go one at a time")
    return None


def _migrated(seen: NodeToEmpty, pod: Pod, workload: Workload | None) -> str:
    """Why a pod is left to the migration of a Redis group; "" if it is not."""
    if pod.uid in seen.stand_ins:
        return f"it stands in for a pod of Redis group {pod.labels[LABEL]}, whose migration ends it"
    if workload and GROUP in workload.annotations:
        return f"it belongs to Redis group {workload.annotations[GROUP]}, which is migrated, not evicted"
    return ""


def _kept_for_a_restart(seen: NodeToEmpty, pod: Pod) -> str:
    """Why a pod is not evicted although its workload cannot be restarted; "" if it is. The plan blocks on the same:
    this is for what is annotated, or taken a Role from, in mid-roll."""
    workload = seen.workloads.get(pod.owner) if pod.owner in seen.not_restartable else None
    if workload is None or workload.desired != 1 or seen.accepts(RESTART_NOT_PERMITTED, pod):
        return ""
    return (
        f"{workload.owner} asks for a restart, which no Role in its namespace lets a roll do: apply "
        "deploy/restart-rbac.yaml there, or take its annotation away"
    )


def _restarting(workload: Workload, pod: Pod, seen: NodeToEmpty) -> str:
    if _restarted_here(workload, seen) and pod.annotations.get(RESTARTED_FOR) == workload.restarted_for:
        return f"{workload.owner} was restarted for this node, and its new pods came to it again"
    if workload.paused:
        return f"{workload.owner} asks for a restart, and is paused: resume it"
    if workload.fault:
        return f"{workload.owner} is restarting, and no pod can be made: {workload.fault}"
    return f"{workload.owner} is restarting"


def _is_counted(workload: Workload, seen: NodeToEmpty) -> bool:
    """Whether its pods are counted, because no budget of ours can stand for them."""
    return workload.owner.kind not in BUDGETABLE or workload.owner in seen.shared


def _awaited(seen: NodeToEmpty, pod: Pod) -> str:
    """Why the pod is given time to end by itself; "" if it is not."""
    if (asks := pod.not_to_be_disturbed) and not seen.accepts(DO_NOT_DISTURB, pod):
        return f"it asks not to be disturbed ({asks})"
    if pod.ends and not seen.dead and not seen.accepts(BATCH, pod) and seen.waited < seen.batch_seconds:
        return f"it ends by itself, and has {seen.batch_seconds:.0f} s to do so"
    return ""


def _one_by_one(pod: Pod) -> bool:
    return bool(pod.claims) or (pod.owner is not None and pod.owner.kind == "StatefulSet")


def _was_whole(seen: NodeToEmpty, owner: Owner) -> bool:
    workload = seen.workloads.get(owner)
    return workload is not None and workload.all_ready


def _needs_restart(workload: Workload, pod: Pod, seen: NodeToEmpty) -> bool:
    """Once in a roll is enough, unless a new pod found no place but on this old node; never twice for one node. A pod
    that is older than the restart, wherever it is, goes as that proceeds. One that is paused would start no pod."""
    if workload.paused:
        return False
    latest, roll = workload.restarted_for, seen.node.annotations.get(NODE_ROLL, "")
    proceeds = latest.rpartition("/")[0] == roll and pod.annotations.get(RESTARTED_FOR) != latest
    return not _restarted_here(workload, seen) and latest != restart_mark(seen.node) and not proceeds


def _restarted_here(workload: Workload, seen: NodeToEmpty) -> bool:
    asked = seen.asked.get(workload.owner)
    return asked is not None and asked.restarted


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
    seen = observe(task, clients)
    result = act(seen, task, clients)
    return result.model_copy(update={"output": result.output | {"budgets": describe_budgets(seen)}})


def act(seen: NodeToEmpty, task: NodeTask, clients: Clients) -> StepResult:
    """One action."""
    decision = decide(seen)
    waited = seen.waited
    match decision:
        case EvictPods(pods, moving):
            return _evict(seen, pods, moving, clients)
        case AskAll(pods, moving, hold):
            return _evict(seen, pods, moving, clients, hold)
        case MakeBudgets(workloads):
            if denied := _make_budgets(workloads, task, clients):
                return _act_without_budgets(seen, denied, task, clients)
            names = ", ".join(str(w.owner) for w in workloads)
            return StepResult.wait(f"{names}: without a budget, so one pod at a time", backoff(waited))
        case DropBudgets(budgets):
            for budget in budgets:
                clients.kubernetes.delete_budget(budget)
            return StepResult.wait("temporary budgets were replaced by the cluster's own", backoff(waited))
        case Restart(workload):
            clients.kubernetes.update_workload(workload, template_annotations={RESTARTED_FOR: restart_mark(seen.node)})
            record = returns.written(returns.with_restart(seen.asked, workload.owner))
            clients.kubernetes.update_node(seen.node, annotations={NODE_ASKED: record})
            return StepResult.wait(f"{workload.owner} restarts elsewhere, as its annotation asks", 2)
        case Cordon():
            clients.kubernetes.update_node(seen.node, unschedulable=True, annotations={NODE_CORDONED: "true"})
            # One that was cordoned before is opened by somebody, who may do so again and again.
            seconds = backoff(waited) if NODE_CORDONED in seen.node.annotations else 1
            return StepResult.wait("the node is empty and was cordoned", seconds)
        case EvictServing(pods):
            known = set(registered_as(seen.node, ""))
            addresses = ",".join(sorted((known | {p.address for p in pods}) - {""}))
            record = returns.written(returns.noted(seen.asked, pods, seen.pods))
            clients.kubernetes.update_node(seen.node, annotations={NODE_SERVING: addresses, NODE_ASKED: record})
            return _answered(len(pods), _ask(pods, clients), None, waited)
        case Hold(reason, kind):
            return StepResult.wait(reason, backoff(waited), kind=kind)
        case Empty(reason):
            return StepResult.done(reason)
        case _:
            assert_never(decision)


def _make_budgets(workloads: Iterable[Workload], task: NodeTask, clients: Clients) -> dict[Owner, str]:
    """Makes them; the words of whatever denies one, by workload."""
    said = {}
    for workload in workloads:
        least = None if workload.owner.kind in BUDGETABLE else max(0, workload.ready - 1)
        name, marks = budget_name(workload.owner), {NODE_ROLL: task.roll}
        if words := clients.kubernetes.create_budget(workload, name, marks, min_available=least):
            said[workload.owner] = words
    return said


def _act_without_budgets(
    seen: NodeToEmpty, denied: Mapping[Owner, str], task: NodeTask, clients: Clients
) -> StepResult:
    """The pods of these are counted instead: a policy or a quota of their namespace takes no budget of ours."""
    counted_now: dict[Owner, Workload | None] = {
        owner: as_their_pods_are([w], clients.kubernetes.pods_of(w))[0] if owner.kind in BUDGETABLE else w
        for owner in denied
        if (w := seen.workloads[owner])
    }
    known = replace(seen, workloads=seen.workloads | counted_now, shared=seen.shared | denied.keys())
    result = act(known, task, clients)
    said = "; ".join(
        f"{owner}: no budget can be made, so its pods are counted: {words}" for owner, words in denied.items()
    )
    return result.model_copy(update={"reason": line(f"{result.reason}; {said}")})


def observe(task: NodeTask, clients: Clients) -> NodeToEmpty:
    """The node, its pods and what they belong to. Raises NotFound when the node is gone."""
    kubernetes, settings, now = clients.kubernetes, clients.settings, clients.now()
    node = kubernetes.node(task.node)
    if node is None:
        raise NotFound(f"Node {task.node} left the cluster before it was empty; start a new roll.")
    pods = tuple(kubernetes.pods_on(task.node))
    budgets = tuple(kubernetes.budgets())
    awaited = _awaited_owners(node)
    look = _Workloads(clients, budgets, awaited)
    owners = {p.owner for p in pods if p.owner and not p.stays_with_node and not p.ends}
    low = [p for p in pods if p.priority < 0 and not p.stays_with_node]
    found = {owner: look.at(owner) for owner in owners}
    shared = frozenset(look.sharing(found.values(), pods))
    # No budget stands for these: their own count decides.
    workloads = {owner: look.recounted(w) if w and owner in shared else w for owner, w in found.items()}
    dead, lost = node.dead(settings.dead_nodes, now), lost_with(node, pods, settings.dead_nodes, now)
    services = kubernetes.services() if _is_empty(pods) and not dead else ()
    denied = frozenset(owner for owner, w in workloads.items() if w and _may_not_be_restarted(w, clients))
    accepting = bool(denied) or any(_may_be_accepted(p) for p in pods)
    lease = kubernetes.lease(lock.lock_name(settings.namespace)) if accepting else None
    return NodeToEmpty(
        node=node,
        pods=pods,
        budgets=budgets,
        workloads=workloads,
        moving=tuple(look.moving(empty=_is_empty(p for p in pods if p.uid not in lost))),
        waited=task.waited(now),
        batch_seconds=settings.batch_seconds,
        accepted=frozenset(settings.accept)
        | lock.accepted(lease)
        | {f"{DO_NOT_DISTURB}:{owner}" for owner in autoscalers(pods, settings)},
        serving=tuple(serving_daemons(pods, services)),
        dead=dead,
        lost=lost,
        placeholders=placeholders(low, kubernetes.services()) if low else frozenset(),
        shared=shared,
        not_restartable=denied,
        stand_ins=_stand_ins(pods, clients),
    )


def _stand_ins(pods: Iterable[Pod], clients: Clients) -> frozenset[str]:
    """Those that a StatefulSet's group has: with the label alone, which anybody may give to a pod, it is as any other.
    Of a group that is declared wrongly meanwhile, too."""
    labelled = [p for p in pods if LABEL in p.labels and not p.stays_with_node]
    groups = {
        (namespace, workload.annotations.get(GROUP))
        for namespace in {p.namespace for p in labelled}
        for workload in clients.kubernetes.stateful_sets(namespace)
    }
    return frozenset(p.uid for p in labelled if (p.namespace, p.labels[LABEL]) in groups)


def _may_not_be_restarted(workload: Workload, clients: Clients) -> bool:
    if workload.strategy is not Strategy.RESTART:
        return False
    verb = needed_to_restart(workload.owner)
    try:
        return not clients.kubernetes.may(
            verb.verb, verb.resource, group=verb.api_group, namespace=verb.namespace, name=verb.name
        )
    except AccessDenied:
        # Where nobody may ask, the attempt tells.
        return False


def _is_empty(pods: Iterable[Pod]) -> bool:
    return all(p.stays_with_node for p in pods)


def _may_be_accepted(pod: Pod) -> bool:
    return not pod.stays_with_node and (pod.ends or bool(pod.not_to_be_disturbed))


@dataclass(frozen=True, slots=True)
class Count:
    """How many pods a controller had when one was last evicted, and when that was (epoch seconds)."""

    pods: int = 0
    at: float = 0.0


class _Workloads:
    """What pods belong to: the object where its kind is known, else what its pods tell."""

    def __init__(self, clients: Clients, budgets: tuple[Budget, ...], awaited: Mapping[Owner, Count]) -> None:
        self._clients = clients
        self._budgets = budgets
        self._awaited = awaited
        self._pods: dict[str, list[Pod]] = {}
        self._own: dict[Owner, list[Pod]] = {}

    def at(self, owner: Owner) -> Workload | None:
        """As its status has it where that says whole: what depends on that looks at its pods."""
        known = self._clients.kubernetes.workload(owner)
        if known is not None and owner.kind in BUDGETABLE and not known.all_ready:
            return self.recounted(known)
        if known is not None or owner.kind in UNCOUNTED | BUDGETABLE:
            return known
        count = self._awaited.get(owner, Count())
        return counted_by_pods(owner, self._pods_in(owner.namespace), self._budgets, count, self._clients.now())

    def moving(self, *, empty: bool) -> Iterator[Moving]:
        """`empty`: nothing is left on the node, so that what is awaited decides when it goes. Until then only pods that
        go one at a time depend on it, and a Deployment's status is enough."""
        for owner in sorted(self._awaited, key=str):
            workload, had = self.at(owner), self._awaited[owner].pods
            if workload is None:
                continue
            if owner.kind in BUDGETABLE and workload.all_ready and (empty or owner.kind not in AT_ONCE):
                workload = self.recounted(workload)
            if had and owner.kind in BUDGETABLE:
                # Scaled up since: whether the others find room is not what this node's pods are waited for.
                workload = replace(workload, desired=min(workload.desired, had))
            yield Moving(workload, () if workload.all_ready else tuple(self._pods_of(workload)))

    def recounted(self, workload: Workload) -> Workload:
        """With as many Ready pods as it has now, whatever its status says."""
        return as_their_pods_are([workload], self._pods_of(workload))[0]

    def sharing(self, workloads: Iterable[Workload | None], here: tuple[Pod, ...]) -> Iterator[Owner]:
        """Those that lack a budget, and whose selector matches pods of others too: two budgets on one pod forbid every
        eviction, so one made for them would be dropped, and made again."""
        covered = {p.owner for p in here if any(b.covers(p) for b in self._budgets)}
        for workload in workloads:
            if workload is None or workload.owner in covered or workload.owner.kind not in BUDGETABLE:
                continue
            pods = self._pods_in(workload.owner.namespace) if workload.selector else []
            if any(
                workload.selector and workload.selector.matches(p.labels) for p in pods if p.owner != workload.owner
            ):
                yield workload.owner

    def _pods_of(self, workload: Workload) -> list[Pod]:
        owner = workload.owner
        if owner not in self._own:
            known = owner.kind in BUDGETABLE
            found = self._clients.kubernetes.pods_of(workload) if known else self._pods_in(owner.namespace)
            self._own[owner] = found if known else [p for p in found if p.owner == owner]
        return self._own[owner]

    def _pods_in(self, namespace: str) -> list[Pod]:
        if namespace not in self._pods:
            everything = Workload(Owner("Namespace", namespace, namespace), selector=Selector())
            self._pods[namespace] = self._clients.kubernetes.pods_of(everything)
        return self._pods[namespace]


def counted_by_pods(owner: Owner, pods: Iterable[Pod], budgets: Iterable[Budget], last: Count, now: float) -> Workload:
    """A controller of any kind, by its pods among `pods`, all of its namespace.

    It wants as many as it has, or had when one was last evicted: until all have been Ready for so long that it must
    have been scaled down. Its selector are the labels that all of its pods have and no other, but for those that say
    where a pod is or which: its successor may be elsewhere. None if there are none.
    """
    everybody = [p for p in pods if not p.finished]
    own = [p for p in everybody if p.owner == owner]
    present = [p for p in own if not p.deleting]
    ready = sum(p.ready for p in present)
    known = [least + 1 for b in budgets if _is_for(b, owner) and (least := _least(b)) is not None]
    before = max([last.pods, *known])
    scaled_down = ready == len(own) and now > last.at + SCALED_DOWN_AFTER
    common = set.intersection(*(set(_lasting(p.labels)) for p in own)) if own else set()
    selector = Selector(tuple(sorted(common))) if common else None
    if selector and any(selector.matches(p.labels) for p in everybody if p.owner != owner):
        selector = None
    wanted = len(present) if scaled_down else max(len(present), before)
    return Workload(owner, desired=wanted, ready=ready, current=len(own), selector=selector)


def _lasting(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The labels that a pod shares with the one that comes in its place, wherever that is."""
    return ((key, value) for key, value in labels.items() if not key.startswith(PLACED) and key not in OF_ONE)


def _is_for(budget: Budget, owner: Owner) -> bool:
    return budget.ours and (budget.namespace, budget.name) == (owner.namespace, budget_name(owner))


def budget_name(owner: Owner) -> str:
    """What a temporary budget of ours is called. An object's name has 253 characters at most, the owner's as well."""
    plain = f"{BUDGET_PREFIX}{owner.kind.lower()}-{owner.name}"
    return plain if len(plain) <= 253 else f"{plain[:240]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def _awaited_owners(node: Node) -> dict[Owner, Count]:
    """Whom the node's pods' going has left to be awaited: "KIND NAMESPACE/NAME=COUNT@TIME"."""
    found = {}
    for part in node.annotations.get(NODE_MOVING, "").split(SEPARATOR):
        # What no roll writes is no record: a kubelet may write anything on its own Node.
        read = AWAITED.fullmatch(part)
        if read and (owner := Owner.parse(read["owner"])):
            found[owner] = Count(int(read["pods"] or 0), float(read["at"] or 0))
    return found


def _written(owners: Mapping[Owner, Count]) -> str:
    return SEPARATOR.join(sorted(f"{o}={c.pods}@{c.at:.0f}" if c.pods else str(o) for o, c in owners.items()))


def _evict(
    seen: NodeToEmpty, pods: tuple[Pod, ...], moving: frozenset[Owner], clients: Clients, hold: Hold | None = None
) -> StepResult:
    """Records which pods to wait for, then evicts: a crash in between at worst leaves one to wait for in vain."""
    awaited = _awaited_owners(seen.node) | {o: _count(seen, o, clients.now()) for o in moving}
    record = {NODE_MOVING: _written(awaited), NODE_ASKED: returns.written(returns.noted(seen.asked, pods, seen.pods))}
    if any(text != seen.node.annotations.get(key, "") for key, text in record.items()):
        clients.kubernetes.update_node(seen.node, annotations=record)
    again = all((asked := seen.asked.get(returns.owner_of(p))) and asked.knows(p) for p in pods)
    return _answered(len(pods), _ask(pods, clients), hold, seen.waited, again=again)


def _ask(pods: Iterable[Pod], clients: Clients) -> list[tuple[Pod, Eviction]]:
    """Asks for these evictions; those that were not granted, up to the first for which the API server has no time."""
    refused: list[tuple[Pod, Eviction]] = []
    for pod in pods:
        answer = clients.kubernetes.evict(pod)
        if not answer.granted:
            refused.append((pod, answer))
        if answer.status is EvictionStatus.BUSY:
            break
    return refused


def _count(seen: NodeToEmpty, owner: Owner, now: float) -> Count:
    workload = seen.workloads.get(owner)
    return Count(workload.desired, now) if workload else Count()


def _answered(
    asked: int, refused: list[tuple[Pod, Eviction]], hold: Hold | None, waited: float, *, again: bool = False
) -> StepResult:
    """What the evictions were answered. Where nothing went, or all were asked before, the next look comes later and
    later."""
    evicted = asked - len(refused) if not any(a.status is EvictionStatus.BUSY for _, a in refused) else 0
    words = [f"pod {pod}: {_told_of(answer)}" for pod, answer in refused]
    holding = [hold.reason] if hold and not evicted else []
    reasons = ([f"{counted(evicted, 'pod')} evicted"] if evicted else []) + holding + words
    seconds = max([1.0 if evicted and not again else backoff(waited), *(answer.retry_after for _, answer in refused)])
    kind = {"kind": HoldKind.BUDGET, "refusals": words[:REFUSALS_TOLD]} if refused else {}
    return StepResult.wait("; ".join(reasons), seconds, refused=len(refused), evicted=evicted, **kind)


def _told_of(answer: Eviction) -> str:
    match answer.status:
        case EvictionStatus.DENIED:
            return f"its eviction is denied: {answer.reason}"
        case EvictionStatus.BUSY:
            return f"the API server has too much to do: {answer.reason}"
        case _:
            return answer.reason


handler = handler_for(run, NodeTask, overdue=OldNodeHeld)
