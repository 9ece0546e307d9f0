"""Faults at a stage of a migration on real servers: where they happen, what a group is then, what they cost anyway."""

import functools
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from eks_rolling.observed.redis import Role, Sentinel, Server
from tests.contract.redis_pods import Ended, Pods, Writer, lost, migrate, wait_until_all_write_on, writers
from tests.contract.redis_sides import NAME, Processes, processes, wait_until_whole
from tests.waiting import until


@dataclass(frozen=True)
class Stage:
    """The `times`-th call of that name whose first argument ends with `subject`, and the moment before or after it."""

    point: str
    times: int = 1
    before: bool = False
    subject: str = ""


SENTINEL_STAGES = {
    "before the switch": Stage("pause_writes", before=True),
    "once writes are paused": Stage("pause_writes"),
    "before the old master is closed": Stage("follow", before=True),
    "once the old master is closed": Stage("follow"),
    "before the promotion": Stage("promote", before=True),
    "once the new one is master": Stage("promote"),
    "once the old one follows": Stage("follow", 2),
    "before a sentinel is told": Stage("announce", before=True),
    "once one sentinel is told": Stage("announce"),
    "once all sentinels are told": Stage("announce", 3),
    "once clients are cut off": Stage("disconnect_clients"),
    "once the pod is deleted": Stage("delete_pod"),
    "once the new pod follows": Stage("follow", 3, subject="redis-master-0"),
    "before the way back": Stage("pause_writes", 2, before=True),
    "once it is closed on the way back": Stage("follow", subject="redis-replica-0"),
    "once the pod is master again": Stage("promote", subject="redis-master-0"),
    "once one sentinel is told of the way back": Stage("announce", 4),
    "once a sentinel is reset": Stage("reset"),
}
"""Of a master pod's migration; the first replica is the target."""

CLUSTER_STAGES = {
    "before the stand-in is created": Stage("create_stand_in", 2, before=True),
    "once the stand-in is created": Stage("create_stand_in", 2),
    "once the stand-in is introduced": Stage("meet", subject="redis-a-0-stand-in"),
    "once the stand-in follows": Stage("replicate", subject="redis-a-0-stand-in"),
    "before the stand-in takes over": Stage("take_over", before=True, subject="redis-a-0-stand-in"),
    "once the stand-in takes over": Stage("take_over", subject="redis-a-0-stand-in"),
    "before the pod is deleted": Stage("delete_pod", before=True, subject="redis-a-0"),
    "once the pod is deleted": Stage("delete_pod", subject="redis-a-0"),
    "before the way back": Stage("take_over", before=True, subject="redis-a-0"),
    "once the pod takes over": Stage("take_over", subject="redis-a-0"),
    "once a node has forgotten the stand-in": Stage("forget", 8),
    "once the stand-in is reset": Stage("leave_cluster", subject="redis-a-0-stand-in"),
}
"""Of the migration of a replica and of the master of its shard, redis-a-0."""


class Breaking:
    """Passes calls on; at the stage the fault happens, once."""

    def __init__(self, inner: Any, stage: Stage, fault: Callable[[], None]) -> None:
        self._inner, self._stage, self._left, self._fault = inner, stage, stage.times, fault

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name != self._stage.point:
            return call

        def breaks(*arguments: Any) -> Any:
            self._left -= str(arguments[0]).endswith(self._stage.subject)
            due = self._left == 0
            if due:
                self._left = -1
            if due and self._stage.before:
                self._fault()
            answer = call(*arguments)
            if due and not self._stage.before:
                self._fault()
            return answer

        return breaks


@dataclass
class Case:
    """A Sentinel group in the middle of a migration. What a fault starts for later is waited for at the end."""

    side: Processes
    pods: Pods
    later: list[threading.Timer] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)
    """When masters died (monotonic seconds): what each may cost is said in `unreplicated`."""

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()
        self.later.append(timer)


Fault = Callable[[Case], None]


@contextmanager
def whole_group() -> Iterator[Processes]:
    with processes() as side:
        side.start()
        wait_until_whole(side)
        yield side


def played(side: Processes, stage: Stage, fault: Fault) -> tuple[Case, Ended, list[Writer]]:
    """A migration during which the fault happens."""
    case = Case(side, Pods(side))
    happens = functools.partial(fault, case)
    client, pods = Breaking(side.client, stage, happens), Breaking(case.pods, stage, happens)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, client, 150)
        wait_until_all_write_on(written)
    for timer in case.later:
        timer.join()
    # What sentinels elected meanwhile has clients that wrote to it, and is not everybody's master yet.
    until(lambda: is_whole_again(side, case.pods), "the sentinels have one master", within_seconds=60)
    return case, ended, written


def somebody_else_fails_over(case: Case) -> None:
    case.happened.append("a failover by hand")
    with suppress(subprocess.CalledProcessError):
        case.side.sentinel_command(case.side.sentinels[2], "sentinel", "failover", NAME)


def is_whole_again(side: Processes, pods: Pods) -> bool:
    """Whether one server is master, followed by both others, and every sentinel names it."""
    servers = [side.redis.server(pods.endpoint(n)) for n in ("redis-master-0", "redis-replica-0", "redis-replica-1")]
    masters = [s for s in servers if isinstance(s, Server) and s.role is Role.MASTER]
    if len(masters) != 1 or sum(f.online for f in masters[0].followers) != 2:
        return False
    views = [side.redis.sentinel(s, NAME) for s in side.sentinels]
    return all(isinstance(v, Sentinel) and v.current == masters[0].address and not v.failing_over for v in views)


def lost_without_a_roll(fault: Fault) -> int:
    """What the same fault costs a group that nobody touches, beyond what a master's death may."""
    with whole_group() as side:
        case = Case(side, Pods(side))
        with writers(side) as written:
            wait_until_all_write_on(written)
            fault(case)
            for timer in case.later:
                timer.join()
            # Clients write on both sides until the sentinels have demoted one master: that is part of what it costs.
            until(lambda: is_whole_again(side, case.pods), "the sentinels have one master", within_seconds=60)
            wait_until_all_write_on(written)
        return lost(side, case.pods.endpoint(case.pods.name_of_master()).address.host, written, case.deaths)
