"""What the functions' Kubernetes groups have to be allowed, verb by verb: what deploy/rbac.yaml grants, for each
Redis group deploy/redis-rbac.yaml, and for each Deployment that asks for a restart deploy/restart-rbac.yaml. People
apply those files, so a new version may find an old one in force.

Without the first no roll begins, but for what only findings need. What the others grant is asked for by annotations,
which tenants write: what is missing there is a finding about what bears the annotation, and concerns nobody else's
nodes.

A test compares this with the files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Owner
from eks_rolling.redis.groups import RedisGroup
from eks_rolling.settings import Settings


@dataclass(frozen=True, slots=True, order=True)
class Verb:
    """One verb on one resource, its subresource behind a slash. `namespace` and `name` are "" for all."""

    group: str
    verb: str
    api_group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{name}{where}"


APPS, LEASES, POLICY, STORAGE = "apps", "coordination.k8s.io", "policy", "storage.k8s.io"
ADMISSION = "admissionregistration.k8s.io"
NETWORKING = "networking.k8s.io"

EVERYWHERE = (
    ("eks-rolling-look", "", "nodes", "get list"),
    ("eks-rolling-look", "", "persistentvolumes", "list"),
    ("eks-rolling-look", "", "pods", "list"),
    ("eks-rolling-look", "", "services", "list"),
    ("eks-rolling-look", POLICY, "poddisruptionbudgets", "list"),
    ("eks-rolling-look", APPS, "daemonsets", "list"),
    ("eks-rolling-look", APPS, "deployments", "get list"),
    ("eks-rolling-look", APPS, "statefulsets", "get list"),
    ("eks-rolling-look", APPS, "replicasets", "get"),
    ("eks-rolling-look", STORAGE, "csinodes", "get list"),
    ("eks-rolling-look", STORAGE, "volumeattachments", "list"),
    ("eks-rolling-nodes", "", "nodes", "patch"),
    ("eks-rolling-evict", "", "pods/eviction", "create"),
    ("eks-rolling-evict", POLICY, "poddisruptionbudgets", "create delete"),
    ("eks-rolling-restore", POLICY, "poddisruptionbudgets", "delete"),
)
"""Group, API group, resource, verbs: in all namespaces."""

FOR_NOTES = (
    (NETWORKING, "networkpolicies"),
    ("batch", "cronjobs"),
    (ADMISSION, "mutatingwebhookconfigurations"),
    (ADMISSION, "validatingadmissionpolicies"),
    (ADMISSION, "validatingwebhookconfigurations"),
)
"""API group and resource: listed in all namespaces by the plan, which goes on without, and says so."""


LOCKS = (
    ("eks-rolling-lock", "", "create"),
    ("eks-rolling-lock", "eks-rolling", "get update"),
    ("eks-rolling-lock", "eks-rolling-next", "get update"),
    ("eks-rolling-look", "eks-rolling", "get"),
    ("eks-rolling-look", "eks-rolling-launch", "get"),
    ("eks-rolling-look", "eks-rolling-next", "get"),
    ("eks-rolling-nodes", "eks-rolling-launch", "get update"),
)
"""Group, name of a Lease ("" for any), verbs: in the lock's namespace."""


def needed(settings: Settings) -> list[Verb]:
    """Everything that any roll over this cluster may need."""
    verbs = [Verb(group, verb, api, resource) for group, api, resource, said in EVERYWHERE for verb in said.split()]
    verbs += [
        Verb(group, verb, LEASES, "leases", settings.namespace, name)
        for group, name, said in LOCKS
        for verb in said.split()
    ]
    autoscaler = settings.autoscaler
    verbs += [
        Verb("eks-rolling-pause", verb, APPS, "deployments", autoscaler.namespace, autoscaler.deployment)
        for verb in ("get", "patch")
    ]
    return verbs


def needed_for_notes() -> list[Verb]:
    """What the plan looks at for its findings alone. No roll ends for the lack of it."""
    return [Verb("eks-rolling-look", "list", api, resource) for api, resource in FOR_NOTES]


def needed_to_restart(workload: Owner) -> Verb:
    """What the restart of a workload needs, as its annotation asks."""
    return Verb("eks-rolling-restart", "patch", APPS, f"{workload.kind.lower()}s", workload.namespace, workload.name)


def needed_to_migrate(group: RedisGroup) -> Iterator[Verb]:
    """What the migration of a declared group needs. What the plan itself asks of Redis it finds out by asking."""
    namespace, _, lease = group.lease.partition("/")
    yield Verb("eks-rolling-restore", "get", LEASES, "leases", namespace, lease)
    for verb in ("create", "delete", "patch"):
        yield Verb("eks-rolling-redis", verb, "", "pods", namespace)
    yield Verb("eks-rolling-redis", "create", "", "pods/eviction", namespace)
    yield Verb("eks-rolling-redis", "create", LEASES, "leases", namespace)
    yield Verb("eks-rolling-redis", "update", LEASES, "leases", namespace, lease)
