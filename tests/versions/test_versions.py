"""Whole migrations on servers of other versions than the system's: `make test-versions` fetches them."""

import os
from pathlib import Path

import pytest

from eks_rolling.observed.redis import Server
from tests.contract.cluster_pods import Cluster, sampler
from tests.contract.cluster_pods import lost as lost_by_cluster
from tests.contract.cluster_pods import writers as cluster_writers
from tests.contract.redis_pods import NEW, Pods, lost, migrate, wait_until_all_write_on, writers
from tests.contract.redis_sides import processes, until, wait_until_whole

pytestmark = pytest.mark.timeout(240)
VERSIONS = {
    "redis-6": ("redis", (6, 2)),
    "redis-7.2": ("redis", (7, 2)),
    "redis-7.4": ("redis", (7, 4)),
    "redis-8": ("redis", (8,)),
    "valkey-8": ("valkey", (8,)),
    "valkey-9": ("valkey", (9,)),
}


def program(name: str) -> str:
    directory = os.environ.get("EKS_ROLLING_REDIS_VERSIONS", "")
    path = Path(directory) / name
    assert directory, "EKS_ROLLING_REDIS_VERSIONS names no directory: run `make test-versions`"
    assert path.exists(), f"{path} is missing: run `make test-versions`"
    return str(path)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_group_under_sentinel_moves_and_no_acknowledged_write_is_lost(name: str) -> None:
    """S1, S2."""
    with processes(program(name)) as side:
        side.start()
        wait_until_whole(side)
        server = side.client.server(side.servers[0])
        assert isinstance(server, Server)
        flavor, version = VERSIONS[name]
        assert (server.flavor, server.version[: len(version)], server.denied) == (flavor, version, frozenset())
        pods = Pods(side)
        with writers(side) as written:
            wait_until_all_write_on(written)
            ended = migrate(pods, side.client, 120)
            wait_until_all_write_on(written)
        moved = pods.pods["redis-master-0"]
        assert (moved.node, ended.stopped) == (NEW, "")
        assert lost(side, moved.address, written) == 0
        assert sum("becomes master in place of" in action for action in ended.done) == 2


@pytest.mark.parametrize("name", VERSIONS)
def test_a_pause_by_somebody_else_is_seen_where_the_server_tells(name: str) -> None:
    """S1: Valkey does; on Redis a switch would end it, as docs/redis.md says."""
    with processes(program(name)) as side:
        master = side.servers[0]
        side.start_server(master)
        until(side, lambda: isinstance(side.client.server(master), Server), "it answers")
        side.command(master, "client", "pause", "20000", "WRITE")
        server = side.client.server(master)
        assert isinstance(server, Server)
        assert server.paused is (server.flavor == "valkey")
        side.client.unpause(master)
        server = side.client.server(master)
        assert isinstance(server, Server)
        assert not server.paused


@pytest.mark.parametrize("name", VERSIONS)
def test_a_cluster_moves_and_no_acknowledged_write_is_lost(name: str) -> None:
    """C1, C2."""
    side = Cluster(program=program(name))
    try:
        side.form()
        before = {pod: (side.view(pod).id, side.view(pod).itself.slots) for pod in side.pods}
        with cluster_writers(side) as written, sampler(side) as sampled:
            wait_until_all_write_on(written)
            ended = migrate(side, side.client, 120)
            wait_until_all_write_on(written)
        assert ended.stopped == ""
        assert lost_by_cluster(side, written) == 0
        assert sampled.unserved == []
        assert {pod: (side.view(pod).id, side.view(pod).itself.slots) for pod in side.pods} == before
    finally:
        side.close()
