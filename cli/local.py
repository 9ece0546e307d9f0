"""The plan step run here: JSON in and out, with the caller's own access, read-only."""

import json
from typing import TYPE_CHECKING, Any

from cli.target import Target

if TYPE_CHECKING:
    from lambdas.clients import Clients
    from lambdas.settings import Settings

Json = dict[str, Any]


def plan_here(target: Target, settings: "Settings", request: Json) -> tuple[Json, Json]:
    """What the plan step answers, and the document that it would have left in the bucket. Raises RollError."""
    from lambdas.entry import run_step

    clients, documents = _reading_clients(target, settings)
    answer = run_step("plan", {"roll": "plan", "input": request}, clients)
    return answer, json.loads(documents["rolls/plan/plan.json"])


def _reading_clients(target: Target, settings: "Settings") -> "tuple[Clients, dict[str, str]]":
    """Clients that keep here what a step would write to the bucket, and tell nobody."""
    from lambdas.clients.aws import AwsClient
    from lambdas.entry import assembled

    documents: dict[str, str] = {}

    class Reading(AwsClient):
        def save(self, key: str, text: str, content_type: str) -> str:  # noqa: ARG002  (as the bucket wants it)
            documents[key] = text
            return key

        def notify(self, subject: str, message: str) -> None:
            pass

    aws = Reading(target.cluster, settings.bucket, settings.topic, target.session)
    return assembled(target.kubernetes, aws, settings), documents
