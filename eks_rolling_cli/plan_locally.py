"""Steps that only look, by their JSON: run here with the caller's own access, or by the deployed workflow."""

import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import typer

from eks_rolling_cli.cli_context import say
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.target import Target

if TYPE_CHECKING:
    from eks_rolling.clients.protocols import Aws
    from eks_rolling.settings import Settings

Json = dict[str, Any]

DRY_RUN_LOOK_SECONDS = 1.0

PATIENCE_SECONDS = 300.0
"""Without an answer: a dry run is no roll that has to be followed to its end."""


class _Reading:
    """An account in which writes to the bucket are kept in memory, and no message is sent."""

    def __init__(self, aws: "Aws") -> None:
        self._aws = aws
        self.documents: dict[str, str] = {}

    def save(self, key: str, text: str, _content_type: str) -> str:
        self.documents[key] = text
        return key

    def notify(self, message: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._aws, name)


def plan_here(target: Target, settings: "Settings", request: Json) -> tuple[Json, Json]:
    """What the plan step answers, and the document that it would have left in the bucket. Raises RollError."""
    answer, documents = _step_here("plan", {"roll": "plan", "input": request}, target, settings)
    return answer, json.loads(documents["rolls/plan/plan.json"])


def orphans_here(target: Target, settings: "Settings", over: str = "") -> Json:
    """What the step answers that looks for what dead rolls left behind; `over` is one that is known to have ended.

    Raises RollError.
    """
    event = {"roll": over or "orphans", "ended": bool(over)}
    answer, _ = _step_here("find_orphans", event, target, settings)
    return answer


def _step_here(name: str, event: Json, target: Target, settings: "Settings") -> tuple[Json, dict[str, str]]:
    """A step's answer, and what it would have written to the bucket."""
    from eks_rolling.runtime import run_step

    clients = target.clients(settings)
    reading = _Reading(clients.aws)
    answer = run_step(name, event, replace(clients, aws=cast("Aws", reading)))
    return answer, reading.documents


def plan_there(target: Target, name: str, request: Json) -> tuple[Json, Json]:
    """The same of a dry run of the deployed workflow, which sees what its functions see.

    Raises CommandError, RollError.
    """
    from eks_rolling.documents.failure import explain
    from eks_rolling_cli.execution_history import plan_answer
    from eks_rolling_cli.executions import patiently

    arn = target.executions.start(target.machine("roll"), name, request | {"dry_run": True, "trigger": target.who})
    look = partial(target.executions.describe, arn)
    try:
        while (execution := patiently(look, say, patience=PATIENCE_SECONDS)).running:
            time.sleep(DRY_RUN_LOOK_SECONDS)
    except KeyboardInterrupt:
        say(f"Detached: the dry run {name} continues; it changes nothing.")
        raise typer.Exit(Exit.INTERRUPTED) from None
    answer = plan_answer(patiently(partial(target.executions.history, arn), say, patience=PATIENCE_SECONDS))
    document = target.document(name, "plan.json")
    if not document:
        cause = explain({"Error": execution.error, "Cause": execution.cause})
        raise CommandError(f"The dry run {name} made no plan: {cause or execution.status}.")
    return answer, document
