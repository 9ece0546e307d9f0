"""What steps count on in the account: the same cases on the world in memory and on the lab's AWS server."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import boto3
import pytest

from eks_rolling.clients.aws import AwsClient
from eks_rolling.clients.eks import connect
from eks_rolling.clients.protocols import Aws
from eks_rolling.errors import AccessDenied, NotFound, Permanent, Transient
from eks_rolling.observed.aws import (
    BY_ATTRIBUTES,
    CONFIGURATION,
    IMAGE_BY_PARAMETER,
    Group,
    GroupInstance,
    LaunchTemplate,
    TargetRegistration,
)
from eks_rolling.observed.marks import GROUP_MAXIMUM, GROUP_PUT_BACK, GROUP_RESUME, VersionPutBack, outdated
from eks_rolling.plan.checks import resolve
from tests.aws_lab import REGION, ZONES, Server
from tests.waiting import patience
from tests.world import CLUSTER, World

GIVE_UP_SECONDS = 20
_numbers = itertools.count(1)


class Side(Protocol):
    """An account with one group for one test: two instances in one zone, room for one more, one target group."""

    aws: Aws
    group: str
    zone: str

    def new_version(self) -> None: ...

    def lose_nodes(self) -> None:
        """No instance has a node any more, as far as this side knows of nodes at all."""
        ...

    def pass_time(self) -> None: ...

    def settling(self, seconds: float) -> AbstractContextManager[None]:
        """For the time of the block, for so long after a launch nothing shows it, nor the size that it made."""
        ...


class InMemory:
    zone = "zone-a"
    group = "own"

    def __init__(self) -> None:
        world = World()
        world.group(self.group, [self.zone], maximum=3)
        for _ in range(2):
            world.add_node(self.group, self.zone)
        world.target_group("web", 30080, local=False, instances=list(world.machines))
        self.world = world
        self.aws: Aws = world

    def new_version(self) -> None:
        self.world.new_template_version(self.group)

    def lose_nodes(self) -> None:
        self.world.nodes_by_name.clear()

    def pass_time(self) -> None:
        self.world.advance(5)

    @contextmanager
    def settling(self, seconds: float) -> Iterator[None]:
        self.world.settling_seconds, self.world.sizes_lag = seconds, True
        yield
        self.world.settling_seconds, self.world.sizes_lag = 0.0, False


class Real:
    zone = ZONES[0]

    def __init__(self, server: Server) -> None:
        self.group = f"own-{next(_numbers)}"
        self._server = server
        ec2, autoscaling, elb = (server.client(s) for s in ("ec2", "autoscaling", "elbv2"))
        data = {"ImageId": "ami-1", "InstanceType": "m6i.large"}
        tags = [{"Key": f"kubernetes.io/cluster/{CLUSTER}", "Value": "owned"}]
        ec2.create_launch_template(
            LaunchTemplateName=self.group,
            LaunchTemplateData=data,
            TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
        )
        in_zone = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [self.zone]}])["Subnets"]
        (subnet,) = [s["SubnetId"] for s in in_zone if not s["DefaultForAz"]]
        arns = [g["TargetGroupArn"] for g in elb.describe_target_groups(Names=["web"])["TargetGroups"]]
        autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=self.group,
            MinSize=0,
            MaxSize=3,
            DesiredCapacity=2,
            LaunchTemplate={"LaunchTemplateName": self.group, "Version": "$Latest"},
            VPCZoneIdentifier=subnet,
            TargetGroupARNs=arns,
            Tags=[{"Key": f"kubernetes.io/cluster/{CLUSTER}", "Value": "owned", "PropagateAtLaunch": True}],
        )
        self.aws: Aws = AwsClient(CLUSTER, session=Session(server))
        until(self, lambda: all(i.lifecycle == "InService" for i in group_of(self).instances), "two instances")
        for instance in group_of(self).instances:
            for port in (30080,):
                report = [{"target_group": arns[0], "id": instance.id, "port": port, "healthy": True}]
                server.lab("POST", "target-health", report)

    def new_version(self) -> None:
        self._server.client("ec2").create_launch_template_version(
            LaunchTemplateName=self.group, SourceVersion="1", LaunchTemplateData={"ImageId": "ami-2"}
        )

    def lose_nodes(self) -> None:
        pass

    def pass_time(self) -> None:
        time.sleep(0.1)

    @contextmanager
    def settling(self, seconds: float) -> Iterator[None]:
        self._server.lab("PUT", "faults", {"settling": {"seconds": seconds}})
        try:
            yield
        finally:
            self._server.lab("PUT", "faults", {})


class Session(boto3.session.Session):
    """A session whose clients talk to the lab's server."""

    def __init__(self, server: Server) -> None:
        super().__init__("test", "test", region_name=REGION)
        self._endpoint = server.endpoint

    def client(self, *names: Any, **options: Any) -> Any:
        untyped: Any = super()
        return untyped.client(*names, endpoint_url=self._endpoint, **options)


REAL = pytest.param("real", marks=[pytest.mark.lab, pytest.mark.xdist_group("aws")])
"""Among all tests of that server, of which there is one then."""


@pytest.fixture(params=["in memory", REAL])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "in memory":
        return InMemory()
    return Real(request.getfixturevalue("aws"))


def group_of(side: Side) -> Group:
    (group,) = side.aws.groups([side.group])
    return group


def member(side: Side, instance: str) -> GroupInstance:
    found = group_of(side).instance(instance)
    assert found is not None
    return found


def targets_of(side: Side, instance: str) -> list[TargetRegistration]:
    return [t for t in side.aws.targets_of([instance]) if t.name == "web" and t.state != "unused"]


def until(side: Side, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + patience(GIVE_UP_SECONDS)
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {GIVE_UP_SECONDS} s of a quiet machine: {what}")
        side.pass_time()


# Groups


def test_a_group_is_read_with_its_sizes_instances_and_template(side: Side) -> None:
    group = group_of(side)
    assert (group.minimum, group.maximum, group.desired, group.zones) == (0, 3, 2, (side.zone,))
    assert group.template
    assert group.template.version == "$Latest"
    assert {i.template for i in group.instances} == {f"{group.template.id}:1"}
    assert {i.zone for i in group.instances} == {side.zone}
    assert all(i.alive and not i.protected for i in group.instances)
    assert not any((group.managed, group.warm_pool, group.refresh_running, group.mixed_purchasing))
    assert side.aws.free_addresses(group)[side.zone] > 0


def test_groups_nobody_knows_are_absent_and_the_clusters_own_are_found_by_tag(side: Side) -> None:
    assert side.aws.groups(["nobody"]) == []
    assert [g.name for g in side.aws.groups([side.group, *(f"nobody-{n}" for n in range(60))])] == [side.group]
    assert side.group in {g.name for g in side.aws.groups()}


def test_a_new_template_version_is_the_latest_and_not_the_default(side: Side) -> None:
    side.new_version()
    template = group_of(side).template
    assert template
    assert side.aws.template_versions([template.id]) == {template.id: (2, 1)}


def test_versions_of_a_template_say_what_they_differ_in_and_unknown_templates_are_absent(side: Side) -> None:
    side.new_version()
    template = group_of(side).template
    assert template
    said = side.aws.template_data([f"{template.id}:1", f"{template.id}:2"])
    assert {version: data["ImageId"] for version, data in said.items()} == {
        f"{template.id}:1": "ami-1",
        f"{template.id}:2": "ami-2",
    }
    assert {data["InstanceType"] for data in said.values()} == {"m6i.large"}


def test_images_are_those_that_a_template_and_its_instances_have(side: Side) -> None:
    group = group_of(side)
    assert group.template
    first = f"{group.template.id}:1"
    assert side.aws.images_now([first]) == {first: "ami-1"}
    assert {s.image for s in side.aws.instances([i.id for i in group.instances]).values()} == {"ami-1"}


def test_an_instance_type_has_its_vcpus_and_memory(side: Side) -> None:
    assert side.aws.instance_types([]) == {}
    (kind,) = side.aws.instance_types(["m6i.large"]).values()
    assert (kind.vcpus, kind.memory_bytes) == (2, 8 << 30)


def test_the_quota_of_vcpus_is_read_with_what_runs(side: Side) -> None:
    quota = side.aws.vcpu_quota()
    assert quota.unknown == ""
    assert quota.limit is not None
    assert quota.used is not None
    assert quota.limit > quota.used >= 4


def test_tags_remember_and_can_be_taken_away(side: Side) -> None:
    """R1."""
    side.aws.tag_group(side.group, {GROUP_MAXIMUM: "3", GROUP_RESUME: "AZRebalance ScheduledActions"})
    marked = group_of(side)
    assert (marked.tags[GROUP_MAXIMUM], marked.tags[GROUP_RESUME]) == ("3", "AZRebalance ScheduledActions")
    assert marked.kept_tags == {GROUP_MAXIMUM, GROUP_RESUME}
    side.aws.untag_group(side.group, [GROUP_MAXIMUM, GROUP_RESUME])
    assert not {GROUP_MAXIMUM, GROUP_RESUME} & set(group_of(side).tags)
    assert not group_of(side).kept_tags


def test_processes_are_suspended_and_resumed_one_by_one(side: Side) -> None:
    side.aws.tag_group(side.group, {GROUP_RESUME: "AZRebalance ScheduledActions"})
    side.aws.suspend(side.group, {"AZRebalance", "ScheduledActions"})
    assert group_of(side).suspended == {"AZRebalance", "ScheduledActions"}
    side.aws.resume(side.group, {"AZRebalance"})
    assert group_of(side).suspended == {"ScheduledActions"}


def test_a_version_is_put_back_by_the_templates_default_and_by_the_groups_number(side: Side) -> None:
    side.aws.tag_group(side.group, {GROUP_PUT_BACK: str(VersionPutBack("lt-1:2", "lt-1:1", "roll-1"))})
    template = group_of(side).template
    assert template
    side.new_version()
    assert side.aws.template_tags([template.id])[template.id][f"kubernetes.io/cluster/{CLUSTER}"] == "owned"
    side.aws.set_default_version(template.id, "2")
    assert side.aws.template_versions([template.id]) == {template.id: (2, 2)}
    side.aws.set_default_version(template.id, "1")
    assert side.aws.template_versions([template.id]) == {template.id: (2, 1)}
    side.aws.set_template_version(side.group, template.id, "1")
    pointed = group_of(side)
    assert pointed.template == LaunchTemplate(template.id, "1")
    assert (pointed.mixed, pointed.desired, pointed.maximum) == (False, 2, 3)


# Instances


def test_an_instance_that_its_group_replaces_goes_and_its_group_launches_another(side: Side) -> None:
    side.lose_nodes()
    (old, other) = group_of(side).instances
    for target in targets_of(side, old.id):
        side.aws.deregister(target)
    until(side, lambda: targets_of(side, old.id) == [], "its connections have drained")
    side.aws.replace_by_group(old.id)
    assert group_of(side).desired == 2

    def others() -> set[str]:
        return {i.id for i in group_of(side).instances if i.alive} - {old.id}

    until(side, lambda: len(others()) == 2, "the group has launched another one")
    assert other.id in others()
    assert group_of(side).desired == 2


def test_the_same_token_launches_one_instance_in_the_zone_asked_for(side: Side) -> None:
    """R3."""
    first = side.aws.launch(side.group, side.zone, f"{side.group}-1")
    again = side.aws.launch(side.group, side.zone, f"{side.group}-1")
    assert first.instance
    assert again == first
    assert group_of(side).desired == 3
    assert member(side, first.instance).zone == side.zone
    until(side, lambda: member(side, first.instance).lifecycle == "InService", "the new instance is in service")
    assert side.aws.instances([first.instance])[first.instance].state == "running"


def test_a_launch_is_shown_late_by_ec2_and_by_its_group_with_the_size(side: Side) -> None:
    """R2, N2: what a restore has to wait for, before it forgets a launch or lowers a maximum size."""
    before = group_of(side)
    token = f"token-{next(_numbers)}"
    with side.settling(3600):
        launched = side.aws.launch(side.group, side.zone, token).instance
        seen = group_of(side)
        assert launched
        assert (seen.desired, seen.instance(launched)) == (before.desired, None)
        assert side.aws.instances([launched]) == {}
        # The same request is answered all the same.
        assert side.aws.launch(side.group, side.zone, token).instance == launched
    until(side, lambda: group_of(side).instance(launched) is not None, "the group shows it")
    until(side, lambda: launched in side.aws.instances([launched]), "EC2 shows it")
    assert group_of(side).desired == before.desired + 1


def test_a_launch_beyond_the_maximum_is_an_answer_and_not_a_fault(side: Side) -> None:
    side.aws.launch(side.group, side.zone, f"{side.group}-1")
    refused = side.aws.launch(side.group, side.zone, f"{side.group}-2")
    assert (refused.instance, refused.error) == ("", "ValidationError")
    assert group_of(side).desired == 3
    side.aws.tag_group(side.group, {GROUP_MAXIMUM: "3"})
    side.aws.set_maximum(side.group, 4)
    assert side.aws.launch(side.group, side.zone, f"{side.group}-3").instance


def test_a_desired_capacity_outside_the_sizes_is_refused(side: Side) -> None:
    with pytest.raises(Permanent):
        side.aws.set_desired(side.group, 9)
    side.aws.set_desired(side.group, 3)
    assert group_of(side).desired == 3


def test_a_terminated_instance_lowers_the_desired_capacity_and_goes(side: Side) -> None:
    (old, other) = group_of(side).instances
    for target in targets_of(side, old.id):
        side.aws.deregister(target)
    until(side, lambda: not targets_of(side, old.id), "it left its target group")
    side.aws.terminate(old.id)
    assert group_of(side).desired == 1
    assert not member(side, old.id).alive
    until(side, lambda: group_of(side).instance(old.id) is None, "it left its group")
    until(side, lambda: side.aws.instances([old.id])[old.id].gone, "it ended")
    assert group_of(side).instance(other.id) is not None
    side.aws.terminate("i-0123456789abcdef0")


def test_protection_and_tags_of_an_instance(side: Side) -> None:
    instance = group_of(side).instances[0].id
    side.aws.protect(side.group, instance, protected=True)
    side.aws.tag_instance(instance, {"eks-rolling/protected": "true"})
    assert member(side, instance).protected
    assert side.aws.instances([instance])[instance].tags["eks-rolling/protected"] == "true"
    side.aws.protect(side.group, instance, protected=False)
    side.aws.untag_instance(instance, ["eks-rolling/protected"])
    assert not member(side, instance).protected
    assert "eks-rolling/protected" not in side.aws.instances([instance])[instance].tags


def test_a_rehearsed_restore_changes_nothing(side: Side) -> None:
    """R2 is proved beforehand: every call of a restore, with what is set already."""
    before, instance = group_of(side), group_of(side).instances[0]
    targets, state = targets_of(side, instance.id), side.aws.instances([instance.id])
    side.aws.rehearse_restore(before, instance, targets)
    assert group_of(side) == before
    assert (targets_of(side, instance.id), side.aws.instances([instance.id])) == (targets, state)


def test_an_instance_that_nobody_knows_is_absent(side: Side) -> None:
    assert side.aws.instances(["i-0123456789abcdef0"]) == {}


# Target groups


def test_a_target_that_leaves_drains_and_then_is_gone_and_can_come_back(side: Side) -> None:
    """N2."""
    old, other = (i.id for i in group_of(side).instances)
    (target,) = targets_of(side, old)
    assert (target.state, target.port) == ("healthy", 30080)
    assert target.others_healthy >= 1
    side.aws.deregister(target)
    (draining,) = targets_of(side, old)
    assert draining.state == "draining"
    assert draining.receives_traffic
    until(side, lambda: not targets_of(side, old), "it has drained")
    assert targets_of(side, other)[0].state == "healthy"
    side.aws.register(target)
    assert targets_of(side, old)[0].state in {"initial", "healthy", "unhealthy"}


# Only where there is a server


@pytest.fixture
def account(aws: Server) -> AwsClient:
    return AwsClient(CLUSTER, session=Session(aws))


@pytest.mark.lab
def test_alarms_are_told_by_their_state_and_missing_ones_are_named(aws: Server, account: AwsClient) -> None:
    cloudwatch = aws.client("cloudwatch")
    for name in ("calm", "loud"):
        cloudwatch.put_metric_alarm(
            AlarmName=name, ComparisonOperator="GreaterThanThreshold", EvaluationPeriods=1, Threshold=1,
            MetricName="m", Namespace="n", Period=60, Statistic="Sum",
        )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName="loud", StateValue="ALARM", StateReason="test")
    assert account.alarms_firing(["calm", "loud"]) == ["loud"]
    with pytest.raises(NotFound, match="absent do not exist; correct the setting alarms"):
        account.alarms_firing(["calm", "absent"])


@pytest.mark.lab
def test_documents_are_kept_and_found_by_prefix(aws: Server) -> None:
    location = {"LocationConstraint": REGION}
    aws.client("s3").create_bucket(Bucket="documents", CreateBucketConfiguration=location)
    account = AwsClient(CLUSTER, bucket="documents", session=Session(aws))
    address = account.save("rolls/r/nodes/i-1.json", "one", "application/json")
    account.save("rolls/r/nodes/i-2.json", "two", "application/json")
    assert address == "s3://documents/rolls/r/nodes/i-1.json"
    assert account.load("rolls/r/nodes/") == ["one", "two"]
    assert account.load("rolls/s/") == []


@pytest.mark.lab
def test_a_managed_node_groups_group_is_told_by_its_tag(account: AwsClient) -> None:
    """N4."""
    assert account.groups(["managed"])[0].managed


@pytest.mark.lab
def test_a_launch_configuration_and_what_instances_came_from_are_read(account: AwsClient) -> None:
    (group,) = account.groups(["configured"])
    assert group.template is None
    assert group.configuration.startswith("configured-")
    assert group.instances
    assert all(i.template.startswith(f"{CONFIGURATION}configured-") for i in group.instances)
    named = f"{CONFIGURATION}{group.configuration}"
    said = account.template_data([named, f"{CONFIGURATION}gone"])
    assert said.keys() == {named}
    assert said[named]["ImageId"].startswith("ami-")
    assert account.images_gone([said[named]["ImageId"]]) == frozenset()


@pytest.mark.lab
def test_a_group_of_several_types_has_its_template_and_launches_at_once(account: AwsClient) -> None:
    (group,) = account.groups(["several-types"])
    assert group.template
    assert (group.configuration, group.mixed_purchasing, group.unhandled) == ("", False, ())
    assert {i.template for i in group.instances} == {f"{group.template.id}:1"}
    assert {i.type for i in group.instances} == {"m7i.large"}


@pytest.mark.lab
def test_an_instance_of_an_override_by_attributes_is_outdated_by_the_overrides_own_template(
    aws: Server, account: AwsClient
) -> None:
    (group,) = account.groups(["by-attributes"])
    plain = group.template
    assert plain
    ((kind, own),) = group.overrides
    assert (kind.startswith(BY_ATTRIBUTES), own.id == plain.id, group.unhandled) == (True, False, ())
    assert {(i.template, i.type) for i in group.instances} == {(f"{own.id}:1", "m7i.large")}

    def outdated_now() -> bool:
        targets = resolve([group], account.template_versions([plain.id, own.id]))["by-attributes"]
        return any(outdated(i, targets) for i in group.instances)

    new = {"SourceVersion": "1", "LaunchTemplateData": {"ImageId": "ami-2"}}
    aws.client("ec2").create_launch_template_version(LaunchTemplateId=plain.id, **new)
    assert not outdated_now()
    aws.client("ec2").create_launch_template_version(LaunchTemplateId=own.id, **new)
    assert outdated_now()


@pytest.mark.lab
def test_an_image_that_a_parameter_names_is_known_as_instances_have_it_and_as_it_is_now(
    aws: Server, account: AwsClient
) -> None:
    (group,) = account.groups(["by-parameter"])
    (instance,) = group.instances
    named = account.template_data([instance.template])[instance.template]["ImageId"]
    assert named == f"{IMAGE_BY_PARAMETER}/lab/image"
    has = account.instances([instance.id])[instance.id].image
    assert account.images_now([instance.template]) == {instance.template: has}
    aws.client("ssm").put_parameter(Name="/lab/image", Value="ami-moved", Overwrite=True)
    assert account.images_now([instance.template]) == {instance.template: "ami-moved"}
    (after,) = account.instances([instance.id]).values()
    assert after.image == has
    aws.client("ssm").delete_parameter(Name="/lab/image")
    assert account.images_now([instance.template]) == {}
    aws.client("ssm").put_parameter(Name="/lab/image", Value=has, Type="String")


@pytest.mark.lab
def test_from_an_image_that_was_deregistered_nothing_launches(aws: Server, account: AwsClient) -> None:
    side, ec2 = Real(aws), aws.client("ec2")
    ec2.create_launch_template_version(
        LaunchTemplateName=side.group, SourceVersion="1", LaunchTemplateData={"ImageId": "ami-leaves"}
    )
    assert account.images_gone(["ami-1", "ami-leaves"]) == frozenset()
    ec2.deregister_image(ImageId="ami-leaves")
    assert account.images_gone(["ami-1", "ami-leaves"]) == {"ami-leaves"}
    launched = account.launch(side.group, side.zone, "of-an-image-that-is-gone")
    assert (launched.instance, launched.error) == ("", "InvalidAMIID.NotFound")
    assert group_of(side).desired == 2


@pytest.mark.lab
def test_lifecycle_hooks_are_read_with_how_long_they_hold(account: AwsClient) -> None:
    (hook,) = account.lifecycle_hooks(["going-slowly"])
    assert (hook.group, hook.name, hook.terminating, hook.seconds) == ("going-slowly", "drain", True, 1.0)
    assert not hook.abandons
    assert account.lifecycle_hooks(["configured"]) == []


@pytest.mark.lab
def test_pods_that_are_targets_by_their_address_are_found_and_leave_by_it(aws: Server, account: AwsClient) -> None:
    address = "10.244.0.77"
    aws.lab("POST", "pod-targets", {"target_group": "pods", "addresses": [address]})
    (target,) = account.targets_of([address])
    assert (target.name, target.instance, target.port) == ("pods", address, 8080)
    account.deregister(target)
    assert [t.state for t in account.targets_of([address])] == ["draining"]


def test_a_cluster_that_does_not_exist_is_named(aws: Server) -> None:
    with pytest.raises(NotFound, match="There is no EKS cluster nowhere in eu-central-1; correct the setting cluster"):
        connect("nowhere", Session(aws))


@pytest.mark.lab
def test_an_account_that_cannot_be_reached_is_a_fault_that_may_pass() -> None:
    session = boto3.session.Session("test", "test", region_name=REGION)
    client = AwsClient(CLUSTER, session=session)
    client.__dict__["_autoscaling"] = session.client("autoscaling", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(Transient, match="Cannot describe the Auto Scaling groups now"):
        client.groups()


@pytest.mark.lab
def test_a_template_that_is_gone_is_absent(account: AwsClient) -> None:
    assert account.template_data(["lt-0123456789abcdef0:1"]) == {}


@pytest.mark.lab
def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = AwsClient(CLUSTER, session=boto3.session.Session(region_name=REGION))
    with pytest.raises(AccessDenied, match="no AWS credentials were found"):
        client.groups()
