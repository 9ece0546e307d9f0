"""Report: what was done, refused and left, as JSON, as a page and as a message. Always runs, and never fails a roll."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from lambdas.clients import Clients
from lambdas.entry import handler_for
from lambdas.model import ReportTask, StepResult
from lambdas.timeline import explain


def summary(task: ReportTask, nodes: list[dict[str, Any]], plan: dict[str, Any], cluster: str) -> dict[str, Any]:
    """The report as a document; `nodes` are the pages that RollNode executions left."""
    failure = explain(task.failure)
    outcome = (task.plan or {}).get("output", {}).get("outcome", "failed")
    replaced = [n for n in nodes if n["outcome"] == "replaced"]
    planned = len(plan.get("nodes", []))
    return {
        "roll": task.roll,
        "cluster": cluster,
        "outcome": "failed" if failure else "replaced" if outcome == "roll" else outcome,
        "reason": failure or _reason(task, len(replaced), planned),
        "request": task.input,
        "started": task.started,
        "planned": planned,
        "replaced": len(replaced),
        "evicted": sum(n["evicted"] for n in nodes),
        "refused": sum(n["refused"] for n in nodes),
        "nodes": sorted(nodes, key=lambda n: n["started"] or 0),
        "redis": redis_timeline(nodes),
        "findings": plan.get("findings", []),
        "restored": list(task.restored),
        "left_behind": list(task.left_behind),
    }


def redis_timeline(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everything that was done to Redis groups and waited for, in order: moves, syncs with their bytes, failovers."""
    done = [
        {"group": step["redis"], "node": node["node"], "step": step["name"], **hold}
        for node in nodes
        for step in node["steps"]
        if step.get("redis")
        for hold in step["holds"]
    ]
    return sorted(done, key=lambda each: (each["group"], each["since"]))


def _reason(task: ReportTask, replaced: int, planned: int) -> str:
    outcome = (task.plan or {}).get("output", {}).get("outcome")
    if outcome == "roll":
        return f"{replaced} of {planned} nodes were replaced"
    return str((task.plan or {}).get("reason", "nothing was planned"))


def bars(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The timeline's bars: per node its steps, with left edge and width in per cent of the whole roll."""
    nodes = [n for n in report["nodes"] if n["started"]]
    if not nodes:
        return []
    kinds = {name: kind for kind, name in enumerate(legend(report))}
    first, last = min(n["started"] for n in nodes), max(n["ended"] for n in nodes)
    span = max(last - first, 1e-6)
    return [
        {
            "node": n["node"],
            "seconds": n["ended"] - n["started"],
            "steps": [
                {
                    "name": s["name"],
                    "kind": kinds[s["name"]],
                    "left": 100 * (s["started"] - first) / span,
                    "width": max(0.2, 100 * (s["ended"] - s["started"]) / span),
                    "seconds": s["ended"] - s["started"],
                }
                for s in n["steps"]
            ],
        }
        for n in nodes
    ]


def legend(report: dict[str, Any]) -> list[str]:
    """Every step of the timeline once, in the order in which they first came: what the bars' colours stand for."""
    return list(dict.fromkeys(s["name"] for n in report["nodes"] for s in n["steps"]))


def page(report: dict[str, Any]) -> str:
    """The report as one HTML file without external resources."""
    environment = Environment(loader=PackageLoader("lambdas", "."), autoescape=select_autoescape(["j2", "html"]))
    return environment.get_template("report.html.j2").render(report=report, bars=bars(report), legend=legend(report))


def message(report: dict[str, Any], address: str) -> str:
    """The report as people read it in a mail."""
    lines = [f"{report['cluster']}: {report['reason']}", ""]
    lines += [f"- {n['node']}: {n['failure']}" for n in report["nodes"] if n["failure"]]
    lines += [f"- left behind: {left}" for left in report["left_behind"]]
    return "\n".join([*lines, "", f"Report: {address}", f"Roll: {report['roll']}"])


def run(task: ReportTask, clients: Clients) -> StepResult:
    aws = clients.aws
    prefix = f"rolls/{task.roll}"
    plan: dict[str, Any] = next((json.loads(text) for text in aws.load(f"{prefix}/plan.json")), {})
    nodes = [json.loads(text) for text in aws.load(f"{prefix}/nodes/")]
    report = summary(task, nodes, plan, clients.settings.cluster)
    aws.save(f"{prefix}/report.json", json.dumps(report, indent=2), "application/json")
    address = aws.save(f"{prefix}/report.html", page(report), "text/html; charset=utf-8")
    aws.notify(f"{report['cluster']}: roll {report['outcome']}", message(report, address))
    return StepResult.done(report["reason"], outcome=report["outcome"], report=address, replaced=report["replaced"])


handler = handler_for(run, ReportTask, locked=False)
