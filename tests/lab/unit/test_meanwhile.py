"""What goes on beside a roll happens once, when it is due, and is missed where the roll did not meet it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eks_rolling_cli.execution_history import Position
from eks_rolling_cli.roll_state import RollNodeState, RollState
from lab import meanwhile as module
from lab.cluster_state import ClusterState
from lab.lifecycle import LabError
from lab.meanwhile import Meanwhile
from lab.operator import Operator
from lab.spec import MeanwhileSpec

SPEC = MeanwhileSpec(begins=("jobs.yaml",), scales={"shop/burst": 6}, permits="shop/evictions", grows="spare")
DENIED = (
    "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'evictions' with binding 'evictions' denied request: not now"
)


@dataclass
class FakeLab:
    """Takes kubectl's commands; its Deployment has two replicas, and room for so many. With more, the group `spare` has
    so many instances."""

    code: int = 0
    room: int = 6
    grown: int = 1
    replicas: int = 2
    commands: list[str] = field(default_factory=list)

    def run(self, command: Sequence[str], **_: object) -> SimpleNamespace:
        self.commands.append(" ".join(command[:3]))
        if command[1] == "scale":
            self.replicas = int(command[-1].partition("=")[2])
        found = {"spec": {"replicas": self.replicas}, "status": {"readyReplicas": min(self.replicas, self.room)}}
        return SimpleNamespace(returncode=self.code, stdout=json.dumps(found), stderr="no")

    def state(self) -> ClusterState:
        return ClusterState((), {"spare": {"desired": self.grown if self.replicas > 2 else 0}}, (), 1, ())


def meanwhile(lab: FakeLab, spec: MeanwhileSpec = SPEC) -> Meanwhile:
    return Meanwhile(cast(Operator, cast(Any, SimpleNamespace(lab=lab, state=lab.state))), spec)


def roll(*, ended: float | None = None, reason: str = "") -> RollState:
    node = RollNodeState("a", "i-1", ended=ended, at=Position(reason=reason))
    return RollState("r", "e", "RUNNING", 0.0, None, 1.0, Position(), nodes=(node,))


def test_nothing_happens_before_it_is_due() -> None:
    lab = FakeLab()
    going = meanwhile(lab)
    going.see(roll())
    assert (lab.commands, going.happened) == ([], [])
    assert going.missing == ["scaling up", "a node by cluster-autoscaler", "a ban on evictions"]


def test_each_happens_once() -> None:
    lab = FakeLab()
    going = meanwhile(lab)
    going.begin()
    for _ in range(2):
        going.see(roll(ended=5.0, reason=f"pod shop/a: its eviction is denied: {DENIED}"))
    assert lab.commands == [
        "kubectl apply --server-side",
        "kubectl get deployment",
        "kubectl scale deployment",
        "kubectl patch configmap",
    ]
    assert len(going.happened) == 3


def test_what_was_scaled_up_goes_back_once_it_has_room_and_the_group_that_grew_for_it_too() -> None:
    lab = FakeLab()
    before, going = lab.state(), meanwhile(lab)
    assert going.see(roll(ended=5.0, reason=DENIED)) == [
        "shop/burst was scaled to 6",
        f"a policy held the roll: {DENIED}",
    ]
    assert going.see(roll(ended=5.0, reason=DENIED)) == []
    assert going.end(before) == ["cluster-autoscaler raised spare from 0 to 1"]
    assert (lab.replicas, going.missing) == (2, [])


@pytest.mark.parametrize(
    ("room", "grown", "missed"),
    [(5, 1, "room for all that was scaled up"), (6, 0, "a node by cluster-autoscaler")],
)
def test_pods_without_room_and_a_group_that_stays_small_are_missed(
    monkeypatch: pytest.MonkeyPatch, room: int, grown: int, missed: str
) -> None:
    monkeypatch.setattr(module, "ROOM_SECONDS", 0.0)
    lab = FakeLab(room=room, grown=grown)
    before, going = lab.state(), meanwhile(lab)
    going.see(roll(ended=5.0, reason=DENIED))
    going.end(before)
    assert (lab.replicas, going.missing) == (2, [missed])


def test_what_was_never_scaled_up_is_left_alone() -> None:
    lab = FakeLab()
    assert meanwhile(lab).end(lab.state()) == []
    assert lab.commands == []


def test_a_refusal_by_a_budget_lifts_no_ban() -> None:
    lab = FakeLab()
    going = meanwhile(lab)
    going.see(roll(reason="pod shop/a: budget shop/a needs 2 healthy pods and has 2"))
    assert lab.commands == []


def test_a_spec_without_anything_misses_nothing() -> None:
    assert meanwhile(FakeLab(), MeanwhileSpec()).missing == []


def test_what_kubectl_refuses_is_a_fault_of_the_lab() -> None:
    with pytest.raises(LabError, match="kubectl apply failed"):
        meanwhile(FakeLab(code=1)).begin()
