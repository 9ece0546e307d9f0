"""How an execution or a state failed, as Step Functions tells it: `Error` and `Cause`, often JSON within JSON. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from eks_rolling.errors import ERROR_NAMES
from eks_rolling.legible import line


def read_json(text: str) -> dict[str, Any]:
    """A JSON object out of a text; {} for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def error_of(failure: Mapping[str, Any] | None) -> str:
    """The name of a state's error: that of what a function raised, or that which a child execution ended with."""
    if not failure:
        return ""
    error, document = str(failure.get("Error") or ""), read_json(str(failure.get("Cause") or ""))
    return error_of(document) if document.get("Error") else error


def explain(failure: Mapping[str, Any] | None) -> str:
    """A state's error output as one sentence: what a function raised, or what a child execution ended with; "" for
    none."""
    return line(_explained(failure))


def _explained(failure: Mapping[str, Any] | None) -> str:
    if not failure:
        return ""
    error, cause = str(failure.get("Error") or ""), str(failure.get("Cause") or "")
    document = read_json(cause)
    if "errorMessage" in document:
        said, kind = str(document["errorMessage"]), document.get("errorType", error)
        return said if kind != error or error in ERROR_NAMES else f"{kind}: {said}"
    if "Cause" in document:
        return _explained({"Error": document.get("Error"), "Cause": document["Cause"]})
    if error in ERROR_NAMES and cause:
        return cause
    return ": ".join(part for part in (error, cause) if part)
