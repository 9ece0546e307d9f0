"""Redis servers, sentinels and a writer in memory, behind the protocol that steps see.

What it knows of Redis and Sentinel was measured on real ones; `tests/contract/test_redis_client.py` holds both to the
same cases. Time stands still unless `tick` is called: sentinels ask for INFO every 10 s (1 s in a failover), say hello
every 2 s, and a failover has its stages. The writer asks a sentinel for the master, writes, remembers what was
acknowledged, and asks again when it is told to go away: in the end all of that must be on the master.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from eks_rolling.errors import Conflict, Transient
from eks_rolling.observed.redis import (
    Address,
    ClusterNode,
    Endpoint,
    Follower,
    KnownReplica,
    KnownSentinel,
    Role,
    Sentinel,
    Server,
    Silent,
    Stranger,
)
from tests.cluster_world import ClusterWorld
from tests.writes import NONE, Writes

INFO_SECONDS = 10.0
INFO_IN_FAILOVER_SECONDS = 1.0
HELLO_SECONDS = 2.0
DEMOTION_SECONDS = 8.0
"""How long sentinels let a server that is master, and should not be, go on: four hellos (sentinel.c)."""

SYNC_SECONDS = 1.5
RESOLVED_LATE_SECONDS = 10.0
"""Until the connection to an address that is gone is given up, and the name asked again: seconds in the lab."""

DOWN_AFTER_SECONDS = 5.0
FAILOVER_TIMEOUT_SECONDS = 30.0
QUORUM = 2
BYTES_PER_WRITE = 50


@dataclass(slots=True)
class ServerState:
    """A redis-server. `data` is the numbers of the writes that it holds."""

    host: str
    run_id: str
    started: float
    master: str | None = None
    configured: Callable[[], str | None] | None = None
    """Whom its configuration tells it to follow: a name, resolved whenever it connects."""
    data: Writes = NONE
    priority: int = 100
    paused_until: float = 0.0
    link_up: bool = False
    synced_at: float = 0.0
    streams_at: float = 0.0
    master_since: float = 0.0

    @property
    def role(self) -> Role:
        return Role.MASTER if self.master is None else Role.REPLICA


@dataclass(slots=True)
class Listed:
    """A replica as a sentinel has it. `host` may have moved on from `name`, where an entry was made of a name."""

    name: str
    host: str
    asked_at: float
    priority: int = 100
    last_seen: float = 0.0
    since: float = -1000.0
    by_name: bool = False
    """Made of a name: where nobody is at its address any more it follows the name, RESOLVED_LATE_SECONDS later."""


@dataclass(slots=True)
class Failover:
    target: str
    began: float
    promoted_at: float = 0.0
    announced: bool = False


@dataclass(slots=True)
class SentinelState:
    """A redis-sentinel. `current` is what clients are told, `master` what it monitors."""

    host: str
    run_id: str
    monitors: str
    epoch: int = 0
    replicas: dict[str, Listed] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    """Other sentinels: run id -> host."""
    master_asked_at: float = -100.0
    info_period: float = INFO_SECONDS
    hello_at: float = 0.0
    master_seen: float = 0.0
    failover: Failover | None = None
    tried_at: float = -1000.0
    current: str = ""
    resolve: Callable[[], str | None] | None = None
    """What the name that it was given means, at the moment; None where it was given an address."""
    named: str = ""
    """The address that it monitored by that name."""


class RedisWorld:
    """`effect` is called after every command that changes something, and may raise to kill the caller."""

    def __init__(self, effect: Callable[[str], None], name: str = "mymaster") -> None:
        self.servers: dict[str, ServerState] = {}
        self.sentinels: dict[str, SentinelState] = {}
        self.name = name
        self.now = 0.0
        self._effect = effect
        self._serial = 0
        self.writes_every: float | None = None
        self.acked: set[int] = set()
        self.acked_at = 0.0
        self.longest_stall = 0.0
        self.unannounced = False
        """Replicas say that sentinels are to list them to nobody (replica-announced no)."""
        self.stream_seconds = 0.0
        """After a full synchronization: until the master sends what is written from then on."""
        self._number = 0
        self._connected: str | None = None
        self.cluster = ClusterWorld(effect)
        """Nodes of Redis Clusters, beside the servers of Sentinel groups."""

    # Building

    def start_server(self, host: str, follows: Callable[[], str | None] | None = None) -> None:
        """Starts empty. `follows` answers whom its configuration names, at the moment."""
        self._serial += 1
        server = ServerState(host, f"run-{self._serial}", self.now, configured=follows)
        self.servers[host] = server
        if follows is not None:
            server.master = follows() or "nobody"
            server.synced_at = self.now + SYNC_SECONDS
        else:
            server.master_since = self.now

    def stop_server(self, host: str) -> None:
        """SIGTERM: nothing that was acknowledged is missing on replicas in sync (Redis 7 waits for them)."""
        self._replicate()
        self.servers.pop(host, None)

    def start_sentinel(self, host: str, monitors: str, resolve: Callable[[], str | None] | None = None) -> None:
        self._serial += 1
        state = SentinelState(host, f"id-{self._serial}", monitors, current=monitors, resolve=resolve)
        state.named = monitors if resolve else ""
        state.hello_at, state.master_seen = self.now + HELLO_SECONDS, self.now
        self.sentinels[host] = state

    def stop_sentinel(self, host: str) -> None:
        self.sentinels.pop(host, None)

    # Verdict

    def lost(self) -> set[int]:
        """Acknowledged writes that the master of the end does not hold."""
        named = {s.current for s in self.sentinels.values()}
        held = NONE
        for host in named & self.servers.keys():
            held |= self.servers[host].data
        return self.acked - set(held)

    @property
    def runs(self) -> bool:
        """Whether any of it does."""
        return bool(self.servers or self.sentinels or self.cluster.nodes)

    # Time

    def tick(self, now: float) -> None:
        """Lets everything happen that is due by then."""
        self.now = now
        self.cluster.tick(now)
        self._link()
        self._replicate()
        for sentinel in list(self.sentinels.values()):
            self._watch(sentinel)
        self._write()

    def _link(self) -> None:
        for server in self.servers.values():
            if server.master is None:
                continue
            if server.configured is not None and server.master not in self.servers:
                server.master = server.configured() or "nobody"
            source = self.servers.get(server.master)
            if source is None or source is server:
                server.link_up = False
            elif source.master is not None and not source.link_up:
                # It feeds the replicas that it has, and accepts no other one (-NOMASTERLINK).
                continue
            elif not server.link_up and now_or_later(self.now, server.synced_at):
                server.streams_at = self.now + (0.0 if server.data else self.stream_seconds)
                server.link_up, server.data = True, source.data

    def _replicate(self) -> None:
        for _ in range(2):  # replicas of replicas too
            for server in self.servers.values():
                if server.link_up and self.now >= server.streams_at and server.master in self.servers:
                    server.data = self.servers[server.master].data

    def _promote(self, server: ServerState) -> None:
        if server.master is not None:
            server.master, server.link_up, server.master_since = None, False, self.now
            server.configured = None

    def _follow(self, server: ServerState, host: str, *, synced: bool = False) -> None:
        if server.master == host:
            return
        server.master, server.link_up, server.configured = host, False, None
        server.synced_at = self.now if synced else self.now + 0.2

    # Sentinels

    def _watch(self, sentinel: SentinelState) -> None:
        self._hello(sentinel)
        master = self.servers.get(sentinel.monitors)
        every = INFO_IN_FAILOVER_SECONDS if sentinel.failover else sentinel.info_period
        if master is not None and self.now >= sentinel.master_asked_at + every:
            sentinel.master_asked_at = self.now
            for server in self.servers.values():
                if server.master == master.host and server.link_up:
                    sentinel.replicas.setdefault(server.host, Listed(server.host, server.host, -100.0))
        for listed in sentinel.replicas.values():
            replica = self.servers.get(listed.host)
            if replica is None:
                self._resolve(sentinel, listed)
                continue
            listed.last_seen = self.now
            if self.now >= listed.asked_at + every:
                listed.asked_at, listed.priority = self.now, replica.priority
        self._demote(sentinel, master)
        if sentinel.failover is not None:
            self._go_on(sentinel, sentinel.failover)
        else:
            self._judge_master(sentinel, master)

    def _resolve(self, sentinel: SentinelState, listed: Listed) -> None:
        late = self.now >= listed.last_seen + RESOLVED_LATE_SECONDS
        if listed.by_name and sentinel.resolve is not None and late:
            listed.host = sentinel.resolve() or listed.host

    def _hello(self, sentinel: SentinelState) -> None:
        if self.now < sentinel.hello_at:
            return
        sentinel.hello_at = self.now + HELLO_SECONDS
        for other in self.sentinels.values():
            if other is not sentinel and other.monitors in self.servers:
                other.others = {i: h for i, h in other.others.items() if h != sentinel.host} | {
                    sentinel.run_id: sentinel.host
                }
                if sentinel.epoch > other.epoch and other.failover is None:
                    self._adopt(other, sentinel.current, sentinel.epoch)

    def _adopt(self, sentinel: SentinelState, master: str, epoch: int) -> None:
        """Another master, by a failover that is over: the former one is a replica now, if it ever comes back."""
        known = {listed.host: listed for listed in sentinel.replicas.values() if listed.host != master}
        if sentinel.monitors != master:
            known[sentinel.monitors] = Listed(
                sentinel.monitors,
                sentinel.monitors,
                -100.0,
                last_seen=self.now,
                since=self.now,
                by_name=sentinel.monitors == sentinel.named,
            )
        sentinel.replicas = known
        sentinel.monitors = sentinel.current = master
        sentinel.epoch, sentinel.master_asked_at, sentinel.master_seen = epoch, -100.0, self.now

    def _demote(self, sentinel: SentinelState, master: ServerState | None) -> None:
        sane = master is not None and master.role is Role.MASTER and sentinel.failover is None
        for listed in sentinel.replicas.values():
            server = self.servers.get(listed.host)
            if server is None or not sane:
                continue
            if listed.host == sentinel.monitors and not listed.by_name:
                continue
            wrong_since = max(server.master_since, listed.since)
            if (server.role is Role.MASTER and self.now >= wrong_since + DEMOTION_SECONDS) or (
                server.role is Role.REPLICA
                and server.master != sentinel.monitors
                and (server.configured is None or server.link_up)
                and self.now >= max(server.synced_at, listed.since) + FAILOVER_TIMEOUT_SECONDS
            ):
                self._follow(server, sentinel.monitors)

    def _judge_master(self, sentinel: SentinelState, master: ServerState | None) -> None:
        if master is not None and master.role is Role.MASTER:
            sentinel.master_seen = self.now
        down_after = DOWN_AFTER_SECONDS + (0 if master is None else 2 * INFO_SECONDS)
        down = self.now - sentinel.master_seen > down_after
        agreeing = [
            s
            for s in self.sentinels.values()
            if s.monitors == sentinel.monitors and self.now - s.master_seen > DOWN_AFTER_SECONDS
        ]
        majority = (len(sentinel.others) + 1) // 2 + 1
        others_busy = any(s.failover for s in self.sentinels.values())
        waited = self.now > sentinel.tried_at + 2 * FAILOVER_TIMEOUT_SECONDS
        if down and len(agreeing) >= max(QUORUM, majority) and not others_busy and waited:
            self._begin(sentinel)

    def _begin(self, sentinel: SentinelState) -> bool:
        able = [
            (listed, self.servers[listed.host])
            for listed in sentinel.replicas.values()
            if listed.host in self.servers and listed.priority > 0 and listed.host != sentinel.monitors
        ]
        sentinel.tried_at = self.now
        if not able:
            return False
        best, _ = min(able, key=lambda each: (each[0].priority, -len(each[1].data), each[1].run_id))
        sentinel.failover = Failover(best.host, self.now)
        return True

    def _go_on(self, sentinel: SentinelState, failover: Failover) -> None:
        target = self.servers.get(failover.target)
        if target is None:
            if self.now > failover.began + FAILOVER_TIMEOUT_SECONDS:
                sentinel.failover = None
            return
        if not failover.promoted_at and self.now >= failover.began + 0.1:
            self._promote(target)
            failover.promoted_at = self.now
        if failover.promoted_at and not failover.announced and self.now >= failover.promoted_at + 0.25:
            failover.announced = True
            sentinel.epoch += 1
            sentinel.current = failover.target
            for other in self.sentinels.values():
                if other is not sentinel:
                    self._adopt(other, failover.target, sentinel.epoch)
            for listed in sentinel.replicas.values():
                if listed.host in self.servers and listed.host != failover.target:
                    self._follow(self.servers[listed.host], failover.target)
        stale = [r for r in sentinel.replicas.values() if r.host not in self.servers]
        patience = FAILOVER_TIMEOUT_SECONDS if stale else 1.0
        if failover.announced and self.now >= failover.promoted_at + patience:
            sentinel.failover = None
            self._adopt(sentinel, failover.target, sentinel.epoch)

    # The writer

    def _write(self) -> None:
        if self.writes_every is None or self.now < self.acked_at + self.writes_every:
            return
        server = self.servers.get(self._connected or "")
        if server is None or server.role is Role.REPLICA:
            self._connected = self._ask_for_master()
            server = self.servers.get(self._connected or "")
        if server is None or server.role is Role.REPLICA or self.now < server.paused_until:
            return
        self._number += 1
        server.data = server.data.also(self._number)
        if self.acked:
            self.longest_stall = max(self.longest_stall, self.now - self.acked_at)
        self.acked.add(self._number)
        self.acked_at = self.now

    def _ask_for_master(self) -> str | None:
        return next((s.current for _, s in sorted(self.sentinels.items())), None)

    # What steps see

    def stranger(self, endpoint: Endpoint) -> Stranger | Silent:
        told = self.server(endpoint)
        if isinstance(told, Silent):
            return told
        online = sum(f.online for f in told.followers)
        return Stranger(told.role, in_sync=online, link_up=told.link_up, keys=told.keys, saves=False, appends=False)

    def server(self, endpoint: Endpoint) -> Server | Silent:
        state = self.servers.get(endpoint.address.host)
        if state is None:
            return Silent(endpoint.address, "connection refused")
        followers = [s for s in self.servers.values() if s.master == state.host and s is not state]
        return Server(
            endpoint.address,
            version=(7, 0, 15),
            flavor="redis",
            run_id=state.run_id,
            role=state.role,
            offset=self._offset(state),
            followers=tuple(Follower(Address(s.host), s.link_up, self._offset(s)) for s in followers),
            master=Address(state.master) if state.master else None,
            link_up=state.link_up,
            syncing=state.master in self.servers and not state.link_up and self.now < state.synced_at,
            keys=len(state.data),
            priority=state.priority,
            hidden=self.unannounced and state.role is Role.REPLICA,
            min_replicas_to_write=0,
            persists=False,
            can_follow=True,
            paused=self.now < state.paused_until,
        )

    def sentinel(self, endpoint: Endpoint, name: str) -> Sentinel | Silent:
        state = self.sentinels.get(endpoint.address.host)
        if state is None:
            return Silent(endpoint.address, "connection refused")
        if name != self.name:
            return Sentinel(endpoint.address, state.run_id, known=False)
        flags = {"master"}
        if state.failover is not None:
            flags.add("failover_in_progress")
        if state.monitors not in self.servers and self.now - state.master_seen > DOWN_AFTER_SECONDS:
            flags.add("s_down")
        usable = sum(h in self.sentinels for h in state.others.values()) + 1
        return Sentinel(
            endpoint.address,
            state.run_id,
            current=Address(state.current),
            master=Address(state.monitors),
            flags=frozenset(flags),
            replicas=() if self.unannounced else tuple(self._entry(r, state) for r in state.replicas.values()),
            known_replicas=len(state.replicas),
            sentinels=tuple(self._other(i, h) for i, h in state.others.items()),
            quorum=QUORUM,
            quorum_ok=usable >= max(QUORUM, (len(state.others) + 1) // 2 + 1),
            down_after_ms=int(DOWN_AFTER_SECONDS * 1000),
            failover_timeout_ms=int(FAILOVER_TIMEOUT_SECONDS * 1000),
            epoch=state.epoch,
            resolves_names=state.resolve is not None,
            info_age=self.now - state.master_asked_at,
            info_period=state.info_period,
        )

    def _entry(self, listed: Listed, sentinel: SentinelState) -> KnownReplica:
        server = self.servers.get(listed.host)
        flags = {"slave"}
        if server is None and self.now - listed.last_seen > DOWN_AFTER_SECONDS:
            flags |= {"s_down", "disconnected"}
        return KnownReplica(
            Address(listed.host),
            frozenset(flags),
            priority=listed.priority,
            master=Address(sentinel.monitors),
            link_ok=server is not None and server.link_up,
            silent_for=0.0 if server is not None else self.now - listed.last_seen,
            name=f"{listed.name}:6379",
        )

    def _other(self, run_id: str, host: str) -> KnownSentinel:
        there = host in self.sentinels and self.sentinels[host].run_id == run_id
        return KnownSentinel(
            Address(host, 26379), run_id, frozenset({"sentinel"} if there else {"sentinel", "s_down", "disconnected"})
        )

    def cluster_node(self, endpoint: Endpoint) -> ClusterNode | Silent:
        return self.cluster.cluster_node(endpoint)

    def meet(self, endpoint: Endpoint, expected: Server, newcomer: Address, bus_port: int | None = None) -> None:
        self.cluster.meet(endpoint, expected, newcomer, bus_port)

    def replicate(self, endpoint: Endpoint, expected: Server, master_id: str) -> None:
        self.cluster.replicate(endpoint, expected, master_id)

    def set_electable(self, endpoint: Endpoint, expected: Server, *, electable: bool) -> None:
        self.cluster.set_electable(endpoint, expected, electable=electable)

    def take_over(self, endpoint: Endpoint, expected: Server) -> None:
        self.cluster.take_over(endpoint, expected)

    def forget(self, endpoint: Endpoint, node_id: str) -> None:
        self.cluster.forget(endpoint, node_id)

    def leave_cluster(self, endpoint: Endpoint, expected: Server) -> None:
        self.cluster.leave_cluster(endpoint, expected)

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        if endpoint.address.host in self.cluster.nodes:
            return self.cluster.offset(endpoint)
        state = self._reachable(endpoint)
        return state.role, self._offset(state)

    def current_master(self, endpoint: Endpoint, name: str) -> Address | None:
        return Address(self._asked(endpoint).current) if name == self.name else None

    def follow(self, endpoint: Endpoint, expected: Server, master: Address) -> None:
        self._follow(self._confirmed(endpoint, expected), master.host)
        self._effect(f"REPLICAOF {master} on {endpoint}")

    def promote(self, endpoint: Endpoint, expected: Server) -> None:
        self._promote(self._confirmed(endpoint, expected))
        self._effect(f"REPLICAOF NO ONE on {endpoint}")

    def pause_writes(self, endpoint: Endpoint, expected: Server, milliseconds: int) -> None:
        self._confirmed(endpoint, expected).paused_until = self.now + milliseconds / 1000
        self._effect(f"CLIENT PAUSE on {endpoint}")

    def unpause(self, endpoint: Endpoint) -> None:
        self._reachable(endpoint).paused_until = 0.0
        self._effect(f"CLIENT UNPAUSE on {endpoint}")

    def disconnect_clients(self, endpoint: Endpoint) -> None:
        if self._connected == self._reachable(endpoint).host:
            self._connected = None
        self._effect(f"CLIENT KILL on {endpoint}")

    def announce(self, endpoint: Endpoint, name: str, master: Address, epoch: int, by: KnownSentinel) -> None:
        sentinel = self._asked(endpoint)
        if name == self.name:
            sentinel.others = {i: h for i, h in sentinel.others.items() if h != by.address.host}
            sentinel.others[by.run_id] = by.address.host
            if epoch > sentinel.epoch:
                sentinel.failover = None
                self._adopt(sentinel, master.host, epoch)
        self._effect(f"hello of {master} on {endpoint}")

    def elect(self, host: str) -> None:
        """SENTINEL FAILOVER, by somebody else."""
        assert self._begin(self.sentinels[host])

    def reset(self, endpoint: Endpoint, name: str) -> None:
        sentinel = self._asked(endpoint)
        sentinel.replicas, sentinel.others, sentinel.failover = {}, {}, None
        sentinel.current = sentinel.monitors
        self._effect(f"SENTINEL RESET {name} on {endpoint}")

    def ask_every(self, endpoint: Endpoint, seconds: float) -> None:
        self._asked(endpoint).info_period = seconds
        self._effect(f"SENTINEL DEBUG INFO-PERIOD {seconds} on {endpoint}")

    @staticmethod
    def _offset(state: ServerState) -> int:
        return len(state.data) * BYTES_PER_WRITE

    def _reachable(self, endpoint: Endpoint) -> ServerState:
        state = self.servers.get(endpoint.address.host)
        if state is None:
            raise Transient(f"Redis {endpoint} does not answer: connection refused.")
        return state

    def _asked(self, endpoint: Endpoint) -> SentinelState:
        state = self.sentinels.get(endpoint.address.host)
        if state is None:
            raise Transient(f"Redis {endpoint} does not answer: connection refused.")
        return state

    def _confirmed(self, endpoint: Endpoint, expected: Server) -> ServerState:
        state = self._reachable(endpoint)
        if (state.run_id, state.role) != (expected.run_id, expected.role):
            raise Conflict(f"Redis {endpoint} is not what it was: it restarted, or its role changed meanwhile.")
        return state


def now_or_later(now: float, due: float) -> bool:
    return now >= due - 1e-9
