"""What a step's role may do, written out: exact actions, on exact resources or on what carries the cluster's tag.

Which resources and condition keys an action takes is from AWS's service authorization reference; `UNSCOPED` says why
an action is allowed on every resource, and nothing else may be.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from eks_rolling.names import CLUSTER_TAG_VALUES, cluster_tag
from eks_rolling.observed.aws import STANDARD_VCPUS
from eks_rolling.observed.marks import (
    GROUP_MAXIMUM,
    GROUP_PUT_BACK,
    GROUP_RESUME,
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
)

# Kubernetes groups, as deploy/rbac.yaml and deploy/redis-rbac.yaml define them. A step is in those that it needs and in
# no other; a step that needs a verb which none of them has gets it there.
LOOK = "eks-rolling-look"
"""Looks at nodes, pods, workloads, budgets, volumes and services."""

CHECK = "eks-rolling-check"
"""Asks the API server who may do what."""

LOCK = "eks-rolling-lock"
"""Holds the lock: every step of a roll that acts on the cluster."""

PAUSE = "eks-rolling-pause"
"""Scales cluster-autoscaler."""

NODES = "eks-rolling-nodes"
"""Taints, cordons and marks nodes."""

EVICT = "eks-rolling-evict"
"""Evicts pods, makes temporary disruption budgets."""

RESTART = "eks-rolling-restart"
"""Restarts Deployments, in namespaces that let it (deploy/restart-rbac.yaml)."""

RESTORE = "eks-rolling-restore"
"""Removes temporary disruption budgets."""

REDIS_LOOK = "eks-rolling-redis-look"
"""Reads the Secrets and Leases of Redis groups."""

MIGRATE = (LOOK, LOCK, REDIS_LOOK, "eks-rolling-redis")
"""Migrates Redis groups: moves their pods, holds their Leases."""

DESCRIBE_GROUPS = (
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeInstanceRefreshes",
)
DESCRIBE_TARGETS = (
    "elasticloadbalancing:DescribeInstanceHealth",
    "elasticloadbalancing:DescribeLoadBalancerAttributes",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
)
MOVE_TARGETS = (
    "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
    "elasticloadbalancing:DeregisterTargets",
)
RETURN_TARGETS = (
    "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
    "elasticloadbalancing:RegisterTargets",
)
TAG_GROUPS = ("autoscaling:CreateOrUpdateTags",)

NETWORK_INTERFACES = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
"""What Lambda does in a function's name to put it into a VPC (Lambda developer guide, execution role permissions)."""

TRACE = ("xray:PutTelemetryRecords", "xray:PutTraceSegments")

UNSCOPED: Mapping[str, str] = {
    **dict.fromkeys(
        NETWORK_INTERFACES,
        "Lambda itself calls it before the function runs, for interfaces that do not exist yet; the function's own "
        "code is denied it by a second statement",
    ),
    **dict.fromkeys(
        (
            *DESCRIBE_GROUPS,
            *DESCRIBE_TARGETS,
            *TRACE,
            "autoscaling:DescribeLaunchConfigurations",
            "autoscaling:DescribeLifecycleHooks",
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeSubnets",
        ),
        "the action takes no resource: AWS offers it on all or none",
    ),
    "cloudwatch:DescribeAlarms": "composite alarms are answered only to a permission on every alarm (API reference)",
}
"""Action -> why its resource is `*`. A role that needs another one does not synthesize until its reason is here."""

FLEET_RESOURCES = (
    "capacity-reservation/*",
    "fleet/*",
    "instance/*",
    "launch-template/*",
    "placement-group/*",
    "subnet/*",
    "volume/*",
)
"""What CreateFleet touches, all of this account. It does not exist before the call, or the group's launch template
names it, and neither carries a tag of the cluster in general. Without ec2:RunInstances and iam:PassRole, which no role
here has, the permission launches nothing by itself: only Auto Scaling's own role does."""

LAUNCHED_RESOURCES = (
    "capacity-reservation/*",
    "instance/*",
    "key-pair/*",
    "network-interface/*",
    "placement-group/*",
    "security-group/*",
    "subnet/*",
    "volume/*",
)
"""What a launch template names or makes, all of this account (service authorization reference, RunInstances)."""

TAG_KEYS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("autoscaling:CreateOrUpdateTags", "autoscaling:DeleteTags"), (GROUP_MAXIMUM, GROUP_RESUME)),
    **dict.fromkeys(("ec2:CreateTags", "ec2:DeleteTags"), (INSTANCE_PROTECTED, INSTANCE_REPLACES)),
}
"""Tags can be what other permissions go by, so only ours may be written."""

RECORD_KEYS: Mapping[str, tuple[str, ...]] = {"autoscaling:CreateOrUpdateTags": (GROUP_PUT_BACK,)}
"""The same for the step that puts versions back, which writes that record and no other."""

TARGET_RESOURCES: Mapping[str, str] = {
    "elasticloadbalancing:DeregisterInstancesFromLoadBalancer": "loadbalancer/*",
    "elasticloadbalancing:DeregisterTargets": "targetgroup/*/*",
    "elasticloadbalancing:RegisterInstancesWithLoadBalancer": "loadbalancer/*",
    "elasticloadbalancing:RegisterTargets": "targetgroup/*/*",
}


@dataclass(frozen=True)
class Permissions:
    """What a step's role may do: in the cluster as a member of the groups `kubernetes`, in the account by the rest.

    `describe` actions are allowed on every resource, each for its reason in `UNSCOPED`; `groups` act on Auto Scaling
    groups of this cluster only that are no managed node group's, `instances` on its instances only (both by tag),
    `targets` on target groups and classic load balancers, which carry no tag of the cluster in general.
    """

    kubernetes: tuple[str, ...] = ()
    describe: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    launches: bool = False
    writes_reports: bool = False
    reads_reports: bool = False
    notifies: bool = False
    asks_hooks: bool = False
    reads_quotas: bool = False
    resolves_images: bool = False
    puts_back_versions: bool = False
    reads_history_of: str = ""


@dataclass(frozen=True)
class Resources:
    """What the roles of one cluster's steps act on."""

    cluster: str
    bucket: s3.IBucket
    topic: sns.Topic
    machines: Mapping[str, str]
    hooks: tuple[str, ...] = ()
    """ARNs of users' functions that are asked as hooks."""
    node_roles: tuple[str, ...] = ()
    """ARNs of the nodes' roles, which whoever sets a group's version number must be able to pass."""

    @property
    def cluster_tag(self) -> dict[str, dict[str, list[str]]]:
        """The condition that a group or an instance is the cluster's; the values are those that steps look for."""
        return {"StringEquals": {f"aws:ResourceTag/{cluster_tag(self.cluster)}": list(CLUSTER_TAG_VALUES)}}


def write(role: iam.Role, permissions: Permissions, resources: Resources) -> None:
    """Writes a step's permissions into its role. Raises ValueError for an action on `*` that has no reason."""
    stack = Stack.of(role)
    if permissions.kubernetes:
        cluster = stack.format_arn(service="eks", resource="cluster", resource_name=resources.cluster)
        _allow(role, ["eks:DescribeCluster"], [cluster])
    allow_everywhere(role, permissions.describe)
    groups = stack.format_arn(service="autoscaling", resource="autoScalingGroup:*:autoScalingGroupName/*")
    # AWS replaces the nodes of its managed node groups, we must not [N4].
    not_managed = {"Null": {"aws:ResourceTag/eks:nodegroup-name": "true"}}
    keys = RECORD_KEYS if permissions.puts_back_versions else TAG_KEYS
    _act(role, permissions.groups, groups, {**resources.cluster_tag, **not_managed}, keys)
    instances = stack.format_arn(service="ec2", resource="instance", resource_name="*")
    _act(role, permissions.instances, instances, resources.cluster_tag)
    for kind in sorted({TARGET_RESOURCES[action] for action in permissions.targets}):
        actions = [a for a in permissions.targets if TARGET_RESOURCES[a] == kind]
        _allow(role, actions, [stack.format_arn(service="elasticloadbalancing", resource=kind)])
    if permissions.launches:
        _launch(role)
    if permissions.reads_quotas:
        quota = stack.format_arn(service="servicequotas", resource="ec2", resource_name=STANDARD_VCPUS)
        _allow(role, ["servicequotas:GetServiceQuota"], [quota])
    if permissions.resolves_images:
        # AWS's own parameters name no account; those of this account EC2 alone may read for us, never the function.
        own = stack.format_arn(service="ssm", resource="parameter", resource_name="*")
        public = stack.format_arn(service="ssm", account="", resource="parameter", resource_name="aws/service/*")
        _allow(role, ["ssm:GetParameters"], [public])
        _allow(role, ["ssm:GetParameters"], [own], {"Bool": {"aws:ViaAWSService": "true"}})
    if permissions.puts_back_versions:
        _put_back_versions(role, resources)
    _documents(role, permissions, resources)
    if permissions.asks_hooks and resources.hooks:
        _allow(role, ["lambda:InvokeFunction"], resources.hooks)
    if permissions.notifies:
        _allow(role, ["sns:Publish"], [resources.topic.topic_arn])
        if resources.topic.master_key is not None:
            _allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [resources.topic.master_key.key_arn])
    if permissions.reads_history_of:
        machine = resources.machines[permissions.reads_history_of]
        _allow(
            role,
            ["states:GetExecutionHistory"],
            [stack.format_arn(service="states", resource=f"execution:{machine}:*")],
        )


def write_logs(role: iam.Role, log_group: logs.ILogGroup) -> None:
    """The function writes into its own log group."""
    _allow(role, ["logs:CreateLogStream", "logs:PutLogEvents"], [log_group.log_group_arn])


def join_network(role: iam.Role) -> None:
    """Lambda may put the function into its subnets; the function's code may not do so itself."""
    allow_everywhere(role, NETWORK_INTERFACES)
    role.add_to_policy(
        iam.PolicyStatement(
            effect=iam.Effect.DENY,
            # Steps may look at subnets; what they may not is make interfaces and move addresses.
            actions=[action for action in NETWORK_INTERFACES if action != "ec2:DescribeSubnets"],
            resources=["*"],
            # Set whenever a function's code is what calls (Lambda developer guide, credentials of functions).
            conditions={"Null": {"lambda:SourceFunctionArn": "false"}},
        )
    )


def allow_everywhere(role: iam.Role, actions: Iterable[str]) -> None:
    """Allows the actions on `*`. Raises ValueError for one that has no reason."""
    actions = list(actions)
    if unexplained := sorted(set(actions) - UNSCOPED.keys()):
        raise ValueError(f"{', '.join(unexplained)}: name its resource, or say in UNSCOPED why it takes none")
    _allow(role, actions, ["*"])


def _launch(role: iam.Role) -> None:
    """LaunchInstances asks these of its caller (Auto Scaling user guide, synchronous provisioning)."""
    stack = Stack.of(role)
    touched = [stack.format_arn(service="ec2", resource=resource) for resource in FLEET_RESOURCES]
    # Images are their owners', so their ARNs name no account.
    image = stack.format_arn(service="ec2", account="", resource="image/*")
    _allow(role, ["ec2:CreateFleet"], [*touched, image])
    allow_everywhere(role, ["ec2:DescribeLaunchTemplateVersions"])


def _put_back_versions(role: iam.Role, resources: Resources) -> None:
    """Setting the default version of the cluster's launch templates; with the nodes' roles, also what AWS asks of
    whoever points a group at a version by its number (Auto Scaling user guide, launch template permissions): launching
    from these templates, and nothing that does not come from one, with those roles."""
    stack = Stack.of(role)
    templates = stack.format_arn(service="ec2", resource="launch-template", resource_name="*")
    _allow(role, ["ec2:ModifyLaunchTemplate"], [templates], resources.cluster_tag)
    if not resources.node_roles:
        return
    _allow(role, ["ec2:RunInstances"], [templates], resources.cluster_tag)
    own = [stack.format_arn(service="ec2", resource=kind) for kind in LAUNCHED_RESOURCES]
    # Images and snapshots of images are their owners', so their ARNs name no account.
    others = [stack.format_arn(service="ec2", account="", resource=kind) for kind in ("image/*", "snapshot/*")]
    from_template = {
        "ArnLike": {"ec2:LaunchTemplate": [templates]},
        "Bool": {"ec2:IsLaunchTemplateResource": "true"},
    }
    _allow(role, ["ec2:RunInstances"], [*own, *others], from_template)
    tagged = [stack.format_arn(service="ec2", resource=kind) for kind in ("instance/*", "volume/*")]
    _allow(role, ["ec2:CreateTags"], tagged, {"StringEquals": {"ec2:CreateAction": ["RunInstances"]}})
    to_ec2 = {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com"]}}
    _allow(role, ["iam:PassRole"], list(resources.node_roles), to_ec2)


def _documents(role: iam.Role, permissions: Permissions, resources: Resources) -> None:
    documents = resources.bucket.arn_for_objects("rolls/*")
    if permissions.writes_reports:
        _allow(role, ["s3:PutObject"], [documents])
    if permissions.reads_reports:
        _allow(role, ["s3:GetObject"], [documents])
        below = {"StringLike": {"s3:prefix": "rolls/*"}}
        _allow(role, ["s3:ListBucket"], [resources.bucket.bucket_arn], below)


def _act(
    role: iam.Role,
    actions: Iterable[str],
    resource: str,
    conditions: Mapping[str, object],
    keys: Mapping[str, tuple[str, ...]] = TAG_KEYS,
) -> None:
    """Allows the actions under the conditions; those that tag, with `keys` alone."""
    actions = list(actions)
    tagging = [action for action in actions if action in keys]
    _allow(role, [action for action in actions if action not in keys], [resource], conditions)
    if tagging:
        ours = {"ForAllValues:StringEquals": {"aws:TagKeys": sorted({k for a in tagging for k in keys[a]})}}
        _allow(role, tagging, [resource], {**conditions, **ours})


def _allow(
    role: iam.Role, actions: Iterable[str], resources: Iterable[str], conditions: Mapping[str, object] | None = None
) -> None:
    if actions := list(actions):
        role.add_to_policy(iam.PolicyStatement(actions=actions, resources=list(resources), conditions=conditions))
