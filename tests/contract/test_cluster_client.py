"""The Redis Cluster contract: the same cases on nodes in memory and on real ones with the real client."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

import pytest

from eks_rolling.clients.protocols import Redis
from eks_rolling.errors import Conflict, Permanent, Transient
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, Role, Server, Silent
from tests import waiting
from tests.contract.cluster_pods import LOGIN, MASTERS, NODE_TIMEOUT_MS, REPLICA_OF, Cluster
from tests.contract.redis_sides import processes
from tests.redis_world import RedisWorld

pytestmark = pytest.mark.timeout(120)
PODS = (*MASTERS, *REPLICA_OF)
GIVE_UP_SECONDS = 30
T = TypeVar("T")


class Side(Protocol):
    """Three masters, a replica of each; `redis` is what is tried."""

    redis: Redis

    def at(self, name: str) -> Endpoint: ...

    def start(self, name: str) -> None:
        """A node that is new."""
        ...

    def restart(self, name: str) -> None:
        """Ends it, and starts it at another address with its volume."""
        ...

    def kill(self, name: str) -> None: ...

    def write(self, name: str) -> None:
        """A key that the master there acknowledges."""
        ...

    def pass_time(self) -> None: ...

    def now(self) -> float: ...


class InMemory:
    def __init__(self) -> None:
        self.world = RedisWorld(lambda _: None)
        self.redis: Redis = self.world
        self._hosts: dict[str, str] = {}
        for name in PODS:
            self.start(name)
        shards = [[m, *(r for r, of in REPLICA_OF.items() if of == m)] for m in MASTERS]
        self.world.cluster.form([[self._hosts[name] for name in shard] for shard in shards])

    def at(self, name: str) -> Endpoint:
        return Endpoint(Address(self._hosts[name]), LOGIN, f"default/{name}")

    def start(self, name: str) -> None:
        self._hosts[name] = f"10.0.0.{len(self._hosts) + 1}"
        self.world.cluster.start(self._hosts[name], name)

    def restart(self, name: str) -> None:
        self.world.cluster.stop(self._hosts[name])
        self._hosts[name] = self._hosts[name].replace("10.0.0", "10.0.1")
        self.world.cluster.start(self._hosts[name], name)

    def kill(self, name: str) -> None:
        self.world.cluster.nodes.pop(self._hosts[name])

    def write(self, name: str) -> None:
        node = self.world.cluster.nodes[self._hosts[name]]
        node.data = node.data.also(len(node.data))

    def pass_time(self) -> None:
        self.world.tick(self.world.now + 0.1)

    def now(self) -> float:
        return self.world.now


class Real:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self.redis: Redis = self.cluster.client
        self.cluster.form()

    def at(self, name: str) -> Endpoint:
        return Endpoint(Address(self.cluster.processes[name].host), LOGIN, f"default/{name}")

    def start(self, name: str) -> None:
        self.cluster.start(name, self.cluster.volume(name))
        self.cluster.wait(lambda: self.cluster.command(name, "ping") == "PONG", f"{name} answers")

    def restart(self, name: str) -> None:
        process = self.cluster.processes.pop(name)
        process.popen.terminate()
        process.popen.wait()
        self.cluster.start(name, process.directory)
        self.cluster.wait(lambda: self.cluster.command(name, "ping") == "PONG", f"{name} answers")

    def kill(self, name: str) -> None:
        self.cluster.crash(name)

    def write(self, name: str) -> None:
        ((first, last),) = node(self, name).itself.slots
        slots = ((t, int(self.cluster.command(name, "cluster", "keyslot", str(t)))) for t in range(100))
        key = next(t for t, slot in slots if first <= slot <= last)
        assert self.cluster.command(name, "set", str(key), "1") == "OK"

    def pass_time(self) -> None:
        time.sleep(0.1)

    def now(self) -> float:
        return time.monotonic()


@pytest.fixture(params=["memory", "real"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "memory":
        yield InMemory()
        return
    real = Real()
    try:
        until(real, lambda: all(node(real, n).ok and is_linked(real, n) for n in PODS), "the cluster is whole")
        until(real, lambda: len({table(real, n) for n in PODS}) == 1, "all tables agree")
        yield real
    finally:
        real.cluster.close()


def node(side: Side, name: str) -> ClusterNode:
    found = side.redis.cluster_node(side.at(name))
    assert isinstance(found, ClusterNode), found
    return found


def is_linked(side: Side, name: str) -> bool:
    view = node(side, name)
    return view.itself.role is Role.MASTER or view.server.link_up


def table(side: Side, name: str) -> frozenset[tuple[str, str, object]]:
    return frozenset((n.id, n.master, n.slots) for n in node(side, name).table)


def until(side: Side, look: Callable[[], T | None], what: str) -> T:
    deadline = side.now() + GIVE_UP_SECONDS
    while not (found := look()):
        assert side.now() < deadline, f"not within {GIVE_UP_SECONDS} s: {what}"
        side.pass_time()
    return found


def later(side: Side, seconds: float) -> None:
    end = side.now() + seconds
    while side.now() < end:
        side.pass_time()


def join(side: Side, name: str) -> ClusterNode:
    """Starts a node and introduces it; until everybody knows it."""
    side.start(name)
    side.redis.meet(side.at(MASTERS[0]), node(side, MASTERS[0]).server, side.at(name).address)
    new = node(side, name).id
    until(side, lambda: all(node(side, n).knows(new) for n in PODS), "everybody knows the new node")
    until(side, lambda: len(node(side, name).table) == 7 or None, "it knows everybody")
    return node(side, name)


def test_a_cluster_as_every_node_sees_it(side: Side) -> None:
    ids = {name: node(side, name).id for name in PODS}
    assert len(set(ids.values())) == 6
    for name in PODS:
        view = node(side, name)
        assert (view.ok, view.slots_ok, view.open_slots) == (True, 16384, 0)
        assert {known.id for known in view.table} == set(ids.values())
        assert view.itself.role is (Role.MASTER if name in MASTERS else Role.REPLICA)
        assert view.server.role is view.itself.role
        for replica, master in REPLICA_OF.items():
            assert (known := view.knows(ids[replica]))
            assert (known.master, known.slots) == (ids[master], ())
    assert sum(last - first + 1 for n in MASTERS for first, last in node(side, n).itself.slots) == 16384
    assert len({node(side, n).itself.epoch for n in MASTERS}) == 3


def test_a_new_node_knows_nobody_and_sees_nothing_served(side: Side) -> None:
    side.start("new")
    view = node(side, "new")
    assert view.alone
    assert (view.ok, view.slots_ok, view.itself.role, view.itself.slots) == (False, 0, Role.MASTER, ())


def test_an_introduced_node_is_known_to_all_at_its_address(side: Side) -> None:
    new = join(side, "new")
    for name in PODS:
        known = node(side, name).knows(new.id)
        assert known is not None
        assert known.address == side.at("new").address
    assert new.itself.address == side.at("new").address


def test_an_introduction_shows_until_it_is_over(side: Side) -> None:
    nobody = Address(side.at(MASTERS[0]).address.host.rpartition(".")[0] + ".250")
    side.redis.meet(side.at(MASTERS[0]), node(side, MASTERS[0]).server, nobody)

    def shakes() -> bool:
        return any("handshake" in n.flags and n.address == nobody for n in node(side, MASTERS[0]).table)

    assert shakes()
    until(side, lambda: not shakes(), "it is given up")


def test_a_node_becomes_a_replica_and_has_the_data(side: Side) -> None:
    side.write(MASTERS[0])
    join(side, "new")
    master = node(side, MASTERS[0])
    side.redis.replicate(side.at("new"), node(side, "new").server, master.id)
    until(side, lambda: node(side, "new").server.link_up, "the link is up")
    view = node(side, "new")
    assert (view.itself.role, view.itself.master, view.server.keys) == (Role.REPLICA, master.id, master.server.keys)
    until(side, lambda: all(node(side, n).knows(view.id).master == master.id for n in PODS), "all know")  # type: ignore[union-attr]  # known to all


def test_who_greets_is_heard_by_all_that_know_it_and_by_all_that_do_not(side: Side) -> None:
    """CLUSTER MEET by the node that has something to say: as a newcomer, and once its role has changed."""

    def greet() -> None:
        for name in PODS:
            side.redis.meet(side.at("new"), node(side, "new").server, side.at(name).address)

    def heard() -> bool:
        itself = node(side, "new").itself
        known = [node(side, name).knows(itself.id) for name in PODS]
        return all(k is not None and (k.role, k.master) == (itself.role, itself.master) for k in known)

    def members(name: str) -> list[tuple[str, Address | None]]:
        return sorted((known.id, known.address) for known in node(side, name).table)

    side.start("new")
    greet()
    until(side, heard, "everybody knows the newcomer")
    until(side, lambda: len(node(side, "new").table) == 7, "it knows everybody")
    side.redis.replicate(side.at("new"), node(side, "new").server, node(side, MASTERS[0]).id)
    greet()
    until(side, heard, "everybody knows that it is a replica")
    expected = sorted((node(side, name).id, side.at(name).address) for name in (*PODS, "new"))
    until(side, lambda: all(members(name) == expected for name in (*PODS, "new")), "nobody is there twice")
    assert all(node(side, name).ok for name in PODS)


def test_a_master_with_slots_follows_nobody_and_nobody_follows_a_stranger(side: Side) -> None:
    with pytest.raises(Transient):
        side.redis.replicate(side.at(MASTERS[0]), node(side, MASTERS[0]).server, node(side, MASTERS[1]).id)
    join(side, "new")
    with pytest.raises(Transient):
        side.redis.replicate(side.at("new"), node(side, "new").server, "0" * 40)


def test_a_replica_takes_over_with_slots_and_a_newer_epoch(side: Side) -> None:
    before = node(side, "redis-a-0")
    side.redis.take_over(side.at("redis-b-0"), node(side, "redis-b-0").server)
    until(side, lambda: node(side, "redis-b-0").itself.role is Role.MASTER, "it is master")
    taken = node(side, "redis-b-0")
    assert taken.itself.slots == before.itself.slots
    assert taken.itself.epoch > max(n.epoch for n in before.table)
    until(side, lambda: node(side, "redis-a-0").itself.master == taken.id, "the old master follows")
    until(side, lambda: node(side, "redis-a-0").server.link_up, "and is in sync")
    assert node(side, "redis-a-0").itself.slots == ()
    until(side, lambda: all(node(side, n).ok for n in PODS), "all slots are served")


def test_a_master_does_not_take_over(side: Side) -> None:
    with pytest.raises(Transient):
        side.redis.take_over(side.at(MASTERS[0]), node(side, MASTERS[0]).server)


def test_a_node_that_all_forgot_stays_forgotten(side: Side) -> None:
    new = join(side, "new")
    for name in PODS:
        side.redis.forget(side.at(name), new.id)
    side.redis.leave_cluster(side.at("new"), node(side, "new").server)
    later(side, 5)
    assert not any(node(side, n).knows(new.id) for n in PODS)
    view = node(side, "new")
    assert view.alone
    assert view.id != new.id


def test_who_forgets_the_owner_of_slots_takes_them_for_unserved(side: Side) -> None:
    side.redis.forget(side.at("redis-a-0"), node(side, "redis-b-1").id)
    view = node(side, "redis-a-0")
    assert (view.ok, view.slots_ok) == (False, 16384 - 5461)
    assert node(side, "redis-a-2").ok


def test_to_forget_a_stranger_is_fine_but_not_ones_master(side: Side) -> None:
    side.redis.forget(side.at(MASTERS[0]), "0" * 40)
    with pytest.raises(Transient):
        side.redis.forget(side.at("redis-b-0"), node(side, "redis-a-0").id)


def test_a_master_with_keys_does_not_leave(side: Side) -> None:
    side.write(MASTERS[0])
    with pytest.raises(Transient):
        side.redis.leave_cluster(side.at(MASTERS[0]), node(side, MASTERS[0]).server)


def test_a_replica_that_leaves_drops_its_data(side: Side) -> None:
    side.write("redis-a-0")
    until(side, lambda: node(side, "redis-b-0").server.keys, "it has the key")
    side.redis.leave_cluster(side.at("redis-b-0"), node(side, "redis-b-0").server)
    view = node(side, "redis-b-0")
    assert (view.alone, view.itself.role, view.server.keys) == (True, Role.MASTER, 0)


def test_back_elsewhere_with_its_volume_it_is_the_same_node(side: Side) -> None:
    before = node(side, "redis-b-0")
    former = side.at("redis-b-0").address
    side.restart("redis-b-0")
    until(side, lambda: is_linked(side, "redis-b-0"), "it is in sync")
    after = node(side, "redis-b-0")
    assert (after.id, after.itself.role, after.itself.master) == (before.id, Role.REPLICA, before.itself.master)
    assert after.server.run_id != before.server.run_id

    def known_at(name: str) -> Address | None:
        known = node(side, name).knows(after.id)
        return known.address if known else None

    here = side.at("redis-b-0").address
    until(side, lambda: all(known_at(n) == here for n in PODS if n != "redis-b-0"), "the others know where it is")
    assert known_at("redis-b-0") in {None, former}, "but it does not itself"
    side.redis.meet(side.at(MASTERS[1]), node(side, MASTERS[1]).server, here)
    until(side, lambda: known_at("redis-b-0") == here, "until somebody meets it there")


def test_a_master_that_dies_fails_and_its_replica_takes_over_unless_it_is_held_back(side: Side) -> None:
    """C1: held back it is not elected; told to, it takes over all the same."""
    dead, slots = node(side, "redis-a-0").id, node(side, "redis-a-0").itself.slots
    for name in ("redis-b-0", "redis-a-1"):
        assert node(side, name).electable is True
        side.redis.set_electable(side.at(name), node(side, name).server, electable=False)
        assert node(side, name).electable is False
    side.redis.take_over(side.at("redis-a-1"), node(side, "redis-a-1").server)
    until(side, lambda: node(side, "redis-a-1").itself.role is Role.MASTER, "it takes over when it is told to")
    side.kill("redis-a-0")

    def has_failed() -> bool:
        known = node(side, "redis-b-0").knows(dead)
        return known is not None and known.trouble == "fail"

    until(side, has_failed, "the replica knows that its master has failed")
    later(side, 1.5)
    assert node(side, "redis-b-0").itself.role is Role.REPLICA
    side.redis.set_electable(side.at("redis-b-0"), node(side, "redis-b-0").server, electable=True)
    until(side, lambda: node(side, "redis-b-0").itself.slots == slots, "the replica has its slots")
    assert NODE_TIMEOUT_MS < GIVE_UP_SECONDS * 1000


def test_who_is_gone_is_silent(side: Side) -> None:
    gone = side.at("redis-b-0")
    side.kill("redis-b-0")
    assert isinstance(side.redis.cluster_node(gone), Silent)
    stale = Server(gone.address, (7,), "redis", "run", Role.REPLICA, 0)
    with pytest.raises(Transient):
        side.redis.take_over(gone, stale)


@pytest.mark.parametrize("what", [{"run_id": "another"}, {"role": Role.MASTER}])
def test_writes_go_to_the_node_that_was_looked_at_or_to_none(side: Side, what: dict[str, str]) -> None:
    stale = replace(node(side, "redis-b-0").server, **what)  # type: ignore[arg-type]  # by name
    with pytest.raises(Conflict):
        side.redis.take_over(side.at("redis-b-0"), stale)
    with pytest.raises(Conflict):
        side.redis.leave_cluster(side.at("redis-b-0"), stale)


def test_a_server_without_cluster_mode_says_so() -> None:
    with processes() as single:
        single.start_server(single.servers[0])
        waiting.until(lambda: not isinstance(single.client.server(single.servers[0]), Silent), "the server answers")
        with pytest.raises(Permanent, match="is no node of a Redis Cluster"):
            single.client.cluster_node(single.servers[0])
