"""Small decisions of the node agent: images, probes, restarts, logs, quantities, addresses, volumes."""

import asyncio
import datetime as dt
import io
from decimal import Decimal
from pathlib import Path

import pytest

from lab.images.catalogue import UnknownImageError, find_image, short_name
from lab.instances import Instance, node_name
from lab.kube import Json
from lab.network.netns import ZoneAddresses
from lab.node.container import RestartPolicy, backoff_seconds, restarts
from lab.node.logs import LogQuery, read_log, write_log
from lab.node.node import UNINITIALIZED_TAINT, instance_id, is_ready, node_object
from lab.node.probes import Verdict, container_port
from lab.node.quantity import in_units_of, parse_quantity
from lab.node.storage import new_volume, refusal, wants_volume, zone_of_volume
from lab.spec import GroupSpec, LabSpec, RestartBackoff

# Images


@pytest.mark.parametrize(
    "reference",
    ["web", "web:1.4", "registry.example.com:5000/shop/web:1.4@sha256:abc", "shop/web@sha256:abc"],
)
def test_an_image_is_found_by_the_last_part_of_its_name(reference: str) -> None:
    assert short_name(reference) == "web"
    assert find_image(reference).name == "web"


def test_an_unknown_image_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownImageError, match=r"no image 'nginx'; it has .*redis, redis-sentinel"):
        find_image("nginx:latest")


@pytest.mark.parametrize(
    ("command", "args", "line"),
    [
        ([], [], ["redis-server"]),
        ([], ["--port", "7000"], ["redis-server", "--port", "7000"]),
        ([], ["/conf/redis.conf"], ["redis-server", "/conf/redis.conf"]),
        ([], ["redis-server", "--port", "7000"], ["redis-server", "--port", "7000"]),
        (["redis-cli"], ["ping"], ["redis-cli", "ping"]),
    ],
)
def test_command_and_args_replace_what_the_image_has(command: list[str], args: list[str], line: list[str]) -> None:
    assert find_image("redis:7").command_line(command, args) == line


# Probes


@pytest.mark.parametrize(
    ("looks", "results"),
    [("+", "+"), ("--", "??"), ("---", "??-"), ("+--+---", "++++++-"), ("+---+", "+++-+")],
)
def test_a_probe_passes_at_once_and_fails_after_as_many_failures_as_it_takes(looks: str, results: str) -> None:
    verdict = Verdict(success_threshold=1, failure_threshold=3)
    seen = ""
    for look in looks:
        verdict.note(look == "+")
        seen += {True: "+", False: "-", None: "?"}[verdict.passing]
    assert seen == results


def test_a_probes_port_may_be_a_name() -> None:
    container = {"ports": [{"name": "http", "containerPort": 8080}]}
    assert [container_port(container, port) for port in ("http", 9000, "9001")] == [8080, 9000, 9001]
    with pytest.raises(ValueError, match="no port named grpc"):
        container_port(container, "grpc")


# Restarts


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_the_restart_policy_says_what_is_started_again(policy: RestartPolicy, code: int, again: bool) -> None:
    assert restarts(policy, code) == again


def test_the_first_restart_is_immediate_and_the_next_ones_ever_later() -> None:
    backoff = RestartBackoff(first=1, longest=10)
    assert [backoff_seconds(failures, backoff) for failures in range(1, 8)] == [0, 1, 2, 4, 8, 10, 10]


# Logs


async def written(*chunks: bytes) -> bytes:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    file = io.BytesIO()
    await write_log(stream, "stdout", file)
    return file.getvalue()


def entries(content: bytes) -> list[tuple[str, bytes]]:
    return [(tag.decode(), text) for _, _, tag, text in (line.split(b" ", 3) for line in content.splitlines())]


def test_a_log_has_an_entry_per_line_and_more_for_long_ones() -> None:
    assert entries(asyncio.run(written(b"one\ntw", b"o\n\nlast"))) == [
        ("F", b"one"),
        ("F", b"two"),
        ("F", b""),
        ("F", b"last"),
    ]
    long = b"x" * 20_000
    assert [tag for tag, _ in entries(asyncio.run(written(long + b"\n")))] == ["P", "F"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (LogQuery(), b"a\nbc\nd\n"),
        (LogQuery(tail_lines=2), b"bc\nd\n"),
        (LogQuery(tail_lines=0), b""),
        (LogQuery(tail_lines=9), b"a\nbc\nd\n"),
        (LogQuery(limit_bytes=3), b"a\nb"),
        (LogQuery(since=dt.datetime(2026, 1, 31, 12, 0, 2, tzinfo=dt.UTC)), b"d\n"),
        (LogQuery(tail_lines=1, timestamps=True), b"2026-01-31T12:00:03.000000Z d\n"),
    ],
)
def test_a_log_is_read_as_asked_for(tmp_path: Path, query: LogQuery, text: bytes) -> None:
    file = tmp_path / "0.log"
    file.write_bytes(
        b"2026-01-31T12:00:01.000000Z stdout F a\n"
        b"2026-01-31T12:00:01.500000Z stdout P b\n"
        b"2026-01-31T12:00:01.500000Z stdout F c\n"
        b"2026-01-31T12:00:03.000000Z stderr F d\n"
        b"2026-01-31T12:00:04.000000Z stderr F half a li"
    )

    async def read() -> bytes:
        return b"".join([piece async for piece in read_log(file, query, lambda: True)])

    assert asyncio.run(read()) == text


# Quantities and addresses


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2", 2), ("250m", Decimal("0.25")), ("64Mi", 64 * 2**20), ("1.5Gi", 3 * 2**29), ("1k", 1000), ("1e3", 1000)],
)
def test_quantities_are_numbers(text: str, amount: Decimal) -> None:
    assert parse_quantity(text) == amount


def test_amounts_are_rounded_up_to_whole_units() -> None:
    assert in_units_of(Decimal("1.1"), Decimal(1)) == 2


def test_a_zones_addresses_go_round_before_one_comes_again() -> None:
    zone = ZoneAddresses(1)
    first, second = zone.take(), zone.take()
    assert (first, second) == ("10.244.64.2", "10.244.64.3")
    zone.give_back(first)
    assert zone.take() == "10.244.64.4"


# Nodes


def instance(**fields: str) -> Instance:
    values = {
        "id": "i-1", "state": "running", "group": "blue", "zone": "eu-central-1a", "type": "m6i.large",
        "private_ip": "10.0.0.12", "image_id": "ami-1", **fields,
    }  # fmt: skip
    return Instance(launched=0.0, **values)


def test_a_node_registers_tainted_and_not_ready_with_its_groups_labels_and_taints() -> None:
    group = GroupSpec(
        name="blue",
        zones=("eu-central-1a",),
        size=1,
        labels={"team": "shop"},
        taints={"burst": "NoSchedule"},
        managed_node_group=True,
    )
    node = node_object(instance(), LabSpec(groups=(group,)), "v1.37.2", dt.datetime.now(dt.UTC))
    assert node["metadata"]["name"] == node_name("10.0.0.12", "eu-central-1")
    assert node["metadata"]["labels"]["team"] == "shop"
    assert node["metadata"]["labels"]["eks.amazonaws.com/nodegroup"] == "blue"
    assert [taint["key"] for taint in node["spec"]["taints"]] == [UNINITIALIZED_TAINT, "burst"]
    assert node["spec"]["taints"][1] == {"key": "burst", "effect": "NoSchedule"}
    assert instance_id(node) == "i-1"
    assert not is_ready(node)


# Volumes

CLAIM: Json = {
    "metadata": {
        "name": "data", "namespace": "shop", "uid": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        "annotations": {
            "volume.kubernetes.io/storage-provisioner": "ebs.csi.aws.com",
            "volume.kubernetes.io/selected-node": "n1",
        },
    },
    "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gp3",
             "resources": {"requests": {"storage": "1Gi"}}},
}  # fmt: skip


def test_a_volume_is_made_for_a_claim_once_the_scheduler_has_chosen_a_node() -> None:
    assert wants_volume(CLAIM) == "n1"
    assert wants_volume({**CLAIM, "spec": {**CLAIM["spec"], "volumeName": "pvc-1"}}) is None
    assert wants_volume({**CLAIM, "metadata": {**CLAIM["metadata"], "annotations": {}}}) is None


def test_a_new_volume_is_bound_to_its_claim_and_its_zone() -> None:
    volume = new_volume(CLAIM, "eu-central-1b", "Delete")
    assert zone_of_volume(volume) == "eu-central-1b"
    assert volume["spec"]["claimRef"]["uid"] == CLAIM["metadata"]["uid"]
    assert volume["spec"]["csi"]["volumeHandle"] == "vol-00f1e2d3c4b5a6978"


def attachment(node: str, *, attached: bool = False) -> Json:
    return {"spec": {"nodeName": node}, "status": {"attached": attached}}


@pytest.mark.parametrize(
    ("others", "zone", "why"),
    [
        ([], "a", None),
        ([attachment("n1", attached=True)], "a", None),
        ([attachment("n2")], "a", None),
        ([attachment("n2", attached=True)], "a", "Multi-Attach error: the volume is already attached to node n2"),
        ([], "b", "the volume is in a, node n1 in b"),
        ([], None, "there is no instance of node n1"),
    ],
)
def test_a_volume_goes_to_one_node_of_its_own_zone(others: list[Json], zone: str | None, why: str | None) -> None:
    assert refusal(attachment("n1"), others, "a", zone) == why
