"""What a group's migration needs around real servers: pretended pods, clients that write, and the workflow's loop.

Deleting a pod ends its process; another one starts at another address, configured as in `lab/clusters/sentinel`.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient

from eks_rolling.clients.protocols import Clients, Eviction, EvictionStatus
from eks_rolling.errors import Permanent, RollError
from eks_rolling.migration.next_action import look
from eks_rolling.observed.kubernetes import Owner, Pod, Selector, Workload
from eks_rolling.observed.redis import Address, Endpoint
from eks_rolling.redis.actions import RedisHold, Settled, Stop
from eks_rolling.redis.groups import AUTH, GROUP, MASTER_NAME, PART, TLS, Part, declared
from eks_rolling.settings import Settings
from tests.contract.redis_sides import NAME, PASSWORD, SENTINEL_PASSWORD, Processes
from tests.redis_world import DOWN_AFTER_SECONDS
from tests.waiting import until
from tests.world import Killed

OLD, NEW = "old", "new"

AGAIN_SECONDS = 0.3
"""So long after a function has waited, has failed or was killed the workflow comes again: sooner than AWS would."""

SETS = {"redis-master": Part.MASTER, "redis-replica": Part.REPLICA, "redis-sentinel": Part.SENTINEL}
SIZES = {Part.MASTER: 1, Part.REPLICA: 2, Part.SENTINEL: 3}


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
                desired=SIZES[part],
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

    def annotate_pod(self, pod: Pod, annotations: Mapping[str, str | None]) -> Pod:
        current = self.pods[pod.name]
        assert current.uid == pod.uid
        merged = {k: v for k, v in (dict(current.annotations) | dict(annotations)).items() if v is not None}
        self.pods[pod.name] = replace(current, annotations=merged)
        return self.pods[pod.name]

    def delete_pod(self, pod: Pod) -> None:
        """The master pod comes back a moment later: elsewhere, empty, and a master by its configuration."""
        if self.pods[pod.name].uid != pod.uid:
            return
        self._side.stop(self._at(pod.address, 6379))
        fresh = self._side.host(99)
        self._side.start_server(self._at(fresh, 6379))
        self.pods[pod.name] = self._pod(pod.name, fresh, NEW)

    def evict(self, _pod: Pod) -> Eviction:
        return Eviction(EvictionStatus.REFUSED, "no other pod has to move")

    def crash(self, name: str) -> None:
        """The pod's process dies."""
        self._side.kill(self.endpoint(name))

    def come_back(self, name: str) -> None:
        """Its container starts again, as it is configured: with nothing, at the same address."""
        endpoint = self.endpoint(name)
        if name.startswith("redis-sentinel"):
            self._side.start_sentinel(endpoint, self.endpoint("redis-master-0").address)
        elif name.startswith("redis-replica"):
            master = self.endpoint("redis-master-0").address
            self._side.start_server(endpoint, f"replicaof {master.host} {master.port}")
        else:
            self._side.start_server(endpoint)

    def lose_node(self, name: str) -> None:
        """The pod's node dies: process and pod are gone at once."""
        self.crash(name)
        self._lost = self.pods.pop(name)

    def come_back_elsewhere(self, host: str) -> None:
        """The pod whose node died, on another one."""
        name = self._lost.name
        self.pods[name] = self._pod(name, host, NEW)
        self.come_back(name)

    def endpoint(self, name: str) -> Endpoint:
        port = 26379 if name.startswith("redis-sentinel") else 6379
        return self._at(self.pods[name].address, port)

    def name_of_master(self) -> str:
        """Of the first server that says it is a master with replicas; "" if none does."""
        for name in ("redis-master-0", "redis-replica-0", "redis-replica-1"):
            with contextlib.suppress(KeyError, redis.RedisError, OSError):
                address = self.pods[name].address
                options = self._side.client_options
                with redis.Redis(host=address, password=PASSWORD, socket_timeout=1, **options) as client:
                    told = client.info("replication")
                if told["role"] == "master" and told["connected_slaves"]:
                    return name
        return ""

    def _at(self, host: str, port: int) -> Endpoint:
        return Endpoint(Address(host, port), self._side.login)


class Acknowledged(Protocol):
    """A client that remembers what was acknowledged, and when (monotonic seconds)."""

    acked: list[int]
    at: list[float]


@dataclass
class Writer:
    """What a client had acknowledged."""

    acked: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)


def unreplicated(writer: Acknowledged, deaths: Sequence[float], election_seconds: float) -> set[int]:
    """What a master's death may cost this client, which has one write under way at a time.

    A server answers before it knows that a replica has heard: replication is asynchronous. What it had handed to its
    kernel arrives, dead or not; so at most the last write that each client had acknowledged by the dead master is
    lost, and nothing before it. By `election_seconds` after the death nobody else has taken over, so an
    acknowledgement until then was the dead master's.
    """
    allowed: set[int] = set()
    for death in deaths:
        until_then = [
            value for value, at in zip(writer.acked, writer.at, strict=True) if at <= death + election_seconds
        ]
        allowed |= set(until_then[-1:])
    return allowed


@contextmanager
def writers(side: Processes, count: int = 3) -> Iterator[list[Writer]]:
    """Clients that ask the sentinels for the master, write, and ask again when that fails."""
    stop = threading.Event()
    found = [Writer() for _ in range(count)]

    def write(number: int, writer: Writer) -> None:
        sentinels = [(s.address.host, s.address.port) for s in side.sentinels]
        options = {"socket_timeout": 1.0, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
        options |= side.client_options
        asking = options | ({"password": SENTINEL_PASSWORD} if side.secured else {})
        manager = SentinelClient(sentinels, sentinel_kwargs=asking)
        with contextlib.ExitStack() as closing:
            for sentinel in manager.sentinels:
                closing.callback(sentinel.close)
            write_to(closing.enter_context(manager.master_for(NAME, password=PASSWORD, **options)), number, writer)

    def write_to(master: redis.Redis, number: int, writer: Writer) -> None:
        for value in itertools.count(1):
            if stop.is_set():
                return
            try:
                master.rpush(f"writer-{number}", value)
            except redis.RedisError:
                time.sleep(0.01)
                continue
            writer.at.append(time.monotonic())
            writer.acked.append(value)
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


class Killing:
    """Passes calls on, and has the caller die after each command that changes something, once."""

    def __init__(self, inner: Any, changing: set[str], died: list[str]) -> None:
        self._inner, self._changing, self._died = inner, changing, died

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name not in self._changing:
            return call

        def killed_after(*arguments: Any, **named: Any) -> Any:
            answer = call(*arguments, **named)
            what = f"{name} {arguments[0]}"
            if what not in self._died:
                self._died.append(what)
                raise Killed(what)
            return answer

        return killed_after


@dataclass(frozen=True)
class Ended:
    """How a migration ended: by itself, or with a question to a person."""

    done: list[str]
    held: list[str]
    """What it waited for on the way, each reason once."""
    refused: list[str] = field(default_factory=list)
    """Errors that end a roll: a person is asked, and whoever comes again goes on."""
    stopped: str = ""


def migrate(pods: Any, client: Any, within_seconds: float) -> Ended:
    """Look, decide, act, as the workflow does, until the group is normal and nothing of it is on the old node.

    Fails as an assertion when that does not come.
    """
    clients = Clients(pods, cast(Any, None), client, Settings(cluster="demo"), time.time, time.sleep, cast(Any, None))
    ((group,), _) = declared(pods.stateful_sets("default"))
    ended = Ended([], [])
    deadline, since = time.monotonic() + within_seconds, time.monotonic()
    while time.monotonic() < deadline:
        try:
            due = look(group, OLD, clients, time.monotonic() - since)
            action = due.action
            if isinstance(action, Stop):
                return replace(ended, stopped=action.reason)
            if isinstance(action, Settled):
                return ended
            if isinstance(action, RedisHold):
                if action.reason not in ended.held:
                    ended.held.append(action.reason)
                time.sleep(AGAIN_SECONDS)
                continue
            ended.done.append(due.perform().said)
            since = time.monotonic()
        except Killed:
            time.sleep(AGAIN_SECONDS)
            since = time.monotonic()
        except RollError as error:
            # The workflow comes again; what it found is among what it waited for.
            ended.held.append(str(error))
            if isinstance(error, Permanent):
                ended.refused.append(str(error))
            time.sleep(AGAIN_SECONDS)
    raise AssertionError(f"not within {within_seconds} s; done: {ended.done}; waited for: {ended.held}")


def lost(side: Processes, host: str, written: list[Writer], deaths: Sequence[float] = ()) -> int:
    """Acknowledged writes that the server does not hold, but for what the deaths of masters may cost."""
    with redis.Redis(host=host, password=PASSWORD, decode_responses=True, **side.client_options) as server:
        held = [{int(v) for v in server.lrange(f"writer-{n}", 0, -1)} for n in range(len(written))]
    missing = [set(w.acked) - h for w, h in zip(written, held, strict=True)]
    allowed = [unreplicated(w, deaths, DOWN_AFTER_SECONDS) for w in written]
    print("lost:", missing, "of masters that died:", allowed)
    return sum(len(m - a) for m, a in zip(missing, allowed, strict=True))


def wait_until_all_write_on(written: Sequence[Acknowledged], within_seconds: float = 20) -> None:
    """Every client has another write acknowledged: nobody is paused, or holds on to a server that is none of theirs."""
    before = [len(w.acked) for w in written]
    until(
        lambda: all(len(w.acked) > n for w, n in zip(written, before, strict=True)),
        "every client writes on",
        within_seconds=within_seconds,
    )
