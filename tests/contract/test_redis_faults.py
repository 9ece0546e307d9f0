"""Things that break in the middle of a master pod's migration, on real servers under writers.

The roll holds, says why, and finishes once Redis has repaired itself, or stops and asks. What is lost is at most what
the same fault costs without a roll [S1].
"""

import functools
import time
from collections.abc import Iterator

import pytest

from tests.contract.breaking import (
    SENTINEL_STAGES,
    Case,
    Fault,
    Stage,
    lost_without_a_roll,
    played,
    somebody_else_fails_over,
    whole_group,
)
from tests.contract.private_network import cut, faults_cost_as_much, heal, is_private, run_inside
from tests.contract.redis_pods import NEW, lost
from tests.contract.redis_sides import Processes

pytestmark = pytest.mark.timeout(240)

BACK_SECONDS = 8.0
"""A pod that died is back after the sentinels' down-after: one that is back sooner, empty, is a loss without us too."""


CUT_SECONDS = 10.0


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
    host = case.side.host(98)
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


FAULTS: dict[str, tuple[Stage, Fault]] = {
    "a replica dies before the switch": (Stage("pause_writes", before=True), other_replica_dies),
    "the target dies while writes are paused": (Stage("promote", before=True), target_dies),
    "the target dies once the old master is closed": (Stage("follow"), target_dies),
    "the old master dies once it is closed": (Stage("follow"), home_dies),
    "somebody else fails over once the old master is closed": (Stage("follow"), somebody_else_fails_over),
    "the target dies once it is master": (Stage("promote"), target_dies),
    "the target dies before a sentinel is told": (Stage("announce", before=True), target_dies),
    "the old master dies before it follows": (Stage("promote"), home_dies),
    "the acting master dies while the pod is away": (Stage("delete_pod"), master_dies),
    "the acting master dies while the pod synchronizes": (Stage("follow", 4), master_dies),
    "the acting master dies before the way back": (Stage("pause_writes", 2, before=True), master_dies),
    "a sentinel dies before it is told": (Stage("announce", before=True), sentinel_dies),
    "a sentinel dies while the pod is away": (Stage("delete_pod"), sentinel_dies),
    "a sentinel dies when its colleague was reset": (Stage("reset"), sentinel_dies),
    "the new node dies": (Stage("follow", 4), new_node_dies),
    "the pod has to synchronize anew": (Stage("pause_writes", 2, before=True), has_to_synchronize_anew),
    "somebody else fails over before the switch": (Stage("pause_writes", before=True), somebody_else_fails_over),
    "somebody else fails over while the roles change": (Stage("promote", before=True), somebody_else_fails_over),
    "somebody else fails over between two hellos": (Stage("announce", 2, before=True), somebody_else_fails_over),
    "somebody else fails over after the last hello": (Stage("announce", 3), somebody_else_fails_over),
    "somebody else fails over on the way back": (Stage("announce", 4, before=True), somebody_else_fails_over),
}


@pytest.fixture
def side() -> Iterator[Processes]:
    with whole_group() as found:
        yield found


OUTSIDE = (
    "a replica dies before the switch",
    "somebody else fails over before the switch",
    "the acting master dies while the pod is away",
    "the acting master dies while the pod synchronizes",
    "the acting master dies before the way back",
    "a sentinel dies while the pod is away",
    "the new node dies",
    "the pod has to synchronize anew",
)
"""They happen before or after a switch, or between the two; of those in the middle of one none is left out."""

CASES = [pytest.param(name, marks=[pytest.mark.drawn(keep=3)] if name in OUTSIDE else []) for name in FAULTS]


@pytest.mark.parametrize("name", CASES)
def test_a_fault_in_the_middle_of_a_migration(side: Processes, name: str) -> None:
    """S1, S2, R3."""
    stage, fault = FAULTS[name]
    case, ended, written = played(side, stage, fault)
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
    case.after(CUT_SECONDS, heal)


@pytest.mark.skipif(not is_private(), reason="runs in a network of its own, from the test below")
@pytest.mark.parametrize("name", SENTINEL_STAGES)
def test_inside_zones_are_cut(side: Processes, name: str) -> None:
    """S1."""
    case, ended, written = played(side, SENTINEL_STAGES[name], zones_are_cut)
    print(name, *ended.held, *ended.done, sep="\n  ")
    assert case.happened, "the fault did not happen"
    assert ended.stopped == ""
    moved = case.pods.pods["redis-master-0"]
    assert moved.node == NEW
    missing = lost(side, case.pods.endpoint(case.pods.name_of_master()).address.host, written)
    assert missing == 0 or faults_cost_as_much(missing, lambda: lost_without_a_roll(zones_are_cut))


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("name", SENTINEL_STAGES)
def test_zones_are_cut_for_ten_seconds(name: str) -> None:
    run_inside(__file__, f"test_inside_zones_are_cut[{name}]")
