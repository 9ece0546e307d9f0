"""What a command works on: one cluster, its deployed machines and documents, reached as the person who asks.

Nothing is connected to before it is needed, and no SDK imported: `--help` has to be quick.
"""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from eks_rolling import state_names
from eks_rolling.documents.remedies import typed
from eks_rolling.names import MACHINES, machine_name
from eks_rolling_cli.exits import CommandError, Exit

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient

    from eks_rolling.clients.aws import AwsClient
    from eks_rolling.clients.kubeconfig import Context
    from eks_rolling.clients.kubernetes import KubernetesClient
    from eks_rolling.clients.protocols import Clients
    from eks_rolling.settings import Settings
    from eks_rolling_cli.executions import Executions

Json = dict[str, Any]


READERS = 8
"""Functions that are asked about at the same time."""

NAMES = ("namespace", "bucket", "topic")
"""Settings that say where a deployment keeps things: all that is needed to stop a roll and to read its report."""

_EKS_HOST = re.compile(
    r"\.(?:eks\.)?(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d)\.(?:eks\.[a-z0-9.-]+|api\.(?:aws|amazonwebservices\.[a-z.]+))$"
)


def region_of(server: str) -> str:
    """The region in the address of an EKS cluster's API server, in any partition, IPv6 clusters' too; "" for others.

    `https://ID.gr7.eu-central-1.eks.amazonaws.com`, `.eks.amazonaws.com.cn`, `https://ID.eks-cluster.REGION.api.aws`.
    """
    found = _EKS_HOST.search(server.partition("//")[2].partition("/")[0].partition(":")[0])
    return found["region"] if found else ""


def functions_in(document: object) -> Iterator[str]:
    """Every FunctionName in a definition, however deep."""
    if isinstance(document, dict):
        name = document.get("FunctionName")
        if isinstance(name, str):
            yield name
        for value in document.values():
            yield from functions_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from functions_in(value)


@dataclass(frozen=True)
class Options:
    """Where to look, as it was asked for; "" is what the environment says."""

    cluster: str = ""
    region: str = ""
    profile: str = ""
    kubeconfig: str = ""
    context: str = ""
    endpoint_url: str = ""


class Target:
    """One cluster, as the options and the environment name it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        if options.endpoint_url:
            # Read by every client of the SDK, in whichever module it is made.
            os.environ["AWS_ENDPOINT_URL"] = options.endpoint_url

    @cached_property
    def session(self) -> "boto3.session.Session":
        """Raises CommandError for an unknown profile, or when nothing says which region."""
        import boto3
        from botocore.exceptions import ProfileNotFound

        try:
            session = boto3.session.Session(profile_name=self.options.profile or None)
        except ProfileNotFound as error:
            raise CommandError(f"{error}: correct --profile or AWS_PROFILE.", Exit.USAGE) from error
        # The SDK for Python itself reads AWS_DEFAULT_REGION alone.
        region = self.options.region or os.environ.get("AWS_REGION") or session.region_name or self._region_of_context()
        if not region:
            raise CommandError("No region is set: pass --region or set AWS_REGION.", Exit.USAGE)
        return boto3.session.Session(profile_name=self.options.profile or None, region_name=region)

    @property
    def region(self) -> str:
        return str(self.session.region_name)

    def _region_of_context(self) -> str:
        return next((region_of(context.server) for context in self.contexts[:1]), "")

    # The cluster

    @cached_property
    def kubeconfig(self) -> str:
        """The files that kubectl would read."""
        return self.options.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")

    @cached_property
    def contexts(self) -> "list[Context]":
        from eks_rolling.clients.kubeconfig import contexts

        return contexts(self.kubeconfig)

    @cached_property
    def cluster(self) -> str:
        """The cluster's name: as asked for, of the kubeconfig's context, or the only one that there is.

        Raises CommandError naming those that there are.
        """
        if named := self.options.cluster or os.environ.get("EKS_ROLLING_CLUSTER"):
            return named
        asked = [c for c in self.contexts if c.name == self.options.context or (not self.options.context and c.current)]
        if asked and asked[0].cluster:
            return asked[0].cluster
        from eks_rolling.clients.aws import translated

        with translated("list the EKS clusters"):
            pages = self.session.client("eks").get_paginator("list_clusters").paginate()
            names = [name for page in pages for name in page["clusters"]]
        if len(names) == 1:
            return names[0]
        there = f"there are {', '.join(sorted(names))}" if names else "there is none"
        raise CommandError(f"Which cluster? In {self.region} {there}: pass --cluster.", Exit.USAGE)

    @cached_property
    def chosen_context(self) -> "Context | None":
        """The kubeconfig's context for this cluster; None where EKS itself is asked for the way in.

        What was asked for is taken as it is. Otherwise a context must go to the cluster's own endpoint, so that no
        other cluster is ever taken for this one.
        """
        if self.options.context or self.options.kubeconfig:
            name = self.options.context
            found = [c for c in self.contexts if c.name == name or (not name and c.current)]
            if not found:
                if not self.contexts:
                    raise CommandError(
                        f"{self.kubeconfig} is not there, or has no context: correct --kubeconfig, or create it with "
                        f"`aws eks update-kubeconfig --name {self.options.cluster or 'CLUSTER'}`.",
                        Exit.USAGE,
                    )
                there = ", ".join(c.name for c in self.contexts)
                lacks = f"has no context {name}" if name else "names no current context: pass --context"
                raise CommandError(f"{self.kubeconfig} {lacks}; there are: {there}.", Exit.USAGE)
            return found[0]
        if not self.contexts:
            return None
        from eks_rolling.clients.eks import describe

        endpoint = describe(self.cluster, self.session).get("endpoint", "").rstrip("/")
        return next((c for c in self.contexts if c.server == endpoint), None)

    @cached_property
    def kubernetes(self) -> "KubernetesClient":
        """Raises RollError where the way in is not there."""
        from eks_rolling.clients import eks, kubeconfig
        from eks_rolling.clients.kubernetes import FOR_PEOPLE

        if self.chosen_context is not None:
            return kubeconfig.connect(self.kubeconfig, self.chosen_context.name)
        return eks.connect(self.cluster, self.session, FOR_PEOPLE)

    # What is deployed

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        from eks_rolling.clients.aws import CONFIG

        client: SFNClient = self.session.client("stepfunctions", config=CONFIG)
        return client

    @cached_property
    def executions(self) -> "Executions":
        from eks_rolling_cli.executions import Executions

        return Executions(self.stepfunctions)

    @cached_property
    def machines(self) -> dict[str, str]:
        """The ARNs of the deployed machines by what they do: roll, node, restore."""
        names = {machine_name(self.cluster, what): what for what in MACHINES}
        return {names[name]: arn for name, arn in self.executions.machines().items() if name in names}

    def machine(self, what: str) -> str:
        """Raises CommandError where nothing is deployed for the cluster."""
        if what not in self.machines:
            raise CommandError(
                f"eks-rolling is not deployed for {self._seen_place}: there is no state machine "
                f"{machine_name(self.cluster, what)}. Deploy it, or correct --cluster, --region or --profile.",
                Exit.NOT_FOUND,
            )
        return self.machines[what]

    @cached_property
    def definition(self) -> Json:
        """The deployed Roll machine's definition. Its comment is the settings that the stack was made with."""
        from eks_rolling.clients.aws import translated

        machine = self.machine("roll")
        with translated("read the deployed workflow"):
            described = self.stepfunctions.describe_state_machine(stateMachineArn=machine)
        return dict(json.loads(described["definition"]))

    @cached_property
    def function(self) -> Json:
        """The configuration of the deployed plan function, which the workflow names."""
        from eks_rolling.clients.aws import CONFIG, translated

        name = self.definition["States"][state_names.PLAN]["Arguments"]["FunctionName"]
        client: LambdaClient = self.session.client("lambda", config=CONFIG)
        with translated(f"read the settings of function {name}"):
            return dict(client.get_function_configuration(FunctionName=name))

    @cached_property
    def workflows(self) -> list[Json]:
        """Every deployed state machine as Step Functions describes it. Raises RollError."""
        from eks_rolling.clients.aws import translated

        with translated("read the deployed workflow"):
            return [
                dict(self.stepfunctions.describe_state_machine(stateMachineArn=machine))
                for machine in self.machines.values()
            ]

    @cached_property
    def machine_roles(self) -> set[str]:
        """The ARNs of the state machines' roles. Raises RollError."""
        return {str(workflow["roleArn"]) for workflow in self.workflows}

    @cached_property
    def functions(self) -> list[Json]:
        """The configuration of every function that the deployed workflows call and that there is, by name. Raises
        RollError."""
        return [configuration for configuration in self._functions.values() if configuration]

    @cached_property
    def missing_functions(self) -> list[str]:
        """The names of those that are called and are not there. Raises RollError."""
        return [name.rpartition(":")[2] for name, configuration in self._functions.items() if not configuration]

    @cached_property
    def _functions(self) -> dict[str, Json]:
        from eks_rolling.clients.aws import CONFIG, translated
        from eks_rolling.documents.failure import read_json
        from eks_rolling.errors import NotFound

        names = {name for w in self.workflows for name in functions_in(read_json(w["definition"]))}
        client: LambdaClient = self.session.client("lambda", config=CONFIG)

        def configured(name: str) -> Json:
            try:
                with translated(f"read function {name}"):
                    return dict(client.get_function_configuration(FunctionName=name))
            except NotFound:
                return {}

        ordered = sorted(names)
        with ThreadPoolExecutor(READERS) as readers:
            return dict(zip(ordered, readers.map(configured, ordered), strict=True))

    @cached_property
    def settings(self) -> "Settings":
        """The deployed settings: the workflow's comment, and what only the deployment knows, from a function.

        Raises CommandError where nothing is deployed, RollError where they cannot be read.
        """
        from eks_rolling.settings import Settings

        return Settings.parse(self._as_deployed)

    @cached_property
    def _as_deployed(self) -> Json:
        """The deployed settings as they were written, by whichever version."""
        from eks_rolling.documents.failure import read_json
        from eks_rolling.settings import ENVIRONMENT_VARIABLE

        variables = self.function.get("Environment", {}).get("Variables", {})
        own = read_json(self.definition.get("Comment", ""))
        return own | read_json(variables.get(ENVIRONMENT_VARIABLE, ""))

    @cached_property
    def deployed_names(self) -> "Settings":
        """The deployed settings; only namespace, bucket and topic where this version refuses the others.

        Another version's roll must be stoppable all the same, and its report readable. Raises as `settings` does.
        """
        from eks_rolling.errors import BadRequest
        from eks_rolling.settings import Settings

        try:
            return self.settings
        except BadRequest:
            named = {key: self._as_deployed[key] for key in NAMES if key in self._as_deployed}
            if "namespace" not in named:
                # Every version writes it. Without it another Lease might be taken for the roll's.
                raise
            return Settings.parse({"cluster": self.cluster} | named)

    @cached_property
    def lock_name(self) -> str:
        """The Lease that a roll holds, NAMESPACE/NAME."""
        from eks_rolling.roll.lock import lock_name

        return lock_name(self.deployed_names.namespace)

    @cached_property
    def aws(self) -> "AwsClient":
        """The account, with the deployed bucket and topic."""
        from eks_rolling.clients.aws import AwsClient

        return AwsClient(self.cluster, self.deployed_names.bucket, self.deployed_names.topic, self.session)

    def document(self, roll: str, name: str) -> Json:
        """A JSON document that the roll left in the bucket; {} where there is none. Raises RollError."""
        from eks_rolling.documents.failure import read_json

        return read_json(self.text(roll, name))

    def text(self, roll: str, name: str) -> str:
        """A document that the roll left in the bucket, as it was written; "" where there is none. Raises RollError."""
        return next(iter(self.aws.load(f"rolls/{roll}/{name}")), "")

    def clients(self, settings: "Settings") -> "Clients":
        """Everything that a step is handed, with these settings."""
        from eks_rolling.clients.aws import AwsClient
        from eks_rolling.runtime import assembled

        aws = AwsClient(settings.cluster, settings.bucket, settings.topic, self.session)
        return assembled(self.kubernetes, aws, settings)

    @cached_property
    def identity(self) -> Json:
        """Who asks, as AWS knows them: `Arn` and `Account`. Raises RollError."""
        from eks_rolling.clients.aws import translated

        with translated("ask AWS who you are"):
            return dict(self.session.client("sts").get_caller_identity())

    @property
    def who(self) -> str:
        """The person who asks: the last part of the ARN."""
        return str(self.identity["Arn"]).rpartition("/")[2]

    def typed(self, *words: str) -> str:
        """A complete command for this very cluster: with the options that led here, as another profile may lead to a
        cluster of the same name."""
        given = {
            "--region": self.options.region, "--profile": self.options.profile,
            "--kubeconfig": self.options.kubeconfig, "--context": self.options.context,
            "--endpoint-url": self.options.endpoint_url,
        }  # fmt: skip
        more = (f" {name} {quote(value)}" for name, value in given.items() if value)
        return typed(*words, cluster=self.cluster) + "".join(more)

    @property
    def _seen_place(self) -> str:
        """The place as far as it can be known: a fault of its own would hide the one that is told."""
        from eks_rolling.errors import RollError

        try:
            return self.place
        except RollError:
            return f"{self.cluster} in {self.region}"

    @property
    def place(self) -> str:
        """The cluster with its account and region, for whoever decides: "demo (account 123456789012, eu-central-1)"."""
        return f"{self.cluster} (account {self.identity['Account']}, {self.region})"
