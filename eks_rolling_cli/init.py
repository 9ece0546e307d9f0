"""`init`: a settings file to begin with, out of what there is."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.text import Text

from eks_rolling import legible
from eks_rolling_cli.cli_context import aimed, errors, say, written
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.finding_settings import Discovery, chosen_subnets, discover
from eks_rolling_cli.settings import USUAL_FILE
from eks_rolling_cli.target import Target


@aimed
def init(
    target: Target,
    file: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", dir_okay=False, help="Where to write it. An existing file is kept."
        ),
    ] = USUAL_FILE,
) -> None:
    """Write a settings file from what is found: cluster, VPC, subnets, groups, autoscaler, Redis.

    Says what it could not find. Changes nothing else; `plan` takes the file as it is, `make synth` checks it.
    """
    from eks_rolling_config.file import check
    from eks_rolling_config.schema import FILE_NAME
    from eks_rolling_config.schema import text as schema

    if file.exists():
        raise CommandError(f"{file} already exists: name another with --output, or remove it.", Exit.USAGE)
    with errors.status(Text(f"looking at {target.cluster}")):
        found = discover(target)
    text = settings_text(found)
    _, problems = check(text)
    if problems:
        raise CommandError("What was found makes no settings file:\n" + "\n".join(f"  {each}" for each in problems))
    written(file, text)
    beside = file.with_name(FILE_NAME)
    if not beside.exists():
        written(beside, schema())
    say(f"Written to {file}:")
    for line in told(found):
        say(f"  {line}")
    say(f"Look it through, then `{target.typed('plan', '--settings', quote(str(file)))}` plans with it.")


def told(found: Discovery) -> Iterator[str]:
    """What was found and what was not, a line each."""
    subnets = chosen_subnets(found.subnets)
    groups = ", ".join(found.groups)
    yield f"cluster {found.cluster}" + (f" in {found.vpc}" if found.vpc else "")
    yield f"functions in {', '.join(f'{s.id} ({s.zone})' for s in subnets)}" if subnets else "functions outside any VPC"
    yield f"Auto Scaling groups: {groups}" if groups else "not found: Auto Scaling groups; tag them (deploy/README.md)"
    yield f"cluster-autoscaler: {found.autoscaler}" if found.autoscaler else "not found: cluster-autoscaler"
    yield f"Redis groups: {', '.join(found.redis)}" if found.redis else "Redis groups: none is declared"
    for owner in found.undeclared:
        yield f"{owner} runs Redis and is in no group: annotate it (docs/redis.md)"
    if found.managed:
        yield f"left to AWS, managed node groups: {', '.join(found.managed)}"
    if not subnets and not found.public_endpoint:
        yield "not found: private subnets, which functions need to reach an API server without a public endpoint"
    yield from (f"not found: {each}" for each in found.missing)


def settings_text(found: Discovery) -> str:
    """The settings file."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Discovery) -> Iterator[str]:
    from eks_rolling_config.schema import MODELINE

    yield MODELINE
    yield "# Every option is in docs/settings.md; whatever is left out has its default."
    yield "clusters:"
    yield f'  - cluster: "{found.cluster}"'
    yield from _network(found)
    if found.groups:
        yield "    # All groups tagged for the cluster are rolled. Found: " + _on_one_line(found.groups)
    if found.managed:
        yield "    # Managed node groups are AWS's to replace, and left alone: " + _on_one_line(found.managed)
    yield from _autoscaler(found)
    if found.redis:
        yield "    # Redis groups are declared by annotations (docs/redis.md). Found: " + ", ".join(found.redis)
    for owner in found.undeclared:
        yield f"    # {owner} runs Redis and is in no group: the plan blocks until it is annotated (docs/redis.md)."
    yield "    # A changed launch template only sends you the plan. `roll` starts a roll by itself."
    yield "    on_change: plan"
    yield "    # Nodes replaced at the same time, after a first one alone."
    yield "    surge: 2"


def _on_one_line(names: Iterable[str]) -> str:
    """Names of groups may hold line breaks, and what follows one would be a setting (API reference of
    CreateAutoScalingGroup)."""
    return legible.line(" ".join(", ".join(names).split()))


def _network(found: Discovery) -> Iterator[str]:
    subnets = chosen_subnets(found.subnets)
    if not subnets:
        yield "    # No private subnet was found: the functions run outside any VPC, and reach a public endpoint only."
        return
    yield "    # Where the functions run. They need a way to AWS's endpoints from there (docs/private-networks.md)."
    yield "    network:"
    yield f"      vpc_id: {found.vpc}"
    yield f"      subnet_ids: [{', '.join(s.id for s in subnets)}]"
    yield f"      availability_zones: [{', '.join(s.zone for s in subnets)}]"
    if found.security_group:
        yield f"      cluster_security_group_id: {found.security_group}"
    if found.ranges:
        yield f"      redis_to: [{', '.join(found.ranges)}]"


def _autoscaler(found: Discovery) -> Iterator[str]:
    namespace, _, name = found.autoscaler.partition("/")
    if not found.autoscaler:
        yield "    # No cluster-autoscaler was found."
        yield "    autoscaler: {mode: ignore}"
    elif (namespace, name) != ("kube-system", "cluster-autoscaler"):
        yield "    autoscaler:"
        yield f"      namespace: {namespace}"
        yield f"      deployment: {name}"
