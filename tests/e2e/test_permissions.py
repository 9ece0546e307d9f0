"""Permissions: one taken away stops a roll or has it restored; and rolls in the ways that no other lab goes.

With every permission that the files and the template grant, the rolls of all labs are what tests/permissions compares.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from eks_rolling_cli.execution_history import approval_token
from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.spec import Delays, GroupSpec, LabSpec
from lab.view import LineView, Snapshot
from tests.e2e.rolled import kubectl
from tests.permissions.collected import FORBIDDEN
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("permissions")]

ZONE = "eu-central-1a"
SETTINGS = {"canary": False, "bake_seconds": 0, "on_change": "off", "alarms": ["quiet"]}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Three nodes, two of them behind a classic load balancer, the third in a group that buys on demand and spot."""
    spec = LabSpec(
        cluster=FORBIDDEN,
        zones=(ZONE,),
        groups=(
            GroupSpec(name="workers", zones=(ZONE,), size=2),
            GroupSpec(name="mixed", zones=(ZONE,), size=1, max=2),
        ),
        manifests=("tests/e2e/few.yaml",),
        delays=Delays(boot=1.0, node_ready=0.5, node_removal=0.5),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, FORBIDDEN) as running:
            deploy(running, SETTINGS)
            with operator_of(running) as operator:
                operator.wait_for_workloads()
                _prepare(operator)
                yield operator


def _prepare(operator: Operator) -> None:
    operator.rolls.client("cloudwatch").put_metric_alarm(
        AlarmName="quiet",
        Namespace="shop",
        MetricName="errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    balancers = operator.rolls.client("elb")
    listener = {"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 80}
    balancers.create_load_balancer(LoadBalancerName="classic", Listeners=[listener], AvailabilityZones=[ZONE])
    balancers.register_instances_with_load_balancer(
        LoadBalancerName="classic", Instances=[{"InstanceId": i} for i in instances(operator, "workers")]
    )
    for template in ("workers", "mixed"):
        operator.rolls.publish_version(template)
    # Each change is looked at by an execution of its own, which then does nothing.
    until(lambda: ended(operator) == 2, "the changes were looked at")


def ended(operator: Operator) -> int:
    """How many executions of the Roll machine there were, and have ended."""
    return sum(not execution.running for execution in operator.rolls.executions.of(operator.rolls.machine("roll")))


def instances(operator: Operator, group: str) -> list[str]:
    (found,) = operator.rolls.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])[
        "AutoScalingGroups"
    ]
    return [i["InstanceId"] for i in found["Instances"] if i["LifecycleState"] == "InService"]


# One permission less


@contextmanager
def verb_taken(operator: Operator, role: str, resource: str, verb: str) -> Iterator[None]:
    """A verb is gone from an object of deploy/rbac.yaml, KIND/NAME, for the time of the block."""
    kind, _, name = role.partition("/")
    where = [] if kind == "clusterrole" else ["-n", "kube-system"]
    before = json.loads(kubectl(operator, "get", role, *where, "-o", "json"))
    index, verbs = next(
        (i, rule["verbs"])
        for i, rule in enumerate(before["rules"])
        if resource in rule["resources"] and verb in rule["verbs"]
    )

    def put(value: list[str]) -> None:
        change = [{"op": "replace", "path": f"/rules/{index}/verbs", "value": value}]
        kubectl(operator, "patch", role, *where, "--type=json", f"--patch={json.dumps(change)}")

    resource, _, subresource = resource.partition("/")
    one = f"{resource}/{names[0]}" if (names := before["rules"][index].get("resourceNames")) else resource
    asked = ["auth", "can-i", verb, one, f"--subresource={subresource}", "--as=me", f"--as-group={name}", *where]

    def may() -> bool:
        done = operator.lab.run(["kubectl", *asked], capture_output=True)
        return str(done.stdout).strip() == "yes"

    put([v for v in verbs if v != verb] or ["none"])
    try:
        until(lambda: not may(), f"{name} may not {verb} {resource}")
        yield
    finally:
        put(verbs)
        until(may, f"{name} may {verb} {resource} again")


@contextmanager
def action_taken(operator: Operator, step: str, action: str) -> Iterator[None]:
    """An action is gone from the policy of a step's role for the time of the block."""
    iam = operator.rolls.client("iam")
    name = "".join(word.capitalize() for word in step.split("_"))
    roles = [r["RoleName"] for page in iam.get_paginator("list_roles").paginate() for r in page["Roles"]]
    (role,) = [r for r in roles if f"-Functions{name}Role" in r]
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    before = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    left = [s | {"Action": [a for a in listed(s["Action"]) if a != action]} for s in before["Statement"]]
    after = before | {"Statement": [s for s in left if s["Action"]]}
    assert sum(len(listed(s["Action"])) for s in before["Statement"]) == sum(len(s["Action"]) for s in left) + 1
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(after))
    try:
        yield
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(before))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


Taken = Callable[[Operator], AbstractContextManager[None]]


def verb(role: str, resource: str, name: str) -> Taken:
    return lambda operator: verb_taken(operator, role, resource, name)


def action(step: str, name: str) -> Taken:
    return lambda operator: action_taken(operator, step, name)


LESS: dict[str, tuple[Taken, str]] = {
    "patch nodes": (verb("clusterrole/eks-rolling-nodes", "nodes", "patch"), "eks-rolling-nodes may not patch nodes"),
    "create pods/eviction": (
        verb("clusterrole/eks-rolling-evict", "pods/eviction", "create"),
        "eks-rolling-evict may not create pods/eviction",
    ),
    "get csinodes": (verb("clusterrole/eks-rolling-look", "csinodes", "get"), "eks-rolling-look may not get csinodes"),
    "delete poddisruptionbudgets": (
        verb("clusterrole/eks-rolling-restore", "poddisruptionbudgets", "delete"),
        "eks-rolling-restore may not delete poddisruptionbudgets",
    ),
    "update leases": (
        verb("role/eks-rolling-lock", "leases", "update"),
        "eks-rolling-lock may not update leases eks-rolling in kube-system",
    ),
    "plan's DescribeLaunchTemplates": (
        action("plan", "ec2:DescribeLaunchTemplates"),
        "PlanRole{} may not ec2:DescribeLaunchTemplates",
    ),
    "restore's ResumeProcesses": (
        action("restore", "autoscaling:ResumeProcesses"),
        "RestoreRole{} may not autoscaling:ResumeProcesses",
    ),
    "restore's DeleteTags": (action("restore", "ec2:DeleteTags"), "RestoreRole{} may not ec2:DeleteTags"),
    "pause's SuspendProcesses": (
        action("pause_interference", "autoscaling:SuspendProcesses"),
        "PauseInterferenceRole{} may not autoscaling:SuspendProcesses",
    ),
    "launch's LaunchInstances": (
        action("launch_replacement", "autoscaling:LaunchInstances"),
        "LaunchReplacementRole{} may not autoscaling:LaunchInstances",
    ),
}
"""Ten permissions, and the sentence's words; `{}` is what CDK ends a role's name with."""


@pytest.mark.drawn(keep=3)
@pytest.mark.parametrize("less", LESS)
def test_a_roll_with_one_permission_less_leaves_all_as_it_was_and_names_it(
    lab: Operator, view: LineView, less: str
) -> None:
    """R2: it stops before it changes anything, or what it changed is put back.

    A refused launch takes longest: restore waits two minutes for an instance that AWS may not list yet.
    """
    taken, words = LESS[less]
    before = lab.settled_state()
    with taken(lab):
        outcome = lab.follow(lab.rolls.start({"groups": ["workers"]}), view.show, within_seconds=300)
    assert outcome.status == "FAILED"
    for told in (outcome.reason, outcome.report["reason"]):
        begin, _, end = words.partition("{}")
        assert begin in told
        assert end in told.partition(begin)[2]
    assert outcome.report["left_behind"] == []
    assert lab.settled_state() == before


# The ways that no other lab goes


def test_a_node_by_hand_leaves_its_classic_load_balancer_on_the_way(lab: Operator, view: LineView) -> None:
    """Started by hand, the node's machine starts a roll that names it; bare ReplicaSets are looked at; alarms are."""
    old = instances(lab, "workers")
    before = lab.rolls.executions.of(lab.rolls.machine("roll"))
    known = {e.arn for e in before}
    (node,) = [n.name for n in lab.settled_state().nodes if n.instance == old[0]]
    lab.rolls.executions.start(lab.rolls.machine("node"), "by-hand", {"node": node})

    def started() -> list[str]:
        return [e.arn for e in lab.rolls.executions.of(lab.rolls.machine("roll")) if e.arn not in known]

    def as_its_controller_does(snapshot: Snapshot) -> None:
        """The load balancer is no business of the group's, so somebody else registers new instances with it."""
        view.show(snapshot)
        if new := [i for i in instances(lab, "workers") if i not in old]:
            lab.rolls.client("elb").register_instances_with_load_balancer(
                LoadBalancerName="classic", Instances=[{"InstanceId": i} for i in new]
            )

    until(lambda: started(), "the roll is started")
    outcome = lab.follow(started()[0], as_its_controller_does, within_seconds=240)
    assert outcome.succeeded, outcome.reason
    left = lab.rolls.client("elb").describe_load_balancers(LoadBalancerNames=["classic"])["LoadBalancerDescriptions"]
    now = instances(lab, "workers")
    assert old[0] not in now
    assert {i["InstanceId"] for i in left[0]["Instances"]} == set(now)


def test_a_group_of_mixed_purchase_options_is_rolled_once_a_person_has_approved(lab: Operator, view: LineView) -> None:
    """One instance after the other, by the desired capacity: LaunchInstances serves no such group."""
    template = lab.rolls.ec2.describe_launch_templates(LaunchTemplateNames=["mixed"])["LaunchTemplates"][0]
    lab.rolls.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName="mixed",
        MixedInstancesPolicy={
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateId": template["LaunchTemplateId"],
                    "Version": "$Latest",
                }
            },
            "InstancesDistribution": {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 50},
        },
    )
    old = instances(lab, "mixed")
    roll = lab.rolls.start({"groups": ["mixed"], "approval": True})
    until(lambda: token(lab, roll), "a person is asked")
    lab.rolls.executions.approve(token(lab, roll), {"by": "test"})
    outcome = lab.follow(roll, view.show, within_seconds=240)
    assert outcome.succeeded, outcome.reason
    assert outcome.report["replaced"] == 1
    new = instances(lab, "mixed")
    assert len(new) == 1
    assert new != old


def token(operator: Operator, roll: str) -> str:
    """The task token of a roll that waits for approval; "" while it does not."""
    return approval_token(operator.rolls.executions.history(roll))
