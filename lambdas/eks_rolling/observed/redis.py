"""What decisions see of Redis: plain frozen values, read by `eks_rolling.clients.redis`. No secret is in here.

Offsets and sizes are in bytes, durations in seconds unless a name says milliseconds.
"""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is said to be: an IP address, or a name where names are announced.

    An IPv6 address is in its shortest form, whoever announced it how, and as text in brackets, as Sentinel writes it
    (`announceSentinelAddrAndPort`, sentinel.c).
    """

    host: str
    port: int = 6379

    def __post_init__(self) -> None:
        if ":" in self.host:
            with suppress(ValueError):
                object.__setattr__(self, "host", str(ip_address(self.host)))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_name(self) -> bool:
        """Whether somebody has to resolve it."""
        try:
            ip_address(self.host)
        except ValueError:
            return True
        return False


@dataclass(frozen=True, slots=True)
class Login:
    """How to speak to a pod's server: which Secrets (in `namespace`) hold the password and the TLS files.

    The auth Secret's keys: `password`, `username` (ACL user), `sentinel-password`, `sentinel-username`; the latter
    default to the former two where present. The TLS Secret's: `ca.crt`, and `tls.crt` with `tls.key` for a client
    certificate. "" is no authentication, no TLS.
    """

    namespace: str
    auth: str = ""
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server or sentinel to speak to: a pod's own address."""

    address: Address
    login: Login
    name: str = ""
    """The pod, NAMESPACE/NAME, for messages."""

    def __str__(self) -> str:
        return self.name or str(self.address)


class Role(StrEnum):
    """What a server says it is."""

    MASTER = "master"
    REPLICA = "slave"


@dataclass(frozen=True, slots=True)
class Silent:
    """A server that does not answer, and why. Refused credentials are not silence: they are AccessDenied."""

    address: Address
    reason: str


@dataclass(frozen=True, slots=True)
class Follower:
    """A replica as its master lists it. `offset` is what it acknowledged; `lag` seconds since it last did."""

    address: Address
    online: bool
    offset: int
    lag: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """One Redis server, as INFO and CONFIG GET tell.

    `offset` is master_repl_offset of a master, slave_repl_offset of a replica. `master` is what a replica was told to
    follow, a name perhaps. `sync_left` is None while no full synchronization transfers data, or where its size is not
    known (diskless); `sync_read` is what has been read of one that goes on. Both are bytes. `failover` is
    master_failover_state. `announced` is replica-announce-ip, "" where none is set, and `announced_port` is
    replica-announce-port, or 0. `hidden` is a replica that its sentinels know, and list to nobody (replica-announced).
    Renamed or forbidden CONFIG leaves the settings at None, and the commands that the server does not know or permit
    are in `denied`. It holds writes as well, none of which was tried; "ACL DRYRUN", "ACL GETUSER" and "COMMAND INFO"
    in it mean that these could not be asked after, nothing worse.
    """

    address: Address
    version: tuple[int, ...]
    flavor: str
    run_id: str
    role: Role
    offset: int
    loading: bool = False
    followers: tuple[Follower, ...] = ()
    master: Address | None = None
    link_up: bool = False
    syncing: bool = False
    sync_left: int | None = None
    sync_read: int = 0
    failover: str = "no-failover"
    keys: int = 0
    used_bytes: int = 0
    maxmemory: int = 0
    """Bytes that it may hold as a master, 0 for no limit: beyond it refuses writes or evicts keys."""
    priority: int = 100
    announced: str = ""
    announced_port: int = 0
    hidden: bool = False
    min_replicas_to_write: int | None = None
    persists: bool | None = None
    can_follow: bool | None = None
    """Whether masterauth is set, or no password is required."""
    read_only: bool | None = None
    """Whether it refuses writes as a replica (replica-read-only)."""
    paused: bool = False
    """Writes are paused by CLIENT PAUSE (INFO clients, where the version tells; else False)."""
    denied: frozenset[str] = frozenset()
    over_limit: int = 0
    """Connections that it has closed over client-output-buffer-limit since it started (INFO stats, Redis 7.2)."""
    save_failed: bool = False
    """Its last snapshot failed, which a full synchronization needs, whether it goes over the disk or not."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """What a server that nobody declared says of itself, asked without a password (INFO, and CONFIG GET where it may).

    `role` is None of a sentinel, and of what does not say. `in_sync` counts a master's replicas, `link_up` is a
    replica's own. `appends`, `saves` (snapshots by itself) and `unsaved` (changes since the last one) are None where it
    does not say.
    """

    role: Role | None = None
    sentinel: bool = False
    clustered: bool = False
    in_sync: int = 0
    link_up: bool = False
    keys: int = 0
    used_bytes: int = 0
    appends: bool | None = None
    saves: bool | None = None
    unsaved: int | None = None

    @property
    def keeps(self) -> bool | None:
        """Whether it writes anything to its disk by itself; None where it does not say."""
        return None if self.appends is None and self.saves is None else bool(self.appends or self.saves)

    @property
    def is_copy(self) -> bool:
        """Whether its master has all that it has."""
        return self.role is Role.REPLICA and self.link_up


@dataclass(frozen=True, slots=True)
class KnownReplica:
    """A replica in a sentinel's list. `name` is the address at which the sentinel first met it; `silent_for` is seconds
    since it last answered a ping."""

    address: Address
    flags: frozenset[str]
    priority: int = 100
    master: Address | None = None
    link_ok: bool = True
    silent_for: float = 0.0
    name: str = ""

    @property
    def alive(self) -> bool:
        return not self.flags & {"s_down", "o_down", "disconnected"}


@dataclass(frozen=True, slots=True)
class KnownSentinel:
    """Another sentinel in a sentinel's list. `silent_for` is seconds since it last answered a ping."""

    address: Address
    run_id: str
    flags: frozenset[str]
    silent_for: float = 0.0

    @property
    def alive(self) -> bool:
        return not self.flags & {"s_down", "disconnected"}


@dataclass(frozen=True, slots=True)
class Sentinel:
    """One sentinel's view of one master name.

    `current` is what GET-MASTER-ADDR-BY-NAME answers, what clients are told; `master` the ip of SENTINEL MASTER, which
    changes last in a failover. `epoch` is that of the configuration, which a higher one replaces; `info_age` is seconds
    since the master last answered its INFO (info-refresh), `info_period` seconds between two of them; None where the
    sentinel does not tell, or may not be told another one. `known_replicas` is how many replicas it has, also those
    that it lists to nobody (num-slaves); None where it does not tell. `known` is False where the sentinel monitors no
    master of that name; `beside` are the names of the others that it monitors, () where it does not tell.
    """

    address: Address
    run_id: str
    known: bool = True
    current: Address | None = None
    master: Address | None = None
    flags: frozenset[str] = frozenset()
    replicas: tuple[KnownReplica, ...] = ()
    sentinels: tuple[KnownSentinel, ...] = ()
    quorum: int = 0
    quorum_ok: bool = True
    quorum_says: str = ""
    down_after_ms: int = 30_000
    failover_timeout_ms: int = 180_000
    epoch: int = 0
    info_age: float = 10.0
    info_period: float | None = None
    known_replicas: int | None = None
    resolves_names: bool = False
    announces_names: bool = False
    beside: tuple[str, ...] = ()
    denied: frozenset[str] = frozenset()
    """Commands that the sentinel does not know or permit."""

    @property
    def failing_over(self) -> bool:
        return bool(self.flags & {"failover_in_progress", "force_failover"})


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A line of a node's own table (CLUSTER NODES). `address` is None where none is known (noaddr, or a node of itself
    before anybody told it); `slots` are ranges, both ends included, of a master."""

    id: str
    address: Address | None
    flags: frozenset[str]
    master: str = ""
    """Of a replica: the id of the one it follows."""
    epoch: int = 0
    connected: bool = True
    slots: tuple[tuple[int, int], ...] = ()

    @property
    def role(self) -> Role:
        return Role.MASTER if "master" in self.flags else Role.REPLICA

    @property
    def trouble(self) -> str:
        """Which of its flags say that it is not simply there; "" if none."""
        return ", ".join(sorted(self.flags & {"fail", "fail?", "handshake", "noaddr"}))


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One node of a Redis Cluster, as it sees itself and the others.

    `table` holds every node it knows, itself too. `open_slots` are those being migrated or imported. Settings are None
    where CONFIG is forbidden.
    """

    server: Server
    id: str
    ok: bool
    """cluster_state"""
    slots_ok: int
    table: tuple[KnownNode, ...]
    open_slots: int = 0
    announced: str = ""
    """cluster-announce-ip, "" where none is set."""
    full_coverage: bool | None = None
    node_timeout_ms: int | None = None
    migrates_replicas: bool | None = None
    bus_port: int | None = None
    """Where it hears the others, if it does not announce another port."""
    electable: bool | None = None
    """Whether it may be elected where its master fails (cluster-replica-no-failover no)."""
    tells_names: bool = False
    """It tells clients host names instead of addresses (cluster-preferred-endpoint-type hostname)."""

    @property
    def itself(self) -> KnownNode:
        return next(n for n in self.table if "myself" in n.flags)

    @property
    def alone(self) -> bool:
        """Whether it knows no other server."""
        return len(self.table) == 1

    def knows(self, node_id: str) -> KnownNode | None:
        return next((n for n in self.table if n.id == node_id), None)
