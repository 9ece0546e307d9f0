"""One cluster's stack: composes functions, workflow, triggers and observability; defines nothing itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aws_cdk import App, CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct
from pydantic import ValidationError

from eks_rolling.errors import BadRequest
from eks_rolling.names import MACHINES, machine_name, stack_name
from eks_rolling.settings import Settings, problems
from eks_rolling_config.file import Described, Network, read
from stacks.functions import Functions
from stacks.log_groups import log_group
from stacks.observability import Observability
from stacks.state_machine import Restore, Roll, RollNode
from stacks.triggers import Triggers


def add_clusters(app: App, described: Any) -> list["RollStack"]:
    """Adds a stack for each cluster that is described: in the file of that name, or in the mapping of one cluster's
    `settings` and `network` itself.

    Raises BadRequest naming every problem at once.
    """
    if isinstance(described, Mapping):
        return _add(app, [_inline(described)])
    if not isinstance(described, str):
        raise BadRequest("The context key eks-rolling of cdk.json must name a settings file, such as eks-rolling.yaml.")
    return _add(app, read(Path(described)))


def _inline(document: Mapping[str, Any]) -> Described:
    settings = dict(document.get("settings", {}))
    if "network" in document:
        settings["network"] = document["network"]
    try:
        return Described.model_validate(settings)
    except ValidationError as error:
        raise BadRequest(f"The context key eks-rolling has {problems(error, Described)}.") from error


def _add(app: App, clusters: Sequence[Described]) -> list["RollStack"]:
    names = [stack_name(cluster.cluster) for cluster in clusters]
    return [
        RollStack(
            app,
            # An app has one construct of a name; stacks of one name may stand in several accounts and regions.
            name
            if names.count(name) == 1
            else "-".join(part for part in (name, cluster.account, cluster.region) if part),
            stack_name=name,
            env=Environment(account=cluster.account or None, region=cluster.region or None),
            settings=cluster.settings,
            network=cluster.network,
            description=f"Replaces outdated worker nodes of the EKS cluster {cluster.cluster} while it serves",
        )
        for name, cluster in zip(names, clusters, strict=True)
    ]


class RollStack(Stack):
    """Everything that rolls one cluster."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, network: Network | None, **options: Any
    ) -> None:
        super().__init__(scope, construct_id, **options)
        cluster = settings.cluster
        names = {what: machine_name(cluster, what) for what in MACHINES}
        bucket = s3.Bucket(
            self,
            "Reports",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        topic = sns.Topic(
            self,
            "Messages",
            # 100 characters at most (API reference of CreateTopic).
            display_name=f"eks-rolling {cluster}"[:100],
            enforce_ssl=True,
            master_key=self._message_key(),
        )
        # The refusal of unencrypted connections is a policy, and with a policy a topic loses the one by which alarms of
        # its account may publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sns:Publish"],
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        for address in settings.notifications:
            topic.add_subscription(subscriptions.EmailSubscription(address))
        workflow_log = log_group(self, "Workflow", settings.log_retention_days)
        functions = Functions(
            self,
            "Functions",
            settings=settings,
            network=network,
            bucket=bucket,
            topic=topic,
            machines=names,
        )
        node = RollNode(
            self,
            "RollNode",
            functions=functions.of,
            settings=settings,
            name=names["node"],
            roll_name=names["roll"],
            log_group=workflow_log,
        )
        roll = Roll(
            self,
            "Roll",
            functions=functions.of,
            settings=settings,
            name=names["roll"],
            roll_node=node.machine,
            log_group=workflow_log,
        )
        restore = Restore(
            self,
            "Restore",
            functions=functions.of,
            settings=settings,
            name=names["restore"],
            roll_name=names["roll"],
            log_group=workflow_log,
        )
        look_every = Duration.hours(settings.orphans_every_hours)
        Triggers(self, "Triggers", roll=roll.machine, restore=restore.machine, look_every=look_every, topic=topic)
        Observability(
            self,
            "Observability",
            settings=settings,
            machines={"Roll": roll.machine, "RollNode": node.machine, "Restore": restore.machine},
            functions=functions.of,
            topic=topic,
        )
        CfnOutput(self, "RollMachine", value=roll.machine.state_machine_arn, description="start a roll here")
        CfnOutput(self, "ReportsBucket", value=bucket.bucket_name, description="plans and reports")
        CfnOutput(self, "MessagesTopic", value=topic.topic_arn, description="subscribe here")
        if functions.security_group is not None:
            CfnOutput(
                self,
                "FunctionsSecurityGroup",
                value=functions.security_group.security_group_id,
                description="the cluster's security group lets it in on port 443 and Redis' ports",
            )

    def _message_key(self) -> kms.Key:
        """Encrypts messages. A key of our own, because alarms cannot publish to a topic under AWS's key for SNS."""
        key = kms.Key(
            self,
            "MessageKey",
            description=f"{self.stack_name}: messages",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.DESTROY,
        )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                resources=["*"],  # in a key's policy: this key
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        return key
