"""What the lab breaks on purpose, set and read over `/_lab/faults`."""

import random
import threading
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


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


class Latency(_Model):
    """Every call to these services takes so much longer."""

    seconds: float = Field(ge=0)
    services: tuple[str, ...]


class FaultSpec(_Model):
    """Every fault that there is; what is left out is not in force."""

    lambda_kill: LambdaKill | None = None
    throttle: Throttle | None = None
    latency: Latency | None = None
    duplicate_events: bool = Field(False, description="EventBridge delivers every event twice")


class Faults:
    """The faults in force, and how often they struck. Each seed gives the same sequence of decisions again."""

    def __init__(self) -> None:
        self.spec = FaultSpec()
        self._lock = threading.Lock()
        self._kill_dice = random.Random()  # noqa: S311 (which calls fail: repeatable by its seed, and no secret)
        self._throttle_dice = random.Random()  # noqa: S311 (which calls fail: repeatable by its seed, and no secret)
        self._struck = {"kills": 0, "throttled": 0}

    def put(self, given: dict[str, Any]) -> None:
        """Replaces all faults; raises pydantic.ValidationError listing every problem. The counts start again."""
        spec = FaultSpec.model_validate(given)
        with self._lock:
            self.spec = spec
            self._struck = dict.fromkeys(self._struck, 0)
            self._kill_dice.seed(spec.lambda_kill.seed if spec.lambda_kill else None)
            self._throttle_dice.seed(spec.throttle.seed if spec.throttle else None)

    def describe(self) -> dict[str, Any]:
        """The faults in force, with the number of processes killed and calls throttled since they are."""
        with self._lock:
            return self.spec.model_dump(exclude_none=True) | self._struck

    def kill_after(self, function: str) -> float | None:
        """When to kill the process of an invocation that begins now: seconds from its start, None to leave it alone."""
        with self._lock:
            kill = self.spec.lambda_kill
            if kill is None or kill.functions not in function:
                return None
            # Both numbers are drawn in any case, so that one decision does not depend on the former.
            chance, fraction = self._kill_dice.random(), self._kill_dice.random()
            return fraction * kill.within_seconds if chance < kill.share else None

    def killed(self) -> None:
        """Counts a process killed in the middle of an invocation."""
        with self._lock:
            self._struck["kills"] += 1

    def throttles(self, service: str) -> bool:
        """Whether a call to the service that comes in now is to be answered with a throttling error; counts it."""
        with self._lock:
            throttle = self.spec.throttle
            strikes = (
                throttle is not None and service in throttle.services and self._throttle_dice.random() < throttle.share
            )
            self._struck["throttled"] += strikes
            return strikes

    def delay(self, service: str) -> float:
        """Seconds to let a call to the service wait."""
        latency = self.spec.latency
        return latency.seconds if latency is not None and service in latency.services else 0.0
