"""What people are told of a full synchronization."""

from dataclasses import replace

import pytest

from eks_rolling.observed.redis import Address, Role, Server
from eks_rolling.redis.actions import RedisStep
from eks_rolling.redis.sync_progress import LONGEST_LOOK_SECONDS, held_up, synchronizing

REPLICA = Server(Address("10.0.0.1", 6379), (7, 0, 15), "redis", "a", Role.REPLICA, 0, syncing=True)
MASTER = replace(REPLICA, role=Role.MASTER, used_bytes=200_000_000)


@pytest.mark.parametrize(
    ("left", "read", "waited", "sentence"),
    [
        (None, 0, 0.0, "r synchronizes"),
        (5_000, 0, 3.0, "r synchronizes, 5,000 bytes left"),
        (150_000_000, 50_000_000, 2.0, "r synchronizes, 150,000,000 bytes left, 25.0 MB/s"),
        (None, 50_000_000, 2.0, "r synchronizes, about 150,000,000 bytes left, 25.0 MB/s"),
        (150_000_000, 50_000_000, 0.0001, "r synchronizes, 150,000,000 bytes left"),
        (None, 250_000_000, 10.0, "r synchronizes, about 0 bytes left, 25.0 MB/s"),
    ],
)
def test_bytes_left_and_rate_are_told(left: int | None, read: int, waited: float, sentence: str) -> None:
    server = replace(REPLICA, sync_left=left, sync_read=read)
    assert synchronizing("r", server, MASTER, waited, None).reason == sentence


def test_the_next_look_comes_when_it_should_be_done() -> None:
    server = replace(REPLICA, sync_left=150_000_000, sync_read=50_000_000)
    hold = synchronizing("r", server, MASTER, 2.0, RedisStep.ATTACH_MASTER)
    assert hold.seconds == pytest.approx(6)
    assert (hold.bytes_left, hold.bytes_per_second) == (150_000_000, 25_000_000)
    slow = replace(server, sync_left=10**12)
    assert synchronizing("r", slow, MASTER, 2.0, RedisStep.ATTACH_MASTER).seconds == LONGEST_LOOK_SECONDS


def test_without_a_master_that_is_seen_nothing_is_guessed() -> None:
    assert synchronizing("r", replace(REPLICA, sync_read=7), None, 0.0, None).reason == "r synchronizes"


def test_a_master_that_closes_connections_over_its_buffer_limit_is_named() -> None:
    """Else a synchronization that begins again and again looks like a slow one."""
    cause = "; its master has closed connections over client-output-buffer-limit"
    cutting = replace(MASTER, over_limit=3)
    hold = synchronizing("r", replace(REPLICA, sync_left=7), cutting, 0.0, None)
    assert hold.reason.startswith(f"r synchronizes, 7 bytes left{cause}")
    assert "raise the limit for replicas" in hold.reason
    more = synchronizing("r", replace(REPLICA, sync_left=7), replace(MASTER, over_limit=9), 0.0, None)
    assert more.reason == hold.reason, "another connection closed is no progress"
    assert (held_up(MASTER), held_up(None)) == ("", "")


def test_a_master_that_cannot_take_a_snapshot_is_named() -> None:
    """A disk that is full, a fork that has no memory: then no synchronization ever begins."""
    hold = synchronizing("r", REPLICA, replace(MASTER, save_failed=True), 0.0, None)
    assert "its master could not take its last snapshot (rdb_last_bgsave_status)" in hold.reason
