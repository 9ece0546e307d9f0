"""`doctor --deployed`: what only an account can tell of a deployment, each line with what to do.

Permissions are asked of IAM's simulator, which knows the organization's policies; whether the functions reach
everything is known once they have planned, so the last check has them do it.
"""

from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from eks_rolling.names import stack_name
from eks_rolling.wording import counted
from eks_rolling_cli.checks import Health, Look, Unwell
from eks_rolling_cli.executions import new_name
from eks_rolling_cli.target import Target

if TYPE_CHECKING:
    from eks_rolling.settings import Settings

Json = dict[str, Any]

READERS = 8
"""Functions and roles that are asked about at the same time."""

GROUPS = {
    "await_load_balancers": "look lock",
    "await_ready": "look lock nodes",
    "await_volumes": "look lock",
    "check_permissions": "check",
    "evict": "look lock nodes evict restart",
    "find_orphans": "look redis-look",
    "health_gate": "look lock pause nodes redis-look",
    "inspect_redis": "look lock redis-look redis",
    "launch_replacement": "look lock pause nodes",
    "leave_load_balancers": "look lock nodes",
    "migrate_cluster": "look lock redis-look redis",
    "migrate_sentinel": "look lock redis-look redis",
    "pause_interference": "look lock pause",
    "plan": "look check redis-look",
    "put_back_version": "lock",
    "receive_change": "lock",
    "record_node": "lock",
    "replace_unjoined": "look lock",
    "restore": "look lock pause nodes evict restore",
    "run_hooks": "lock",
    "select_wave": "look lock",
    "settle_redis": "look lock redis-look redis",
    "taint_no_schedule": "look lock nodes",
    "taint_nodes": "look lock nodes",
    "take_lock": "lock",
    "terminate": "look lock evict",
}
"""Step -> the groups, eks-rolling-..., in which its access entry makes it a member (`stacks/functions.py`). The other
steps do not talk to Kubernetes, and need none."""

MANY_TARGET_GROUPS = 300
"""A look asks each that could lead to a node; ELB answers ten a second, and a function has a minute."""

CONCURRENCY = ("lambda", "L-B99A9384")
"""The quota of functions that run at the same time in an account and region. It begins at 10."""

ENDPOINTS = ("autoscaling", "ec2", "eks", "elasticloadbalancing", "s3", "sns", "states")
"""The services that functions call in any roll, as VPC endpoints are called (docs/private-networks.md)."""

ANYWHERE = "0.0.0.0/0"
"""By IPv6 alone functions do not come to AWS: they call its endpoints by their usual names, which have no such address.
"""

IN_FORCE = frozenset({"CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"})
"""States of a stack whose last deployment succeeded (CloudFormation user guide, stack status codes)."""

FORMER_IN_FORCE = frozenset({"IMPORT_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
"""Those of one whose last deployment failed, so that everything is as it was before."""


def _stack(target: Target) -> str:
    """Whether the last deployment succeeded: one that failed half-way may have left things of two versions."""
    name = stack_name(target.cluster)
    stack = _described_stack(target.session.client("cloudformation"), name)
    status, why = stack["StackStatus"], stack.get("StackStatusReason", "")
    said = f"{name} is {status}{f': {why}' if why else ''}"
    if status in IN_FORCE:
        return f"{name} is {status}"
    if status.endswith("_IN_PROGRESS"):
        raise Unwell(said, "wait until the deployment has ended", Health.WARN)
    events = f"`aws cloudformation describe-stack-events --stack-name {name}` says why"
    if status in FORMER_IN_FORCE:
        raise Unwell(f"{said}; what was deployed before is in force", f"{events}; then deploy again", Health.WARN)
    if status == "UPDATE_ROLLBACK_FAILED":
        again = f"`aws cloudformation continue-update-rollback --stack-name {name}`, then deploy again"
        raise Unwell(said, f"{events}; {again}")
    raise Unwell(said, f"{events}; then deploy again: npx cdk deploy --all")


def _described_stack(cloudformation: Any, name: str) -> Json:
    """Raises Unwell where there is none of that name."""
    try:
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except cloudformation.exceptions.ClientError as error:
        said = error.response["Error"]
        if said.get("Code") != "ValidationError" or "does not exist" not in said.get("Message", ""):
            raise
        raise Unwell(
            f"CloudFormation knows no stack {name}", "look by which name or tool it was deployed", Health.WARN
        ) from error
    return dict(stack)


def _message_key(target: Target) -> str:
    """Whether messages can be encrypted: without their key none is sent, and nobody is asked for approval."""
    topic = target.settings.topic
    key = target.session.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"].get("KmsMasterKeyId", "")
    if not key:
        raise Unwell("messages are not encrypted any more", "deploy the stack again: npx cdk deploy --all", Health.WARN)
    described = target.session.client("kms").describe_key(KeyId=key)["KeyMetadata"]
    identity, state = described["KeyId"], described["KeyState"]
    if state == "PendingDeletion":
        cancel = f"`aws kms cancel-key-deletion --key-id {identity}`, then `aws kms enable-key --key-id {identity}`"
        raise Unwell(f"the key of messages, {identity}, is about to be deleted: none is sent", cancel)
    if state != "Enabled":
        raise Unwell(
            f"the key of messages, {identity}, is {state}: none is sent", f"`aws kms enable-key --key-id {identity}`"
        )
    return f"messages are encrypted with {identity}"


def _step(function: Json) -> str:
    return str(function["Handler"]).split(".")[-2]


def _active(target: Target) -> str:
    found = target.functions
    if target.missing_functions:
        raise Unwell(
            f"the workflow calls what is not there: {', '.join(target.missing_functions)}",
            "deploy the stack again: npx cdk deploy --all",
        )
    asleep = sorted(_step(f) for f in found if f.get("State", "Active") == "Inactive")
    broken = {
        _step(f): f.get("StateReason") or f.get("LastUpdateStatusReason") or f.get("State", "")
        for f in found
        if f.get("State", "Active") not in {"Active", "Inactive"} or f.get("LastUpdateStatus") == "Failed"
    }
    if broken:
        said = "; ".join(f"{step}: {why}" for step, why in sorted(broken.items()))
        raise Unwell(f"not ready: {said}", "deploy the stack again: npx cdk deploy --all")
    for what, kinds in (
        ("code", {f.get("CodeSha256") for f in found}),
        ("layers", {tuple(x["Arn"] for x in f.get("Layers") or ()) for f in found}),
    ):
        if len(kinds) > 1:
            raise Unwell(
                f"functions have {len(kinds)} different versions of their {what}",
                "a deployment did not end: npx cdk deploy --all",
            )
    said = f"{counted(len(found), 'function')}, one version"
    return f"{said}; {counted(len(asleep), 'function')} asleep, the first call wakes them" if asleep else said


def _entries(target: Target) -> str:
    eks = target.session.client("eks")
    pages = eks.get_paginator("list_access_entries").paginate(clusterName=target.cluster)
    known = {arn for page in pages for arn in page["accessEntries"]}
    talking = [f for f in target.functions if _step(f) in GROUPS]
    if missing := [f for f in talking if f["Role"] not in known]:
        raise Unwell(
            f"no access entry for the role of {', '.join(sorted(_step(f) for f in missing))}",
            "deploy the stack again: npx cdk deploy --all",
        )

    def groups(function: Json) -> set[str]:
        found = eks.describe_access_entry(clusterName=target.cluster, principalArn=function["Role"])
        return set(found["accessEntry"].get("kubernetesGroups") or ())

    with ThreadPoolExecutor(READERS) as readers:
        has = dict(zip(map(_step, talking), readers.map(groups, talking), strict=True))
    wanted = {step: {f"eks-rolling-{name}" for name in GROUPS[step].split()} for step in has}
    # A deployment changes nothing that its template does not change.
    remedy = (
        "give it its groups back, as stacks/functions.py names them: `aws eks update-access-entry --cluster-name "
        f"{target.cluster} --principal-arn ROLE --kubernetes-groups GROUPS`"
    )
    if lacking := _differences("is not in", wanted, has):
        raise Unwell(f"access entries were changed: {lacking}", remedy)
    if more := _differences("is also in", has, wanted):
        raise Unwell(f"access entries were changed: {more}", remedy, Health.WARN)
    return f"the cluster knows the roles of {counted(len(talking), 'function')}"


def _differences(words: str, some: dict[str, set[str]], others: dict[str, set[str]]) -> str:
    """Which steps have groups in `some` that they do not have in `others`."""
    found = {step: sorted(some[step] - others[step]) for step in sorted(some)}
    return "; ".join(f"{step} {words} {', '.join(groups)}" for step, groups in found.items() if groups)


def _denied(target: Target) -> str:
    """Whether anything beside the stack's own policies denies what they allow to functions and workflows."""
    iam = target.session.client("iam")
    roles = sorted({*(str(f["Role"]) for f in target.functions), *target.machine_roles})
    with ThreadPoolExecutor(READERS) as readers:
        found = [each for denied in readers.map(lambda role: list(_denials(iam, role)), roles) for each in denied]
    if found:
        raise Unwell(
            f"{'; '.join(sorted(set(found))[:5])}",
            "have it allowed for the roles of this stack, or deploy into another account",
        )
    return f"no policy of the organization and no boundary denies what {counted(len(roles), 'role')} may do"


def _denials(iam: Any, role: str) -> Iterator[str]:
    """What a role's own policies allow and something else denies. What conditions and resources decide is left out."""
    actions = sorted(_actions(iam, role.rpartition("/")[2]))
    pages = iam.get_paginator("simulate_principal_policy").paginate(PolicySourceArn=role, ActionNames=actions)
    for result in (r for page in pages for r in page["EvaluationResults"]):
        action = result["EvalActionName"]
        if not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
            yield f"a policy of the organization denies {action}"
        elif not result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
            yield f"a permissions boundary denies {action}"
        elif result["EvalDecision"] == "explicitDeny":
            yield f"a policy denies {action}"


def _actions(iam: Any, role: str) -> set[str]:
    names = [n for page in iam.get_paginator("list_role_policies").paginate(RoleName=role) for n in page["PolicyNames"]]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    statements = [s for d in documents for s in _listed(d["Statement"]) if s["Effect"] == "Allow"]
    return {action for s in statements for action in _listed(s["Action"])}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _log_groups(target: Target) -> str:
    logs = target.session.client("logs")
    wanted = {
        f.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{f['FunctionName']}" for f in target.functions
    }
    missing = sorted(
        name
        for name in wanted
        if not any(
            g["logGroupName"] == name for g in logs.describe_log_groups(logGroupNamePrefix=name, limit=50)["logGroups"]
        )
    )
    if missing:
        raise Unwell(
            f"{counted(len(missing), 'log group')} missing: {', '.join(missing[:3])}",
            "deploy the stack again: npx cdk deploy --all",
            Health.WARN,
        )
    return f"{counted(len(wanted), 'log group')}"


def _alarms(target: Target) -> str:
    """The stack's own, which reach people by its topic."""
    cloudwatch = target.session.client("cloudwatch")
    pages = cloudwatch.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix=f"{stack_name(target.cluster)}-", AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    listed = [a for page in pages for a in (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ()))]
    own = [a for a in listed if target.settings.topic in a.get("AlarmActions", ())]
    if not own:
        raise Unwell("no alarm reaches the topic", "deploy the stack again: npx cdk deploy --all")
    if firing := [a["AlarmName"] for a in own if a.get("StateValue") == "ALARM"]:
        raise Unwell(f"firing: {', '.join(firing)}", "its description says what to do", Health.WARN)
    if silent := [a["AlarmName"] for a in own if not a.get("ActionsEnabled", True)]:
        raise Unwell(
            f"without actions: {', '.join(silent)}",
            "aws cloudwatch enable-alarm-actions --alarm-names ...",
            Health.WARN,
        )
    return f"{counted(len(own), 'alarm')}, none firing"


def _gate(target: Target) -> str:
    if not target.settings.alarms:
        return "the gate waits for no alarm of yours"
    firing = target.aws.alarms_firing(target.settings.alarms)
    if firing:
        raise Unwell(
            f"firing: {', '.join(firing)}", "a roll holds before its next wave until they are quiet", Health.WARN
        )
    return f"quiet: {', '.join(target.settings.alarms)}"


def _subscribers(target: Target) -> str:
    pages = target.session.client("sns").get_paginator("list_subscriptions_by_topic")
    listed = [s for page in pages.paginate(TopicArn=target.settings.topic) for s in page["Subscriptions"]]
    if not listed:
        # The line on messages says what to do about it.
        return "there is no subscription to confirm"
    if pending := [s["Endpoint"] for s in listed if not s["SubscriptionArn"].startswith("arn:")]:
        raise Unwell(
            f"not confirmed yet: {', '.join(pending)}", "follow the link in the mail that AWS sent there", Health.WARN
        )
    return f"{counted(len(listed), 'subscription')} confirmed"


def _way_out(target: Target) -> str:
    """How the functions reach AWS: by a NAT gateway or the like, or by VPC endpoints."""
    place = next((f["VpcConfig"] for f in target.functions if (f.get("VpcConfig") or {}).get("SubnetIds")), None)
    if place is None:
        return "the functions are in no network of yours"
    from eks_rolling_cli.finding_settings import leads_out, routes_of

    ec2: Any = target.session.client("ec2")
    subnets = ec2.describe_subnets(SubnetIds=list(place["SubnetIds"]))["Subnets"]
    routes = routes_of(ec2, subnets)
    if public := sorted(s for s, table in routes.items() if leads_out(table)):
        raise Unwell(
            f"{', '.join(public)} leads to the internet directly, and functions have no public address",
            "name private subnets under network",
        )
    if full := sorted(s["SubnetId"] for s in subnets if not s["AvailableIpAddressCount"]):
        raise Unwell(
            f"{', '.join(full)} has no free address: an idle function could not be started again",
            "free addresses, or name other subnets under network",
            Health.WARN,
        )
    closed = sorted(s for s, table in routes.items() if not any(_is_default(r) for r in table.get("Routes", ())))
    if not closed:
        return f"{counted(len(routes), 'subnet')} with a way out"
    pages = ec2.get_paginator("describe_vpc_endpoints").paginate(
        Filters=[{"Name": "vpc-id", "Values": [place["VpcId"]]}]
    )
    tables = {str(routes[subnet].get("RouteTableId", "")) for subnet in closed}
    endpoints = [(e["ServiceName"].rpartition(".")[2], e) for page in pages for e in page["VpcEndpoints"]]
    there = {service for service, _ in endpoints}
    if missing := sorted(_services(target.settings) - there):
        raise Unwell(
            f"{', '.join(closed)} has no way out, and the VPC no endpoint for {', '.join(missing)}",
            "make them (docs/private-networks.md), or a NAT gateway",
        )
    usable = {service for service, endpoint in endpoints if _serves(endpoint, tables)}
    if unusable := sorted(_services(target.settings) - usable):
        raise Unwell(
            f"the endpoint for {', '.join(unusable)} does not serve {', '.join(closed)}",
            "an interface endpoint needs private DNS names, a gateway endpoint a route in their tables",
        )
    return f"{counted(len(routes), 'subnet')} without a way out, with every endpoint"


def _services(settings: "Settings") -> set[str]:
    more = {"monitoring"} if settings.alarms else set[str]()
    return {*ENDPOINTS, *more, *({"lambda"} if any(h.function for h in settings.hooks) else ())}


def _is_default(route: Json) -> bool:
    """Whether it leads anywhere. One whose NAT gateway was deleted stays in its table, and leads nowhere."""
    return route.get("DestinationCidrBlock") == ANYWHERE and route.get("State") != "blackhole"


def _serves(endpoint: Json, tables: Collection[str]) -> bool:
    """Whether functions whose subnets have these route tables come to the service by the endpoint: a gateway's is in
    each table, and an interface's answers for the service's own name."""
    if str(endpoint.get("State", "available")).lower() != "available":
        return False
    if endpoint.get("VpcEndpointType") == "Gateway":
        return set(tables) <= set(endpoint.get("RouteTableIds") or ())
    return bool(endpoint.get("PrivateDnsEnabled"))


def _target_groups(target: Target) -> str:
    elbv2: Any = target.session.client("elbv2")
    pages = elbv2.get_paginator("describe_target_groups").paginate()
    asked = _asked(g for page in pages for g in page["TargetGroups"])
    said = f"a look asks up to {counted(asked, 'target group')}"
    if asked > MANY_TARGET_GROUPS:
        raise Unwell(
            f"{said}; ELB answers ten a second, load balancer controllers too",
            "ask AWS for a higher limit of Describe calls, and keep the surge low",
            Health.WARN,
        )
    return said


def _asked(groups: Iterable[Json]) -> int:
    """The more of both kinds: instances and addresses are looked for apart."""
    led = [g.get("TargetType") for g in groups if g.get("LoadBalancerArns")]
    return max(led.count("instance"), led.count("ip"))


def _concurrency(target: Target) -> str:
    functions = target.session.client("lambda")

    def reserved(function: Json) -> int | None:
        answer = functions.get_function_concurrency(FunctionName=function["FunctionName"])
        return answer.get("ReservedConcurrentExecutions")

    with ThreadPoolExecutor(READERS) as readers:
        kept = dict(zip(map(_step, target.functions), readers.map(reserved, target.functions), strict=True))
    if stopped := sorted(step for step, most in kept.items() if most == 0):
        raise Unwell(
            f"somebody has stopped {', '.join(stopped)}: the reserved concurrency is 0",
            "find out why; aws lambda delete-function-concurrency --function-name ... lets it run",
        )
    service, code = CONCURRENCY
    client = target.session.client("service-quotas")
    quota = int(client.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])
    needed = target.settings.surge + 1
    said = f"{quota} functions may run at once; a roll runs up to {needed}"
    if quota < 2 * needed:
        raise Unwell(said, "ask for more: Service Quotas, AWS Lambda, Concurrent executions", Health.WARN)
    return said


def _dry_run(target: Target) -> str:
    from eks_rolling_cli.plan_locally import plan_there

    _, document = plan_there(target, new_name("plan"), {})
    blocked = sum(f["severity"] == "blocks" for f in document.get("findings") or ())
    said = f"the functions reach everything, and planned: {counted(len(document['nodes']), 'outdated node')}"
    if blocked:
        raise Unwell(
            f"{said}, {counted(blocked, 'finding')} would block",
            f"`{target.typed('plan', '--deployed')}` names them",
            Health.WARN,
        )
    return said


CHECKS: dict[str, Look] = {
    "stack": _stack,
    "functions": _active,
    "access entries": _entries,
    "organization": _denied,
    "way out": _way_out,
    "log groups": _log_groups,
    "alarms": _alarms,
    "gate": _gate,
    "message key": _message_key,
    "subscribers": _subscribers,
    "target groups": _target_groups,
    "concurrency": _concurrency,
    "dry run": _dry_run,
}
