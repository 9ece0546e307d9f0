"""A Redis group under Sentinel, rolled in the lab under writers that remember every acknowledged write."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab import demo
from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.spec import LabSpec
from lab.view import LineView
from tests import scope
from tests.e2e.conftest import REPOSITORY, SETTINGS
from tests.e2e.rolled import addresses, assert_no_secret_told, assert_rolled, kubectl, outdated_in, redis
from tests.e2e.test_broken_restores import restored
from tests.e2e.weather import WEATHER
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("sentinel")]

SERVERS = ("redis-master-0", "redis-replica-0", "redis-replica-1")
SENTINELS = ("redis-sentinel-0", "redis-sentinel-1", "redis-sentinel-2")


MASTERS_ZONE, REPLICAS_ZONE = "eu-central-1a", "eu-central-1b"


@pytest.fixture(scope="module")
def zones(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Where nodes are outdated: everywhere; in `make test` where the master is."""
    return (MASTERS_ZONE, REPLICAS_ZONE) if request.config.option.scope == scope.ALL else (MASTERS_ZONE,)


@pytest.fixture(scope="module")
def cache_lab(tmp_path_factory: pytest.TempPathFactory, zones: tuple[str, ...]) -> Iterator[Operator]:
    """Four nodes, a group over two zones, in AWS's ordinary weather."""
    spec = outdated_in(LabSpec.from_yaml(REPOSITORY / "lab" / "clusters" / "sentinel.yaml"), zones)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, "cache") as lab:
            deploy(lab, SETTINGS)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                operator.fault(WEATHER)
                yield operator


def values(lines: list[str], key: str) -> list[str]:
    """The values after a key in redis-cli's flat output."""
    return [lines[i + 1] for i, line in enumerate(lines[:-1]) if line == key]


def assert_normal(operator: Operator) -> None:
    """S2: the master pod is master, every replica is in sync, every sentinel lists exactly the live pods; R2:
    priorities as ever, no switch unfinished."""
    at = addresses(operator)
    replicas = {at["redis-replica-0"], at["redis-replica-1"]}
    role, _, *followers = redis(operator, "redis-master-0", "role")
    assert role == "master"
    assert set(followers[::3]) - {""} == replicas
    for pod in SERVERS:
        assert redis(operator, pod, "config", "get", "replica-priority")[1] == "100", pod
    for sentinel in SENTINELS:
        name = "mymaster"
        assert redis(operator, sentinel, "sentinel", "get-master-addr-by-name", name)[0] == at["redis-master-0"]
        listed = values(redis(operator, sentinel, "sentinel", "replicas", name), "ip")
        assert sorted(listed) == sorted(replicas), sentinel
        others = values(redis(operator, sentinel, "sentinel", "sentinels", name), "ip")
        assert sorted(others) == sorted(at[s] for s in SENTINELS if s != sentinel), sentinel
    marks = kubectl(operator, "get", "pods", "-n", "shop", "-o", "jsonpath={.items[*].metadata.annotations}")
    assert "eks-rolling.io/hands-over" not in marks


@pytest.mark.long  # so does the demo
def test_a_roll_moves_the_group_and_no_acknowledged_write_is_lost(cache_lab: Operator, view: LineView) -> None:
    """S1 as the writers see it, S2 as Redis tells."""
    played = demo.play(cache_lab, view, quiet_seconds=2)
    assert_rolled(played)
    (cache,) = played.verdict.redis
    assert (cache.lost, cache.failovers) == (0, 2)
    assert cache.acked > 1000
    assert_normal(cache_lab)
    assert_no_secret_told(cache_lab, played, "redis-auth", "shop/cache")


@pytest.mark.drawn(keep=1, among="rolls over Redis")
def test_functions_that_are_killed_at_random_lose_no_write_either(
    cache_lab: Operator, view: LineView, zones: tuple[str, ...]
) -> None:
    """R3, S1: the switch too is cut off anywhere, and finished by the next invocation."""
    cache_lab.fault(WEATHER | {"lambda_kill": {"seed": 11, "share": 0.25, "within_seconds": 0.3}})
    try:
        played = demo.play(cache_lab, view, quiet_seconds=2)
        struck = cache_lab.faults()
    finally:
        cache_lab.fault(WEATHER)
    assert min(struck["kills"], struck["throttled"], struck["refused"], struck["no_capacity"]) > 0
    assert_rolled(played, zones)
    (cache,) = played.verdict.redis
    assert cache.lost == 0
    assert_normal(cache_lab)
    assert_no_secret_told(cache_lab, played, "redis-auth", "shop/cache")


@pytest.mark.long  # tests/hostile/test_late_steps.py has every command
def test_a_switch_that_comes_after_its_roll_was_stopped_loses_no_write_and_the_restore_finishes_the_group(
    cache_lab: Operator, view: LineView
) -> None:
    """R6, S1, S2: its process stands still right before it, while its roll is stopped."""
    call = {"verb": "patch", "resource": "pods", "seconds": 25}
    cache_lab.fault({"freeze": {"caller": "FunctionsMigrateSentinelRole"} | call})
    try:
        with cache_lab.traffic():
            roll = cache_lab.rolls.start({"force": True})
            until(lambda: cache_lab.faults()["frozen"], "the process stands still", within_seconds=300)
            cache_lab.rolls.stop(roll, "a test stops it")
            name = cache_lab.rolls.executions.describe(roll).name
            until(lambda: restored(cache_lab, name), "the watchdog has restored", within_seconds=240)
    finally:
        cache_lab.fault(WEATHER)
    (cache,) = cache_lab.judge(None).redis
    view.say(f"late switch: {cache}")
    assert cache.lost == 0
    assert cache.acked > 1000
    assert_normal(cache_lab)


@contextmanager
def annotated(operator: Operator, name: str, value: str, *stateful_sets: str) -> Iterator[None]:
    """Another annotation on StatefulSets for the time of the block; "" is none."""

    def annotate(said: str, stateful_set: str) -> None:
        change = f"eks-rolling.io/{name}={said}" if said else f"eks-rolling.io/{name}-"
        kubectl(operator, "annotate", "-n", "shop", "--overwrite", "statefulset", stateful_set, change)

    path = f"jsonpath={{.metadata.annotations.eks-rolling\\.io/{name}}}"
    before = {s: kubectl(operator, "get", "statefulset", "-n", "shop", s, "-o", path) for s in stateful_sets}
    for stateful_set in stateful_sets:
        annotate(value, stateful_set)
    try:
        yield
    finally:
        for stateful_set, said in before.items():
            annotate(said, stateful_set)


ALL = ("redis-master", "redis-replica", "redis-sentinel")


@pytest.mark.long  # tests/unit and tests/contract have every sentence; the lab would be started for these alone
@pytest.mark.parametrize(
    ("annotation", "value", "on", "sentence"),
    [
        ("sentinel-master-name", "other", ALL, "sentinel redis-sentinel-0 monitors no master other"),
        ("sentinel-master-name", "other", ALL[:1], "its StatefulSets name mymaster and other"),
        (
            "redis-auth",
            "redis-wrong",
            ALL[:1],
            "shop/redis-master-0 does not accept the credentials in Secret shop/redis-wrong",
        ),
        ("redis-auth", "redis-none", ALL[:1], "The Secret shop/redis-none may not be read"),
        ("redis-port", "26380", ALL[2:], "pod redis-sentinel-0 does not answer"),
        ("redis-group", "", ALL[1:2], "it has no replica, so its master cannot move without an outage"),
    ],
)
def test_bad_input_is_one_clear_sentence_before_anything_is_changed(
    cache_lab: Operator, view: LineView, annotation: str, value: str, on: tuple[str, ...], sentence: str
) -> None:
    if value == "redis-wrong":
        let_read_a_wrong_password(cache_lab)
    # An event's duplicate would make two rolls, of which one leaves the change to the other.
    cache_lab.fault(WEATHER | {"duplicate_events": False})
    with annotated(cache_lab, annotation, value, *on):
        before = cache_lab.settled_state()
        published = time.time()
        cache_lab.rolls.publish_version("workers")
        outcome = cache_lab.follow(cache_lab.rolls.started_since(published), view.show, within_seconds=90)
    assert outcome.status == "FAILED"
    assert sentence in outcome.reason
    after = cache_lab.settled_state()
    assert {n.instance for n in after.nodes} == {n.instance for n in before.nodes}
    assert not [n for n in after.nodes if n.taint or n.cordoned]
    # What the stopped roll above left in use is not this one's.
    assert after.marks == before.marks


def let_read_a_wrong_password(operator: Operator) -> None:
    """A Secret that the plan may read, with a password that no server takes."""
    kubectl(operator, "create", "secret", "generic", "redis-wrong", "-n", "shop", "--from-literal=password=wrong")
    allow = ("--verb=get", "--resource=secrets", "--resource-name=redis-wrong")
    kubectl(operator, "create", "role", "wrong", "-n", "shop", *allow)
    kubectl(operator, "create", "rolebinding", "wrong", "-n", "shop", "--role=wrong", "--group=eks-rolling-redis-look")
