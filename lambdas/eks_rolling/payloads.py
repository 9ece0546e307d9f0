"""Values that cross states: JSON in, JSON out. Identifiers only; everything else is observed again.

A state's payload may be 256 KiB: a thousand instance ids are about 25 KB.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field, ValidationError, field_validator

from eks_rolling.errors import BadRequest
from eks_rolling.legible import line, short
from eks_rolling.settings import Moment, Settings, Strict, problems


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()


class RollRequest(Strict):
    """What a person (console, command) or an event asks for."""

    groups: tuple[str, ...] = Field((), description="Auto Scaling group names; empty: all of the cluster")
    nodes: tuple[str, ...] = Field((), description="node names or instance ids; empty: every outdated one")
    force: bool = Field(False, description="replace nodes also if their version is their group's")
    dry_run: bool = Field(False, description="plan and report only")
    surge: int | None = Field(None, ge=1, le=40, description="nodes replaced at the same time")
    approval: bool | None = Field(None, description="wait for approval after the plan")
    keep_taints: bool = Field(False, description="leave our taint on nodes that were not replaced")
    accept: tuple[str, ...] = Field((), description="codes of findings that are accepted, or CODE:OBJECT")
    trigger: str = Field("a person", description="who asked")
    rolls_back: str = Field(
        "",
        max_length=80,
        description="the failed roll that this one rolls back, which starts it: only groups whose version that roll "
        "put back, and only for as long as nobody has changed it since",
    )

    @field_validator("*")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        """JSON may hold halves of characters, which no document can be written with."""
        if isinstance(value, tuple):
            return tuple(map(_whole, value))
        return _whole(value) if isinstance(value, str) else value

    def surge_in(self, settings: Settings) -> int:
        """How many nodes are replaced at the same time: as asked for, else as the settings have it."""
        return self.surge or settings.surge

    @classmethod
    def from_input(cls, raw: Any) -> "RollRequest":
        """Reads an execution's input: `{}`, the fields above, or an EventBridge event.

        Raises BadRequest naming every problem at once.
        """
        if not isinstance(raw, Mapping):
            raise BadRequest(f"The roll request must be a JSON object such as {{}}, not {raw!r}.")
        if "detail-type" in raw and "detail" in raw:
            detail = raw["detail"] if isinstance(raw["detail"], Mapping) else {}
            return cls(trigger=f"{detail.get('eventName', raw['detail-type'])} ({raw.get('id', 'no id')})")
        try:
            return cls.model_validate(dict(raw))
        except ValidationError as error:
            raise BadRequest(f"The roll request has {problems(error, cls)}.") from error


Targets = dict[str, dict[str, str]]
"""Per group: instance type -> "lt-id:number" it would launch now; "" is the type without an override."""


class Task(Strict):
    """What every step is given. Times are epoch seconds: `since` is when its current wait began, `notified_at` when
    people were notified of it."""

    roll: str = Field(min_length=1)
    since: float | None = None
    notified_at: float | None = None

    def waited(self, now: float) -> float:
        """Seconds since the wait began; 0 where it has not."""
        return 0.0 if self.since is None else now - self.since


class PlanTask(Task):
    """`input` is the execution's input as it came."""

    input: Any = None


class ChangeTask(Task):
    """A change's event: `input` is the event as it came, `change` its number among all changes, 0 before it has one."""

    input: Any = None
    change: int = 0


class OrphansTask(Task):
    """A look for what is left behind. `ended`: the roll that asks is over, so what it still holds counts too."""

    ended: bool = False


class NodeFailure(Strict):
    """A RollNode execution that failed: the state's error output, as Step Functions has it."""

    node: str
    failure: dict[str, Any]


class PutBackTask(Task):
    """Putting back the former version of the roll's groups (`former`: group -> "lt-id:number" or "lc:NAME") after
    `failure`, in wave number `waves`, of which `failures` are its nodes'."""

    former: dict[str, str] = {}
    targets: Targets = {}
    waves: int = 0
    failure: dict[str, Any] | None = None
    failures: tuple[NodeFailure, ...] = ()


class RollTask(Task):
    """A step of the Roll: the instances of its plan, and what it asked for."""

    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    targets: Targets = {}
    although_current: tuple[str, ...] = ()
    """Those of `nodes` that are replaced although their version is their group's: for their age, or as asked for."""
    places: dict[str, str] = {}
    """Those of `nodes` that are spare -> the instance in whose place each is."""
    surge: int = 1
    keep_taints: bool = False
    accept: tuple[str, ...] = ()
    waves: int = 0
    unready: tuple[str, ...] = ()
    redis: tuple[str, ...] = ()
    failures: tuple[NodeFailure, ...] = ()


class UnjoinedTask(Task):
    """Replacing instances that never joined: instance -> its group."""

    unjoined: dict[str, str] = {}


class HookTask(Task):
    """Hooks of one moment; node, instance and replacement are empty for the roll's own. `failure` is what ended it."""

    when: Moment
    instance: str = ""
    node: str = ""
    group: str = ""
    replacement: str = ""
    replacement_node: str = ""
    failure: dict[str, Any] | None = None


class ApprovalTask(Task):
    """`token` is the Step Functions task token to answer with."""

    token: str
    plan: str = ""


class NodeTask(Task):
    """A step of RollNode: one old instance."""

    instance: str = Field(pattern=r"^i-[0-9a-zA-Z]+$")
    node: str = Field(min_length=1)
    group: str = Field(min_length=1)
    replacement: str = ""
    replacement_node: str = ""


class SettleTask(Task):
    """Finishing Redis migrations: before a roll begins, or when it ends, `by` a restore if that was started for it.

    `failure` is what ended the roll, as Step Functions has it.
    """

    ending: bool = True
    by: str = ""
    failure: dict[str, Any] | None = None


class RestoreTask(Task):
    """Putting everything back after `roll`: by itself, or `by` a restore that was started for it.

    `rehearse` only asks whether that could be done, on these groups and instances. `failure` is what ended the roll.
    """

    failure: dict[str, Any] | None = None
    keep_taints: bool = False
    by: str = ""
    rehearse: bool = False
    groups: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


class RedisTask(NodeTask):
    """A step that migrates a Redis group, NAMESPACE/NAME."""

    redis_group: str = ""


class RedisActionTask(RedisTask):
    """One of the states that migrate a group; `action` is the one that it stands for (`eks_rolling.redis.actions`)."""

    action: str


class NodeOutcomeTask(NodeTask):
    """The last step of RollNode: `execution` is its own ARN, `failure` what stopped it."""

    execution: str
    failure: dict[str, Any] | None = None

    @field_validator("failure", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None


class ReportTask(Task):
    """The last step of Roll. `unlooked` is why orphans could not be looked for, as Step Functions has it.

    `stopped`: the roll could not write its report itself, and was restored from outside.
    """

    input: Any = None
    plan: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    restored: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    orphans: tuple[dict[str, Any], ...] = ()
    unlooked: dict[str, Any] | None = None
    stopped: bool = False
    execution: str = ""
    started: str = ""
    put_back: tuple[str, ...] = ()
    """What was done about the former versions, as sentences."""
    rollback: str = ""
    """The roll that was started to replace the new nodes."""
    not_started: dict[str, Any] | None = None
    """Why it could not be, as Step Functions has it."""


LONGEST_REASON = 20_000
"""Characters. Servers and tenants have their say in reasons, and no Catch sees a payload that is too large."""


class Status(StrEnum):
    """A step is done, or it waits. Faults are exceptions."""

    DONE = "done"
    WAIT = "wait"


class HoldKind(StrEnum):
    """What a step waited for, by what an operator would look at."""

    INSTANCE = "instance"
    BUDGET = "budget"
    PODS = "pods"
    TRAFFIC = "traffic"
    VOLUMES = "volumes"
    REDIS = "redis"
    GATE = "gate"
    PERSON = "person"
    LOCK = "lock"
    ENDING = "ending"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Hold:
    """A decision to wait, and why. `kind` is what an operator would look at, `seconds` when to look again, where the
    decision knows. `checks_failed`: alarms or checks of the settings hold, which judge the new version."""

    reason: str
    kind: HoldKind | None = None
    seconds: float = 0.0
    checks_failed: bool = False


class StepResult(Strict):
    """What every step answers. `output` carries identifiers for the states after it, and a few numbers for the report;
    `calls` is what the invocation called, by the names that permissions have.
    """

    status: Status
    reason: str
    wait_seconds: int = Field(0, ge=0, le=900)
    since: float | None = None
    notified_at: float | None = None
    output: dict[str, Any] = {}
    calls: tuple[str, ...] = ()

    @field_validator("reason")
    @classmethod
    def _on_one_line(cls, value: str) -> str:
        return short(line(value), LONGEST_REASON)

    @classmethod
    def done(cls, reason: str, **output: Any) -> "StepResult":
        return cls(status=Status.DONE, reason=reason, output=output)

    @classmethod
    def wait(cls, reason: str, seconds: float, **output: Any) -> "StepResult":
        """A hold. `seconds` is rounded up to whole seconds, at least 1: what a Wait state can do."""
        whole = max(1, min(900, math.ceil(seconds)))
        return cls(status=Status.WAIT, reason=reason, wait_seconds=whole, output=output)


LONGEST_BACKOFF = 60.0
"""Seconds: the longest wait between two looks at something that gives no hint of its own."""


def backoff(waited_seconds: float, *, first: float = 1.0, longest: float = 15.0) -> float:
    """Seconds until the next look at something that gives no hint of its own: a tenth of the time waited so far.

    Short waits stay short, and an hour's wait costs about 250 looks (2,250 of a history's 25,000 events). Waits of more
    than an hour grow on, to a minute: four hours cost 600 looks.
    """
    grown = min(LONGEST_BACKOFF, waited_seconds / 240) if waited_seconds > 3600 else 0.0
    return max(grown, min(longest, max(first, waited_seconds / 10)))


def bake_look(bake: float) -> float:
    """Seconds between two looks while a wave bakes: ten looks, but no rarer than every quarter of an hour.

    Each costs nine of the roll's 25,000 events, at every wave.
    """
    return min(900.0, max(15.0, bake / 10))
