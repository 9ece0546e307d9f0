"""What people are told."""

import json
import re
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from pydantic.alias_generators import to_camel

from eks_rolling.documents.plan import PlanDocument
from eks_rolling.documents.report import Ending, NodePage, Orphan, Report
from eks_rolling.errors import AccessDenied
from eks_rolling.payloads import NodeTask, StepResult
from eks_rolling.report import messages
from eks_rolling.report.messages import HOLDING, LONGEST_SUBJECT, console, hold, restored, subject
from eks_rolling.report.verdict import answers, headline
from eks_rolling.runtime import Handler, handler_for
from eks_rolling.settings import Settings
from stacks.functions import HOOKS, ROLLBACK, STEPS, UNJOINED
from stacks.state_machine import REDIS_STATES
from tests.world import World

TOPIC = "arn:aws:sns:eu-central-1:123456789012:EksRolling-demo-Messages"
SETTINGS = Settings(cluster="demo", topic=TOPIC)
LINK = (
    "https://eu-central-1.console.aws.amazon.com/states/home?region=eu-central-1#/v2/executions/details/"
    "arn:aws:states:eu-central-1:123456789012:execution:eks-rolling-demo-roll:roll-1"
)
PAGE = (
    "https://eu-central-1.console.aws.amazon.com/s3/object/bucket?region=eu-central-1&prefix=rolls/roll-1/report.html"
)
TASK = NodeTask(roll="roll-1", instance="i-1", node="node-1", group="ng-a")


def ended(outcome: Ending, **more: Any) -> messages.Message:
    fields: dict[str, Any] = {"roll": "roll-1", "cluster": "demo", "outcome": outcome, "planned": 6, "replaced": 2}
    report = Report.model_validate(fields | more)
    return messages.ending(SETTINGS, report, "s3://bucket/rolls/roll-1/report.html", {})


@pytest.mark.parametrize("cluster", ["demo", "x" * 100])
@pytest.mark.parametrize("what", ["roll done", "node " + "n" * 200, "Ärger\nhier"])
def test_a_subject_is_one_that_the_service_takes(cluster: str, what: str) -> None:
    said = subject(cluster, what)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= LONGEST_SUBJECT


def test_a_long_name_of_a_cluster_is_cut_before_what_happened() -> None:
    assert subject("x" * 100, "roll failed, 2 of 6 nodes replaced").endswith("...: roll failed, 2 of 6 nodes replaced")


def test_the_link_leads_to_the_execution() -> None:
    assert console(SETTINGS, "roll-1") == LINK
    china = SETTINGS.model_copy(update={"topic": TOPIC.replace("aws", "aws-cn", 1)})
    assert console(china, "roll-1").startswith("https://eu-central-1.console.amazonaws.cn/")
    apart = SETTINGS.model_copy(update={"topic": TOPIC.replace("aws", "aws-eusc", 1)})
    assert console(apart, "roll-1").startswith("https://eu-central-1.console.amazonaws-eusc.eu/")


def test_where_the_console_is_not_known_no_link_leads_elsewhere() -> None:
    secret = SETTINGS.model_copy(update={"topic": TOPIC.replace("aws", "aws-iso", 1)})
    assert console(secret, "roll-1") == ""
    assert messages.openable(secret, "s3://bucket/rolls/roll-1/report.html") == "s3://bucket/rolls/roll-1/report.html"


def test_without_a_topic_there_is_no_link() -> None:
    assert console(Settings(cluster="demo"), "roll-1") == ""


@pytest.mark.parametrize(
    ("outcome", "said", "command"),
    [
        (Ending.REPLACED, "roll done, 2 of 6 nodes replaced", "report roll-1"),
        (Ending.NOTHING, "nothing to roll", "report roll-1"),
        (Ending.DRY_RUN, "plan: 6 nodes to replace", "start"),
        (Ending.BLOCKED, "roll blocked", "start"),
        (Ending.FAILED, "roll failed, 2 of 6 nodes replaced", "start"),
        (Ending.ABORTED, "roll aborted, 2 of 6 nodes replaced", "start"),
        (Ending.NOT_APPROVED, "roll not approved", "report roll-1"),
        (Ending.STOPPED, "roll stopped and restored, 2 of 6 nodes replaced", "start"),
    ],
)
def test_every_ending_says_what_happened_and_what_to_type(outcome: Ending, said: str, command: str) -> None:
    message = ended(outcome, reason="Why.")
    assert message.subject == f"demo: {said}"
    assert "Why." in message.text
    assert f"eks-rolling {command} --cluster demo --region eu-central-1" in message.text
    assert PAGE in message.text
    assert message.text.endswith(f"Roll: roll-1\n{LINK}")


def test_every_ending_has_words() -> None:
    for outcome in Ending:
        assert ended(outcome).subject


def test_what_is_left_behind_is_in_the_subject_and_has_one_remedy() -> None:
    """R2."""
    message = ended(Ending.FAILED, left_behind=["group ng-a keeps its maximum"])
    assert message.subject == "demo: roll failed, 2 of 6 nodes replaced, something is left behind"
    assert "- left behind: group ng-a keeps its maximum" in message.text
    assert "eks-rolling start --cluster demo --region eu-central-1" in message.text
    assert "desired capacity" not in message.text
    assert "eks-rolling restore" not in message.text


def test_nodes_that_failed_and_orphans_are_named() -> None:
    node = NodePage(node="node-1", instance="i-1", group="ng-a", outcome="failed", failure="No capacity.")
    orphan = Orphan(kind="taint", object="node node-7", remedy="restore")
    text = ended(Ending.FAILED, nodes=[node], orphans=[orphan]).text
    assert "- node-1: No capacity." in text
    assert "- orphan: taint: node node-7; restore" in text


def test_the_one_command_for_what_is_left_is_told_once_and_with_its_region() -> None:
    """R2: beside what only a person can do."""
    orphans = [
        Orphan(
            kind="taint on node", object="node-7: taint", remedy="`eks-rolling restore --cluster demo` puts it back"
        ),
        Orphan(kind="lock", object="x", remedy="the next roll finishes it: `eks-rolling start --cluster demo`"),
        Orphan(kind="standby instance", object="i-1 of ng-a", remedy="exit standby, or terminate it"),
    ]
    text = ended(Ending.FAILED, orphans=orphans).text
    assert re.findall(r"eks-rolling (?:start|restore)[^`]*", text) == [
        "eks-rolling start --cluster demo --region eu-central-1"
    ]
    assert "i-1 of ng-a; exit standby, or terminate it" in text


def test_one_minute_is_no_minutes_and_half_an_hour_no_hours() -> None:
    assert hold(SETTINGS, "r", "evict", "n", "why", since=0, now=60).subject == "demo: node n has waited for 1 minute"
    soon = SETTINGS.model_copy(update={"deadlines": SETTINGS.deadlines.model_copy(update={"approval": 1800})})
    text = messages.approval(soon, "roll-1", "1 node", "token", []).text
    assert "Without an answer the roll ends in 30 min." in text
    assert text.count("--region eu-central-1") == 4


def test_a_node_that_the_abort_ended_is_not_told_as_one_that_failed() -> None:
    why = "The roll was aborted: lunch."
    nodes = [NodePage(node=f"node-{i}", instance=f"i-{i}", group="g", outcome="aborted", failure=why) for i in range(9)]
    assert ended(Ending.ABORTED, reason=why, nodes=nodes).text.count("lunch") == 1


def test_what_is_left_behind_is_told_once_and_nothing_is_said_to_be_put_back() -> None:
    """R2: a size that stays raised, and the tag that says so, are one thing."""
    left = "group ng-a keeps the maximum size 5 (was 3) while its desired capacity is 5; the next roll finishes it"
    orphans = [
        Orphan(kind="tag on group", object="ng-a: the maximum size was raised from 3 to 5", remedy="start"),
        Orphan(kind="tag on group", object="ng-ab: the maximum size was raised from 3 to 5", remedy="start"),
        Orphan(kind="taint on node", object="node-7: taint", remedy="start"),
    ]
    message = ended(Ending.STOPPED, left_behind=[left], orphans=orphans)
    assert message.text.count("ng-a ") + message.text.count("ng-a:") == 1
    assert "orphan: tag on group: ng-ab" in message.text
    assert "orphan: taint on node: node-7" in message.text
    assert "not everything it had changed was put back" in message.text
    assert "and restored" not in message.subject
    report = Report(roll="r", cluster="demo", outcome=Ending.STOPPED, left_behind=(left,), orphans=tuple(orphans))
    assert headline(report) == "The roll was stopped and not everything was put back"
    assert answers(report)[-1].headline == "3 things"


def test_a_long_hold_says_who_waits_why_since_when_until_when_and_what_to_do() -> None:
    message = hold(SETTINGS, "roll-1", "evict", "node-1", "pod a: its budget allows none", 0.0, 1860.0)
    assert message.subject == "demo: node node-1 has waited for 31 minutes"
    for part in (
        "since 1970-01-01 00:00 UTC",
        "It waits because: pod a: its budget allows none",
        "At 1970-01-01 01:00 UTC it gives up",
        "eks-rolling explain node-1 --cluster demo --region eu-central-1",
        "eks-rolling abort roll-1 --cluster demo --region eu-central-1",
        LINK,
    ):
        assert part in message.text


def test_a_restore_after_the_report_says_what_it_put_back() -> None:
    message = restored(SETTINGS, "roll-1", ("maximum back to 3", "maximum back to 3"), ())
    assert (message.subject, message.text.count("maximum back to 3")) == ("demo: restored after a roll", 1)
    left = restored(SETTINGS, "roll-1", (), ("a thing",))
    assert left.subject == "demo: restored, but something is left behind"


# Who is woken, and in which form


@pytest.mark.parametrize(
    ("outcome", "more", "severity"),
    [
        (Ending.REPLACED, {}, "info"),
        (Ending.NOTHING, {}, "info"),
        (Ending.DRY_RUN, {}, "info"),
        (Ending.NOT_APPROVED, {}, "info"),
        (Ending.ABORTED, {}, "info"),
        (Ending.STOPPED, {"reason": "The roll's execution was stopped: aborted: not needed (ann)."}, "info"),
        (Ending.BLOCKED, {}, "warning"),
        (Ending.FAILED, {}, "critical"),
        (Ending.STOPPED, {"reason": "The roll's execution took longer than its deadline."}, "critical"),
        (Ending.ABORTED, {"left_behind": ["a thing"]}, "critical"),
        (Ending.REPLACED, {"orphans": [Orphan(kind="taint", object="node-1")]}, "critical"),
    ],
)
def test_only_what_needs_a_person_wakes_one(outcome: Ending, more: dict[str, Any], severity: str) -> None:
    message = ended(outcome, **more)
    assert message.attributes == {
        "kind": "ended", "severity": severity, "outcome": outcome, "cluster": "demo", "roll": "roll-1"
    }  # fmt: skip


MESSAGES = ("begun", "begun by a change", "approval", "hold", "done", "failed", "left behind")


def every_message() -> dict[str, messages.Message]:
    plan = PlanDocument.model_validate(
        {"outcome": "roll", "cluster": "demo", "reason": "6 nodes", "request": {"trigger": "ann"},
         "estimate": {"seconds": 1560}}
    )  # fmt: skip
    return {
        "begun": messages.begun(SETTINGS, "roll-1", 6, plan),
        "begun by a change": messages.begun(SETTINGS, "roll-1", 6, None),
        "approval": messages.approval(SETTINGS, "roll-1", "6 nodes", "token", [plan]),
        "hold": hold(SETTINGS, "roll-1", "evict", "node-1", "why", 0.0, 1860.0),
        "done": ended(Ending.REPLACED, reason="6 of 6 nodes were replaced"),
        "failed": ended(Ending.FAILED, reason="x" * 20_000),
        "left behind": restored(SETTINGS, "roll-1", (), ("a thing",)),
    }


class Content(BaseModel, extra="forbid", alias_generator=to_camel):
    text_type: Literal["client-markdown"]
    title: str = Field(min_length=1, max_length=250)
    description: str = Field(min_length=1, max_length=8000)
    next_steps: list[str]
    keywords: list[str]


class Metadata(BaseModel, extra="forbid", alias_generator=to_camel):
    thread_id: str
    summary: str
    event_type: str
    additional_context: dict[str, str]


class CustomNotification(BaseModel):
    """Of AWS's chat integration: docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html."""

    version: Literal["1.0"]
    source: Literal["custom"]
    content: Content
    metadata: Metadata


@pytest.mark.parametrize("name", MESSAGES)
def test_subscribers_by_https_get_what_the_chat_integration_takes(name: str) -> None:
    message = every_message()[name]
    document = json.loads(message.for_programs)
    CustomNotification.model_validate(document, strict=True)
    if message.severity != "critical":
        assert document.keys() == CustomNotification.model_fields.keys()
    assert document["metadata"]["threadId"] == "roll-1"


@pytest.mark.parametrize("name", MESSAGES)
def test_what_wakes_a_person_is_an_alarm_to_pagerduty_that_names_its_roll_and_nothing_else_is(name: str) -> None:
    """Its CloudWatch integration drops what has no `NewStateValue`, or another one than the subject."""
    message = every_message()[name]
    document = json.loads(message.for_programs)
    if message.severity == "critical":
        assert message.heading.startswith("ALARM: demo: ")
        assert (document["NewStateValue"], document["AlarmName"]) == ("ALARM", "eks-rolling demo roll-1")
    else:
        assert message.heading == message.subject
        assert "NewStateValue" not in document
    assert len(message.heading) <= LONGEST_SUBJECT


def test_that_a_roll_has_begun_is_said_with_who_and_what_and_how_to_end_it() -> None:
    message = every_message()["begun"]
    assert message.subject == "demo: roll begun by ann, 6 nodes to replace, about 26 min"
    assert "eks-rolling abort roll-1 --cluster demo --region eu-central-1" in message.text
    assert "a change of a launch template" in every_message()["begun by a change"].text


def test_a_link_is_one_that_a_browser_opens() -> None:
    assert messages.openable(SETTINGS, "s3://bucket/rolls/roll-1/report.html") == PAGE
    assert messages.openable(SETTINGS, "written to this machine") == "written to this machine"
    assert messages.openable(Settings(cluster="demo"), "s3://b/k") == "s3://b/k"


@pytest.mark.parametrize("name", MESSAGES)
def test_every_command_in_a_message_names_cluster_and_region(name: str) -> None:
    message = every_message()[name]
    for said in re.findall(
        r"eks-rolling (?:start|watch|pause|abort|approve|refuse|report|explain)[^`\n]*", message.text
    ):
        assert "--cluster demo --region eu-central-1" in said


class TestHolds:
    """As the handler of a step tells of them."""

    @staticmethod
    def evicting(result: StepResult) -> Handler[NodeTask]:
        def run(task: NodeTask, clients: Any) -> StepResult:
            return result

        run.__module__ = "eks_rolling.steps.evict"
        return handler_for(run, NodeTask, locked=False)

    def test_a_hold_is_told_once_when_it_is_long_enough(self) -> None:
        world, notified_at, since = World(), None, None
        handler = self.evicting(StepResult.wait("no budget", 10))
        clients = world.clients(SETTINGS)
        for _ in range(40):
            result = handler.run(TASK.model_copy(update={"since": since, "notified_at": notified_at}), clients)
            since, notified_at = result.since, result.notified_at
            world.time += 60
        ((subject, text),) = world.messages
        assert subject == "demo: node node-1 has waited for 30 minutes"
        assert "no budget" in text

    def test_a_hold_that_begins_anew_is_told_anew(self) -> None:
        world = World()
        result = StepResult.wait("no budget", 10).model_copy(update={"since": world.time - 1800})
        task = TASK.model_copy(update={"since": world.time - 3000, "notified_at": world.time - 1801})
        assert self.evicting(result).run(task, world.clients(SETTINGS)).notified_at == world.time
        assert len(world.messages) == 1

    def test_nobody_is_told_where_nobody_wants_to_be(self) -> None:
        world = World()
        quiet = SETTINGS.model_copy(update={"notify_hold_minutes": 0})
        task = TASK.model_copy(update={"since": world.time - 3000})
        assert self.evicting(StepResult.wait("no budget", 10)).run(task, world.clients(quiet)).notified_at is None
        assert world.messages == []

    def test_a_message_that_cannot_be_sent_keeps_no_step_from_its_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: str) -> None:
            raise AccessDenied("The role may not publish: allow sns:Publish.")

        world = World()
        monkeypatch.setattr(World, "notify", refused)
        task = TASK.model_copy(update={"since": world.time - 3000})
        assert self.evicting(StepResult.wait("no budget", 10)).run(task, world.clients(SETTINGS)).reason == "no budget"


def test_exactly_the_steps_that_tell_of_something_may_publish() -> None:
    redis = {action for _, action in REDIS_STATES.values()}
    assert redis < HOLDING
    tells = (HOLDING - redis) | {"ask_approval", "report"} | {function for function, _ in REDIS_STATES.values()}
    assert {
        step for step, permissions in {**STEPS, **HOOKS, **ROLLBACK, **UNJOINED}.items() if permissions.notifies
    } == tells


@pytest.mark.parametrize("letter", ["n", "\u00e4", "\U0001f600", '"'])
def test_a_message_about_any_number_of_things_is_one_that_the_service_takes(letter: str) -> None:
    """262,144 bytes at most, attributes included; what is cut is in the middle."""
    left = tuple(f"node-{number}-{letter * 300} stays as it is" for number in range(1000))
    message = ended(Ending.FAILED, left_behind=left)
    attributes = sum(len(name) + len(value) + len("String") for name, value in message.attributes.items())
    assert len(message.body.encode()) + attributes + len(message.heading) <= 262_144
    said = json.loads(message.body)
    assert said["default"].startswith(message.text[:1000])
    assert said["default"].endswith(message.text[-1000:])
    assert "the report has all of it" in said["default"]
    assert said["https"] == message.for_programs


def test_a_message_that_fits_is_sent_whole() -> None:
    message = ended(Ending.FAILED, left_behind=("node-1 stays as it is",))
    assert json.loads(message.body) == {"default": message.text, "https": message.for_programs}
