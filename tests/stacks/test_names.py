"""Every legal name of a cluster makes a stack; several accounts and regions stand in one file."""

import json
from pathlib import Path
from typing import Any

import botocore
import pytest

from eks_rolling.errors import BadRequest
from eks_rolling.names import MACHINES, machine_name, stack_name
from eks_rolling.settings import Settings
from eks_rolling_cli.target import region_of
from eks_rolling_config.file import Described, Network, check
from lab.application import assembly
from tests.assembly import NETWORK, synthesize

NAMES = ["a", "9lives", "with_underscores_", "MiXed-Case_1", "a" * 88, "b" * 100, "c" * 99 + "_", "d_" * 50]
"""1 to 100 letters, digits, hyphens and underscores, the first no hyphen (API reference of CreateCluster)."""

LIMITS = {
    ("AWS::SNS::Topic", "DisplayName"): 100,
    ("AWS::StepFunctions::StateMachine", "StateMachineName"): 80,
    ("AWS::Lambda::Function", "Description"): 256,
    ("AWS::IAM::Role", "Description"): 1000,
    ("AWS::EC2::SecurityGroup", "GroupDescription"): 255,
    ("AWS::CloudWatch::Alarm", "AlarmDescription"): 1024,
    ("AWS::KMS::Key", "Description"): 8192,
}


def template(document: dict[str, Any]) -> dict[str, Any]:
    (file,) = Path(assembly(document)).glob("*.template.json")
    made: dict[str, Any] = json.loads(file.read_text())
    return made


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["a" * 100, "with_underscores_" + "x" * 72, "9lives"])
def test_a_legal_name_is_synthesized_within_every_limit(name: str) -> None:
    made = template({"settings": {"cluster": name}, "network": NETWORK})
    for resource in made["Resources"].values():
        for (kind, field), limit in LIMITS.items():
            if resource["Type"] == kind and isinstance(value := resource["Properties"].get(field), str):
                assert len(value) <= limit, (kind, field, value)


def test_names_of_stacks_and_machines_are_legal_and_never_the_same() -> None:
    others = [name.replace("_", "-") for name in NAMES] + [name[:-1] + "x" for name in NAMES if len(name) > 80]
    names = sorted({*NAMES, *others})
    stacks = [stack_name(name) for name in names]
    assert all(set(stack) <= set(map(chr, range(48, 123))) | {"-"} and "_" not in stack for stack in stacks)
    assert all(len(stack) <= 100 for stack in stacks)
    machines = [machine_name(name, what) for name in names for what in MACHINES]
    assert all(len(machine) <= 80 for machine in machines)
    assert len({*stacks}) == len(names)
    assert len({*machines}) == len(machines)


@pytest.mark.parametrize("name", ["", "-first", "dot.ted", "spa ce", "e" * 101, "ümlaut"])
def test_an_illegal_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="cluster"):
        Settings.parse({"cluster": name})


TWO_PLACES = """\
clusters:
  - {cluster: shop, account: "111111111111", region: eu-central-1}
  - {cluster: shop, account: "222222222222", region: us-gov-west-1}
  - {cluster: other}
"""


@pytest.mark.heavy
def test_one_name_may_stand_in_several_accounts_and_regions(tmp_path: Path) -> None:
    clusters, problems = check(TWO_PLACES)
    assert problems == []
    assert [(c.account, c.region) for c in clusters][1] == ("222222222222", "us-gov-west-1")
    assert "account" not in clusters[0].settings.model_dump()
    file = tmp_path / "eks-rolling.yaml"
    file.write_text(TWO_PLACES)
    manifest = json.loads((assembly(str(file)) / "manifest.json").read_text())
    stacks = {
        name: (artifact["environment"], artifact["properties"].get("stackName"))
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert stacks == {
        "EksRolling-shop-111111111111-eu-central-1": ("aws://111111111111/eu-central-1", "EksRolling-shop"),
        "EksRolling-shop-222222222222-us-gov-west-1": ("aws://222222222222/us-gov-west-1", "EksRolling-shop"),
        "EksRolling-other": ("aws://unknown-account/unknown-region", None),
    }
    assert not manifest.get("missing")


def regions() -> list[str]:
    """Every region of every partition that the SDK knows."""
    known = json.loads((Path(botocore.__file__).parent / "data" / "partitions.json").read_text())
    return [r for p in known["partitions"] for r in p["regions"] if not r.endswith("-global")]


def test_every_region_of_every_partition_is_one_to_deploy_to() -> None:
    assert {"eu-central-1", "cn-north-1", "us-gov-west-1", "eusc-de-east-1"} <= {*regions()}
    for region in regions():
        zones = [f"{region}{letter}" for letter in "ab"]
        network = {**NETWORK, "availability_zones": zones}
        described = Described.model_validate({"cluster": "demo", "region": region, "network": network})
        assert described.region == region
        assert region_of(f"https://0123456789ABCDEF.gr7.{region}.eks.amazonaws.eu") == region


@pytest.mark.heavy
def test_a_cluster_of_both_address_families_has_functions_of_both() -> None:
    network = {**NETWORK, "dual_stack": True, "redis_to": ["10.0.0.0/16", "2001:db8::/56"]}
    made = template({"settings": {"cluster": "demo"}, "network": network})["Resources"].values()
    places = [r["Properties"]["VpcConfig"] for r in made if r["Type"] == "AWS::Lambda::Function"]
    assert places
    assert all(place["Ipv6AllowedForDualStack"] is True for place in places)
    (group,) = [r["Properties"] for r in made if r["Type"] == "AWS::EC2::SecurityGroup"]
    assert {rule.get("CidrIpv6") for rule in group["SecurityGroupEgress"]} == {None, "2001:db8::/56"}
    with pytest.raises(ValueError, match="IPv6 range"):
        Network.model_validate({**NETWORK, "dual_stack": True})


def test_access_entries_come_after_their_functions() -> None:
    """EKS refuses a role that IAM has not spread yet."""
    made = synthesize().template["Resources"]
    entries = {name: r for name, r in made.items() if r["Type"] == "AWS::EKS::AccessEntry"}
    assert entries
    for name, entry in entries.items():
        kinds = {made[other]["Type"] for other in entry["DependsOn"]}
        assert "AWS::Lambda::Function" in kinds, name
