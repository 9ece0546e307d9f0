"""How each type of resource that a deployment may have is made in the lab, or made to be as it should.

Policies of buckets, topics and queues, metric filters and layers are not made: the lab's services let everybody in, its
functions' logs are files, and its functions take their dependencies from the lab's own interpreter.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from lab.aws import ACCOUNT_ID
from lab.aws.template import Json, Made

NOT_MADE = {
    "AWS::CDK::Metadata",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::MetricFilter",
    "AWS::Logs::ResourcePolicy",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}
_ALREADY = {
    "BucketAlreadyOwnedByYou",
    "EntityAlreadyExists",
    "ResourceAlreadyExistsException",
    "ResourceConflictException",
    "ResourceInUseException",
}


@dataclass(frozen=True)
class Maker:
    """What makes the resources of one stack: `client` gives boto3 clients of the lab."""

    stack: str
    region: str
    client: Callable[[str], Any]

    def name(self, logical_id: str, longest: int = 64) -> str:
        """The name of a resource that the template gives none: the same at every deployment."""
        name = f"{self.stack}-{logical_id}"
        if len(name) <= longest:
            return name
        return f"{name[: longest - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{ACCOUNT_ID}:{resource}"

    def ensure(self, operation: Callable[..., Any], **parameters: Any) -> Any:
        """Calls an operation that makes something; None if it is there already."""
        try:
            return operation(**parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _ALREADY:
                raise
            return None


@cache
def lab_clients(endpoint: str, region: str) -> Callable[[str], Any]:
    """boto3 clients of a lab's AWS server, each made once."""
    session: Any = boto3.session.Session("deployment", "any secret will do", region_name=region)

    @cache
    def client(service: str) -> Any:
        return session.client(
            service, endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1}, read_timeout=60)
        )

    return client


def given(properties: Json, *names: str) -> dict[str, Json]:
    """Those of the properties that the template gives and that the API calls the same."""
    return {name: properties[name] for name in names if name in properties}


def _role(maker: Maker, logical_id: str, properties: Json) -> Made:
    iam, name = maker.client("iam"), properties.get("RoleName") or maker.name(logical_id)
    trust = json.dumps(properties["AssumeRolePolicyDocument"])
    maker.ensure(iam.create_role, RoleName=name, AssumeRolePolicyDocument=trust)
    for policy in properties.get("Policies", []):
        document = json.dumps(policy["PolicyDocument"])
        iam.put_role_policy(RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=document)
    for arn in properties.get("ManagedPolicyArns", []):
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    role = iam.get_role(RoleName=name)["Role"]
    return Made(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})


def _policy(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties["PolicyName"]
    for role in properties.get("Roles", []):
        maker.client("iam").put_role_policy(
            RoleName=role, PolicyName=name, PolicyDocument=json.dumps(properties["PolicyDocument"])
        )
    return Made(logical_id, {"Id": name})


def _managed_policy(maker: Maker, logical_id: str, properties: Json) -> Made:
    iam, name = maker.client("iam"), properties.get("ManagedPolicyName") or maker.name(logical_id)
    maker.ensure(iam.create_policy, PolicyName=name, PolicyDocument=json.dumps(properties["PolicyDocument"]))
    arn = f"arn:aws:iam::{ACCOUNT_ID}:policy/{name}"
    for role in properties.get("Roles", []):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    return Made(arn, {"PolicyArn": arn})


def _function(maker: Maker, logical_id: str, properties: Json) -> Made:
    api, name = maker.client("lambda"), properties.get("FunctionName") or maker.name(logical_id)
    configuration = given(
        properties,
        *("Role", "Handler", "Runtime", "Timeout", "MemorySize", "Environment", "Description"),
        *("VpcConfig", "LoggingConfig"),
    )
    code = given(properties["Code"], "S3Bucket", "S3Key")
    if not maker.ensure(api.create_function, FunctionName=name, Code=code, **configuration):
        api.update_function_code(FunctionName=name, **code)
        # What is left out is what the function shall not have any more.
        api.update_function_configuration(
            FunctionName=name, **({"Environment": {"Variables": {}}, "Timeout": 3, "MemorySize": 128} | configuration)
        )
    if "ReservedConcurrentExecutions" in properties:
        api.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=int(properties["ReservedConcurrentExecutions"])
        )
    else:
        api.delete_function_concurrency(FunctionName=name)
    return Made(name, {"Arn": maker.arn("lambda", f"function:{name}")})


def _permission(maker: Maker, logical_id: str, properties: Json) -> Made:
    maker.ensure(
        maker.client("lambda").add_permission,
        StatementId=logical_id,
        **given(properties, "FunctionName", "Action", "Principal", "SourceArn", "SourceAccount"),
    )
    return Made(logical_id)


def _layer(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("LayerName") or maker.name(logical_id)
    return Made(maker.arn("lambda", f"layer:{name}:1"))


def _state_machine(maker: Maker, logical_id: str, properties: Json) -> Made:
    api, name = maker.client("stepfunctions"), properties.get("StateMachineName") or maker.name(logical_id, 80)
    definition = _definition(maker, properties)
    arn = maker.arn("states", f"stateMachine:{name}")
    known = {
        machine["stateMachineArn"] for page in _pages(api, "list_state_machines") for machine in page["stateMachines"]
    }
    if arn in known:
        api.update_state_machine(stateMachineArn=arn, definition=definition, roleArn=properties["RoleArn"])
    else:
        api.create_state_machine(
            name=name,
            definition=definition,
            roleArn=properties["RoleArn"],
            type=properties.get("StateMachineType", "STANDARD"),
        )
    return Made(arn, {"Arn": arn, "Name": name})


def _definition(maker: Maker, properties: Json) -> str:
    if "DefinitionS3Location" in properties:
        at = properties["DefinitionS3Location"]
        text = maker.client("s3").get_object(Bucket=at["Bucket"], Key=at["Key"])["Body"].read().decode()
    elif "Definition" in properties:
        text = json.dumps(properties["Definition"])
    else:
        text = properties["DefinitionString"]
    for name, value in properties.get("DefinitionSubstitutions", {}).items():
        text = text.replace(f"${{{name}}}", str(value))
    return str(text)


def _rule(maker: Maker, logical_id: str, properties: Json) -> Made:
    api, name = maker.client("events"), properties.get("Name") or maker.name(logical_id)
    pattern = {"EventPattern": json.dumps(properties["EventPattern"])} if "EventPattern" in properties else {}
    api.put_rule(
        Name=name, State=properties.get("State", "ENABLED"), **pattern, **given(properties, "ScheduleExpression")
    )
    targets = properties.get("Targets", [])
    stale = {t["Id"] for t in api.list_targets_by_rule(Rule=name)["Targets"]} - {t["Id"] for t in targets}
    if stale:
        api.remove_targets(Rule=name, Ids=sorted(stale))
    if targets:
        api.put_targets(Rule=name, Targets=targets)
    return Made(name, {"Arn": maker.arn("events", f"rule/{name}")})


def _bucket(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("BucketName") or maker.name(logical_id, 63).lower()
    make_bucket(maker, name)
    arn = f"arn:aws:s3:::{name}"
    return Made(name, {"Arn": arn, "DomainName": f"{name}.s3.amazonaws.com"})


def make_bucket(maker: Maker, name: str) -> None:
    """A bucket in the lab's region, unless it is there."""
    location = (
        {} if maker.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": maker.region}}
    )
    maker.ensure(maker.client("s3").create_bucket, Bucket=name, **location)


def _topic(maker: Maker, logical_id: str, properties: Json) -> Made:
    api, name = maker.client("sns"), properties.get("TopicName") or maker.name(logical_id)
    arn = api.create_topic(Name=name)["TopicArn"]
    for subscription in properties.get("Subscription", []):
        api.subscribe(TopicArn=arn, **given(subscription, "Protocol", "Endpoint"))
    return Made(arn, {"TopicArn": arn, "TopicName": name})


def _key(maker: Maker, logical_id: str, _properties: Json) -> Made:
    """A name alone: nothing is encrypted in the lab."""
    return Made(logical_id, {"Arn": maker.arn("kms", f"key/{logical_id}"), "KeyId": logical_id})


def _subscription(maker: Maker, _logical_id: str, properties: Json) -> Made:
    subscribed = maker.client("sns").subscribe(**given(properties, "TopicArn", "Protocol", "Endpoint"))
    return Made(subscribed["SubscriptionArn"])


def _queue(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("QueueName") or maker.name(logical_id)
    url = maker.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    return Made(url, {"Arn": maker.arn("sqs", name), "QueueName": name, "QueueUrl": url})


def _log_group(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("LogGroupName") or maker.name(logical_id)
    maker.ensure(maker.client("logs").create_log_group, logGroupName=name)
    return Made(name, {"Arn": maker.arn("logs", f"log-group:{name}:*")})


def _alarm(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("AlarmName") or maker.name(logical_id)
    known = {key: value for key, value in properties.items() if key not in ("AlarmName", "Tags")}
    maker.client("cloudwatch").put_metric_alarm(AlarmName=name, **known)
    return Made(name, {"Arn": maker.arn("cloudwatch", f"alarm:{name}")})


def _composite_alarm(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("AlarmName") or maker.name(logical_id)
    maker.client("cloudwatch").put_composite_alarm(AlarmName=name, **given(properties, "AlarmRule", "AlarmActions"))
    return Made(name, {"Arn": maker.arn("cloudwatch", f"alarm:{name}")})


def _dashboard(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("DashboardName") or maker.name(logical_id)
    maker.client("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=properties["DashboardBody"])
    return Made(name)


def _access_entry(maker: Maker, _logical_id: str, properties: Json) -> Made:
    api, cluster, principal = maker.client("eks"), properties["ClusterName"], properties["PrincipalArn"]
    who: dict[str, Any] = {"clusterName": cluster, "principalArn": principal}
    named = {"username": properties["Username"]} if "Username" in properties else {}
    groups = properties.get("KubernetesGroups", [])
    if not maker.ensure(api.create_access_entry, **who, kubernetesGroups=groups, **named):
        api.update_access_entry(**who, kubernetesGroups=groups, **named)
    arn = api.describe_access_entry(**who)["accessEntry"]["accessEntryArn"]
    return Made(f"{principal}|{cluster}", {"AccessEntryArn": arn})


def _security_group(maker: Maker, logical_id: str, properties: Json) -> Made:
    api, name = maker.client("ec2"), properties.get("GroupName") or maker.name(logical_id)
    by_name = [{"Name": "group-name", "Values": [name]}]
    known = api.describe_security_groups(Filters=by_name)["SecurityGroups"]
    group_id = (
        known[0]["GroupId"]
        if known
        else api.create_security_group(
            GroupName=name, Description=properties.get("GroupDescription", name), **given(properties, "VpcId")
        )["GroupId"]
    )
    return Made(group_id, {"GroupId": group_id, "VpcId": properties.get("VpcId", "")})


def _parameter(maker: Maker, logical_id: str, properties: Json) -> Made:
    name = properties.get("Name") or maker.name(logical_id)
    maker.client("ssm").put_parameter(Name=name, Overwrite=True, **given(properties, "Type", "Value"))
    return Made(name, {"Type": properties["Type"], "Value": properties["Value"]})


def _pages(api: Any, operation: str) -> Any:
    return api.get_paginator(operation).paginate()


MAKERS: dict[str, Callable[[Maker, str, Json], Made]] = {
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::CloudWatch::CompositeAlarm": _composite_alarm,
    "AWS::CloudWatch::Dashboard": _dashboard,
    "AWS::EC2::SecurityGroup": _security_group,
    "AWS::EKS::AccessEntry": _access_entry,
    "AWS::Events::Rule": _rule,
    "AWS::IAM::ManagedPolicy": _managed_policy,
    "AWS::IAM::Policy": _policy,
    "AWS::IAM::Role": _role,
    "AWS::KMS::Key": _key,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::LayerVersion": _layer,
    "AWS::Lambda::Permission": _permission,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::S3::Bucket": _bucket,
    "AWS::SNS::Subscription": _subscription,
    "AWS::SNS::Topic": _topic,
    "AWS::SQS::Queue": _queue,
    "AWS::SSM::Parameter": _parameter,
    "AWS::StepFunctions::StateMachine": _state_machine,
}
