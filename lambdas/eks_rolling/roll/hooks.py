"""Users' own hooks: what they receive, and what their answers mean. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.payloads import HookTask
from eks_rolling.settings import Hook, OnFailure

SHORTEST, LONGEST = 1.0, 900.0
"""Seconds between two questions."""

WAKING_SECONDS, WAKING_LOOK = 300.0, 10.0
"""How long a function is waited for without which the roll would continue, and how often it is called meanwhile. Hooks
are called in rolls only, so their functions are asleep when one begins, and AWS takes about a minute to wake one
(Lambda developer guide, "Lambda function states"). One that may abort the roll is waited for until the step's deadline.
"""


@dataclass(frozen=True, slots=True)
class HookPassed:
    """The hook lets the roll continue."""


@dataclass(frozen=True, slots=True)
class HookWaits:
    """The hook wants to be asked again."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HookFailed:
    reason: str


def question(task: HookTask, hook: Hook, cluster: str, failure: str) -> dict[str, Any]:
    """What a hook is sent. `key` is the same however often it is asked: what it did already it must not do twice."""
    return {
        "cluster": cluster,
        "roll": task.roll,
        "when": task.when,
        "node": task.node,
        "instance": task.instance,
        "replacement": task.replacement,
        "failure": failure,
        "key": "/".join(part for part in (task.roll, task.when, task.instance, hook.name) if part),
    }


def meaning(hook: Hook, answer: HttpAnswer, waited: float = 0.0) -> HookPassed | HookWaits | HookFailed:
    """What an answer says. One without a word, such as a function's that returns nothing, is a success.

    `waited`: for how many seconds the hooks of the moment have been waited for.
    """
    if answer.uncalled and (hook.on_failure is OnFailure.ABORT or waited < WAKING_SECONDS):
        return HookWaits(f"hook {hook.name} cannot be called yet: {answer.fault}", WAKING_LOOK)
    if answer.fault:
        return HookFailed(f"hook {hook.name} does not answer: {answer.fault}")
    if not 200 <= answer.status < 300:
        return HookFailed(f"hook {hook.name} answers {answer.status}{_quoted(answer.body)}")
    try:
        said = json.loads(answer.body) if answer.body.strip() else None
    except (ValueError, RecursionError):
        said = None
    match said:
        case None | {"status": "done"}:
            return HookPassed()
        case {"status": "wait"}:
            return _patience(hook, said)
        case _:
            return HookFailed(f"hook {hook.name} answers{_quoted(answer.body)}, neither done nor wait")


def _patience(hook: Hook, said: dict[str, Any]) -> HookWaits | HookFailed:
    seconds = said.get("seconds", 10)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
        return HookFailed(f"hook {hook.name} wants to be asked again in {seconds!r} s, which is not a valid number")
    reason = " ".join(str(said.get("reason") or "it gives no reason").split())[:300]
    # Compared first: no float is as large as JSON's integers can be.
    return HookWaits(f"hook {hook.name} asks to wait: {reason}", float(min(LONGEST, max(SHORTEST, seconds))))


def _quoted(body: str) -> str:
    text = " ".join(body.split())[:200]
    return f" {text}" if text else ""
