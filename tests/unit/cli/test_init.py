"""`init`: the file that it writes is one that can be deployed, whatever there is and is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eks_rolling.observed.kubernetes import Container, Owner
from eks_rolling.redis.groups import CACHE, PART
from eks_rolling_cli import init
from eks_rolling_cli.exits import Exit
from eks_rolling_cli.finding_settings import Discovery, Subnet, autoscaler_of, chosen_subnets, redis_of, subnets_of
from eks_rolling_config.file import check
from tests.model.situations import cache, shop
from tests.unit.cli.conftest import Run
from tests.unit.cli.targets import FakeTarget

EVERYTHING = Discovery(
    cluster="prod_eu",
    vpc="vpc-0123456789abcdef0",
    ranges=("10.0.0.0/16", "100.64.0.0/16"),
    subnets=(
        Subnet("subnet-0123456789abcdef2", "eu-central-1b"),
        Subnet("subnet-0123456789abcdef1", "eu-central-1a"),
        Subnet("subnet-0123456789abcdef3", "eu-central-1a"),
        Subnet("subnet-0123456789abcdef0", "eu-central-1a", public=True),
    ),
    security_group="sg-0123456789abcdef0",
    groups=("workers-a", "workers-b"),
    managed=("system",),
    autoscaler="autoscaling/aws-cluster-autoscaler",
    redis=("shop/cache",),
    undeclared=("StatefulSet shop/sessions",),
)


def test_what_was_found_is_a_file_that_synth_accepts() -> None:
    (described,), problems = check(init.settings_text(EVERYTHING))
    assert problems == []
    assert described.cluster == "prod_eu"
    assert described.network is not None
    assert described.network.subnet_ids == ("subnet-0123456789abcdef1", "subnet-0123456789abcdef2")
    assert described.network.availability_zones == ("eu-central-1a", "eu-central-1b")
    assert described.network.redis_to == ("10.0.0.0/16", "100.64.0.0/16")
    assert (described.autoscaler.namespace, described.autoscaler.deployment) == (
        "autoscaling",
        "aws-cluster-autoscaler",
    )
    assert described.on_change == "plan"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028", "\x85"])
def test_a_name_with_a_line_break_is_no_setting(end: str) -> None:
    """T1: an Auto Scaling group may be called so."""
    name = f"workers{end}    surge: 40{end}    on_change: roll{end}    #"
    (described,), problems = check(init.settings_text(replace(EVERYTHING, groups=(name,), managed=(name,))))
    assert (problems, described.surge, described.on_change) == ([], 2, "plan")


@pytest.mark.parametrize(
    "found",
    [
        Discovery("demo"),
        replace(EVERYTHING, subnets=()),
        replace(EVERYTHING, autoscaler=""),
        replace(EVERYTHING, security_group="", ranges=()),
        replace(EVERYTHING, cluster="0123"),
        replace(EVERYTHING, cluster="yes"),
    ],
)
def test_what_was_not_found_is_left_out_and_said(found: Discovery) -> None:
    (described,), problems = check(init.settings_text(found))
    assert (problems, described.cluster) == ([], found.cluster)
    said = "\n".join(init.told(found))
    assert ("not found: cluster-autoscaler" in said) is (not found.autoscaler)
    assert ("functions outside any VPC" in said) is (not found.subnets)
    assert ("not found: private subnets" in said) is (not found.subnets)


def test_a_subnet_is_public_by_its_own_routes_or_the_main_ones() -> None:
    class Ec2:
        def describe_subnets(self, **_: Any) -> Any:
            return {
                "Subnets": [
                    {"SubnetId": f"subnet-{n}", "AvailabilityZone": f"zone-{n}", "VpcId": "vpc-1"} for n in "abc"
                ]
            }

        def describe_route_tables(self, **_: Any) -> Any:
            out, inside = [{"GatewayId": "igw-1"}], [{"GatewayId": "local"}, {"NatGatewayId": "nat-1"}]
            return {
                "RouteTables": [
                    {"VpcId": "vpc-1", "Associations": [{"Main": True}], "Routes": out},
                    {
                        "VpcId": "vpc-1",
                        "Associations": [{"SubnetId": "subnet-a"}, {"SubnetId": "subnet-b"}],
                        "Routes": inside,
                    },
                ]
            }

    found = subnets_of(Ec2(), ["subnet-a", "subnet-b", "subnet-c"])
    assert [s.public for s in found] == [False, False, True]
    assert [s.zone for s in chosen_subnets(found)] == ["zone-a", "zone-b"]


def test_the_autoscaler_is_found_by_its_name_and_redis_by_annotations_and_images() -> None:
    assert autoscaler_of(shop().workloads()) == "kube-system/cluster-autoscaler"
    world = cache()
    pods = [
        replace(p, containers=(Container("docker.io/bitnami/valkey:8"),))
        for p in world.pods()
        if p.name.startswith("web")
    ]
    groups, undeclared = redis_of(world.workloads(), [*world.pods(), *pods])
    assert groups == ("default/cache",)
    assert undeclared == (str(pods[0].owner),)
    assert pods[0].owner == Owner("Deployment", "default", "web")
    # What the plan does not block for is no trouble here: what has ended, and what is said to be a cache.
    for others in (
        [replace(p, phase="Succeeded") for p in pods],
        [replace(p, annotations={PART: CACHE}) for p in pods],
    ):
        assert redis_of(world.workloads(), [*world.pods(), *others])[1] == ()


def test_init_writes_the_file_and_says_what_was_not_found(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = replace(EVERYTHING, cluster="demo", missing=("the VPC's address ranges: You may not.",))
    monkeypatch.setattr(init, "discover", lambda _: found)
    monkeypatch.chdir(tmp_path)
    done = run("init")
    assert done.exit_code == Exit.FINE
    assert "not found: the VPC's address ranges: You may not." in done.stderr
    assert "StatefulSet shop/sessions runs Redis and is in no group" in done.stderr
    assert (tmp_path / "eks-rolling.schema.json").exists()
    assert check((tmp_path / "eks-rolling.yaml").read_text())[1] == []
    again = run("init")
    assert (again.exit_code, "already exists" in again.stderr) == (Exit.USAGE, True)
    assert run("plan", "--settings", str(tmp_path / "eks-rolling.yaml")).exit_code == Exit.FINE
