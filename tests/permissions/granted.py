"""What is granted: by the RBAC files that ship, and by the policies that the application synthesizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from lab.aws.policies import matches
from lab.aws.resources import Maker
from lab.paths import REPOSITORY
from tests.assembly import Assembly
from tests.permissions.collected import Call, Request

CLUSTER_FILE = "deploy/rbac.yaml"
REDIS_FILE = "deploy/redis-rbac.yaml"
RESTART_FILE = "deploy/restart-rbac.yaml"

NAMED_BY_USER = {"deployments", "secrets"}
"""Resources whose names in the files are examples: a lab has its own."""


@dataclass(frozen=True, order=True)
class Rule:
    """One verb on one resource, for the members of one Kubernetes group. `namespace` and `name` are "" for all."""

    file: str
    group: str
    verb: str
    api_group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"{self.group}: {self.verb} {self.resource}{name}"

    def allows(self, request: Request) -> bool:
        """Whether it lets the request in, as RBAC does; a Redis group's names are the user's own."""
        if self.group not in request.groups:
            return False
        if (self.verb, self.api_group, self.resource) != (request.verb, request.api_group, request.resource):
            return False
        if self.file == REDIS_FILE:
            return self._redis_name(request.name)
        if self.file == RESTART_FILE:
            # Its namespace is the user's own.
            return True
        return self.namespace in {"", request.namespace} and self.name in {"", request.name}

    def _redis_name(self, name: str) -> bool:
        """A Lease is called after its group; a Secret is any that the annotations name."""
        if self.resource == "leases" and self.name:
            return name.startswith(self.name.removesuffix("cache"))
        return True


def rules() -> list[Rule]:
    """Every rule of the files that ship, verb by verb."""
    return sorted(rule for file in (CLUSTER_FILE, REDIS_FILE, RESTART_FILE) for rule in _rules(file))


def _rules(file: str) -> Iterator[Rule]:
    documents = list(yaml.safe_load_all((REPOSITORY / file).read_text()))
    roles = {(d["kind"], d["metadata"]["name"]): d for d in documents if d["kind"] in {"Role", "ClusterRole"}}
    for binding in documents:
        if not binding["kind"].endswith("Binding"):
            continue
        role = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        for subject in binding["subjects"]:
            for rule in role["rules"]:
                yield from _verbs(file, subject["name"], binding["metadata"].get("namespace", ""), rule)


def _verbs(file: str, group: str, namespace: str, rule: dict[str, Any]) -> Iterator[Rule]:
    for api_group in rule["apiGroups"]:
        for resource in rule["resources"]:
            names = rule.get("resourceNames", [""])
            for name in names[:1] if resource == "secrets" else names:
                for verb in rule["verbs"]:
                    yield Rule(file, group, verb, api_group, resource, namespace, name)


@dataclass(frozen=True, order=True)
class Action:
    """One action of a policy of one role; `who` is a step, a state machine or a rule of the application."""

    who: str
    action: str

    def __str__(self) -> str:
        return f"{self.who}: {self.action}"

    def allows(self, who: str, call: Call) -> bool:
        return who == self.who and matches(self.action.lower(), call.action.lower())


class Roles:
    """The roles of a synthesized application, and what each may do."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self.who = dict(self._who())
        """Logical id of a role -> whose it is."""

    def _who(self) -> Iterator[tuple[str, str]]:
        steps = {
            function["Role"]["Fn::GetAtt"][0]: str(function["Handler"].split(".")[2])
            for function in self._assembly.of_type("AWS::Lambda::Function").values()
        }
        for role in self._assembly.of_type("AWS::IAM::Role"):
            # CDK ends logical ids with eight digits of a hash.
            yield role, steps.get(role, role[:-8])

    def names(self, cluster: str) -> dict[str, str]:
        """Name of a role in a lab with this cluster -> whose it is."""
        maker = Maker(f"EksRolling-{cluster}", "", lambda _: None)
        return {maker.name(logical_id): who for logical_id, who in self.who.items()}

    def actions(self) -> list[Action]:
        """Every action that a policy allows."""
        return sorted({Action(who, action) for role, who in self.who.items() for action in self._actions(role)})

    def _actions(self, role: str) -> Iterator[str]:
        for policy in self._assembly.of_type("AWS::IAM::Policy").values():
            if {"Ref": role} in policy["Roles"]:
                for statement in policy["PolicyDocument"]["Statement"]:
                    if statement["Effect"] == "Allow":
                        actions = statement["Action"]
                        yield from actions if isinstance(actions, list) else [actions]
