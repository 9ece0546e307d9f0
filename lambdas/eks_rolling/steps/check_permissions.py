"""Check the permissions: what the steps' Kubernetes groups may do in every roll, before anything is changed.

The files that grant it are applied by people. A verb that is missing would else be found by the step that needs it,
in the middle of a roll, or by the restore [R2].
"""

from collections.abc import Iterable

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied
from eks_rolling.payloads import StepResult, Task
from eks_rolling.plan.permissions import Verb, needed
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
    return f"Permissions are missing: {said}. Apply deploy/rbac.yaml."


def run(task: Task, clients: Clients) -> StepResult:  # noqa: ARG001 (nothing of the task matters)
    asked = needed(clients.settings)
    if reason := decide(verb for verb in asked if not clients.kubernetes.group_may(verb)):
        raise AccessDenied(reason)
    return StepResult.done(f"{counted(len(asked), 'permission')} checked, none is missing")


handler = handler_for(run, Task, locked=False)
