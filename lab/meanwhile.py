"""What else happens in a cluster while it is rolled: Jobs at work, a Deployment that is scaled up beyond the room that
there is, a ban on evictions that is lifted once it has held the roll."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eks_rolling_cli.roll_state import RollState
from lab.cluster_state import ClusterState
from lab.kubectl import apply_command
from lab.lifecycle import LabError
from lab.operator import Operator
from lab.paths import REPOSITORY
from lab.spec import MeanwhileSpec

ROOM_SECONDS = 90.0
"""How long pods of what was scaled up may still wait for room once the roll has ended."""

AS_BEFORE_SECONDS = 90.0
"""How long the autoscaler may take to remove what it added, once nobody needs it any more."""


@dataclass
class Meanwhile:
    """Does, once each, what a spec says; `happened` is what has, a line each."""

    operator: Operator
    spec: MeanwhileSpec
    happened: list[str] = field(default_factory=list)
    _scaled: bool = False
    _permitted: bool = False
    _before: dict[str, int] = field(default_factory=dict)
    _had_room: bool = False
    _grew: bool = False

    def begin(self) -> None:
        """Before the change: work that cannot be begun again. Raises LabError."""
        if self.spec.begins:
            self._kubectl(*apply_command([str(REPOSITORY / file) for file in self.spec.begins])[1:])
            self.happened.append("Jobs began")

    def see(self, roll: RollState) -> list[str]:
        """Does what is due by the state of the roll, and says what. Raises LabError."""
        told = len(self.happened)
        if self.spec.scales and not self._scaled and any(n.ended for n in roll.nodes):
            self._scaled = True
            for deployment, replicas in self.spec.scales.items():
                self._before[deployment] = self._deployment(deployment)["spec"]["replicas"]
                self._scale(deployment, replicas)
                self.happened.append(f"{deployment} was scaled to {replicas}")
        if self.spec.permits and not self._permitted:
            refused = [n.at.reason for n in roll.nodes if n.at.reason and "ValidatingAdmissionPolicy" in n.at.reason]
            if refused:
                self._permitted = True
                self._permit(self.spec.permits)
                self.happened.append(f"a policy held the roll: {refused[0]}")
        return self.happened[told:]

    def end(self, before: ClusterState) -> list[str]:
        """After the roll: what was scaled up has room for all its pods, and goes back to what it was; the autoscaler is
        given time to remove what it added. Says what happened; raises LabError.

        First to nothing: which pods a ReplicaSet removes is not to be relied on, and the autoscaler moves none.
        """
        if not self._before:
            return []
        told = len(self.happened)
        self._had_room = _within(ROOM_SECONDS, lambda: all(self._is_whole(each) for each in self._before))
        self._see_growth(before)
        for deployment in self._before:
            self._scale(deployment, 0)
        _within(AS_BEFORE_SECONDS, lambda: _sizes(self.operator.state()) == _sizes(before))
        for deployment, replicas in self._before.items():
            self._scale(deployment, replicas)
        return self.happened[told:]

    def _is_whole(self, deployment: str) -> bool:
        found = self._deployment(deployment)
        return bool(found.get("status", {}).get("readyReplicas", 0) >= found["spec"]["replicas"])

    def _see_growth(self, before: ClusterState) -> None:
        group = self.spec.grows
        if group is None:
            return
        was, now = (state.groups[group]["desired"] for state in (before, self.operator.state()))
        self._grew = now > was
        if self._grew:
            self.happened.append(f"cluster-autoscaler raised {group} from {was} to {now}")

    @property
    def missing(self) -> list[str]:
        """What the spec says and has not happened: the roll went by without having met it."""
        missed = {
            "scaling up": self.spec.scales and not self._scaled,
            "room for all that was scaled up": self._scaled and not self._had_room,
            "a node by cluster-autoscaler": self.spec.grows and not self._grew,
            "a ban on evictions": self.spec.permits and not self._permitted,
        }
        return [what for what, is_missed in missed.items() if is_missed]

    def _permit(self, config_map: str) -> None:
        namespace, _, name = config_map.partition("/")
        patch = json.dumps({"data": {"evictions": "allowed"}})
        self._kubectl("patch", "configmap", name, "-n", namespace, "--type=merge", f"--patch={patch}")

    def _deployment(self, deployment: str) -> dict[str, Any]:
        namespace, _, name = deployment.partition("/")
        found: dict[str, Any] = json.loads(self._kubectl("get", "deployment", name, "-n", namespace, "-o", "json"))
        return found

    def _scale(self, deployment: str, replicas: int) -> None:
        namespace, _, name = deployment.partition("/")
        self._kubectl("scale", "deployment", name, "-n", namespace, f"--replicas={replicas}")

    def _kubectl(self, *command: str) -> str:
        done = self.operator.lab.run(["kubectl", *command], capture_output=True)
        if done.returncode != 0:
            raise LabError(f"kubectl {command[0]} failed", details=done.stderr)
        return str(done.stdout)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition holds by then."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _sizes(state: ClusterState) -> tuple[dict[str, int], dict[str, int]]:
    return {name: group["desired"] for name, group in state.groups.items()}, state.zones
