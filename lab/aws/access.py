"""EKS access entries, which moto lacks: which role is whom in the cluster.

The entries are what the token webhook asks (`lab.aws.tokens`), so an IAM role reaches the cluster here for the same
reason as it does on AWS.
"""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.eks import urls
from moto.eks.exceptions import ResourceInUseException, ResourceNotFoundException
from moto.eks.responses import EKSResponse

_PATHS = (
    "{0}/clusters/(?P<name>[^/]+)/access-entries$",
    "{0}/clusters/(?P<name>[^/]+)/access-entries/(?P<principalArn>.+)$",
)


@dataclass
class AccessEntry:
    """A principal's name and groups in a cluster."""

    cluster_name: str
    principal_arn: str
    kubernetes_groups: list[str]
    username: str
    tags: dict[str, str]
    type: str = "STANDARD"
    created: datetime = field(default_factory=lambda: datetime.now(tz=UTC))
    modified: datetime = field(default_factory=lambda: datetime.now(tz=UTC))

    def describe(self, region: str, account: str) -> dict[str, Any]:
        """The entry as the EKS API shows it."""
        name = self.principal_arn.rsplit("/", 1)[-1]
        return {
            "clusterName": self.cluster_name,
            "principalArn": self.principal_arn,
            "kubernetesGroups": self.kubernetes_groups,
            "accessEntryArn": f"arn:aws:eks:{region}:{account}:access-entry/{self.cluster_name}/role/{account}/{name}",
            "createdAt": self.created,
            "modifiedAt": self.modified,
            "tags": self.tags,
            "username": self.username,
            "type": self.type,
        }


class AccessEntries:
    """The entries of every cluster."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], AccessEntry] = {}
        self._lock = threading.Lock()

    def put(self, entry: AccessEntry) -> None:
        with self._lock:
            self._entries[entry.cluster_name, entry.principal_arn] = entry

    def find(self, cluster: str, principal_arn: str) -> AccessEntry | None:
        with self._lock:
            return self._entries.get((cluster, principal_arn))

    def of_role(self, cluster: str, account: str, role: str) -> AccessEntry | None:
        """The entry of a role that is known by its name only, as STS tells it: without the path."""
        for entry in self.of(cluster):
            arn = entry.principal_arn
            if arn.startswith(f"arn:aws:iam::{account}:role/") and arn.rsplit("/", 1)[1] == role:
                return entry
        return None

    def of(self, cluster: str) -> list[AccessEntry]:
        with self._lock:
            return [entry for (name, _), entry in self._entries.items() if name == cluster]

    def delete(self, cluster: str, principal_arn: str) -> AccessEntry | None:
        """Removes an entry; answers what it was."""
        with self._lock:
            return self._entries.pop((cluster, principal_arn), None)


def default_username(principal_arn: str) -> str:
    """The name that EKS gives a role without one: the assumed role's ARN, the session's name left open."""
    account, name = principal_arn.split(":")[4], principal_arn.rsplit("/", 1)[-1]
    return f"arn:aws:sts::{account}:assumed-role/{name}/{{{{SessionName}}}}"


def install(entries: AccessEntries) -> None:
    """Adds the four operations and UpdateAccessEntry to moto's EKS API."""

    def create_access_entry(self: Any) -> Any:
        cluster, principal = _cluster(self), self._get_param("principalArn")
        if entries.find(cluster, principal):
            raise ResourceInUseException(
                message="The specified access entry resource is already in use on this cluster."
            )
        entry = AccessEntry(
            cluster,
            principal,
            self._get_param("kubernetesGroups") or [],
            self._get_param("username") or default_username(principal),
            self._get_param("tags") or {},
            self._get_param("type") or "STANDARD",
        )
        entries.put(entry)
        return _answer(self, entry)

    def describe_access_entry(self: Any) -> Any:
        return _answer(self, _known(self, entries))

    def update_access_entry(self: Any) -> Any:
        entry = _known(self, entries)
        groups, username = self._get_param("kubernetesGroups"), self._get_param("username")
        entry.kubernetes_groups = entry.kubernetes_groups if groups is None else groups
        entry.username = username or entry.username
        entry.modified = datetime.now(tz=UTC)
        return _answer(self, entry)

    def list_access_entries(self: Any) -> Any:
        return ActionResult({"accessEntries": [entry.principal_arn for entry in entries.of(_cluster(self))]})

    def delete_access_entry(self: Any) -> Any:
        entry = _known(self, entries)
        entries.delete(entry.cluster_name, entry.principal_arn)
        return EmptyResult()

    for operation in (
        create_access_entry,
        describe_access_entry,
        update_access_entry,
        list_access_entries,
        delete_access_entry,
    ):
        setattr(EKSResponse, operation.__name__, operation)
    urls.url_paths.update(dict.fromkeys(_PATHS, EKSResponse.dispatch))


def _cluster(response: Any) -> str:
    """The cluster in the request's path; raises ResourceNotFoundException if there is none of that name."""
    name = response.path.split("/")[2]
    if name not in response.eks_backend.clusters:
        raise ResourceNotFoundException(message=f"No cluster found for name: {name}.")
    return str(name)


def _known(response: Any, entries: AccessEntries) -> AccessEntry:
    cluster = _cluster(response)
    principal = response.uri_match.get("principalArn") or response.path.split("/access-entries/", 1)[1]
    entry = entries.find(cluster, principal)
    if entry is None:
        raise ResourceNotFoundException(message="The specified principalArn could not be found.")
    return entry


def _answer(response: Any, entry: AccessEntry) -> Any:
    return ActionResult({"accessEntry": entry.describe(response.region, response.current_account)})
