"""One cluster's stack: composes functions, workflow, triggers and observability; defines nothing itself."""

from collections.abc import Mapping
from typing import Any

from aws_cdk import App, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct
from pydantic import ValidationError

from lambdas.errors import BadRequest
from lambdas.names import MACHINES, machine_name
from lambdas.settings import Settings, Strict, problems
from stacks.functions import Functions, Network
from stacks.observability import Observability
from stacks.state_machine import Restore, Roll, RollNode
from stacks.triggers import Triggers


class Document(Strict):
    """One cluster as it is written in the context key `eks-rolling`: its settings, and where the functions run."""

    settings: Settings
    network: Network | None = None


def add_cluster(app: App, document: Mapping[str, Any]) -> "RollStack":
    """Adds the stack of one cluster. Raises BadRequest naming every problem of the document at once."""
    try:
        read = Document.model_validate(dict(document))
    except ValidationError as error:
        raise BadRequest(f"The context key eks-rolling has {problems(error, Document)}.") from error
    cluster = read.settings.cluster
    return RollStack(
        app,
        f"EksRolling-{cluster}",
        settings=read.settings,
        network=read.network,
        description=f"Replaces outdated worker nodes of the EKS cluster {cluster} while it serves",
    )


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
        topic = sns.Topic(self, "Messages", display_name=f"eks-rolling {cluster}", enforce_ssl=True)
        log_group = logs.LogGroup(
            self, "Workflow", retention=logs.RetentionDays.THREE_MONTHS, removal_policy=RemovalPolicy.DESTROY
        )
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
            log_group=log_group,
        )
        roll = Roll(
            self,
            "Roll",
            functions=functions.of,
            settings=settings,
            name=names["roll"],
            roll_node=node.machine,
            log_group=log_group,
        )
        restore = Restore(
            self, "Restore", functions=functions.of, settings=settings, name=names["restore"], log_group=log_group
        )
        look_every = Duration.hours(settings.orphans_every_hours)
        Triggers(self, "Triggers", roll=roll.machine, restore=restore.machine, look_every=look_every)
        Observability(self, "Observability", machines=[roll.machine, node.machine, restore.machine], topic=topic)
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
