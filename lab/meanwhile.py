"""What else happens in a cluster while it is rolled: Jobs at work, a Deployment that is scaled up, a ban on evictions
that is lifted once it has held the roll."""

import json
import time
from dataclasses import dataclass, field

from eks_rolling_cli.roll_state import RollState
from lab.cluster_state import ClusterState
from lab.kubectl import apply_command
from lab.lifecycle import LabError
from lab.operator import Operator
from lab.paths import REPOSITORY
from lab.spec import MeanwhileSpec

AS_BEFORE_SECONDS = 90.0
"""How long the autoscaler may take to remove what it added, once nobody needs it any more."""


@dataclass
class Meanwhile:
    """Does, once each, what a spec says; `happened` is what has."""

    operator: Operator
    spec: MeanwhileSpec
    happened: list[str] = field(default_factory=list)
    _scaled: bool = False
    _permitted: bool = False
    _before: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Before the change: work that cannot be begun again. Raises LabError."""
        if self.spec.begins:
            self._kubectl(*apply_command([str(REPOSITORY / file) for file in self.spec.begins])[1:])
            self.happened.append("Jobs began")

    def see(self, roll: RollState) -> None:
        """Does what is due by the state of the roll. Raises LabError."""
        if self.spec.scales and not self._scaled and any(n.ended for n in roll.nodes):
            self._scaled = True
            for deployment, replicas in self.spec.scales.items():
                namespace, _, name = deployment.partition("/")
                found = json.loads(self._kubectl("get", "deployment", name, "-n", namespace, "-o", "json"))
                self._before[deployment] = found["spec"]["replicas"]
                self._scale(deployment, replicas)
                self.happened.append(f"{deployment} was scaled to {replicas}")
        if self.spec.permits and not self._permitted:
            refused = [n.at.reason for n in roll.nodes if n.at.reason and "ValidatingAdmissionPolicy" in n.at.reason]
            if refused:
                self._permitted = True
                self._permit(self.spec.permits)
                self.happened.append(f"a policy held the roll: {refused[0]}")

    def end(self, before: ClusterState) -> None:
        """After the roll: the autoscaler is given time to remove what it added, and what was scaled up goes back.

        First to nothing: which pods a ReplicaSet removes is not to be relied on, and the autoscaler moves none. Raises
        LabError.
        """
        for deployment in self._before:
            self._scale(deployment, 0)
        deadline = time.monotonic() + AS_BEFORE_SECONDS
        while self._before and _sizes(self.operator.state()) != _sizes(before) and time.monotonic() < deadline:
            time.sleep(0.5)
        for deployment, replicas in self._before.items():
            self._scale(deployment, replicas)

    @property
    def missing(self) -> list[str]:
        """What the spec says and has not happened: the roll went by without having met it."""
        scaling = ["scaling up"] if self.spec.scales and not self._scaled else []
        return scaling + (["a ban on evictions"] if self.spec.permits and not self._permitted else [])

    def _permit(self, config_map: str) -> None:
        namespace, _, name = config_map.partition("/")
        patch = json.dumps({"data": {"evictions": "allowed"}})
        self._kubectl("patch", "configmap", name, "-n", namespace, "--type=merge", f"--patch={patch}")

    def _scale(self, deployment: str, replicas: int) -> None:
        namespace, _, name = deployment.partition("/")
        self._kubectl("scale", "deployment", name, "-n", namespace, f"--replicas={replicas}")

    def _kubectl(self, *command: str) -> str:
        done = self.operator.lab.run(["kubectl", *command], capture_output=True)
        if done.returncode != 0:
            raise LabError(f"kubectl {command[0]} failed", details=done.stderr)
        return str(done.stdout)


def _sizes(state: ClusterState) -> tuple[dict[str, int], dict[str, int]]:
    return {name: group["desired"] for name, group in state.groups.items()}, state.zones
