"""One Lambda per step module, each with its own role and permissions; the dependency layer; the network they run in."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from aws_cdk import Annotations, Duration, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from eks_rolling.report.messages import HOLDING
from eks_rolling.settings import Settings
from eks_rolling_config.file import Network
from stacks import roles
from stacks.code import environment, function_code
from stacks.layer import ARCHITECTURE, RUNTIME, dependency_layer
from stacks.log_groups import log_group
from stacks.roles import (
    CHECK,
    DESCRIBE_GROUPS,
    DESCRIBE_TARGETS,
    EVICT,
    LOCK,
    LOOK,
    MIGRATE,
    MOVE_TARGETS,
    NODES,
    PAUSE,
    REDIS_LOOK,
    RESTART,
    RESTORE,
    RETURN_TARGETS,
    TAG_GROUPS,
    Permissions,
    Resources,
)

ARRANGE = (*TAG_GROUPS, "autoscaling:SuspendProcesses", "autoscaling:UpdateAutoScalingGroup")
"""What a roll arranges at its start, and again where somebody changed it."""

_STEPS: Mapping[str, Permissions] = {
    "check_permissions": Permissions((CHECK,)),
    "receive_change": Permissions((LOCK,), describe=DESCRIBE_GROUPS),
    "plan": Permissions(
        (LOOK, CHECK, REDIS_LOOK),
        describe=(
            *DESCRIBE_GROUPS,
            "cloudwatch:DescribeAlarms",
            "autoscaling:DescribeLaunchConfigurations",
            "autoscaling:DescribeLifecycleHooks",
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeSubnets",
        ),
        reads_quotas=True,
        resolves_images=True,
        writes_reports=True,
    ),
    "ask_approval": Permissions(reads_reports=True, notifies=True),
    "take_lock": Permissions((LOCK,)),
    "pause_interference": Permissions(
        (LOOK, LOCK, PAUSE),
        describe=DESCRIBE_GROUPS,
        groups=ARRANGE,
        reads_reports=True,
    ),
    "taint_nodes": Permissions((LOOK, LOCK, NODES)),
    "select_wave": Permissions((LOOK, LOCK), describe=DESCRIBE_GROUPS),
    "launch_replacement": Permissions(
        (LOOK, LOCK, PAUSE, NODES),
        describe=(*DESCRIBE_GROUPS, "ec2:DescribeInstances"),
        groups=(*ARRANGE, "autoscaling:LaunchInstances", "autoscaling:SetDesiredCapacity"),
        instances=("ec2:CreateTags",),
        launches=True,
    ),
    "await_ready": Permissions(
        (LOOK, LOCK, NODES),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=("autoscaling:SetInstanceProtection",),
        instances=("ec2:CreateTags",),
    ),
    "taint_no_schedule": Permissions((LOOK, LOCK, NODES)),
    "inspect_redis": Permissions(MIGRATE),
    "migrate_sentinel": Permissions(MIGRATE, notifies=True),
    "migrate_cluster": Permissions(MIGRATE, notifies=True),
    "settle_redis": Permissions(MIGRATE),
    "leave_load_balancers": Permissions((LOOK, LOCK, NODES), describe=DESCRIBE_TARGETS, targets=MOVE_TARGETS),
    "evict": Permissions((LOOK, LOCK, NODES, EVICT, RESTART)),
    "await_load_balancers": Permissions((LOOK, LOCK), describe=DESCRIBE_TARGETS),
    "await_volumes": Permissions((LOOK, LOCK)),
    "terminate": Permissions(
        (LOOK, LOCK, EVICT),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=("autoscaling:TerminateInstanceInAutoScalingGroup",),
    ),
    "record_node": Permissions((LOCK,), writes_reports=True, reads_history_of="node"),
    "health_gate": Permissions(
        (LOOK, LOCK, PAUSE, NODES, REDIS_LOOK),
        describe=(*DESCRIBE_GROUPS, "cloudwatch:DescribeAlarms"),
        groups=ARRANGE,
    ),
    "restore": Permissions(
        (LOOK, LOCK, PAUSE, NODES, EVICT, RESTORE),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=(
            "autoscaling:DeleteTags",
            # The request of a step that died, made again, answers which instance it launched.
            "autoscaling:LaunchInstances",
            "autoscaling:ResumeProcesses",
            "autoscaling:SetInstanceProtection",
            "autoscaling:TerminateInstanceInAutoScalingGroup",
            "autoscaling:UpdateAutoScalingGroup",
        ),
        instances=("ec2:CreateTags", "ec2:DeleteTags"),
        targets=(*MOVE_TARGETS, *RETURN_TARGETS),
        launches=True,
    ),
    "find_orphans": Permissions((LOOK, REDIS_LOOK), describe=(*DESCRIBE_GROUPS, "ec2:DescribeInstances")),
    "report": Permissions(writes_reports=True, reads_reports=True, notifies=True, reads_history_of="roll"),
}
"""Every step of the workflow: module name in `eks_rolling.steps`, and what it may do."""

STEPS: Mapping[str, Permissions] = {
    step: replace(permissions, notifies=permissions.notifies or step in HOLDING) for step, permissions in _STEPS.items()
}
"""The same, with the right to tell people of a long hold."""


ROLLBACK: Mapping[str, Permissions] = {
    "put_back_version": Permissions(
        (LOCK,),
        describe=(
            *DESCRIBE_GROUPS,
            "autoscaling:DescribeLaunchConfigurations",
            "ec2:DescribeImages",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:DescribeLaunchTemplates",
        ),
        groups=(*TAG_GROUPS, "autoscaling:UpdateAutoScalingGroup"),
        puts_back_versions=True,
    )
}
"""The step that is there only where the settings have a failed roll put back what was before."""

UNJOINED: Mapping[str, Permissions] = {
    "replace_unjoined": Permissions(
        (LOOK, LOCK),
        describe=(*DESCRIBE_GROUPS, *DESCRIBE_TARGETS, "ec2:DescribeInstances"),
        groups=("autoscaling:TerminateInstanceInAutoScalingGroup",),
        targets=MOVE_TARGETS,
        notifies=True,
    )
}
"""The step that is there only where the settings have rolls replace instances that never joined."""

HOOKS: Mapping[str, Permissions] = {"run_hooks": Permissions((LOCK,), notifies=True, asks_hooks=True)}
"""The step that is there only where the settings have hooks."""


class Size(NamedTuple):
    """A function's memory in MB, which buys CPU with it (1,769 MB are one), and its timeout in seconds.

    A function that runs into either is killed and called again [R3], so both are chosen above what is ever needed.
    """

    memory: int
    timeout: int


USUAL = Size(512, 60)
"""A step that looks at one node, group or Redis group: a few requests, each given up after 30 s by its client. In the
lab none has needed more than 120 MB; the rest of the memory is bought for its CPU."""

SWEEP = Size(1769, 150)
"""A step that reads the whole cluster, or every document of a roll: the plan of 1,000 nodes and 10,000 pods takes 5 s
of a CPU and 256 MB at most (make bench-plan)."""

SWITCH = Size(1024, 60)
"""A step whose polls clients wait for: a Redis master changes hands inside it. It needs its CPU at once."""

ASK = Size(512, 120)
"""A step that waits for other people's answers: 25 s for all hooks of a moment, twice, after a look at the lock."""

SIZES: Mapping[str, Size] = {
    "run_hooks": ASK,
    **dict.fromkeys(("plan", "health_gate", "restore", "report", "find_orphans", "settle_redis"), SWEEP),
    **dict.fromkeys(("migrate_sentinel", "migrate_cluster"), SWITCH),
}
"""The steps that are not of the usual size.

Concurrency is reserved for none. A roll calls at most its surge and a few functions more at a time, so it cannot take
the account's share; a call that is throttled is made again by the workflow, and no step holds anything between calls.
Reserving would fail on an account with Lambda's starting quota of 10, of which none can be set aside.
"""


class Functions(Construct):
    """The steps' functions by step name (`of`), all from one asset.

    `security_group` is the group they are in, None without a network.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        network: Network | None,
        bucket: s3.IBucket,
        topic: sns.Topic,
        machines: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings.model_copy(update={"bucket": bucket.bucket_name, "topic": topic.topic_arn})
        self._resources = Resources(
            settings.cluster,
            bucket,
            topic,
            machines,
            tuple(sorted({h.function for h in settings.hooks if h.function})),
            settings.roll_back.node_roles,
        )
        self.security_group: ec2.ISecurityGroup | None = None
        self._place = self._join(network) if network else {}
        self._layer = dependency_layer(self, "Dependencies")
        self._code = function_code(Stack.of(self), self._settings)
        steps = {
            **STEPS,
            **(HOOKS if settings.hooks else {}),
            **(ROLLBACK if settings.roll_back.enabled else {}),
            **(UNJOINED if settings.dead_nodes.replace else {}),
        }
        self.of: dict[str, lambda_.Function] = {step: self._function(step, p) for step, p in steps.items()}

    def _join(self, network: Network) -> dict[str, Any]:
        vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=network.vpc_id,
            availability_zones=list(network.availability_zones),
            private_subnet_ids=list(network.subnet_ids),
        )
        for subnet in vpc.private_subnets:
            Annotations.of(subnet).acknowledge_warning(
                "@aws-cdk/aws-ec2:noSubnetRouteTableId", "the subnets are the cluster's: nothing here asks for routes"
            )
        if network.security_group_id:
            self.security_group = ec2.SecurityGroup.from_security_group_id(
                self, "SecurityGroup", network.security_group_id, mutable=False
            )
        else:
            self.security_group = self._own_security_group(vpc, network)
        if network.cluster_security_group_id:
            self._let_in(network.cluster_security_group_id, self.security_group, network)
        subnets = ec2.SubnetSelection(subnets=vpc.private_subnets)
        return {
            "vpc": vpc,
            "vpc_subnets": subnets,
            "security_groups": [self.security_group],
            # IPv6 only where it was asked for: Lambda refuses it in subnets without such a range.
            **({"ipv6_allowed_for_dual_stack": True} if network.dual_stack else {}),
        }

    def _own_security_group(self, vpc: ec2.IVpc, network: Network) -> ec2.SecurityGroup:
        """Outbound only to the API server, AWS and Redis. The VPC's resolver needs no rule; nothing inbound."""
        group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description=f"eks-rolling {self._settings.cluster}: functions",
            allow_all_outbound=False,
        )
        for cidr in network.https_to:
            group.add_egress_rule(_range(cidr), ec2.Port.tcp(443), "API server and AWS endpoints")
        for cidr in network.redis_to:
            for port in network.redis_ports:
                group.add_egress_rule(_range(cidr), ec2.Port.tcp(port), "Redis servers and sentinels")
        return group

    def _let_in(self, cluster_group: str, functions: ec2.ISecurityGroup, network: Network) -> None:
        for port in (443, *network.redis_ports):
            ec2.CfnSecurityGroupIngress(
                self,
                f"ClusterIngress{port}",
                group_id=cluster_group,
                source_security_group_id=functions.security_group_id,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description=f"eks-rolling functions to {'the API server' if port == 443 else 'Redis'}",
            )

    def _function(self, step: str, permissions: Permissions) -> lambda_.Function:
        name = "".join(word.capitalize() for word in step.split("_"))
        cluster, size = self._settings.cluster, SIZES.get(step, USUAL)
        function_log = log_group(self, f"{name}Logs", self._settings.log_retention_days)
        role = iam.Role(
            self,
            f"{name}Role",
            description=f"eks-rolling {cluster}: {step}",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        )
        roles.write_logs(role, function_log)
        roles.write(role, permissions, self._resources)
        if self._place:
            roles.join_network(role)
        function = lambda_.Function(
            self,
            name,
            description=f"eks-rolling {cluster}: {step}",
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            handler=f"eks_rolling.steps.{step}.handler",
            code=self._code,
            layers=[self._layer],
            memory_size=size.memory,
            timeout=Duration.seconds(size.timeout),
            tracing=lambda_.Tracing.ACTIVE,
            environment=environment(Stack.of(self), self._settings),
            log_group=function_log,
            role=role,
            **self._place,
        )
        if permissions.kubernetes:
            entry = self._let_into_cluster(f"{name}AccessEntry", role, permissions.kubernetes)
            # EKS refuses a role that IAM has not spread yet ("the principalArn is invalid"); a function takes so long.
            entry.node.add_dependency(function)
        return function

    def _let_into_cluster(self, construct_id: str, role: iam.Role, groups: tuple[str, ...]) -> eks.CfnAccessEntry:
        return eks.CfnAccessEntry(
            self,
            construct_id,
            cluster_name=self._settings.cluster,
            principal_arn=role.role_arn,
            kubernetes_groups=list(groups),
            type="STANDARD",
        )


def _range(cidr: str) -> ec2.IPeer:
    return ec2.Peer.ipv6(cidr) if ":" in cidr else ec2.Peer.ipv4(cidr)
