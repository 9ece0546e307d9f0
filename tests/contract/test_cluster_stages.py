"""Nodes of a Redis Cluster that stand still, are busy, load, are killed for their memory or change their password.

On real ones, under writers, at every stage of a migration. The roll waits with a sentence, and the next look finishes;
nothing acknowledged is lost but what the same fault costs a cluster that nobody touches [C1, C2].
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from eks_rolling.observed.redis import Role
from tests.contract.breaking import CLUSTER_STAGES, Breaking, Stage
from tests.contract.cluster_pods import NODE_TIMEOUT_MS, Cluster, Writer, cluster, connect, lost, writers
from tests.contract.private_network import cut, faults_cost_as_much, heal, is_private, run_inside
from tests.contract.redis_pods import NEW, Ended, migrate, wait_until_all_write_on
from tests.contract.test_redis_stages import assert_sentences
from tests.waiting import until

pytestmark = [pytest.mark.timeout(300)]

POD, STAND_IN, ANOTHER = "redis-a-0", "redis-a-0-stand-in", "redis-b-1"

SHORT_SECONDS = 2.5
"""Longer than a step waits for an answer, shorter than the cluster's node timeout."""

LONG_SECONDS = NODE_TIMEOUT_MS / 1000 * 2.5

Fault = Callable[[Cluster], None]


def stands_still(name: str, seconds: float) -> Fault:
    return lambda side: side.freeze(name, seconds) if name in side.processes else None


def is_busy(name: str) -> Fault:
    def fault(side: Cluster) -> None:
        if name in side.processes:
            side.wait(lambda: side.command(name, "ping") == "PONG", f"{name} answers")
            side.command(name, "config", "set", "busy-reply-threshold", "300")
            script = f"local began = os.clock() while os.clock() - began < {SHORT_SECONDS} do end return 1"
            side.send(name, "eval_ro", script, "0")

    return fault


def is_paused(name: str) -> Fault:
    def fault(side: Cluster) -> None:
        if name in side.processes:
            side.wait(lambda: side.command(name, "ping") == "PONG", f"{name} answers")
            side.send(name, "client", "pause", str(int(LONG_SECONDS * 1000)), "all")

    return fault


def loads_for_seconds(side: Cluster) -> None:
    """Whatever is started from now on needs a while for every write that it loads, the pod that comes back too."""
    side.more_lines[:] = [*side.more_lines, "key-load-delay 500", "loading-process-events-interval-bytes 1024"]


def killed_for_its_memory(side: Cluster) -> None:
    """The stand-in, again and again: its container is started anew with its emptyDir."""
    for number in range(3):
        side.after(0.1 + number * 2, lambda: dies_in_its_pod(side))


def dies_in_its_pod(side: Cluster) -> None:
    if STAND_IN in side.processes:
        with suppress(AssertionError):
            side.restart_container(STAND_IN, 1.0)


def volume_is_lost(side: Cluster) -> None:
    """What the pod comes back with, if it has yet to, is empty."""
    side.lost_volumes.add(POD)


def password_is_rotated(side: Cluster) -> None:
    """The servers take the roll's new password only, and have closed its connections; its Secret follows later."""
    side.more_lines[:] = [roll_user(NEW_PASSWORD)]
    for name in list(side.processes):
        side.wait(lambda name=name: side.command(name, "ping") == "PONG", f"{name} answers")
        side.command(name, "acl", "setuser", "roll", "resetpass", f">{NEW_PASSWORD}")
        side.command(name, "client", "kill", "user", "roll")
    side.after(SHORT_SECONDS, lambda: side.secrets["redis-auth"].update(password=NEW_PASSWORD))


OLD_PASSWORD, NEW_PASSWORD = "correct-horse", "staple-battery"


def roll_user(password: str) -> str:
    return f"user roll on >{password} ~* &* +@all"


FAULTS: dict[str, Fault] = {
    "the pod stands still for a moment": stands_still(POD, SHORT_SECONDS),
    "the pod stands still": stands_still(POD, LONG_SECONDS),
    "the stand-in stands still for a moment": stands_still(STAND_IN, SHORT_SECONDS),
    "the stand-in stands still": stands_still(STAND_IN, LONG_SECONDS),
    "another master stands still": stands_still(ANOTHER, LONG_SECONDS),
    "the pod is busy": is_busy(POD),
    "the stand-in is busy": is_busy(STAND_IN),
    "the pod is paused": is_paused(POD),
    "the stand-in is paused": is_paused(STAND_IN),
    "whoever starts loads for seconds": loads_for_seconds,
    "the stand-in is killed for its memory": killed_for_its_memory,
    "the pod's volume is lost": volume_is_lost,
    "the password is rotated": password_is_rotated,
}


@pytest.fixture
def side() -> Iterator[Cluster]:
    with cluster() as found:
        yield found


def with_a_user_of_its_own(side: Cluster) -> None:
    """The roll signs in as a user whose password may change while clients keep theirs."""
    for name in side.processes:
        side.command(name, "acl", "setuser", *roll_user(OLD_PASSWORD).split()[1:])
    side.more_lines[:] = [roll_user(OLD_PASSWORD)]
    side.secrets["redis-auth"] = {"username": "roll", "password": OLD_PASSWORD}


def played(side: Cluster, stage: Stage, fault: Fault) -> tuple[Ended, list[Writer]]:
    happened: list[float] = []

    def happens() -> None:
        happened.append(time.monotonic())
        fault(side)

    client, pods = Breaking(side.client, stage, happens), Breaking(side, stage, happens)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, client, 200)
        side.settle()
        wait_until_all_write_on(written)
    assert happened, "the fault did not happen"
    return ended, written


def test_a_stand_in_that_would_evict_keys_does_not_take_over(side: Cluster) -> None:
    """C1: somebody raised the limit of the running servers, and not that of the template."""
    side.more_lines += ["maxmemory 2mb", "maxmemory-policy allkeys-lru"]
    large = {f"large-{n}": "x" * 100_000 for n in range(200)}
    with closing(connect(side)) as client:
        for key, value in large.items():
            client.set(key, value)
        with writers(side) as written:
            wait_until_all_write_on(written)
            ended = migrate(side, side.client, 120)
            wait_until_all_write_on(written)
        assert f"{STAND_IN} may hold" in ended.stopped
        assert lost(side, written) == 0
        assert all(client.strlen(key) == len(value) for key, value in large.items())
    assert side.view(POD).itself.role is Role.MASTER


def zones_are_cut(side: Cluster) -> None:
    """For ten seconds, with clients on both sides. The first zone has two of the three masters, and so the majority."""
    hosts = {name: process.host for name, process in side.processes.items()}
    first = [host for name, host in hosts.items() if name.startswith("redis-a")]
    cut(first, [host for name, host in hosts.items() if name.startswith("redis-b")])
    side.after(10, heal)


def lost_without_a_roll(fault: Fault) -> int:
    """What it costs a cluster that nobody touches where it happens to a pod; there is no stand-in then."""
    with cluster() as side:
        with_a_user_of_its_own(side)
        with writers(side) as written:
            wait_until_all_write_on(written)
            fault(side)
            side.settle()
            # Until every node has heard of it clients write on both sides: that is part of what it costs.
            until(side.is_whole_again, "the cluster has one table", within_seconds=60)
            wait_until_all_write_on(written)
        return lost(side, written, side.deaths)


CASES = [
    (fault, stage)
    for fault in FAULTS
    for stage in CLUSTER_STAGES
    if "stand-in" not in fault or stage != "before the stand-in is created"
]


@pytest.mark.drawn(keep=8)
@pytest.mark.parametrize(("fault", "stage"), CASES)
def test_a_node_that_does_not_answer_for_a_while(side: Cluster, fault: str, stage: str) -> None:
    """C1, C2, R3."""
    with_a_user_of_its_own(side)
    before = {name: (view.id, view.itself.slots) for name, view in ((n, side.view(n)) for n in side.pods)}
    ended, written = played(side, CLUSTER_STAGES[stage], FAULTS[fault])
    print(fault, stage, *ended.held, *ended.done, sep="\n  ")
    assert ended.stopped == ""
    assert_sentences(ended)
    assert not ended.refused or fault == "the password is rotated"
    missing = lost(side, written, side.deaths)
    instead = FAULTS.get(fault.replace("stand-in", "pod"))
    assert missing == 0 or (instead is not None and faults_cost_as_much(missing, lambda: lost_without_a_roll(instead)))
    assert {p.node for n, p in side.pods.items() if n in {"redis-a-0", "redis-b-0"}} == {NEW}
    assert not side.stand_ins("default", "shards")
    views = {name: side.view(name) for name in side.pods}
    # With an empty volume the pod is a new node, of the same shard.
    as_before = {name: view.id == before[name][0] for name, view in views.items()}
    assert [name for name, same in as_before.items() if not same] in ([], [POD] if "volume" in fault else [])
    assert all(len(view.table) == len(side.pods) for view in views.values())
    served = sorted(slots for view in views.values() for slots in view.itself.slots)
    assert served == sorted(slots for _, owned in before.values() for slots in owned)
    # Whom Redis itself promotes before the pod moves is as good.
    assert {name for name, view in views.items() if view.itself.role is Role.MASTER} & {POD, "redis-b-0"}


@pytest.mark.skipif(not is_private(), reason="runs in a network of its own, from the test below")
@pytest.mark.parametrize("stage", CLUSTER_STAGES)
def test_inside_zones_are_cut(side: Cluster, stage: str) -> None:
    """C1: what is lost is at most what the same cut costs a cluster that nobody touches."""
    ended, written = played(side, CLUSTER_STAGES[stage], zones_are_cut)
    print(stage, *ended.held, *ended.done, sep="\n  ")
    assert (ended.stopped, ended.refused) == ("", [])
    assert_sentences(ended)
    missing = lost(side, written)
    assert missing == 0 or faults_cost_as_much(missing, lambda: lost_without_a_roll(zones_are_cut))
    assert {p.node for n, p in side.pods.items() if n in {"redis-a-0", "redis-b-0"}} == {NEW}
    assert {n for n in side.pods if side.view(n).itself.role is Role.MASTER} & {POD, "redis-b-0"}


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("stage", CLUSTER_STAGES)
def test_zones_are_cut_for_ten_seconds(stage: str) -> None:
    run_inside(__file__, f"test_inside_zones_are_cut[{stage}]")
