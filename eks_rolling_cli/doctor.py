"""`doctor`: whether everything is there that a roll, and this command, need. Each line with what to do."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from eks_rolling.wording import counted
from eks_rolling_cli.checks import Health, Look, Unwell, drawn, run_checks
from eks_rolling_cli.cli_context import AsJson, aimed, errors, output, print_json, show
from eks_rolling_cli.exits import Exit
from eks_rolling_cli.format import beginning, brief, clock
from eks_rolling_cli.target import Target

Json = dict[str, Any]


@aimed
def doctor(
    target: Target,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Also check what only the account can tell, and have the functions plan.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check access, deployment, triggers and the cluster's own state; each line says what to do.

    The exit code is 1 if a line says fail.
    """
    from eks_rolling_cli.deployed import CHECKS as OF_DEPLOYMENT

    found = []
    # On the console of the lines themselves, which go above it: two consoles would write into each other's lines.
    with (errors if as_json else output).status("looking"):
        for check in run_checks(target, CHECKS | OF_DEPLOYMENT if deployed else CHECKS, first="credentials"):
            found.append(check)
            if not as_json:
                show(drawn([check]))
    if as_json:
        print_json([asdict(c) for c in found])
    if any(c.health is Health.FAIL for c in found):
        raise typer.Exit(Exit.FAILED)


# Access


def _identity(target: Target) -> str:
    return f"{target.identity['Arn']} in {target.region}"


def _cluster(target: Target) -> str:
    from eks_rolling.clients.eks import describe

    described = describe(target.cluster, target.session)
    mode = (described.get("accessConfig") or {}).get("authenticationMode", "CONFIG_MAP")
    if described.get("status", "ACTIVE") != "ACTIVE":
        raise Unwell(f"{target.cluster} is {described['status']}", "wait until EKS has finished", Health.WARN)
    if mode == "CONFIG_MAP":
        raise Unwell(
            f"{target.cluster} knows no access entries: its authentication mode is CONFIG_MAP",
            "change it; every line of aws-auth is kept: `aws eks update-cluster-config --name "
            f"{target.cluster} --access-config authenticationMode=API_AND_CONFIG_MAP`",
        )
    return f"{target.cluster}, Kubernetes {described.get('version', '?')}, authentication mode {mode}"


def _api_server(target: Target) -> str:
    context = target.chosen_context
    nodes = target.kubernetes.nodes()
    by = f"by context {context.name} of {target.kubeconfig}" if context else "by your AWS credentials"
    ready = sum(n.ready for n in nodes)
    said = f"reached {by}: {counted(len(nodes), 'node')}, {ready} Ready"
    if ready < len(nodes):
        raise Unwell(said, "repair or terminate the nodes that are not Ready; the plan names them", Health.WARN)
    return said


READS = (
    ("list", "nodes", ""), ("list", "pods", ""), ("list", "persistentvolumes", ""), ("list", "services", ""),
    ("list", "deployments", "apps"), ("list", "statefulsets", "apps"), ("list", "daemonsets", "apps"),
    ("list", "poddisruptionbudgets", "policy"), ("list", "csinodes", "storage.k8s.io"),
)  # fmt: skip
"""What a plan made here needs of Kubernetes."""


def _reading(target: Target) -> str:
    from eks_rolling.plan.permissions import needed_for_notes

    if denied := _denied(target, READS):
        raise Unwell(f"you may not {denied}", "ask for these permissions: `plan` and `explain` need them")
    if denied := _denied(target, ((v.verb, v.resource, v.api_group) for v in needed_for_notes())):
        raise Unwell(
            f"you may not {denied}",
            "ask for these permissions: without them a plan made here leaves these out",
            Health.WARN,
        )
    return "you may read what `plan` and `explain` need"


def _denied(target: Target, asked: Iterable[tuple[str, str, str]]) -> str:
    """Those of VERB, RESOURCE, API GROUP that the caller may not do, as a sentence names them."""
    return ", ".join(
        f"{verb} {what}" for verb, what, group in asked if not target.kubernetes.may(verb, what, group=group)
    )


def _lock_access(target: Target) -> str:
    namespace, _, name = target.lock_name.partition("/")
    denied = [
        verb
        for verb in ("get", "update")
        # The operators' Role grants this one by its name.
        if not target.kubernetes.may(verb, "leases", group="coordination.k8s.io", namespace=namespace, name=name)
    ]
    if denied:
        raise Unwell(
            f"you may not {' and '.join(denied)} the Lease {target.lock_name}",
            "ask for deploy/iam/operator-rbac.yaml: `pause`, `resume` and `abort` write there",
            Health.WARN,
        )
    return f"you may pause and abort: the Lease {target.lock_name}"


# What is deployed


def _machines(target: Target) -> str:
    target.machine("roll")
    if missing := [what for what in ("node", "restore") if what not in target.machines]:
        raise Unwell(f"no machine for {', '.join(missing)}", "deploy the stack again")
    return f"{counted(len(target.machines), 'state machine')} for {target.cluster}"


def _settings(target: Target) -> str:
    settings = target.settings
    # Lambda gives it in UTC: 2026-11-27T17:06:03.000+0000.
    changed = str(target.function.get("LastModified", "")).partition(".")[0].replace("T", " ")
    return f"surge {settings.surge}, waves of {settings.wave}, approval {'on' if settings.approval else 'off'}" + (
        f"; deployed {changed} UTC" if changed else ""
    )


def _bucket(target: Target) -> str:
    target.aws.load("rolls/doctor/")
    return f"plans and reports can be read: {target.settings.bucket}"


def _messages(target: Target) -> str:
    topic = target.settings.topic
    listed = target.session.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    if not listed:
        raise Unwell(
            "no one is subscribed to messages about rolls",
            f"`aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint ADDRESS`",
            Health.WARN,
        )
    return f"{counted(len(listed), 'subscription')} to {topic.rpartition(':')[2]}"


TRIGGERS = {
    ("roll", "aws.ec2"): "nothing starts a roll when a launch template changes",
    ("roll", "aws.autoscaling"): "nothing starts a roll when a group changes",
    ("restore", "aws.states"): "nothing restores after a roll that was stopped",
    ("restore", ""): "nothing looks for what dead rolls have left behind",
}
"""Machine, and the source of the events that its rule matches ("" for the clock): what is so without it."""


def _triggers(target: Target) -> str:
    """Each kind of rule; people may have others of their own."""
    from eks_rolling.documents.failure import read_json

    events = target.session.client("events")
    found: dict[tuple[str, str], Json] = {}
    for machine in ("roll", "restore"):
        pages = events.get_paginator("list_rule_names_by_target").paginate(TargetArn=target.machine(machine))
        for name in (name for page in pages for name in page["RuleNames"]):
            rule: Json = dict(events.describe_rule(Name=name))
            sources = read_json(rule.get("EventPattern") or "").get("source", [""])
            found |= {(machine, str(source)): rule for source in sources}
    if missing := [said for what, said in TRIGGERS.items() if what not in found]:
        raise Unwell(
            "; ".join(missing), "deploy the stack again: npx cdk deploy --all; until then do it manually", Health.WARN
        )
    if disabled := sorted({rule["Name"] for rule in found.values() if rule["State"] == "DISABLED"}):
        enable = " and ".join(f"`aws events enable-rule --name {name}`" for name in disabled)
        raise Unwell(f"disabled: {', '.join(disabled)}", f"enable what you want: {enable}", Health.WARN)
    return counted(len(found), "rule") + " enabled"


def _trail(target: Target) -> str:
    """Whether some trail that runs records what changes: without one a new template version starts nothing."""
    cloudtrail = target.session.client("cloudtrail")
    unseen = []
    for trail in cloudtrail.describe_trails(includeShadowTrails=True)["trailList"]:
        arn = trail["TrailARN"]
        try:
            if cloudtrail.get_trail_status(Name=arn)["IsLogging"] and _records(
                cloudtrail.get_event_selectors(TrailName=arn)
            ):
                return f"trail {trail['Name']} records changes"
        except cloudtrail.exceptions.ClientError as error:
            # An organization's trail, say, which is its management account's: another may do.
            unseen.append(f"{trail['Name']}: {error}")
    if unseen:
        raise Unwell(
            f"whether changes are recorded cannot be told: {'; '.join(unseen)}",
            "ask who looks after the trail whether it records write management events of EC2 and Auto Scaling",
            Health.WARN,
        )
    raise Unwell(
        "no trail is running that records write management events",
        "start one, or start rolls manually: a changed launch template starts none",
        Health.WARN,
    )


CHANGES = tuple(
    {"eventCategory": "Management", "readOnly": "false", "eventSource": source, "eventName": name}
    for source, name in (
        ("ec2.amazonaws.com", "CreateLaunchTemplateVersion"),
        ("ec2.amazonaws.com", "ModifyLaunchTemplate"),
        ("autoscaling.amazonaws.com", "UpdateAutoScalingGroup"),
    )
)
"""The records that start rolls (`stacks/triggers.py`), as selectors see them."""


def _records(selectors: Json) -> bool:
    """Whether these record every change that starts a roll (CloudTrail API reference, EventSelector)."""
    if any(
        s.get("IncludeManagementEvents", True) and s.get("ReadWriteType", "All") in {"All", "WriteOnly"}
        for s in selectors.get("EventSelectors") or ()
    ):
        return True
    advanced = [s["FieldSelectors"] for s in selectors.get("AdvancedEventSelectors") or ()]
    return all(any(all(_selects(field, change) for field in fields) for fields in advanced) for change in CHANGES)


def _selects(field: Json, change: dict[str, str]) -> bool:
    """One field's operators; a field that is not known here selects some records only, unless it only leaves out
    (CloudTrail API reference, AdvancedFieldSelector)."""
    value = change.get(field["Field"])
    if value is None:
        return not any(field.get(operator) for operator in ("Equals", "StartsWith", "EndsWith"))

    def any_of(prefix: str) -> bool:
        return (
            value in (field.get(f"{prefix}Equals") or ())
            or any(value.startswith(each) for each in field.get(f"{prefix}StartsWith") or ())
            or any(value.endswith(each) for each in field.get(f"{prefix}EndsWith") or ())
        )

    asked = any(field.get(operator) for operator in ("Equals", "StartsWith", "EndsWith"))
    return (any_of("") or not asked) and not any_of("Not")


# The cluster's own state


def _lock(target: Target) -> str:
    import time

    from eks_rolling_cli.watching import running

    lease = target.kubernetes.lease(target.lock_name)
    if lease is None or not lease.holder:
        return "no roll holds the lock"
    if lease.holder in {e.name for e in running(target)}:
        return f"the roll {brief(lease.holder)} is running"
    if lease.expired(time.time()):
        raise Unwell(
            f"{lease.holder} died holding the lock, silent since {clock(lease.renewed)}",
            f"run `{target.typed('restore')}`",
        )
    return f"{lease.holder} holds the lock, last heard of at {clock(lease.renewed)}"


ODD = frozenset({"forged-mark", "instance-claimed-twice", "redis-declaration", "unknown-annotation"})
"""Findings about marks and annotations that were not written as a roll, or its manual, writes them."""

ODD_TOLD = 5


def _plan(target: Target) -> str:
    from eks_rolling_cli.plan_locally import plan_here
    from eks_rolling_cli.settings import settings_of
    from eks_rolling_cli.watching import holds_lock, running

    settings, deployed = settings_of(target)
    _, document = plan_here(target, settings, {})
    redis = document.get("redis") or []
    silent = [str(g["group"]) for g in redis if not g.get("healthy")]
    if silent and deployed and (moving := [e.name for e in running(target) if holds_lock(target, e)]):
        raise Unwell(
            f"Redis groups are not in their normal state while the roll {brief(moving[0])} runs: {', '.join(silent)}",
            f"check again after its end; `{target.typed('watch', beginning(moving[0]))}` shows it",
            Health.WARN,
        )
    if silent:
        raise Unwell(
            f"Redis does not look healthy from here: {', '.join(silent)}",
            f"if this machine cannot reach the pods' network, `{target.typed('plan', '--deployed')}` asks from there",
            Health.WARN,
        )
    blocked = sum(f["severity"] == "blocks" for f in document.get("findings") or ())
    said = f"a plan can be made: {counted(len(document['nodes']), 'outdated node')}"
    if redis:
        said += f", {counted(len(redis), 'Redis group')} reached"
    if blocked:
        said += f", {counted(blocked, 'finding')} would block"
    if odd := [f for f in document.get("findings") or () if f["code"] in ODD]:
        told = "; ".join(f"{f['object']}: {f['reason']}" for f in odd[:ODD_TOLD])
        more = f"; and {len(odd) - ODD_TOLD} more, in `{target.typed('plan')}`" if len(odd) > ODD_TOLD else ""
        raise Unwell(f"{said}; {told}{more}", str(odd[0]["remedy"]), Health.WARN)
    if blocked:
        raise Unwell(said, f"`{target.typed('plan')}` names them", Health.WARN)
    return said


CHECKS: dict[str, Look] = {
    "credentials": _identity,
    "cluster": _cluster,
    "API server": _api_server,
    "reading": _reading,
    "deployment": _machines,
    "settings": _settings,
    "bucket": _bucket,
    "messages": _messages,
    "triggers": _triggers,
    "CloudTrail": _trail,
    "control": _lock_access,
    "lock": _lock,
    "plan": _plan,
}
