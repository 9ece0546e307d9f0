"""What roles may do: for every call the caller's policies are evaluated, and a call that none allows is refused.

It is as much of IAM as least privilege for an application needs: statements that allow, wildcards in actions and
resources, conditions on tags and prefixes. Nothing denies here: a Deny, a NotAction, an unknown condition is an error
and not passed over. Callers without a role are the account's administrator.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lab.aws import ACCOUNT_ID
from lab.aws.account import Account

Json = dict[str, Any]

_DEPENDENT = {"autoscaling:LaunchInstances": ("ec2:CreateFleet", "ec2:DescribeLaunchTemplateVersions")}
"""What a service calls in the caller's name (Auto Scaling user guide, launching with synchronous provisioning)."""

WITH_TEMPLATE = ("ec2:RunInstances", "iam:PassRole")
"""What Auto Scaling asks for, with the nodes' role, of whoever points a group at a launch template (Auto Scaling user
guide, launch template permissions)."""


def dependent(action: str, parameters: Json) -> tuple[str, ...]:
    """The actions that a service calls, or asks for, in the caller's name."""
    resolves = str(parameters.get("ResolveAlias", "")).lower() == "true"
    if action == "ec2:DescribeLaunchTemplateVersions" and resolves:
        return ("ssm:GetParameters",)
    if action == "autoscaling:UpdateAutoScalingGroup" and "LaunchTemplate" in parameters:
        return WITH_TEMPLATE
    return _DEPENDENT.get(action, ())


FREE = {"sts:GetCallerIdentity"}
"""What needs no permission (STS API reference)."""

_TAG = "aws:ResourceTag/"
_TAG_KEYS = "aws:TagKeys"
_PREFIX = "s3:prefix"
_VIA_SERVICE = "aws:ViaAWSService"
KEYS = frozenset({_TAG_KEYS, _PREFIX, _VIA_SERVICE})
"""The keys beside those of tags on which conditions are evaluated."""

OF_LAUNCHES = frozenset(
    {"ec2:CreateAction", "ec2:IsLaunchTemplateResource", "ec2:LaunchTemplate", "iam:PassedToService"}
)
"""Keys of what AWS asks of a role that launches nothing itself here: they hold where the lab knows no resource."""


class PolicyError(Exception):
    """A policy says something that the lab does not evaluate."""


@dataclass(frozen=True)
class Resource:
    """What a call is about. `arn` is "*" for actions that name none; `keys` are what conditions ask, with values."""

    arn: str
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def tagged(cls, arn: str, tags: Mapping[str, str]) -> "Resource":
        return cls(arn, {f"{_TAG}{key}": (value,) for key, value in tags.items()})


ANY = Resource("*")


@dataclass(frozen=True)
class Statement:
    """An Allow statement."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """Operator, key, values."""

    def allows(self, action: str, resource: Resource | None) -> bool:
        """Whether it allows the action on the resource; None is one that the lab does not know, which passes."""
        if not any(matches(pattern.lower(), action.lower()) for pattern in self.actions):
            return False
        if resource is None:
            return True
        named = any(matches(pattern, resource.arn) for pattern in self.resources)
        return named and all(_holds(*condition, resource) for condition in self.conditions)


@cache
def matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: * is any text, ? any character."""
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text) is not None


def _holds(operator: str, key: str, values: tuple[str, ...], resource: Resource) -> bool:
    """One condition. A key that the call does not have fails it, but for Null, and for ForAllValues of nothing."""
    found = resource.keys.get(key, ())
    match operator:
        case "Null":
            return (not found) == (values == ("true",))
        case "Bool" if key == _VIA_SERVICE:
            # AWS itself calls nothing in the lab for a role: every call is the role's own.
            return values == ("false",)
        case "StringEquals":
            return any(value in values for value in found)
        case "StringLike":
            return any(matches(pattern, value) for pattern in values for value in found)
        case "ForAllValues:StringEquals":
            return all(value in values for value in found)
    raise PolicyError(f"the lab does not evaluate the condition {operator}")


@cache
def statements(document: str) -> tuple[Statement, ...]:
    """The statements of a policy document. Raises PolicyError for what is no plain Allow."""
    return tuple(_statement(item) for item in _listed(json.loads(document)["Statement"]))


def _statement(item: Json) -> Statement:
    if item["Effect"] != "Allow" or not {"Action", "Resource"} <= item.keys():
        raise PolicyError(f"the lab evaluates statements that allow actions on resources, not {json.dumps(item)}")
    conditions = [
        (operator, key, tuple(str(v).lower() if operator in {"Bool", "Null"} else str(v) for v in _listed(values)))
        for operator, keys in item.get("Condition", {}).items()
        for key, values in keys.items()
    ]
    if other := [key for _, key, _ in conditions if not key.startswith(_TAG) and key not in KEYS | OF_LAUNCHES]:
        raise PolicyError(f"the lab does not evaluate conditions on {', '.join(other)}")
    return Statement(tuple(_listed(item["Action"])), tuple(_listed(item["Resource"])), tuple(conditions))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Policies:
    """The policies of the account's roles."""

    def __init__(self, account: Account, organization_denies: Callable[[], Collection[str]] = tuple) -> None:
        """`organization_denies` are actions that no role of the account may call, whatever its own policies say."""
        self._account = account
        self._resources = Resources(account)
        self._organization_denies = organization_denies

    def refusal(self, role: str, who: str, action: str, parameters: Json) -> str | None:
        """The sentence with which IAM refuses the call to `who`, a session of the role; None where it may be made.

        `action` is written as in a policy. Raises PolicyError.
        """
        if action in FREE:
            return None
        if self.denied_by_organization(action):
            return (
                f"User: {who} is not authorized to perform: {action} with an explicit deny in a service control policy"
            )
        for resource in self._resources.of(action, parameters):
            if said := self._refusal(role, who, action, resource):
                return said
        refused = (self._refusal(role, who, other, None) for other in dependent(action, parameters))
        return next(filter(None, refused), None)

    def denied_by_organization(self, action: str) -> bool:
        return any(matches(pattern.lower(), action.lower()) for pattern in self._organization_denies())

    def allows_anywhere(self, role: str, action: str) -> bool:
        """Whether a policy of the role allows the action on everything, as a simulation without a resource asks."""
        return any(statement.allows(action, ANY) for statement in self._of(role))

    def _refusal(self, role: str, who: str, action: str, resource: Resource | None) -> str | None:
        if any(statement.allows(action, resource) for statement in self._of(role)):
            return None
        on = f" on resource: {resource.arn}" if resource else ""
        return (
            f"User: {who} is not authorized to perform: {action}{on} "
            f"because no identity-based policy allows the {action} action"
        )

    def _of(self, role_arn: str) -> Iterator[Statement]:
        for role in [r for r in list(self._account.iam.roles.values()) if r.arn == role_arn]:
            for document in list(role.policies.values()):
                yield from statements(document)
            for policy in list(role.managed_policies.values()):
                (version,) = [v for v in policy.versions if v.version_id == policy.default_version_id]
                yield from statements(version.document)


class Resources:
    """What calls are about, as far as their parameters and the account tell."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._of: dict[str, Callable[[str, Json], list[Resource] | None]] = {
            "autoscaling": self._groups,
            "ec2": self._instances,
            "elasticloadbalancing": self._balancers,
            "s3": lambda _, p: [Resource(f"arn:aws:s3:::{p['Bucket']}" + (f"/{p['Key']}" if "Key" in p else ""))],
            "eks": lambda _, p: self._named("eks", f"cluster/{p['name']}") if "name" in p else None,
            "lambda": lambda _, p: self._named("lambda", f"function:{p['FunctionName']}"),
            "servicequotas": lambda _, p: self._named("servicequotas", f"{p['ServiceCode']}/{p['QuotaCode']}"),
            "sns": lambda _, p: _arn(p, "TopicArn"),
            "states": lambda _, p: _arn(p, "stateMachineArn", "executionArn"),
        }

    def of(self, action: str, parameters: Json) -> list[Resource | None]:
        """Every resource of the call; one None where the lab does not know."""
        service, _, operation = action.partition(":")
        if operation.startswith("Describe") and service in {"autoscaling", "ec2", "elasticloadbalancing", "cloudwatch"}:
            return [ANY]
        found = self._of[service](operation, parameters) if service in self._of else None
        asked = {_TAG_KEYS: tuple(tag["Key"] for tag in parameters.get("Tags", ()))} if "Tags" in parameters else {}
        if "Prefix" in parameters:
            asked[_PREFIX] = (parameters["Prefix"],)
        return [Resource(r.arn, {**r.keys, **asked}) for r in found] if found else [None]

    def _groups(self, _: str, parameters: Json) -> list[Resource] | None:
        groups = self._account.autoscaling.autoscaling_groups
        names = {tag.get("ResourceId") for tag in parameters.get("Tags", ())}
        names |= {parameters.get("AutoScalingGroupName")}
        if "InstanceId" in parameters:
            there = parameters["InstanceId"]
            names |= {g.name for g in groups.values() if any(s.instance.id == there for s in g.instance_states)}
        return [
            Resource.tagged(groups[name].arn, {t["Key"]: t["Value"] for t in groups[name].tags})
            if name in groups
            else self._named("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{name}")[0]
            for name in names - {None}
        ]

    def _instances(self, operation: str, parameters: Json) -> list[Resource] | None:
        if operation == "ModifyLaunchTemplate":
            template = str(parameters.get("LaunchTemplateId"))
            arn = self._named("ec2", f"launch-template/{template}")[0].arn
            return [Resource.tagged(arn, self._account.ec2.tags.get(template, {}))]
        if operation not in {"CreateTags", "DeleteTags"}:
            return None
        tags = self._account.ec2.tags
        return [
            Resource.tagged(self._named("ec2", f"instance/{i}")[0].arn, tags.get(i, {}))
            for i in parameters["Resources"]
            if i.startswith("i-")
        ]

    def _balancers(self, _: str, parameters: Json) -> list[Resource] | None:
        if "LoadBalancerName" in parameters:
            return self._named("elasticloadbalancing", f"loadbalancer/{parameters['LoadBalancerName']}")
        return _arn(parameters, "TargetGroupArn")

    def _named(self, service: str, rest: str) -> list[Resource]:
        return [Resource(f"arn:aws:{service}:{self._account.region}:{ACCOUNT_ID}:{rest}")]


def _arn(parameters: Json, *names: str) -> list[Resource] | None:
    return next(([Resource(parameters[name])] for name in names if name in parameters), None)
