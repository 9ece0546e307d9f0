"""Settings of a deployment: validated when the stack is synthesized, read again by every function.

All durations are seconds. Every problem of a settings document is reported at once.
"""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from eks_rolling.errors import BadRequest

ENVIRONMENT_VARIABLE = "EKS_ROLLING_SETTINGS"
"""What only a deployment knows: names of the stack's own resources. An environment holds 4 KB at most."""

FILE = Path(__file__).resolve().parent.parent / "eks-rolling-settings.json"
"""All other settings, beside the functions' code."""


LONGEST_CHECKS = 60
"""Seconds that all checks of the gate may take together: half of what its function has for a look."""


LONGEST_HOOKS = 25
"""Seconds that the hooks of one moment may take together: each is asked twice where it does not answer, and their
function has a minute."""


class Strict(BaseModel):
    """Values that cross a boundary: immutable, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalerMode(StrEnum):
    """What a roll does about cluster-autoscaler."""

    PAUSE = "pause"
    ANNOTATE = "annotate"
    IGNORE = "ignore"


class Autoscaler(Strict):
    """Where cluster-autoscaler runs, and how it is kept from removing nodes during a roll."""

    mode: AutoscalerMode = Field(
        AutoscalerMode.ANNOTATE,
        description="annotate: it goes on, with scale-down disabled on the nodes of the roll; pause: scaled to 0 and "
        "back, so that pods for which there is no room wait for the roll's end",
    )
    namespace: str = Field("kube-system", description="its namespace")
    deployment: str = Field("cluster-autoscaler", description="name of its Deployment")


class OnInterference(StrEnum):
    """What happens where somebody changed what a roll had arranged."""

    AGAIN = "again"
    HOLD = "hold"


class GroupSelection(Strict):
    """Which of the cluster's Auto Scaling groups are rolled. A tag's value "" stands for any."""

    include: dict[str, str] = Field({}, description="tags that a group must have, all of them")
    exclude: dict[str, str] = Field({}, description="tags of which a group may have none")

    def left_out_by(self, tags: Mapping[str, str]) -> str:
        """Why a group with these tags is not rolled; "" if it is."""
        for key, value in self.include.items():
            if key not in tags or value not in {"", tags[key]}:
                return f"it lacks the tag {_tag(key, value)} (setting groups.include)"
        for key, value in self.exclude.items():
            if key in tags and value in {"", tags[key]}:
                return f"it has the tag {_tag(key, value)} (setting groups.exclude)"
        return ""


def _tag(key: str, value: str) -> str:
    return f"{key}={value}" if value else key


class OnChange(StrEnum):
    """What a changed launch template or Auto Scaling group sets off by itself."""

    OFF = "off"
    PLAN = "plan"
    ROLL = "roll"


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(Strict):
    """Hours in which a change may start a roll. A roll that has begun continues after them."""

    days: tuple[Day, ...] = Field(DAYS, min_length=1, description="the days on which it opens")
    start: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["09:00"], description="when it opens, HH:MM")
    end: str = Field(
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        examples=["16:00"],
        description="when it closes, HH:MM; on the next day if it is not after `start`",
    )
    time_zone: str = Field("UTC", description="time zone, such as Europe/Berlin")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("there is no such time zone; names are like Europe/Berlin") from error
        return value


class PageCheck(Strict):
    """A page that has to answer well before the next wave may begin."""

    url: str = Field(
        pattern=r"^https://[^\s/?#]+\S*$",
        examples=["https://shop.example.com/health"],
        description="HTTPS address; redirects are not followed",
    )
    status: int = Field(200, ge=100, le=599, description="the expected status")
    contains: str = Field("", description="text that the answer must contain, within the first 256 KB")
    timeout_seconds: int = Field(5, ge=1, le=20, description="how long one request may take")


class Moment(StrEnum):
    """When a hook is asked."""

    BEFORE_ROLL = "before_roll"
    AFTER_ROLL = "after_roll"
    BEFORE_NODE = "before_node"
    AFTER_NODE = "after_node"


class OnFailure(StrEnum):
    """What a hook that fails means for the roll."""

    ABORT = "abort"
    CONTINUE = "continue"


class Hook(Strict):
    """Something of yours that is asked at a moment of a roll: a Lambda function, or an address."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", examples=["drain-queue"], description="its name in holds and reports"
    )
    when: Moment = Field(description="when it is called")
    function: str = Field(
        "",
        pattern=r"^(arn:[\w-]+:lambda:[a-z0-9-]+:\d{12}:function:[\w-]+(:[\w$-]+)?)?$",
        examples=["arn:aws:lambda:eu-central-1:123456789012:function:drain-queue"],
        description="ARN of the Lambda function; this or `url`",
    )
    url: str = Field(
        "",
        pattern=r"^(https://[^\s/?#]+\S*)?$",
        examples=["https://ops.example.com/eks-rolling"],
        description="HTTPS address to POST to",
    )
    timeout_seconds: int = Field(10, ge=1, le=20, description="how long one answer may take")
    on_failure: OnFailure = Field(
        OnFailure.ABORT,
        description="abort: the roll ends and everything is put back; continue: the roll continues, and notes it",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "Hook":
        if bool(self.function) == bool(self.url):
            raise ValueError("a hook needs either a function or a url")
        return self


class RollBack(Strict):
    """Whether a roll whose canary fails, or whose gate does not open, puts back the version before."""

    enabled: bool = Field(
        False,
        description="where the first wave fails, or alarms or checks hold a gate too long: each group's former version "
        "is put back, and a second roll replaces the new nodes",
    )
    node_roles: tuple[
        Annotated[
            str,
            Field(
                pattern=r"^arn:[\w-]+:iam::\d{12}:role/[\w+=,.@/-]+$",
                examples=["arn:aws:iam::123456789012:role/nodes"],
            ),
        ],
        ...,
    ] = Field(
        (),
        max_length=10,
        description="ARNs of the nodes' IAM roles: AWS asks whoever sets a group's version number for iam:PassRole on "
        "them and for ec2:RunInstances. Without them, groups that name a number are not rolled back",
    )


class DeadNodes(Strict):
    """What a roll does about outdated nodes whose kubelet is silent, and outdated instances that never joined."""

    replace: bool = Field(
        False,
        description="they are replaced: pods are evicted within their budgets, and what cannot end, because no kubelet "
        "ends it, goes with the instance; an instance without a node is replaced by its group. Otherwise they block",
    )
    silent_seconds: int = Field(
        600,
        ge=60,
        description="how long a kubelet must be silent, or an instance without a node, to count as dead. Kubernetes "
        "itself deletes the pods of a silent node after 300",
    )


class Deadlines(Strict):
    """How long a step may hold before the roll gives up and restores, in seconds."""

    run_hooks: int = Field(3600, ge=1, description="hooks that ask to wait, at one moment of a roll or a node")
    receive_change: int = Field(
        10 * 24 * 3600, ge=60, description="a change waits for a window, and for the running roll to end"
    )
    take_lock: int = Field(4 * 3600, ge=1, description="waiting for another roll on the same cluster")
    pause_interference: int = Field(600, ge=1, description="with autoscaler.mode pause: cluster-autoscaler has stopped")
    replace_unjoined: int = Field(
        2400, ge=1, description="with dead_nodes.replace: what never joined is gone, and its successors have joined"
    )
    taint_nodes: int = Field(900, ge=1, description="every outdated node is tainted")
    launch_replacement: int = Field(1800, ge=1, description="no capacity, or the group is at its maximum")
    await_ready: int = Field(1200, ge=1, description="the new node joins, its DaemonSets and targets are ready")
    taint_no_schedule: int = Field(600, ge=1, description="the old node takes no more pods")
    inspect_redis: int = Field(4 * 3600, ge=1, description="another node's migration of the same Redis group")
    move_replica: int = Field(3600, ge=1, description="a Redis replica runs on a new node and is in sync")
    fail_over: int = Field(900, ge=1, description="a replica has become master, and every sentinel names it")
    move_master: int = Field(1800, ge=1, description="the master pod runs on a new node")
    attach_master: int = Field(7200, ge=1, description="the master pod has its data again")
    fail_back: int = Field(900, ge=1, description="the master pod is master again")
    refresh_sentinels: int = Field(900, ge=1, description="sentinels list exactly the pods that live")
    move_sentinel: int = Field(1800, ge=1, description="a sentinel runs on a new node and knows all others")
    create_stand_in: int = Field(1800, ge=1, description="a node of a Redis Cluster gets its stand-in")
    join_stand_in: int = Field(7200, ge=1, description="the stand-in has the shard's data")
    fail_over_to_stand_in: int = Field(900, ge=1, description="the stand-in has become master")
    move_shard_pod: int = Field(1800, ge=1, description="the pod runs on a new node")
    sync_shard_pod: int = Field(7200, ge=1, description="the pod has its data again")
    fail_back_to_shard_pod: int = Field(900, ge=1, description="the pod is master again")
    remove_stand_in: int = Field(900, ge=1, description="no node of the cluster lists the stand-in")
    delete_stand_in: int = Field(900, ge=1, description="the stand-in's pod is gone")
    settle_redis: int = Field(7200, ge=1, description="migrations that were begun are finished before the restore")
    leave_load_balancers: int = Field(1800, ge=1, description="other targets are healthy, so that this node may leave")
    evict: int = Field(3600, ge=1, description="the node is empty and evicted pods are Ready elsewhere")
    await_load_balancers: int = Field(1800, ge=1, description="the last connections have ended")
    await_volumes: int = Field(900, ge=1, description="no volume is attached to the old node")
    terminate: int = Field(1200, ge=1, description="the instance and its node are gone")
    health_gate: int = Field(3600, ge=1, description="health after a wave, bake time included, pauses not")
    restore: int = Field(1800, ge=1, description="everything is as it was before")
    approval: int = Field(24 * 3600, ge=60, description="an answer to the request for approval")
    roll: int = Field(10 * 24 * 3600, ge=60, description="the whole roll, from its plan on, pauses included")


LONGEST_SILENCE = 120
"""Seconds for which a living roll may leave its lock alone in the ordinary course: the longest wait between two looks
(`payloads.LONGEST_BACKOFF`), and then a function that takes all of its time (`roll.fence.USUAL_SECONDS`). What waits
for longer makes the lock outlast that (`roll.lock`)."""

SHORTEST_LEASE = LONGEST_SILENCE * 4 // 3
"""Seconds: a look leaves a lock alone of which no more than a quarter has passed."""


class Settings(Strict):
    """One cluster's settings."""

    cluster: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[0-9A-Za-z][0-9A-Za-z_-]*$",
        examples=["production"],
        description="EKS cluster name",
    )
    groups: GroupSelection = Field(
        GroupSelection(), description="which of the groups tagged kubernetes.io/cluster/NAME are rolled: by default all"
    )
    surge: int = Field(2, ge=1, le=40, description="nodes replaced at the same time")
    # What each node of a wave failed with has to fit into one state's payload.
    wave: int = Field(10, ge=1, le=50, description="nodes between two health gates")
    canary: bool = Field(True, description="the first wave is a single node")
    bake_seconds: int = Field(60, ge=0, description="quiet time after each wave before the gate opens")
    alarms: tuple[str, ...] = Field((), description="CloudWatch alarms that hold the gate while in ALARM")
    checks: tuple[PageCheck, ...] = Field(
        (), max_length=10, description="pages that hold the gate while one does not answer as expected"
    )
    hooks: tuple[Hook, ...] = Field(
        (),
        max_length=20,
        description="your functions and addresses that are called before and after a roll and each node",
    )
    on_interference: OnInterference = Field(
        OnInterference.AGAIN,
        description="where somebody changed in mid-roll what the roll had arranged (processes and maximum sizes of "
        "groups, a paused cluster-autoscaler, taints): again: it is arranged again, and said; hold: the roll waits "
        "until it is as arranged",
    )
    roll_back: RollBack = Field(
        RollBack(), description="going back to the former version after a roll that failed at its canary or its gate"
    )
    approval: bool = Field(False, description="wait for approval after the plan")
    on_change: OnChange = Field(
        OnChange.ROLL,
        description="what a changed launch template or group starts: off: nothing; plan: a message with the plan; "
        "roll: a roll. Manual starts are not affected",
    )
    debounce_seconds: int = Field(
        60, ge=0, le=3600, description="quiet time after the last of several changes before they are planned together"
    )
    windows: tuple[Window, ...] = Field(
        (), description="when changes may start a roll; outside of them they wait for the next; none: at any time"
    )
    orphans_every_hours: int = Field(
        1, ge=1, le=24, description="how often to check for what dead rolls have left behind"
    )
    notifications: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", examples=["on-call@example.com"])], ...] = (
        Field(
            (), description="mail addresses that receive messages once confirmed; the topic takes other subscribers too"
        )
    )
    notify_hold_minutes: int = Field(
        30, ge=0, le=1440, description="send a message, once, when a step has held for this long; 0: never"
    )
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653] = (
        Field(90, description="how long logs are kept")
    )
    autoscaler: Autoscaler = Field(Autoscaler(), description="cluster-autoscaler, and how a roll treats it")
    healthy_target_floor: int = Field(
        1, ge=1, description="healthy targets that must remain in a target group when a node leaves it"
    )
    batch_seconds: int = Field(
        1800,
        ge=0,
        description="how long pods that end by themselves (Jobs', and others that are not started again) have to do so "
        "before they are evicted; 0: none",
    )
    dead_nodes: DeadNodes = Field(
        DeadNodes(), description="outdated nodes whose kubelet has fallen silent, and instances that never joined"
    )
    max_age_days: int = Field(
        0,
        ge=0,
        le=3650,
        description="age beyond which a roll replaces nodes although their version is their group's; 0: none",
    )
    accept: tuple[str, ...] = Field(
        (), description="codes of findings that are accepted beforehand, of all objects or as CODE:OBJECT"
    )
    namespace: str = Field(
        "kube-system",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        examples=["kube-system"],
        description="where the roll's lock (a Lease) lives; change it while no roll runs",
    )
    lease_seconds: int = Field(180, ge=15, description="a holder that does not renew the lock for this long loses it")
    deadlines: Deadlines = Field(
        Deadlines(), description="how long a step may hold before the roll gives up and restores"
    )
    bucket: str = Field("", description="where plans and reports are kept; set by the stack")
    topic: str = Field("", description="where messages go; set by the stack")

    @model_validator(mode="after")
    def _gate_outlasts_the_bake(self) -> "Settings":
        if self.deadlines.health_gate <= self.bake_seconds:
            raise ValueError(
                f"deadlines.health_gate ({self.deadlines.health_gate}) must be longer than "
                f"bake_seconds ({self.bake_seconds})"
            )
        return self

    @model_validator(mode="after")
    def _evicting_outlasts_batch_pods(self) -> "Settings":
        if self.deadlines.evict <= self.batch_seconds:
            raise ValueError(
                f"deadlines.evict ({self.deadlines.evict}) must be longer than batch_seconds ({self.batch_seconds})"
            )
        return self

    @model_validator(mode="after")
    def _deadlines_outlast_silence(self) -> "Settings":
        silent = self.dead_nodes.silent_seconds
        for step in ("replace_unjoined", "evict"):
            if self.dead_nodes.replace and (deadline := self.deadline(step) or 0) <= silent:
                raise ValueError(
                    f"deadlines.{step} ({deadline}) must be longer than dead_nodes.silent_seconds ({silent})"
                )
        return self

    @field_validator("alarms")
    @classmethod
    def _names_of_alarms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.startswith("arn:"):
                raise ValueError(f"alarms go by their names, not by their ARNs: {name.rpartition(':alarm:')[2]}")
        return names

    @field_validator("checks")
    @classmethod
    def _checks_fit_a_look(cls, checks: tuple[PageCheck, ...]) -> tuple[PageCheck, ...]:
        if (seconds := sum(check.timeout_seconds for check in checks)) > LONGEST_CHECKS:
            raise ValueError(f"the timeouts of all together ({seconds} s) must be {LONGEST_CHECKS} s at most")
        return checks

    @field_validator("hooks")
    @classmethod
    def _hooks_fit_a_look(cls, hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
        for moment in Moment:
            here = [hook for hook in hooks if hook.when is moment]
            if len({hook.name for hook in here}) < len(here):
                raise ValueError(f"two hooks of {moment} have the same name")
            if (seconds := sum(hook.timeout_seconds for hook in here)) > LONGEST_HOOKS:
                raise ValueError(f"the timeouts of {moment} together ({seconds} s) must be {LONGEST_HOOKS} s at most")
        return hooks

    def asks(self, moment: Moment) -> bool:
        """Whether any hook is asked then."""
        return any(hook.when is moment for hook in self.hooks)

    def deadline(self, step: str) -> int | None:
        """Seconds the named step may hold; None for steps that never do."""
        value = getattr(self.deadlines, step, None)
        return value if isinstance(value, int) else None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Settings":
        """Validates a settings document. Raises BadRequest naming every problem at once."""
        try:
            return cls.model_validate(dict(document))
        except ValidationError as error:
            raise BadRequest(f"The settings have {problems(error, cls)}.") from error

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, file: Path = FILE) -> "Settings":
        """Reads what the stack put beside the function's code and into its environment.

        Raises BadRequest if it is absent or wrong.
        """
        environment = os.environ if environment is None else environment
        text = environment.get(ENVIRONMENT_VARIABLE)
        if not text:
            raise BadRequest(f"The environment variable {ENVIRONMENT_VARIABLE} is not set; deploy the stack again.")
        beside = json.loads(file.read_text()) if file.exists() else {}
        return cls.parse(beside | json.loads(text))


def problems(error: ValidationError, model: type[BaseModel]) -> str:
    """Every problem of a validation as one phrase: what is wrong, where, and what is known there."""
    phrases = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "the document"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(_fields_at(model, problem["loc"][:-1])))
            phrases.append(f"{where} is not a known field (known: {known})")
        elif problem["type"] == "missing":
            phrases.append(f"{where} is missing")
        else:
            phrases.append(f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']!r}")
    count = f"{len(phrases)} problem{'s' if len(phrases) > 1 else ''}"
    return f"{count}: {'; '.join(phrases)}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    for part in path:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return set()
        model = annotation
    return set(model.model_fields)
