"""A Redis Cluster's pods move behind stand-ins, on real servers, by the decisions and effects that are deployed.

Only pods are pretended. Clients write over all slots; a sampler asks every node for the slots it sees served.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import pytest

from eks_rolling.observed.redis import Role
from tests.contract.cluster_pods import Cluster, Sampled, Writer, cluster, lost, sampler, writers
from tests.contract.redis_pods import NEW, Ended, Killing, migrate, wait_until_all_write_on

pytestmark = [pytest.mark.timeout(240)]

REDIS_WRITES = {"meet", "replicate", "set_electable", "take_over", "forget", "leave_cluster"}
KUBERNETES_WRITES = {"create_stand_in", "delete_pod"}


@pytest.fixture
def side() -> Iterator[Cluster]:
    with cluster() as found:
        yield found


Roles = dict[str, tuple[str, Role, tuple[tuple[int, int], ...]]]


def roles(side: Cluster) -> Roles:
    """Pod -> node id, role, slots."""
    views = {name: side.view(name) for name in sorted(side.pods)}
    return {name: (v.id, v.itself.role, v.itself.slots) for name, v in views.items()}


def assert_normal(side: Cluster, before: Roles) -> None:
    """C2: the same ids own the same slots, everybody knows exactly the pods, at their addresses."""
    assert roles(side) == before
    known = {view.id: side.processes[name].host for name, view in ((n, side.view(n)) for n in side.pods)}
    for name in side.pods:
        table = {n.id: n.address.host if n.address else "" for n in side.view(name).table}
        assert table == known, name
    assert {p.node for n, p in side.pods.items() if n in {"redis-a-0", "redis-b-0"}} == {NEW}


def assert_served(sampled: Sampled, copies: int = 2) -> None:
    """C1."""
    assert sampled.samples > 20
    assert sampled.unserved == []
    assert sampled.fewest_copies >= copies


def test_a_replica_and_a_master_move_with_two_failovers_and_nothing_is_lost(side: Cluster) -> None:
    """C1, C2."""
    before = roles(side)
    with writers(side) as written, sampler(side) as sampled:
        wait_until_all_write_on(written)
        ended = migrate(side, side.client, 120)
        wait_until_all_write_on(written)
    assert ended.stopped == ""
    assert lost(side, written) == 0
    assert min(len(w.acked) for w in written) > 500
    assert_served(sampled)
    assert_normal(side, before)
    assert side.created == ["redis-b-0-stand-in", "redis-a-0-stand-in"], "replicas before masters"
    failovers = [action.partition(" (")[0] for action in ended.done if "becomes master" in action]
    assert failovers == ["redis-a-0-stand-in becomes master in place of redis-a-0", "redis-a-0 becomes master again"]


def test_a_cluster_of_masters_alone_moves_too() -> None:
    """C1, C2."""
    with cluster(replicas=False) as side:
        before = roles(side)
        with writers(side) as written, sampler(side) as sampled:
            wait_until_all_write_on(written)
            ended = migrate(side, side.client, 120)
            wait_until_all_write_on(written)
        assert ended.stopped == ""
        assert lost(side, written) == 0
        assert sampled.unserved == []
        assert roles(side) == before


def test_a_secured_cluster_moves_too() -> None:
    """C1, C2: TLS with client certificates, and an ACL user that may do what deploy/README.md lists and no more."""
    with cluster(secured=True) as side:
        before = roles(side)
        with writers(side) as written, sampler(side) as sampled:
            wait_until_all_write_on(written)
            ended = migrate(side, side.client, 120)
            wait_until_all_write_on(written)
        assert ended.stopped == ""
        assert side.view("redis-a-0").server.denied == frozenset()
        assert lost(side, written) == 0
        assert_served(sampled)
        assert_normal(side, before)


def test_killed_after_every_command_once_it_ends_the_same(side: Cluster) -> None:
    """R3, C1, C2."""
    before, died = roles(side), cast(list[str], [])
    kubernetes, client = Killing(side, KUBERNETES_WRITES, died), Killing(side.client, REDIS_WRITES, died)
    with writers(side) as written, sampler(side) as sampled:
        wait_until_all_write_on(written)
        ended = migrate(kubernetes, client, 220)
        wait_until_all_write_on(written)
    assert ended.stopped == ""
    assert {what.split()[0] for what in died} == REDIS_WRITES | KUBERNETES_WRITES
    assert lost(side, written) == 0
    assert_served(sampled)
    assert_normal(side, before)


# Faults in the middle of a migration.

Fault = Callable[[Cluster], None]


def stand_in_dies(side: Cluster) -> None:
    """With its node, so that it does not come back."""
    side.crash(next(name for name in side.pods if name.endswith("stand-in")))


def pod_dies(side: Cluster) -> None:
    """With its node; the volume is attached elsewhere once that is noticed."""
    process = side.crash("redis-a-0")
    side.after(6, lambda: side.come_back("redis-a-0", process.directory))


def another_master_dies(side: Cluster) -> None:
    process = side.crash("redis-b-1")
    side.after(6, lambda: side.come_back("redis-b-1", process.directory, "other"))


def volume_is_lost(side: Cluster) -> None:
    """What the pod comes back with is another, empty volume."""
    directory = side.volume("redis-a-0")
    for file in (*directory.glob("nodes.conf"), *directory.glob("appendonlydir/*")):
        file.unlink()


class Breaking:
    """Passes calls on; before or after the call that `when` is true of, the fault happens, once."""

    def __init__(self, inner: object, point: str, subject: str, fault: Callable[[], None], *, before: bool) -> None:
        self._inner, self._point, self._subject, self._fault, self._before = inner, point, subject, fault, before
        self.happened = False

    def __getattr__(self, name: str) -> object:
        call = getattr(self._inner, name)
        if name != self._point:
            return call

        def breaks(*arguments: object) -> object:
            due = not self.happened and str(arguments[0]).endswith(self._subject)
            self.happened = self.happened or due
            if due and self._before:
                self._fault()
            answer = call(*arguments)
            if due and not self._before:
                self._fault()
            return answer

        return breaks


FAULTS: dict[str, tuple[str, str, bool, Fault]] = {
    "the stand-in dies before it has joined": ("replicate", "redis-a-0-stand-in", True, stand_in_dies),
    "the stand-in dies as a replica": ("replicate", "redis-a-0-stand-in", False, stand_in_dies),
    "the stand-in dies when it has been forgotten": ("leave_cluster", "redis-a-0-stand-in", True, stand_in_dies),
    "the pod's node dies while the stand-in synchronizes": ("replicate", "redis-a-0-stand-in", False, pod_dies),
    "the pod's node dies when the stand-in is master": ("take_over", "redis-a-0-stand-in", False, pod_dies),
    "another master dies": ("replicate", "redis-a-0-stand-in", False, another_master_dies),
}


def played(side: Cluster, point: str, subject: str, fault: Fault, *, before: bool) -> tuple[Ended, list[Writer]]:
    happens = partial(fault, side)
    client = Breaking(side.client, point, subject, happens, before=before)
    pods = Breaking(side, point, subject, happens, before=before)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, client, 200)
        wait_until_all_write_on(written)
    print(*ended.held, *ended.done, sep="\n  ")
    assert client.happened or pods.happened, "the fault did not happen"
    return ended, written


DURING = "the pod's node dies when the stand-in is master"
"""In the middle of the two failovers; of the others a sample is drawn."""

CASES = [pytest.param(name, marks=[] if name == DURING else [pytest.mark.drawn(keep=3)]) for name in FAULTS]


@pytest.mark.parametrize("name", CASES)
def test_a_fault_in_the_middle_of_a_migration(side: Cluster, name: str) -> None:
    """R3, C2: held while Redis repairs itself, then finished; nothing is lost but what a master's death may cost."""
    before = roles(side)
    point, subject, early, fault = FAULTS[name]
    ended, written = played(side, point, subject, fault, before=early)
    assert ended.stopped == ""
    assert lost(side, written, side.deaths) == 0
    assert {p.node for n, p in side.pods.items() if n in {"redis-a-0", "redis-b-0"}} == {NEW}
    after = roles(side)
    assert {n: i for n, (i, _, _) in after.items()} == {n: i for n, (i, _, _) in before.items()}
    assert sorted(s for _, _, slots in after.values() for s in slots) == sorted(
        s for _, _, slots in before.values() for s in slots
    )
    assert {n for n, (_, role, _) in after.items() if role is Role.MASTER} >= {"redis-a-0"}


def test_a_pod_that_lost_its_volume_becomes_a_replica_before_it_is_master(side: Cluster) -> None:
    """C1: the stand-in has what the volume had."""
    before = roles(side)
    ended, written = played(side, "delete_pod", "redis-a-0", volume_is_lost, before=False)
    assert ended.stopped == ""
    assert lost(side, written) == 0
    after = roles(side)
    assert after["redis-a-0"][0] != before["redis-a-0"][0], "a new node"
    assert after["redis-a-0"][1:] == before["redis-a-0"][1:]
    assert all(len(side.view(name).table) == len(side.pods) for name in side.pods), "the former id is forgotten"


def test_a_stranger_in_the_cluster_is_named_and_waited_for(side: Cluster) -> None:
    side.start("stranger", side.volume("stranger"))
    side.wait(lambda: side.command("stranger", "ping") == "PONG", "the stranger answers")
    side.command("redis-a-2", "cluster", "meet", side.processes["stranger"].host, "6379")
    stranger = side.view("stranger").id
    side.wait(lambda: all(side.view(n).knows(stranger) for n in side.pods), "it is known")
    with pytest.raises(AssertionError, match=f"knows a node that is not a pod of the group: {stranger[:8]}"):
        migrate(side, side.client, 3)
    assert side.created == []
