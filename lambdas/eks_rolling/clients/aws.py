"""AWS through boto3: Auto Scaling, EC2, load balancers, CloudWatch, S3, SNS, Step Functions.

Calls are retried a few times by botocore itself (standard mode); what remains is translated into `eks_rolling.errors`.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from eks_rolling.clients.aws_errors import Sort, sort
from eks_rolling.clients.call_log import CALLS
from eks_rolling.clients.protocols import HttpAnswer, Launched
from eks_rolling.errors import AccessDenied, NotFound, Permanent, Transient
from eks_rolling.names import CLUSTER_TAG_VALUES, cluster_tag
from eks_rolling.observed.aws import (
    BY_ATTRIBUTES,
    CONFIGURATION,
    IMAGE_BY_PARAMETER,
    STANDARD_VCPUS,
    Group,
    GroupInstance,
    InstanceState,
    InstanceType,
    LaunchTemplate,
    LifecycleHook,
    TargetRegistration,
    VcpuQuota,
)
from eks_rolling.observed.marks import GROUP_MAXIMUM, GROUP_RESUME, INSTANCE_PROTECTED, INTERFERING_PROCESSES
from eks_rolling.report.messages import Message

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import LaunchTemplateTypeDef
    from mypy_boto3_elb import ElasticLoadBalancingClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_elbv2.type_defs import TargetGroupTypeDef
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_stepfunctions import SFNClient

CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 4},
    connect_timeout=5,
    read_timeout=25,
    user_agent_extra="eks-rolling",
)

BRIEF = Config(retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
"""For what a plan can do without. A private network may have no way to it."""

HISTORY_PAGE = 1000
"""Events of a history in one answer, the most that there may be: a roll of a thousand nodes has about 20,000."""

FILTER_VALUES = 200
"""Values that a filter of EC2's takes (EC2 user guide, "List and filter your resources")."""

GROUP_NAMES = 50
"""Groups that DescribeAutoScalingGroups takes by name (API reference)."""

TEMPLATE_IDS = 200
"""Launch templates that one request asks for, the most of a page (API reference)."""

CONFIGURATION_NAMES = 50
"""Launch configurations that one request asks for, the most of a page (API reference)."""

OF_ITSELF = frozenset({"CreatedTime", "LaunchConfigurationARN", "LaunchConfigurationName"})
"""What a launch configuration says of itself, and not of what is launched."""

ALARM_NAMES = 100
"""Alarms that DescribeAlarms takes by name (API reference)."""

USABLE_IMAGE = frozenset({"available", "pending", "transient"})
"""States of an image that launches, or that is about to (API reference, Image)."""

TARGET_READERS = 4
"""Target groups that are asked at the same time. ELB answers an account 40 Describe calls at once and 10 a second after
that, load balancer controllers' too (user guide, "Request throttling for the ELB API")."""

KNOWN_FEATURES = frozenset(
    {
        "AutoScalingGroupName",
        "AutoScalingGroupARN",
        "MinSize",
        "MaxSize",
        "DesiredCapacity",
        "DesiredCapacityType",
        "PredictedCapacity",
        "AvailabilityZones",
        "AvailabilityZoneIds",
        "AvailabilityZoneDistribution",
        "AvailabilityZoneImpairmentPolicy",
        "CapacityRebalance",
        "CapacityReservationSpecification",
        "Context",
        "CreatedTime",
        "DefaultCooldown",
        "DefaultInstanceWarmup",
        "DeletionProtection",
        "EnabledMetrics",
        "HealthCheckGracePeriod",
        "HealthCheckType",
        "InstanceMaintenancePolicy",
        "InstanceLifecyclePolicy",
        "Instances",
        "LaunchConfigurationName",
        "LaunchTemplate",
        "LoadBalancerNames",
        "MaxInstanceLifetime",
        "MixedInstancesPolicy",
        "NewInstancesProtectedFromScaleIn",
        "PlacementGroup",
        "ServiceLinkedRoleARN",
        "Status",
        "SuspendedProcesses",
        "Tags",
        "TargetGroupARNs",
        "TerminationPolicies",
        "TrafficSources",
        "VPCZoneIdentifier",
        "WarmPoolConfiguration",
        "WarmPoolSize",
    }
)
"""Fields of a group that a roll reads, or that do not concern it (API reference, AutoScalingGroup)."""

KNOWN_IN_OVERRIDES = frozenset(
    {"InstanceType", "WeightedCapacity", "LaunchTemplateSpecification", "InstanceRequirements"}
)
"""Fields of an override of a mixed instances policy that a roll reads (API reference, LaunchTemplateOverrides)."""

NO_CAPACITY = frozenset(
    {
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientVolumeCapacity",
        "InstanceLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "VcpuLimitExceeded",
    }
)
"""With what EC2 refuses a launch that may succeed later (EC2 API guide, error codes). LaunchInstances lists them beside
no instance; should the call be refused with one instead, it means the same."""

NODE_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
"""EC2's name of an architecture -> what a kubelet labels its node with."""

STANDARD_FAMILY = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)\d")

GONE_MESSAGE = re.compile(
    r"(?i)\b(?:AutoScalingGroup name|group|instance)\b.*\bnot found\b|\bis not part of Auto Scaling group\b"
)
"""What was there when it was looked at, and is not any more: Auto Scaling says so by a ValidationError."""

COMING_OR_GOING = re.compile(r"(?i)\bis not in InService\b")
"""An instance that comes or goes, whatever its group was last described with: Auto Scaling changes the protection of
none that is Pending or Terminating, and says so by a ValidationError."""

NOT_SIGNED_IN = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
    }
)
"""Codes for credentials that are not accepted, whatever they would be allowed to do (AWS, "Common errors")."""

NOT_AUTHORIZED = re.compile(
    r"User: (?P<user>\S+) is not authorized to perform: (?P<action>[\w-]+:\w+)(?: on resource: (?P<on>\S+))?"
)


SIGN_IN = (NoCredentialsError, CredentialRetrievalError, SSOError, TokenRetrievalError)
"""Faults that last until somebody signs in."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns botocore's errors into ours; `doing` completes "Cannot ...", e.g. "describe Auto Scaling group a"."""
    try:
        yield
    except ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        match sort_of(error):
            case Sort.TRANSIENT:
                raise Transient(f"Cannot {doing} now: {code}: {message}") from error
            case Sort.DENIED:
                raise AccessDenied(f"Cannot {doing}: {_missing(code, message, error.operation_name)}") from error
            case Sort.GONE:
                raise NotFound(f"Cannot {doing}: {code}: {message}") from error
            case Sort.PERMANENT if code == "ValidationError" and GONE_MESSAGE.search(message):
                raise NotFound(f"Cannot {doing}: {code}: {message}") from error
            case Sort.PERMANENT if code == "ValidationError" and COMING_OR_GOING.search(message):
                raise Transient(f"Cannot {doing} now: {code}: {message}") from error
            case Sort.PERMANENT:
                raise Permanent(f"Cannot {doing}: {code}: {message}") from error
    except NoCredentialsError as error:
        raise AccessDenied(f"Cannot {doing}: no AWS credentials were found. Sign in.") from error
    except SIGN_IN as error:
        raise AccessDenied(f"Cannot {doing}: {str(error).rstrip('.')}. Sign in again.") from error
    except (BotoCoreError, ResponseParserError) as error:
        # A proxy's page of HTML, say, where an answer should be.
        raise Transient(f"Cannot {doing} now: {error}") from error


def sort_of(error: ClientError) -> Sort:
    """What botocore's error means."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return sort(error.response["Error"].get("Code", ""), status)


@contextmanager
def dry_run() -> Iterator[None]:
    """EC2 answers a dry run of what may be done with an error of this name."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"].get("Code") != "DryRunOperation":
            raise


def _missing(code: str, message: str, operation: str) -> str:
    """Which permission an answer says is missing.

    IAM's sentence names the caller and the action ("User: ... is not authorized to perform: ..."); where it does not,
    all that is known is what was called. Nobody can allow anything to credentials that have expired.
    """
    if code in NOT_SIGNED_IN:
        return f"AWS does not accept the credentials ({code}: {message.rstrip('.')}). Sign in again."
    if found := NOT_AUTHORIZED.search(message):
        kind, _, name = found["user"].rpartition(":")[2].partition("/")
        who = f"the role {name.partition('/')[0]}" if kind == "assumed-role" else f"{kind} {name}"
        on = f" on {found['on']}" if found["on"] else ""
        return f"{who} may not {found['action']}{on} ({code}). Allow it."
    return f"{code}: {message} (action {operation}). Allow it to the role that asked."


class AwsClient:
    """The account, as the roll sees it: the Auto Scaling groups of one cluster, and what hangs on them."""

    def __init__(
        self, cluster: str, bucket: str = "", topic: str = "", session: boto3.session.Session | None = None
    ) -> None:
        self._cluster = cluster
        self._bucket = bucket
        self._topic = topic
        self._session = session or boto3.session.Session()
        CALLS.follow(self._session.events)

    @cached_property
    def _autoscaling(self) -> "AutoScalingClient":
        return self._session.client("autoscaling", config=CONFIG)

    @cached_property
    def _ec2(self) -> "EC2Client":
        return self._session.client("ec2", config=CONFIG)

    @cached_property
    def _elbv2(self) -> "ElasticLoadBalancingv2Client":
        return self._session.client("elbv2", config=CONFIG)

    @cached_property
    def _elb(self) -> "ElasticLoadBalancingClient":
        return self._session.client("elb", config=CONFIG)

    @cached_property
    def _cloudwatch(self) -> "CloudWatchClient":
        return self._session.client("cloudwatch", config=CONFIG)

    @cached_property
    def _quotas(self) -> "ServiceQuotasClient":
        return self._session.client("service-quotas", config=CONFIG.merge(BRIEF))

    @cached_property
    def _s3(self) -> "S3Client":
        return self._session.client("s3", config=CONFIG)

    @cached_property
    def _sns(self) -> "SNSClient":
        return self._session.client("sns", config=CONFIG)

    @cached_property
    def _stepfunctions(self) -> "SFNClient":
        return self._session.client("stepfunctions", config=CONFIG)

    # Auto Scaling groups

    def groups(self, names: Sequence[str] = ()) -> list[Group]:
        paginator = self._autoscaling.get_paginator("describe_auto_scaling_groups")
        with translated("describe the Auto Scaling groups"):
            if names:
                asked = [
                    paginator.paginate(AutoScalingGroupNames=batch)
                    for batch in _batches(sorted(set(names)), GROUP_NAMES)
                ]
            else:
                tag = f"tag:{cluster_tag(self._cluster)}"
                asked = [paginator.paginate(Filters=[{"Name": tag, "Values": list(CLUSTER_TAG_VALUES)}])]
            found = [item for pages in asked for page in pages for item in page["AutoScalingGroups"]]
        refreshing = self._refreshing([g["AutoScalingGroupName"] for g in found])
        return [_group(g, refreshing) for g in sorted(found, key=lambda g: g["AutoScalingGroupName"])]

    def _refreshing(self, names: Sequence[str]) -> frozenset[str]:
        active = {"Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"}
        running = set()
        for name in names:
            try:
                with translated("describe instance refreshes"):
                    answer = self._autoscaling.describe_instance_refreshes(AutoScalingGroupName=name, MaxRecords=1)
            except NotFound:
                # The group was deleted since it was listed.
                continue
            if any(refresh.get("Status") in active for refresh in answer["InstanceRefreshes"]):
                running.add(name)
        return frozenset(running)

    def lifecycle_hooks(self, groups: Iterable[str]) -> list[LifecycleHook]:
        hooks: list[LifecycleHook] = []
        for group in groups:
            try:
                with translated(f"describe the lifecycle hooks of {group}"):
                    found = self._autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=group)["LifecycleHooks"]
            except NotFound:
                # It was deleted since it was listed.
                continue
            hooks += [
                LifecycleHook(
                    group=group,
                    name=hook["LifecycleHookName"],
                    terminating=hook["LifecycleTransition"].endswith("_TERMINATING"),
                    # 3,600 s where the hook does not say (API reference of PutLifecycleHook).
                    seconds=float(hook.get("HeartbeatTimeout", 3600)),
                    abandons=hook.get("DefaultResult", "ABANDON") == "ABANDON",
                )
                for hook in found
            ]
        return hooks

    def template_versions(self, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        described = self._templates(ids)
        return {t["LaunchTemplateId"]: (t["LatestVersionNumber"], t["DefaultVersionNumber"]) for t in described}

    def template_tags(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        described = self._templates(ids)
        return {t["LaunchTemplateId"]: {tag["Key"]: tag["Value"] for tag in t.get("Tags", ())} for t in described}

    def _templates(self, ids: Iterable[str]) -> "list[LaunchTemplateTypeDef]":
        return [t for batch in _batches(sorted(set(ids)), TEMPLATE_IDS) for t in self._known_templates(batch)]

    def _known_templates(self, ids: list[str]) -> "list[LaunchTemplateTypeDef]":
        try:
            with translated(f"describe launch templates {', '.join(ids)}"):
                pages = self._ec2.get_paginator("describe_launch_templates").paginate(LaunchTemplateIds=ids)
                return [t for page in pages for t in page["LaunchTemplates"]]
        except AccessDenied:
            raise
        except Permanent:
            # One of them is gone: for its sake EC2 tells of none.
            return [] if len(ids) == 1 else [t for each in ids for t in self._known_templates([each])]

    def set_default_version(self, template: str, number: str) -> None:
        with translated(f"make version {number} the default of launch template {template}"):
            self._ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion=number)

    def set_template_version(self, group: str, template: str, number: str) -> None:
        with translated(f"point {group} at version {number} of launch template {template}"):
            self._autoscaling.update_auto_scaling_group(
                AutoScalingGroupName=group, LaunchTemplate={"LaunchTemplateId": template, "Version": number}
            )

    def set_configuration(self, group: str, name: str) -> None:
        with translated(f"point {group} at the launch configuration {name}"):
            self._autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, LaunchConfigurationName=name)

    def template_data(self, versions: Iterable[str]) -> dict[str, dict[str, str]]:
        wanted = sorted(set(versions))
        numbers: dict[str, list[str]] = {}
        for version in (v for v in wanted if not v.startswith(CONFIGURATION)):
            template, _, number = version.partition(":")
            numbers.setdefault(template, []).append(number)
        found = self._configuration_data([v.removeprefix(CONFIGURATION) for v in wanted if v.startswith(CONFIGURATION)])
        for template, of_template in numbers.items():
            found |= self._known_versions(template, of_template)
        return found

    def _configuration_data(self, names: list[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for batch in _batches(names, CONFIGURATION_NAMES):
            with translated(f"describe launch configurations {', '.join(batch)}"):
                pages = self._autoscaling.get_paginator("describe_launch_configurations").paginate(
                    LaunchConfigurationNames=batch
                )
                for item in (item for page in pages for item in page["LaunchConfigurations"]):
                    said = {key: value for key, value in item.items() if key not in OF_ITSELF}
                    found[f"{CONFIGURATION}{item['LaunchConfigurationName']}"] = _flat(said)
        return found

    def _known_versions(self, template: str, numbers: list[str]) -> dict[str, dict[str, str]]:
        try:
            return self._template_data(template, numbers)
        except AccessDenied:
            raise
        except Permanent:
            # The template is gone, or one of these versions: for its sake EC2 tells of none.
            return (
                {}
                if len(numbers) == 1
                else {k: v for n in numbers for k, v in self._known_versions(template, [n]).items()}
            )

    def _template_data(self, template: str, numbers: list[str]) -> dict[str, dict[str, str]]:
        with translated(f"describe versions of launch template {template}"):
            pages = self._ec2.get_paginator("describe_launch_template_versions").paginate(
                LaunchTemplateId=template, Versions=numbers
            )
            versions = [v for page in pages for v in page["LaunchTemplateVersions"]]
        return {f"{template}:{v['VersionNumber']}": _flat(v["LaunchTemplateData"]) for v in versions}

    def images_now(self, versions: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for version in sorted(set(versions)):
            template, _, number = version.partition(":")
            try:
                with translated(f"resolve the image of launch template {template}, version {number}"):
                    # EC2 asks Systems Manager in our name, so that a network needs no way to that.
                    answer = self._ec2.describe_launch_template_versions(
                        LaunchTemplateId=template, Versions=[number], ResolveAlias=True
                    )
            except Permanent:
                # Not permitted, or the parameter is gone: a plan says that it does not know.
                continue
            for item in answer["LaunchTemplateVersions"]:
                image = item["LaunchTemplateData"].get("ImageId", "")
                if image and not image.startswith(IMAGE_BY_PARAMETER):
                    found[version] = image
        return found

    def images_gone(self, images: Iterable[str]) -> frozenset[str]:
        wanted = sorted(set(images))
        usable: set[str] = set()
        # A filter, unlike ImageIds, does not fail for an image that is gone.
        for batch in _batches(wanted, FILTER_VALUES):
            with translated(f"describe images {', '.join(batch)}"):
                pages = self._ec2.get_paginator("describe_images").paginate(
                    # A deprecated image still launches, and EC2 shows other owners' only to who asks for them.
                    Filters=[{"Name": "image-id", "Values": batch}],
                    IncludeDeprecated=True,
                )
                usable |= {i["ImageId"] for page in pages for i in page["Images"] if i["State"] in USABLE_IMAGE}
        return frozenset(wanted) - usable

    def instance_types(self, names: Iterable[str]) -> dict[str, InstanceType]:
        found: dict[str, InstanceType] = {}
        # 100 in a page (API reference). A filter, unlike InstanceTypes, does not fail for one that the region lacks.
        for batch in _batches(sorted(set(names)), 100):
            with translated(f"describe instance types {', '.join(batch)}"):
                pages = self._ec2.get_paginator("describe_instance_types").paginate(
                    Filters=[{"Name": "instance-type", "Values": batch}]
                )
                for item in (item for page in pages for item in page["InstanceTypes"]):
                    memory = item["MemoryInfo"]["SizeInMiB"] << 20
                    name = str(item["InstanceType"])
                    found[name] = InstanceType(name, item["VCpuInfo"]["DefaultVCpus"], memory, _architecture(item))
        return found

    def vcpu_quota(self) -> VcpuQuota:
        try:
            with translated("read the quota of running on-demand standard instances"):
                answer = self._quotas.get_service_quota(ServiceCode="ec2", QuotaCode=STANDARD_VCPUS)
            with translated("describe running instances"):
                pages = self._ec2.get_paginator("describe_instances").paginate(
                    Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}],
                    PaginationConfig={"PageSize": 1000},
                )
                used = sum(_standard_vcpus(i) for page in pages for r in page["Reservations"] for i in r["Instances"])
        except (Permanent, Transient) as error:
            return VcpuQuota(unknown=str(error))
        return VcpuQuota(limit=answer["Quota"]["Value"], used=used)

    def free_addresses(self, group: Group) -> dict[str, int]:
        free: dict[str, int] = {}
        # A filter, unlike SubnetIds, does not fail for one that was deleted.
        for batch in _batches(group.subnets, FILTER_VALUES):
            with translated(f"describe the subnets of {group.name}"):
                pages = self._ec2.get_paginator("describe_subnets").paginate(
                    Filters=[{"Name": "subnet-id", "Values": batch}]
                )
                for subnet in (subnet for page in pages for subnet in page["Subnets"]):
                    zone = subnet["AvailabilityZone"]
                    free[zone] = free.get(zone, 0) + subnet["AvailableIpAddressCount"]
        return free

    def launch(self, group: str, zone: str, token: str) -> Launched:
        with translated(f"launch an instance in {group}, {zone}"):
            try:
                answer = self._autoscaling.launch_instances(
                    AutoScalingGroupName=group,
                    RequestedCapacity=1,
                    ClientToken=token,
                    AvailabilityZones=[zone],
                    RetryStrategy="none",
                )
            except ClientError as error:
                code = error.response["Error"].get("Code", "")
                # A ValidationError is mostly no room below the maximum; another instance may terminate soon.
                if code != "ValidationError" and code not in NO_CAPACITY:
                    raise
                return Launched(error=code, message=error.response["Error"].get("Message", ""))
        launched = [i for batch in answer.get("Instances", []) for i in batch.get("InstanceIds", [])]
        if launched:
            return Launched(instance=launched[0])
        errors = answer.get("Errors", [])
        first = errors[0] if errors else {}
        return Launched(error=first.get("ErrorCode", "NoInstance"), message=first.get("ErrorMessage", ""))

    def set_desired(self, group: str, desired: int) -> None:
        with translated(f"set the desired capacity of {group} to {desired}"):
            self._autoscaling.set_desired_capacity(
                AutoScalingGroupName=group, DesiredCapacity=desired, HonorCooldown=False
            )

    def set_maximum(self, group: str, maximum: int) -> None:
        with translated(f"set the maximum size of {group} to {maximum}"):
            self._autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=maximum)

    def suspend(self, group: str, processes: Iterable[str]) -> None:
        with translated(f"suspend processes of {group}"):
            self._autoscaling.suspend_processes(AutoScalingGroupName=group, ScalingProcesses=sorted(processes))

    def resume(self, group: str, processes: Iterable[str]) -> None:
        with translated(f"resume processes of {group}"):
            self._autoscaling.resume_processes(AutoScalingGroupName=group, ScalingProcesses=sorted(processes))

    def tag_group(self, group: str, tags: Mapping[str, str]) -> None:
        with translated(f"tag {group}"):
            self._autoscaling.create_or_update_tags(
                Tags=[
                    {
                        "ResourceId": group,
                        "ResourceType": "auto-scaling-group",
                        "Key": key,
                        "Value": value,
                        "PropagateAtLaunch": False,
                    }
                    for key, value in tags.items()
                ]
            )

    def untag_group(self, group: str, keys: Iterable[str]) -> None:
        tags = [{"ResourceId": group, "ResourceType": "auto-scaling-group", "Key": key} for key in keys]
        with translated(f"remove tags of {group}"):
            self._autoscaling.delete_tags(Tags=tags)  # type: ignore[arg-type]  # the stubs want a TypedDict

    def protect(self, group: str, instance: str, *, protected: bool) -> None:
        with translated(f"change scale-in protection of {instance}"):
            self._autoscaling.set_instance_protection(
                AutoScalingGroupName=group, InstanceIds=[instance], ProtectedFromScaleIn=protected
            )

    def terminate(self, instance: str) -> None:
        self._terminate(instance, smaller=True)

    def replace_by_group(self, instance: str) -> None:
        self._terminate(instance, smaller=False)

    def _terminate(self, instance: str, *, smaller: bool) -> None:
        with translated(f"terminate {instance}"):
            try:
                self._autoscaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=instance, ShouldDecrementDesiredCapacity=smaller
                )
            except ClientError as error:
                if "not found" not in error.response["Error"].get("Message", "").lower():
                    raise

    # Instances

    def instances(self, ids: Sequence[str]) -> dict[str, InstanceState]:
        found = []
        # A filter, unlike InstanceIds, does not fail for an id that EC2 has forgotten.
        for batch in _batches(ids, FILTER_VALUES):
            with translated(f"describe instances {', '.join(batch)}"):
                pages = self._ec2.get_paginator("describe_instances").paginate(
                    Filters=[{"Name": "instance-id", "Values": batch}]
                )
                found += [i for page in pages for r in page["Reservations"] for i in r["Instances"]]
        return {
            i["InstanceId"]: InstanceState(
                id=i["InstanceId"],
                state=i["State"]["Name"],
                tags={t["Key"]: t["Value"] for t in i.get("Tags", [])},
                launched=i["LaunchTime"].timestamp(),
                zone=i.get("Placement", {}).get("AvailabilityZone", ""),
                image=i.get("ImageId", ""),
            )
            for i in found
        }

    def tag_instance(self, instance: str, tags: Mapping[str, str]) -> None:
        with translated(f"tag {instance}"):
            self._ec2.create_tags(Resources=[instance], Tags=[{"Key": k, "Value": v} for k, v in tags.items()])

    def untag_instance(self, instance: str, keys: Iterable[str]) -> None:
        with translated(f"remove tags of {instance}"):
            self._ec2.delete_tags(Resources=[instance], Tags=[{"Key": key} for key in keys])

    def rehearse_restore(self, group: Group, instance: GroupInstance, registered: Sequence[TargetRegistration]) -> None:
        if runs := sorted(INTERFERING_PROCESSES - group.suspended):
            self.resume(group.name, runs[:1])
        with translated(f"set the maximum size of {group.name}"):
            # Without a size it sets nothing.
            self._autoscaling.update_auto_scaling_group(AutoScalingGroupName=group.name)
        if absent := sorted({GROUP_MAXIMUM, GROUP_RESUME} - group.tags.keys()):
            self.untag_group(group.name, absent)
        self.protect(group.name, instance.id, protected=instance.protected)
        tag = {"Key": INSTANCE_PROTECTED, "Value": "true"}
        with translated(f"tag {instance.id}"), dry_run():
            self._ec2.create_tags(DryRun=True, Resources=[instance.id], Tags=[tag])  # type: ignore[list-item]  # the stubs want a TypedDict
        with translated(f"remove tags of {instance.id}"), dry_run():
            self._ec2.delete_tags(DryRun=True, Resources=[instance.id], Tags=[{"Key": INSTANCE_PROTECTED}])
        for target in registered:
            self.register(target)

    # Load balancers

    def targets_of(self, instances: Sequence[str], among: Collection[str] | None = None) -> list[TargetRegistration]:
        wanted = set(instances)
        return self._group_targets(wanted, among) + self._classic_targets(wanted, among)

    def _group_targets(self, wanted: set[str], among: Collection[str] | None) -> list[TargetRegistration]:
        with translated("describe target groups"):
            pages = self._elbv2.get_paginator("describe_target_groups").paginate()
            groups = [g for page in pages for g in page["TargetGroups"] if _may_lead_to(g, wanted)]
        arns = [g["TargetGroupArn"] for g in groups if among is None or g["TargetGroupArn"] in among]
        # A region may have a thousand of them, and ELB can be asked by group alone.
        with ThreadPoolExecutor(TARGET_READERS) as readers:
            return [
                target for found in readers.map(lambda arn: self._targets_in(arn, wanted), arns) for target in found
            ]

    def _targets_in(self, arn: str, wanted: set[str]) -> list[TargetRegistration]:
        try:
            with translated("describe target groups"):
                health = self._elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
                if not any(h["Target"]["Id"] in wanted for h in health):
                    return []
                delay = self._deregistration_delay(arn)
        except NotFound:
            # It was deleted since the groups were listed, and sends nobody anything.
            return []
        found = [
            TargetRegistration(
                group=arn,
                instance=h["Target"]["Id"],
                port=h["Target"].get("Port"),
                state=h["TargetHealth"]["State"],
                delay_seconds=delay,
            )
            for h in health
        ]
        healthy = {t.instance for t in found if t.state == "healthy"}
        registered = {t.instance for t in found if t.registered}
        return [
            replace(t, others_healthy=len(healthy - {t.instance}), others=len(registered - {t.instance}))
            for t in found
            if t.instance in wanted
        ]

    def _deregistration_delay(self, arn: str) -> float:
        attributes = self._elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        values = {a["Key"]: a["Value"] for a in attributes}
        return float(values.get("deregistration_delay.timeout_seconds", "300"))

    def _classic_targets(self, wanted: set[str], among: Collection[str] | None) -> list[TargetRegistration]:
        with translated("describe classic load balancers"):
            pages = self._elb.get_paginator("describe_load_balancers").paginate()
            balancers = [b for page in pages for b in page["LoadBalancerDescriptions"]]
        names = [b["LoadBalancerName"] for b in balancers if any(i["InstanceId"] in wanted for i in b["Instances"])]
        asked = [name for name in names if among is None or name in among]
        return [target for name in asked for target in self._classic_targets_of(name, wanted)]

    def _classic_targets_of(self, name: str, wanted: set[str]) -> list[TargetRegistration]:
        try:
            with translated("describe classic load balancers"):
                states = self._elb.describe_instance_health(LoadBalancerName=name)["InstanceStates"]
                attributes = self._elb.describe_load_balancer_attributes(LoadBalancerName=name)
        except NotFound:
            # It was deleted since they were listed.
            return []
        healthy = {s["InstanceId"] for s in states if s["State"] == "InService"}
        draining = attributes["LoadBalancerAttributes"].get("ConnectionDraining", {"Enabled": False})
        return [
            TargetRegistration(
                group=name,
                instance=s["InstanceId"],
                port=None,
                state="healthy" if s["State"] == "InService" else "unhealthy",
                others_healthy=len(healthy - {s["InstanceId"]}),
                delay_seconds=float(draining.get("Timeout", 300)) if draining["Enabled"] else 0.0,
                classic=True,
                others=len({o["InstanceId"] for o in states} - {s["InstanceId"]}),
            )
            for s in states
            if s["InstanceId"] in wanted
        ]

    def deregister(self, target: TargetRegistration) -> None:
        try:
            with translated(f"deregister {target.instance} from {target.name}"):
                if target.classic:
                    self._elb.deregister_instances_from_load_balancer(
                        LoadBalancerName=target.group, Instances=[{"InstanceId": target.instance}]
                    )
                else:
                    self._elbv2.deregister_targets(TargetGroupArn=target.group, Targets=[_description(target)])
        except NotFound:
            # Where there is no group any more, nothing is registered.
            return

    def register(self, target: TargetRegistration) -> None:
        with translated(f"register {target.instance} with {target.name}"):
            if target.classic:
                self._elb.register_instances_with_load_balancer(
                    LoadBalancerName=target.group, Instances=[{"InstanceId": target.instance}]
                )
            else:
                self._elbv2.register_targets(TargetGroupArn=target.group, Targets=[_description(target)])

    # Health, documents, messages, history

    def alarms_firing(self, names: Sequence[str]) -> list[str]:
        states = self._alarms(names)
        if missing := set(names) - states.keys():
            raise NotFound(f"The gate's alarms {', '.join(sorted(missing))} do not exist; correct the setting alarms.")
        return sorted(name for name, state in states.items() if state == "ALARM")

    def alarms_missing(self, names: Sequence[str]) -> list[str]:
        return sorted(set(names) - self._alarms(names).keys())

    def _alarms(self, names: Sequence[str]) -> dict[str, str]:
        """Name -> state, of those that there are."""
        # Without their kinds composite ones are not answered.
        states = self._alarm_states(names, "MetricAlarm", "CompositeAlarm")
        if others := sorted(set(names) - states.keys()):
            try:
                states |= self._alarm_states(others, "LogAlarm")
            except AccessDenied:
                raise
            except Permanent:
                # A region that does not have this kind yet refuses to be asked for it.
                pass
        return states

    def _alarm_states(self, names: Sequence[str], *kinds: Any) -> dict[str, str]:
        """Name -> state, of the alarms of these kinds that there are."""
        found: list[Any] = []
        with translated("describe the gate's alarms"):
            for batch in _batches(names, ALARM_NAMES):
                for page in self._cloudwatch.get_paginator("describe_alarms").paginate(
                    AlarmNames=batch, AlarmTypes=list(kinds)
                ):
                    answer: Any = page
                    found += [alarm for kind in kinds for alarm in answer.get(f"{kind}s", ())]
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}

    def save(self, key: str, text: str, content_type: str) -> str:
        with translated(f"write s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=text.encode(), ContentType=content_type)
        return f"s3://{self._bucket}/{key}"

    def load(self, prefix: str) -> list[str]:
        with translated(f"read s3://{self._bucket}/{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
            # A thousand nodes have left a page each.
            with ThreadPoolExecutor(16) as readers:
                return list(readers.map(self._text, keys))

    def _text(self, key: str) -> str:
        return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read().decode()

    def notify(self, message: Message) -> None:
        if not self._topic:
            return
        with translated(f"publish to {self._topic}"):
            self._sns.publish(
                TopicArn=self._topic,
                Subject=message.heading,
                MessageStructure="json",
                Message=message.body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in message.attributes.items()
                },
            )

    def invoke(self, function: str, document: Mapping[str, Any], timeout_seconds: float) -> HttpAnswer:
        # One try: the SDK's own would call a function again that was only slow.
        brief = Config(connect_timeout=timeout_seconds, read_timeout=timeout_seconds, retries={"total_max_attempts": 1})
        lambda_ = self._session.client("lambda", config=CONFIG.merge(brief))
        with translated(f"call the function {function}"):
            try:
                answer = lambda_.invoke(FunctionName=function, Payload=json.dumps(dict(document)))
            except ClientError as error:
                if sort_of(error) is not Sort.TRANSIENT:
                    raise
                said = error.response["Error"]
                return HttpAnswer(fault=f"{said.get('Code', '')}: {said.get('Message', '')}", uncalled=True)
            text = answer["Payload"].read().decode(errors="replace")
        if answer.get("FunctionError"):
            return HttpAnswer(fault=f"it failed: {text[:500]}")
        return HttpAnswer(200, text)

    def history(self, execution: str) -> list[dict[str, Any]]:
        with translated(f"read the history of {execution}"):
            pages = self._stepfunctions.get_paginator("get_execution_history").paginate(
                executionArn=execution, includeExecutionData=True, PaginationConfig={"PageSize": HISTORY_PAGE}
            )
            return [dict(event) for page in pages for event in page["events"]]


def _batches(items: Sequence[str], most: int) -> Iterator[list[str]]:
    """The items in order, in lists of as many as one request takes."""
    for start in range(0, len(items), most):
        yield list(items[start : start + most])


def _may_lead_to(group: "TargetGroupTypeDef", wanted: set[str]) -> bool:
    """Whether any of these can be registered there, instances by id or pods by address, and get anything from it.

    Without a load balancer all its targets are `unused`.
    """
    kinds = {"instance" if each.startswith("i-") else "ip" for each in wanted}
    return group.get("TargetType") in kinds and bool(group.get("LoadBalancerArns"))


def _description(target: TargetRegistration) -> Any:
    return {"Id": target.instance} | ({"Port": target.port} if target.port else {})


def _group(item: "AutoScalingGroupTypeDef", refreshing: frozenset[str]) -> Group:
    mixed = item.get("MixedInstancesPolicy") or {}
    mixed_template = mixed.get("LaunchTemplate") or {}
    distribution = mixed.get("InstancesDistribution") or {}
    template = item.get("LaunchTemplate") or mixed_template.get("LaunchTemplateSpecification")
    choices = [
        (o.get("InstanceType") or f"{BY_ATTRIBUTES}{number}", o.get("LaunchTemplateSpecification"))
        for number, o in enumerate(mixed_template.get("Overrides") or ())
    ]
    overrides = [
        (kind, LaunchTemplate(own.get("LaunchTemplateId", ""), own.get("Version", "$Default")))
        for kind, own in choices
        if own
    ]
    share = distribution.get("OnDemandPercentageAboveBaseCapacity", 100)
    base = distribution.get("OnDemandBaseCapacity", 0)
    return Group(
        name=item["AutoScalingGroupName"],
        minimum=item["MinSize"],
        maximum=item["MaxSize"],
        desired=item["DesiredCapacity"],
        zones=tuple(item["AvailabilityZones"]),
        instances=tuple(
            GroupInstance(
                id=i["InstanceId"],
                zone=i["AvailabilityZone"],
                lifecycle=i["LifecycleState"],
                template=_version(i),
                type=i.get("InstanceType", ""),
                protected=i["ProtectedFromScaleIn"],
                healthy=i["HealthStatus"].lower() == "healthy",
            )
            for i in item["Instances"]
        ),
        template=LaunchTemplate(template.get("LaunchTemplateId", ""), template.get("Version", "$Default"))
        if template
        else None,
        configuration=item.get("LaunchConfigurationName", ""),
        overrides=tuple(overrides),
        types=tuple(kind for kind, _ in choices),
        unhandled=tuple(_unhandled(item)),
        subnets=tuple(s.strip() for s in item.get("VPCZoneIdentifier", "").split(",") if s.strip()),
        longest_life=float(item.get("MaxInstanceLifetime") or 0),
        rebalances_spot=bool(item.get("CapacityRebalance")) and not (mixed and share == 100),
        mixed=bool(mixed),
        # LaunchInstances serves policies that are all on-demand or all spot, none in between.
        mixed_purchasing=bool(mixed) and not (share == 100 or (share == 0 and base == 0)),
        tags={t["Key"]: t.get("Value", "") for t in item.get("Tags", [])},
        kept_tags=frozenset(t["Key"] for t in item.get("Tags", []) if not t.get("PropagateAtLaunch")),
        suspended=frozenset(p["ProcessName"] for p in item.get("SuspendedProcesses", [])),
        warm_pool="WarmPoolConfiguration" in item,
        refresh_running=item["AutoScalingGroupName"] in refreshing,
    )


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Nested fields by their path, such as MetadataOptions.HttpTokens. Scripts are replaced by a digest: they may hold
    secrets."""
    if isinstance(value, dict):
        fields = ((f"{path}.{key}" if path else key, inner) for key, inner in value.items())
        return {k: v for name, inner in fields for k, v in _flat(inner, name).items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in _flat(inner, f"{path}[{i}]").items()}
    if path == "UserData":
        return {path: f"sha256 {hashlib.sha256(str(value).encode()).hexdigest()[:12]}"}
    return {path: str(value)}


def _architecture(kind: Any) -> str:
    """The architecture of the nodes that an instance type makes; one of 64 bits goes before one of 32."""
    supported = set((kind.get("ProcessorInfo") or {}).get("SupportedArchitectures") or ())
    known = {NODE_ARCHITECTURES[name] for name in supported & NODE_ARCHITECTURES.keys()}
    return known.pop() if len(known) == 1 else ""


def _standard_vcpus(instance: Any) -> int:
    """vCPUs that an instance counts against the quota of running on-demand standard instances."""
    if instance.get("InstanceLifecycle") == "spot" or not STANDARD_FAMILY.match(instance["InstanceType"]):
        return 0
    options = instance.get("CpuOptions") or {}
    return int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 2))


def _version(instance: Any) -> str:
    if template := instance.get("LaunchTemplate"):
        return f"{template['LaunchTemplateId']}:{template['Version']}"
    name = instance.get("LaunchConfigurationName", "")
    return f"{CONFIGURATION}{name}" if name else ""


def _unhandled(item: Any) -> Iterator[str]:
    """Features of a group that change what its numbers mean or whom it serves, and every one that is not known here."""
    overrides = ((item.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}).get("Overrides") or ()
    if any(o.get("WeightedCapacity") for o in overrides):
        yield "weighted capacity: its sizes are units, not instances"
    for field in sorted({key for o in overrides for key, value in o.items() if value} - KNOWN_IN_OVERRIDES):
        yield f"the field {field} of an override, by which it launches something else than its template says"
    kept = (item.get("InstanceLifecyclePolicy") or {}).get("RetentionTriggers") or {}
    if any(action != "terminate" for action in kept.values()):
        yield "a lifecycle policy that retains instances instead of terminating them"
    if (unit := item.get("DesiredCapacityType", "units")) != "units":
        yield f"desired capacity in {unit}: its sizes are not instances"
    for source in item.get("TrafficSources") or ():
        if source.get("Type") not in {"elb", "elbv2", None}:
            yield f"traffic source of type {source['Type']}"
    if status := item.get("Status"):
        yield f"it is being deleted ({status})"
    for feature in sorted(name for name, value in item.items() if value and name not in KNOWN_FEATURES):
        yield f"the feature {feature}"
