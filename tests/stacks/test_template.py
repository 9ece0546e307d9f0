"""The template around the workflow: roles, triggers, what is kept."""

from typing import Any

import pytest

from stacks.functions import STEPS
from stacks.roll_stack import machine_name
from tests.assembly import synthesize

UNSCOPED = {
    "autoscaling:Describe",
    "cloudwatch:Describe",
    "ec2:Describe",
    "ec2:CreateFleet",
    "elasticloadbalancing:Describe",
    "logs:",
    "xray:",
}
"""Actions that take no resource, or act on ones that do not exist yet; everything else names its resource."""


def statements() -> list[dict[str, Any]]:
    return [
        statement
        for policy in synthesize().of_type("AWS::IAM::Policy").values()
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_no_role_may_do_everything_to_everything() -> None:
    for statement in statements():
        if "*" in listed(statement["Resource"]):
            for action in listed(statement["Action"]):
                assert any(action.startswith(prefix) for prefix in UNSCOPED), action


def test_what_changes_groups_and_instances_is_bound_to_the_clusters_tag() -> None:
    """N4, by IAM."""
    changing = {a for p in STEPS.values() for a in (*p.groups, *p.instances)}
    seen = set()
    for statement in statements():
        actions = set(listed(statement["Action"]))
        if actions & changing:
            seen |= actions & changing
            assert statement["Condition"] == {"Null": {"aws:ResourceTag/kubernetes.io/cluster/demo": "false"}}
    assert seen == changing


def test_every_function_has_a_role_of_its_own() -> None:
    functions = synthesize().of_type("AWS::Lambda::Function")
    roles = [p["Role"]["Fn::GetAtt"][0] for p in functions.values()]
    assert len(set(roles)) == len(roles)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_only_steps_that_touch_the_cluster_have_an_access_entry(step: str) -> None:
    entries = synthesize().of_type("AWS::EKS::AccessEntry")
    name = "".join(word.capitalize() for word in step.split("_"))
    found = [e for logical_id, e in entries.items() if logical_id.startswith(f"Functions{name}AccessEntry")]
    wanted = STEPS[step].kubernetes
    assert [e["KubernetesGroups"] for e in found] == ([list(wanted)] if wanted else [])


def test_launch_template_events_that_failed_start_nothing() -> None:
    rules = list(synthesize().of_type("AWS::Events::Rule").values())
    patterns = [r["EventPattern"] for r in rules if "eventName" in r["EventPattern"]["detail"]]
    assert len(patterns) == 2
    assert all(p["detail"]["errorCode"] == [{"exists": False}] for p in patterns)


def test_a_roll_that_ends_badly_starts_the_restore_with_its_name() -> None:
    """R2: stopping an execution skips its Catch."""
    (rule,) = [
        p for p in synthesize().of_type("AWS::Events::Rule").values() if p["EventPattern"]["source"] == ["aws.states"]
    ]
    assert rule["EventPattern"]["detail"]["status"] == ["ABORTED", "FAILED", "TIMED_OUT"]
    (target,) = rule["Targets"]
    assert target["Arn"] == {"Ref": synthesize().machine_id("restore")}
    assert target["InputTransformer"]["InputPathsMap"] == {"detail-name": "$.detail.name"}
    assert target["DeadLetterConfig"]


def test_reports_are_private_and_outlive_the_stack() -> None:
    (bucket,) = [r for r in synthesize().template["Resources"].values() if r["Type"] == "AWS::S3::Bucket"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())


def test_machine_names_fit_for_the_longest_cluster_name() -> None:
    assert len(machine_name("c" * 100, "restore")) <= 80
    assert machine_name("c" * 99 + "a", "roll") != machine_name("c" * 99 + "b", "roll")
