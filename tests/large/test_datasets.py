"""Redis groups with 200 MB of data, so that synchronizing takes real time: `make test-large`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from lab import demo
from lab.application import deploy
from lab.baseline import Cluster
from lab.lifecycle import running_lab
from lab.operator import operator_of
from lab.view import LineView
from tests.e2e.conftest import SETTINGS
from tests.e2e.rolled import assert_rolled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

MEGABYTES = 200


@pytest.fixture(autouse=True)
def labs(tmp_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path / "labs"))
        yield


@pytest.mark.parametrize(("cluster", "failovers"), [(Cluster.SENTINEL, 2), (Cluster.SHARDS, 6)])
def test_a_roll_moves_a_large_data_set_and_nothing_of_it_is_lost(cluster: Cluster, failovers: int) -> None:
    """S1 or C1, with synchronizations that are seen to go on."""
    with running_lab(cluster.spec().with_redis(megabytes=MEGABYTES), "dataset") as lab:
        deploy(lab, SETTINGS)
        with operator_of(lab) as operator:
            operator.wait_for_workloads()
            played = demo.play(operator, LineView(Console(file=sys.stdout, width=200)), quiet_seconds=2)
    assert_rolled(played)
    (redis,) = played.verdict.redis
    assert (redis.lost, redis.dataset_missing, redis.failovers) == (0, 0, failovers)
    assert redis.dataset_megabytes == MEGABYTES
    print(redis)
