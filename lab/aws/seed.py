"""Fills the account with what a lab starts with: network, launch templates, groups, load balancers, EKS cluster."""

import base64
from pathlib import Path
from typing import Any

from moto.eks.models import EKSBackend

from lab.aws.account import Account
from lab.aws.compat.registry import around
from lab.aws.fleet import Fleet
from lab.aws.images import BY_PARAMETER
from lab.spec import GroupSpec, LabSpec, TargetGroupSpec, configuration_name, image_id

VPC_CIDR = "10.0.0.0/16"
ENDPOINT = "https://127.0.0.1:6443"
KUBERNETES_VERSION = "1.37"


def seed(account: Account, fleet: Fleet, spec: LabSpec, ca_certificate: Path) -> None:
    """Makes everything that the spec names; its instances run at once.

    `ca_certificate` is read when somebody describes the cluster: the control plane that writes it starts meanwhile.
    """
    vpc = account.ec2.create_vpc(VPC_CIDR)
    subnets = {
        zone: account.ec2.create_subnet(vpc.id, f"10.0.{spec.zone_index(zone)}.0/24", availability_zone=zone).id
        for zone in spec.zones
    }
    _make_cluster(account, spec.cluster, list(subnets.values()), ca_certificate)
    target_groups = {
        target_group.name: _make_target_group(account, spec, target_group, vpc.id, list(subnets.values()))
        for target_group in spec.target_groups
    }
    owners = {name: g for g in reversed(spec.groups) for name in g.templates}
    templates = {name: _make_template(account, spec.cluster, name, group) for name, group in owners.items()}
    with fleet.booted_at_once():
        for group in spec.groups:
            arns = [target_groups[name] for name in group.target_groups]
            zones = [subnets[zone] for zone in group.zones]
            _make_group(account, spec, group, _launches(account, group, templates), zones, arns)


def _make_template(account: Account, cluster: str, name: str, group: GroupSpec) -> str:
    """A launch template with one version, for a group that has it; its id."""
    data = {"ImageId": image_id(name, 1), "InstanceType": group.instance_type}
    if group.image_parameter and name == group.template:
        _name_image(account, group.image_parameter, data["ImageId"])
        data["ImageId"] = f"{BY_PARAMETER}{group.image_parameter}"
    tags = {"launch-template": {f"kubernetes.io/cluster/{cluster}": "owned"}}
    return str(account.ec2.create_launch_template(name, "", data, tags).id)


def _name_image(account: Account, parameter: str, image: str) -> None:
    account.parameters.put_parameter(
        name=parameter,
        description="",
        value=image,
        parameter_type="String",
        allowed_pattern="",
        keyid="",
        overwrite=False,
        tags=[],
        data_type="aws:ec2:image",
        tier="Standard",
        policies=None,
    )


def _launches(account: Account, group: GroupSpec, templates: dict[str, str]) -> dict[str, Any]:
    """What says what the group launches: a launch configuration, a template, or a policy of several types."""
    if group.launch_configuration:
        name = configuration_name(group.name, 1)
        account.autoscaling.create_launch_configuration(
            name=name,
            image_id=image_id(group.name, 1),
            key_name=None,
            kernel_id="",
            ramdisk_id="",
            security_groups=[],
            user_data=None,
            instance_type=group.instance_type,
            instance_monitoring=False,
            instance_profile_name=None,
            spot_price=None,
            ebs_optimized=False,
            associate_public_ip_address=False,
            block_device_mappings=[],
        )
        return {"launch_config_name": name, "launch_template": None}
    template = {"LaunchTemplateId": templates[group.template], "Version": group.launch_template_version}
    overrides: list[dict[str, Any]] = [{"InstanceType": instance_type} for instance_type in group.instance_types]
    if group.override:
        # The least of attributes that AWS takes.
        wanted = {
            "VCpuCount": {"Min": 1},
            "MemoryMiB": {"Min": 1},
            "AllowedInstanceTypes": group.override.allowed_types,
        }
        own = {"LaunchTemplateId": templates[group.override.launch_template], "Version": "$Latest"}
        overrides = [{"InstanceRequirements": wanted, "LaunchTemplateSpecification": own}]
    if not overrides:
        return {"launch_config_name": None, "launch_template": template}
    policy = {
        "LaunchTemplate": {"LaunchTemplateSpecification": template, "Overrides": overrides},
        "InstancesDistribution": {
            "OnDemandBaseCapacity": 0,
            "OnDemandPercentageAboveBaseCapacity": group.on_demand_percent,
        },
    }
    return {"launch_config_name": None, "launch_template": None, "mixed_instances_policy": policy}


def _make_cluster(account: Account, name: str, subnet_ids: list[str], ca_certificate: Path) -> None:
    cluster = account.eks.create_cluster(
        name=name,
        role_arn=account.role_arn("eks-cluster"),
        resources_vpc_config={"subnetIds": subnet_ids, "endpointPublicAccess": True, "endpointPrivateAccess": True},
        version=KUBERNETES_VERSION,
    )
    cluster.endpoint = ENDPOINT
    cluster.access_config = {"authenticationMode": "API"}

    def describe_cluster(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        certificate = ca_certificate.read_bytes() if ca_certificate.exists() else b""
        cluster.certificate_authority = {"data": base64.b64encode(certificate).decode()}
        return original(self, *args, **kwargs)

    around(EKSBackend, "describe_cluster", describe_cluster)


def _make_target_group(
    account: Account, spec: LabSpec, target_group: TargetGroupSpec, vpc_id: str, subnet_ids: list[str]
) -> str:
    """A target group behind a listener of a load balancer of its own; its ARN."""
    http = target_group.health_path is not None
    protocol = "HTTP" if http else "TCP"
    made = account.elbv2.create_target_group(
        target_group.name,
        vpc_id=vpc_id,
        protocol=protocol,
        port=target_group.node_port,
        healthcheck_protocol=protocol,
        healthcheck_path=target_group.health_path,
        healthcheck_port=str(target_group.health_port) if target_group.health_port else "traffic-port",
        target_type="ip" if target_group.pods_of else "instance",
    )
    made.attributes["deregistration_delay.timeout_seconds"] = str(target_group.deregistration_delay_seconds)
    balancer = account.elbv2.create_load_balancer(
        f"{spec.cluster}-{target_group.name}"[:32].strip("-"),
        security_groups=[],
        subnet_ids=subnet_ids,
        loadbalancer_type="application" if http else "network",
    )
    account.elbv2.create_listener(
        balancer.arn,
        protocol,
        str(target_group.listener_port),
        ssl_policy=None,
        certificate=None,
        actions=[{"Type": "forward", "TargetGroupArn": made.arn}],
    )
    return str(made.arn)


def _make_group(
    account: Account,
    spec: LabSpec,
    group: GroupSpec,
    launches: dict[str, Any],
    subnet_ids: list[str],
    target_group_arns: list[str],
) -> None:
    tags = {f"kubernetes.io/cluster/{spec.cluster}": "owned", "Name": group.name}
    if group.managed_node_group:
        tags |= {"eks:cluster-name": spec.cluster, "eks:nodegroup-name": group.name}
    account.autoscaling.create_auto_scaling_group(
        name=group.name,
        availability_zones=[],
        desired_capacity=group.size,
        max_size=group.max_size,
        min_size=group.min,
        vpc_zone_identifier=",".join(subnet_ids),
        default_cooldown=None,
        health_check_period=None,
        health_check_type="EC2",
        load_balancers=[],
        target_group_arns=target_group_arns,
        placement_group=None,
        termination_policies=[],
        tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items()],
        **launches,
    )
    if group.terminating_hook_seconds is not None:
        account.autoscaling.create_lifecycle_hook(
            "drain", group.name, "autoscaling:EC2_INSTANCE_TERMINATING", group.terminating_hook_seconds, "CONTINUE"
        )
