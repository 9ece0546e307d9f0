"""How the demo shows a roll's plan: whole, as `eks-rolling plan` does, on a terminal and in lines."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lab.view import LineView, LiveView, Screen

FINDINGS: list[dict[str, Any]] = [
    {
        "code": "batch-pod",
        "severity": "holds",
        "object": "Job shop/closing",
        "reason": "its pod is at work",
        "remedy": "wait for it [bold]",
    },
    {
        "code": "idle-group",
        "severity": "note",
        "object": "group spare",
        "reason": "it has no instance",
        "remedy": "none is needed",
    },
]
DOCUMENT: dict[str, Any] = {"cluster": "real", "outcome": "roll", "reason": "no node", "findings": FINDINGS}


@pytest.fixture(params=["live", "lines"])
def shown(request: pytest.FixtureRequest) -> tuple[Screen, StringIO]:
    live, text = request.param == "live", StringIO()
    console = Console(file=text, width=100, force_terminal=live, color_system=None)
    return (LiveView(console, "real") if live else LineView(console)), text


def test_each_finding_is_there_once_with_what_it_does_and_its_remedy(shown: tuple[Screen, StringIO]) -> None:
    view, text = shown
    with view:
        view.plan(DOCUMENT)
    said = text.getvalue()
    for heading in ("Will hold it (1)", "Worth knowing (1)"):
        assert said.count(heading) == 1
    for finding in FINDINGS:
        assert said.count(f"{finding['object']}: {finding['reason']}") == 1
        assert said.count(f"→ {finding['remedy']}") == 1
