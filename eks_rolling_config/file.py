"""The settings file: read, checked as a whole, and every problem told with its line and what to do about it."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from eks_rolling.errors import BadRequest
from eks_rolling.settings import Settings, Strict
from eks_rolling_config.options import Option, options

Location = tuple[int | str, ...]

SET_BY_THE_STACK = frozenset({"bucket", "topic"})
"""Settings that are not people's to choose."""


class Network(Strict):
    """Where the functions run: the cluster's private subnets. All ids are given, nothing is looked up."""

    vpc_id: str = Field(description="the cluster's VPC")
    subnet_ids: tuple[str, ...] = Field(min_length=1, description="private subnets, one for each zone")
    availability_zones: tuple[str, ...] = Field(min_length=1, description="the subnets' zones, in their order")
    security_group_id: str = Field("", description="a security group for the functions; empty: the stack makes one")
    cluster_security_group_id: str = Field(
        "", description="the cluster's own security group: the stack lets the functions' group in; empty: you do"
    )
    https_to: tuple[str, ...] = Field(
        ("0.0.0.0/0",),
        description="address ranges of the API server and AWS's endpoints; the VPC's if it has endpoints for all",
    )
    redis_to: tuple[str, ...] = Field(
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"),
        description="address ranges of Redis pods; best the VPC's",
    )
    dual_stack: bool = Field(
        False, description="the functions have IPv6 addresses too, as a cluster of the IPv6 family needs for Redis pods"
    )
    redis_ports: tuple[int, ...] = Field((6379, 26379), description="ports of Redis servers and sentinels")

    @model_validator(mode="after")
    def _ranges_of_both_families(self) -> "Network":
        if self.dual_stack and not any(":" in cidr for cidr in self.redis_to):
            raise ValueError("with dual_stack, redis_to needs an IPv6 range: the VPC's")
        return self


class Cluster(Settings):
    """One cluster as the file has it: its settings, its account and region, and where the functions run."""

    account: str = Field(
        "", pattern=r"^(\d{12})?$", description="account that the stack is deployed to; empty: the one signed in to"
    )
    region: str = Field(
        "",
        pattern=r"^([a-z]{2}(-[a-z]+)+-\d)?$",
        description="region that the stack is deployed to; empty: the one that the CDK command is set to",
    )
    network: Network | None = Field(
        None,
        description="where the functions run; without it outside of any VPC, for a cluster with a public endpoint only",
    )

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.model_dump(exclude={"account", "region", "network"}))


class File(Strict):
    """The whole file."""

    clusters: tuple[Cluster, ...] = Field(min_length=1, description="one stack for each")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file; `line` counts from 1."""

    line: int
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"line {self.line}: {where}{self.what}\n    {self.remedy}"


def read(path: Path) -> tuple[Cluster, ...]:
    """The clusters of a settings file. Raises BadRequest naming every problem at once, with its line and remedy."""
    try:
        text = path.read_text()
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read ({error.strerror}): name the settings file in cdk.json's context key eks-rolling; "
            "eks-rolling.example.yaml is one to start from."
        ) from None
    clusters, problems = check(text)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise BadRequest(f"{path.name} has {count}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return clusters


def check(text: str) -> tuple[tuple[Cluster, ...], list[Problem]]:
    """The clusters that a file's text describes, or what is wrong with it, by line."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        return (), [Problem(line, "", f"this is no YAML: {error.problem or error.context}", "correct the line")]
    if not isinstance(node, yaml.MappingNode):
        return (), [Problem(1, "", "the file describes nothing", "begin with `clusters:`, a list of clusters")]
    found = list(_doubles(node, ()))
    clusters: tuple[Cluster, ...] = ()
    try:
        clusters = File.model_validate(yaml.safe_load(text)).clusters
    except ValidationError as error:
        known = {option.path: option for option in options(File)}
        found += [_problem(node, problem["loc"], problem, known) for problem in _own(error)]
    found += _set_by_the_stack(node, clusters) + _same_cluster(node, clusters)
    return clusters, sorted(found, key=lambda p: p.line)


def _doubles(node: yaml.Node, path: Location) -> Iterator[Problem]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    match node:
        case yaml.MappingNode():
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    what = f"it is on line {seen[key.value]} already"
                    yield Problem(line, _dotted((*path, key.value)), what, "keep one of them")
                seen.setdefault(key.value, line)
                yield from _doubles(value, (*path, key.value))
        case yaml.SequenceNode():
            for index, item in enumerate(node.value):
                yield from _doubles(item, (*path, index))


def _own(error: ValidationError) -> list[Any]:
    """The problems, but for lists that are too short only because what stands in them is wrong."""
    problems = error.errors()
    wrong = [p["loc"] for p in problems]
    return [
        p
        for p in problems
        if p["type"] != "too_short" or not any(w[: len(p["loc"])] == p["loc"] and w != p["loc"] for w in wrong)
    ]


def _problem(node: yaml.Node, where: Location, problem: Mapping[str, Any], known: Mapping[str, Option]) -> Problem:
    line, generic = _line(node, where), _generic(where)
    option = known.get(generic)
    meaning = f"{option.meaning}; {option.allowed}" if option and option.allowed else option.meaning if option else ""
    match problem["type"]:
        case "extra_forbidden":
            return Problem(line, _dotted(where), "there is no such setting", _did_you_mean(where, known))
        case "missing":
            return Problem(line, _dotted(where), "it is missing", f"add it: {meaning}")
        case "value_error":
            return Problem(line, _dotted(where), str(problem["ctx"]["error"]), meaning or "correct it")
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            return Problem(line, _dotted(where), f"{message}, not {problem['input']!r}", meaning or "correct it")


def _did_you_mean(where: Location, known: Mapping[str, Option]) -> str:
    parent, name = _generic(where[:-1]), str(where[-1])
    prefix = f"{parent}." if parent else ""
    siblings = [path[len(prefix) :] for path in known if path.startswith(prefix)]
    siblings = sorted({s.partition(".")[0].removesuffix("[]") for s in siblings} - SET_BY_THE_STACK)
    close = difflib.get_close_matches(name, siblings, 1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(siblings)}"


def _set_by_the_stack(node: yaml.Node, clusters: tuple[Cluster, ...]) -> list[Problem]:
    return [
        Problem(
            _line(node, ("clusters", index, name)),
            _dotted(("clusters", index, name)),
            "the stack sets it by itself",
            "remove it",
        )
        for index, cluster in enumerate(clusters)
        for name in sorted(SET_BY_THE_STACK & cluster.model_fields_set)
    ]


def _same_cluster(node: yaml.Node, clusters: tuple[Cluster, ...]) -> list[Problem]:
    places = [(cluster.cluster, cluster.account, cluster.region) for cluster in clusters]
    return [
        Problem(
            _line(node, ("clusters", index, "cluster")),
            _dotted(("clusters", index, "cluster")),
            f"{cluster.cluster} is described twice",
            "describe each cluster once, or say in which account and region each is",
        )
        for index, cluster in enumerate(clusters)
        if places[index] in places[:index]
    ]


def _line(node: yaml.Node, where: Location) -> int:
    """The line of what is at a place, or of the nearest thing around it that is there."""
    line = int(node.start_mark.line) + 1
    for part in where:
        following: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, following = int(key.start_mark.line) + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            following = node.value[part]
            line = int(following.start_mark.line) + 1
        if following is None:
            break
        node = following
    return line


def _dotted(where: Location) -> str:
    """clusters[0].windows[1].start"""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _generic(where: Location) -> str:
    """clusters[].windows[].start: as the schema has it."""
    text = ""
    for part in where:
        text += "[]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
