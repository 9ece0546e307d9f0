"""Things that break in the middle of a master pod's migration, on real servers under writers.

The roll holds, says why, and finishes once Redis has repaired itself, or stops and asks. What is lost is at most what
the same fault costs without a roll [S1].
"""

import contextlib
import functools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.contract.private_network import cut, faults_cost_as_much, heal, is_private, run_inside
from tests.contract.redis_pods import NEW, Ended, Pods, Writer, lost, migrate, wait_until_all_write_on, writers
from tests.contract.redis_sides import NAME, Processes, processes, wait_until_whole

pytestmark = pytest.mark.timeout(240)

BACK_SECONDS = 8.0
"""A pod that died is back after the sentinels' down-after: one that is back sooner, empty, is a loss without us too."""

FAULT_SECONDS = 10.0


@dataclass
class Case:
    """A group in the middle of a migration. What a fault starts for later is waited for at the end."""

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


class Breaking:
    """Passes calls on; when one of them has been made so many times, the fault happens before it or after it."""

    def __init__(self, inner: Any, point: str, times: int, fault: Callable[[], None], *, before: bool = False) -> None:
        self._inner, self._point, self._left, self._fault, self._before = inner, point, times, fault, before

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name != self._point:
            return call

        def breaks(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._before:
                self._fault()
            answer = call(*arguments)
            if self._left == 0 and not self._before:
                self._fault()
            return answer

        return breaks


def die(case: Case, name: str) -> None:
    case.happened.append(f"{name} dies")
    was_master = name == case.pods.name_of_master()
    case.pods.crash(name)
    if was_master:
        case.deaths.append(time.monotonic())
    case.after(BACK_SECONDS, functools.partial(case.pods.come_back, name))


def other_replica_dies(case: Case) -> None:
    master = case.pods.name_of_master()
    die(case, "redis-replica-1" if master == "redis-replica-0" else "redis-replica-0")


def target_dies(case: Case) -> None:
    die(case, "redis-replica-0")


def master_dies(case: Case) -> None:
    die(case, case.pods.name_of_master())


def home_dies(case: Case) -> None:
    die(case, "redis-master-0")


def sentinel_dies(case: Case) -> None:
    die(case, "redis-sentinel-0")


def new_node_dies(case: Case) -> None:
    name = "redis-master-0"
    case.happened.append("the new node dies")
    host = case.pods.pods[name].address.rpartition(".")[0] + ".98"
    case.pods.lose_node(name)
    case.after(3, lambda: case.pods.come_back_elsewhere(host))


def has_to_synchronize_anew(case: Case) -> None:
    """The pod that has just come back is cut off until what it misses is no longer in the backlog."""
    master = case.pods.endpoint(case.pods.name_of_master())
    case.happened.append("the replication is broken")
    case.side.command(master, "config", "set", "repl-backlog-size", "16384")
    case.side.freeze(case.pods.endpoint("redis-master-0"))
    case.side.command(master, "client", "kill", "type", "replica")
    for _ in range(20):
        case.side.command(master, "set", "large", "x" * 10_000)
    case.after(2, lambda: case.side.thaw(case.pods.endpoint("redis-master-0")))


def somebody_else_fails_over(case: Case) -> None:
    case.happened.append("a failover by hand")
    with contextlib.suppress(subprocess.CalledProcessError):
        case.side.sentinel_command(case.side.sentinels[2], "sentinel", "failover", NAME)


FAULTS: dict[str, tuple[str, int, bool, Fault]] = {
    "a replica dies before the switch": ("pause_writes", 1, True, other_replica_dies),
    "the target dies while writes are paused": ("promote", 1, True, target_dies),
    "the target dies once the old master is closed": ("follow", 1, False, target_dies),
    "the old master dies once it is closed": ("follow", 1, False, home_dies),
    "somebody else fails over once the old master is closed": ("follow", 1, False, somebody_else_fails_over),
    "the target dies once it is master": ("promote", 1, False, target_dies),
    "the target dies before a sentinel is told": ("announce", 1, True, target_dies),
    "the old master dies before it follows": ("promote", 1, False, home_dies),
    "the acting master dies while the pod is away": ("delete_pod", 1, False, master_dies),
    "the acting master dies while the pod synchronizes": ("follow", 4, False, master_dies),
    "the acting master dies before the way back": ("pause_writes", 2, True, master_dies),
    "a sentinel dies before it is told": ("announce", 1, True, sentinel_dies),
    "a sentinel dies while the pod is away": ("delete_pod", 1, False, sentinel_dies),
    "a sentinel dies when its colleague was reset": ("reset", 1, False, sentinel_dies),
    "the new node dies": ("follow", 4, False, new_node_dies),
    "the pod has to synchronize anew": ("pause_writes", 2, True, has_to_synchronize_anew),
    "somebody else fails over before the switch": ("pause_writes", 1, True, somebody_else_fails_over),
    "somebody else fails over while the roles change": ("promote", 1, True, somebody_else_fails_over),
    "somebody else fails over between two hellos": ("announce", 2, True, somebody_else_fails_over),
    "somebody else fails over after the last hello": ("announce", 3, False, somebody_else_fails_over),
    "somebody else fails over on the way back": ("announce", 4, True, somebody_else_fails_over),
}


@pytest.fixture
def side() -> Iterator[Processes]:
    with processes() as found:
        found.start()
        wait_until_whole(found)
        yield found


def played(side: Processes, point: str, times: int, fault: Fault, *, before: bool) -> tuple[Case, Ended, list[Writer]]:
    """A migration during which the fault happens."""
    case = Case(side, Pods(side))
    happens = functools.partial(fault, case)
    client = Breaking(side.client, point, times, happens, before=before)
    pods = Breaking(case.pods, point, times, happens, before=before)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, client, 150)
        wait_until_all_write_on(written)
    for timer in case.later:
        timer.join()
    return case, ended, written


def lost_without_a_roll(fault: Fault) -> int:
    """What the same fault costs a group that nobody touches, beyond what a master's death may."""
    with processes() as side:
        side.start()
        wait_until_whole(side)
        case = Case(side, Pods(side))
        with writers(side) as written:
            wait_until_all_write_on(written)
            fault(case)
            time.sleep(FAULT_SECONDS + 5)
        for timer in case.later:
            timer.join()
        return lost(side, case.pods.endpoint(case.pods.name_of_master()).address.host, written, case.deaths)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_middle_of_a_migration(side: Processes, name: str) -> None:
    """S1, S2, R3."""
    point, times, before, fault = FAULTS[name]
    case, ended, written = played(side, point, times, fault, before=before)
    print(name, *ended.held, *ended.done, sep="\n  ")
    assert case.happened, "the fault did not happen"
    assert ended.stopped == ""
    moved = case.pods.pods["redis-master-0"]
    assert moved.node == NEW
    assert not any(pod.annotations for pod in case.pods.pods.values())
    assert case.pods.name_of_master() == "redis-master-0"
    missing = lost(side, moved.address, written, case.deaths)
    assert missing == 0 or faults_cost_as_much(missing, functools.partial(lost_without_a_roll, fault))
    assert min(len(w.acked) for w in written) > 100


def zones_are_cut(case: Case) -> None:
    """The first zone has the master pod and a sentinel, the second one the replicas and two sentinels."""
    case.happened.append("the zones are cut")
    network = case.pods.pods["redis-replica-0"].address.rpartition(".")[0]
    cut([f"{network}.{n}" for n in (1, 11, 98, 99)], [f"{network}.{n}" for n in (2, 3, 12, 13)])
    case.after(FAULT_SECONDS, heal)


CUTS: dict[str, tuple[str, int, bool]] = {
    "before the switch": ("pause_writes", 1, True),
    "when the roles have changed": ("follow", 1, False),
    "while the pod is away": ("delete_pod", 1, False),
    "while the pod synchronizes": ("follow", 3, False),
    "before the way back": ("pause_writes", 2, True),
    "on the way back": ("promote", 2, False),
}


@pytest.mark.skipif(not is_private(), reason="runs in a network of its own, from the test below")
@pytest.mark.parametrize("name", CUTS)
def test_inside_zones_are_cut(side: Processes, name: str) -> None:
    """S1."""
    point, times, before = CUTS[name]
    case, ended, written = played(side, point, times, zones_are_cut, before=before)
    print(name, *ended.held, *ended.done, sep="\n  ")
    assert case.happened, "the fault did not happen"
    assert ended.stopped == ""
    moved = case.pods.pods["redis-master-0"]
    assert moved.node == NEW
    missing = lost(side, moved.address, written)
    assert missing == 0 or faults_cost_as_much(missing, lambda: lost_without_a_roll(zones_are_cut))


@pytest.mark.parametrize("name", CUTS)
def test_zones_are_cut_for_ten_seconds(name: str) -> None:
    run_inside(__file__, f"test_inside_zones_are_cut[{name}]")
