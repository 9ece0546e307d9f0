"""The restore, rehearsed before anything is changed: may its role call all that putting back takes?

A roll must not change what no restore could put back [R2]. Kubernetes' verbs are checked beforehand; IAM reveals
beforehand what a role may do, so the restore's own role makes its calls, each so that it changes nothing.
"""

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied
from eks_rolling.payloads import RestoreTask, StepResult
from eks_rolling.roll import lock


def rehearse(task: RestoreTask, clients: Clients) -> StepResult:
    """On one group of the plan and an instance that the roll replaces. Raises AccessDenied naming what is missing."""
    lock.confirm(clients, task.roll)
    for group in clients.aws.groups(task.groups) if task.groups else []:
        # Auto Scaling changes the protection of none that comes or goes.
        instance = next((i for i in group.instances if i.id in task.nodes and i.lifecycle == "InService"), None)
        if instance is None or group.managed:
            continue
        registered = [t for t in clients.aws.targets_of([instance.id]) if t.state == "healthy"]
        try:
            clients.aws.rehearse_restore(group, instance, registered)
        except AccessDenied as error:
            raise AccessDenied(f"Nothing was changed, because a restore could not put it back: {error}") from error
        return StepResult.done(f"what the roll changes on group {group.name} can be put back")
    return StepResult.done("no group of the plan has an instance to replace")
