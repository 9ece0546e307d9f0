"""A master pod's whole migration on real servers, by the decisions and effects that are deployed, and writers.

Only pods are pretended: deleting one ends its process, and another one starts at another address. The caller dies after
every single command once, as a function does that is killed, and comes again a second later.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient

from lambdas.clients import Clients, Eviction, EvictionStatus
from lambdas.migration import observe, perform
from lambdas.observed import Owner, Pod, Selector, Workload
from lambdas.redis_groups import AUTH, GROUP, MASTER_NAME, PART, TLS, Part, declared
from lambdas.redis_observed import Address, Endpoint
from lambdas.sentinel import Hold, Settled, Stop, decide
from lambdas.settings import Settings
from tests.contract.redis_sides import NAME, PASSWORD, SENTINEL_PASSWORD, Processes, processes, wait_until_whole
from tests.world import Killed

pytestmark = [pytest.mark.xdist_group("redis-migration"), pytest.mark.timeout(240)]

OLD, NEW = "old", "new"
SETS = {"redis-master": Part.MASTER, "redis-replica": Part.REPLICA, "redis-sentinel": Part.SENTINEL}


class Pods:
    """The part of Kubernetes that a migration needs, over processes."""

    def __init__(self, side: Processes) -> None:
        self._side = side
        self._serial = 0
        names = ["redis-master-0", "redis-replica-0", "redis-replica-1", *(f"redis-sentinel-{n}" for n in range(3))]
        self.pods = {
            name: self._pod(name, endpoint.address.host, OLD if name == "redis-master-0" else NEW)
            for name, endpoint in zip(names, (*side.servers, *side.sentinels), strict=True)
        }

    def _pod(self, name: str, address: str, node: str) -> Pod:
        self._serial += 1
        owner = Owner("StatefulSet", "default", name.rpartition("-")[0])
        version = str(self._serial)
        return Pod("default", name, f"uid-{version}", node, owner, address=address, resource_version=version)

    def workload(self, owner: Owner) -> Workload:
        return next(w for w in self.stateful_sets("default") if w.owner == owner)

    def stateful_sets(self, _namespace: str) -> list[Workload]:
        return [
            Workload(
                Owner("StatefulSet", "default", name),
                desired=sum(p.owner is not None and p.owner.name == name for p in self.pods.values()),
                selector=Selector(),
                annotations={
                    GROUP: "cache",
                    PART: str(part),
                    MASTER_NAME: NAME,
                    AUTH: self._side.login.auth,
                    TLS: self._side.login.tls,
                },
            )
            for name, part in SETS.items()
        ]

    def pods_of(self, workload: Workload) -> list[Pod]:
        return [p for p in self.pods.values() if p.owner == workload.owner]

    def node(self, _name: str) -> None:
        return None

    def annotate_pod(self, pod: Pod, annotations: Mapping[str, str | None]) -> None:
        current = self.pods[pod.name]
        assert current.uid == pod.uid
        merged = {k: v for k, v in (dict(current.annotations) | dict(annotations)).items() if v is not None}
        self.pods[pod.name] = replace(current, annotations=merged)

    def delete_pod(self, pod: Pod) -> None:
        """The master pod comes back a moment later: elsewhere, empty, and a master by its configuration."""
        if self.pods[pod.name].uid != pod.uid:
            return
        self._side.stop(self._at(pod.address, 6379))
        fresh = pod.address.rpartition(".")[0] + ".99"
        self._side.start_server(self._at(fresh, 6379))
        self.pods[pod.name] = self._pod(pod.name, fresh, NEW)

    def evict(self, _pod: Pod) -> Eviction:
        return Eviction(EvictionStatus.REFUSED, "no other pod has to move")

    def _at(self, host: str, port: int) -> Endpoint:
        return Endpoint(Address(host, port), self._side.login)


class Killing:
    """Passes calls on, and has the caller die after each command that changes something, once."""

    def __init__(self, inner: Any, changing: set[str], died: list[str]) -> None:
        self._inner, self._changing, self._died = inner, changing, died

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name not in self._changing:
            return call

        def killed_after(*arguments: Any) -> Any:
            answer = call(*arguments)
            what = f"{name} {arguments[0]}"
            if what not in self._died:
                self._died.append(what)
                raise Killed(what)
            return answer

        return killed_after


REDIS_WRITES = {
    "follow", "set_priority", "pause_writes", "unpause", "hand_over", "disconnect_clients", "fail_over", "reset",
}  # fmt: skip
KUBERNETES_WRITES = {"annotate_pod", "delete_pod"}


@dataclass
class Writer:
    """What a client had acknowledged, and when."""

    acked: list[int]
    at: list[float]


@contextmanager
def writers(side: Processes, count: int = 3) -> Iterator[list[Writer]]:
    """Clients that ask the sentinels for the master, write, and ask again when that fails."""
    stop = threading.Event()
    found = [Writer([], []) for _ in range(count)]

    def write(number: int, writer: Writer) -> None:
        sentinels = [(s.address.host, s.address.port) for s in side.sentinels]
        options = {"socket_timeout": 1.0, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
        options |= side.client_options
        asking = options | ({"password": SENTINEL_PASSWORD} if side.secured else {})
        manager = SentinelClient(sentinels, sentinel_kwargs=asking)
        master = manager.master_for(NAME, password=PASSWORD, **options)
        for value in itertools.count(1):
            if stop.is_set():
                return
            try:
                master.rpush(f"writer-{number}", value)
            except redis.RedisError:
                time.sleep(0.01)
                continue
            writer.acked.append(value)
            writer.at.append(time.monotonic())
            time.sleep(0.005)

    threads = [threading.Thread(target=write, args=each, daemon=True) for each in enumerate(found)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def migrate(pods: Any, client: Any, within_seconds: float) -> list[str]:
    """Look, decide, act, as the workflow does, until the group is normal and its master pod on the new node."""
    clients = Clients(pods, cast(Any, None), client, Settings(cluster="demo"), time.time, time.sleep)
    ((group,), _) = declared(pods.stateful_sets("default"))
    done: list[str] = []
    deadline, since = time.monotonic() + within_seconds, time.monotonic()
    while time.monotonic() < deadline:
        try:
            seen = observe(group, OLD, clients, time.monotonic() - since)
            action = decide(seen)
            assert not isinstance(action, Stop), action
            if isinstance(action, Settled):
                return done
            if isinstance(action, Hold):
                time.sleep(0.3)
                continue
            done.append(perform(action, seen, clients))
            since = time.monotonic()
        except Killed:
            time.sleep(1)
            since = time.monotonic()
    raise AssertionError(f"not within {within_seconds} s; done: {done}")


def lost(side: Processes, host: str, written: list[Writer]) -> int:
    """Acknowledged writes that the server does not hold."""
    server = redis.Redis(host=host, password=PASSWORD, decode_responses=True, **side.client_options)
    held = [{int(v) for v in server.lrange(f"writer-{n}", 0, -1)} for n in range(len(written))]
    return sum(len(set(w.acked) - h) for w, h in zip(written, held, strict=True))


def longest_stall(written: list[Writer]) -> float:
    return max(later - earlier for w in written for earlier, later in zip(w.at, w.at[1:], strict=False))


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
        time.sleep(1)
        done = migrate(pods, side.client, 120)
        time.sleep(1)
    moved = pods.pods["redis-master-0"]
    assert moved.node == NEW
    assert lost(side, moved.address, written) == 0
    assert min(len(w.acked) for w in written) > 100
    counted = Counter("becomes master in place of" in action for action in done)
    assert counted[True] == 2, done
    assert longest_stall(written) < 10


def test_killed_after_every_command_once_it_ends_the_same(side: Processes) -> None:
    """R3, S1: what was half done is seen, and finished; nothing stays paused for longer than its own timeout."""
    pods, died = Pods(side), cast(list[str], [])
    kubernetes, client = Killing(pods, KUBERNETES_WRITES, died), Killing(side.client, REDIS_WRITES, died)
    with writers(side) as written:
        time.sleep(1)
        migrate(kubernetes, client, 200)
        time.sleep(1)
    moved = pods.pods["redis-master-0"]
    assert (moved.node, moved.annotations) == (NEW, {})
    assert lost(side, moved.address, written) == 0
    assert {what.split()[0] for what in died} >= (REDIS_WRITES | KUBERNETES_WRITES) - {"unpause"}
    assert longest_stall(written) < 10
