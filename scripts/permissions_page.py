"""Writes docs/permissions.md: what each Kubernetes group may do, as the lab's API server answers."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "permissions.md"
FILES = ("deploy/rbac.yaml", "deploy/redis-rbac.yaml", "deploy/restart-rbac.yaml", "deploy/iam/operator-rbac.yaml")
"""What people apply; in the order of the page."""

ELSEWHERE = "kube-public"
"""A namespace in which no file binds anybody: what may be done there may be done everywhere."""

ROW = re.compile(r"(?P<resource>\S*)\s+\[(?P<urls>.*?)\]\s+\[(?P<names>.*?)\]\s+\[(?P<verbs>.*?)\]")

HEAD = """# What the groups may do in the cluster

What the API server answers, of each group that the files of `deploy/` make, to
`kubectl auth can-i --list --as=GROUP --as-group=GROUP --namespace=NAMESPACE`, without what everybody who can sign in
may do. The names of namespaces, Redis groups, Secrets and cluster-autoscaler are the files' examples.
`make permissions` writes this page from a lab, and a test compares it with what the server says. Which function is in
which groups is in `stacks/functions.py`.

No group may create, change or delete workloads in all namespaces: beyond reading, they may mark nodes there, evict pods
within their budgets, and make and delete budgets.
"""

Kubectl = Callable[[Sequence[str]], str]
Row = tuple[str, str, str]
"""Resource, names, verbs."""


def bound() -> dict[str, list[str]]:
    """The groups, each with the namespaces in which a RoleBinding names it, in the files' order."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for item in (i for file in FILES for i in yaml.safe_load_all((REPOSITORY / file).read_text())):
        for subject in item.get("subjects", ()):
            namespaces = found[subject["name"]]
            if item["kind"] == "RoleBinding" and item["metadata"]["namespace"] not in namespaces:
                namespaces.append(item["metadata"]["namespace"])
    return dict(found)


def listed(kubectl: Kubectl, group: str, namespace: str) -> list[Row]:
    """What the server lets a member of that group alone do there."""
    answer = kubectl(
        ["auth", "can-i", "--list", f"--as={group}", f"--as-group={group}", f"--namespace={namespace}"]
    )  # fmt: skip
    matches = (ROW.fullmatch(line.strip()) for line in answer.splitlines())
    return [(m["resource"], m["names"], m["verbs"]) for m in matches if m and m["resource"]]


def everywhere(kubectl: Kubectl, group: str) -> list[Row]:
    """What a member of the group may do in all namespaces, and nobody may who is in none."""
    anybodys = listed(kubectl, "nobody", ELSEWHERE)
    return [row for row in listed(kubectl, group, ELSEWHERE) if row not in anybodys]


def page(kubectl: Kubectl) -> str:
    """The whole page. `kubectl` runs it against a cluster in which the files are applied; answers what it prints."""
    return "\n".join([HEAD, *(line for group, places in bound().items() for line in _section(kubectl, group, places))])


def _section(kubectl: Kubectl, group: str, places: Sequence[str]) -> Iterator[str]:
    general = everywhere(kubectl, group)
    known = {*general, *listed(kubectl, "nobody", ELSEWHERE)}
    yield f"## {group}"
    yield "| where | may | what | named |"
    yield "|---|---|---|---|"
    yield from (_line("everywhere", row) for row in general)
    for place in places:
        yield from (_line(place, row) for row in listed(kubectl, group, place) if row not in known)
    yield ""


def _line(where: str, row: Row) -> str:
    resource, names, verbs = row
    return f"| {where} | {verbs.replace(' ', ', ')} | {resource} | {names.replace(' ', ', ')} |"


def main() -> None:
    # Only who makes the page needs a lab.
    from lab.controlplane.start import COMPONENTS
    from lab.lifecycle import running_lab
    from lab.spec import LabSpec

    with running_lab(LabSpec(parts=COMPONENTS), "permissions") as lab:

        def kubectl(arguments: Sequence[str]) -> str:
            done = lab.run(["kubectl", *arguments], capture_output=True, check=True)
            return str(done.stdout)

        for file in FILES:
            kubectl(["apply", "-f", str(REPOSITORY / file)])
        DOCUMENT.write_text(page(kubectl))


if __name__ == "__main__":
    main()
