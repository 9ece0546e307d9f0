"""The command, run in this process on a cluster in memory."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eks_rolling_cli import cli_context as frame
from eks_rolling_cli.app import app
from tests.model.situations import shop
from tests.unit.cli.targets import FakeTarget

Run = Callable[..., Result]


@pytest.fixture
def target() -> FakeTarget:
    """Six outdated nodes in two zones; eks-rolling is deployed."""
    return FakeTarget(shop())


@pytest.fixture
def run(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command as from a shell, in which nobody answers questions unless `input` does."""
    monkeypatch.setattr(frame, "Target", lambda _: target)
    monkeypatch.setattr("eks_rolling_cli.watching.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("eks_rolling_cli.executions.RETRY_SECONDS", 0.0)

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **options)

    return run
