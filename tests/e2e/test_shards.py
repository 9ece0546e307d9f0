"""A Redis Cluster, rolled in the lab under writers that remember every acknowledged write."""

from collections.abc import Iterator

import pytest

from lab import demo
from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.spec import LabSpec
from lab.view import LineView
from tests import scope
from tests.e2e.conftest import REPOSITORY, SETTINGS
from tests.e2e.rolled import assert_no_secret_told, assert_rolled, kubectl, outdated_in
from tests.e2e.shards import assert_normal, roles
from tests.e2e.weather import WEATHER

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("shards")]

PODS = tuple(f"redis-{zone}-{n}" for zone in "ab" for n in range(3))


ZONES = ("eu-central-1a", "eu-central-1b")
"""Each has masters and replicas."""


@pytest.fixture(scope="module")
def zones(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Where nodes are outdated: everywhere; in `make test` in one of the two, and three of six Redis nodes move."""
    if request.config.option.scope == scope.ALL:
        return ZONES
    drawn = scope.dice(request.config, "shards").choice(ZONES)
    print("rolled in", drawn)
    return (drawn,)


@pytest.fixture(scope="module")
def shards_lab(tmp_path_factory: pytest.TempPathFactory, zones: tuple[str, ...]) -> Iterator[Operator]:
    """Four nodes, a cluster over two zones, in AWS's ordinary weather."""
    spec = outdated_in(LabSpec.from_yaml(REPOSITORY / "lab" / "clusters" / "shards.yaml"), zones)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, "shards") as lab:
            deploy(lab, SETTINGS)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                operator.fault(WEATHER)
                yield operator


@pytest.mark.long  # so does the demo
def test_a_roll_moves_every_pod_and_no_acknowledged_write_is_lost(shards_lab: Operator, view: LineView) -> None:
    """C1 as the writers and a sampler see it, C2 as Redis tells."""
    played = demo.play(shards_lab, view, quiet_seconds=2)
    after = roles(shards_lab, PODS)
    assert_rolled(played)
    (shards,) = played.verdict.redis
    assert (shards.lost, shards.failovers) == (0, 2 * 3)
    assert shards.acked > 1000
    assert shards.samples > 100
    assert shards.unserved == 0
    assert_normal(shards_lab, after)
    told = [each["reason"] for each in played.outcome.report["redis"]]
    assert sum("becomes master again (within" in reason for reason in told) == 3
    assert sum("becomes master in place of" in reason for reason in told) == 3
    assert sum(reason.startswith("every node forgets") for reason in told) == 6
    assert {role for _, role, slots in after.values() if slots} == {"master"}
    assert sum(bool(slots) for _, _, slots in after.values()) == 3
    assert_no_secret_told(shards_lab, played, "redis-cluster-auth", "shop/shards")


@pytest.mark.drawn(keep=1, among="rolls over Redis")
def test_functions_that_are_killed_at_random_lose_no_write_either(
    shards_lab: Operator, view: LineView, zones: tuple[str, ...]
) -> None:
    """R3, C1, C2."""
    before = roles(shards_lab, PODS)
    shards_lab.fault(WEATHER | {"lambda_kill": {"seed": 11, "share": 0.25, "within_seconds": 0.3}})
    try:
        played = demo.play(shards_lab, view, quiet_seconds=2)
        struck = shards_lab.faults()
    finally:
        shards_lab.fault(WEATHER)
    assert min(struck["kills"], struck["throttled"], struck["refused"], struck["no_capacity"]) > 0
    assert_rolled(played, zones)
    (shards,) = played.verdict.redis
    assert (shards.lost, shards.unserved) == (0, 0)
    assert_normal(shards_lab, before)
    assert kubectl(shards_lab, "get", "pods", "-n", "shop", "-l", "eks-rolling.io/stand-in", "-o", "name") == ""
    assert_no_secret_told(shards_lab, played, "redis-cluster-auth", "shop/shards")
