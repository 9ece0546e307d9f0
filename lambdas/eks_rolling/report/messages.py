"""What people are told by way of the topic: mails that say what happened, why, and what to type next. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eks_rolling.documents.plan import PlanDocument
from eks_rolling.documents.plan_text import plan_text
from eks_rolling.documents.report import Ending, Report
from eks_rolling.names import machine_name
from eks_rolling.settings import Deadlines, Settings
from eks_rolling.wording import counted

LONGEST_SUBJECT = 99
"""SNS takes subjects of fewer than 100 characters, of ASCII, on one line (API reference, Publish)."""

HOLDING = frozenset(Deadlines.model_fields) - {"receive_change", "approval", "roll"}
"""Steps whose holds people are told of. A change that waits for its window is none: it waits as it was told to."""

CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
"""Partition -> the console's domain."""


@dataclass(frozen=True, slots=True)
class Message:
    subject: str
    text: str


def subject(cluster: str, what: str) -> str:
    """The subject as SNS takes it. Where both do not fit it is the cluster's name that is cut."""
    what = " ".join(what.encode("ascii", "replace").decode().split())[: LONGEST_SUBJECT - 12]
    room = LONGEST_SUBJECT - len(what) - 2
    name = cluster if len(cluster) <= room else f"{cluster[: room - 3]}..."
    return f"{name}: {what}"


def console(settings: Settings, roll: str) -> str:
    """Where the roll's execution is in the console; "" where the topic, whose ARN tells account and region, is none."""
    parts = settings.topic.split(":")
    if len(parts) < 6:
        return ""
    _, partition, _, region, account, _ = parts[:6]
    machine = machine_name(settings.cluster, "roll")
    arn = f"arn:{partition}:states:{region}:{account}:execution:{machine}:{roll}"
    domain = CONSOLES.get(partition, CONSOLES["aws"])
    return f"https://{region}.{domain}/states/home?region={region}#/v2/executions/details/{arn}"


def command(settings: Settings, *words: str) -> str:
    """What to type, in full: whoever is on call may work on several clusters."""
    return " ".join(("eks-rolling", *words, "--cluster", settings.cluster))


def approval(settings: Settings, roll: str, reason: str, token: str, plans: list[PlanDocument]) -> Message:
    """A roll waits for a person."""
    hours = settings.deadlines.approval / 3600
    lines = [
        f"{settings.cluster}: {reason}.",
        "",
        f"Nothing has been changed. Without an answer the roll ends in {hours:.0f} hours.",
        "",
        f"Approve:  {command(settings, 'approve')}",
        f"Refuse:   {command(settings, 'refuse', '--reason', 'WHY')}",
        "",
        "Without the command:",
        f"  aws stepfunctions send-task-success --task-output '{{}}' --task-token '{token}'",
        f"  aws stepfunctions send-task-failure --error Refused --cause 'your reason' --task-token '{token}'",
    ]
    for plan in plans:
        lines += ["", plan_text(plan)]
    return Message(subject(settings.cluster, "a roll waits for approval"), _closed(lines, settings, roll))


def hold(settings: Settings, roll: str, step: str, node: str, reason: str, since: float, now: float) -> Message:
    """A step has held for longer than `notify_hold_minutes`. `since` and `now` are epoch seconds."""
    who = f"node {node}" if node else "the roll"
    minutes = (now - since) / 60
    lines = [
        f"{settings.cluster}: {who} has waited for {minutes:.0f} minutes, since {_clock(since)}.",
        "",
        f"It waits because: {reason}",
        f"Step: {step.replace('_', ' ')}",
        "",
        "Nothing is lost by waiting: the step looks again by itself and goes on once it can.",
    ]
    if deadline := settings.deadline(step):
        lines += [f"At {_clock(since + deadline)} it gives up; the roll then ends, and everything is put back."]
    lines += ["docs/runbook.md says what each hold means and what to do about it.", ""]
    if node:
        lines += [f"Look closer:        {command(settings, 'explain', node)}"]
    lines += [
        f"Watch:              {command(settings, 'watch', roll)}",
        f"Gain time:          {command(settings, 'pause')}",
        f"End it, put back:   {command(settings, 'abort')}",
    ]
    return Message(
        subject(settings.cluster, f"{who} has waited for {minutes:.0f} minutes"), _closed(lines, settings, roll)
    )


def ending(settings: Settings, report: Report, address: str, plan: Mapping[str, Any]) -> Message:
    """How a roll ended; of one that did nothing, its plan."""
    lines = [f"{settings.cluster}: {_sentence(report)}", ""]
    if plan and report.outcome in {Ending.BLOCKED, Ending.DRY_RUN}:
        lines = [plan_text(PlanDocument.model_validate(plan)), ""]
    lines += [f"- {n.node}: {n.failure}" for n in report.nodes if n.failure]
    lines += [f"- left behind: {left}" for left in report.left_behind]
    lines += [f"- orphan: {o.kind}: {o.object}; {o.remedy}" for o in report.orphans]
    lines += _next(settings, report)
    lines += ["", f"Report: {address}", f"        {command(settings, 'report', report.roll)}"]
    return Message(subject(settings.cluster, _headline(report)), _closed(lines, settings, report.roll))


def restored(settings: Settings, roll: str, put_back: tuple[str, ...], left_behind: tuple[str, ...]) -> Message:
    """A restore finished what a roll that had reported already did not put back."""
    lines = [f"{settings.cluster}: what the roll {roll} had left was put back.", ""]
    lines += [f"- {each}" for each in dict.fromkeys(put_back)]
    lines += [f"- left behind: {left}" for left in left_behind]
    if left_behind:
        lines += ["", f"Once that is seen to: {command(settings, 'restore')}"]
    what = "restored, but something is left behind" if left_behind else "restored after a roll"
    return Message(subject(settings.cluster, what), _closed(lines, settings, roll))


def _headline(report: Report) -> str:
    so_far = f"{report.replaced} of {counted(report.planned, 'node')} replaced"
    if report.outcome is Ending.DRY_RUN:
        said = f"plan: {counted(report.planned, 'node')} to replace"
    else:
        said = {
            Ending.REPLACED: f"roll done, {so_far}",
            Ending.NOTHING: "nothing to roll",
            Ending.BLOCKED: "roll blocked",
            Ending.FAILED: f"roll failed, {so_far}" if report.planned else "roll failed",
            Ending.ABORTED: f"roll aborted, {so_far}",
            Ending.NOT_APPROVED: "roll not approved",
            Ending.STOPPED: f"roll stopped and restored, {so_far}",
        }[report.outcome]
    return f"{said}, something is left behind" if report.left_behind else said


def _sentence(report: Report) -> str:
    match report.outcome:
        case Ending.REPLACED:
            return f"the roll is done: {report.reason}."
        case Ending.FAILED:
            return f"the roll failed. {report.reason}"
        case Ending.STOPPED:
            return f"the roll was ended from outside, and what it had changed was put back. {report.reason}"
        case _:
            return report.reason


def _next(settings: Settings, report: Report) -> list[str]:
    """What to do, by how it ended."""
    if report.left_behind:
        return ["", f"Once that is seen to, put it back: {command(settings, 'restore')}"]
    if report.orphans:
        return ["", f"See again what is left: {command(settings, 'orphans')}"]
    match report.outcome:
        case Ending.FAILED | Ending.ABORTED | Ending.STOPPED if report.planned:
            return [
                "Everything is as it was before, but for nodes that were replaced; these stay so.",
                "",
                f"Go on with the rest: {command(settings, 'start')}",
            ]
        case Ending.BLOCKED:
            return [f"Once that is seen to: {command(settings, 'start')}"]
        case Ending.DRY_RUN:
            return [f"Roll it: {command(settings, 'start')}"]
        case _:
            return []


def _closed(lines: list[str], settings: Settings, roll: str) -> str:
    """The text with the roll's name and where it is in the console."""
    link = console(settings, roll)
    text = "\n".join([*lines, "", f"Roll: {roll}", *([link] if link else [])])
    return re.sub(r"\n{3,}", "\n\n", text)


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
