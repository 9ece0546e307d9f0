"""The gate between waves: alarms quiet, checks passed, workloads Ready again, bake time over, no pause requested."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from eks_rolling.clients.protocols import Clients, HttpAnswer, Kubernetes
from eks_rolling.documents.failure import error_of, explain
from eks_rolling.errors import Aborted, NotBegun, Refused
from eks_rolling.migration.next_action import Next, look_at_all
from eks_rolling.observed.kubernetes import (
    Node,
    Owner,
    Pod,
    Workload,
    as_their_pods_are,
    on_nodes_that_are,
    ready_nodes,
)
from eks_rolling.payloads import Hold, RollTask, StepResult, backoff, bake_look
from eks_rolling.redis.actions import Settled
from eks_rolling.roll import lock, operator_requests
from eks_rolling.roll.arrangements import look_again
from eks_rolling.roll.fence import ANSWERED
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for
from eks_rolling.settings import PageCheck


@dataclass(frozen=True, slots=True)
class Open:
    reason: str


def decide(
    firing: list[str],
    workloads: list[Workload],
    unready_before: tuple[str, ...],
    baked: float,
    bake: float,
    redis: Sequence[Next] = (),
    unanswered: Sequence[str] = (),
    unseen: Sequence[str] = (),
) -> Open | Hold:
    """Whether the next wave may start. What was not Ready before the roll, by its digest, does not count.

    `baked` and `bake` are seconds; `redis` is what each Redis group of the plan needs next, and `unseen` are those that
    could not be looked at, with the reason; `unanswered` are the checks that did not pass, as sentences.
    """
    if firing:
        return Hold(f"alarms are firing: {', '.join(firing)}", seconds=backoff(baked, first=5), checks_failed=True)
    if unanswered:
        return Hold(f"checks do not pass: {'; '.join(unanswered)}", seconds=backoff(baked, first=5), checks_failed=True)
    # A plan that an earlier version made, before an update in mid-roll, has names.
    was_so = frozenset(unready_before)
    worse = [w for w in workloads if not w.all_ready and was_so.isdisjoint({w.owner.digest, str(w.owner)})]
    if worse:
        names = ", ".join(f"{w.owner} ({w.ready} of {w.desired} Ready)" for w in worse)
        return Hold(f"not back to full strength: {names}", seconds=backoff(baked, first=2))
    unsettled = [f"{r.group} ({r.action.reason})" for r in redis if not isinstance(r.action, Settled)]
    if unsettled := [*unsettled, *unseen]:
        return Hold(f"Redis groups are not back to normal: {', '.join(unsettled)}", seconds=backoff(baked, first=2))
    if baked < bake:
        return Hold(f"baking for {bake - baked:.0f} s more", seconds=min(bake_look(bake), bake - baked))
    return Open("the wave is healthy")


def _as_they_are(kubernetes: Kubernetes, dead: Iterable[Node]) -> list[Workload]:
    """Every workload, by its status, without what is lost on `dead` nodes, which wait for their wave. A DaemonSet that
    seems to lack pods is counted on the nodes that there are."""
    gone = {node.name for node in dead}
    lost = by_controller(p for name in gone for p in kubernetes.pods_on(name) if not p.finished)
    found = [
        without_lost(w, lost[w.owner], kubernetes.pods_of(w)) if w.owner in lost else w for w in kubernetes.workloads()
    ]
    lacking = [w for w in found if w.owner.kind == "DaemonSet" and not w.all_ready]
    pods = {w.owner: kubernetes.pods_of(w) for w in lacking}
    names = {node.name for node in kubernetes.nodes()} - gone if lacking else set()
    return [on_nodes_that_are(w, pods[w.owner], names) if w.owner in pods else w for w in found]


def by_controller(pods: Iterable[Pod]) -> dict[Owner, list[Pod]]:
    found = defaultdict[Owner, list[Pod]](list)
    for pod in pods:
        if pod.owner and pod.owner.kind != "DaemonSet":
            found[pod.owner].append(pod)
    return dict(found)


def without_lost(workload: Workload, lost: Collection[Pod], pods: Iterable[Pod]) -> Workload:
    """The workload without those of its pods `lost` on dead nodes that nobody replaces before this gate opens; `pods`
    are all that its selector matches.

    A StatefulSet waits for their end, and so does what can make no pod. Others have successors made as soon as pods are
    to end (kube-controller-manager, replicaset): those that find no room may get that of the dead node.
    """
    ending = sum(1 for p in lost if p.deleting)
    waiting = (p for p in pods if p.owner == workload.owner and p.unschedulable_because and not p.deleting)
    replaced = ending - sum(1 for _ in waiting)
    if workload.owner.kind == "StatefulSet" or workload.fault:
        replaced = 0
    return replace(workload, desired=workload.desired - len(lost) + max(0, replaced))


def judge(check: PageCheck, answer: HttpAnswer) -> str:
    """What is wrong with a check's answer; "" if nothing is."""
    if answer.fault:
        return f"{check.url} does not answer: {answer.fault}"
    if answer.status != check.status:
        return f"{check.url} answers {answer.status}, not {check.status}"
    if check.contains not in answer.body:
        return f"{check.url} answers without the text {check.contains!r}"
    return ""


def run(task: RollTask, clients: Clients) -> StepResult:
    """Failures of the wave end the roll here, by name. Raises Refused, Aborted."""
    stopped = [f.node for f in task.failures if error_of(f.failure) not in ANSWERED]
    if stopped and (seconds := lock.steps_until(lock.confirm(clients, task.roll)) - clients.now()) > 0:
        # What follows must not come before the last effect of a step that nobody waits for any more [R6].
        return StepResult.wait(f"steps for {', '.join(stopped)} may still be at work", min(seconds, 60))
    # One that was not begun for another's sake has nothing to add to what the other says.
    told = [f for f in task.failures if error_of(f.failure) != NotBegun.__name__] or task.failures
    if failed := [f for f in told if error_of(f.failure) != Aborted.__name__]:
        raise Refused("; ".join(f"{f.node} was not replaced: {explain(f.failure)}" for f in failed))
    for aborted in told:
        raise Aborted(explain(aborted.failure))
    # Asked after the failures: those are what a person who aborts for their sake wants to read.
    if paused := operator_requests.hold_or_abort(lock.confirm(clients, task.roll), clients.now()):
        return paused
    nodes = clients.kubernetes.nodes()
    groups = clients.aws.groups(task.groups) if task.groups else []
    planned = [n for n in nodes if n.instance in task.nodes]
    if again := look_again(task.roll, groups, planned, task.surge, task.waited(clients.now()), clients):
        return again
    decision = _judged(task, planned, clients)
    looked = ready_nodes(nodes)
    match decision:
        case Open(reason):
            return StepResult.done(reason, ready_nodes=looked)
        case Hold(reason, seconds=seconds, checks_failed=failed_checks):
            lock.outlast(clients, task.roll, seconds)
            more = {"checks_failed": True} if failed_checks else {}
            return StepResult.wait(reason, seconds, ready_nodes=looked, **more)


def _judged(task: RollTask, planned: Iterable[Node], clients: Clients) -> Open | Hold:
    """Controllers tell of a pod's end seconds after it: before the gate opens, their pods are counted themselves."""
    now, settings = clients.now(), clients.settings
    firing = clients.aws.alarms_firing(settings.alarms)
    dead = [n for n in planned if n.dead(settings.dead_nodes, now)]
    workloads = _as_they_are(clients.kubernetes, dead)
    redis, unseen = look_at_all(task.redis, clients)
    answers = ((check, clients.http.get(check.url, check.timeout_seconds)) for check in settings.checks)
    unanswered = [wrong for check, answer in answers if (wrong := judge(check, answer))]

    def judged(seen: list[Workload]) -> Open | Hold:
        return decide(firing, seen, task.unready, task.waited(now), settings.bake_seconds, redis, unanswered, unseen)

    decision = judged(workloads)
    if not isinstance(decision, Open):
        return decision
    known = frozenset(w.owner for w in workloads)
    return judged(as_their_pods_are(workloads, clients.kubernetes.pods(), known))


handler = handler_for(run, RollTask, honors=Honors.NOTHING)
