"""Draws the state machines as synthesized into docs/workflow.md (Mermaid).

A step is three states (call, "done?", wait); the drawing shows it as one, with an arrow to itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.assembly import synthesize

PAGE = Path(__file__).resolve().parent.parent / "docs" / "workflow.md"
Definition = dict[str, Any]

SHAPES = {"Choice": '{{"%s"}}', "Succeed": '(["%s"])', "Fail": '(["%s"])', "Pass": '["%s"]'}


def edges(states: Definition) -> Iterator[tuple[str, str, str, bool]]:
    """Arrows of one machine: from, to, label, and whether it is taken after a fault."""
    for name, state in states.items():
        if name.endswith((": done?", ": wait")):
            continue
        following = state.get("Next", "")
        if following == f"{name}: done?":
            question = states[following]
            yield name, name, "wait", False
            following = question["Choices"][0]["Next"]
        if following:
            yield name, following, "", False
        for rule in state.get("Choices", ()):
            yield name, rule["Next"], rule["Comment"], False
        if state.get("Default"):
            yield name, state["Default"], "else" if state["Type"] == "Choice" else "", False
        for catch in state.get("Catch", ()):
            if catch["Next"] != following:
                yield name, catch["Next"], "", True


def flowchart(definition: Definition) -> str:
    """One machine as a Mermaid flowchart; the states of a Map stand in a box of their own."""
    lines = ["flowchart TD"]
    ids: dict[str, str] = {}

    def declare(states: Definition, indent: str) -> None:
        for name, state in states.items():
            if name.endswith((": done?", ": wait")):
                continue
            ids[name] = f"s{len(ids)}"
            if state["Type"] == "Map":
                inner = state["ItemProcessor"]["States"]
                lines.append(f'{indent}subgraph {ids[name]}["{name}: each node of the wave"]')
                declare(inner, indent + "  ")
                arrows(inner, indent + "  ")
                lines.append(f"{indent}end")
            else:
                lines.append(indent + ids[name] + SHAPES.get(state["Type"], '["%s"]') % name)

    def arrows(states: Definition, indent: str) -> None:
        for source, target, label, fault in edges(states):
            arrow = "-.->" if fault else "-->"
            lines.append(f"{indent}{ids[source]} {arrow}" + (f'|"{label}"|' if label else "") + f" {ids[target]}")

    declare(definition["States"], "  ")
    arrows(definition["States"], "  ")
    return "\n".join(lines)


def page() -> str:
    """docs/workflow.md with the drawings of now."""
    text = PAGE.read_text()
    for machine in ("roll", "node", "restore"):
        start, end = f"<!-- {machine} -->\n", f"<!-- end of {machine} -->"
        head, _, rest = text.partition(start)
        _, _, tail = rest.partition(end)
        text = f"{head}{start}```mermaid\n{flowchart(synthesize().definition(machine))}\n```\n{end}{tail}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
