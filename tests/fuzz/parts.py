"""What is generated, what is done with it, and what must hold whatever it was: five parts.

A case fails by any exception but the product's own (RollError), and by any effect that its part does not allow.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from eks_rolling.clients import redis
from eks_rolling.clients.kubernetes import path_of
from eks_rolling.clients.protocols import Clients, HttpAnswer
from eks_rolling.errors import RollError
from eks_rolling.names import is_label_value, is_object_name
from eks_rolling.observed import marks
from eks_rolling.observed.kubernetes import Owner, Selector, Workload
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, Login, Sentinel, Server, Silent
from eks_rolling.payloads import RollRequest
from eks_rolling.redis.groups import ANNOTATIONS, CACHE, GROUP, PART, Part, declared, endpoint_of
from eks_rolling.redis.stand_in import name_for
from eks_rolling.roll import lock
from eks_rolling.runtime import run_step
from eks_rolling.settings import Moment, Settings
from tests.assembly import HOOK_FUNCTION, HOOK_URL, HOOKS
from tests.fuzz.wild import Wild
from tests.hostile.test_redis_answers import INFO, STATE, TABLE, Liar
from tests.redis_client import ClosingClient
from tests.world import World

Case = Callable[[Wild], None]
"""One case: draws, does, and checks."""

ROLL = "roll-1"
LOCK = "kube-system/eks-rolling"
AUTOSCALER = Owner("Deployment", "kube-system", "cluster-autoscaler")
WEB = Owner("StatefulSet", "tenant", "web")
RIGHT = Workload(WEB, uid="u", desired=1, selector=Selector((("app", "web"),)))
SETTINGS = Settings.parse({"cluster": "demo", "autoscaler": {"mode": "pause"}, "hooks": HOOKS})


def cluster() -> World:
    """Three nodes, two of them outdated; no controller has made anything yet."""
    world = World()
    world.group("ng-a", ["zone-a"], maximum=3)
    for _ in range(2):
        world.add_node("ng-a", "zone-a")
    world.new_template_version("ng-a")
    world.add_node("ng-a", "zone-a")
    world.deployment("cluster-autoscaler", 1, namespace="kube-system")
    world.effects.clear()
    return world


def clients_of(world: World) -> Clients:
    def sleep(seconds: float) -> None:
        world.time += seconds

    return replace(world.clients(SETTINGS), sleep=sleep)


def only(world: World, *allowed: str) -> None:
    """Every effect on the world begins with one of those."""
    other = [effect for effect in world.effects if not effect.startswith(allowed)]
    assert not other, other


# Declarations: annotations of StatefulSets


DECLARED = {
    **dict.fromkeys(ANNOTATIONS, ("web", "redis-auth", "tenant", "a" * 60)),
    PART: (*Part, CACHE),
    "eks-rolling.io/redis-port": ("6379", "26379", "0", "65536"),
    "eks-rolling.io/sentinel-refresh": ("reset", "restart"),
    "eks-rolling.io/stand-in-labels": ("a=b,c=d", "app=web"),
}


def declarations() -> Iterator[Case]:
    """A bad one never fails a good one, nor the plan; what is followed has names that lead nowhere else."""
    good = replace(RIGHT, annotations={GROUP: "good", PART: Part.CLUSTER})

    def case(wild: Wild) -> None:
        bad = [
            replace(
                RIGHT,
                owner=Owner(
                    wild.dice.choice(("StatefulSet", "StatefulSet", "Deployment")), "tenant-b", f"bad-{number}"
                ),
                desired=wild.dice.randrange(4),
                service=wild.near(("web", "")),
                annotations=wild.some(sorted(ANNOTATIONS), lambda key: wild.near(DECLARED[key]), 0.7),
            )
            for number in range(wild.dice.choice((1, 1, 2, 3)))
        ]
        groups, problems = declared([good, *bad])
        assert "good" in {group.name for group in groups}
        assert all(problem.object and problem.reason and problem.remedy for problem in problems)
        for group in groups:
            assert is_label_value(group.name)
            path_of("apis/coordination.k8s.io/v1", "leases", group.lease.partition("/")[2], namespace=group.namespace)
            for part_set in group.sets:
                assert all(is_object_name(name_for(pod)) for pod in part_set.pods)
                assert all(not name or is_object_name(name) for name in (part_set.login.auth, part_set.login.tls))
                assert 0 < endpoint_of(part_set, "pod", "10.0.0.1").address.port < 65536
        _plan_with(bad)

    yield case


def _plan_with(bad: list[Workload]) -> None:
    world = cluster()
    for workload in bad:
        owner = world._add(workload.owner.kind, "tenant-b", workload.owner.name, 0, workload.annotations)
        world.workloads_by_owner[owner].workload = replace(
            world.workloads_by_owner[owner].workload, service=workload.service
        )
    answer = run_step("plan", {"roll": ROLL, "input": {}}, clients_of(world))
    assert len(answer["output"]["nodes"]) == 2
    only(world)


# Marks: what a roll writes, on nodes, groups, instances, the autoscaler and the lock


NODE_MARKS = {
    marks.NODE_ROLL: (ROLL,),
    marks.NODE_LAUNCH: (
        f"{'a' * 20}-{'b' * 20}-1@999000",
        "desired:2@999000",
        "desired:2:raised@999000",
        "desired:2:raised-3@999000",
    ),
    marks.NODE_MOVING: ("Deployment default/web | StatefulSet default/db",),
    marks.NODE_ASKED: ('{"u": 1}',),
    marks.NODE_TARGETS: (
        '[["arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/0123456789abcdef", 80, false]]',
        '[["classic", null, true]]',
    ),
    marks.NODE_SERVING: ("10.0.0.1,10.0.0.2",),
    marks.NODE_CORDONED: ("true",),
    marks.NODE_EXCLUDED: ("true",),
    marks.NODE_SCALE_DOWN: ("true",),
}
ACCOUNT_MARKS = {
    marks.GROUP_MAXIMUM: ("3 to 5", "3", "9"),
    marks.GROUP_RESUME: ("AZRebalance ReplaceUnhealthy", "-", "Launch"),
}
LOCK_MARKS = {
    lock.PAUSE: ("now",),
    lock.PAUSED_AT: ("999000",),
    lock.FAILED: ("node-1",),
    lock.KEEP_TAINTS: ("asked for",),
    lock.ACCEPTED: ('["outdated"]',),
    lock.STEPS_UNTIL: ("999000", "1000050"),
}


def marked() -> Iterator[Case]:
    """A restore ends and frees the lock; what stands on nodes alone has no effect in the account."""

    def case(wild: Wild) -> None:
        world = cluster()
        _mark(world, wild)
        world.effects.clear()
        bore = {machine.id for machine in world.machines.values() if marks.INSTANCE_REPLACES in machine.tags}
        by = wild.chance(0.5)
        _restore(world, {"roll": ROLL} | ({"by": "watchdog-1"} if by else {}))
        theirs = {f"tag {name}" for name in world.groups_by_name}
        # Instances bear tags that only our roles may write, by which one may be terminated; no node's mark launches,
        # claims or registers. Who has the place of one that bears such a tag is written there.
        only(world, "lease ", "update node ", f"update {AUTOSCALER}", "resume ", "untag ", "maximum of ", "protect ",
             "terminate ", "evict ", *theirs, *(f"tag {instance}: " for instance in bore))  # fmt: skip
        assert not world.leases[LOCK].holder
        tagged = {machine.id for machine in world.machines.values() if marks.INSTANCE_REPLACES in machine.tags}
        left = [n for n in world.nodes_by_name.values() if n.annotations.keys() & {*marks.NODE_ANNOTATIONS}]
        assert [node.name for node in left if node.instance not in tagged] == []
        with suppress(RollError):
            run_step("find_orphans", {"roll": ROLL}, clients_of(world))

    yield case


def _mark(world: World, wild: Wild) -> None:
    ids = [*sorted(world.machines), marks.SURPLUS]
    for node in list(world.nodes_by_name.values()):
        found = wild.some(list(NODE_MARKS), lambda key: wild.near(NODE_MARKS[key]))
        cordoned = marks.NODE_CORDONED in found and wild.chance(0.5)
        taints = (wild.dice.choice((marks.SOFT_TAINT, marks.HARD_TAINT)),) if wild.chance(0.5) else ()
        world._set_node(replace(node, annotations=found, taints=taints, unschedulable=cordoned))
    group = world.groups_by_name["ng-a"]
    tags = wild.some(list(ACCOUNT_MARKS), lambda key: wild.near(ACCOUNT_MARKS[key]))
    world.groups_by_name["ng-a"] = replace(
        group, tags=group.tags | tags, maximum=wild.dice.choice((3, 5)), mixed_purchasing=wild.chance(0.3)
    )
    for machine in world.machines.values():
        machine.tags = wild.some((marks.INSTANCE_REPLACES, marks.INSTANCE_PROTECTED), lambda _: wild.near(ids), 0.2)
    if wild.chance(0.5):
        state = world.workloads_by_owner[AUTOSCALER]
        said = {marks.AUTOSCALER_REPLICAS: wild.near(("1", "2")), marks.AUTOSCALER_PAUSED_AT: wild.near(("999000",))}
        state.workload = replace(state.workload, desired=wild.dice.randrange(2), annotations=said)
    lock.acquire(clients_of(world), ROLL, LOCK)
    said = wild.some(list(LOCK_MARKS), lambda key: wild.near(LOCK_MARKS[key]), 0.3)
    world.leases[LOCK] = replace(world.leases[LOCK], annotations=said)


def _restore(world: World, task: dict[str, Any]) -> None:
    """To its end, as the workflow calls it."""
    since = None
    for _ in range(200):
        try:
            answer = run_step("restore", task | {"since": since}, clients_of(world))
        except RollError:
            # The workflow ends there, and another restore begins.
            since = None
            continue
        if answer["status"] == "done":
            return
        since = answer["since"]
        world.time += answer["wait_seconds"]
        world._settle()
    raise AssertionError("the restore does not end")


# Replies: what a Redis server, a node of a cluster or a sentinel says


LOOKS = ("server", "cluster_node", "offset", "sentinel", "current_master")
ANSWERS = ("INFO", "CLUSTER INFO", "CLUSTER NODES", "CONFIG GET", "ACL", "SENTINEL MASTER", "SENTINEL GET-MASTER",
           "SENTINEL REPLICAS", "SENTINEL SENTINELS", "SENTINEL CKQUORUM", "SENTINEL MYID")  # fmt: skip
TEXTS = (INFO, INFO.replace("role:master", "role:slave") + "master_host:h\r\nmaster_port:1\r\n", STATE, TABLE,
         "slave0:ip=10.0.0.1,port=6379,state=online,offset=1,lag=0\r\n", "db0:keys=1,expires=0\r\n", "ip", "10.0.0.1",
         "6379", "runid", "flags", "master,s_down", "num-other-sentinels", "quorum", "config-epoch")  # fmt: skip


ODD = (b":1\r\n", b":-5\r\n", b":x\r\n", b"$-1\r\n", b"*-1\r\n", b"+OK\r\n", b"-ERR no\r\n", b"-NOPERM no\r\n",
       b"-NOAUTH no\r\n", b"-LOADING\r\n", b"$99\r\nx\r\n", b"*9\r\n")  # fmt: skip


def replies() -> Iterator[Case]:
    """Each look is an answer or a sentence about that pod."""
    with _quickly(), _liar() as liar:
        client = ClosingClient(lambda *_: {})
        endpoint = Endpoint(Address("127.0.0.1", liar.port), Login("tenant"), "tenant/evil-0")

        def case(wild: Wild) -> None:
            liar.tell({key: _reply(wild) for key in ANSWERS if wild.chance(0.8)})
            look = wild.dice.choice(LOOKS)
            named = ("mymaster",) if look in {"sentinel", "current_master"} else ()
            try:
                said = getattr(client, look)(endpoint, *named)
            except RollError as error:
                said = error
            finally:
                client.hang_up(endpoint)
            if isinstance(said, RollError):
                assert "tenant/evil-0" in str(said)
            else:
                assert said is None or isinstance(said, Server | ClusterNode | Sentinel | Silent | Address | tuple)

        yield case


def _reply(wild: Wild, depth: int = 2) -> bytes:
    """RESP, mostly whole; sometimes none."""
    kind = wild.dice.random()
    if kind < 0.6:
        return _bulk(wild.near(TEXTS))
    if kind < 0.85 and depth:
        items = [_reply(wild, depth - 1) for _ in range(wild.dice.randrange(6))]
        return b"*%d\r\n%s" % (len(items), b"".join(items))
    if kind < 0.95:
        return wild.dice.choice(ODD)
    return wild.text().encode(errors="surrogatepass") + b"\r\n"


def _bulk(text: str) -> bytes:
    data = text.encode(errors="surrogatepass")
    return b"$%d\r\n%s\r\n" % (len(data), data)


@contextmanager
def _liar() -> Iterator[Liar]:
    liar = Liar({})
    try:
        yield liar
    finally:
        liar.close()


@contextmanager
def _quickly() -> Iterator[None]:
    """An answer that lacks its end is given up soon: it costs nothing but time."""
    usual, redis.READ_SECONDS = redis.READ_SECONDS, 0.2
    try:
        yield
    finally:
        redis.READ_SECONDS = usual


# Requests: an execution's input


VALUES: dict[str, tuple[Any, ...]] = {
    "groups": (["ng-a"], [], "ng-a", ["ng-z"]),
    "nodes": (["node-i-00001"], [], ["i-00001"]),
    "force": (True, False),
    "dry_run": (True, False),
    "surge": (1, 3, 40, 41, 0),
    "approval": (True, None),
    "keep_taints": (True,),
    "accept": (["outdated"], ["no-budget:Deployment shop/web"]),
    "trigger": ("a person",),
    "rolls_back": ("", "roll-0"),
}
"""Right values, and wrong ones that look right, of the fields that have some; others are drawn as anything."""

FIELDS = tuple(RollRequest.model_fields)


def requests() -> Iterator[Case]:
    """A plan changes nothing, and is of nodes of the groups that are asked for; an event is noted on a Lease."""

    def case(wild: Wild) -> None:
        world = cluster()
        given = _request(wild)
        try:
            answer = run_step("plan", {"roll": ROLL, "input": given}, clients_of(world))
        except RollError:
            pass
        else:
            planned = set(answer["output"]["nodes"])
            assert planned <= {m for m, state in world.machines.items() if state.group == "ng-a"}
            if not (isinstance(given, dict) and given.get("force")):
                assert planned <= {m for m, state in world.machines.items() if state.template.endswith(":1")}
            json.dumps(answer)
        only(world)
        assert world.documents.keys() <= {f"rolls/{ROLL}/plan.json"}
        with suppress(RollError):
            run_step("receive_change", {"roll": ROLL, "input": given}, clients_of(world))
        only(world, "lease ")

    yield case


def _request(wild: Wild) -> Any:
    kind = wild.dice.random()
    if kind < 0.1:
        return wild.json()
    if kind < 0.3:
        event = {
            "id": "e-1",
            "detail-type": "AWS API Call via CloudTrail",
            "detail": {"eventName": "CreateLaunchTemplate"},
        }
        return event | wild.some((*event, wild.text()), lambda _: wild.json())
    asked = wild.some(FIELDS, lambda key: _value(wild, key), 0.3)
    return asked | ({wild.text(): wild.json()} if wild.chance(0.2) else {})


def _value(wild: Wild, field: str) -> Any:
    return wild.dice.choice(VALUES[field]) if field in VALUES and wild.chance(0.7) else wild.json()


# Hooks: what users' own functions and servers answer


SAID = ('{"status": "done"}', '{"status": "wait", "seconds": 20, "reason": "a sale"}', "null", "ok", "", "[]")


def hooks() -> Iterator[Case]:
    """The roll goes on, waits for a number of seconds, or fails with a sentence."""

    def case(wild: Wild) -> None:
        world = cluster()
        when = wild.dice.choice(list(Moment))
        lock.acquire(clients_of(world), ROLL, LOCK)
        answers = [_answer(wild) for _ in range(2)]
        world.hook_answers = {HOOK_URL: list(answers), HOOK_FUNCTION: list(answers)}
        with suppress(RollError):
            answer = run_step("run_hooks", {"roll": ROLL, "when": when, "instance": "i-00001"}, clients_of(world))
            assert 0 <= answer["wait_seconds"] <= 900
            assert answer["status"] == "done" or answer["wait_seconds"] >= 1
            json.dumps(answer)
        only(world, "lease ", "hook ")

    yield case


def _answer(wild: Wild) -> HttpAnswer:
    kind = wild.dice.random()
    if kind < 0.1:
        return HttpAnswer(fault=wild.text())
    if kind < 0.5:
        body = json.dumps({"status": "wait"} | wild.some(("status", "seconds", "reason"), lambda _: wild.json()))
    else:
        body = wild.near(SAID)
    return HttpAnswer(wild.dice.choice((200, 200, 200, 204, 404, 500, 0, -1)), body)


PARTS: dict[str, Callable[[], Iterator[Case]]] = {
    "declarations": declarations,
    "marks": marked,
    "replies": replies,
    "requests": requests,
    "hooks": hooks,
}
"""Name -> a generator of one `Case`, which is set up before it and torn down behind it."""
