"""What an execution does that received a change [R4]."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.aws import Group, LaunchTemplate
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import ChangeTask, Status
from eks_rolling.roll.pending_change import ChangeEvent, PendingChange
from eks_rolling.settings import Settings, Window
from eks_rolling.steps import receive_change
from eks_rolling.steps.receive_change import Decision, Joined, Plan, StayPending
from tests.world import World

NEXT, LOCK = "kube-system/eks-rolling-next", "kube-system/eks-rolling"
SETTINGS = Settings(cluster="demo", debounce_seconds=60, lease_seconds=100)
NOBODY = PendingChange(Lease(NEXT))


def decide(
    memory: PendingChange,
    roll: str,
    now: float,
    *,
    change: int = 0,
    lock: Lease | None = None,
    settings: Settings = SETTINGS,
) -> Decision:
    return receive_change.decide(memory, lock, ChangeTask(roll=roll, change=change, since=0.0), now, settings)


def waiting(decision: Decision) -> StayPending:
    assert isinstance(decision, StayPending)
    return decision


def written(decision: Decision) -> PendingChange:
    assert isinstance(decision, (StayPending, Plan))
    assert decision.lease is not None
    return PendingChange(replace(decision.lease, resource_version="1"))


def test_the_first_change_takes_the_memory_and_waits_for_quiet() -> None:
    decision = waiting(decide(NOBODY, "a", 1000))
    memory = written(decision)
    assert (memory.lease.holder, memory.changes, memory.seen, memory.seen_by) == ("a", 1, 1, "a")
    assert (decision.change, decision.seconds) == (1, 60)


def test_a_lease_outlasts_the_wait_it_was_written_before() -> None:
    memory = written(decide(NOBODY, "a", 1000))
    assert not memory.lease.expired(1060 + 99)
    assert memory.lease.expired(1060 + 101)


def test_a_second_change_stays_until_the_holder_has_seen_it_and_then_ends() -> None:
    held = written(decide(NOBODY, "a", 1000))
    arrival = waiting(decide(held, "b", 1000.1))
    joined = written(arrival)
    assert (joined.lease.holder, joined.changes, joined.seen) == ("a", 2, 1)
    assert arrival.change == 2
    assert waiting(decide(joined, "b", 1061, change=2)).lease is None
    seen = written(decide(joined, "a", 1060, change=1))
    assert decide(seen, "b", 1062, change=2) == Joined("a")


def test_a_later_change_puts_the_plan_off_a_little_and_not_for_ever() -> None:
    memory = written(decide(NOBODY, "a", 1000))
    memory = written(decide(memory, "b", 1040))
    assert waiting(decide(memory, "a", 1060, change=1)).seconds == pytest.approx(40)
    for late in range(2, 20):
        memory = written(decide(memory, "c", 1000 + 30 * late))
        memory = replace(memory, lease=replace(memory.lease, renewed=1000 + 30 * late))
    assert isinstance(decide(memory, "a", 1301, change=1), Plan)


def test_the_memory_is_given_up_before_the_plan_with_every_change_seen() -> None:
    memory = written(decide(NOBODY, "a", 1000))
    memory = written(decide(memory, "b", 1000.1))
    given_up = written(decide(memory, "a", 1061, change=1))
    assert (given_up.lease.holder, given_up.seen) == ("", 2)
    assert decide(given_up, "b", 1062, change=2) == Joined("a")


def test_who_was_killed_after_giving_it_up_plans_when_it_runs_again() -> None:
    """R3."""
    memory = written(decide(NOBODY, "a", 1000))
    given_up = written(decide(memory, "a", 1061, change=1))
    assert decide(given_up, "a", 1062, change=1) == Plan(None)


def test_who_was_killed_after_it_arrived_goes_on_as_the_holder() -> None:
    """R3: the number is taken once."""
    memory = written(decide(NOBODY, "a", 1000))
    again = waiting(decide(memory, "a", 1001))
    assert (again.change, written(again).changes) == (1, 1)


def test_a_change_after_the_memory_was_given_up_has_a_holder_of_its_own() -> None:
    given_up = written(decide(written(decide(NOBODY, "a", 1000)), "a", 1061, change=1))
    decision = waiting(decide(given_up, "b", 1062))
    assert (written(decision).lease.holder, decision.change, decision.seconds) == ("b", 2, 60)


def test_a_dead_holder_is_taken_over_by_who_has_not_been_seen() -> None:
    """R4: within its lease."""
    held = written(decide(NOBODY, "a", 1000))
    joined = written(decide(held, "b", 1010))
    decision = decide(joined, "b", 1161, change=2)
    taken = written(decision)
    assert isinstance(decision, Plan)
    assert (taken.seen, taken.seen_by) == (2, "b")


def test_a_holder_that_was_thought_dead_and_comes_back_ends() -> None:
    held = written(decide(NOBODY, "a", 1000))
    taken = written(decide(held, "b", 1200))
    assert decide(taken, "a", 1201, change=1) == Joined("b")


def test_a_memory_that_somebody_deleted_is_begun_again_and_the_change_goes_on() -> None:
    taken = written(decide(NOBODY, "b", 1100, change=7))
    assert (taken.changes, taken.seen) == (7, 7)


def test_a_roll_at_work_is_waited_for_without_quiet_time_to_come() -> None:
    """R4."""
    memory = written(decide(NOBODY, "a", 1000))
    lock = Lease(LOCK, "roll-1", renewed=1000, duration=180)
    held = waiting(decide(memory, "a", 1100, change=1, lock=lock))
    assert "roll-1 is running" in held.reason
    assert written(held).lease.holder == "a"
    assert isinstance(decide(memory, "a", 1181, change=1, lock=lock), Plan)
    assert isinstance(decide(memory, "a", 1100, change=1, lock=replace(lock, holder="")), Plan)


NIGHT = Settings(cluster="demo", debounce_seconds=60, lease_seconds=100, windows=(Window(start="22:00", end="04:00"),))


def test_outside_the_windows_it_waits_at_most_a_quarter_of_an_hour_a_look() -> None:
    noon = 1_700_000_000 - 1_700_000_000 % 86400 + 12 * 3600
    memory = written(decide(NOBODY, "a", noon, settings=NIGHT))
    held = waiting(decide(memory, "a", noon + 61, change=1, settings=NIGHT))
    assert held.reason.startswith("outside the windows; the next opens Tue 14 Nov 22:00 UTC")
    assert held.seconds == 900
    assert not written(held).lease.expired(noon + 61 + 900 + 99)
    almost = waiting(decide(written(held), "a", noon + 10 * 3600 - 30, change=1, settings=NIGHT))
    assert almost.seconds == 30
    assert isinstance(decide(written(almost), "a", noon + 10 * 3600, change=1, settings=NIGHT), Plan)


def test_a_plan_alone_waits_for_no_window() -> None:
    noon = 1_700_000_000 - 1_700_000_000 % 86400 + 12 * 3600
    plans = NIGHT.model_copy(update={"on_change": "plan"})
    memory = written(decide(NOBODY, "a", noon, settings=plans))
    assert isinstance(decide(memory, "a", noon + 61, change=1, settings=plans), Plan)


def event(name: str, request: dict[str, Any], response: dict[str, Any] | None = None) -> dict[str, Any]:
    ec2 = name != "UpdateAutoScalingGroup"
    return {
        "id": "e-1",
        "detail-type": "AWS API Call via CloudTrail",
        "detail": {
            "eventName": name,
            "requestParameters": {f"{name}Request": request} if ec2 else request,
            "responseElements": {f"{name}Response": response} if response else None,
        },
    }


GROUPS = [
    Group("workers", template=LaunchTemplate("lt-1", "$Latest"), overrides=(("m6i", LaunchTemplate("lt-2", "3")),)),
    Group("managed", template=LaunchTemplate("lt-3", "1"), tags={"eks:nodegroup-name": "n"}),
]


@pytest.mark.parametrize(
    ("event_", "concerns"),
    [
        (event("CreateLaunchTemplateVersion", {"LaunchTemplateId": "lt-1"}), True),
        (event("CreateLaunchTemplateVersion", {"LaunchTemplateId": "lt-2"}), True),
        (event("CreateLaunchTemplateVersion", {"LaunchTemplateId": "lt-3"}), False),
        (event("CreateLaunchTemplateVersion", {"LaunchTemplateId": "lt-9"}), False),
        (
            event(
                "CreateLaunchTemplateVersion",
                {"LaunchTemplateName": "n"},
                {"launchTemplateVersion": {"launchTemplateId": "lt-1"}},
            ),
            True,
        ),
        (
            event(
                "ModifyLaunchTemplate", {"LaunchTemplateName": "n"}, {"launchTemplate": {"launchTemplateId": "lt-9"}}
            ),
            False,
        ),
        (event("ModifyLaunchTemplate", {"LaunchTemplateName": "n"}), True),
        (event("UpdateAutoScalingGroup", {"autoScalingGroupName": "workers"}), True),
        (event("UpdateAutoScalingGroup", {"autoScalingGroupName": "others"}), False),
        ({"detail-type": "Scheduled Event", "detail": {}}, True),
        ({"detail-type": "x", "detail": "y"}, True),
    ],
)
def test_a_change_of_what_no_group_launches_is_none_of_ours(event_: dict[str, Any], concerns: bool) -> None:
    assert ChangeEvent.read(event_).concerns(GROUPS) is concerns


class TestRun:
    def setup_method(self) -> None:
        self.world = World()
        self.world.group("workers", maximum=1)

    def clients(self, on_change: str = "roll") -> Clients:
        return self.world.clients(Settings.parse({"cluster": "demo", "debounce_seconds": 0, "on_change": on_change}))

    def received(self, template: str, on_change: str = "roll") -> tuple[Status, str, dict[str, Any]]:
        task = ChangeTask(roll="a", input=event("CreateLaunchTemplateVersion", {"LaunchTemplateId": template}))
        result = receive_change.run(task, self.clients(on_change))
        return result.status, result.reason, result.output

    def test_switched_off_it_ends_with_a_sentence_and_writes_nothing(self) -> None:
        status, reason, output = self.received("lt-workers", "off")
        assert (status, output) == (Status.DONE, {"next": "end"})
        assert reason == "CreateLaunchTemplateVersion (e-1): changes do not start rolls here (setting on_change)"
        assert self.world.effects == []

    def test_what_concerns_no_group_of_the_cluster_ends_and_writes_nothing(self) -> None:
        assert self.received("lt-other")[1:] == (
            "CreateLaunchTemplateVersion (e-1) affects no group of demo",
            {"next": "end"},
        )
        assert self.world.effects == []

    @pytest.mark.parametrize(("on_change", "dry"), [("plan", True), ("roll", False)])
    def test_a_settled_change_becomes_a_request(self, on_change: str, dry: bool) -> None:
        status, _, output = self.received("lt-workers", on_change)
        assert status is Status.DONE
        assert output == {
            "next": "plan",
            "request": {"trigger": "CreateLaunchTemplateVersion (e-1)", "dry_run": dry},
        }
