"""Settings with which a server is not as a roll would take it for by default, on real servers and sentinels."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from eks_rolling.observed.redis import Address, ClusterNode, KnownSentinel
from eks_rolling.redis.sentinel import NOWHERE
from tests.contract.redis_servers import NAME, Real, at, group, sentinel, sentinels, server, until

pytestmark = pytest.mark.lab


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    side = Real(tmp_path)
    yield side
    side.end()


def test_a_replica_that_is_not_announced_is_listed_to_nobody_and_says_so(real: Real) -> None:
    """S1: it is in sync all the same; nothing may wait until it is listed."""
    master = group(real, replicas=0)[0]
    shown, hidden = real.add_server(master), real.add_server(master, "replica-announced no")
    watcher = real.add_sentinel(master, quorum=1)
    until(real, lambda: [r.address for r in sentinel(real, watcher).replicas if r.master] == [shown], "one is listed")
    until(real, lambda: server(real, hidden).link_up, "it is in sync")
    assert (server(real, shown).hidden, server(real, hidden).hidden) == (False, True)
    until(real, lambda: sentinel(real, watcher).known_replicas == 2, "both are counted")


def test_another_port_that_a_replica_announces_is_the_one_that_sentinels_list(real: Real) -> None:
    """S2."""
    master = group(real, replicas=0)[0]
    replica = real.add_server(master, "replica-announce-port 31000")
    watcher = real.add_sentinel(master, quorum=1)
    listed = Address(replica.host, 31000)
    until(real, lambda: [r.address for r in sentinel(real, watcher).replicas] == [listed], "it is listed")
    assert server(real, replica).announced_port == 31000


def test_a_closed_master_whose_replicas_may_be_written_to_takes_writes(real: Real) -> None:
    """S1: why a switch away from one is refused."""
    strict, loose = real.add_server(), real.add_server(None, "replica-read-only no")
    for master in (strict, loose):
        real.redis.follow(at(master), server(real, master), NOWHERE)
    assert real.cli(strict, "SET", "key", "1").startswith("READONLY")
    assert real.cli(loose, "SET", "key", "1") == "OK"
    assert (server(real, strict).read_only, server(real, loose).read_only) == (True, False)


def test_a_snapshot_that_could_not_be_written_is_told(real: Real, tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    master = real.add_server(None, f"dir {folder}")
    assert not server(real, master).save_failed
    folder.rmdir()
    real.cli(master, "BGSAVE")
    until(real, lambda: server(real, master).save_failed, "it says that it failed")


def test_a_sentinel_that_nobody_declared_answers_and_comes_back_after_every_reset(real: Real) -> None:
    """S1, S2: why none is reset for one."""
    addresses = group(real, replicas=1)
    watchers = sentinels(real, addresses[0], 1, count=3)

    def third() -> KnownSentinel | None:
        known = sentinel(real, watchers[0]).sentinels
        return next((s for s in known if s.address == watchers[2] and s.alive and s.silent_for < 3), None)

    until(real, third, "it answers")
    real.redis.reset(at(watchers[0]), NAME)
    until(real, third, "it is listed again")
    real.kill(watchers[2])
    until(real, lambda: not third(), "it is known not to answer")


def test_a_sentinel_of_several_masters_names_the_others_and_keeps_what_is_gone_of_them(real: Real) -> None:
    """S2: a reset is for one master alone."""
    one, other = real.add_server(), real.add_server()
    more = (f"sentinel monitor other {other.host} {other.port} 2",)
    watchers = [real.add_sentinel(one, *more) for _ in range(2)]

    def peers(name: str) -> int:
        return len(sentinel(real, watchers[0], name).sentinels)

    until(real, lambda: peers(NAME) == peers("other") == 1, "they know each other")
    assert sentinel(real, watchers[0]).beside == ("other",)
    assert sentinel(real, watchers[0], "other").beside == (NAME,)
    real.kill(watchers[1])
    real.redis.reset(at(watchers[0]), NAME)
    assert (peers(NAME), peers("other")) == (0, 1)


def node(side: Real, address: Address) -> ClusterNode:
    seen = side.redis.cluster_node(at(address))
    assert isinstance(seen, ClusterNode), seen
    return seen


@pytest.mark.parametrize("more", [("cluster-port 27000",), ("cluster-port 27000", "cluster-announce-port 16379")])
def test_nodes_that_hear_each_other_on_a_port_of_their_own_are_introduced_there(
    real: Real, more: tuple[str, ...]
) -> None:
    """C1: a stand-in is configured as the pods are; without the port an introduction never ends."""
    settings = ("cluster-enabled yes", "cluster-node-timeout 2000", *more)
    first, second = (real.add_server(None, *settings, f"cluster-config-file nodes-{n}.conf") for n in (1, 2))
    port = node(real, second).bus_port
    assert port == 27000
    real.redis.meet(at(first), node(real, first).server, second, port)

    def know(one: Address, other: Address) -> bool:
        known = node(real, one).knows(node(real, other).id)
        return known is not None and known.connected and not known.trouble

    until(real, partial(know, first, second), "they know each other")
    until(real, partial(know, second, first), "they know each other")
