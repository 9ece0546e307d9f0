"""What goes on beside a roll happens once, when it is due, and is missed where the roll did not meet it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eks_rolling_cli.execution_history import Position
from eks_rolling_cli.roll_state import RollNodeState, RollState
from lab.lifecycle import LabError
from lab.meanwhile import Meanwhile
from lab.operator import Operator
from lab.spec import MeanwhileSpec

SPEC = MeanwhileSpec(begins=("jobs.yaml",), scales={"shop/burst": 6}, permits="shop/evictions")
DENIED = (
    "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'evictions' with binding 'evictions' denied request: not now"
)


@dataclass
class FakeLab:
    """Takes kubectl's commands; every Deployment has two replicas."""

    code: int = 0
    commands: list[str] = field(default_factory=list)

    def run(self, command: Sequence[str], **_: object) -> SimpleNamespace:
        self.commands.append(" ".join(command[:3]))
        return SimpleNamespace(returncode=self.code, stdout=json.dumps({"spec": {"replicas": 2}}), stderr="no")


def meanwhile(lab: FakeLab, spec: MeanwhileSpec = SPEC) -> Meanwhile:
    return Meanwhile(cast(Operator, cast(Any, SimpleNamespace(lab=lab))), spec)


def roll(*, ended: float | None = None, reason: str = "") -> RollState:
    node = RollNodeState("a", "i-1", ended=ended, at=Position(reason=reason))
    return RollState("r", "e", "RUNNING", 0.0, None, 1.0, Position(), nodes=(node,))


def test_nothing_happens_before_it_is_due() -> None:
    lab = FakeLab()
    going = meanwhile(lab)
    going.see(roll())
    assert (lab.commands, going.happened) == ([], [])
    assert going.missing == ["scaling up", "a ban on evictions"]


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
    assert going.missing == []


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
