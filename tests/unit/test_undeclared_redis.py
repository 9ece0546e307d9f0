"""What is said of servers of Redis' kind that nobody declared and that say something of themselves."""

from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest

from eks_rolling.clients.protocols import Redis
from eks_rolling.clients.redis import read_stranger
from eks_rolling.documents.finding import Finding
from eks_rolling.errors import AccessDenied
from eks_rolling.observed.kubernetes import Container, Owner, Pod, Workload
from eks_rolling.observed.redis import Endpoint, Role, Silent, Stranger
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.plan.checks.undeclared_redis import undeclared_redis
from eks_rolling.plan.snapshot import ClusterSnapshot
from eks_rolling.redis.groups import CACHE, GROUP, PART, declared
from eks_rolling.redis.recognition import port_of
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.settings import Settings
from eks_rolling.steps.plan import ASKED, ASKING_SECONDS, SILENT_ONES, ask_strangers
from tests.world import World

STORE = Owner("StatefulSet", "shop", "store")
SERVER = Container("redis:7", ("redis-server",), (6379,))

ALONE = Stranger(Role.MASTER, keys=1200, used_bytes=3_400_000, appends=False, saves=False)
APPENDING = replace(ALONE, appends=True)
SAVING = replace(ALONE, saves=True, unsaved=17)
MASTER = replace(ALONE, in_sync=2)
COPY = replace(ALONE, role=Role.REPLICA, link_up=True)
BEHIND = replace(COPY, link_up=False)


def finding(
    *answers: Stranger | None, volumes: bool = False, container: Container = SERVER, moving: int = 1
) -> Finding:
    """Of a StatefulSet with a pod for each answer, None for one that gives none; `moving` of them move."""
    pods = tuple(
        Pod("shop", f"store-{n}", f"u{n}", "node", STORE, containers=(container,), claims=("data",) if volumes else ())
        for n in range(len(answers))
    )
    said = {f"u{n}": answer for n, answer in enumerate(answers) if answer is not None}
    view = ClusterSnapshot(pods=pods, workloads=(Workload(STORE, desired=len(answers)),), strangers=said)
    (found,) = undeclared_redis(view, pods[:moving])
    return found


@pytest.mark.parametrize(
    ("answers", "volumes", "code", "words"),
    [
        (
            [ALONE],
            False,
            "redis-in-memory",
            "it says that it is a master, with 0 replicas in sync, with 1,200 keys in 3 MB",
        ),
        ([ALONE], True, "redis-in-memory", "saves nothing to its volume"),
        ([ALONE], True, "redis-in-memory", "and keeps nothing on disk"),
        ([APPENDING], True, "redis", "what its append-only file holds comes back from its volume"),
        ([APPENDING], False, "redis-in-memory", "no volume): an eviction would lose every write"),
        ([SAVING], True, "redis", "only what it has saved comes back"),
        ([SAVING], True, "redis", "saves snapshots (17 changes since the last one)"),
        ([None], True, "redis", "only what it has saved comes back"),
        ([None], False, "redis-in-memory", "would lose every write"),
        # A copy loses no write; a master does, whatever follows it: it comes back empty, and its replicas with it.
        ([COPY], False, "redis", "would take a copy while it is away, and no write for as long as its master has all"),
        ([BEHIND], False, "redis-in-memory", "a replica, not in sync"),
        ([MASTER], False, "redis-in-memory", "a master, with 2 replicas in sync"),
        # One that answers nothing may be the master, and the copy that moves may be master by then.
        ([COPY, None], False, "redis-in-memory", "store-0 says that it is a replica, in sync"),
        ([COPY, MASTER], False, "redis-in-memory", "store-1 says that it is a master"),
        ([COPY, COPY, COPY, COPY, COPY], False, "redis", "; 2 more answer"),
        ([replace(MASTER, clustered=True)], True, "redis-in-memory", "a master of a Redis Cluster"),
    ],
)
def test_what_would_be_lost_is_said_by_what_they_say(
    answers: list[Stranger | None], *, volumes: bool, code: str, words: str
) -> None:
    """S1."""
    found = finding(*answers, volumes=volumes)
    assert found.code == code
    assert words in found.reason


def test_a_node_of_a_cluster_is_told_how_to_be_declared() -> None:
    assert f"{PART}: cluster" in finding(replace(APPENDING, clustered=True), volumes=True).remedy


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (("/bin/sh", "-c", "redis-cli SENTINEL FAILOVER mymaster"), "means to hand its role over first"),
        (("redis-cli", "-p", "6379", "bgsave"), "means to save first"),
        (("redis-cli", "shutdown"), "means to save first"),
        (("/scripts/prestop.sh",), "what its preStop hook does is not known"),
        ((), "what its preStop hook does is not known"),
    ],
)
def test_a_prestop_hook_is_part_of_what_would_be_lost(hook: tuple[str, ...], words: str) -> None:
    assert words in finding(MASTER, container=replace(SERVER, stops_later=True, stops_by=hook)).reason
    assert "preStop" not in finding(MASTER).reason


@pytest.mark.parametrize(
    ("text", "settings", "is_so"),
    [
        (
            "redis_version:7.2.4\nrole:master\naof_enabled:0\nconnected_slaves:2\nslave0:ip=10.0.0.1,port=6379,state=online\n"
            "slave1:ip=10.0.0.2,port=6379,state=wait_bgsave\nrdb_changes_since_last_save:5\ndb0:keys=7,expires=0\n"
            "used_memory:1000\n",
            {"save": "3600 1"},
            Stranger(Role.MASTER, in_sync=1, keys=7, used_bytes=1000, appends=False, saves=True, unsaved=5),
        ),
        (
            "dragonfly_version:df-v1.21\nrole:replica\nmaster_link_status:up\nmaster_sync_in_progress:1\n",
            {},
            Stranger(),
        ),
        (
            "role:slave\nmaster_link_status:up\n",
            {"appendonly": "yes"},
            Stranger(Role.REPLICA, link_up=True, appends=True),
        ),
        ("redis_mode:sentinel\n", {}, Stranger(sentinel=True)),
        ("redis_mode:cluster\nrole:master\naof_enabled:1\n", {}, Stranger(Role.MASTER, clustered=True, appends=True)),
        ("", {}, Stranger()),
    ],
)
def test_what_any_server_of_the_kind_says_is_read(text: str, settings: dict[str, str], is_so: Stranger) -> None:
    assert read_stranger(text, settings) == is_so


@pytest.mark.parametrize(
    ("container", "port"),
    [
        (SERVER, 6379),
        (Container("redis:7", ("redis-server", "--port", "7000"), (6379,)), 7000),
        (Container("redis:7", ("redis-server", "--port", "99999999"), (6400,)), 6400),
        (Container("redis:7", ("redis-server", "--port", "70000")), 6379),
        (Container("redis:7", ("redis-sentinel", "/etc/s.conf")), 26379),
        (Container("redis:7", ("sh", "-c", "exec redis-server --port 6390")), 6390),
    ],
)
def test_a_server_is_asked_where_it_listens(container: Container, port: int) -> None:
    assert port_of(Pod("shop", "store-0", containers=(container,))) == port


class Asking:
    """Answers whoever is asked, after seconds, and remembers whom."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: list[Endpoint] = []
        self.time = 0.0
        self._seconds = seconds

    def stranger(self, endpoint: Endpoint) -> Stranger | Silent:
        self.asked.append(endpoint)
        self.time += self._seconds
        if endpoint.address.host.endswith(".1"):
            raise AccessDenied("It requires a password.")
        return COPY if endpoint.address.host.endswith(".2") else Silent(endpoint.address, "connection refused")


def servers(*hosts: str, owner: Owner = STORE, **more: Any) -> list[Pod]:
    return [Pod("shop", f"p-{h}", f"u-{h}", "node", owner, containers=(SERVER,), address=h, **more) for h in hosts]


def asked_of(
    asking: Asking, pods: list[Pod], *workloads: Workload, staying: str = ""
) -> tuple[dict[str, Stranger], frozenset[str]]:
    """Of all pods but those on the node `staying`, which is not replaced."""
    clients = World().clients(Settings(cluster="demo"))
    groups, _ = declared(workloads)
    view = ClusterSnapshot(pods=tuple(pods), workloads=workloads, redis=tuple(map(RedisView, groups)))
    clients = replace(clients, redis=cast(Redis, asking), now=lambda: asking.time)
    return ask_strangers(view, [p for p in pods if p.node != staying], clients)


def answers_of(asking: Asking, pods: list[Pod], *workloads: Workload) -> dict[str, Stranger]:
    return asked_of(asking, pods, *workloads)[0]


def test_servers_are_asked_without_a_password_and_whoever_refuses_or_is_silent_fails_nothing() -> None:
    asking = Asking()
    assert answers_of(asking, servers("10.0.0.1", "10.0.0.2", "10.0.0.3")) == {"u-10.0.0.2": COPY}
    assert [(e.address.host, e.login.auth, e.login.tls) for e in asking.asked] == [
        (f"10.0.0.{n}", "", "") for n in (1, 2, 3)
    ]


def test_only_servers_that_nobody_declared_are_asked() -> None:
    group, cache = Owner("StatefulSet", "shop", "shards"), Owner("StatefulSet", "shop", "cache")
    asking = Asking()
    pods = [
        *servers("10.0.1.2", owner=group),
        *servers("10.0.2.2", owner=cache),
        *servers("", "10.0.3.2", phase="Failed"),
        replace(servers("10.0.4.2")[0], containers=(Container("web:1"),)),
        replace(servers("10.0.5.2")[0], owner=None, labels={LABEL: "shards"}),
    ]
    of_group = Workload(group, annotations={GROUP: "shards", PART: "cluster"})
    assert answers_of(asking, pods, of_group, Workload(cache, annotations={PART: CACHE})) == {}
    assert asking.asked == []


def test_it_ends_however_many_there_are_and_however_slow_they_are() -> None:
    many = servers(*(f"10.0.{n}.2" for n in range(ASKED + 5)))
    assert len(answers_of(Asking(), many)) == ASKED
    slow = Asking(seconds=6.0)
    answers_of(slow, many)
    assert len(slow.asked) * 6.0 <= ASKING_SECONDS + 6.0


def of_tenants(silent: int, tenants: int) -> list[Pod]:
    """Namespaces first in the list with silent servers; and, last, another's two replicas and their master."""
    early = [
        replace(pod, namespace=f"a{t}", uid=f"a{t}-{pod.uid}", owner=Owner("Deployment", f"a{t}", "redis"))
        for t in range(tenants)
        for pod in servers(*(f"10.{t}.{n}.3" for n in range(silent)))
    ]
    return [*early, *servers("10.9.0.2", "10.9.1.2", "10.9.2.2")]


@pytest.mark.parametrize(("silent", "tenants"), [(40, 1), (2000, 1), (8, 5), (40, 8)])
def test_silent_servers_of_some_tenants_keep_no_other_from_being_asked(silent: int, tenants: int) -> None:
    """T1, S1: the replicas of another namespace can still be accepted as what they are."""
    asking, pods = Asking(seconds=2.0), of_tenants(silent, tenants)
    found, not_asked = asked_of(asking, pods)
    assert set(found) == {"u-10.9.0.2", "u-10.9.1.2", "u-10.9.2.2"}
    assert not_asked == {p.uid for p in pods} - {
        f"a{e.address.host.split('.')[1]}-u-{e.address.host}" for e in asking.asked
    } - set(found)
    assert asking.time <= ASKING_SECONDS + 2.0
    by_tenant = Counter(e.login.namespace for e in asking.asked)
    assert all(by_tenant[f"a{t}"] <= SILENT_ONES for t in range(tenants))


def test_one_that_answers_with_talkative_neighbours_is_asked_in_its_turn() -> None:
    pods = [
        replace(p, namespace="a", uid=f"a-{p.uid}", owner=Owner("Deployment", "a", "x"))
        for p in servers(*(f"10.0.{n}.2" for n in range(99)))
    ]
    found = answers_of(Asking(), [*pods, *servers("10.9.0.2", "10.9.1.2")])
    assert {"u-10.9.0.2", "u-10.9.1.2"} < set(found)
    assert len(found) == ASKED


def test_only_servers_of_controllers_with_a_pod_that_moves_are_asked() -> None:
    """Of these all, on whatever node: their roles may have changed hands by the eviction."""
    elsewhere = [replace(p, node="new") for p in servers("10.0.1.2", "10.0.2.2")]
    others = [replace(p, owner=Owner("StatefulSet", "shop", "other")) for p in elsewhere]
    mine = [*servers("10.0.3.2"), *(replace(p, node="new") for p in servers("10.0.4.2"))]
    found, not_asked = asked_of(Asking(), [*others, *mine], staying="new")
    assert (set(found), not_asked) == ({"u-10.0.3.2", "u-10.0.4.2"}, frozenset())


def test_whose_turn_did_not_come_is_said() -> None:
    pods = tuple(Pod("shop", f"store-{n}", f"u{n}", "node", STORE, containers=(SERVER,)) for n in range(3))
    view = ClusterSnapshot(pods=pods, strangers={"u0": COPY}, not_asked=frozenset({"u1", "u2"}))
    (found,) = undeclared_redis(view, pods)
    assert "came before 2 of its 3 pods: not asked" in found.reason
