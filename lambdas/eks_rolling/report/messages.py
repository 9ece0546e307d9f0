"""Messages to the topic: what happened, why, and what to type next. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from eks_rolling import legible
from eks_rolling.documents.plan import PlanDocument
from eks_rolling.documents.plan_text import plan_text
from eks_rolling.documents.remedies import typed, way_out
from eks_rolling.documents.report import Ending, Report
from eks_rolling.names import machine_name
from eks_rolling.settings import Deadlines, Settings
from eks_rolling.wording import counted, spoken

LONGEST_SUBJECT = 99
"""SNS takes subjects of fewer than 100 characters, of ASCII, on one line (API reference, Publish)."""

HOLDING = frozenset(Deadlines.model_fields) - {"receive_change", "approval", "roll"}
"""Steps whose long holds are worth a message. A change that waits for its window is not: it waits as configured."""

CANCELLED = "aborted: "
"""How the cause begins with which the command stops a roll that has changed nothing yet."""

CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-eusc": "console.amazonaws-eusc.eu",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
"""Partition -> the console's domain; no link leads into another one."""


class Topic(StrEnum):
    """What a message is about: the message attribute `kind`, by which subscriptions choose."""

    BEGUN = "begun"
    APPROVAL = "approval"
    HOLD = "hold"
    ENDED = "ended"
    RESTORED = "restored"


class Urgency(StrEnum):
    """Who has to look at it, and when: the message attribute `severity`. `critical` needs a person now."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


LONGEST_TITLE, LONGEST_DESCRIPTION, LONGEST_STEP, MOST_STEPS = 250, 8000, 350, 10
"""What AWS's chat integration shows of a custom notification (Amazon Q Developer in chat applications, custom-notifs).
"""


LONGEST_BODY = 240_000
"""Bytes of a message with all of its forms: SNS takes 262,144, attributes included (API reference, Publish)."""

TAIL = 2_000
"""Characters at the end of a text that is cut: what to do next, and where to look."""


@dataclass(frozen=True, slots=True)
class Message:
    """What people are told. `steps` are what they may do next, one command or sentence each."""

    subject: str
    text: str
    cluster: str
    roll: str
    kind: Topic
    severity: Urgency = Urgency.INFO
    outcome: str = ""
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", legible.lines(self.text))
        object.__setattr__(self, "steps", tuple(map(legible.line, self.steps)))

    @property
    def pages(self) -> bool:
        return self.severity is Urgency.CRITICAL

    @property
    def heading(self) -> str:
        """The subject as it is sent. PagerDuty's CloudWatch integration takes only what begins like an alarm's."""
        return f"ALARM: {self.subject}"[:LONGEST_SUBJECT] if self.pages else self.subject

    @property
    def attributes(self) -> dict[str, str]:
        """For filter policies of subscriptions."""
        known = {
            "kind": self.kind, "severity": self.severity, "outcome": self.outcome,
            "cluster": self.cluster, "roll": self.roll,
        }  # fmt: skip
        return {name: str(value) for name, value in known.items() if value}

    @property
    def body(self) -> str:
        """What is published: the text, and the form for subscribers by HTTPS. A text that is too long is cut within."""
        room = LONGEST_BODY - _bytes({"default": "", "https": self.for_programs})
        return _json({"default": _cut(self.text, room), "https": self.for_programs})

    @property
    def for_programs(self) -> str:
        """The same for subscribers by HTTPS, as JSON: AWS's chat integration (Slack, Teams) takes it as a custom
        notification; what needs a person carries an alarm's fields as well, which PagerDuty's integration reads."""
        first = legible.in_chat(self.text)[:LONGEST_DESCRIPTION]
        document: dict[str, Any] = {
            "version": "1.0",
            "source": "custom",
            "content": {
                "textType": "client-markdown",
                "title": self.subject[:LONGEST_TITLE],
                "description": first,
                "nextSteps": [legible.in_chat(step)[:LONGEST_STEP] for step in self.steps[:MOST_STEPS]],
                "keywords": [word for word in (self.cluster, self.kind, self.severity, self.outcome) if word],
            },
            "metadata": {
                "threadId": self.roll,
                "summary": self.subject[:LONGEST_TITLE],
                "eventType": f"eks-rolling-{self.kind}",
                "additionalContext": self.attributes,
            },
        }
        if self.pages:
            document |= {
                "AlarmName": f"eks-rolling {self.cluster} {self.roll}",
                "AlarmDescription": first,
                "NewStateValue": "ALARM",
                "NewStateReason": self.subject,
            }
        return _json(document)


def _json(document: Any) -> str:
    """As UTF-8: an escaped letter takes six bytes, and twelve within a text of a text."""
    return json.dumps(document, ensure_ascii=False)


def _bytes(document: Any) -> int:
    return len(_json(document).encode())


def _cut(text: str, room: int) -> str:
    """The text as far as it takes no more bytes than that in JSON: its beginning and its end."""
    head = len(text)
    short = text
    while _bytes(short) > room and head > 0:
        head = head * 9 // 10
        short = f"{text[:head]}\n... (cut here: the report has all of it) ...\n{text[-TAIL:]}"
    return short


def subject(cluster: str, what: str) -> str:
    """The subject as SNS takes it. Where both do not fit it is the cluster's name that is cut."""
    what = " ".join(legible.line(what).encode("ascii", "replace").decode().split())[: LONGEST_SUBJECT - 12]
    room = LONGEST_SUBJECT - len(what) - 2
    name = cluster if len(cluster) <= room else f"{cluster[: room - 3]}..."
    return f"{name}: {what}"


def console(settings: Settings, roll: str) -> str:
    """Where the roll's execution is in the console; "" where the topic, whose ARN tells account and region, is none, or
    where the partition's console is not known."""
    parts = settings.topic.split(":")
    if len(parts) < 6:
        return ""
    _, partition, _, region, account, _ = parts[:6]
    machine = machine_name(settings.cluster, "roll")
    arn = f"arn:{partition}:states:{region}:{account}:execution:{machine}:{roll}"
    domain = CONSOLES.get(partition)
    if domain is None:
        return ""
    return f"https://{region}.{domain}/states/home?region={region}#/v2/executions/details/{arn}"


def region(settings: Settings) -> str:
    """The topic's region; "" where there is no topic."""
    parts = settings.topic.split(":")
    return parts[3] if len(parts) >= 6 else ""


def command(settings: Settings, *words: str) -> str:
    """What to type, in full: whoever is on call may work on several clusters, in several regions."""
    return typed(*words, cluster=settings.cluster, region=region(settings))


def openable(settings: Settings, address: str) -> str:
    """A document's address as a browser opens it: its page in the console of S3. What is no s3:// address stays."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    where = region(settings)
    domain = CONSOLES.get(settings.topic.split(":")[1]) if where else None
    if not address.startswith("s3://") or domain is None:
        return address
    return f"https://{where}.{domain}/s3/object/{bucket}?region={where}&prefix={quote(key, safe='/')}"


def begun(settings: Settings, roll: str, nodes: int, plan: PlanDocument | None) -> Message:
    """A roll begins to change things: by whom, what, for about how long."""
    who = str((plan.request if plan else {}).get("trigger") or "") or "a change of a launch template or a group"
    seconds = plan.estimate.seconds if plan else 0
    takes = f", about {spoken(seconds)}" if seconds else ""
    watch, abort = command(settings, "watch", roll), command(settings, "abort", roll)
    lines = [
        f"{settings.cluster}: a roll has begun: {counted(nodes, 'node')} to replace{takes}. It was asked for by {who}.",
        "",
        f"Watch:            {watch}",
        f"End it safely:    {abort}",
    ]
    return Message(
        subject(settings.cluster, f"roll begun by {who}, {counted(nodes, 'node')} to replace{takes}"),
        _closed(lines, settings, roll),
        settings.cluster, roll, Topic.BEGUN, steps=(watch, abort),
    )  # fmt: skip


def approval(settings: Settings, roll: str, reason: str, token: str, plans: list[PlanDocument]) -> Message:
    """A roll waits for a person."""
    there = f" --region {where}" if (where := region(settings)) else ""
    approve, refuse = command(settings, "approve", roll), command(settings, "refuse", roll, "--reason", "WHY")
    lines = [
        f"{settings.cluster}: {reason}.",
        "",
        f"Nothing has been changed. Without an answer the roll ends in {spoken(settings.deadlines.approval)}.",
        "",
        f"Approve:  {approve}",
        f"Refuse:   {refuse}",
        "",
        "Without the command:",
        f"  aws stepfunctions send-task-success{there} --task-output '{{}}' --task-token '{token}'",
        f"  aws stepfunctions send-task-failure{there} --error Refused --cause 'your reason' --task-token '{token}'",
    ]
    for plan in plans:
        lines += ["", plan_text(plan)]
    return Message(
        subject(settings.cluster, "a roll waits for approval"), _closed(lines, settings, roll),
        settings.cluster, roll, Topic.APPROVAL, Urgency.WARNING, steps=(approve, refuse),
    )  # fmt: skip


def hold(settings: Settings, roll: str, step: str, node: str, reason: str, since: float, now: float) -> Message:
    """A step has held for longer than `notify_hold_minutes`. `since` and `now` are epoch seconds."""
    who = f"node {node}" if node else "the roll"
    waited = f"has waited for {counted(round((now - since) / 60), 'minute')}"
    lines = [
        f"{settings.cluster}: {who} {waited}, since {_clock(since)}.",
        "",
        f"It waits because: {reason}",
        f"Step: {step.replace('_', ' ')}",
        "",
        "Waiting loses nothing: the step checks again by itself and continues once it can.",
    ]
    if deadline := settings.deadline(step):
        lines += [f"At {_clock(since + deadline)} it gives up; the roll then ends, and everything is put back."]
    lines += ["docs/runbook.md explains every hold and what to do about it.", ""]
    explain = [command(settings, "explain", node)] if node else []
    watch, pause, abort = (command(settings, word, roll) for word in ("watch", "pause", "abort"))
    lines += [f"Look closer:        {each}" for each in explain]
    lines += [f"Watch:              {watch}", f"Gain time:          {pause}", f"End it, put back:   {abort}"]
    return Message(
        subject(settings.cluster, f"{who} {waited}"), _closed(lines, settings, roll),
        settings.cluster, roll, Topic.HOLD, Urgency.WARNING, steps=(*explain, watch, pause, abort),
    )  # fmt: skip


def ending(settings: Settings, report: Report, address: str, plan: Mapping[str, Any]) -> Message:
    """How a roll ended; of one that did nothing, its plan."""
    lines = [f"{settings.cluster}: {_sentence(report)}", ""]
    if plan and report.outcome in {Ending.BLOCKED, Ending.DRY_RUN}:
        lines = [plan_text(PlanDocument.model_validate(plan)), ""]
    lines += [f"- {n.node}: {n.failure}" for n in report.nodes if n.failed]
    lines += [f"- {said}" for said in report.way_back]
    lines += [f"- left behind: {left}" for left in report.left_behind]
    lines += ["; ".join(filter(None, (f"- orphan: {o.kind}: {o.object}", o.by_hand))) for o in report.untold]
    lines += _next(settings, report)
    tell = command(settings, "report", report.roll)
    lines += ["", f"Report: {openable(settings, address)}", f"        {tell}"]
    return Message(
        subject(settings.cluster, _headline(report)), _closed(lines, settings, report.roll),
        settings.cluster, report.roll, Topic.ENDED, severity_of(report), report.outcome,
        steps=(*_typed_next(settings, report), tell),
    )  # fmt: skip


def severity_of(report: Report) -> Urgency:
    """A roll that failed, or left something, needs a person; one that a person ended, or that found itself blocked
    before it changed anything, does not at night."""
    if report.left_behind or report.orphans or report.outcome is Ending.FAILED:
        return Urgency.CRITICAL
    if report.outcome is Ending.STOPPED and CANCELLED not in report.reason:
        return Urgency.CRITICAL
    return Urgency.WARNING if report.outcome is Ending.BLOCKED else Urgency.INFO


def restored(settings: Settings, roll: str, put_back: tuple[str, ...], left_behind: tuple[str, ...]) -> Message:
    """A restore finished what a roll that had reported already did not put back."""
    what = "not everything" if left_behind else "what"
    lines = [f"{settings.cluster}: {what} the roll {roll} had left was put back.", ""]
    lines += [f"- {each}" for each in dict.fromkeys(put_back)]
    lines += [f"- left behind: {left}" for left in left_behind]
    if left_behind:
        lines += ["", way_out(command(settings, "start"))]
    what = "restored, but something is left behind" if left_behind else "restored after a roll"
    return Message(
        subject(settings.cluster, what), _closed(lines, settings, roll),
        settings.cluster, roll, Topic.RESTORED, Urgency.CRITICAL if left_behind else Urgency.INFO,
        steps=(command(settings, "start"),) if left_behind else (),
    )  # fmt: skip


def _headline(report: Report) -> str:
    so_far = f"{report.replaced} of {counted(report.planned, 'node')} replaced"
    if report.outcome is Ending.DRY_RUN:
        said = f"plan: {counted(report.planned, 'node')} to replace"
    else:
        said = {
            Ending.REPLACED: f"{'rolled back' if report.rolls_back else 'roll done'}, {so_far}",
            Ending.NOTHING: "nothing to roll",
            Ending.BLOCKED: "roll blocked",
            Ending.FAILED: f"roll failed, {so_far}" if report.planned else "roll failed",
            Ending.ABORTED: f"roll aborted, {so_far}",
            Ending.NOT_APPROVED: "roll not approved",
            Ending.STOPPED: f"roll stopped{'' if report.left_behind else ' and restored'}, {so_far}",
        }[report.outcome]
    return f"{said}, something is left behind" if report.left_behind else said


def _sentence(report: Report) -> str:
    match report.outcome:
        case Ending.REPLACED:
            what = f"the failed roll {report.rolls_back} is rolled back" if report.rolls_back else "the roll is done"
            return f"{what}: {report.reason}."
        case Ending.FAILED:
            return f"the roll failed. {report.reason}"
        case Ending.STOPPED:
            back = "not everything" if report.left_behind or report.orphans else "what"
            return f"the roll was stopped from outside, and {back} it had changed was put back. {report.reason}"
        case _:
            return report.reason


def _next(settings: Settings, report: Report) -> list[str]:
    """What to do, by how it ended."""
    if report.left_behind or report.orphans:
        return ["", way_out(command(settings, "start"))]
    match report.outcome:
        case Ending.FAILED if report.rollback:
            return [
                "Everything is as it was before, except for replaced nodes, which are replaced again.",
                "",
                f"Watch that: {command(settings, 'watch', report.rollback)}",
            ]
        case Ending.FAILED | Ending.ABORTED | Ending.STOPPED if report.planned:
            return [
                "Everything is as it was before, except for replaced nodes, which stay.",
                "",
                f"Continue with the rest: {command(settings, 'start')}",
            ]
        case Ending.BLOCKED:
            return [f"Once that is fixed: {command(settings, 'start')}"]
        case Ending.DRY_RUN:
            return [f"Roll it: {command(settings, 'start')}"]
        case _:
            return []


def _typed_next(settings: Settings, report: Report) -> tuple[str, ...]:
    """The command among what to do, if there is one."""
    if report.rollback and report.outcome is Ending.FAILED and not (report.left_behind or report.orphans):
        return (command(settings, "watch", report.rollback),)
    return (command(settings, "start"),) if _next(settings, report) else ()


def _closed(lines: list[str], settings: Settings, roll: str) -> str:
    """The text with the roll's name and where it is in the console."""
    link = console(settings, roll)
    text = "\n".join([*lines, "", f"Roll: {roll}", *([link] if link else [])])
    return re.sub(r"\n{3,}", "\n\n", text)


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
