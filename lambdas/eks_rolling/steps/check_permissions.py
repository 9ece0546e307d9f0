"""Check the permissions: what the steps' Kubernetes groups may do, before anything is changed.

The files that grant it are applied by people. A verb that is missing would else be found by the step that needs it,
in the middle of a roll, or by the restore [R2].
"""

from collections.abc import Iterable

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied
from eks_rolling.observed.kubernetes import Owner, Strategy, Workload
from eks_rolling.payloads import StepResult, Task
from eks_rolling.plan.permissions import Verb, needed
from eks_rolling.redis.groups import declared
from eks_rolling.runtime import handler_for
from eks_rolling.wording import counted


def decide(missing: Iterable[Verb]) -> str:
    """What to tell the operator: everything that is missing, by group; "" where nothing is."""
    by_group: dict[str, list[str]] = {}
    for verb in missing:
        by_group.setdefault(verb.group, []).append(str(verb))
    if not by_group:
        return ""
    said = "; ".join(f"{group} may not {', '.join(verbs)}" for group, verbs in sorted(by_group.items()))
    remedy = "Apply deploy/rbac.yaml, and deploy/redis-rbac.yaml for each Redis group"
    if "eks-rolling-restart" in by_group:
        remedy += "; deploy/restart-rbac.yaml in each namespace named here, or take the annotation off the Deployment"
    return f"Permissions are missing: {said}. {remedy}."


def restarting(workloads: Iterable[Workload]) -> list[Owner]:
    """The Deployments that ask for a restart and have pods that it could concern."""
    return [
        w.owner
        for w in workloads
        if w.owner.kind == "Deployment" and w.strategy is Strategy.RESTART and (w.desired or w.current)
    ]


def run(task: Task, clients: Clients) -> StepResult:  # noqa: ARG001 (nothing of the task matters)
    workloads = clients.kubernetes.workloads()
    redis, _ = declared(workloads)
    asked = needed(clients.settings, redis, restarting(workloads))
    if reason := decide(verb for verb in asked if not clients.kubernetes.group_may(verb)):
        raise AccessDenied(reason)
    return StepResult.done(f"{counted(len(asked), 'permission')} checked, none is missing")


handler = handler_for(run, Task, locked=False)
