"""Waits before and within a switch, on a clock that only sleeping moves."""

from dataclasses import dataclass
from typing import Any, cast

from eks_rolling.clients.protocols import Clients
from eks_rolling.migration.polling import CAUGHT_UP_SECONDS, asked_after, caught_up
from eks_rolling.observed.redis import Address, Endpoint, Login, Role, Server
from eks_rolling.redis.actions import NEAR_BYTES
from eks_rolling.settings import Settings

MASTER, REPLICA = (Endpoint(Address(host), Login("shop")) for host in ("master", "replica"))


@dataclass
class Servers:
    """A master that takes a byte every 10 ms; a replica that gets nothing before `streams_at`."""

    streams_at: float
    now: float = 0.0

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        written = 1000 + round(self.now * 100)
        if endpoint is MASTER:
            return Role.MASTER, written
        return Role.REPLICA, written if self.now >= self.streams_at else 900

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def clients_of(servers: Servers) -> Clients:
    nobody = cast(Any, None)
    settings = Settings(cluster="demo")
    return Clients(nobody, nobody, cast(Any, servers), settings, lambda: servers.now, servers.sleep, nobody)


def waited_for(servers: Servers) -> bool:
    return caught_up(REPLICA, MASTER, clients_of(servers))


def test_a_replica_is_not_behind_by_what_its_master_took_between_two_looks() -> None:
    """S2: servers are looked at one after the other, and a busy one takes megabytes meanwhile."""
    servers = Servers(streams_at=0.0)
    looked_at = Server(REPLICA.address, (7, 0, 15), "redis", "run", Role.REPLICA, servers.offset(REPLICA)[1])
    servers.sleep(60_000)
    reached = servers.offset(MASTER)[1]
    assert reached - looked_at.offset > NEAR_BYTES
    assert asked_after(looked_at, REPLICA, reached, clients_of(servers)).offset == reached
    late = Servers(streams_at=1e9, now=servers.now)
    assert asked_after(looked_at, REPLICA, reached, clients_of(late)).offset == 900, "one that is behind stays so"
    assert asked_after(looked_at, REPLICA, looked_at.offset + 1, cast(Any, None)) is looked_at


def test_a_replica_that_gets_what_its_master_writes_has_caught_up_at_once() -> None:
    servers = Servers(streams_at=0.0)
    assert waited_for(servers)
    assert servers.now == 0.0


def test_a_stream_that_begins_a_second_later_is_waited_for() -> None:
    servers = Servers(streams_at=1.0)
    assert waited_for(servers)
    assert 1.0 <= servers.now < 1.1


def test_a_stream_that_does_not_begin_is_given_up() -> None:
    servers = Servers(streams_at=60.0)
    assert not waited_for(servers)
    assert CAUGHT_UP_SECONDS <= servers.now < CAUGHT_UP_SECONDS + 0.1
