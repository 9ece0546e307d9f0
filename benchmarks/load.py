"""How long clients stall while groups are rolled that much is written to, on real servers.

    python -m benchmarks.load [--rates 0,1,5,20] [--kinds sentinel,cluster]

The load is `lab.traffic.load`: large values in pipelines, transactions, scripts, queues with blocking pops, messages
and keys that expire, in a process of its own. Three more clients write small numbers and are timed. For each rate: what
was acknowledged and is not there in the end, the longest gap between two acknowledged writes of a small writer and of
each use, and how long the roll took.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from rich.console import Console
from rich.table import Table

from lab.traffic.load import Json, Load, totals
from tests.contract import cluster_pods, redis_pods
from tests.contract.redis_sides import NAME, PASSWORD, processes, wait_until_whole

REFUSED = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError, TimeoutError)
RATES = "0,1,5,20"
BEGIN_SECONDS, AFTER_SECONDS = 5.0, 3.0
OPTIONS: dict[str, Any] = {"password": PASSWORD, "socket_timeout": 1.0, "socket_connect_timeout": 0.5}


@dataclass(frozen=True)
class Row:
    """What one roll under one load cost. Times are seconds."""

    kind: str
    rate: float
    acked: int
    lost: int
    stall: float
    uses: Json
    took: float


def load_of(kind: str, hosts: list[str], rate: float) -> Load:
    """The load, for a group whose sentinels, or nodes, are at these addresses."""
    if kind == "sentinel":
        once: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
        sentinels = Sentinel([(host, 26379) for host in hosts], sentinel_kwargs={"socket_timeout": 1.0, **once})
        connect = partial(sentinels.master_for, NAME, **OPTIONS, **once)
        return Load(connect, rate, REFUSED)
    nodes = [ClusterNode(host, 6379) for host in hosts]
    connect = partial(RedisCluster, startup_nodes=nodes, **OPTIONS)
    return Load(connect, rate, REFUSED, lambda host, port: Redis(host=host, port=port, **OPTIONS))


async def write(kind: str, hosts: list[str], rate: float) -> None:
    """Writes until standard input ends, then prints what is there of it."""
    load = load_of(kind, hosts, rate)
    work = asyncio.create_task(load.run())
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    print(json.dumps(await load.conclude()))


@contextlib.contextmanager
def loading(kind: str, hosts: list[str], rate: float) -> Iterator[dict[str, Json]]:
    """The load in another process; afterwards `uses` of what is yielded says what came of it."""
    told: dict[str, Json] = {"uses": {}}
    if not rate:
        yield told
        return
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        "--write",
        kind,
        "--hosts",
        ",".join(hosts),
        "--rates",
        str(rate),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(BEGIN_SECONDS)
        yield told
        said, _ = process.communicate("")
        if process.returncode:
            raise SystemExit("the load ended with an error")
        told["uses"] = json.loads(said)


def sentinel(rate: float) -> Row:
    with processes() as side:
        side.start()
        wait_until_whole(side)
        pods = redis_pods.Pods(side)
        with (
            redis_pods.writers(side) as written,
            loading("sentinel", [s.address.host for s in side.sentinels], rate) as told,
        ):
            redis_pods.wait_until_all_write_on(written)
            began = time.monotonic()
            ended = redis_pods.migrate(pods, side.client, 240)
            took = time.monotonic() - began
            time.sleep(AFTER_SECONDS)
        master = pods.pods["redis-master-0"].address
        return row("sentinel", rate, ended, written, redis_pods.lost(side, master, written), told["uses"], took)


def cluster(rate: float) -> Row:
    with cluster_pods.cluster() as side:
        hosts = [side.processes[name].host for name in sorted(side.pods)]
        with cluster_pods.writers(side, 3) as written, loading("cluster", hosts, rate) as told:
            redis_pods.wait_until_all_write_on(written)
            began = time.monotonic()
            ended = redis_pods.migrate(side, side.client, 240)
            took = time.monotonic() - began
            time.sleep(AFTER_SECONDS)
        return row("cluster", rate, ended, written, cluster_pods.lost(side, written), told["uses"], took)


def row(kind: str, rate: float, ended: redis_pods.Ended, written: Any, lost: int, uses: Json, took: float) -> Row:
    if ended.stopped:
        raise SystemExit(f"the roll asked a person: {ended.stopped}")
    acked, missing = totals(uses)
    gaps = [later - earlier for writer in written for earlier, later in pairwise(writer.at)]
    return Row(kind, rate, acked + sum(len(w.acked) for w in written), lost + missing, max(gaps), uses, took)


def table(rows: list[Row]) -> Table:
    uses = ("values", "transactions", "scripts", "queue", "messages", "expiring")
    columns = ("group", "MB/s", "acknowledged", "lost", "small writes stall", *uses, "roll took")
    result = Table(*columns, title="longest time without an acknowledgement, in seconds")
    for each in rows:
        gaps = [f"{each.uses[use]['longest_gap']:.2f}" if each.uses else "" for use in uses]
        cells = (each.kind, f"{each.rate:g}", f"{each.acked:,}", f"{each.lost:,}", f"{each.stall:.2f}", *gaps)
        result.add_row(*cells, f"{each.took:.0f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default=RATES, help="megabytes a second, separated by commas")
    parser.add_argument("--kinds", default="sentinel,cluster", help="which kinds of groups, separated by commas")
    parser.add_argument("--write", default="", help=argparse.SUPPRESS)
    parser.add_argument("--hosts", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    rates = [float(rate) for rate in given.rates.split(",")]
    if given.write:
        asyncio.run(write(given.write, given.hosts.split(","), rates[0]))
        return
    kinds = {"sentinel": sentinel, "cluster": cluster}
    rows = [kinds[kind](rate) for kind in given.kinds.split(",") for rate in rates]
    Console(width=150).print(table(rows))
    if any(each.lost for each in rows):
        raise SystemExit("acknowledged writes are lost")


if __name__ == "__main__":
    main()
