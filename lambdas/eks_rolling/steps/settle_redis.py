"""Finish the Redis migrations that were begun: by a dead roll, before this one begins; by this one, before it restores.

A group whose Lease is still held is brought to the nearest normal state [S2]: the master pod is master, wherever it is,
and every replica is in sync. Nothing more is moved.
"""

from dataclasses import replace
from typing import Any

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, Refused, sentence
from eks_rolling.migration.next_action import Next, look
from eks_rolling.migration.repetition import pause_after, tried, waited, waits_from
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import SettleTask, StepResult, backoff
from eks_rolling.redis.actions import Done, RedisHold, Settled, Stop
from eks_rolling.redis.groups import RedisGroup, declared
from eks_rolling.roll import lock
from eks_rolling.roll.fence import fenced, steps_still_at_work
from eks_rolling.runtime import handler_for


def run(task: SettleTask, clients: Clients) -> StepResult:
    if not task.ending:
        lock.confirm(clients, task.roll)
        clients = fenced(clients, task.roll, "settle_redis")
    else:
        ended = lock.end(clients, task.roll, task.by)
        if not isinstance(ended, Lease):
            return StepResult.done("nothing to do: this roll does not hold the lock")
        if seconds := steps_still_at_work(ended, task, clients.now()):
            return StepResult.wait("steps that the roll had begun may still be at work", seconds)
    holder = f"{task.roll}/settle"
    holds: list[str] = []
    progress, most, longest = False, 0, 0.0
    switches: list[dict[str, Any]] = []
    groups, _ = declared(clients.kubernetes.workloads())
    unseen: list[str] = []
    for group in groups:
        try:
            lease = clients.kubernetes.lease(group.lease)
        except AccessDenied as error:
            # Whoever declares a group where we have no Role must not keep rolls from the others. Without the Role none
            # of it was moved, unless it was taken away since.
            unseen.append(f"Redis group {group} was not looked at: {sentence(error)}")
            continue
        if lease is None or not lease.holder:
            continue
        # At the beginning its holder is dead: this roll has the cluster's lock [R4].
        if task.ending and not lock.begun_by(lease, task.roll, clients.now()):
            continue
        lease = _taken(lease, holder, clients)
        # Each group has its own patience: what one waits for says nothing of another.
        group_waited = waited(lease, clients.now())
        if due := _due(group, group_waited, clients):
            done = Done(due.action.reason, acted=False) if isinstance(due.action, RedisHold) else due.perform()
            tries = tried(due.action, done, group, clients)
            progress, most, longest = progress or tries == 1, max(most, tries), max(longest, group_waited)
            holds.append(f"Redis group {group}: {done.said}")
            switches += done.switches(str(group))
        else:
            lock.release(clients, holder, group.lease)
    if holds:
        seconds = max(backoff(longest, longest=5), pause_after(most))
        waiting = StepResult.wait("; ".join(holds), seconds, switches=switches)
        # The deadline is the step's, and any group's first try of something renews it.
        return waiting.model_copy(update={"since": clients.now()}) if progress else waiting
    return StepResult.done("; ".join(["no Redis group is half moved", *unseen]))


def _taken(lease: Lease, holder: str, clients: Clients) -> Lease:
    """The group's Lease as ours, and kept fresh. Whoever had it may have waited for something else."""
    now = clients.now()
    if lease.holder != holder:
        lease = replace(lease, holder=holder, renewed=now, annotations=dict(lease.annotations) | waits_from(now))
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
