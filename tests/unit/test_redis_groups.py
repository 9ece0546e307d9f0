"""Redis groups as they are declared, and what a plan says of them before anything is changed."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import Owner, Selector, Workload
from eks_rolling.observed.redis import Address, Login, Sentinel, Silent
from eks_rolling.plan.checks import ACCEPTABLE
from eks_rolling.plan.checks.redis_sentinel import RedisView, describe, redis_findings
from eks_rolling.redis.cluster import RedisClusterState
from eks_rolling.redis.groups import (
    AUTH,
    GROUP,
    MASTER_NAME,
    PART,
    PORT,
    REFRESH,
    STAND_IN_LABELS,
    TLS,
    DeclarationProblem,
    Part,
    broken,
    declared,
    endpoint_of,
)
from eks_rolling.redis.groups import CACHE as CACHE_ROLE
from tests.unit.test_cluster import HOST as CLUSTER_HOST
from tests.unit.test_cluster import cluster, view
from tests.unit.test_sentinel import GROUP as CACHE
from tests.unit.test_sentinel import HOST, SMALL, group, holding, server, views


def stateful_set(name: str, part: str, desired: int = 1, **annotations: str) -> Workload:
    said = {GROUP: "cache", PART: part, MASTER_NAME: "mymaster"} | {
        {"auth": AUTH, "tls": TLS, "port": PORT, "group": GROUP, "master_name": MASTER_NAME, "refresh": REFRESH}[k]: v
        for k, v in annotations.items()
    }
    return Workload(
        Owner("StatefulSet", "default", name), desired=desired, annotations={k: v for k, v in said.items() if v}
    )


def whole() -> list[Workload]:
    return [
        stateful_set("m", "sentinel-master", auth="redis-auth"),
        stateful_set("r", "sentinel-replica", 2, auth="redis-auth", port="6380"),
        stateful_set("s", "sentinel", 3, tls="redis-tls"),
    ]


def problems(workloads: Iterable[Workload]) -> list[str]:
    groups, found = declared(workloads)
    assert groups == []
    return [f"{p.object}: {p.reason}; {p.remedy}" for p in found]


def test_pods_are_counted_from_where_their_stateful_set_says() -> None:
    """S2: with `spec.ordinals.start` another pod than the group's would be waited for, and its last one overlooked."""
    master, replicas, sentinels = whole()
    (found,), wrong = declared([master, replace(replicas, first=3), sentinels])
    assert wrong == []
    assert [s.pods for s in found.of(Part.MASTER, Part.REPLICA)] == [("m-0",), ("r-3", "r-4")]


def test_a_group_is_its_stateful_sets() -> None:
    (found,), wrong = declared([*whole(), Workload(Owner("Deployment", "default", "web"))])
    assert wrong == []
    assert (str(found), found.master_name, found.lease) == (
        "default/cache",
        "mymaster",
        "default/eks-rolling-redis-cache",
    )
    (replicas,) = found.of(Part.REPLICA)
    assert (replicas.pods, replicas.login) == (("r-0", "r-1"), Login("default", auth="redis-auth"))
    endpoint = endpoint_of(replicas, "r-1", "10.0.0.7")
    assert (endpoint.address, str(endpoint)) == (Address("10.0.0.7", 6380), "default/r-1")
    (sentinels,) = found.of(Part.SENTINEL)
    assert (sentinels.port, sentinels.login.tls) == (26379, "redis-tls")


@pytest.mark.parametrize(
    ("workloads", "words"),
    [
        ([stateful_set("m", "primary")], "says 'primary'; it must be one of sentinel-master, sentinel-replica"),
        ([stateful_set("m", "sentinel", group="")], "redis-group is missing; name its group"),
        ([stateful_set("m", "sentinel-master", 2)], "it is the group's master and has 2 replicas"),
        ([stateful_set("m", "sentinel", refresh="often")], "says 'often'; it must be one of reset, restart"),
        ([stateful_set("m", "sentinel", port="70000")], "says '70000'; it must be a TCP port"),
        (
            [replace(stateful_set("m", "sentinel"), owner=Owner("Deployment", "default", "m"))],
            "its annotations declare Redis, but only a StatefulSet can be part of a group",
        ),
        ([w for w in whole() if w.owner.name != "r"], "default/cache: it has no replica, so its master cannot move"),
        ([w for w in whole() if w.owner.name != "s"], "default/cache: it has no sentinels"),
        ([w for w in whole() if w.owner.name != "m"], "0 StatefulSets are sentinel-master; declare exactly one"),
        ([*whole(), stateful_set("m2", "sentinel-master")], "2 StatefulSets are sentinel-master"),
        (
            [*whole(), stateful_set("r2", "sentinel-replica", master_name="other")],
            "its StatefulSets name mymaster and other",
        ),
        (
            [stateful_set("c", "cluster", 3), stateful_set("s", "sentinel", 3)],
            "some of its StatefulSets are of a Redis Cluster and some of a Sentinel group",
        ),
    ],
)
def test_a_wrong_declaration_is_one_sentence_with_a_remedy(workloads: list[Workload], words: str) -> None:
    assert any(words in problem for problem in problems(workloads)), problems(workloads)


CACHE_LEASE = "default/eks-rolling-redis-cache"
MOVING: set[Owner | None] = {s.owner for s in CACHE.sets}
TWO_ZONES = (("m-0", "zone-a"), ("r-0", "zone-b"), ("r-1", "zone-b"))


def said(
    of: RedisView, wrong: tuple[DeclarationProblem, ...] = (), moving: set[Owner | None] = MOVING
) -> list[tuple[str, Severity, str]]:
    return [(f.code, f.severity, str(f)) for f in redis_findings([of], wrong, moving)]


def test_a_group_in_order_is_nothing_to_speak_of() -> None:
    assert said(RedisView(CACHE, group(), zones=TWO_ZONES)) == []


def test_a_group_that_has_no_pod_on_the_nodes_is_left_alone() -> None:
    view = RedisView(CACHE, fault="wrong password")
    assert list(redis_findings([view], (), {Owner("Deployment", "default", "web")})) == []


def test_a_cache_belongs_to_no_group() -> None:
    web = Owner("Deployment", "default", "web")
    assert declared([Workload(web, annotations={PART: CACHE_ROLE})]) == ([], [])
    (mixed,) = problems([Workload(web, annotations={PART: CACHE_ROLE, AUTH: "redis-auth"})])[:1]
    assert "only a StatefulSet" in mixed


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("app", "it must be KEY=VALUE,KEY=VALUE"),
        ("app=redis, tier=data", "its stand-in would be a pod of the StatefulSet's own"),
    ],
)
def test_labels_for_a_stand_in_are_checked_beforehand(said: str, words: str) -> None:
    """C3."""
    own = Selector((("app", "redis"), ("tier", "data")))
    shards = replace(stateful_set("c", "cluster", 6, master_name=""), selector=own)
    (problem,) = problems([replace(shards, annotations={**shards.annotations, STAND_IN_LABELS: said})])
    assert words in problem
    right = replace(shards, annotations={**shards.annotations, STAND_IN_LABELS: "app=redis,net=data"})
    assert len(declared([right])[0]) == 1


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("m-0", True),
        ("m-0.redis", True),
        ("m-0.redis.default", True),
        ("m-0.redis.default.svc.cluster.local", True),
        ("M-0.redis.default.svc.cluster.local.", True),
        ("redis.default.svc", True),
        ("m-1.redis.default.svc", False),
        ("m-0.other.default.svc", False),
        ("m-0.redis.shop.svc", False),
        ("redis-replica.default.svc", False),
        ("10.0.0.1", False),
    ],
)
def test_a_pod_is_known_by_its_stable_name(host: str, whose: bool) -> None:
    """Sentinels with announce-hostnames name servers so, where these announce nothing themselves."""
    (found,), _ = declared([replace(w, service="redis") for w in whole()])
    (master,) = found.of(Part.MASTER)
    assert master.names("m-0", host) is whose
    (replicas,) = found.of(Part.REPLICA)
    assert not replicas.names("r-0", "redis.default.svc"), "it gives two pods their names"


def test_a_wrong_declaration_blocks_only_where_its_own_pods_move() -> None:
    """R5."""
    _, wrong = declared([*whole(), stateful_set("x", "leader", group="other")])
    healthy = RedisView(CACHE, group(), zones=TWO_ZONES)
    elsewhere = [(f.code, f.severity) for f in redis_findings([healthy], wrong, {CACHE.sets[0].owner})]
    assert elsewhere == [("redis-declaration", Severity.NOTE)]
    there = [(f.code, f.severity) for f in redis_findings([], wrong, {Owner("StatefulSet", "default", "x")})]
    assert there == [("redis-declaration", Severity.BLOCKS)]


@pytest.mark.parametrize("part", ["sentinel-replica", "sentinel"])
def test_a_group_without_the_set_that_is_declared_wrongly_is_another_group(part: str) -> None:
    """R5, S1: its other sets alone are no group to move, and what is wrong is said once, of that set."""
    more = stateful_set("more", part, 2, port="70000")
    groups, wrong = declared([*whole(), more, stateful_set("x", "cluster", 3, group="other")])
    assert [str(g) for g in groups] == ["default/other"]
    ((found, owners),) = [(str(p.object), p.owners) for p in wrong]
    assert "more" in found
    assert owners == {w.owner for w in (*whole(), more)}


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ([stateful_set("r", "replica", port="0")], ["StatefulSet default/r: the annotation eks-rolling.io/redis-port"]),
        (
            [stateful_set("r", "replica", 2), stateful_set("s", "sentinl", 3)],
            [
                "StatefulSet default/r: the annotation eks-rolling.io/redis-role says 'replica'",
                "default/s: the annotation",
            ],
        ),
        ([], ["it has no replica"]),
        ([stateful_set("r", "sentinel-replica", 0)], ["it has no replica"]),
        ([stateful_set("r", "sentinel-replica", group="")], ["it has no replica"]),
        ([stateful_set("r", "sentinel-replica", group="../x")], ["it has no replica"]),
        ([stateful_set("r", "sentinel-replica", group="chache")], ["it has no replica"]),
    ],
)
def test_the_group_that_a_wrong_declaration_means_is_known(spoiled: list[Workload], words: list[str]) -> None:
    """S2: its Lease tells whether it is half moved. What is wrong with it is said once, and it is named once."""
    kept = [w for w in whole() if w.owner.name not in {"r", *(s.owner.name for s in spoiled)}]
    _, wrong = declared([*kept, *spoiled])
    (meant,) = [each for each in broken(wrong) if each.name == "cache"]
    assert (str(meant), meant.lease) == ("default/cache", CACHE_LEASE)
    assert all(each in meant.wrong for each in words), meant.wrong
    assert "Redis group" not in meant.wrong


@pytest.mark.parametrize("name", ["", "../x", "a" * 51])
def test_a_declaration_that_means_no_group_means_no_lease(name: str) -> None:
    """T1: what a tenant wrote leads to no other object."""
    _, wrong = declared([stateful_set("r", "sentinel-replica", group=name)])
    assert wrong
    assert broken(wrong) == []


def test_a_declaration_that_cannot_be_followed_blocks() -> None:
    ((code, severity, text),) = said(
        RedisView(CACHE, group(), zones=TWO_ZONES),
        (DeclarationProblem("x", "y", "z", frozenset({CACHE.sets[0].owner})),),
    )
    assert (code, severity, text) == ("redis-declaration", Severity.BLOCKS, "x: y; z")


def test_a_wrong_password_blocks_with_the_clients_sentence() -> None:
    ((code, severity, text),) = said(RedisView(CACHE, fault="r-0 refuses the password of Secret default/auth"))
    assert (code, severity) == ("redis-access", Severity.BLOCKS)
    assert "r-0 refuses the password of Secret default/auth" in text


def test_a_group_that_is_not_healthy_blocks_and_says_why() -> None:
    silent = group()
    watcher = replace(silent.watchers[0], view=Silent(Address(HOST["s-0"], 26379), "connection refused"))
    silent = replace(silent, watchers=(watcher, *silent.watchers[1:]))
    ((code, severity, text),) = said(RedisView(CACHE, silent, zones=TWO_ZONES))
    assert (code, severity) == ("redis-not-healthy", Severity.BLOCKS)
    assert "pod s-0 does not answer: connection refused" in text


def test_a_group_that_a_dead_roll_left_half_moved_only_holds() -> None:
    ((code, severity, text),) = said(RedisView(CACHE, group("r-0"), begun_by="roll-1/node-a", zones=TWO_ZONES))
    assert (code, severity) == ("redis-half-moved", Severity.HOLDS)
    assert "roll-1/node-a left it half moved" in text


@pytest.mark.parametrize(
    ("name", "changes", "code", "words"),
    [
        ("r-0", {"version": (6, 0, 16)}, "redis-too-old", "r-0 runs redis 6.0.16"),
        ("r-0", {"denied": frozenset({"FAILOVER"})}, "redis-commands", "r-0 does not know or permit FAILOVER"),
        ("m-0", {"can_follow": False}, "redis-masterauth", "m-0 has no masterauth"),
        ("m-0", {"min_replicas_to_write": 2}, "redis-min-replicas", "with one of 2 replicas away, writes would stop"),
        ("m-0", {"persists": False}, "redis-no-persistence", "m-0 persists nothing"),
        ("r-1", {"read_only": False}, "redis-writable-replica", "r-1 takes writes as a replica (replica-read-only no)"),
    ],
)
def test_what_would_hurt_is_named(name: str, changes: dict[str, object], code: str, words: str) -> None:
    ((found, _, text),) = said(RedisView(CACHE, server(group(), name, **changes), zones=TWO_ZONES))
    assert found == code
    assert words in text


def test_a_cluster_that_tells_clients_names_blocks_because_a_stand_in_has_none() -> None:
    """C1: they would be led nowhere while it serves the slots."""
    seen = cluster(old="")
    moving: set[Owner | None] = {seen.group.sets[0].owner}

    def about_names(state: RedisClusterState) -> list[tuple[str, Severity, str]]:
        return [f for f in said(RedisView(seen.group, state), moving=moving) if f[0] == "redis-endpoint-names"]

    assert about_names(seen) == []
    told = view(seen, lambda v: replace(v, tells_names=True), "r-1")
    ((code, severity, text),) = about_names(told)
    assert severity == Severity.BLOCKS
    assert "r-1 tells clients names (cluster-preferred-endpoint-type hostname)" in text
    assert code in ACCEPTABLE


def test_nodes_that_announce_other_addresses_than_their_pods_own_block() -> None:
    """C1: a stand-in made of the same template would announce one where the pod is, or where nobody is."""
    seen = cluster(old="")
    moving: set[Owner | None] = {seen.group.sets[0].owner}

    def about(state: RedisClusterState) -> list[tuple[str, Severity, str]]:
        return [f for f in said(RedisView(seen.group, state), moving=moving) if f[0] == "redis-announced-address"]

    own = view(seen, lambda v: replace(v, announced=CLUSTER_HOST["r-1"]), "r-1")
    assert about(own) == []
    ((code, severity, text),) = about(view(own, lambda v: replace(v, announced="203.0.113.7"), "m-1", "r-2"))
    assert severity == Severity.BLOCKS
    assert "m-1 announces 203.0.113.7 (cluster-announce-ip), which is not its pod's address" in text
    assert code in ACCEPTABLE


def test_no_replica_that_may_become_master_blocks() -> None:
    seen = server(server(group(), "r-0", priority=0), "r-1", priority=0)
    assert [code for code, _, _ in said(RedisView(CACHE, seen, zones=TWO_ZONES))] == ["redis-priority"]


def test_replicas_with_less_room_than_their_master_needs_block() -> None:
    """S1."""
    seen = holding(group(), r_0=SMALL, r_1=SMALL)
    assert [code for code, _, _ in said(RedisView(CACHE, seen, zones=TWO_ZONES))] == ["redis-maxmemory"]
    assert said(RedisView(CACHE, holding(group(), r_0=SMALL), zones=TWO_ZONES)) == []


def test_all_servers_in_one_zone_block() -> None:
    one = tuple((pod, "zone-a") for pod, _ in TWO_ZONES)
    ((code, severity, text),) = said(RedisView(CACHE, group(), zones=one))
    assert (code, severity) == ("redis-one-zone", Severity.BLOCKS)
    assert "its master and all its replicas are in zone-a" in text


def test_a_quorum_of_all_sentinels_holds_and_a_slow_detection_is_noted() -> None:
    def slow(view: Sentinel) -> Sentinel:
        return replace(view, quorum=3, down_after_ms=30_000)

    found = said(RedisView(CACHE, views(group(), slow), zones=TWO_ZONES))
    assert [code for code, _, _ in found] == ["redis-quorum", "redis-down-after"]


def test_sentinels_that_monitor_other_masters_too_block_unless_that_is_accepted() -> None:
    """S2: of these nobody forgets a sentinel that moved, and after three moves no majority is left to fail over."""
    seen = views(group(), lambda v: replace(v, beside=("queue", "store")), "s-1")
    ((code, severity, text),) = said(RedisView(CACHE, seen, zones=TWO_ZONES))
    assert (code, severity) == ("redis-shared-sentinels", Severity.BLOCKS)
    assert "sentinel s-1 also monitors queue and store: for these masters, the other sentinels would keep" in text
    assert code in ACCEPTABLE


def test_a_detection_quicker_than_a_pause_blocks() -> None:
    """S1: sentinels would take a paused master for a dead one."""
    seen = views(group(), lambda v: replace(v, down_after_ms=1500), "s-1")
    ((code, severity, text),) = said(RedisView(CACHE, seen, zones=TWO_ZONES))
    assert (code, severity) == ("redis-down-after", Severity.BLOCKS)
    assert "down-after-milliseconds is 1500" in text


def test_what_a_sentinel_does_not_permit_is_named_and_what_is_not_needed_is_not() -> None:
    seen = views(group(), lambda v: replace(v, denied=frozenset({"SENTINEL RESET", "ACL DRYRUN"})), "s-1")
    ((code, _, text),) = said(RedisView(CACHE, seen, zones=TWO_ZONES))
    assert code == "redis-commands"
    assert "s-1 does not know or permit SENTINEL RESET;" in text
    unsure = server(group(), "r-0", denied=frozenset({"ACL DRYRUN", "COMMAND INFO"}))
    assert said(RedisView(CACHE, unsure, zones=TWO_ZONES)) == []


def test_the_plan_shows_who_is_what_and_where() -> None:
    shown = describe(RedisView(CACHE, group(), zones=TWO_ZONES))
    assert shown["healthy"] is True
    assert [(s["pod"], s["role"], s["zone"]) for s in shown["servers"]] == [
        ("m-0", "master", "zone-a"),
        ("r-0", "replica", "zone-b"),
        ("r-1", "replica", "zone-b"),
    ]
    assert shown["sentinels"][0]["master"] == "10.0.0.1:6379"
