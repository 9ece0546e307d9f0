"""One Lambda per step, each with its own role and permissions; the dependency layer; the network they run in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import Duration, IgnoreMode, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from lambdas.settings import ENVIRONMENT_VARIABLE, Settings, Strict
from stacks.layer import ARCHITECTURE, RUNTIME, dependency_layer

REPOSITORY = Path(__file__).resolve().parent.parent

# Kubernetes groups, as deploy/rbac.yaml and deploy/redis-rbac.yaml define them. A step is in those that it needs and in
# no other; a step that needs a verb which none of them has gets it there.
LOOK = "eks-rolling-look"
"""Looks at nodes, pods, workloads, budgets, volumes and services."""

LOCK = "eks-rolling-lock"
"""Holds the lock: every step of a roll that acts on the cluster."""

PAUSE = "eks-rolling-pause"
"""Scales cluster-autoscaler."""

NODES = "eks-rolling-nodes"
"""Taints, cordons and marks nodes."""

EVICT = "eks-rolling-evict"
"""Evicts pods, makes temporary disruption budgets, restarts Deployments."""

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


@dataclass(frozen=True)
class Permissions:
    """What a step's role may do: in the cluster as a member of the groups `kubernetes`, in the account by the rest.

    `describe` actions take no resource; `groups` act on Auto Scaling groups of this cluster only, `instances` on its
    instances only (both by tag), `targets` on load balancers, which carry no tag of the cluster in general.
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
    reads_histories: bool = False


STEPS: Mapping[str, Permissions] = {
    "plan": Permissions(
        (LOOK, REDIS_LOOK),
        describe=(*DESCRIBE_GROUPS, "ec2:DescribeLaunchTemplates", "ec2:DescribeSubnets"),
        writes_reports=True,
    ),
    "ask_approval": Permissions(notifies=True),
    "take_lock": Permissions((LOCK,)),
    "pause_interference": Permissions(
        (LOCK, PAUSE),
        describe=DESCRIBE_GROUPS,
        groups=(*TAG_GROUPS, "autoscaling:SuspendProcesses", "autoscaling:UpdateAutoScalingGroup"),
    ),
    "taint_nodes": Permissions((LOOK, LOCK, NODES)),
    "pick_wave": Permissions((LOOK, LOCK), describe=DESCRIBE_GROUPS),
    "launch_replacement": Permissions(
        (LOOK, LOCK, NODES),
        describe=(*DESCRIBE_GROUPS, "ec2:DescribeInstances"),
        groups=("autoscaling:LaunchInstances", "autoscaling:SetDesiredCapacity"),
        instances=("ec2:CreateTags",),
        launches=True,
    ),
    "await_ready": Permissions(
        (LOOK, LOCK, NODES),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=("autoscaling:SetInstanceProtection",),
        instances=("ec2:CreateTags",),
    ),
    "close_node": Permissions((LOOK, LOCK, NODES)),
    "look_at_redis": Permissions(MIGRATE),
    "move_replica": Permissions(MIGRATE),
    "fail_over": Permissions(MIGRATE),
    "move_master": Permissions(MIGRATE),
    "attach_master": Permissions(MIGRATE),
    "fail_back": Permissions(MIGRATE),
    "refresh_sentinels": Permissions(MIGRATE),
    "move_sentinel": Permissions(MIGRATE),
    "create_stand_in": Permissions(MIGRATE),
    "join_stand_in": Permissions(MIGRATE),
    "fail_over_to_stand_in": Permissions(MIGRATE),
    "move_shard_pod": Permissions(MIGRATE),
    "sync_shard_pod": Permissions(MIGRATE),
    "fail_back_to_shard_pod": Permissions(MIGRATE),
    "remove_stand_in": Permissions(MIGRATE),
    "delete_stand_in": Permissions(MIGRATE),
    "settle_redis": Permissions(MIGRATE),
    "leave_load_balancers": Permissions((LOOK, LOCK, NODES), describe=DESCRIBE_TARGETS, targets=MOVE_TARGETS),
    "evict": Permissions((LOOK, LOCK, NODES, EVICT)),
    "await_load_balancers": Permissions((LOCK,), describe=DESCRIBE_TARGETS),
    "await_volumes": Permissions((LOOK, LOCK)),
    "terminate": Permissions(
        (LOOK, LOCK),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=("autoscaling:TerminateInstanceInAutoScalingGroup",),
    ),
    "record_node": Permissions((LOCK,), writes_reports=True, reads_histories=True),
    "gate": Permissions((LOOK, LOCK, REDIS_LOOK), describe=("cloudwatch:DescribeAlarms",)),
    "restore": Permissions(
        (LOOK, LOCK, PAUSE, NODES, RESTORE),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=(
            "autoscaling:DeleteTags",
            "autoscaling:ResumeProcesses",
            "autoscaling:SetInstanceProtection",
            "autoscaling:TerminateInstanceInAutoScalingGroup",
            "autoscaling:UpdateAutoScalingGroup",
        ),
        instances=("ec2:CreateTags", "ec2:DeleteTags"),
        targets=(*MOVE_TARGETS, *RETURN_TARGETS),
    ),
    "report": Permissions(writes_reports=True, reads_reports=True, notifies=True),
}
"""Every step of the workflow: module name in `lambdas.steps`, and what it may do."""


class Network(Strict):
    """Where the functions run: the cluster's private subnets. All ids are given, nothing is looked up."""

    vpc_id: str
    subnet_ids: tuple[str, ...]
    availability_zones: tuple[str, ...]
    security_group_id: str


class Functions(Construct):
    """The steps' functions by step name (`of`), all from one asset that holds `lambdas/` and nothing else."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        network: Network | None,
        bucket: s3.IBucket,
        topic: sns.ITopic,
        node_machine: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self._network = self._import(network) if network else {}
        self._bucket = bucket
        self._topic = topic
        self._node_machine = node_machine
        self._layer = dependency_layer(self, "Dependencies")
        self._code = lambda_.Code.from_asset(
            str(REPOSITORY),
            exclude=["*", "!lambdas", "!lambdas/**", "**/__pycache__", "**/*.pyc"],
            ignore_mode=IgnoreMode.DOCKER,
        )
        self.of: dict[str, lambda_.Function] = {step: self._function(step, p) for step, p in STEPS.items()}

    def _import(self, network: Network) -> dict[str, object]:
        vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=network.vpc_id,
            availability_zones=list(network.availability_zones),
            private_subnet_ids=list(network.subnet_ids),
        )
        group = ec2.SecurityGroup.from_security_group_id(self, "SecurityGroup", network.security_group_id)
        return {"vpc": vpc, "vpc_subnets": ec2.SubnetSelection(subnets=vpc.private_subnets), "security_groups": [group]}

    def _function(self, step: str, permissions: Permissions) -> lambda_.Function:
        name = "".join(word.capitalize() for word in step.split("_"))
        settings = self._settings.model_copy(
            update={"bucket": self._bucket.bucket_name, "topic": self._topic.topic_arn}
        )
        function = lambda_.Function(
            self,
            name,
            description=f"eks-rolling {self._settings.cluster}: {step}",
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            handler=f"lambdas.steps.{step}.handler",
            code=self._code,
            layers=[self._layer],
            memory_size=512,
            timeout=Duration.seconds(60),
            tracing=lambda_.Tracing.ACTIVE,
            environment={
                ENVIRONMENT_VARIABLE: Stack.of(self).to_json_string(settings.model_dump(mode="json")),
                "POWERTOOLS_LOG_LEVEL": "INFO",
            },
            log_group=logs.LogGroup(
                self, f"{name}Logs", retention=logs.RetentionDays.THREE_MONTHS, removal_policy=RemovalPolicy.DESTROY
            ),
            **self._network,  # type: ignore[arg-type]
        )
        self._grant(function, permissions)
        return function

    def _grant(self, function: lambda_.Function, permissions: Permissions) -> None:
        stack = Stack.of(self)
        cluster = self._settings.cluster
        cluster_tag = {"Null": {f"aws:ResourceTag/kubernetes.io/cluster/{cluster}": "false"}}
        if permissions.kubernetes:
            self._let_into_cluster(function, permissions.kubernetes)
        self._allow(function, permissions.describe, "*")
        self._allow(
            function,
            permissions.groups,
            stack.format_arn(service="autoscaling", resource="autoScalingGroup:*:autoScalingGroupName/*"),
            cluster_tag,
        )
        instances = stack.format_arn(service="ec2", resource="instance", resource_name="*")
        self._allow(function, permissions.instances, instances, cluster_tag)
        self._allow(
            function,
            permissions.targets,
            stack.format_arn(service="elasticloadbalancing", resource="*"),
        )
        if permissions.launches:
            # LaunchInstances calls these on the caller's behalf (Auto Scaling user guide, synchronous provisioning).
            self._allow(function, ("ec2:CreateFleet", "ec2:DescribeLaunchTemplateVersions"), "*")
        if permissions.writes_reports:
            self._bucket.grant_put(function, "rolls/*")
        if permissions.reads_reports:
            self._bucket.grant_read(function, "rolls/*")
        if permissions.notifies:
            self._topic.grant_publish(function)
        if permissions.reads_histories:
            executions = stack.format_arn(service="states", resource=f"execution:{self._node_machine}:*")
            self._allow(function, ("states:GetExecutionHistory",), executions)

    def _let_into_cluster(self, function: lambda_.Function, groups: tuple[str, ...]) -> None:
        cluster = self._settings.cluster
        arn = Stack.of(self).format_arn(service="eks", resource="cluster", resource_name=cluster)
        self._allow(function, ("eks:DescribeCluster",), arn)
        role = function.role
        assert role is not None  # noqa: S101  (a function of this stack has one)
        eks.CfnAccessEntry(
            function,
            "AccessEntry",
            cluster_name=cluster,
            principal_arn=role.role_arn,
            kubernetes_groups=list(groups),
            type="STANDARD",
        )

    @staticmethod
    def _allow(
        function: lambda_.Function,
        actions: tuple[str, ...],
        resource: str,
        conditions: Mapping[str, object] | None = None,
    ) -> None:
        if actions:
            function.add_to_role_policy(
                iam.PolicyStatement(actions=list(actions), resources=[resource], conditions=conditions)
            )
