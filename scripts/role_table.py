"""Writes the table of docs/threat-model.md: what each step's role may change, from what the roles are made of."""

from pathlib import Path

from stacks.functions import ROLLBACK, STEPS, UNJOINED
from stacks.roles import Permissions

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "threat-model.md"
BEGIN, END = "<!-- roles -->", "<!-- end of roles -->"

IN_THE_CLUSTER = {
    "eks-rolling-look": "",
    "eks-rolling-check": "",
    "eks-rolling-lock": "take the lock",
    "eks-rolling-pause": "scale cluster-autoscaler",
    "eks-rolling-nodes": "taint, cordon and mark any node",
    "eks-rolling-evict": "evict pods within their budgets, make budgets",
    "eks-rolling-restart": "restart Deployments in namespaces that let it",
    "eks-rolling-restore": "remove budgets",
    "eks-rolling-redis-look": "read the named Secrets of Redis groups",
    "eks-rolling-redis": "delete, make and mark pods in namespaces of Redis groups",
}
"""What a member of each Kubernetes group may do beyond looking (deploy/rbac.yaml, deploy/redis-rbac.yaml)."""


def table() -> str:
    """A row for each kind of role: the steps that have it, and what a thief of it could do besides reading."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for step, permissions in sorted({**STEPS, **ROLLBACK, **UNJOINED}.items()):
        kinds.setdefault((_in_the_cluster(permissions), _in_the_account(permissions)), []).append(f"`{step}`")
    rows = ["| role of | could, in the cluster | could, in the account |", "|---|---|---|"]
    rows += [f"| {', '.join(steps)} | {cluster} | {account} |" for (cluster, account), steps in kinds.items()]
    return "\n".join(rows)


def _in_the_cluster(permissions: Permissions) -> str:
    if not permissions.kubernetes:
        return "nothing: it cannot sign in"
    return "; ".join(said for group in permissions.kubernetes if (said := IN_THE_CLUSTER[group])) or "look"


def _in_the_account(permissions: Permissions) -> str:
    could = []
    if permissions.groups:
        could.append(f"{_names(permissions.groups)} on the cluster's groups")
    if permissions.instances:
        could.append(f"{_names(permissions.instances)} with our two keys on its instances")
    if permissions.targets:
        could.append(f"{_names(permissions.targets)} on any load balancer")
    if permissions.puts_back_versions:
        could.append("ModifyLaunchTemplate on its launch templates; with `roll_back.node_roles`, launch from them")
    if permissions.writes_reports:
        could.append("write any roll's documents")
    if permissions.reads_reports:
        could.append("read them")
    if permissions.notifies:
        could.append("send messages to the topic")
    if permissions.reads_history_of:
        could.append(f"read histories of {permissions.reads_history_of} executions")
    return "; ".join(could) or "look"


def _names(actions: tuple[str, ...]) -> str:
    return ", ".join(sorted(action.split(":")[1] for action in actions))


def written(text: str) -> str:
    """The document with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
