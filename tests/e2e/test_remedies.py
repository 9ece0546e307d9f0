"""From each bad end of a roll in the lab: the command that is printed there, typed as printed, leaves nothing.

`tests/model/test_remedies.py` has every end; here the command, the terminal, the functions and the cluster are real.
"""

import re
from collections.abc import Callable

import pytest

from lab.cluster_state import ClusterState
from lab.operator import Operator
from tests.e2e.holding import dying_at, wait_until_at
from tests.e2e.terminal import typed_at_terminal
from tests.e2e.test_command import begin, run
from tests.e2e.test_stops import nobody_watching
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("third")]

End = Callable[[Operator], str]
"""Brings a roll to its end; its execution."""

LOOKS = ("rolls", "orphans", "watch --once")


def aborted_at(state: str) -> End:
    def end(operator: Operator) -> str:
        with dying_at(operator, state):
            execution = begin(operator)
            wait_until_at(operator, execution, state)
            run(operator, "abort", "--yes", "--reason", "a test")
        ended(operator, execution)
        return execution

    return end


def refused(action: str) -> End:
    """A step fails, as AWS refuses what it asks for, as long as nobody mends that."""

    def end(operator: Operator) -> str:
        operator.fault({"refuse": [{"action": action, "code": "ValidationError", "message": "It is broken."}]})
        execution = begin(operator)
        ended(operator, execution)
        return execution

    return end


def stopped_at(state: str) -> End:
    """Stopped by hand; the watchdog's restore comes."""

    def end(operator: Operator) -> str:
        with dying_at(operator, state):
            execution = begin(operator)
            wait_until_at(operator, execution, state)
            operator.rolls.stop(execution, "a test")
        until(lambda: restores(operator, execution) == ["SUCCEEDED"], "it is restored", within_seconds=240)
        return execution

    return end


def without_its_restore(state: str) -> End:
    """Stopped by hand, and nothing starts a restore."""

    def end(operator: Operator) -> str:
        with nobody_watching(operator), dying_at(operator, state):
            execution = begin(operator)
            wait_until_at(operator, execution, state)
            operator.rolls.stop(execution, "a test")
            ended(operator, execution)
        return execution

    return end


def restore_fails(operator: Operator) -> str:
    """Aborted, and nothing can be put back: the restore's calls are refused."""
    state = "Wait for the replacement"
    with dying_at(operator, state):
        execution = begin(operator)
        wait_until_at(operator, execution, state)
    broken = ("autoscaling:ResumeProcesses", "autoscaling:UpdateAutoScalingGroup")
    operator.fault({"refuse": [{"action": a, "code": "ValidationError", "message": "It is broken."} for a in broken]})
    assert run(operator, "abort", "--yes", "--wait", "--reason", "a test").returncode == 1
    return execution


def ended(operator: Operator, execution: str) -> None:
    until(lambda: not operator.rolls.progress(execution).running, "the roll has ended", within_seconds=300)


def restores(operator: Operator, execution: str) -> list[str]:
    roll = operator.rolls.executions.describe(execution)
    found = (operator.rolls.executions.describe(e) for e in operator.rolls.all_since(roll.started, "restore"))
    return [e.status for e in found if e.input.get("roll") == roll.name]


ENDS = [
    pytest.param(aborted_at("Wait for the replacement"), id="aborted, replacement unused"),
    pytest.param(aborted_at("Evict pods"), id="aborted, replacement in use"),
    pytest.param(refused("autoscaling:TerminateInstanceInAutoScalingGroup"), id="failed to end"),
    pytest.param(stopped_at("Leave the load balancers"), id="stopped"),
    pytest.param(without_its_restore("Taint every outdated node"), id="stopped, not restored"),
    pytest.param(restore_fails, id="restore failed"),
]


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("end", ENDS)
def test_the_printed_remedy_typed_as_printed_leaves_nothing(small_lab: Operator, end: End) -> None:
    """R2; whoever asks while it is done is answered, N1 and N2."""
    before = small_lab.settled_state()
    with small_lab.traffic():
        try:
            execution = end(small_lab)
        finally:
            small_lab.fault({})
        assert small_lab.rolls.progress(execution).status != "SUCCEEDED"
        settle(small_lab)
        command = remedy(small_lab, before)
        code, said = typed_at_terminal(small_lab, command)
        assert code == 0, said
    assert run(small_lab, "orphans").returncode == 0
    after = small_lab.settled_state()
    if " start" in command:
        assert {n.version for n in after.nodes} == {small_lab.newest_version()}
    assert after.restored(before), (before, after)
    verdict = small_lab.judge(None)
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)


def settle(operator: Operator) -> None:
    """Until nothing of the roll, or of what the watchdog started after it, is at work any more."""
    until(lambda: not operator.rolls.nodes_in_flight(), "no node is being replaced", within_seconds=120)
    restore = operator.rolls.machine("restore")
    until(lambda: not list(operator.rolls.executions.of(restore, "RUNNING")), "no restore runs", within_seconds=240)


def remedy(operator: Operator, before: ClusterState) -> str:
    """The first command that whoever looks is told to type; the one that finishes the roll, where nothing is left."""
    told = "\n".join(run(operator, *look.split()).stdout for look in LOOKS)
    found: list[str] = [c.strip() for c in re.findall(r"`(eks-rolling (?:start|restore)[^`\n]*)`", told)]
    if found:
        return found[0]
    assert run(operator, "orphans").returncode == 0, "something is left, and nothing says what to type"
    assert operator.state().restored(before)
    return f"eks-rolling start --cluster {operator.lab.spec.cluster}"
