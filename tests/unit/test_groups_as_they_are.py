"""Groups as accounts have them: attribute-based overrides, launch configurations, weights, and features unheard of."""

from dataclasses import replace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from eks_rolling.clients.aws import KNOWN_FEATURES, KNOWN_IN_OVERRIDES, AwsClient, _group
from eks_rolling.documents.finding import Severity
from eks_rolling.observed.aws import Group, GroupInstance, LaunchTemplate
from eks_rolling.observed.marks import outdated
from eks_rolling.payloads import RollRequest
from eks_rolling.plan.checks import resolve
from eks_rolling.steps.plan import PlanOutcome, decide
from tests.unit.test_preflight import CLEAN, GROUP, NODE, SETTINGS, found


def instance(identity: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "InstanceId": identity,
        "AvailabilityZone": "a",
        "LifecycleState": "InService",
        "HealthStatus": "Healthy",
        "ProtectedFromScaleIn": False,
        "InstanceType": kind,
    } | more


def described(*instances: dict[str, Any], **more: Any) -> Group:
    item: Any = {
        "AutoScalingGroupName": "ng",
        "MinSize": 0,
        "MaxSize": 5,
        "DesiredCapacity": 2,
        "AvailabilityZones": ["a"],
        "Instances": list(instances),
        "Tags": [{"Key": "kubernetes.io/cluster/demo", "Value": "owned", "PropagateAtLaunch": True}],
    } | more
    return _group(item, frozenset())


def template(identity: str, version: str) -> dict[str, dict[str, str]]:
    return {"LaunchTemplate": {"LaunchTemplateId": identity, "Version": version}}


def mixed(*overrides: dict[str, Any]) -> dict[str, Any]:
    own = {"LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1", "Version": "$Latest"}}
    return {"MixedInstancesPolicy": {"LaunchTemplate": own | {"Overrides": list(overrides)}}}


BY_ATTRIBUTES = mixed(
    {"InstanceRequirements": {"AllowedInstanceTypes": ["m6i.*"]}},
    {
        "InstanceRequirements": {"AllowedInstanceTypes": ["m6g.*"]},
        "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-arm", "Version": "$Latest"},
    },
)


def outdated_of(group: Group) -> list[str]:
    targets = resolve([group], {"lt-1": (2, 1), "lt-arm": (5, 1)})["ng"]
    return [i.id for i in group.instances if outdated(i, targets)]


def test_an_instance_of_an_override_by_attributes_has_the_overrides_own_template() -> None:
    group = described(
        instance("i-new", "m6i.large", **template("lt-1", "2")),
        instance("i-old", "m6i.large", **template("lt-1", "1")),
        instance("i-arm", "m6g.large", **template("lt-arm", "5")),
        instance("i-old-arm", "m6g.large", **template("lt-arm", "2")),
        instance("i-else", "m6g.large", **template("lt-gone", "5")),
        **BY_ATTRIBUTES,
    )
    assert outdated_of(group) == ["i-old", "i-old-arm", "i-else"]
    assert group.types == ("*0", "*1")


def test_an_override_by_type_is_right_for_that_type_alone() -> None:
    arm = {"LaunchTemplateId": "lt-arm", "Version": "$Latest"}
    group = described(
        instance("i-arm", "m6g.large", **template("lt-arm", "5")),
        instance("i-wrong", "m6i.large", **template("lt-arm", "5")),
        instance("i-wrong-too", "m6g.large", **template("lt-1", "2")),
        **mixed({"InstanceType": "m6g.large", "LaunchTemplateSpecification": arm}),
    )
    assert outdated_of(group) == ["i-wrong", "i-wrong-too"]


@pytest.mark.parametrize("version", ["$Latest", "$Default"])
def test_of_a_template_that_was_deleted_nobody_can_tell_which_nodes_are_outdated(version: str) -> None:
    """And the other groups are rolled all the same."""
    gone = replace(GROUP, name="gone", template=LaunchTemplate("lt-gone", version))
    gone = replace(gone, instances=(GroupInstance("i-9", "a", template="lt-gone:3", type="m6i.large"),))
    view = replace(CLEAN, groups=(GROUP, gone))
    plan = decide(view, RollRequest(), SETTINGS)
    assert (plan.outcome, [c.instance.id for c in plan.chosen]) == (PlanOutcome.ROLL, ["i-1"])
    assert [(f.code, f.severity, f.object) for f in plan.findings] == [("version-gone", Severity.NOTE, "group gone")]
    assert "lt-gone" in plan.findings[0].reason
    assert decide(view, RollRequest(groups=("gone",)), SETTINGS).outcome is PlanOutcome.BLOCKED


def test_an_override_whose_own_template_was_deleted_leaves_its_group_alone_too() -> None:
    own = replace(GROUP, overrides=(("m6g.large", LaunchTemplate("lt-arm", "$Latest")),))
    assert resolve([own], {"lt-1": (2, 1)}) == {}
    assert resolve([own], {"lt-1": (2, 1), "lt-arm": (5, 1)})["ng"] == {"": "lt-1:2", "m6g.large": "lt-arm:5"}


def test_an_instance_is_outdated_whose_launch_configuration_is_not_its_groups() -> None:
    group = described(
        instance("i-new", "m6i.large", LaunchConfigurationName="lc-2"),
        instance("i-old", "m6i.large", LaunchConfigurationName="lc-1"),
        instance("i-deleted", "m6i.large"),
        LaunchConfigurationName="lc-2",
    )
    assert outdated_of(group) == ["i-old", "i-deleted"]
    assert group.launches_serially


@pytest.mark.parametrize(
    ("feature", "named"),
    [
        (mixed({"InstanceType": "m6i.large", "WeightedCapacity": "4"}), "weighted capacity"),
        ({"DesiredCapacityType": "vcpu"}, "desired capacity in vcpu"),
        ({"TrafficSources": [{"Identifier": "tg", "Type": "vpc-lattice"}]}, "traffic source of type vpc-lattice"),
        ({"Status": "Delete in progress"}, "it is being deleted"),
        ({"SomethingNew": {"Really": True}}, "the feature SomethingNew"),
        ({"Operator": {"Principal": "ecs.amazonaws.com"}}, "the feature Operator"),
        (mixed({"InstanceType": "m6i.large", "ImageId": "ami-2"}), "the field ImageId of an override"),
        (mixed({"InstanceType": "m6i.large", "SomethingNew": "x"}), "the field SomethingNew of an override"),
        (
            {"InstanceLifecyclePolicy": {"RetentionTriggers": {"TerminateHookAbandon": "retain"}}},
            "a lifecycle policy that retains instances",
        ),
    ],
)
def test_a_feature_that_a_roll_does_not_know_is_refused_by_name(feature: dict[str, Any], named: str) -> None:
    group = described(instance("i-1", "m6i.large", **template("lt-1", "1")), **feature)
    assert len(group.unhandled) == 1
    assert named in group.unhandled[0]
    (finding,) = found(replace(CLEAN, groups=(replace(GROUP, unhandled=group.unhandled),)))
    assert (finding.code, finding.severity) == ("group-feature", Severity.BLOCKS)
    assert named in finding.reason


def test_usual_features_are_known() -> None:
    usual = {"TrafficSources": [{"Identifier": "a", "Type": "elbv2"}], "DesiredCapacityType": "units"}
    more = {"MaxInstanceLifetime": 0, "CapacityRebalance": True, "InstanceMaintenancePolicy": {}}
    assert described(**usual, **more).unhandled == ()
    policies: list[Any] = [{}, {"RetentionTriggers": {}}, {"RetentionTriggers": {"TerminateHookAbandon": "terminate"}}]
    for policy in policies:
        assert described(InstanceLifecyclePolicy=policy).unhandled == ()


REFUSED, REFUSED_IN_OVERRIDES = {"Operator"}, {"ImageId"}
"""What only AWS's own service may change, and what launches something else than the template says."""


def test_every_field_that_the_model_has_is_known_or_refused() -> None:
    """A new botocore with a new field fails here until somebody has decided."""
    model: Any = botocore.session.get_session().get_service_model("autoscaling")
    assert set(model.shape_for("AutoScalingGroup").members) - KNOWN_FEATURES == REFUSED
    assert set(model.shape_for("LaunchTemplateOverrides").members) - KNOWN_IN_OVERRIDES == REFUSED_IN_OVERRIDES


def test_features_by_which_aws_replaces_instances_itself_are_read() -> None:
    ages = described(MaxInstanceLifetime=86400 * 7, CapacityRebalance=True)
    assert (ages.longest_life, ages.rebalances_spot) == (604800.0, True)
    # Without a spot instance nothing is rebalanced.
    assert not described(CapacityRebalance=True, **mixed({"InstanceType": "m6i.large"})).rebalances_spot
    assert not described().rebalances_spot


@pytest.mark.parametrize(
    "beside",
    [
        replace(GROUP, name="idle", desired=0, instances=(), suspended=frozenset({"Launch"})),
        replace(GROUP, name="idle", instances=(GroupInstance("i-7", "a", template="lt-1:2"),), warm_pool=True),
        replace(GROUP, name="idle", instances=(GroupInstance("i-7", "a", "Standby", template="lt-1:1"),)),
        replace(GROUP, name="idle", instances=(), refresh_running=True),
        replace(GROUP, name="idle", instances=(), unhandled=("weighted capacity",)),
    ],
)
def test_only_what_is_touched_blocks(beside: Group) -> None:
    view = replace(CLEAN, groups=(GROUP, beside))
    assert {f.severity for f in found(view)} == {Severity.NOTE}
    assert any("replaces none of its instances" in f.reason for f in found(view))
    named = found(view, RollRequest(groups=("ng", "idle")))
    assert Severity.BLOCKS in {f.severity for f in named}


@pytest.mark.parametrize(
    ("nodes", "code"),
    [((), "not-joined:instance i-1"), ((replace(NODE, ready=False),), "node-not-ready:node node-1")],
)
def test_a_node_that_cannot_be_emptied_blocks_until_a_person_leaves_it_out(nodes: tuple[Any, ...], code: str) -> None:
    other = GroupInstance("i-2", "a", template="lt-1:1", type="m6i.large")
    group = replace(GROUP, instances=(*GROUP.instances, other), desired=2)
    second = replace(NODE, name="node-2", instance="i-2")
    view = replace(CLEAN, groups=(group,), nodes=(*nodes, second), pods=())
    assert decide(view, RollRequest(), SETTINGS).outcome is PlanOutcome.BLOCKED
    plan = decide(view, RollRequest(accept=(code,)), SETTINGS)
    assert (plan.outcome, [c.instance.id for c in plan.chosen]) == (PlanOutcome.ROLL, ["i-2"])
    assert [(f.code, f.severity) for f in plan.findings] == [(code.partition(":")[0], Severity.NOTE)]


def test_an_image_is_resolved_as_ec2_would_and_what_it_cannot_resolve_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(_: Any, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        asked.append(parameters)
        image = {"lt-1": "ami-2", "lt-old-region": "resolve:ssm:/image"}.get(parameters["LaunchTemplateId"])
        if image is None:
            raise ClientError(
                {"Error": {"Code": "UnauthorizedOperation", "Message": "no ssm:GetParameters"}}, operation
            )
        return {"LaunchTemplateVersions": [{"LaunchTemplateData": {"ImageId": image}}]}

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)
    session = boto3.session.Session("none", "none", region_name="eu-central-1")
    found = AwsClient("demo", session=session).images_now(["lt-1:2", "lt-denied:1", "lt-old-region:1"])
    assert found == {"lt-1:2": "ami-2"}
    assert {"LaunchTemplateId": "lt-1", "Versions": ["2"], "ResolveAlias": True} in asked
