"""What a settings file can be begun with: what the account and the cluster say of themselves. Changes nothing."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from eks_rolling_cli.target import Target

if TYPE_CHECKING:
    from eks_rolling.observed.kubernetes import Pod, Workload

Json = dict[str, Any]

T = TypeVar("T")

INTERNET = "igw-"
"""How the id of a gateway to the internet begins: a subnet whose default route leads there is public."""

AUTOSCALER = re.compile(r"cluster-autoscaler")


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet of the cluster; `public` is whether its default route leads to the internet directly."""

    id: str
    zone: str
    public: bool = False
    vpc: str = ""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found; `missing` are sentences on what was not. `autoscaler` is NAMESPACE/NAME, "" for none."""

    cluster: str
    vpc: str = ""
    ranges: tuple[str, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    security_group: str = ""
    public_endpoint: bool = False
    groups: tuple[str, ...] = ()
    managed: tuple[str, ...] = ()
    autoscaler: str = ""
    redis: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(slots=True)
class _Notes:
    """Looks that each may fail without keeping the others from being made."""

    missing: list[str] = field(default_factory=list)

    def look(self, what: str, find: Callable[[], T], otherwise: T) -> T:
        from eks_rolling.clients.aws import translated
        from eks_rolling.errors import RollError, sentence

        try:
            with translated(f"look for {what}"):
                return find()
        except RollError as error:
            self.missing.append(f"{what}: {sentence(error)}")
        return otherwise


def discover(target: Target) -> Discovery:
    """Looks at EKS, EC2, Auto Scaling and the cluster with the caller's own access. Raises what `Target` does."""
    from eks_rolling.clients.aws import AwsClient
    from eks_rolling.clients.eks import describe

    notes = _Notes()
    described: Any = describe(target.cluster, target.session)
    network = described.get("resourcesVpcConfig") or {}
    vpc, ids = str(network.get("vpcId", "")), list(network.get("subnetIds") or ())
    ec2 = target.session.client("ec2")
    subnets: list[Subnet] = notes.look("the cluster's subnets", lambda: subnets_of(ec2, ids), []) if ids else []
    vpc = vpc or next((s.vpc for s in subnets), "")
    ranges: list[str] = notes.look("the VPC's address ranges", lambda: ranges_of(ec2, vpc), []) if vpc else []
    aws = AwsClient(target.cluster, "", "", target.session)
    groups: list[Any] = notes.look("the Auto Scaling groups", aws.groups, [])
    workloads: list[Workload] = notes.look("the cluster's workloads", lambda: target.kubernetes.workloads(), [])
    pods: list[Pod] = notes.look("the cluster's pods", lambda: target.kubernetes.pods(), [])
    redis, undeclared = redis_of(workloads, pods)
    return Discovery(
        cluster=target.cluster,
        vpc=vpc,
        ranges=tuple(ranges),
        subnets=tuple(subnets),
        security_group=str(network.get("clusterSecurityGroupId") or ""),
        public_endpoint=bool(network.get("endpointPublicAccess")),
        groups=tuple(g.name for g in groups if not g.managed),
        managed=tuple(g.name for g in groups if g.managed),
        autoscaler=autoscaler_of(workloads),
        redis=redis,
        undeclared=undeclared,
        missing=tuple(notes.missing),
    )


def subnets_of(ec2: Any, ids: list[str]) -> list[Subnet]:
    """The cluster's subnets, and which of them are public by their own route table or else the VPC's main one."""
    found = ec2.describe_subnets(SubnetIds=ids)["Subnets"]
    tables = routes_of(ec2, found)
    return [Subnet(s["SubnetId"], s["AvailabilityZone"], leads_out(tables[s["SubnetId"]]), s["VpcId"]) for s in found]


def routes_of(ec2: Any, subnets: list[Json]) -> dict[str, Json]:
    """The route table of each subnet as EC2 describes it, by the subnet's id: its own, or else its VPC's main one."""
    vpcs = sorted({s["VpcId"] for s in subnets})
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": vpcs}])["RouteTables"]
    own = {a["SubnetId"]: t for t in tables for a in t.get("Associations", ()) if a.get("SubnetId")}
    main = {t["VpcId"]: t for t in tables if any(a.get("Main") for a in t.get("Associations", ()))}
    return {s["SubnetId"]: own.get(s["SubnetId"], main.get(s["VpcId"], {})) for s in subnets}


def leads_out(table: Json) -> bool:
    """Whether it leads to the internet directly."""
    return any(str(route.get("GatewayId", "")).startswith(INTERNET) for route in table.get("Routes", ()))


def ranges_of(ec2: Any, vpc: str) -> list[str]:
    """The VPC's ranges of IPv4 addresses."""
    (found,) = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
    return [a["CidrBlock"] for a in found.get("CidrBlockAssociationSet", ())] or [found["CidrBlock"]]


def autoscaler_of(workloads: "Iterable[Workload]") -> str:
    """The Deployment called as cluster-autoscaler is; NAMESPACE/NAME, "" where there is none."""
    owners = [w.owner for w in workloads if w.owner.kind == "Deployment" and AUTOSCALER.search(w.owner.name)]
    return f"{owners[0].namespace}/{owners[0].name}" if owners else ""


def redis_of(workloads: "list[Workload]", pods: "list[Pod]") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The Redis groups that annotations declare, and what else the plan would take for a server of Redis' kind."""
    from eks_rolling.redis.groups import CACHE, GROUP, PART, declared
    from eks_rolling.redis.recognition import redis_evidence

    groups = tuple(str(group) for group in declared(workloads)[0])
    annotated = {w.owner for w in workloads if GROUP in w.annotations or w.annotations.get(PART) == CACHE}
    moving = (p for p in pods if not p.stays_with_node and p.annotations.get(PART) != CACHE)
    running = {p.owner for p in moving if p.owner is not None and redis_evidence(p)}
    return groups, tuple(sorted(str(o) for o in running - annotated))


def chosen_subnets(subnets: Iterable[Subnet]) -> list[Subnet]:
    """One private subnet for each zone, the first by name."""
    by_zone: dict[str, Subnet] = {}
    for subnet in sorted(subnets, key=lambda s: s.id):
        if not subnet.public:
            by_zone.setdefault(subnet.zone, subnet)
    return [by_zone[zone] for zone in sorted(by_zone)]
