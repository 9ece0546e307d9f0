"""`explain NODE|POD`: why it is where it is."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from eks_rolling.wording import short, spoken
from eks_rolling_cli.cli_context import AsJson, aimed, errors, print_json, show
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.listing import indented
from eks_rolling_cli.target import Target

if TYPE_CHECKING:
    from eks_rolling.observed.kubernetes import Budget, Node, Pod
    from eks_rolling_cli.roll_state import RollNodeState

Json = dict[str, Any]


@aimed
def explain(
    target: Target,
    what: Annotated[str, typer.Argument(metavar="NODE|POD", help="A node or instance, or NAMESPACE/POD.")],
    as_json: AsJson = False,
) -> None:
    """Say why a node or a pod is where it is: outdated or not, where a running roll has it, what holds or blocks it."""
    with errors.status(Text(f"looking at {target.cluster}")):
        found = explanation(target, what)
    if as_json:
        print_json(found)
    else:
        show(rendered(found))


def explanation(target: Target, what: str) -> Json:
    """Everything that is known of it. Raises CommandError where it is neither node nor pod."""
    from eks_rolling_cli.plan_locally import plan_here
    from eks_rolling_cli.settings import settings_of

    kubernetes = target.kubernetes
    nodes, pods = kubernetes.nodes(), kubernetes.pods()
    node, pod = find(what, nodes, pods)
    budgets = kubernetes.budgets()
    _, plan = plan_here(target, settings_of(target)[0], {})
    planned = next((n for n in plan["nodes"] if node and n["node"] == node.name), None)
    rolling = _in_a_roll(target, node) if node else None
    on_it = [pod] if pod else [p for p in pods if node and p.node == node.name and not p.stays_with_node]
    names = {str(p) for p in on_it} | ({node.name, node.instance} if node and not pod else set())
    return {
        "object": str(pod) if pod else node.name if node else what,
        "kind": "pod" if pod else "node",
        "node": _node_facts(node, planned) if node else None,
        "roll": _roll_facts(rolling) if rolling else None,
        "pods": [_pod_facts(p, budgets, planned) for p in on_it],
        "findings": [f for f in plan["findings"] if _about(f["object"], names, on_it)],
    }


def find(what: str, nodes: "Iterable[Node]", pods: "Iterable[Pod]") -> "tuple[Node | None, Pod | None]":
    """The node of that name (its first part is enough) or instance; else the pod, with its node.

    Raises CommandError where there is none, or several.
    """
    nodes, pods = list(nodes), list(pods)
    node = next((n for n in nodes if what in {n.name, n.instance, short(n.name)}), None)
    if node is not None:
        return node, None
    found = [p for p in pods if what in {str(p), p.name}]
    if len(found) > 1:
        there = ", ".join(str(p) for p in found)
        raise CommandError(f"Several pods are called {what}: {there}. Name the namespace as well.", Exit.USAGE)
    if not found:
        raise CommandError(f"There is no node, instance or pod called {what}.", Exit.NOT_FOUND)
    return next((n for n in nodes if n.name == found[0].node), None), found[0]


def _about(subject: str, names: set[str], pods: "Iterable[Pod]") -> bool:
    """Whether a finding's object ("pod shop/web-1", "Deployment shop/web", "node ip-...") is one of these."""
    last = subject.rpartition(" ")[2]
    return last in names or any(p.owner is not None and subject == str(p.owner) for p in pods)


def _node_facts(node: "Node", planned: Json | None) -> Json:
    return {
        "name": node.name,
        "instance": node.instance,
        "zone": node.zone,
        "ready": node.ready,
        "closed": node.unschedulable or bool(node.roll_taint and node.roll_taint.effect == "NoSchedule"),
        "taint": str(node.roll_taint.effect) if node.roll_taint else "",
        "outdated": planned is not None and not planned.get("reason"),
        "from": planned["from"] if planned else "",
        "to": planned["to"] if planned else "",
        "reason": planned.get("reason", "") if planned else "",
    }


def _pod_facts(pod: "Pod", budgets: "Iterable[Budget]", planned: Json | None) -> Json:
    covering = [b for b in budgets if b.covers(pod)]
    move = next((m for m in (planned or {}).get("moves") or () if m["pod"] == str(pod)), None)
    return {
        "pod": str(pod),
        "owner": str(pod.owner or ""),
        "node": pod.node,
        "ready": pod.ready,
        "not_ready_because": pod.not_ready_because or pod.unschedulable_because,
        "budgets": [{"budget": str(b), "allowed": b.allowed, "healthy": b.healthy, "needed": b.desired_healthy}
                    for b in covering],
        "move": move,
    }  # fmt: skip


def _in_a_roll(target: Target, node: "Node") -> "RollNodeState | None":
    """Where the running roll has it, if one has."""
    from eks_rolling_cli.watching import looker_of, running

    if "roll" not in target.machines:
        return None
    for execution in running(target)[-1:]:
        seen = looker_of(target).look(execution.arn)
        return next((n for n in seen.nodes if node.instance == n.instance or node.name == n.replacement), None)
    return None


def _roll_facts(at: "RollNodeState") -> Json:
    return {
        "stage": at.stage,
        "wave": at.wave,
        "step": at.at.state,
        "reason": at.at.reason,
        "held_since": at.at.held_since or None,
        "replaces": at.node,
        "replacement": at.replacement,
    }


def rendered(found: Json) -> RenderableType:
    """What `explanation` found, for people."""
    from eks_rolling.documents.finding import Finding
    from eks_rolling_cli.plan_view import findings_by_severity

    parts: list[RenderableType] = [Text(f"{found['kind']} {found['object']}", style="bold")]
    if found["node"]:
        parts += [Text(line) for line in _node_lines(found)]
    if found["pods"]:
        parts += [Text(), *_pod_lines(found["pods"])]
    parts += list(findings_by_severity(Finding.model_validate(f) for f in found["findings"]))
    return Group(*parts)


def _node_lines(found: Json) -> Iterable[str]:
    node, roll = found["node"], found["roll"]
    if found["kind"] == "pod":
        yield f"on node {node['name']}"
    state = "Ready" if node["ready"] else "not Ready"
    yield f"{node['instance']} in {node['zone']}, {state}{', closed to new pods' if node['closed'] else ''}"
    if node["outdated"]:
        yield f"outdated: runs {node['from']}, its group would launch {node['to']}"
    elif node.get("reason"):
        yield f"to be replaced because {node['reason']}; it runs what its group would launch now"
    else:
        yield "not outdated: it runs what its group would launch now, or belongs to no group that is rolled"
    if roll and roll["replacement"] == node["name"] and roll["stage"] == "replaced":
        yield f"it has replaced {roll['replaces']} in the running roll"
    elif roll and roll["replacement"] == node["name"]:
        yield f"it replaces {roll['replaces']} in the running roll, which is at: {roll['step']}"
    elif roll:
        yield f"in the running roll: {roll['stage']}" + (f", at: {roll['step']}" if roll["step"] else "")
    if roll and roll["reason"]:
        import time

        long = f"has waited {spoken(time.time() - roll['held_since'])}" if roll["held_since"] else "waits"
        yield f"{long}: {roll['reason']}"


def _pod_lines(pods: list[Json]) -> Iterable[RenderableType]:
    """Each pod with its budgets and how it would leave, a line each."""
    from eks_rolling.documents.plan import Move
    from eks_rolling_cli.plan_view import move_sentence

    for pod in pods:
        yield Text(pod["pod"], style="bold")
        if not pod["ready"]:
            yield indented(Text(f"not Ready: {pod['not_ready_because'] or 'its containers are not'}", style="yellow"))
        for b in pod["budgets"]:
            allows = f"budget {b['budget']} allows {b['allowed']} ({b['healthy']} healthy, {b['needed']} needed)"
            yield indented(Text(allows))
        if pod["move"]:
            leaves = move_sentence(Move.model_validate(pod["move"])).partition(": ")[2]
            yield indented(Text(f"would leave: {leaves}"))
