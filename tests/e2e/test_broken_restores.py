"""Restores that one call keeps from their work, for good, and steps that run on beside one, in the lab.

The control plane and the machines are real, and every handler is a process of its own. A roll fails at its first
eviction, which is forbidden, and restores itself. tests/hostile has every call, and every effect that may come late.
"""

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from eks_rolling.roll.fence import USUAL_SECONDS
from lab.application import deploy
from lab.cluster_state import ClusterState
from lab.operator import Operator
from lab.rolls import Outcome
from lab.view import LineView
from tests.e2e.conftest import SETTINGS
from tests.e2e.rolled import kubectl
from tests.e2e.test_command import run
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("third")]

GROUP = "workers-b"
"""One node, which is alone in its zone."""

Json = dict[str, Any]

NO_EVICTIONS = {"verb": "create", "resource": "pods/eviction", "caller": "FunctionsEvictRole"}


@dataclass(frozen=True)
class Broken:
    """One call of the restore's that fails for good, what the report says of it, and what may stay because of it:
    beginnings of what `differences` answers."""

    says: str
    stays: tuple[str, ...]
    action: str = ""
    verb: str = ""
    resource: str = ""

    @property
    def fault(self) -> Json:
        caller = {"caller": "FunctionsRestoreRole"}
        if self.verb:
            return {"forbid": [NO_EVICTIONS, {"verb": self.verb, "resource": self.resource} | caller]}
        refused = {"action": self.action, "code": "AccessDenied", "status": 403} | caller
        return {"forbid": [NO_EVICTIONS], "refuse": [refused]}


REPLACEMENT = ("one more", "instance", "protected", "target")
"""What shows of a replacement that was not needed and stays, and of what it and the old instance bear."""

SIZE = (f"group {GROUP}: max", f"group {GROUP}: tags")
"""A maximum size is kept while more instances run than it was before, and with it the record."""

BROKEN = {
    "patch deployments": Broken(
        "cluster-autoscaler", ("cluster-autoscaler", "deployments"), verb="patch", resource="deployments"
    ),
    "patch nodes": Broken("node ", ("node", *REPLACEMENT, *SIZE), verb="patch", resource="nodes"),
    "list nodes": Broken(
        "the nodes could not be looked at", ("node", *REPLACEMENT, *SIZE), verb="list", resource="nodes"
    ),
    "delete budgets": Broken("temporary budget ", ("budget",), verb="delete", resource="poddisruptionbudgets"),
    "ResumeProcesses": Broken(
        f"group {GROUP}: ",
        (f"group {GROUP}: suspended", f"group {GROUP}: tags"),
        action="autoscaling:ResumeProcesses",
    ),
    "UpdateAutoScalingGroup": Broken(f"group {GROUP}: ", SIZE, action="autoscaling:UpdateAutoScalingGroup"),
    "DeleteTags of groups": Broken(f"group {GROUP}: ", (f"group {GROUP}: tags",), action="autoscaling:DeleteTags"),
    # Without the old node's targets the replacement is needed.
    "RegisterTargets": Broken(
        " in web: ", ("node", *REPLACEMENT, *SIZE), action="elasticloadbalancing:RegisterTargets"
    ),
    "DescribeInstances": Broken(
        "the instances could not be looked at", (*REPLACEMENT, *SIZE), action="ec2:DescribeInstances"
    ),
    "TerminateInstance": Broken(
        "which was not needed, stays: ",
        (*REPLACEMENT, "node", *SIZE),
        action="autoscaling:TerminateInstanceInAutoScalingGroup",
    ),
}
"""Ten calls, of every kind of object that a restore puts back."""


@pytest.fixture(scope="module")
def lab(small_lab: Operator) -> Iterator[Operator]:
    """The small lab, where rolls pause cluster-autoscaler and follow no change."""
    before = small_lab.settled_state()
    pause = {"on_change": "off", "autoscaler": {"mode": "pause"}, "surge": 1}
    deploy(small_lab.lab, SETTINGS | pause)
    keep_in(small_lab, "eu-central-1a")
    yield small_lab
    small_lab.fault({})
    keep_in(small_lab, None)
    deploy(small_lab.lab, SETTINGS)
    if small_lab.settled_state().zones != before.zones:
        # A replacement in use stayed. One instance comes for it and for its old node.
        roll = small_lab.rolls.start({"groups": [GROUP], "force": True})
        assert small_lab.follow(roll, lambda _: None, within_seconds=240).succeeded
        assert small_lab.settled_state().zones == before.zones


def keep_in(operator: Operator, zone: str | None) -> None:
    """Pods that move without an eviction would else find the replacement, which then is in use and stays: cluster-
    autoscaler's, which comes back, and one that is restarted."""
    selector = {"topology.kubernetes.io/zone": zone}
    change = {"spec": {"template": {"spec": {"nodeSelector": selector}}}}
    for namespace, name in (("kube-system", "cluster-autoscaler"), ("shop", "singleton")):
        kubectl(operator, "patch", "-n", namespace, f"deployment/{name}", f"--patch={json.dumps(change)}")
    operator.wait_for_workloads()


def targets(operator: Operator) -> dict[str, int]:
    """How many targets each target group has that receive or will receive requests."""
    balancers = operator.rolls.client("elbv2")
    return {
        group["TargetGroupName"]: sum(
            target["TargetHealth"]["State"] in {"healthy", "initial", "unhealthy"}
            for target in balancers.describe_target_health(TargetGroupArn=group["TargetGroupArn"])[
                "TargetHealthDescriptions"
            ]
        )
        for group in balancers.describe_target_groups()["TargetGroups"]
    }


@dataclass(frozen=True)
class Seen:
    """A lab's state, with its target groups."""

    cluster: ClusterState
    targets: dict[str, int]


def seen(operator: Operator) -> Seen:
    return Seen(operator.settled_state(), targets(operator))


def differences(before: Seen, now: Seen) -> list[str]:
    """Everything that is not as it was, each by what it is."""
    old, new = before.cluster, now.cluster
    found = [*set(new.marks) ^ set(old.marks)]
    found += [f"node {n.name} is {n.taint or 'cordoned'}" for n in new.nodes if n.taint or n.cordoned]
    if new.zones != old.zones:
        found.append(f"one more: {old.zones} {new.zones}")
    if new.autoscaler != old.autoscaler:
        found.append(f"cluster-autoscaler at {new.autoscaler}")
    if len(new.protected) != len(old.protected):
        found.append(f"protected: {new.protected}")
    if now.targets != before.targets:
        found.append(f"targets: {now.targets}")
    for name, group in old.groups.items():
        what = {"desired": "one more", "max": f"group {name}: max", "min": f"group {name}: min"}
        what |= {part: f"group {name}: {part}" for part in ("suspended", "tags")}
        found += [
            f"{said} {new.groups[name][part]}" for part, said in what.items() if new.groups[name][part] != group[part]
        ]
    return found


def failed_roll(operator: Operator, view: LineView, fault: Json) -> Outcome:
    """A roll of the node of that group, which fails at its first eviction and has restored by the end.

    The fault comes once the roll is under way: before it changes anything, it rehearses its restore.
    """
    operator.fault({"forbid": [NO_EVICTIONS]})
    # Whatever its version is, so that nothing is outdated for the tests that share the lab.
    roll = operator.rolls.start({"groups": [GROUP], "force": True})
    until(operator.rolls.nodes_in_flight, "the node is on its way", within_seconds=120)
    operator.fault(fault)
    outcome = operator.follow(roll, view.show, within_seconds=240)
    assert outcome.status == "FAILED"
    assert "evict" in outcome.report["reason"].lower()
    return outcome


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("call", BROKEN)
def test_one_broken_call_of_a_restore_spoils_no_other_and_what_is_printed_then_leaves_nothing(
    lab: Operator, view: LineView, call: str
) -> None:
    """R2, R5: everything else is put back, the lock is free, the report names the one; its remedy does the rest."""
    broken = BROKEN[call]
    before = seen(lab)
    try:
        outcome = failed_roll(lab, view, broken.fault)
        struck = lab.faults()
    finally:
        lab.fault({})
    assert struck["forbidden"] >= (2 if broken.verb else 1)
    assert struck["refused"] >= (0 if broken.verb else 1)
    assert any(broken.says in said for said in outcome.report["left_behind"]), outcome.report["left_behind"]
    left = differences(before, seen(lab))
    assert left
    assert [what for what in left if not what.startswith(broken.stays)] == []
    for command in remedies(outcome.report):
        assert run(lab, *command).returncode == 0
    until(
        lambda: not differences(before, seen(lab)),
        "everything is as it was before the roll",
        within_seconds=60,
    )
    assert run(lab, "orphans").returncode == 0


def remedies(report: Json) -> list[list[str]]:
    """Every command that is printed beside what is left, once, as typed."""
    printed = [
        command for orphan in report["orphans"] for command in re.findall("`eks-rolling ([^`]*)`", orphan["remedy"])
    ]
    assert printed, report["orphans"]
    commands = [shlex.split(command) for command in dict.fromkeys(printed)]
    return [[*command, "--yes"] if command[0] == "start" else command for command in commands]


# Steps that run on beside a restore


@dataclass(frozen=True)
class Late:
    """An effect that comes late: how the process that is about to have it is frozen, and where it is recorded."""

    step: str
    seconds: float
    action: str = ""
    verb: str = ""
    resource: str = ""
    stays: tuple[str, ...] = ()
    """What may be otherwise afterwards, as `differences` says it."""

    @property
    def fault(self) -> Json:
        call = {"action": self.action} if self.action else {"verb": self.verb, "resource": self.resource}
        return {"freeze": {"caller": f"Functions{self.step}Role", "seconds": self.seconds} | call}


LATE = {
    # A function has 60 s. It goes on just before they are over.
    "launch": Late("LaunchReplacement", 50, action="autoscaling:LaunchInstances"),
    "terminate": Late("Terminate", 50, action="autoscaling:TerminateInstanceInAutoScalingGroup"),
    "never": Late("LaunchReplacement", 70, action="autoscaling:LaunchInstances"),
    # The evicted pod may have found the replacement, which then stays: a roll after this one launches none.
    "evict": Late("Evict", 25, verb="create", resource="pods/eviction", stays=(*REPLACEMENT, *SIZE)),
}


@pytest.mark.long  # tests/hostile/test_late_steps.py has every effect
@pytest.mark.parametrize("late", LATE)
def test_an_effect_that_comes_after_its_roll_was_stopped_is_seen_by_the_restore(
    lab: Operator, view: LineView, late: str
) -> None:
    """R6, N2, R1, R2: a process stands still with its call on the way, while its roll is stopped and restored."""
    effect = LATE[late]
    before = seen(lab)
    lab.fault(effect.fault)
    try:
        roll = lab.rolls.start({"groups": [GROUP], "force": True})
        until(lambda: lab.faults()["frozen"], "the process stands still", within_seconds=180)
        stopped = time.time()
        lab.rolls.stop(roll, "a test stops it")
        name = lab.rolls.executions.describe(roll).name
        until(lambda: restored(lab, name), "the watchdog has restored", within_seconds=240)
    finally:
        lab.fault({})
    done = [change for change in changes(lab) if change.at > stopped]
    of_step = [change for change in done if change.is_by(effect.step)]
    of_restore = [change.at for change in done if change.is_by("Restore")]
    view.say(f"late: {of_step}")
    assert bool(of_step) == (effect.seconds < USUAL_SECONDS)
    assert of_restore
    # What the restore changes, but its lock, comes behind everything that steps did.
    assert [each for each in done if each.at > min(of_restore) and not each.is_by(*OF_RESTORE)] == []
    until(
        lambda: not [what for what in differences(before, seen(lab)) if not what.startswith(effect.stays or ("?",))],
        "everything is as it was before the roll",
        within_seconds=60,
    )


OF_RESTORE = ("Restore", "SettleRedis", "FindOrphans", "Report")
"""The steps of the restore's machine."""


@dataclass(frozen=True)
class Change:
    """Something that one of our roles changed in the account or the cluster."""

    at: float
    role: str
    what: str

    def is_by(self, *steps: str) -> bool:
        return any(f"Functions{step}Role" in self.role for step in steps)


def changes(operator: Operator) -> list[Change]:
    """All of them, from the account's records and the API server's, but for locks and questions who may do what."""
    found = []
    for line in operator.lab.paths.calls.read_text().splitlines():
        call = json.loads(line)
        looks = call["action"].startswith(("Describe", "Get", "List"))
        if call["service"] in {"autoscaling", "ec2", "elasticloadbalancing"} and not looks and call["status"] < 400:
            found.append(Change(call["at"], call["role"], call["action"]))
    for log in sorted(operator.lab.paths.logs.glob("audit*.jsonl")):
        for line in log.read_text().splitlines():
            event = json.loads(line)
            about, user = event.get("objectRef", {}), event["user"].get("username", "")
            asks = about.get("resource") in {"leases", "subjectaccessreviews"}
            done = event["verb"] not in {"get", "list", "watch"} and event["responseStatus"]["code"] < 400
            if "assumed-role" in user and done and not asks:
                ended = datetime.fromisoformat(event["stageTimestamp"]).timestamp()
                found.append(Change(ended, user, f"{event['verb']} {about.get('resource')} {about.get('name')}"))
    return found


def restored(operator: Operator, roll: str) -> bool:
    """Whether a restore after that roll has succeeded."""
    rolls = operator.rolls
    found = (rolls.executions.describe(e.arn) for e in rolls.executions.of(rolls.machine("restore")))
    return any(each.status == "SUCCEEDED" for each in found if each.input.get("roll") == roll)
