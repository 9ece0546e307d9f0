"""A hand-over that does not come to its end: which commands are sent, in which order [S1]."""

import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Transient
from eks_rolling.migration.handover import take_back
from eks_rolling.observed.redis import Address, Endpoint, Login, Role, Server
from eks_rolling.redis.groups import Part
from eks_rolling.redis.sentinel import RedisPod
from eks_rolling.settings import Settings


def member(name: str, role: Role) -> RedisPod:
    endpoint = Endpoint(Address(name), Login("shop"))
    return RedisPod(name, Part.REPLICA, None, endpoint, Server(endpoint.address, (7, 0, 15), "redis", name, role, 12))


@dataclass
class Servers:
    """Answers `old` and `new`'s roles in turn, and records what is written."""

    new_says: list[Role | None]
    written: list[str] = field(default_factory=list)

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        if endpoint.address.host == "old":
            return Role.REPLICA, 12
        role = self.new_says.pop(0)
        if role is None:
            raise Transient("new does not answer")
        return role, 12

    def pause_writes(self, endpoint: Endpoint, expected: Server, _milliseconds: int) -> None:
        self.written.append(f"pause {endpoint.address.host} as {expected.role.name}")

    def follow(self, endpoint: Endpoint, expected: Server, master: Address) -> None:
        self.written.append(f"{endpoint.address.host} as {expected.role.name} follows {master.host}")

    def __getattr__(self, name: str) -> Any:
        return lambda endpoint: self.written.append(f"{name} {endpoint.address.host}")


def taken_back(servers: Servers) -> bool:
    clients = Clients(
        cast(Any, None),
        cast(Any, None),
        cast(Any, servers),
        Settings(cluster="demo"),
        time.time,
        time.sleep,
        cast(Any, None),
    )
    return take_back(member("old", Role.MASTER), member("new", Role.REPLICA), (), clients)


UNDONE = ["pause old as REPLICA", "disconnect_clients new", "abort_hand_over old"]


def test_nobody_writes_to_the_old_master_before_the_new_one_can_not_take_over_any_more() -> None:
    servers = Servers([Role.REPLICA, Role.REPLICA])
    assert taken_back(servers)
    assert servers.written == [*UNDONE, "unpause old"]


def test_a_new_master_is_left_one() -> None:
    servers = Servers([Role.MASTER])
    assert not taken_back(servers)
    assert servers.written == []


def test_a_master_that_was_made_at_the_last_moment_is_followed() -> None:
    servers = Servers([Role.REPLICA, Role.MASTER])
    assert not taken_back(servers)
    assert servers.written == [*UNDONE, "old as MASTER follows new"]


def test_nothing_is_undone_while_the_new_one_does_not_answer() -> None:
    servers = Servers([None])
    with pytest.raises(Transient):
        taken_back(servers)
    assert servers.written == []
