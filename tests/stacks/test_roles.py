"""What the functions' roles may do, compared with AWS's service authorization reference as cfn-lint carries it."""

import importlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import pytest

from eks_rolling.observed.marks import GROUP_MAXIMUM, GROUP_RESUME, INSTANCE_PROTECTED, INSTANCE_REPLACES
from eks_rolling.roll.fence import timeout
from scripts import role_table
from stacks.functions import HOOKS, ROLLBACK, SIZES, STEPS, UNJOINED, USUAL
from stacks.roles import FLEET_RESOURCES, NETWORK_INTERFACES, TAG_KEYS, TARGET_RESOURCES, UNSCOPED
from stacks.state_machine import CALL_TIMEOUT
from tests.assembly import in_network, synthesize

OF_STEP_FUNCTIONS = {
    # What CDK gives a state machine that writes logs: the delivery's actions take no resource (Step Functions guide).
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
}


@cache
def reference() -> dict[str, Any]:
    """Service -> actions and resources."""
    data: dict[str, Any] = json.loads((files("cfnlint") / "data/AdditionalSpecs/Policies.json").read_text())
    return data


def takes_resources(action: str) -> list[str]:
    """The kinds of resource that the action takes; raises KeyError for an action that AWS does not have."""
    service, name = action.split(":")
    resources: list[str] = reference()[service]["Actions"][name.lower()].get("Resources", [])
    return resources


def statements(assembly: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of every role, with its policy's logical id."""
    for name, policy in assembly.of_type("AWS::IAM::Policy").items():
        for statement in policy["PolicyDocument"]["Statement"]:
            yield name, statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allowed(assembly: Any, part: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Action -> statement, of the policies whose logical id has the part."""
    for name, statement in statements(assembly):
        if part in name and statement["Effect"] == "Allow":
            for action in listed(statement["Action"]):
                yield action, statement


def test_the_threat_model_tells_what_every_role_could_do() -> None:
    text = role_table.DOCUMENT.read_text()
    assert role_table.written(text) == text, "run: make roles"
    groups = {group for permissions in STEPS.values() for group in permissions.kubernetes}
    assert groups <= role_table.IN_THE_CLUSTER.keys()


@pytest.mark.parametrize("assembly", [synthesize, in_network])
def test_no_action_is_allowed_on_everything_without_a_reason(assembly: Any) -> None:
    for action, statement in allowed(assembly()):
        if "*" in listed(statement["Resource"]):
            assert action in UNSCOPED.keys() | OF_STEP_FUNCTIONS, action


def test_every_reason_is_true_and_needed() -> None:
    used = {a for a, s in allowed(in_network()) if "*" in listed(s["Resource"])}
    assert UNSCOPED.keys() <= used
    for action, reason in UNSCOPED.items():
        if "takes no resource" in reason:
            assert takes_resources(action) == [], action


@pytest.mark.parametrize("assembly", [synthesize, in_network])
def test_every_action_exists_and_none_is_a_pattern(assembly: Any) -> None:
    for action, _ in allowed(assembly()):
        assert "*" not in action
        takes_resources(action)


def test_no_managed_policy_is_attached() -> None:
    assert all("ManagedPolicyArns" not in role for role in synthesize().of_type("AWS::IAM::Role").values())


def test_what_changes_groups_and_instances_is_bound_to_the_clusters_tag_and_no_managed_node_group() -> None:
    """N4, by IAM."""
    on_groups = {a for p in STEPS.values() for a in p.groups}
    on_instances = {a for p in STEPS.values() for a in p.instances}
    seen = set()
    for action, statement in allowed(synthesize()):
        if action not in on_groups | on_instances:
            continue
        seen.add(action)
        condition = statement["Condition"]
        assert condition["StringEquals"] == {"aws:ResourceTag/kubernetes.io/cluster/demo": ["owned", "shared"]}
        if action in on_groups:
            assert condition["Null"] == {"aws:ResourceTag/eks:nodegroup-name": "true"}
            assert takes_resources(action) == ["autoScalingGroup"]
        else:
            assert "instance" in takes_resources(action)
    assert seen == on_groups | on_instances


def test_only_our_own_tags_may_be_written() -> None:
    """A role that could write the cluster's tag could make any group its own."""
    tagging = [(a, s) for a, s in allowed(synthesize()) if a.endswith("Tags") and not a.split(":")[1].startswith("Get")]
    assert {a for a, _ in tagging} == TAG_KEYS.keys()
    groups, instances = [GROUP_MAXIMUM, GROUP_RESUME], [INSTANCE_PROTECTED, INSTANCE_REPLACES]
    for action, statement in tagging:
        keys = statement["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"]
        assert keys == (groups if action.startswith("autoscaling:") else instances)


def test_target_groups_and_load_balancers_are_named_by_kind() -> None:
    for action, statement in allowed(synthesize()):
        if action in TARGET_RESOURCES:
            (kind,) = takes_resources(action)
            (resource,) = listed(statement["Resource"])
            assert resource["Fn::Join"][1][-1].split(":")[-1] == TARGET_RESOURCES[action]
            assert TARGET_RESOURCES[action].startswith(f"{kind}/")


def test_a_launch_touches_what_a_fleet_touches_and_nothing_can_launch_by_itself() -> None:
    actions = dict(allowed(synthesize()))
    assert {r.removesuffix("/*") for r in FLEET_RESOURCES} | {"image"} == set(takes_resources("ec2:CreateFleet"))
    assert "*" not in listed(actions["ec2:CreateFleet"]["Resource"])
    assert "ec2:RunInstances" not in actions
    assert "iam:PassRole" not in actions
    assert not [a for a in actions if a.startswith("iam:")]


def test_documents_are_read_and_written_below_one_prefix_and_never_deleted() -> None:
    actions = [(a, s) for a, s in allowed(synthesize()) if a.startswith("s3:")]
    assert {a for a, _ in actions} == {"s3:GetObject", "s3:ListBucket", "s3:PutObject"}
    for action, statement in actions:
        if action == "s3:ListBucket":
            assert statement["Condition"] == {"StringLike": {"s3:prefix": "rolls/*"}}
        else:
            (resource,) = listed(statement["Resource"])
            assert resource["Fn::Join"][1][-1] == "/rolls/*"


def test_code_of_a_function_cannot_make_network_interfaces_though_its_role_can() -> None:
    policies = {n for n, _ in statements(in_network()) if n.startswith("Functions")}
    denials = {n: s for n, s in statements(in_network()) if s["Effect"] == "Deny"}
    assert denials.keys() == policies
    for denial in denials.values():
        assert set(denial["Action"]) == set(NETWORK_INTERFACES) - {"ec2:DescribeSubnets"}
        assert denial["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}
    assert not [s for _, s in statements(synthesize()) if s["Effect"] == "Deny"]


def test_a_function_writes_into_its_own_log_group_alone() -> None:
    for step in STEPS:
        name = "".join(word.capitalize() for word in step.split("_"))
        (policy,) = [n for n in synthesize().of_type("AWS::IAM::Policy") if n.startswith(f"Functions{name}Role")]
        written = {json.dumps(s["Resource"]) for a, s in allowed(synthesize(), policy) if a == "logs:PutLogEvents"}
        (group,) = [n for n in synthesize().of_type("AWS::Logs::LogGroup") if n.startswith(f"Functions{name}Logs")]
        assert written == {json.dumps({"Fn::GetAtt": [group, "Arn"]})}


def test_every_function_has_a_role_of_its_own() -> None:
    functions = synthesize().of_type("AWS::Lambda::Function")
    used = [p["Role"]["Fn::GetAtt"][0] for p in functions.values()]
    assert len(set(used)) == len(used)


def test_sizes_are_of_steps_and_every_call_outlasts_its_function() -> None:
    assert SIZES.keys() <= STEPS.keys() | HOOKS.keys() | ROLLBACK.keys() | UNJOINED.keys()
    for size in (USUAL, *SIZES.values()):
        assert size.timeout < CALL_TIMEOUT.to_seconds()


def test_functions_reach_the_api_server_aws_and_redis_and_nobody_reaches_them() -> None:
    (group,) = in_network().of_type("AWS::EC2::SecurityGroup").values()
    rules = {(r["CidrIp"], r["FromPort"], r["ToPort"], r["IpProtocol"]) for r in group["SecurityGroupEgress"]}
    assert {r[1:] for r in rules} == {(443, 443, "tcp"), (6379, 6379, "tcp"), (26379, 26379, "tcp")}
    assert {r[0] for r in rules if r[1] != 443} == {"10.0.0.0/16"}
    assert "SecurityGroupIngress" not in group
    used = [p["VpcConfig"]["SecurityGroupIds"] for p in in_network().of_type("AWS::Lambda::Function").values()]
    assert len(used) == len(STEPS)
    assert all(ids == used[0] for ids in used)


def test_the_clusters_security_group_lets_the_functions_in_where_it_is_named() -> None:
    rules = in_network().of_type("AWS::EC2::SecurityGroupIngress").values()
    assert {(r["FromPort"], r["ToPort"]) for r in rules} == {(443, 443), (6379, 6379), (26379, 26379)}
    assert {r["GroupId"] for r in rules} == {"sg-0123456789abcdef0"}


def test_the_fence_knows_how_long_each_function_may_run() -> None:
    """R6: a restore waits for that."""
    for step in (*STEPS, *HOOKS, *ROLLBACK, *UNJOINED):
        handler = importlib.import_module(f"eks_rolling.steps.{step}").handler
        if handler.locked or step == "settle_redis":
            assert timeout(step) == SIZES.get(step, USUAL).timeout, step
