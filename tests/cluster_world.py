"""Nodes of a Redis Cluster and a writer in memory, behind the protocol that steps see.

What it knows of Redis Cluster was measured on real nodes; `tests/contract/test_cluster_client.py` holds both to the
same cases. Time stands still unless `tick` is called: nodes talk once a second, to those that they know and that know
them, and tell of others; a node that is forgotten is banned for a minute; who says nothing for node-timeout fails. The
writer writes to every shard in turn, wherever its slots are: what was acknowledged must be there in the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

from eks_rolling.errors import Conflict, Transient
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, KnownNode, Role, Server, Silent
from tests.writes import NONE, Writes

GOSSIP_SECONDS = 1.0
LATE_SECONDS = 6.0
BAN_SECONDS = 60.0
NODE_TIMEOUT_SECONDS = 5.0
SYNC_SECONDS = 1.5
STREAM_SECONDS = 1.0
"""After a full synchronization the stream of writes may begin with the replica's next acknowledgement only."""

RESYNC_SECONDS = 0.2
TAKE_OVER_SECONDS = 0.07
BYTES_PER_WRITE = 50
LAST_WRITES = 5
"""A copy may lack so many: those of the moment for which replicas turn to another master."""

BUS_OFFSET = 10_000
BUS_PORT = 6379 + BUS_OFFSET
SLOTS = 16384

Slots = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A node as another one has it, or as it has itself. `host` is "" where a node does not know its own."""

    host: str
    role: Role = Role.MASTER
    master: str = ""
    epoch: int = 0
    slots: Slots = ()
    heard_at: float = 0.0

    def heard(self, host: str, now: float) -> "Entry":
        """The same as it was heard of now, from that host. Nodes talk more often than anything else happens."""
        return Entry(host, self.role, self.master, self.epoch, self.slots, now)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What is sent to a port, where nobody may listen; and since when."""

    bus_port: int
    since: float


@dataclass(slots=True)
class NodeState:
    """A node that runs. What is on its volume outlives it: id, table, data."""

    host: str
    id: str
    run_id: str
    volume: str
    table: dict[str, Entry]
    data: Writes = NONE
    link_up: bool = False
    synced_at: float = 0.0
    streams_at: float = 0.0
    banned: dict[str, float] = field(default_factory=dict)
    meeting: dict[str, Handshake] = field(default_factory=dict)
    """With which hosts."""
    bus_port: int = BUS_PORT
    takes_over_at: float | None = None
    new: bool = True
    """It was no part of any shard since it started: it gets the whole data set, also one that has it on its volume."""
    electable: bool = True

    @property
    def itself(self) -> Entry:
        return self.table[self.id]


class ClusterWorld:
    """`effect` is called after every command that changes something, and may raise to kill the caller."""

    def __init__(self, effect: Callable[[str], None]) -> None:
        self.nodes: dict[str, NodeState] = {}
        self.volumes: dict[str, NodeState] = {}
        self.now = 0.0
        self.writes_every: float | None = None
        self.acked: dict[int, Slots] = {}
        self.unserved: list[str] = []
        """What could not be written, by the second: nobody owned the slots, or their owner missed that of others."""
        self.longest_pause = 0.0
        """For which a master held writes back while a replica took over, in seconds."""
        self.failovers = 0
        self.risks: set[str] = set()
        """Volumes of nodes that might have been elected while their master sent them nothing yet."""
        self.late = ""
        """The volume of a node that hears nothing new in the first seconds after a failover."""
        self.own_bus_ports = False
        """Whether each node that starts hears the others on a port of its own (`cluster-port`)."""
        self._failed_over_at = 0.0
        self._effect = effect
        self._serial = 0
        self._gossip_at = 0.0
        self._write_at = 0.0
        self._shards: list[Slots] = []

    # Building

    def start(self, host: str, volume: str) -> None:
        """With what is on the volume: its id and what it knew; or as a new node that knows nobody."""
        self._serial += 1
        former = self.volumes.get(volume)
        if former is None:
            node_id = f"{self._serial:040x}"
            state = NodeState(host, node_id, f"run-{self._serial}", volume, {node_id: Entry("")})
        else:
            state = replace(former, host=host, run_id=f"run-{self._serial}", link_up=False, takes_over_at=None)
            state.new = state.electable = True
            state.table = {i: replace(e, heard_at=self.now) for i, e in former.table.items()}
            state.synced_at = self.now + RESYNC_SECONDS
        state.bus_port = BUS_PORT + self._serial if self.own_bus_ports else BUS_PORT
        self.nodes[host] = self.volumes[volume] = state

    def stop(self, host: str) -> None:
        """A SIGTERM writes what is in the files; replicas in sync have it too."""
        self._replicate()
        self.nodes.pop(host, None)

    def form(self, shards: list[list[str]]) -> None:
        """Makes one cluster of the hosts: in each list the master first, then its replicas."""
        everybody = [self.nodes[host] for hosts in shards for host in hosts]
        for number, hosts in enumerate(shards):
            first, last = number * SLOTS // len(shards), (number + 1) * SLOTS // len(shards) - 1
            master = self.nodes[hosts[0]]
            self._shards.append(((first, last),))
            self._declare(master, Entry(master.host, Role.MASTER, "", number + 1, ((first, last),)))
            for host in hosts[1:]:
                replica = self.nodes[host]
                self._declare(replica, Entry(host, Role.REPLICA, master.id, number + 1))
                replica.link_up = True
        for one in everybody:
            one.table |= {other.id: replace(other.itself, heard_at=self.now) for other in everybody}
            one.new = False

    @staticmethod
    def _declare(node: NodeState, entry: Entry) -> None:
        node.table[node.id] = entry

    # Verdict

    def lost(self) -> set[int]:
        """Acknowledged writes that the owner of their slots does not hold."""
        held = {slots: node.data for slots in self._shards if (node := self._owner(slots))}
        return {number for number, slots in self.acked.items() if number not in held.get(slots, NONE)}

    def copies(self) -> int:
        """Of the shard that has the fewest: nodes that have what its master has, but for the last moment's writes."""
        owners = [self._owner(slots) for slots in self._shards]
        nodes = self.nodes.values()
        return min(sum(n.data.is_copy_of(o.data, LAST_WRITES) for n in nodes) if o else 0 for o in owners)

    def _owner(self, slots: Slots) -> NodeState | None:
        owners = [n for n in self.nodes.values() if slots[0] in n.itself.slots]
        return max(owners, key=lambda n: n.itself.epoch, default=None)

    # Time

    def tick(self, now: float) -> None:
        """Lets everything happen that is due by then."""
        self.now = now
        for node in list(self.nodes.values()):
            if node.takes_over_at is not None and now >= node.takes_over_at:
                self._take_over(node)
        self._link()
        self._replicate()
        self.risks |= {n.volume for n in self.nodes.values() if n.link_up and now < n.streams_at and n.electable}
        if now >= self._gossip_at:
            self._gossip_at = now + GOSSIP_SECONDS
            self._gossip()
            self._elect()
        self._write()

    def _by_id(self, node_id: str) -> NodeState | None:
        return next((n for n in self.nodes.values() if n.id == node_id), None)

    def _link(self) -> None:
        for node in self.nodes.values():
            if node.itself.role is Role.MASTER:
                continue
            master = self._by_id(node.itself.master)
            if master is None or master.itself.role is Role.REPLICA:
                node.link_up = False
            elif not node.link_up and self.now >= node.synced_at:
                node.streams_at = self.now + STREAM_SECONDS if node.new else self.now
                node.link_up, node.new, node.data = True, False, master.data

    def _replicate(self) -> None:
        for node in self.nodes.values():
            master = self._by_id(node.itself.master) if node.link_up and self.now >= node.streams_at else None
            if master is not None:
                node.data = master.data

    def _take_over(self, node: NodeState, *, because_dead: bool = False) -> None:
        """Under the old master's pause, with all its data; everybody hears of it by gossip."""
        node.takes_over_at = None
        master = self._by_id(node.itself.master)
        if not because_dead and (master is None or not node.link_up or not master.itself.slots):
            return
        former = node.itself.master
        slots = master.itself.slots if master else node.table[former].slots
        if master is not None:
            node.data = master.data
        epoch = max(e.epoch for n in self.nodes.values() for e in n.table.values()) + 1
        node.link_up = False
        self._declare(node, replace(node.itself, role=Role.MASTER, master="", epoch=epoch, slots=slots))
        self.failovers += 1
        self._failed_over_at = self.now

    def _gossip(self) -> None:
        for node in list(self.nodes.values()):
            node.banned = {i: t for i, t in node.banned.items() if t > self.now}
            for host in list(node.meeting):
                self._shake_hands(node, host)
            for known in [i for i in node.table if i != node.id]:
                other = self.nodes.get(node.table[known].host)
                if other is not None and other.id == known:
                    self._tell(node, other)
        for node in self.nodes.values():
            self._follow_news(node)

    def _shake_hands(self, node: NodeState, host: str) -> None:
        other, sent = self.nodes.get(host), node.meeting[host]
        if other is not None and other.bus_port != sent.bus_port:
            other = None
        if other is None and self.now < sent.since + NODE_TIMEOUT_SECONDS:
            return
        del node.meeting[host]
        if other is None:
            return
        # Whoever is met by its address learns that address, and who knows none of its own does so by any answer.
        self._declare(other, replace(other.itself, host=host))
        self._declare(node, replace(node.itself, host=node.itself.host or node.host))
        for one, two in ((node, other), (other, node)):
            if two.id not in one.banned and not (two.id in one.table and self._is_late(one)):
                one.table[two.id] = replace(two.itself, host=two.host, heard_at=self.now)

    def _tell(self, node: NodeState, other: NodeState) -> None:
        """What `other`, to whom `node` talks, takes from it: nothing unless it knows it."""
        if node.id not in other.table:
            return
        for hearer, speaker in ((other, node), (node, other)):
            news = hearer.table[speaker.id] if self._is_late(hearer) else speaker.itself
            hearer.table[speaker.id] = news.heard(speaker.host, self.now)
            self._claim(hearer, speaker.id)
        for known, entry in node.table.items():
            third = self.nodes.get(entry.host)
            if known not in other.table and known not in other.banned and third is not None and third.id == known:
                other.meeting.setdefault(entry.host, Handshake(third.bus_port, self.now))

    def _is_late(self, hearer: NodeState) -> bool:
        return hearer.volume == self.late and self.now < self._failed_over_at + LATE_SECONDS

    @staticmethod
    def _claim(hearer: NodeState, speaker: str) -> None:
        """Slots have one owner in a table: the one with the newest epoch."""
        claim = hearer.table[speaker]
        if not claim.slots:
            return
        for known, entry in hearer.table.items():
            if entry.slots == claim.slots and known not in {speaker, hearer.id}:
                older = known if entry.epoch < claim.epoch else speaker
                hearer.table[older] = replace(hearer.table[older], slots=())

    def _follow_news(self, node: NodeState) -> None:
        """A master whose slots another one has with a newer epoch follows that one; so do its replicas."""
        mine = node.itself
        if mine.role is Role.MASTER:
            newer = [i for i, e in node.table.items() if mine.slots and e.slots == mine.slots and e.epoch > mine.epoch]
            if newer:
                self._follow(node, newer[0])
        else:
            master = node.table.get(mine.master)
            if master is not None and master.role is Role.REPLICA and master.master != node.id:
                self._follow(node, master.master)

    def _follow(self, node: NodeState, master_id: str) -> None:
        epoch = node.table[master_id].epoch if master_id in node.table else node.itself.epoch
        self._declare(node, replace(node.itself, role=Role.REPLICA, master=master_id, slots=(), epoch=epoch))
        node.link_up, node.synced_at = False, self.now + (RESYNC_SECONDS if node.data else SYNC_SECONDS)

    def _elect(self) -> None:
        """A master that failed is replaced by a replica that was in sync: by any, so by the one that has the least."""
        for node in sorted(self.nodes.values(), key=lambda n: len(n.data)):
            master = node.itself.master
            if not master or self._by_id(master) is not None or master not in node.table:
                continue
            if node.new or not node.electable:
                continue
            lost = node.table[master]
            if lost.slots and self._fails(lost) and self._owner(lost.slots) is None:
                self._take_over(node, because_dead=True)

    def _fails(self, entry: Entry) -> bool:
        return self.now > entry.heard_at + NODE_TIMEOUT_SECONDS

    # The writer

    def _write(self) -> None:
        if self.writes_every is None or self.now < self._write_at + self.writes_every:
            return
        self._write_at = self.now
        for slots in self._shards:
            owner = self._owner(slots)
            if owner is None or self._served(owner) < SLOTS:
                self.unserved.append(f"{self.now:.0f}: {slots}")
                continue
            number = len(self.acked) + 1
            owner.data = owner.data.also(number)
            self.acked[number] = slots

    # What steps see

    def cluster_node(self, endpoint: Endpoint) -> ClusterNode | Silent:
        node = self.nodes.get(endpoint.address.host)
        if node is None:
            return Silent(endpoint.address, "connection refused")
        slots_ok = self._served(node)
        table = tuple(self._known(node, i, e) for i, e in node.table.items())
        shaken = tuple(
            KnownNode(f"handshake-{host}", Address(host), frozenset({"handshake"}), connected=False)
            for host in node.meeting
        )
        server = self._server(node, endpoint)
        ok, everyone = slots_ok == SLOTS, (*table, *shaken)
        return ClusterNode(server, node.id, ok, slots_ok, everyone, bus_port=node.bus_port, electable=node.electable)

    def _served(self, node: NodeState) -> int:
        served = {s for n in node.table.values() for s in n.slots if not self._fails_for(node, n)}
        return sum(last - first + 1 for first, last in served)

    def _fails_for(self, node: NodeState, entry: Entry) -> bool:
        return entry is not node.itself and self._fails(entry)

    def _known(self, node: NodeState, node_id: str, entry: Entry) -> KnownNode:
        myself = node_id == node.id
        fails = not myself and self._fails(entry)
        return _line(node_id, entry.host, entry.role, entry.master, entry.epoch, entry.slots, myself, fails)

    def _server(self, node: NodeState, endpoint: Endpoint) -> Server:
        return Server(
            endpoint.address,
            version=(7, 0, 15),
            flavor="redis",
            run_id=node.run_id,
            role=node.itself.role,
            offset=len(node.data) * BYTES_PER_WRITE,
            link_up=node.link_up,
            syncing=node.itself.role is Role.REPLICA and not node.link_up and self.now < node.synced_at,
            keys=len(node.data),
            can_follow=True,
            persists=True,
        )

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        node = self._reachable(endpoint)
        if node.takes_over_at is not None:
            # Whoever asks in a loop lets time pass.
            self.tick(max(self.now, node.takes_over_at))
        return node.itself.role, len(node.data) * BYTES_PER_WRITE

    def meet(self, endpoint: Endpoint, expected: Server, newcomer: Address, bus_port: int | None = None) -> None:
        sent = Handshake(newcomer.port + BUS_OFFSET if bus_port is None else bus_port, self.now)
        self._confirmed(endpoint, expected).meeting[newcomer.host] = sent
        self._effect(f"redis CLUSTER MEET {newcomer} on {endpoint}")

    def replicate(self, endpoint: Endpoint, expected: Server, master_id: str) -> None:
        node = self._confirmed(endpoint, expected)
        if master_id not in node.table or node.table[master_id].role is not Role.MASTER:
            raise Transient(f"{endpoint} refused CLUSTER REPLICATE (Unknown node {master_id}).")
        if node.itself.role is Role.MASTER and (node.itself.slots or node.data):
            raise Transient(f"{endpoint} refused CLUSTER REPLICATE (To set a master the node must be empty).")
        self._follow(node, master_id)
        self._effect(f"redis CLUSTER REPLICATE on {endpoint}")

    def set_electable(self, endpoint: Endpoint, expected: Server, *, electable: bool) -> None:
        self._confirmed(endpoint, expected).electable = electable
        self._effect(f"redis CONFIG SET on {endpoint}")

    def take_over(self, endpoint: Endpoint, expected: Server) -> None:
        node = self._confirmed(endpoint, expected)
        if node.itself.role is Role.MASTER:
            raise Transient(f"{endpoint} refused CLUSTER FAILOVER (You should send it to a replica).")
        node.takes_over_at = max(self.now, node.streams_at) + TAKE_OVER_SECONDS
        self.longest_pause = max(self.longest_pause, node.takes_over_at - self.now)
        self._effect(f"redis CLUSTER FAILOVER on {endpoint}")

    def forget(self, endpoint: Endpoint, node_id: str) -> None:
        node = self._reachable(endpoint)
        if node_id in node.table:
            if node_id == node.itself.master:
                raise Transient(f"{endpoint} refused CLUSTER FORGET (Can't forget my master!).")
            del node.table[node_id]
            if self._served(node) < SLOTS and self.acked:
                self.unserved.append(f"{self.now:.0f}: {endpoint} forgot who served slots")
            node.banned[node_id] = self.now + BAN_SECONDS
        self._effect(f"redis CLUSTER FORGET on {endpoint}")

    def leave_cluster(self, endpoint: Endpoint, expected: Server) -> None:
        node = self._confirmed(endpoint, expected)
        if node.itself.role is Role.MASTER and node.data:
            raise Transient(f"{endpoint} refused CLUSTER RESET (can't be called with master nodes containing keys).")
        self._serial += 1
        node.id = f"{self._serial:040x}"
        node.table, node.data, node.link_up, node.meeting = {node.id: Entry(node.host)}, NONE, False, {}
        node.new = True
        self._effect(f"redis CLUSTER RESET on {endpoint}")

    def _reachable(self, endpoint: Endpoint) -> NodeState:
        node = self.nodes.get(endpoint.address.host)
        if node is None:
            raise Transient(f"{endpoint} does not answer: connection refused.")
        return node

    def _confirmed(self, endpoint: Endpoint, expected: Server) -> NodeState:
        node = self._reachable(endpoint)
        if (node.run_id, node.itself.role) != (expected.run_id, expected.role):
            raise Conflict(f"{endpoint} is not what it was: it restarted, or its role changed meanwhile.")
        return node


@cache
def _line(
    node_id: str, host: str, role: Role, master: str, epoch: int, slots: Slots, myself: bool, fails: bool
) -> KnownNode:
    """Of CLUSTER NODES. Each is asked for thousands of times, by every look of a step."""
    flags = {"master" if role is Role.MASTER else "slave"}
    flags |= ({"myself"} if myself else set()) | ({"fail"} if fails else set())
    return KnownNode(
        node_id, Address(host) if host else None, frozenset(flags), master, epoch, connected=not fails, slots=slots
    )
