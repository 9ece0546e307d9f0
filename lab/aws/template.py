"""CloudFormation templates as CDK writes them: the order of their resources, and the values of their functions."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

Json = Any
_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")
NO_VALUE = object()


class TemplateError(Exception):
    """The template asks for something that is not there or that this reader does not know."""


@dataclass(frozen=True)
class Made:
    """A resource that exists: what `Ref` and `Fn::GetAtt` give for it."""

    ref: str
    attributes: Mapping[str, Json] = field(default_factory=dict)


class Template:
    """One stack's template. `values` are its parameters and the pseudo parameters (AWS::Region and the like)."""

    def __init__(self, content: Json, values: Mapping[str, Json]) -> None:
        self._content = content
        self._values = dict(values)
        for name, parameter in content.get("Parameters", {}).items():
            if "Default" in parameter:
                self._values.setdefault(name, parameter["Default"])
        self.made: dict[str, Made] = {}

    def resources(self) -> Iterator[tuple[str, str, Json]]:
        """Logical id, type and properties of each resource, after those that it refers to.

        The properties are resolved when they are asked for, so `made` must have every resource that came before.
        """
        resources = {
            logical_id: resource
            for logical_id, resource in self._content.get("Resources", {}).items()
            if "Condition" not in resource or self._condition(resource["Condition"])
        }
        graph = {
            logical_id: {name for name in _references(resource) if name in resources and name != logical_id}
            for logical_id, resource in resources.items()
        }
        for logical_id in TopologicalSorter(graph).static_order():
            resource = resources[logical_id]
            yield logical_id, resource["Type"], self.resolve(resource.get("Properties", {}))

    def types(self) -> set[str]:
        """The types of all resources."""
        return {resource["Type"] for resource in self._content.get("Resources", {}).values()}

    def of_type(self, kind: str) -> list[Json]:
        """The properties of all resources of a type, as they are written."""
        resources = self._content.get("Resources", {}).values()
        return [resource.get("Properties", {}) for resource in resources if resource["Type"] == kind]

    def outputs(self) -> dict[str, Json]:
        """The stack's outputs; every resource must be made."""
        return {name: self.resolve(output["Value"]) for name, output in self._content.get("Outputs", {}).items()}

    def resolve(self, value: Json) -> Json:
        """The value with every intrinsic function replaced; raises TemplateError."""
        if isinstance(value, list):
            return [member for member in map(self.resolve, value) if member is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._call(name, argument)
        resolved = {name: self.resolve(member) for name, member in value.items()}
        return {name: member for name, member in resolved.items() if member is not NO_VALUE}

    def _call(self, name: str, argument: Json) -> Json:
        match name, argument:
            case "Ref", _:
                return NO_VALUE if argument == "AWS::NoValue" else self._ref(argument)
            case "Fn::GetAtt", _:
                return self._attribute(*(argument.split(".", 1) if isinstance(argument, str) else argument))
            case "Fn::Sub", _:
                text, variables = (argument, {}) if isinstance(argument, str) else argument
                return self._substitute(text, self.resolve(variables))
            case "Fn::Join", [separator, parts]:
                return str(separator).join(str(part) for part in self.resolve(parts))
            case "Fn::Select", [index, members]:
                return self.resolve(members)[int(self.resolve(index))]
            case "Fn::Split", [separator, text]:
                return self.resolve(text).split(separator)
            case "Fn::Base64", _:
                return base64.b64encode(self.resolve(argument).encode()).decode()
            case "Fn::FindInMap", [mapping, first, second]:
                return self._content["Mappings"][self.resolve(mapping)][self.resolve(first)][self.resolve(second)]
            case "Fn::If", [condition, then, otherwise]:
                return self.resolve(then if self._condition(condition) else otherwise)
        raise TemplateError(f"{name} of {argument!r} is not known here")

    def _ref(self, name: str) -> Json:
        if name in self.made:
            return self.made[name].ref
        if name in self._values:
            return self._values[name]
        raise TemplateError(f"there is no resource or parameter {name}")

    def _attribute(self, logical_id: str, attribute: str) -> Json:
        made = self.made.get(logical_id)
        if made is None or attribute not in made.attributes:
            raise TemplateError(f"{logical_id} has no attribute {attribute} here")
        return made.attributes[attribute]

    def _substitute(self, text: str, variables: Mapping[str, Json]) -> str:
        def value(found: re.Match[str]) -> str:
            literal, name = found[1], found[2].strip()
            if literal:
                return f"${{{name}}}"
            if name in variables:
                return str(variables[name])
            return str(self._call("Fn::GetAtt", name) if "." in name else self._ref(name))

        return _VARIABLE.sub(value, text)

    def _condition(self, condition: Json) -> bool:
        if isinstance(condition, str):
            return self._condition(self._content["Conditions"][condition])
        ((name, argument),) = condition.items()
        both: Callable[[Json], bool] = self._condition
        match name:
            case "Fn::Equals":
                first, second = self.resolve(argument)
                return bool(first == second)
            case "Fn::And":
                return all(map(both, argument))
            case "Fn::Or":
                return any(map(both, argument))
            case "Fn::Not":
                return not self._condition(argument[0])
            case "Condition":
                return self._condition(argument)
        raise TemplateError(f"the condition {name} is not known here")


def _references(value: Json) -> Iterator[str]:
    """Every name in the value that could be a resource's logical id."""
    if isinstance(value, list):
        for member in value:
            yield from _references(member)
    elif isinstance(value, dict):
        for name, member in value.items():
            match name, member:
                case (("Ref" | "DependsOn"), str()):
                    yield member
                case "DependsOn", list():
                    yield from member
                case "Fn::GetAtt", [logical_id, _]:
                    yield logical_id
                case "Fn::GetAtt", str():
                    yield member.split(".", 1)[0]
                case "Fn::Sub", _:
                    text = member if isinstance(member, str) else member[0]
                    yield from (found[1].strip().split(".", 1)[0] for found in _VARIABLE.findall(text))
                    yield from _references(member)
                case _:
                    yield from _references(member)
