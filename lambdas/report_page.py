"""The report as one HTML file: what `report.html.j2` shows, computed from the document alone."""

from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from lambdas.report_document import Report


def bars(report: Report) -> list[dict[str, Any]]:
    """The timeline's bars: per node its steps, with left edge and width in per cent of the whole roll."""
    nodes = [n for n in report.nodes if n.started]
    if not nodes:
        return []
    kinds = {name: kind for kind, name in enumerate(legend(report))}
    first, last = min(n.started or 0 for n in nodes), max(n.ended or 0 for n in nodes)
    span = max(last - first, 1e-6)
    return [
        {
            "node": n.node,
            "seconds": n.seconds,
            "steps": [
                {
                    "name": s.name,
                    "kind": kinds[s.name],
                    "left": 100 * (s.started - first) / span,
                    "width": max(0.2, 100 * (s.ended - s.started) / span),
                    "seconds": s.ended - s.started,
                }
                for s in n.steps
            ],
        }
        for n in nodes
    ]


def legend(report: Report) -> list[str]:
    """Every step of the timeline once, in the order in which they first came: what the bars' colours stand for."""
    return list(dict.fromkeys(s.name for n in report.nodes for s in n.steps))


def page(report: Report) -> str:
    """The report as one HTML file without external resources."""
    environment = Environment(loader=PackageLoader("lambdas", "."), autoescape=select_autoescape(["j2", "html"]))
    return environment.get_template("report.html.j2").render(report=report, bars=bars(report), legend=legend(report))
