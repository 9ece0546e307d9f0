"""From a person's kubeconfig to a client of an API server, through the official client's own loader.

Contexts may sign in by token, client certificate or exec plugin, such as `aws eks get-token`.
"""

import logging
from dataclasses import dataclass
from typing import Any

from kubernetes.client.configuration import Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import ConfigNode, KubeConfigMerger, load_kube_config
from yaml import YAMLError

from eks_rolling.clients.kubernetes import FOR_PEOPLE, KubernetesClient
from eks_rolling.errors import AccessDenied, BadRequest


@dataclass(frozen=True, slots=True)
class Context:
    """A context of a kubeconfig: where it goes, and the EKS cluster that it says it is for ("" if it says none)."""

    name: str
    server: str
    cluster: str
    current: bool


def contexts(paths: str) -> list[Context]:
    """The contexts of a kubeconfig (several files, colons between them, are merged), the current one first.

    [] where there is no such file. Raises BadRequest for one that cannot be read.
    """
    try:
        document = KubeConfigMerger(paths).config
    except (ConfigException, OSError, ValueError, YAMLError) as error:
        raise BadRequest(f"The kubeconfig {paths} cannot be read: {error}.") from error
    raw: dict[str, Any] = _plain(document) or {}
    servers = {c["name"]: c["cluster"].get("server", "") for c in raw.get("clusters") or ()}
    users = {u["name"]: u.get("user") or {} for u in raw.get("users") or ()}
    found = [
        Context(
            each["name"],
            servers.get(each["context"]["cluster"], "").rstrip("/"),
            _eks_name(each["context"]["cluster"], users.get(each["context"].get("user", ""), {})),
            each["name"] == raw.get("current-context"),
        )
        for each in raw.get("contexts") or ()
    ]
    return sorted(found, key=lambda c: not c.current)


def _plain(value: Any) -> Any:
    """What the loader's merged nodes hold, as plain dictionaries and lists."""
    value = value.value if isinstance(value, ConfigNode) else value
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _eks_name(entry: str, user: dict[str, Any]) -> str:
    """`aws eks update-kubeconfig` names entries by ARN and passes --cluster-name; eksctl passes it or -i too."""
    arguments = list((user.get("exec") or {}).get("args") or ())
    for option in ("--cluster-name", "-i"):
        if option in arguments[:-1]:
            return str(arguments[arguments.index(option) + 1])
    return entry.rpartition(":cluster/")[2] if entry.startswith("arn:") else ""


def connect(paths: str, context: str) -> KubernetesClient:
    """A client for the context's API server. Raises BadRequest for a context that is not there or not complete."""
    configuration = _load(paths, context)
    return KubernetesClient(
        configuration.host,
        "",
        # Loaded each time: an exec plugin's token lasts 15 minutes.
        lambda: _token(_load(paths, context)),
        configuration=configuration,
        remedies=FOR_PEOPLE,
    )


class _Heard(logging.Filter):
    """Keeps what the loader would log of a plugin that fails: it goes into our sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.said.append(record.getMessage())
        return False


def _load(paths: str, context: str) -> Configuration:
    """The context's configuration. Raises BadRequest, and AccessDenied where its sign-in fails."""
    configuration, heard = Configuration(), _Heard()
    logging.getLogger().addFilter(heard)
    try:
        load_kube_config(paths, context, configuration, persist_config=False)
    except (ConfigException, OSError, ValueError, YAMLError) as error:
        raise BadRequest(f"The context {context} of {paths} cannot be used: {error}.") from error
    finally:
        logging.getLogger().removeFilter(heard)
    if "BearerToken" not in configuration.api_key and not configuration.cert_file:
        said = f" ({' '.join(' '.join(heard.said).split())})" if heard.said else ""
        raise AccessDenied(f"The context {context} of {paths} gives no credentials{said}: sign in to AWS again.")
    return configuration


def _token(configuration: Configuration) -> str:
    """ "" where a client certificate is what is shown."""
    return str(configuration.api_key.get("BearerToken", "")).removeprefix("Bearer ")
