"""A master pod's whole migration on real servers, by the decisions and effects that are deployed, and writers.

Only pods are pretended. The caller dies after every single command once, as a function does that is killed, and comes
again a moment later.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from eks_rolling.observed.redis import Sentinel
from tests.contract.redis_pods import NEW, Killing, Pods, lost, migrate, wait_until_all_write_on, writers
from tests.contract.redis_sides import NAME, Processes, processes, wait_until_whole

pytestmark = [pytest.mark.xdist_group("redis-migration"), pytest.mark.timeout(240)]


SERVERS = ("redis-master-0", "redis-replica-0", "redis-replica-1")

REDIS_WRITES = {
    "follow", "promote", "pause_writes", "unpause", "disconnect_clients", "announce", "reset",
}  # fmt: skip
KUBERNETES_WRITES = {"annotate_pod", "delete_pod"}


@contextmanager
def group(*, secured: bool) -> Iterator[Processes]:
    with processes(secured=secured) as found:
        found.start()
        wait_until_whole(found)
        yield found


@pytest.fixture
def side() -> Iterator[Processes]:
    with group(secured=False) as found:
        yield found


@pytest.fixture
def secured() -> Iterator[Processes]:
    """TLS with client certificates, an ACL user of the roll's own, sentinels with a password."""
    with group(secured=True) as found:
        yield found


def test_a_secured_master_pod_moves_with_two_failovers_and_no_acknowledged_write_is_lost(secured: Processes) -> None:
    """S1, S2."""
    side = secured
    pods = Pods(side)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, side.client, 120)
        wait_until_all_write_on(written)
    moved = pods.pods["redis-master-0"]
    assert moved.node == NEW
    assert lost(side, moved.address, written) == 0
    assert min(len(w.acked) for w in written) > 100
    counted = Counter("becomes master in place of" in action for action in ended.done)
    assert (counted[True], ended.stopped) == (2, ""), ended


def test_a_group_that_announces_a_service_of_each_pod_moves_under_these_addresses() -> None:
    """S1, S2: sentinels know no pod's own address, which changes; a Service's stays."""
    with processes() as side:
        pods = Pods(side)
        addresses = {pods.pods[n].address: side.host(n_th) for n_th, n in enumerate(SERVERS, 101)}
        side.services = addresses | {side.host(99): side.host(101)}
        side.start()
        wait_until_whole(side)
        with writers(side) as written:
            wait_until_all_write_on(written)
            ended = migrate(pods, side.client, 120)
            wait_until_all_write_on(written)
        moved = pods.pods["redis-master-0"]
        assert (moved.node, moved.address, ended.stopped) == (NEW, side.host(99), "")
        assert lost(side, moved.address, written) == 0
        known = [side.redis.sentinel(s, NAME) for s in side.sentinels]
        assert {str(v.current) for v in known if isinstance(v, Sentinel)} == {f"{side.host(101)}:6379"}
        assert {r.address.host for v in known if isinstance(v, Sentinel) for r in v.replicas} == {
            side.host(102),
            side.host(103),
        }


def test_killed_after_every_command_once_it_ends_the_same(side: Processes) -> None:
    """R3, S1: what was half done is seen, and finished; nobody stays paused."""
    pods, died = Pods(side), cast(list[str], [])
    kubernetes, client = Killing(pods, KUBERNETES_WRITES, died), Killing(side.client, REDIS_WRITES, died)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(kubernetes, client, 200)
        wait_until_all_write_on(written)
    moved = pods.pods["redis-master-0"]
    assert (moved.node, ended.stopped) == (NEW, "")
    assert not any(pod.annotations for pod in pods.pods.values())
    assert lost(side, moved.address, written) == 0
    assert {what.split()[0] for what in died} >= REDIS_WRITES | KUBERNETES_WRITES
