"""The settings file: read, checked as a whole, and every problem told with its line and what to do about it."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from eks_rolling.errors import BadRequest
from eks_rolling.settings import SHORTEST_LEASE, Settings, Strict
from eks_rolling_config.options import Option, options
from eks_rolling_config.yaml12 import Loader

Location = tuple[int | str, ...]

SET_BY_THE_STACK = frozenset({"bucket", "topic"})
"""Settings that are not people's to choose."""


def _id(kind: str) -> str:
    """The pattern of an id of EC2's: 8 or 17 digits to the base of 16."""
    return rf"^{kind}-[0-9a-f]{{8}}([0-9a-f]{{9}})?$"


ZONE = r"^[a-z]{2,4}(-[a-z]+)+-\d+(-[a-z]+-\d+)?[a-z]$"
"""A zone of a region; a local one's name is longer."""


def _address_range(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value} is no range of addresses: {error}") from error


Range = Annotated[str, AfterValidator(_address_range), Field(examples=["10.0.0.0/16"])]


class Network(Strict):
    """Where the functions run: the cluster's private subnets. All ids are given, nothing is looked up."""

    vpc_id: str = Field(pattern=_id("vpc"), examples=["vpc-0123456789abcdef0"], description="the cluster's VPC")
    subnet_ids: tuple[Annotated[str, Field(pattern=_id("subnet"), examples=["subnet-0123456789abcdef0"])], ...] = Field(
        min_length=1, max_length=16, description="private subnets, one for each zone"
    )
    availability_zones: tuple[Annotated[str, Field(pattern=ZONE, examples=["eu-central-1a"])], ...] = Field(
        min_length=1, description="the subnets' zones, in their order"
    )
    security_group_id: str = Field(
        "",
        pattern=f"{_id('sg')}|^$",
        examples=["sg-0123456789abcdef0"],
        description="a security group for the functions; empty: the stack makes one",
    )
    cluster_security_group_id: str = Field(
        "",
        pattern=f"{_id('sg')}|^$",
        examples=["sg-0123456789abcdef0"],
        description="the cluster's own security group: the stack lets the functions' group in; empty: you do",
    )
    https_to: tuple[Range, ...] = Field(
        ("0.0.0.0/0",),
        description="address ranges of the API server and AWS's endpoints; the VPC's if it has endpoints for all",
    )
    redis_to: tuple[Range, ...] = Field(
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"),
        description="address ranges of Redis pods; best the VPC's",
    )
    dual_stack: bool = Field(
        False, description="the functions have IPv6 addresses too, as a cluster of the IPv6 family needs for Redis pods"
    )
    redis_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        (6379, 26379), description="ports of Redis servers and sentinels"
    )

    @model_validator(mode="after")
    def _a_subnet_for_each_zone(self) -> "Network":
        if len(self.subnet_ids) != len(self.availability_zones):
            raise ValueError(
                f"subnet_ids has {len(self.subnet_ids)} and availability_zones {len(self.availability_zones)} entries: "
                "name each subnet's zone, in the same order"
            )
        for name, values in (("subnet_ids", self.subnet_ids), ("availability_zones", self.availability_zones)):
            if twice := [value for value, times in Counter(values).items() if times > 1]:
                raise ValueError(f"{name} has {', '.join(twice)} twice: one subnet for each zone is enough")
        return self

    @model_validator(mode="after")
    def _ranges_of_both_families(self) -> "Network":
        if self.dual_stack and not any(":" in cidr for cidr in self.redis_to):
            raise ValueError("with dual_stack, redis_to needs an IPv6 range: the VPC's")
        return self


class Described(Settings):
    """One cluster as a stack takes it."""

    account: str = Field(
        "", pattern=r"^(\d{12})?$", description="account that the stack is deployed to; empty: the one signed in to"
    )
    region: str = Field(
        "",
        pattern=r"^([a-z]{2,4}(-[a-z]+)+-\d)?$",
        description="region that the stack is deployed to; empty: the one that the CDK command is set to",
    )
    network: Network | None = Field(
        None,
        description="where the functions run; without it outside of any VPC, for a cluster with a public endpoint only",
    )

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.model_dump(exclude={"account", "region", "network"}))


class Cluster(Described):
    """One cluster as the file has it: its settings, its account and region, and where the functions run."""

    # Shorter ones are for labs, which take over a dead roll while somebody watches.
    lease_seconds: int = Field(
        180,
        ge=SHORTEST_LEASE,
        description="a holder that does not renew the lock for this long loses it",
    )


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
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read ({error.strerror}): `eks-rolling init` writes it from what it finds, and "
            "eks-rolling.example.yaml is one to start from; cdk.json's context key eks-rolling names the file."
        ) from None
    clusters, problems = check(text)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise BadRequest(f"{path.name} has {count}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return clusters


def check(text: str) -> tuple[tuple[Cluster, ...], list[Problem]]:
    """The clusters that a file's text describes, or what is wrong with it, by line."""
    try:
        node = yaml.compose(text, Loader)
        if endless := _within_itself(node, frozenset()):
            return (), [Problem(endless, "", "an alias stands within its own anchor", "write out what it stands for")]
        document = yaml.load(text, Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        return (), [_no_yaml(error, text)]
    except RecursionError:
        return (), [Problem(1, "", "it is nested too deeply", "correct the brackets, or the indentation")]
    if not isinstance(node, yaml.MappingNode):
        return (), [Problem(1, "", "the file describes nothing", "begin with `clusters:`, a list of clusters")]
    found = list(_doubles(node, ()))
    clusters: tuple[Cluster, ...] = ()
    try:
        clusters = File.model_validate(document).clusters
    except ValidationError as error:
        known = {option.path: option for option in options(File)}
        found += [_problem(node, problem["loc"], problem, known) for problem in _own(error)]
    found += _set_by_the_stack(node, clusters) + _same_cluster(node, clusters) + _unknown_codes(node, clusters)
    return clusters, sorted(found, key=lambda p: p.line)


def _within_itself(node: yaml.Node | None, around: frozenset[int]) -> int:
    """The line of what contains itself through an alias; 0 if nothing does."""
    if not isinstance(node, yaml.CollectionNode):
        return 0
    if id(node) in around:
        return int(node.start_mark.line) + 1
    inner = around | {id(node)}
    children = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
    return next((line for child in children if (line := _within_itself(child, inner))), 0)


def _no_yaml(error: yaml.YAMLError, text: str) -> Problem:
    """What cannot be read, by line, with what to do."""
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, int(error.position)) + 1
        return Problem(line, "", f"there is a control character, U+{int(error.character):04X}", "remove it")
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(1, "", f"this is not YAML: {error}", "correct the file")
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    said = error.problem or error.context or ""
    indentation = re.match(r"\s*", [*text.split("\n"), ""][line - 1])
    if "\t" in said or "\\t" in said or (indentation and "\t" in indentation[0]):
        return Problem(line, "", "there is a tab", "indent with spaces: YAML takes no tabs")
    if "another document" in said:
        return Problem(line, "", "a second document begins", "describe all clusters in one, without `---` between them")
    if isinstance(error, ConstructorError):
        return Problem(line, "", said, "a settings file has words, numbers, lists and `name: value` alone")
    return Problem(line, "", f"this is not YAML: {said}", "correct the line")


def _doubles(node: yaml.Node, path: Location) -> Iterator[Problem]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    match node:
        case yaml.MappingNode():
            seen: dict[str, int] = {}
            for key, value in node.value:
                line, name = key.start_mark.line + 1, str(key.value)
                if name in seen:
                    what = f"it is on line {seen[name]} already"
                    yield Problem(line, _dotted((*path, name)), what, "keep one of them")
                seen.setdefault(name, line)
                yield from _doubles(value, (*path, name))
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
    option = known.get(generic) or known.get(generic.removesuffix("[]"))
    meaning = f"{option.meaning}; {option.allowed}" if option and option.allowed else option.meaning if option else ""
    match problem["type"]:
        case "extra_forbidden":
            return Problem(line, _dotted(where), "there is no such setting", _did_you_mean(where, known))
        case "missing":
            return Problem(line, _dotted(where), "it is missing", f"add it: {meaning}")
        case "value_error":
            return Problem(line, _dotted(where), str(problem["ctx"]["error"]), meaning or "correct it")
        case _:
            return Problem(line, _dotted(where), _wrong(problem, option), meaning or "correct it")


def _wrong(problem: Mapping[str, Any], option: Option | None) -> str:
    """What is wrong with a value, in words that name no class and no regular expression."""
    kind, given, limits = problem["type"], problem["input"], problem.get("ctx") or {}
    match kind:
        case "string_pattern_mismatch":
            wanted = f"it must look like {option.example}" if option and option.example else "it has the wrong form"
        case "invalid_key":
            wanted = "names of settings are text"
        case "literal_error" | "enum":
            wanted = f"it must be one of {limits['expected'].replace(' or ', ', ').replace(chr(39), '')}"
        case "too_short":
            return "it needs at least one entry"
        case "too_long":
            return f"it may have {limits['max_length']} entries at most, not {limits['actual_length']}"
        case "string_too_short":
            return "it is empty"
        case "string_too_long":
            return f"it may have {limits['max_length']} characters at most"
        case "greater_than_equal":
            wanted = f"it must be at least {limits['ge']}"
        case "less_than_equal":
            wanted = f"it must be at most {limits['le']}"
        case _ if kind in WANTED:
            wanted = WANTED[kind]
        case _:
            wanted = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{wanted}, not {_shown(given)}"


WANTED = {
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "string_type": "it must be text, so put it in quotes",
    "tuple_type": "it must be a list",
    "model_type": "it must have settings of its own, each as `name: value`",
    "model_attributes_type": "it must have settings of its own, each as `name: value`",
    "dict_type": "it must have entries, each as `name: value`",
}
"""Kind of problem -> what should stand there."""


def _shown(value: Any) -> str:
    """A value as the file has it."""
    if value is None:
        return "nothing"
    return json.dumps(value, ensure_ascii=False, default=str)


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
            "the stack sets it itself",
            "remove it",
        )
        for index, cluster in enumerate(clusters)
        for name in sorted(SET_BY_THE_STACK & cluster.model_fields_set)
    ]


def _unknown_codes(node: yaml.Node, clusters: tuple[Cluster, ...]) -> list[Problem]:
    """Codes to accept that no finding has: the plan would refuse each roll for them."""
    from eks_rolling.plan.checks import ACCEPTABLE

    return [
        Problem(
            _line(node, ("clusters", index, "accept", number)),
            _dotted(("clusters", index, "accept", number)),
            f"no finding that can be accepted is called {code.partition(':')[0]}",
            f"did you mean {close[0]}?"
            if (close := difflib.get_close_matches(code.partition(":")[0], ACCEPTABLE, 1))
            else f"known: {', '.join(sorted(ACCEPTABLE))}",
        )
        for index, cluster in enumerate(clusters)
        for number, code in enumerate(cluster.accept)
        if code.partition(":")[0] not in ACCEPTABLE
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
