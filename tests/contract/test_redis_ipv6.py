"""Groups whose pods have IPv6 addresses, as in EKS clusters of that family: Redis and Sentinel write these in several
forms.

They need addresses that a loopback has not by itself, so they run in a network of their own.
"""

import subprocess

import pytest

from tests.contract import cluster_pods, redis_pods
from tests.contract.private_network import is_private, run_inside
from tests.contract.redis_sides import processes, wait_until_whole

pytestmark = pytest.mark.timeout(300)

NETWORK = "fd00:5::"
INSIDE = pytest.mark.skipif(not is_private(), reason="runs in a network of its own, from the test below")


def make_addresses() -> None:
    # In hexadecimal: what looks like a number of a pod is one.
    for number in (*range(1, 40), 99):
        subprocess.run(["ip", "-6", "address", "add", f"{NETWORK}{number}/128", "dev", "lo", "nodad"], check=True)


@INSIDE
def test_inside_a_sentinel_group() -> None:
    """S1, S2."""
    make_addresses()
    with processes(network=NETWORK) as side:
        side.start()
        wait_until_whole(side)
        pods = redis_pods.Pods(side)
        with redis_pods.writers(side) as written:
            redis_pods.wait_until_all_write_on(written)
            ended = redis_pods.migrate(pods, side.client, 120)
            redis_pods.wait_until_all_write_on(written)
        moved = pods.pods["redis-master-0"]
        assert (moved.node, ended.stopped, ended.refused) == (redis_pods.NEW, "", [])
        assert pods.name_of_master() == "redis-master-0"
        assert redis_pods.lost(side, moved.address, written) == 0
        # The group is settled: no sentinel lists what is gone, and each names the master as it did.
        assert [
            side.sentinel_command(s, "sentinel", "get-master-addr-by-name", "mymaster") for s in side.sentinels
        ] == [f"{NETWORK}99\n6379"] * 3


@INSIDE
def test_inside_a_redis_cluster() -> None:
    """C1, C2."""
    make_addresses()
    with cluster_pods.cluster(network=NETWORK) as side:
        before = {name: side.view(name).id for name in side.pods}
        with cluster_pods.writers(side) as written:
            redis_pods.wait_until_all_write_on(written)
            ended = redis_pods.migrate(side, side.client, 120)
            redis_pods.wait_until_all_write_on(written)
        assert (ended.stopped, ended.refused) == ("", [])
        assert cluster_pods.lost(side, written) == 0
        assert {name: side.view(name).id for name in side.pods} == before
        assert {p.node for n, p in side.pods.items() if n in {"redis-a-0", "redis-b-0"}} == {redis_pods.NEW}
        known = {node.address.host for node in side.view("redis-a-2").table if node.address}
        assert known == {process.host for process in side.processes.values()}


@pytest.mark.parametrize("group", ["a_sentinel_group", "a_redis_cluster"])
def test_moves_on_ipv6(group: str) -> None:
    run_inside(__file__, f"test_inside_{group}")
