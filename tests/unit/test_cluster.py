"""What a Redis Cluster needs next: the half-state table, row by row."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from eks_rolling.errors import AccessDenied, Transient
from eks_rolling.migration.cluster import HEARD_SECONDS, LISTEN_SECONDS, SILENT_SECONDS, perform
from eks_rolling.observed.kubernetes import Owner, Pod, Workload
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, KnownNode, Login, Role, Server, Silent
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.cluster import (
    REDIRECT_SECONDS,
    Action,
    ClusterPod,
    CreateStandIn,
    DeletePod,
    FailOver,
    Forget,
    Greet,
    LetBeElected,
    Meet,
    Original,
    RedisClusterState,
    Replicate,
    decide,
)
from eks_rolling.redis.groups import Part, PartSet, RedisGroup

LOGIN = Login("shop")
OWNER = Owner("StatefulSet", "shop", "r")
GROUP = RedisGroup("shop", "shards", "", (PartSet(OWNER, Part.CLUSTER, ("m-0", "m-1", "m-2"), 6379, LOGIN),))

SLOTS: dict[str, tuple[tuple[int, int], ...]] = {"m-0": ((0, 5460),), "m-1": ((5461, 10922),), "m-2": ((10923, 16383),)}
FOLLOWS = {"r-0": "m-0", "r-1": "m-1", "r-2": "m-2"}
PODS = (*SLOTS, *FOLLOWS)
T = "m-0-stand-in"
HOST = {name: f"10.0.0.{n}" for n, name in enumerate((*PODS, T), 1)}

Roles = dict[str, str]
"""Pod -> the pod that it follows; a master follows ""."""


def id_of(name: str) -> str:
    return f"id-{name}"


def entry(name: str, roles: Roles, slots: dict[str, tuple[tuple[int, int], ...]], *, itself: bool = False) -> KnownNode:
    master = roles[name]
    flags = {"slave" if master else "master"} | ({"myself"} if itself else set())
    return KnownNode(
        id_of(name),
        Address(HOST[name]),
        frozenset(flags),
        id_of(master) if master else "",
        list(HOST).index(name) + 1,
        slots=slots.get(name, ()),
    )


def cluster(
    *, old: str = "m-0", changed: Roles | None = None, stand_in: str | None = None, role: str = ""
) -> RedisClusterState:
    """Three masters and their replicas, all well; `old` is on the node that is emptied.

    `stand_in` is whom the stand-in for m-0 follows: "" if it is a master, "m-0's" slots with it if m-0 follows it.
    """
    roles = dict.fromkeys(SLOTS, "") | FOLLOWS | (changed or {})
    if stand_in is not None:
        roles[T] = stand_in
    slots = dict(SLOTS)
    if roles["m-0"] == T:
        slots[T] = slots.pop("m-0")
    found = [member(name, roles, slots, "old" if name == old else "new") for name in roles]
    pods = tuple(m for m in found if m.name != T)
    original = Original("m-0", id_of("m-0"), Role(role) if role else Role.MASTER)
    return RedisClusterState(GROUP, pods, tuple(replace(m, original=original) for m in found if m.name == T), "old")


def member(name: str, roles: Roles, slots: dict[str, tuple[tuple[int, int], ...]], node: str) -> ClusterPod:
    address = Address(HOST[name])
    server = Server(address, (7, 0, 15), "redis", f"run-{name}", Role.REPLICA if roles[name] else Role.MASTER, 1000)
    table = tuple(entry(other, roles, slots, itself=other == name) for other in roles)
    view = ClusterNode(replace(server, link_up=bool(roles[name])), id_of(name), ok=True, slots_ok=16384, table=table)
    return ClusterPod(name, Pod("shop", name, f"uid-{name}", node, OWNER), Endpoint(address, LOGIN, name), view)


def change(seen: RedisClusterState, name: str, **what: Any) -> RedisClusterState:
    pods = tuple(replace(m, **what) if m.name == name else m for m in seen.pods)
    return replace(
        seen, pods=pods, stand_ins=tuple(replace(m, **what) if m.name == name else m for m in seen.stand_ins)
    )


def view(seen: RedisClusterState, edit: Callable[[ClusterNode], ClusterNode], *names: str) -> RedisClusterState:
    for each in (*seen.pods, *seen.stand_ins):
        if isinstance(each.node, ClusterNode) and (not names or each.name in names):
            seen = change(seen, each.name, node=edit(each.node))
    return seen


def server(seen: RedisClusterState, name: str, **what: Any) -> RedisClusterState:
    return view(seen, lambda v: replace(v, server=replace(v.server, **what)), name)


def without(seen: RedisClusterState, unknown: str, *names: str) -> RedisClusterState:
    """`names` (all others, if none) do not know that node."""
    others = names or tuple(m.name for m in (*seen.pods, *seen.stand_ins) if m.name != unknown)
    return view(seen, lambda v: replace(v, table=tuple(n for n in v.table if n.id != id_of(unknown))), *others)


def alone(seen: RedisClusterState, name: str) -> RedisClusterState:
    return view(without(seen, name), lambda v: replace(v, table=(v.itself,)), name)


A = TypeVar("A", bound=Action)


def expect(seen: RedisClusterState, kind: type[A], step: RedisStep | None, words: str) -> A:
    action = decide(seen)
    assert isinstance(action, kind), action
    assert words in action.reason, action.reason
    assert getattr(action, "step", None) is step, action
    return action


# Without a stand-in


def test_a_normal_cluster_with_nothing_on_the_node_is_settled() -> None:
    expect(cluster(old=""), Settled, None, "3 masters serve all slots, 3 replicas are in sync")


def test_a_pod_on_the_node_gets_a_stand_in_that_says_for_whom() -> None:
    """R1."""
    action = expect(cluster(), CreateStandIn, RedisStep.CREATE_STAND_IN, "master m-0 gets a stand-in")
    assert action.original == Original("m-0", "id-m-0", Role.MASTER)


def test_replicas_go_before_masters() -> None:
    seen = change(cluster(), "r-1", pod=Pod("shop", "r-1", "uid-r-1", "old", OWNER))
    expect(seen, CreateStandIn, RedisStep.CREATE_STAND_IN, "replica r-1 gets a stand-in")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: view(s, lambda v: replace(v, ok=False, slots_ok=10923), "m-1"), "m-1 sees 10,923 of 16,384 slots"),
        # A cluster that need not be whole calls itself well all the same.
        (lambda s: view(s, lambda v: replace(v, slots_ok=10923), "m-1"), "m-1 sees 10,923 of 16,384 slots"),
        (lambda s: view(s, lambda v: replace(v, open_slots=2), "m-1"), "2 slots are being moved to or from m-1"),
        (lambda s: without(s, "r-2", "m-1"), "m-1 does not know r-2 yet"),
        (lambda s: server(s, "r-2", syncing=True, sync_left=5000, link_up=False), "r-2 synchronizes, 5,000 bytes left"),
        (lambda s: server(s, "r-2", link_up=False), "r-2 has no link to its master"),
        (lambda s: server(s, "m-2", offset=3_000_000), "r-2 is 2,999,000 bytes behind"),
        (lambda s: change(s, "r-2", pod=None, node=None), "pod r-2 is not there yet"),
        (
            lambda s: change(s, "r-2", node=Silent(Address("10.0.0.9"), "timed out")),
            "pod r-2 does not answer: timed out",
        ),
        (lambda s: server(s, "r-2", loading=True), "r-2 is loading its data set"),
    ],
)
def test_nothing_begins_before_the_cluster_is_well(
    edit: Callable[[RedisClusterState], RedisClusterState], words: str
) -> None:
    """C1."""
    expect(edit(cluster()), RedisHold, RedisStep.CREATE_STAND_IN, words)


def edited(seen: RedisClusterState, whose: str, about: str, **what: Any) -> RedisClusterState:
    """What `whose` table says of `about`."""

    def edit(node: ClusterNode) -> ClusterNode:
        return replace(node, table=tuple(replace(n, **what) if n.id == id_of(about) else n for n in node.table))

    return view(seen, edit, whose)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"flags": frozenset({"slave", "fail?"})}, "m-1 says of r-2: fail?"),
        ({"flags": frozenset({"slave", "fail"})}, "m-1 says of r-2: fail"),
        ({"connected": False}, "m-1 has no link to r-2"),
        ({"master": "id-m-0"}, "m-1 has not heard yet what r-2 is"),
    ],
)
def test_nothing_begins_before_all_tables_agree(what: dict[str, Any], words: str) -> None:
    """C2."""
    expect(edited(cluster(), "m-1", "r-2", **what), RedisHold, RedisStep.CREATE_STAND_IN, words)


def test_two_masters_with_one_epoch_are_waited_for() -> None:
    """C2."""
    seen = cluster()
    for name in PODS:
        seen = edited(seen, name, "m-1", epoch=1)
    expect(seen, RedisHold, RedisStep.CREATE_STAND_IN, "m-0 and m-1 have the same configuration epoch")


def known_to_all(seen: RedisClusterState, node: KnownNode) -> RedisClusterState:
    return view(seen, lambda v: replace(v, table=(*v.table, node)))


def test_a_stranger_is_named() -> None:
    stranger = KnownNode("abcdef0123456789", Address("10.9.9.9"), frozenset({"master"}))
    seen = known_to_all(cluster(), stranger)
    expect(
        seen,
        RedisHold,
        RedisStep.CREATE_STAND_IN,
        "m-0 knows a node that is not a pod of the group: abcdef01 at 10.9.9.9:6379",
    )


def test_a_stand_in_that_died_before_it_was_forgotten_is_forgotten_by_all() -> None:
    """C2."""
    ghost = KnownNode("0123456789abcdef", Address("10.9.9.9"), frozenset({"slave", "fail"}), "id-m-0", connected=False)
    action = expect(
        known_to_all(cluster(), ghost), Forget, RedisStep.REMOVE_STAND_IN, "still lists 01234567, which is gone"
    )
    assert (len(action.members), action.node_id, action.stand_in) == (6, "0123456789abcdef", None)


def test_a_dead_node_with_slots_is_never_forgotten() -> None:
    dead = KnownNode("0123456789abcdef", Address("10.9.9.9"), frozenset({"master", "fail"}), slots=((0, 1),))
    expect(known_to_all(cluster(), dead), RedisHold, RedisStep.CREATE_STAND_IN, "is not a pod of the group: 01234567")


def test_a_dead_node_that_one_still_has_slots_with_is_not_forgotten_by_any() -> None:
    """C1."""
    dead = KnownNode("0123456789abcdef", Address("10.9.9.9"), frozenset({"master", "fail"}))
    seen = known_to_all(cluster(), dead)
    late = view(seen, lambda v: replace(v, table=(*v.table[:-1], replace(dead, slots=((0, 1),)))), "r-1")
    expect(late, RedisHold, RedisStep.CREATE_STAND_IN, "is not a pod of the group: 01234567")
    expect(seen, Forget, RedisStep.REMOVE_STAND_IN, "still lists 01234567")


def test_a_pod_that_lost_its_volume_without_a_stand_in_asks_a_person() -> None:
    expect(alone(cluster(), "r-1"), Stop, None, "r-1 knows no other node")


# With one, while the pod is on its old node


def test_a_stand_in_that_knows_nobody_is_introduced() -> None:
    """By itself to all: gossip would take seconds."""
    action = expect(alone(cluster(stand_in=""), T), Greet, RedisStep.JOIN_STAND_IN, "m-0-stand-in joins the cluster")
    assert (action.speaker.name, {h.name for h in action.hearers}) == (T, set(PODS))


@pytest.mark.parametrize("port", [None, 7000])
def test_it_is_met_where_it_hears_the_others(port: int | None) -> None:
    """C1: on a port of its own (`cluster-port`) an introduction to the usual one never ends."""
    seen = view(alone(cluster(stand_in=""), T), lambda v: replace(v, bus_port=port), T)
    sent: list[tuple[Any, ...]] = []
    clients = SimpleNamespace(redis=SimpleNamespace(meet=lambda *words: sent.append(words)))
    perform(Meet(seen.pods[0], seen.stand_ins[0], "joins", RedisStep.JOIN_STAND_IN), cast(Any, clients))
    ((by, _, newcomer, bus),) = sent
    assert (str(by), newcomer, bus) == ("m-0", Address(HOST[T]), port)


class Greeted:
    """Nodes that have heard a greeting after so many seconds, on a clock that only sleeping moves."""

    def __init__(self, before: RedisClusterState, after: RedisClusterState, seconds: float) -> None:
        self.before, self.after, self.seconds = before, after, seconds
        self.time = 0.0
        self.sent: list[tuple[str, Address, int | None]] = []
        self.silent = ""

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def meet(self, by: Endpoint, _expected: Server, newcomer: Address, bus_port: int | None = None) -> None:
        self.sent.append((str(by), newcomer, bus_port))

    def cluster_node(self, endpoint: Endpoint) -> ClusterNode | Silent:
        seen = self.after if self.time >= self.seconds else self.before
        (node,) = [m.node for m in (*seen.pods, *seen.stand_ins) if m.name == str(endpoint)]
        assert isinstance(node, ClusterNode)
        return Silent(endpoint.address, "connection refused") if str(endpoint) == self.silent else node

    def greet(self, speaker: ClusterPod, *hearers: ClusterPod) -> None:
        clients = SimpleNamespace(redis=self, now=self.now, sleep=self.sleep)
        perform(Greet(speaker, hearers, "joins", RedisStep.JOIN_STAND_IN), cast(Any, clients))


def test_a_greeting_goes_to_where_each_hears_the_others() -> None:
    """C1: each on its own port, wherever the speaker listens."""
    seen = alone(cluster(stand_in=""), T)
    for port, name in enumerate((T, *PODS[:-1]), 7000):
        seen = view(seen, partial(replace, bus_port=port), name)
    greeted = Greeted(seen, seen, 0.0)
    greeted.greet(seen.stand_ins[0], *seen.pods)
    ports = [7001, 7002, 7003, 7004, 7005, None]
    assert greeted.sent == [(T, Address(HOST[name]), port) for name, port in zip(PODS, ports, strict=True)]


UNHEARD = {
    "nobody knows it": alone(cluster(stand_in=""), T),
    "one does not know it": without(cluster(stand_in=""), T, "r-2"),
    "it does not know one": without(cluster(stand_in=""), "r-2", T),
    "one takes it for a replica": view(
        cluster(stand_in=""),
        lambda v: replace(
            v,
            table=tuple(
                replace(n, flags=frozenset({"slave"}), master=id_of("m-0")) if n.id == id_of(T) else n for n in v.table
            ),
        ),
        "r-2",
    ),
}


@pytest.mark.parametrize("before", UNHEARD.values(), ids=UNHEARD)
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_greeting_is_waited_for_until_all_have_heard_it(before: RedisClusterState, seconds: float) -> None:
    """C2: and no longer. C1: then the links between nodes are silent for a moment, or news of a failover would wait."""
    seen = cluster(stand_in="")
    greeted = Greeted(before, seen, seconds)
    greeted.greet(seen.stand_ins[0], *seen.pods)
    assert seconds + SILENT_SECONDS <= greeted.time < seconds + SILENT_SECONDS + 2 * LISTEN_SECONDS


@pytest.mark.parametrize("silent", ["", T, "r-2"])
def test_a_greeting_that_is_not_heard_is_waited_for_no_longer_than_it_says(silent: str) -> None:
    """C1: the next look decides what is to be done then. Who does not answer has not heard."""
    seen = cluster(stand_in="")
    greeted = Greeted(seen if silent else UNHEARD["nobody knows it"], seen, float("inf"))
    greeted.silent = silent
    greeted.greet(seen.stand_ins[0], *seen.pods)
    assert HEARD_SECONDS < greeted.time - SILENT_SECONDS <= HEARD_SECONDS + 2 * LISTEN_SECONDS


def test_an_introduction_that_goes_on_is_waited_for() -> None:
    shaking = KnownNode("x", Address(HOST[T]), frozenset({"handshake"}))
    seen = view(alone(cluster(stand_in=""), T), lambda v: replace(v, table=(*v.table, shaking)), "m-1")
    expect(seen, RedisHold, RedisStep.JOIN_STAND_IN, "m-1 is in a handshake with 10.0.0.7:6379")


def test_it_has_to_be_known_to_all() -> None:
    expect(
        without(cluster(stand_in=""), T, "r-1"), RedisHold, RedisStep.JOIN_STAND_IN, "r-1 do not know m-0-stand-in yet"
    )


def test_who_has_not_heard_what_the_stand_in_is_is_told() -> None:
    """C2: by the stand-in, and nothing else is done before they have heard."""
    seen = cluster(stand_in="m-0")
    for name in ("m-2", "r-1"):
        seen = edited(seen, name, T, flags=frozenset({"master"}), master="")
    words = "m-0-stand-in tells m-2, r-1 what it is"
    action = expect(seen, Greet, RedisStep.FAIL_OVER_TO_STAND_IN, words)
    assert (action.speaker.name, [h.name for h in action.hearers]) == (T, ["m-2", "r-1"])


@pytest.mark.parametrize("expected", [True, False])
def test_a_handshake_is_waited_for_and_a_strangers_is_told(*, expected: bool) -> None:
    shaking = KnownNode("x", Address(HOST["m-1"] if expected else "10.0.0.99"), frozenset({"handshake"}))
    seen = view(cluster(stand_in="m-0"), lambda v: replace(v, table=(*v.table, shaking)), "r-2")
    words = "is in a handshake with 10.0.0." if expected else "knows a node that is not a pod of the group"
    expect(seen, RedisHold, RedisStep.FAIL_OVER_TO_STAND_IN, f"r-2 {words}")


def test_it_becomes_a_replica_of_the_pods_shard() -> None:
    action = expect(cluster(stand_in=""), Replicate, RedisStep.JOIN_STAND_IN, "a replica in the shard of m-0")
    assert (action.member.name, action.master_id) == (T, "id-m-0")


@pytest.mark.parametrize(("electable", "held_back"), [(True, True), (False, False), (None, False)])
def test_it_is_held_back_from_elections_meanwhile(*, electable: bool | None, held_back: bool) -> None:
    """C1: elected before it gets what is written, it would lose what the shard's other servers have."""
    seen = view(cluster(stand_in=""), partial(replace, electable=electable), T)
    action = expect(seen, Replicate, RedisStep.JOIN_STAND_IN, "a replica in the shard of m-0")
    assert action.held_back is held_back


def test_in_sync_it_may_be_elected_before_anything_else_is_waited_for() -> None:
    """C1: a copy that may not be elected is worth less."""
    seen = view(server(cluster(stand_in="m-0"), "r-2", link_up=False), partial(replace, electable=True))
    held_back = view(seen, partial(replace, electable=False), T)
    action = expect(held_back, LetBeElected, RedisStep.JOIN_STAND_IN, f"{T} has caught up with m-0, and may be elected")
    assert (action.member.name, action.master.name) == (T, "m-0")
    expect(seen, RedisHold, RedisStep.FAIL_OVER_TO_STAND_IN, "r-2 has no link to its master")
    syncing = server(held_back, T, link_up=False)
    expect(syncing, RedisHold, RedisStep.JOIN_STAND_IN, f"{T} has no link to its master")


def test_a_stand_in_whose_pod_may_not_be_elected_stays_as_its_template_has_it() -> None:
    seen = view(cluster(stand_in="m-0"), partial(replace, electable=False))
    expect(seen, FailOver, RedisStep.FAIL_OVER_TO_STAND_IN, f"{T} becomes master")


class Recorded:
    """Notes what is done. `lags` get nothing of what their masters write; `denied` is not permitted; `away` says
    nothing for a moment."""

    def __init__(self, *lags: str, denied: bool = False, away: str = "") -> None:
        self.lags, self.denied, self.away, self.done = lags, denied, away, list[str]()
        self.time = 0.0

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        if str(endpoint) == self.away:
            raise Transient(f"{endpoint} does not answer.")
        return (Role.REPLICA, 900) if str(endpoint) in self.lags else (Role.MASTER, 1000)

    def set_electable(self, endpoint: Endpoint, _: Server, *, electable: bool) -> None:
        if self.denied:
            raise AccessDenied("not permitted.")
        self.done.append(f"{endpoint} {'may' if electable else 'may not'} be elected")

    def replicate(self, endpoint: Endpoint, _: Server, master_id: str) -> None:
        self.done.append(f"{endpoint} follows {master_id}")

    def forget(self, endpoint: Endpoint, node_id: str) -> None:
        self.done.append(f"{endpoint} forgets {node_id}")

    def leave_cluster(self, endpoint: Endpoint, _: Server) -> None:
        self.done.append(f"{endpoint} leaves")

    def delete_pod(self, pod: Pod) -> None:
        self.done.append(f"delete {pod.name}")

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def perform(self, action: Action) -> Done:
        clients = SimpleNamespace(redis=self, kubernetes=self, now=lambda: self.time, sleep=self.sleep)
        return perform(action, cast(Any, clients))


def test_it_is_held_back_before_it_follows() -> None:
    """C1: where that is not permitted it follows all the same."""
    seen = view(cluster(stand_in=""), partial(replace, electable=True))
    permitted, denied = Recorded(), Recorded(denied=True)
    assert permitted.perform(decide(seen)).acted
    assert permitted.done == [f"{T} may not be elected", f"{T} follows id-m-0"]
    assert denied.perform(decide(seen)).acted
    assert denied.done == [f"{T} follows id-m-0"]


def test_it_may_be_elected_once_it_gets_what_is_written() -> None:
    """C1."""
    seen = view(view(cluster(stand_in="m-0"), partial(replace, electable=True)), partial(replace, electable=False), T)
    silent, flows = Recorded(T), Recorded()
    assert silent.perform(decide(seen)) == Done(
        f"{T} did not catch up with m-0 within 2.5 s; tried again later", acted=False
    )
    assert silent.done == []
    assert flows.perform(decide(seen)).acted
    assert flows.done == [f"{T} may be elected"]


def standing_in_for_a_replica(*, old: str = "m-0", node: str = "old") -> RedisClusterState:
    """m-0 is r-0's replica, and its stand-in another one."""
    seen = cluster(old=old, stand_in="r-0", changed={"m-0": "r-0", "r-0": ""}, role="slave")
    return replace(view(seen, lambda v: replace(v, table=tuple(_with_slots(n) for n in v.table))), node=node)


@pytest.mark.parametrize(
    ("seen", "copy", "done"),
    [
        (standing_in_for_a_replica, T, ["delete m-0"]),
        (lambda: cluster(stand_in="", changed={"m-0": T, "r-0": T}), "r-0", ["delete m-0"]),
        (
            lambda: standing_in_for_a_replica(node=""),
            "m-0",
            [f"{n} forgets {id_of(T)}" for n in PODS] + [f"{T} leaves"],
        ),
        (
            lambda: replace(cluster(stand_in="m-0"), node="", waited=REDIRECT_SECONDS),
            "r-0",
            [f"{n} forgets {id_of(T)}" for n in PODS] + [f"{T} leaves"],
        ),
    ],
    ids=["a replica goes", "a master's pod goes", "a replica is back", "a master is back"],
)
def test_no_copy_goes_before_the_others_get_what_is_written(
    seen: Callable[[], RedisClusterState], copy: str, done: list[str]
) -> None:
    """C1: right after a synchronization the master may send a replica nothing for a second."""
    silent, flows, action = Recorded(copy), Recorded(), decide(seen())
    answered = silent.perform(action)
    assert (answered.acted, silent.done) == (False, [])
    assert answered.said.startswith(f"{copy} did not catch up with ")
    # A look that fails is no try of the action.
    assert Recorded(away=copy).perform(action) == Done(f"{copy} does not answer", acted=False)
    assert flows.perform(action).acted
    assert sorted(flows.done) == sorted(done)


def test_one_that_follows_a_stranger_is_corrected() -> None:
    """Redis moves a replica to a master that has none."""
    assert expect(cluster(stand_in="m-1"), Replicate, RedisStep.JOIN_STAND_IN, "").master_id == "id-m-0"


def test_its_sync_is_waited_for() -> None:
    seen = server(cluster(stand_in="m-0"), T, syncing=True, sync_left=70_000, link_up=False)
    expect(seen, RedisHold, RedisStep.JOIN_STAND_IN, "m-0-stand-in synchronizes, 70,000 bytes left")


def test_in_sync_it_becomes_master() -> None:
    action = expect(
        cluster(stand_in="m-0"), FailOver, RedisStep.FAIL_OVER_TO_STAND_IN, f"{T} becomes master in place of m-0"
    )
    assert action.member.name == T


def test_a_stand_in_that_would_evict_what_its_master_holds_asks_a_person() -> None:
    """C1."""
    seen = server(server(cluster(stand_in="m-0"), T, maxmemory=1_000), "m-0", used_bytes=5_000)
    stop = expect(seen, Stop, None, f"{T} may hold 1,000 bytes (maxmemory) and would have 5,000")
    assert stop.reason.endswith("raise its maxmemory")
    expect(server(seen, "m-0", maxmemory=1_000), FailOver, RedisStep.FAIL_OVER_TO_STAND_IN, f"{T} becomes master")


def test_a_pod_that_came_back_with_less_room_asks_a_person() -> None:
    """C1: the stand-in goes on."""
    seen = back(cluster(stand_in="", changed={"m-0": T, "r-0": T}))
    seen = server(server(seen, "m-0", maxmemory=1_000), T, used_bytes=5_000)
    expect(seen, Stop, None, "m-0 may hold 1,000 bytes (maxmemory) and would have 5,000")
    expect(seen, Stop, None, f"({T} serves its slots meanwhile)")


def test_not_while_another_shard_is_not_well() -> None:
    """C1."""
    seen = server(cluster(stand_in="m-0"), "r-2", link_up=False)
    expect(seen, RedisHold, RedisStep.FAIL_OVER_TO_STAND_IN, "r-2 has no link to its master")


def slotless(seen: RedisClusterState) -> RedisClusterState:
    """m-0 is a master that serves nothing; the others serve all."""
    return view(
        seen, lambda v: replace(v, table=tuple(replace(n, slots=()) if n.id == id_of("m-0") else n for n in v.table))
    )


def test_a_master_without_slots_moves_without_a_failover() -> None:
    """C1: none of one ever ends."""
    expect(slotless(cluster()), CreateStandIn, RedisStep.CREATE_STAND_IN, "master m-0 gets a stand-in")
    expect(slotless(cluster(stand_in="m-0")), DeletePod, RedisStep.MOVE_SHARD_POD, "m-0 moves")
    back = replace(slotless(cluster(old="", stand_in="m-0")), node="old", waited=6.0)
    expect(back, Forget, RedisStep.REMOVE_STAND_IN, "every node forgets m-0-stand-in")
    reset = alone(without(slotless(cluster(old="", stand_in="")), T), T)
    expect(reset, DeletePod, RedisStep.DELETE_STAND_IN, "m-0-stand-in is no longer needed")


def test_a_master_without_slots_that_lost_its_volume_is_followed_by_who_followed_it_before() -> None:
    """C2: what it was is gone, and nobody may forget its own master."""
    seen = slotless(cluster(old="", stand_in="m-0"))

    def renamed(node: ClusterNode) -> ClusterNode:
        """m-0 is another node now, and what it was is dead."""
        former = node.knows(id_of("m-0"))
        assert former is not None
        new = replace(former, id="id-new")
        dead = replace(former, flags=frozenset({"master", "fail"}), connected=False)
        others = tuple(n for n in node.table if n is not former)
        return replace(node, table=(*others, new) if node.id == id_of("m-0") else (*others, new, dead))

    seen = view(seen, renamed)
    seen = view(seen, lambda v: replace(v, id="id-new"), "m-0")
    action = expect(seen, Replicate, RedisStep.SYNC_SHARD_POD, f"{T} follows m-0, which is another node now")
    assert (action.member.name, action.master_id) == (T, "id-new")

    def follow(node: ClusterNode) -> ClusterNode:
        return replace(
            node, table=tuple(replace(n, master="id-new") if n.master == id_of("m-0") else n for n in node.table)
        )

    one = view(seen, follow, T)
    assert expect(one, Replicate, RedisStep.SYNC_SHARD_POD, "r-0 follows m-0").member.name == "r-0"
    expect(view(seen, follow), Forget, RedisStep.REMOVE_STAND_IN, "still lists id-m-0, which is gone")


def test_the_pod_moves_once_the_stand_in_is_master_and_everybody_follows_it() -> None:
    seen = cluster(stand_in="", changed={"m-0": T, "r-0": T})
    action = expect(seen, DeletePod, RedisStep.MOVE_SHARD_POD, f"{T} holds what m-0 holds; m-0 moves")
    assert action.pod.uid == "uid-m-0"


def test_not_while_a_replica_still_follows_the_pod() -> None:
    """C1."""
    seen = cluster(stand_in="", changed={"m-0": T})
    expect(seen, RedisHold, RedisStep.MOVE_SHARD_POD, "r-0 follows id-m-0, which is no master")


def test_a_replicas_pod_moves_without_a_failover() -> None:
    """C1: the stand-in keeps the number of copies."""
    seen = cluster(stand_in="m-1", changed={"m-0": "m-1", "r-0": ""}, role="slave")
    seen = view(seen, lambda v: replace(v, table=tuple(_with_slots(n) for n in v.table)))
    expect(seen, DeletePod, RedisStep.MOVE_SHARD_POD, "m-0 moves")


def _with_slots(node: KnownNode) -> KnownNode:
    return (
        replace(node, slots=SLOTS["m-0"])
        if node.id == "id-r-0"
        else replace(node, slots=() if node.id == "id-m-0" else node.slots)
    )


def test_a_pod_that_is_away_is_waited_for() -> None:
    seen = change(cluster(stand_in="", changed={"m-0": T, "r-0": T}), "m-0", pod=None, node=None)
    expect(seen, RedisHold, RedisStep.MOVE_SHARD_POD, "pod m-0 is not there yet; m-0-stand-in serves its slots")


# With one, once the pod is back


def back(seen: RedisClusterState) -> RedisClusterState:
    return replace(seen, node="")


def test_back_in_sync_the_pod_becomes_master_again() -> None:
    """C2."""
    seen = back(cluster(stand_in="", changed={"m-0": T, "r-0": T}))
    assert expect(seen, FailOver, RedisStep.FAIL_BACK_TO_SHARD_POD, "m-0 becomes master again").member.name == "m-0"


def test_a_pause_of_somebody_elses_is_waited_for() -> None:
    """C1: the new master would take writes while a backup, say, wants none."""
    away = server(cluster(stand_in="m-0"), "m-0", paused=True)
    expect(away, RedisHold, RedisStep.FAIL_OVER_TO_STAND_IN, "writes on m-0 are paused (CLIENT PAUSE)")
    home = server(back(cluster(stand_in="", changed={"m-0": T, "r-0": T})), T, paused=True)
    expect(home, RedisHold, RedisStep.FAIL_BACK_TO_SHARD_POD, f"writes on {T} are paused (CLIENT PAUSE)")


def test_who_forgot_a_stand_in_that_became_master_again_is_introduced_to_it() -> None:
    """C1: the pod stood still while the stand-in was being forgotten."""
    seen = without(back(cluster(stand_in="", changed={"m-0": T, "r-0": T})), T, "m-1", "r-2")
    action = expect(seen, Meet, RedisStep.SYNC_SHARD_POD, "m-1 forgot m-0-stand-in, which is master again")
    assert (action.by.name, action.newcomer.name) == ("m-1", T)


@pytest.mark.parametrize("reset", [False, True])
def test_who_was_promoted_while_the_stand_in_was_being_forgotten_hands_back(*, reset: bool) -> None:
    """C2: nobody hears of the stand-in any more; it serves nothing."""
    seen = back(cluster(stand_in="r-0", changed={"m-0": "r-0", "r-0": ""}))
    seen = view(seen, lambda v: replace(v, table=tuple(_with_slots(n) for n in v.table)))
    seen = alone(seen, T) if reset else without(seen, T, "m-1", "r-2")
    assert expect(seen, FailOver, RedisStep.FAIL_BACK_TO_SHARD_POD, "m-0 becomes master again").member.name == "m-0"


def test_its_sync_is_waited_for_first() -> None:
    seen = server(back(cluster(stand_in="", changed={"m-0": T, "r-0": T})), "m-0", link_up=False)
    expect(seen, RedisHold, RedisStep.SYNC_SHARD_POD, "m-0 has no link to its master")


def test_a_pod_that_does_not_know_its_new_address_is_told_it() -> None:
    seen = edited(back(cluster(stand_in="", changed={"m-0": T, "r-0": T})), "m-0", "m-0", address=Address("10.0.0.99"))
    expect(seen, Meet, RedisStep.SYNC_SHARD_POD, "m-0 learns its new address")


def test_one_whom_a_node_expects_elsewhere_is_introduced_after_a_while() -> None:
    seen = edited(back(cluster(stand_in="", changed={"m-0": T, "r-0": T})), "m-1", "m-0", address=Address("10.0.0.99"))
    expect(seen, RedisHold, RedisStep.SYNC_SHARD_POD, "m-1 does not know yet where m-0 is")
    expect(replace(seen, waited=20), Meet, RedisStep.SYNC_SHARD_POD, "m-1 does not know yet where m-0 is")


def test_an_announced_address_is_good_too() -> None:
    seen = back(cluster(stand_in="", changed={"m-0": T, "r-0": T}))
    for name in (*PODS, T):
        seen = edited(seen, name, "m-0", address=Address("192.0.2.1"))
    seen = view(seen, lambda v: replace(v, announced="192.0.2.1"), "m-0")
    expect(seen, FailOver, RedisStep.FAIL_BACK_TO_SHARD_POD, "m-0 becomes master again")


def test_a_pod_without_its_volume_joins_anew_as_a_replica() -> None:
    """C1: before it may become master."""
    seen = back(cluster(stand_in="", changed={"m-0": "", "r-0": T}))
    seen = view(seen, lambda v: replace(v, table=tuple(_taken(n) for n in v.table)))
    expect(alone(seen, "m-0"), Greet, RedisStep.SYNC_SHARD_POD, "m-0 joins the cluster")
    assert expect(seen, Replicate, RedisStep.SYNC_SHARD_POD, "m-0 becomes a replica of").master_id == id_of(T)


def _taken(node: KnownNode) -> KnownNode:
    """The stand-in has the slots."""
    slots = {id_of(T): SLOTS["m-0"], "id-m-0": ()}
    return replace(node, slots=slots.get(node.id, node.slots))


def test_when_it_is_master_again_everybody_forgets_the_stand_in() -> None:
    """C2."""
    seen = replace(back(cluster(stand_in="m-0")), waited=REDIRECT_SECONDS)
    action = expect(seen, Forget, RedisStep.REMOVE_STAND_IN, f"every node forgets {T}")
    assert (len(action.members), action.stand_in and action.stand_in.name) == (6, T)


def test_before_it_sends_clients_on_for_a_while() -> None:
    """After its reset it would answer CLUSTERDOWN."""
    seen = replace(back(cluster(stand_in="m-0")), waited=2.0)
    hold = expect(seen, RedisHold, RedisStep.REMOVE_STAND_IN, f"{T} redirects clients to m-0")
    assert hold.seconds == REDIRECT_SECONDS - 2.0


def test_clients_write_to_no_stand_in_of_a_replica() -> None:
    seen = back(cluster(stand_in="m-1", changed={"m-0": "m-1", "r-0": ""}, role="slave"))
    seen = view(seen, lambda v: replace(v, table=tuple(_with_slots(n) for n in v.table)))
    expect(seen, Forget, RedisStep.REMOVE_STAND_IN, f"every node forgets {T}")


@pytest.mark.parametrize("late", ["m-1", "r-2"])
def test_not_while_somebody_has_slots_with_it(late: str) -> None:
    """C1: it would take them for unserved, and refuse clients."""
    seen = edited(replace(back(cluster(stand_in="m-0")), waited=20), late, T, slots=SLOTS["m-0"])
    expect(seen, RedisHold, RedisStep.REMOVE_STAND_IN, f"{late} has not heard yet that {T} no longer serves any slot")


def test_not_while_somebody_follows_it() -> None:
    seen = back(cluster(stand_in="m-0", changed={"r-0": T}))
    expect(seen, RedisHold, RedisStep.FAIL_BACK_TO_SHARD_POD, "r-0 still follows m-0-stand-in")


def test_forgotten_by_some_it_is_forgotten_by_all() -> None:
    """R3: after 60 s the others would bring it back."""
    seen = without(back(cluster(stand_in="m-0")), T, "m-1", "r-1")
    expect(seen, Forget, RedisStep.REMOVE_STAND_IN, f"every node forgets {T}")


def test_known_to_nobody_its_pod_is_deleted() -> None:
    action = expect(
        alone(back(cluster(stand_in="")), T), DeletePod, RedisStep.DELETE_STAND_IN, f"{T} is no longer needed"
    )
    assert action.pod.uid == f"uid-{T}"


def test_a_stand_in_for_nobody_asks_a_person() -> None:
    seen = change(cluster(stand_in="m-0"), T, original=None)
    expect(seen, Stop, None, "m-0-stand-in is a stand-in for a pod that no StatefulSet declares")


@pytest.mark.parametrize("denied", ["", "exceeded quota: small, requested: pods=1, used: pods=6, limited: pods=6"])
def test_a_stand_in_that_its_namespace_does_not_take_is_waited_for_with_the_reason(denied: str) -> None:
    """C1: nothing has changed yet; a quota has room again when another pod ends."""
    made = SimpleNamespace(
        workload=lambda owner: Workload(owner), node=lambda _: None, create_stand_in=lambda *_: denied
    )
    done = perform(decide(cluster()), cast(Any, SimpleNamespace(kubernetes=made, redis=None)))
    assert done.acted is (denied == "")
    assert done.said == (f"no stand-in can be made for m-0: {denied}" if denied else "master m-0 gets a stand-in")


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize(
    "seen",
    [
        lambda: cluster(stand_in="m-0"),
        lambda: back(cluster(stand_in="m-0")),
        lambda: change(cluster(stand_in="", changed={"m-0": T, "r-0": T}), "m-0", pod=None, node=None),
        lambda: change(cluster(stand_in="m-0"), "r-2", pod=None, node=None),
    ],
    ids=["before it takes over", "once the pod is back", "while the pod is away", "while another pod is away"],
)
def test_a_stand_in_that_has_ended_is_deleted(seen: Callable[[], RedisClusterState], phase: str) -> None:
    """C2: evicted by its kubelet, say. No controller makes it again, and what its emptyDir held is gone."""
    pod = Pod("shop", T, "uid", "new", ready=False, phase=phase)
    ended = change(seen(), T, pod=pod, endpoint=None, node=None)
    words = f"{T} is {phase} on new, and does not come back"
    assert expect(ended, DeletePod, RedisStep.DELETE_STAND_IN, words).pod.uid == "uid"


def test_a_stand_in_that_is_not_scheduled_says_why() -> None:
    pod = Pod("shop", T, "uid", ready=False, phase="Pending", unschedulable_because="0/4 nodes are available")
    seen = change(cluster(stand_in="m-0"), T, pod=pod, endpoint=None, node=None)
    expect(seen, RedisHold, RedisStep.CREATE_STAND_IN, "pod m-0-stand-in cannot be scheduled: 0/4 nodes are available")
