"""What the lab breaks on purpose, set and read over `/_lab/faults`.

Most of it is no more than AWS's ordinary weather (docs/aws.md says where AWS tells of it).
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST_REVIEW = 25
"""Seconds. 30 is the most that an authorization webhook may be given (Kubernetes docs, AuthorizationConfiguration)."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LambdaKill(_Model):
    """A share of the invocations loses its process, some time into it."""

    seed: int
    share: float = Field(ge=0, le=1)
    within_seconds: float = Field(ge=0, description="0: before it begins")
    functions: str = Field("", description="only functions whose name contains this")


class Throttle(_Model):
    """A share of a service's calls is answered as AWS answers too many of them."""

    seed: int
    share: float = Field(ge=0, le=1)
    services: tuple[str, ...]
    actions: tuple[str, ...] = Field((), description="only these, as in a policy: autoscaling:LaunchInstances")


class Refuse(_Model):
    """A share of an action's calls is answered with this error, the first `times` of them or all."""

    action: str = Field(description="as in a policy: autoscaling:SuspendProcesses")
    caller: str = Field("", description="only calls of roles whose ARN contains this")
    code: str
    message: str = "The lab was told to refuse."
    status: int = 400
    seed: int = 0
    share: float = Field(1.0, ge=0, le=1)
    times: int | None = Field(None, ge=1)


class Forbid(_Model):
    """A request of one of our roles to the API server is answered with 403, whatever RBAC says."""

    verb: str
    resource: str = Field(description="with its subresource, if any: pods/eviction")
    caller: str = Field("", description="only requests of users whose name contains this: a role's")


class Freeze(_Model):
    """The process of an invocation stands still from one call of its on (SIGSTOP), and then goes on, if its function's
    timeout has not ended it by then. It happens once. The call is carried out when the process goes on, and not at all
    if it does not."""

    caller: str = Field(description="a part of the role's name")
    action: str = Field("", description="the call to AWS, as in a policy")
    verb: str = Field("", description="else the request to the API server: its verb")
    resource: str = Field("", description="and its resource: leases")
    seconds: float = Field(gt=0)

    @model_validator(mode="after")
    def _one_call(self) -> Self:
        if bool(self.action) == bool(self.verb and self.resource):
            raise ValueError("either an action, or a verb and a resource")
        if self.verb and self.seconds > LONGEST_REVIEW:
            raise ValueError(f"the API server waits no longer than {LONGEST_REVIEW} s for a webhook")
        return self


class Asleep(_Model):
    """Functions in a VPC that nobody called for long are Inactive: the first call fails with ResourceNotReadyException,
    and so does every other one until their network is there again. Functions that were not called since the fault is in
    force have been left alone for long enough."""

    waking_seconds: float = Field(gt=0, description="from the first call on; AWS takes about a minute")
    after_seconds: float = Field(3600.0, gt=0, description="without a call a function falls asleep again")
    functions: str = Field("", description="only functions whose name contains this")


class Settling(_Model):
    """What was just launched or changed is not everywhere yet: EC2 does not know a new instance, Auto Scaling describes
    a group as it was."""

    seconds: float = Field(gt=0)


class NoCapacity(_Model):
    """EC2 has no room for another instance in these zones: for the first `times` launches, or as long as it lasts."""

    zones: tuple[str, ...] = Field((), description="all of them, where none is named")
    times: int | None = Field(None, ge=1)


class Latency(_Model):
    """Every call to these services takes so much longer."""

    seconds: float = Field(ge=0)
    services: tuple[str, ...]


class FaultSpec(_Model):
    """Every fault that there is; what is left out is not in force."""

    lambda_kill: LambdaKill | None = None
    throttle: Throttle | None = None
    refuse: tuple[Refuse, ...] = ()
    forbid: tuple[Forbid, ...] = ()
    freeze: Freeze | None = None
    asleep: Asleep | None = None
    settling: Settling | None = None
    no_capacity: NoCapacity | None = None
    registration_seconds: float = Field(0.0, ge=0, description="a new target stays `initial` for so long at least")
    termination_seconds: float = Field(0.0, ge=0, description="an instance stays `shutting-down` for so long at least")
    latency: Latency | None = None
    organization_denies: tuple[str, ...] = Field(
        (), description="no role may call these, as in a service control policy: ec2:CreateTags, autoscaling:*"
    )
    duplicate_events: bool = Field(False, description="EventBridge delivers every event twice")


_COUNTS = ("kills", "throttled", "refused", "forbidden", "frozen", "asleep", "no_capacity")
_THROTTLING = {
    "ec2": ("RequestLimitExceeded", 503),
    "eks": ("TooManyRequestsException", 429),
    "lambda": ("TooManyRequestsException", 429),
    "s3": ("SlowDown", 503),
    "stepfunctions": ("ThrottlingException", 400),
}


@dataclass(frozen=True)
class Refusal:
    """An error that a call is answered with."""

    code: str
    message: str
    status: int


class Faults:
    """The faults in force, and how often they struck. Each seed gives the same sequence of decisions again.

    `ordinary` are those of the lab's spec: they stay in force under whatever is put on top of them.
    """

    def __init__(self, ordinary: FaultSpec | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._ordinary = (ordinary or FaultSpec()).model_dump(exclude_unset=True)
        self._clock = clock
        self._lock = threading.Lock()
        self._dice: dict[str, random.Random] = {}
        self._struck = dict.fromkeys(_COUNTS, 0)
        self._times: dict[str, int] = {}
        self._called: dict[str, float] = {}
        self._woken: dict[str, float] = {}
        self.spec = FaultSpec()
        self.put({})

    def put(self, given: dict[str, Any]) -> None:
        """Replaces all faults but the ordinary ones; raises pydantic.ValidationError listing every problem. The counts
        start again."""
        spec = FaultSpec.model_validate(self._ordinary | given)
        with self._lock:
            if spec.asleep != self.spec.asleep:
                self._called.clear()
                self._woken.clear()
            self.spec = spec
            self._struck = dict.fromkeys(_COUNTS, 0)
            self._times = {}
            self._dice = {}

    def describe(self) -> dict[str, Any]:
        """The faults in force, with how often each struck since they are."""
        with self._lock:
            return self.spec.model_dump(mode="json", exclude_defaults=True) | self._struck

    def kill_after(self, function: str) -> float | None:
        """When to kill the process of an invocation that begins now: seconds from its start, None to leave it alone."""
        with self._lock:
            kill = self.spec.lambda_kill
            if kill is None or kill.functions not in function:
                return None
            dice = self._of("kill", kill.seed)
            # Both numbers are drawn in any case, so that one decision does not depend on the former.
            chance, fraction = dice.random(), dice.random()
            return fraction * kill.within_seconds if chance < kill.share else None

    def killed(self) -> None:
        """Counts a process killed in the middle of an invocation."""
        with self._lock:
            self._struck["kills"] += 1

    def refusal(self, service: str, action: str, caller: str = "") -> Refusal | None:
        """What a call that comes in now is to be answered with instead; counts it.

        `service` is moto's name of it, `action` the policy's (autoscaling:LaunchInstances), `caller` the role's ARN.
        """
        with self._lock:
            for number, refuse in enumerate(self.spec.refuse):
                meant = refuse.action == action and refuse.caller in caller
                if meant and self._strikes(f"refuse {number}", refuse.seed, refuse.share, refuse.times):
                    self._struck["refused"] += 1
                    return Refusal(refuse.code, refuse.message, refuse.status)
            throttle = self.spec.throttle
            if throttle is None or service not in throttle.services:
                return None
            if (throttle.actions and action not in throttle.actions) or not self._strikes(
                "throttle", throttle.seed, throttle.share
            ):
                return None
            self._struck["throttled"] += 1
            code, status = _THROTTLING.get(service, ("Throttling", 400))
            return Refusal(code, "Rate exceeded", status)

    def forbids(self, verb: str, resource: str, caller: str) -> bool:
        """Whether the API server is to refuse a request of that user's; counts it."""
        with self._lock:
            meant = any((f.verb, f.resource) == (verb, resource) and f.caller in caller for f in self.spec.forbid)
            self._struck["forbidden"] += meant
            return meant

    def freeze_seconds(self, caller: str, *, action: str = "", verb: str = "", resource: str = "") -> float:
        """For how long the process that makes this call now is to stand still, 0 for not at all; counts it."""
        with self._lock:
            freeze = self.spec.freeze
            if freeze is None or self._struck["frozen"] or freeze.caller not in caller:
                return 0.0
            if (freeze.action, freeze.verb, freeze.resource) != (action, verb, resource):
                return 0.0
            self._struck["frozen"] += 1
            return freeze.seconds

    def is_asleep(self, function: str) -> bool:
        """Whether a function that is called now is not there yet; the call wakes it. Counts it."""
        with self._lock:
            asleep = self.spec.asleep
            if asleep is None or asleep.functions not in function:
                return False
            now, called = self._clock(), self._called.get(function)
            if called is None or now - called > asleep.after_seconds:
                self._woken[function] = now
            self._called[function] = now
            sleeps = now - self._woken[function] < asleep.waking_seconds
            self._struck["asleep"] += sleeps
            return sleeps

    def has_no_capacity(self, zone: str) -> bool:
        """Whether EC2 is to launch no instance in the zone now; counts it."""
        with self._lock:
            full = self.spec.no_capacity
            if full is None or (full.zones and zone not in full.zones):
                return False
            strikes = self._strikes("no_capacity", 0, 1.0, full.times)
            self._struck["no_capacity"] += strikes
            return strikes

    def settling_seconds(self) -> float:
        """How long what was just made or changed is not seen everywhere."""
        return self.spec.settling.seconds if self.spec.settling else 0.0

    def delay(self, service: str) -> float:
        """Seconds to let a call to the service wait."""
        latency = self.spec.latency
        return latency.seconds if latency is not None and service in latency.services else 0.0

    def _of(self, fault: str, seed: int) -> random.Random:
        return self._dice.setdefault(fault, random.Random(seed))  # noqa: S311 (which calls fail is no secret)

    def _strikes(self, fault: str, seed: int, share: float, times: int | None = None) -> bool:
        if times is not None and self._times.get(fault, 0) >= times:
            return False
        strikes = self._of(fault, seed).random() < share
        self._times[fault] = self._times.get(fault, 0) + strikes
        return strikes
