"""The synthesized application: template, state machine definitions, and which step each function is."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from lab.application import assembly

DOCUMENT = {
    "settings": {
        "cluster": "demo",
        "bake_seconds": 20,
        "alarms": ["shop-errors"],
        "autoscaler": {"mode": "pause"},
        "deadlines": {"health_gate": 1800},
    }
}

NETWORK = {
    "vpc_id": "vpc-0123456789abcdef0",
    "subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "availability_zones": ["eu-central-1a", "eu-central-1b"],
    "cluster_security_group_id": "sg-0123456789abcdef0",
    "redis_to": ["10.0.0.0/16"],
}

PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}


@dataclass(frozen=True)
class Assembly:
    """One stack as CDK wrote it."""

    template: dict[str, Any]

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Resources of a CloudFormation type: logical id -> properties."""
        resources = self.template["Resources"]
        return {name: r.get("Properties", {}) for name, r in resources.items() if r["Type"] == kind}

    def definition(self, machine: str) -> dict[str, Any]:
        """A machine's definition ("roll", "node" or "restore"), functions and machines named by what they are."""
        definition: dict[str, Any] = json.loads(self._text(self._machine(machine)["DefinitionString"]))
        return definition

    def machine_id(self, machine: str) -> str:
        machines = self.of_type("AWS::StepFunctions::StateMachine")
        return next(n for n, p in machines.items() if p["StateMachineName"].endswith(f"-{machine}"))

    def _machine(self, machine: str) -> dict[str, Any]:
        return self.of_type("AWS::StepFunctions::StateMachine")[self.machine_id(machine)]

    def _text(self, value: Any) -> str:
        match value:
            case str():
                return value
            case {"Fn::Join": [separator, parts]}:
                return str(separator).join(self._text(p) for p in parts)
            case {"Fn::GetAtt": [name, _]} | {"Ref": name}:
                return self._name(name)
            case _:
                raise ValueError(f"not resolvable here: {value}")

    def _name(self, logical_id: str) -> str:
        resource = self.template["Resources"].get(logical_id, {})
        match resource.get("Type"):
            case "AWS::Lambda::Function":
                return f"step:{resource['Properties']['Handler'].split('.')[2]}"
            case "AWS::StepFunctions::StateMachine":
                return f"machine:{resource['Properties']['StateMachineName'].rpartition('-')[2]}"
            case _:
                return PSEUDO.get(logical_id, logical_id)


@cache
def synthesize() -> Assembly:
    """The application with the settings above; the dependency layer is not built."""
    return Assembly(json.loads((assembly(DOCUMENT) / "EksRolling-demo.template.json").read_text()))


HOOK_FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:ask"
HOOK_URL = "https://hooks.example/eks-rolling"
HOOKS = [
    {"name": "pager", "when": "before_roll", "url": HOOK_URL},
    {"name": "ask", "when": "before_node", "function": HOOK_FUNCTION},
    {"name": "tell", "when": "after_node", "url": HOOK_URL, "on_failure": "continue"},
    {"name": "pager", "when": "after_roll", "url": HOOK_URL},
]


ROLL_BACK = {"enabled": True, "node_roles": ["arn:aws:iam::123456789012:role/nodes"]}


def hooked_document() -> dict[str, Any]:
    return {
        "settings": {**DOCUMENT["settings"], "hooks": HOOKS, "roll_back": ROLL_BACK, "dead_nodes": {"replace": True}}
    }


@cache
def with_hooks() -> Assembly:
    """The same with everything that settings add: hooks at every moment, and a way back."""
    return Assembly(json.loads((assembly(hooked_document()) / "EksRolling-demo.template.json").read_text()))


def with_way_back_document() -> dict[str, Any]:
    return {"settings": {**DOCUMENT["settings"], "roll_back": ROLL_BACK, "deadlines": {"health_gate": 90}}}


@cache
def with_way_back() -> Assembly:
    """The same with a way back for rolls that fail."""
    return Assembly(json.loads((assembly(with_way_back_document()) / "EksRolling-demo.template.json").read_text()))


@cache
def with_dead_nodes() -> Assembly:
    """The same with dead nodes replaced."""
    document = {"settings": {**DOCUMENT["settings"], "dead_nodes": {"replace": True}}}
    return Assembly(json.loads((assembly(document) / "EksRolling-demo.template.json").read_text()))


@cache
def in_network() -> Assembly:
    """The same, with its functions in the cluster's network."""
    return Assembly(
        json.loads((assembly({**DOCUMENT, "network": NETWORK}) / "EksRolling-demo.template.json").read_text())
    )
