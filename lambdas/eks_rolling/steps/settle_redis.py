"""Finish the Redis migrations that were begun: by a dead roll, before this one begins; by this one, before it restores.

A group whose Lease is still held is brought to the nearest normal state [S2]: the master pod is master, wherever it is,
and every replica is in sync. Nothing more is moved.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import MALFORMED, AccessDenied, LockLost, Refused, RollError, Transient, sentence
from eks_rolling.migration.asking import LOOKS_SECONDS, NOT_ASKED, REQUESTS_SECONDS, in_turn, too_many
from eks_rolling.migration.next_action import Next, look
from eks_rolling.migration.repetition import failed, pause_after, refuse_more, tried, waited, waits_from
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import SettleTask, StepResult, backoff
from eks_rolling.redis.actions import Done, RedisHold, Settled, Stop
from eks_rolling.redis.groups import BrokenGroup, RedisGroup, broken, declared
from eks_rolling.roll import lock
from eks_rolling.roll.fence import fenced, steps_still_at_work
from eks_rolling.runtime import handler_for

FAULT_PATIENCE_SECONDS = 300.0
"""How long a fault of a group that may pass is waited for."""


@dataclass(slots=True)
class SettleProgress:
    """What this look found and did: `holds`, as sentences, is waited for; `unsettled` are the errors of groups that a
    person has to bring to an end; `unseen`, as sentences, was not looked at. `longest` is for how many seconds any
    group has waited, `most_tries` how often any action was tried, `first_try` whether one was tried first now.

    `patient`: a fault that may pass is waited for; later it counts as one that stays.
    """

    patient: bool
    holds: list[str] = field(default_factory=list)
    unsettled: list[Exception] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    switches: list[dict[str, Any]] = field(default_factory=list)
    first_try: bool = False
    most_tries: int = 0
    longest: float = 0.0

    def failed(self, group: RedisGroup | BrokenGroup, error: Exception) -> None:
        """Raises the error where it is about the roll, and not about the group."""
        if isinstance(error, LockLost):
            raise error
        if isinstance(error, Transient) and self.patient:
            self.holds.append(f"Redis group {group}: {sentence(error)}; tried again")
        else:
            self.unsettled.append(error)


def run(task: SettleTask, clients: Clients) -> StepResult:
    """Each group by itself [R5]. Raises what the groups raise that cannot be brought back, once all others are."""
    if not task.ending:
        lock.confirm(clients, task.roll)
        clients = fenced(clients, task.roll, "settle_redis")
    else:
        ended = lock.end(clients, task.roll, task.by)
        if not isinstance(ended, Lease):
            return StepResult.done("nothing to do: this roll does not hold the lock")
        if seconds := steps_still_at_work(ended, task, clients.now()):
            return StepResult.wait("steps that the roll had begun may still be at work", seconds)
    progress = SettleProgress(patient=task.waited(clients.now()) < FAULT_PATIENCE_SECONDS)
    _look_at_all(task, clients, progress)
    if progress.holds:
        said = "; ".join([*progress.holds, *map(sentence, progress.unsettled)])
        seconds = max(backoff(progress.longest, longest=5), pause_after(progress.most_tries))
        waiting = StepResult.wait(said, seconds, switches=progress.switches)
        # The deadline is the step's, and any group's first try of something renews it; but not that of the ending:
        # everything else waits for it to be put back, and whoever writes a group's Lease says how often it was tried.
        renewed = progress.first_try and not task.ending
        return waiting.model_copy(update={"since": clients.now()}) if renewed else waiting
    match progress.unsettled:
        case [RollError() as alone]:
            raise alone
        case [_, *_] if all(isinstance(each, Transient) for each in progress.unsettled):
            raise Transient("; ".join(map(sentence, progress.unsettled)))
        case [_, *_]:
            raise Refused("; ".join(map(sentence, progress.unsettled)))
    return StepResult.done("; ".join(["no Redis group is half moved", *progress.unseen]))


def _look_at_all(task: SettleTask, clients: Clients, progress: SettleProgress) -> None:
    """One look at each group that is declared, also at those of which no more can be seen than that they were begun."""
    groups, problems = declared(clients.kubernetes.workloads())
    # Each look begins with another one, so that slow ones keep none from its turn.
    began = clients.now()
    first = int(began) % len(groups) if groups else 0
    late = list[RedisGroup | BrokenGroup]()
    for group, in_time in in_turn([*groups[first:], *groups[:first]], clients.now):
        if clients.now() > began + LOOKS_SECONDS + REQUESTS_SECONDS:
            late.append(group)
            continue
        try:
            _settle(group, task, clients, progress, in_time=in_time)
        except (RollError, *MALFORMED) as error:
            progress.failed(group, error)
    for meant, in_time in in_turn(broken(problems), clients.now, REQUESTS_SECONDS):
        if not in_time:
            late.append(meant)
            continue
        try:
            if _begun(meant, task, clients, progress):
                raise Refused(f"{meant.half_moved}.")
        except (RollError, *MALFORMED) as error:
            progress.failed(meant, error)
    progress.unseen += too_many(late, "Redis group")


def _settle(group: RedisGroup, task: SettleTask, clients: Clients, progress: SettleProgress, *, in_time: bool) -> None:
    """One look at a group, and one action where one is due. Raises RollError."""
    lease = _begun(group, task, clients, progress)
    if lease is None:
        return
    holder = f"{task.roll}/settle"
    lease = _taken(lease, holder, clients)
    # Each group has its own patience: what one waits for says nothing of another.
    group_waited = waited(lease, clients.now())
    progress.longest = max(progress.longest, group_waited)
    if not in_time:
        progress.holds.append(f"Redis group {group}: {NOT_ASKED}")
        return
    due = _due(group, group_waited, clients)
    if due is None:
        lock.release(clients, holder, group.lease)
        return
    if not isinstance(due.action, RedisHold):
        refuse_more(due.action, lease, group)
    done = _performed(due, group, clients, progress)
    progress.switches += done.switches(str(group))
    tries = tried(due.action, done, group, clients)
    progress.first_try = progress.first_try or tries == 1
    progress.most_tries = max(progress.most_tries, tries)
    progress.holds.append(f"Redis group {group}: {done.said}")


def _begun(
    group: RedisGroup | BrokenGroup, task: SettleTask, clients: Clients, progress: SettleProgress
) -> Lease | None:
    """The group's Lease, if a migration was begun that this step has to finish. Raises RollError."""
    try:
        lease = clients.kubernetes.lease(group.lease)
    except AccessDenied as error:
        # Whoever declares a group where we have no Role must not keep rolls from the others. Without the Role none of
        # it was moved, unless it was taken away since.
        progress.unseen.append(f"Redis group {group} was not looked at: {sentence(error)}")
        return None
    # At the beginning its holder is dead: this roll has the cluster's lock [R4].
    if lease is None or not lease.holder:
        return None
    return lease if not task.ending or lock.begun_by(lease, task.roll, clients.now()) else None


def _performed(due: Next, group: RedisGroup, clients: Clients, progress: SettleProgress) -> Done:
    """What was done, if anything was due. Raises what the action raises, which is counted as a try, and Refused where
    that was one too many."""
    if isinstance(due.action, RedisHold):
        return Done(due.action.reason, acted=False)
    try:
        return due.perform()
    except (RollError, *MALFORMED) as error:
        progress.most_tries = max(progress.most_tries, failed(due.action, error, group, clients))
        raise


def _taken(lease: Lease, holder: str, clients: Clients) -> Lease:
    """The group's Lease as ours, and kept fresh. Whoever had it may have waited for something else, and what prevented
    the tries of another roll may be gone."""
    now = clients.now()
    if lease.holder != holder:
        same_roll = lease.holder.partition("/")[0] == holder.partition("/")[0]
        kept = dict(lease.annotations) if same_roll else {}
        lease = replace(lease, holder=holder, renewed=now, annotations=kept | waits_from(now))
    elif now > lease.renewed + lease.duration / 4:
        lease = replace(lease, renewed=now)
    else:
        return lease
    clients.kubernetes.put_lease(lease)
    return lease


def _due(group: RedisGroup, waited: float, clients: Clients) -> Next | None:
    """What it needs next; None once the group is normal. Raises Refused where a person has to decide."""
    due = look(group, "", clients, waited)
    match due.action:
        case Settled():
            return None
        case Stop(reason):
            raise Refused(f"Redis group {group}: {reason}.")
        case _:
            return due


handler = handler_for(run, SettleTask, locked=False)
