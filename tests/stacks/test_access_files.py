"""The files that give people access: what the command needs is in them, by names that exist."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks_rolling.names import MACHINES, machine_name
from eks_rolling.roll.lock import lock_name
from eks_rolling.settings import Settings
from tests.stacks.test_roles import reference

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FILES = ("operator.json", "deployer.json")


def policy(name: str) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads((REPOSITORY / "deploy" / "iam" / name).read_text())["Statement"]
    return statements


def actions(name: str) -> set[str]:
    listed = [s["Action"] for s in policy(name)]
    return {a for each in listed for a in ([each] if isinstance(each, str) else each)}


def rbac(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY / "deploy" / name).read_text()))


@pytest.mark.parametrize("name", FILES)
def test_every_action_is_one_that_aws_knows(name: str) -> None:
    for action in actions(name):
        service, _, called = action.partition(":")
        assert any(fnmatch(known, called.lower()) for known in reference()[service]["Actions"]), action


def test_the_operators_policy_allows_what_the_commands_page_says_it_calls() -> None:
    page = (REPOSITORY / "docs" / "command.md").read_text().partition("## Permissions it needs")[2]
    called = set(re.findall(r"`([a-z0-9]+:[A-Z][A-Za-z]*\*?)`", page))
    assert "states:StartExecution" in called
    assert sorted(c for c in called if not any(fnmatch(c, allowed) for allowed in actions("operator.json"))) == []


def test_the_operators_policy_names_the_machines_that_are_deployed() -> None:
    (rolls,) = [s for s in policy("operator.json") if s["Sid"] == "Rolls"]
    for machine in MACHINES:
        assert fnmatch(machine_name("CLUSTER", machine), rolls["Resource"].rpartition(":")[2])


def test_operators_are_bound_to_a_role_that_is_there_and_may_write_on_the_lock_alone() -> None:
    documents = rbac("iam/operator-rbac.yaml")
    there = {d["metadata"]["name"] for d in (*rbac("rbac.yaml"), *documents) if d["kind"] in {"ClusterRole", "Role"}}
    assert {d["roleRef"]["name"] for d in documents if "roleRef" in d} <= there
    (role,) = [d for d in documents if d["kind"] == "Role"]
    (rule,) = role["rules"]
    assert f"{role['metadata']['namespace']}/{rule['resourceNames'][0]}" == lock_name(Settings(cluster="x").namespace)
    assert (rule["resources"], rule["verbs"]) == (["leases"], ["get", "update"])


def test_operators_may_neither_change_groups_nor_read_secrets() -> None:
    """The functions do that: nobody needs it to operate a roll."""
    assert not [
        a for a in actions("operator.json") if re.search(r":(Update|Terminate|Create|Delete|Put|Set|Launch)", a)
    ]
    assert "secrets" not in (REPOSITORY / "deploy" / "iam" / "operator-rbac.yaml").read_text()


ENDPOINTS = {"elbv2": "elasticloadbalancing", "elb": "elasticloadbalancing", "cloudwatch": "monitoring",
             "service-quotas": "servicequotas", "stepfunctions": "states"}  # fmt: skip
"""The names of VPC endpoints that are not botocore's for the service."""


def test_the_page_on_private_networks_lists_an_endpoint_for_every_service_that_functions_call() -> None:
    clients = (REPOSITORY / "lambdas" / "eks_rolling" / "clients").glob("*.py")
    called = {name for file in clients for name in re.findall(r"\.client\(\s*\"([a-z0-9-]+)\"", file.read_text())}
    assert {"autoscaling", "lambda", "eks"} <= called
    listed = re.findall(
        r"^\| `([a-z0-9]+)` \|", (REPOSITORY / "docs" / "private-networks.md").read_text(), re.MULTILINE
    )
    # A token for the API server is a signed request to STS, which the API server makes.
    assert {ENDPOINTS.get(name, name) for name in called} <= set(listed)
