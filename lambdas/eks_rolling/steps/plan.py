"""Plan the roll: which nodes are outdated, what stands in the way. Changes nothing."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import TypeVar

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.finding import Finding, Severity
from eks_rolling.documents.plan import kind_of_nodes
from eks_rolling.errors import MALFORMED, AccessDenied, Permanent, RollError, sentence
from eks_rolling.migration.asking import NOT_ASKED, REQUESTS_SECONDS, in_turn
from eks_rolling.migration.next_action import look
from eks_rolling.observed.aws import Group, as_their_groups_say
from eks_rolling.observed.kubernetes import Node, Owner, Pod, Strategy, Workload, as_their_pods_are
from eks_rolling.observed.marks import AUTOSCALER_REPLICAS, GROUP_MAXIMUM, GROUP_RESUME, NODE_ROLL
from eks_rolling.observed.redis import Address, Endpoint, Login, Stranger
from eks_rolling.payloads import PlanTask, RollRequest, StepResult
from eks_rolling.plan.build import PlanDecision, write
from eks_rolling.plan.checks import Candidate, ClusterSnapshot, candidates, findings, moving_pods, resolve
from eks_rolling.plan.checks.nodes import left_out
from eks_rolling.plan.checks.other_controllers import autoscaler_of
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.plan.checks.rollback import former_versions, goes_back_after
from eks_rolling.plan.permissions import Verb, needed_to_migrate, needed_to_restart
from eks_rolling.plan.placement import cramped_stand_ins, stuck_pods
from eks_rolling.plan.snapshot import Unseen, begun, by_owner, by_parameter
from eks_rolling.redis.groups import CACHE, PART, Part, RedisGroup, declared
from eks_rolling.redis.recognition import port_of, redis_evidence
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.roll.lock import lock_name
from eks_rolling.roll.proofs import unproven
from eks_rolling.runtime import handler_for
from eks_rolling.settings import Settings
from eks_rolling.wording import counted

T = TypeVar("T")

NAMED = 20
"""Blockers that a sentence names; the others are in the plan's document."""

MOST_UNREADY = 3000
"""Workloads that are not Ready, which anybody may make: twenty bytes each of the 256 KiB that a state may have. The
gate is told of them beside the plan's nodes and what a whole wave failed with."""

SPREADING, SPREADING_LOOK = 10.0, 2.0
"""For how many seconds EC2 is asked again for a version that it does not know, and the seconds between two looks."""

LISTERS = 3
"""Kinds that are listed at the same time. More would be held back by the server's fairness, and need more memory."""


class PlanOutcome(StrEnum):
    """Where the roll goes from here."""

    ROLL = "roll"
    NOTHING = "nothing"
    BLOCKED = "blocked"
    DRY_RUN = "dry-run"


def decide(view: ClusterSnapshot, request: RollRequest, settings: Settings) -> PlanDecision:
    """The plan. A blocker blocks even a roll that would otherwise have work to do; all of them are named."""
    targets = resolve(view.groups, view.versions)
    accepted = {*request.accept, *settings.accept}
    found_to_replace = candidates(view, targets, request, settings.max_age_days)
    chosen = [c for c in found_to_replace if not left_out(c, accepted)]
    skipped = [c for c in found_to_replace if left_out(c, accepted)]
    stuck = stuck_pods(view, chosen, targets)
    unplaced = [*stuck, *cramped_stand_ins(view, chosen, targets)]
    former, no_way_back = former_versions(view, chosen, targets, request, settings)
    found = findings(view, request, settings, chosen, unplaced, skipped, no_way_back)
    blockers = [f for f in found if f.severity is Severity.BLOCKS]
    nodes = counted(len(chosen), kind_of_nodes(c.reason for c in chosen))
    if blockers:
        outcome, reason = PlanOutcome.BLOCKED, f"{nodes}; blocked: {_name_blockers(blockers)}"
    elif not chosen:
        outcome, reason = PlanOutcome.NOTHING, "no node is outdated"
    elif request.dry_run:
        outcome, reason = PlanOutcome.DRY_RUN, f"{nodes} would be replaced"
    else:
        outcome, reason = PlanOutcome.ROLL, f"{nodes} will be replaced"
    ordered = tuple(_in_order(view, chosen))
    return PlanDecision(outcome, reason, ordered, tuple(found), targets, tuple(stuck), tuple(former))


def _name_blockers(blockers: list[Finding]) -> str:
    """The blockers as one sentence, which states and messages carry: no more than fit."""
    named = " | ".join(str(b) for b in blockers[:NAMED])
    return named if len(blockers) <= NAMED else f"{named} | and {len(blockers) - NAMED} more, all in plan.json"


def redis_to_move(view: ClusterSnapshot, chosen: Sequence[Candidate]) -> list[str]:
    """The Redis groups that have pods on nodes of the plan."""
    moving = {found[0] for c in chosen for p in view.pods_on(c.name) if (found := view.redis_set(p.owner))}
    return [str(r.group) for r in view.redis if r.group in moving]


def _in_order(view: ClusterSnapshot, chosen: list[Candidate]) -> list[Candidate]:
    """Nodes of Redis masters after all others: their replicas are on new nodes by then, and need not move again. Spare
    instances last: what comes for the one in whose place they are takes their pods as well."""
    masters = {s.owner for r in view.redis for s in r.group.of(Part.MASTER)}
    hosts = {p.node for p in view.pods if p.owner in masters}
    return sorted(chosen, key=lambda c: (bool(c.place), c.name in hosts))


def not_waited_for(view: ClusterSnapshot) -> list[str]:
    """Digests of the workloads that the gate does not wait to see whole: those that are not now, and those that only
    keep room. No more of them than fit between two states.

    A controller's status tells what was so some seconds ago, perhaps at the end of another roll: one that its pods, or
    its status, show to be whole is waited for.
    """
    placeholders = {p.owner for p in view.pods if p.uid in view.placeholders}
    lacking = [w for w in view.workloads if not w.all_ready]
    known = frozenset(w.owner for w in view.workloads)
    lacking = [w for w in as_their_pods_are(lacking, view.pods, known) if not w.all_ready]
    keeping = [w for w in view.workloads if w.owner in placeholders]
    return list(dict.fromkeys(w.owner.digest for w in (*lacking, *keeping)))[:MOST_UNREADY]


def leftovers(view: ClusterSnapshot, settings: Settings) -> bool:
    """Whether a roll is running or died: its marks are on groups, nodes, budgets or cluster-autoscaler [R4]."""
    autoscaler = view.workload(autoscaler_of(settings))
    return (
        any(key in group.tags for group in view.groups for key in (GROUP_MAXIMUM, GROUP_RESUME))
        or any(NODE_ROLL in node.annotations for node in view.nodes)
        or any(budget.ours for budget in view.budgets)
        or (autoscaler is not None and AUTOSCALER_REPLICAS in autoscaler.annotations)
    )


def run(task: PlanTask, clients: Clients) -> StepResult:
    request = RollRequest.from_input(task.input)
    settings = clients.settings
    view = observe(request, clients)
    plan = decide(view, request, settings)
    told = request.model_copy(update={"rolls_back": request.rolls_back or goes_back_after(plan.chosen, plan.targets)})
    document = write(plan, view, told, settings, roll=task.roll)
    text = document.model_dump_json(by_alias=True, indent=1)
    clients.aws.save(f"rolls/{task.roll}/plan.json", text, "application/json")
    groups = sorted({c.group.name for c in plan.chosen})
    return StepResult.done(
        plan.reason,
        outcome=plan.outcome,
        nodes=[c.instance.id for c in plan.chosen],
        groups=groups,
        targets={group: plan.targets[group] for group in groups},
        unjoined={c.instance.id: c.group.name for c in plan.chosen if c.node is None},
        former={f.group: f.former for f in plan.former},
        although_current=[c.instance.id for c in plan.chosen if c.reason],
        places={c.instance.id: c.place for c in plan.chosen if c.place},
        surge=request.surge_in(settings),
        approval=settings.approval if request.approval is None else request.approval,
        dry_run=request.dry_run,
        leftovers=leftovers(view, settings) and not request.dry_run,
        keep_taints=request.keep_taints,
        accept=request.accept,
        redis=redis_to_move(view, plan.chosen),
        unready=not_waited_for(view),
    )


def observe(request: RollRequest, clients: Clients) -> ClusterSnapshot:
    """Everything the plan looks at, read once."""
    with ThreadPoolExecutor(LISTERS, thread_name_prefix="list") as lists:
        return _observe(request, clients, lists)


def _other_groups(groups: Sequence[Group], clients: Clients) -> tuple[Group, ...]:
    """The cluster's groups that are not among these: they may share a launch template with them."""
    names = {g.name for g in groups}
    return tuple(g for g in clients.aws.groups() if g.name not in names)


def _observe(request: RollRequest, clients: Clients, lists: Executor) -> ClusterSnapshot:
    """What the cluster holds is listed beside what the account does: the two do not wait for one another."""
    aws, kubernetes = clients.aws, clients.kubernetes
    # The longest first.
    pods_read = lists.submit(kubernetes.pods)
    nodes_read = lists.submit(kubernetes.nodes)
    workloads_read = lists.submit(kubernetes.workloads)
    budgets_read = lists.submit(kubernetes.budgets)
    volumes_read = lists.submit(kubernetes.volumes)
    limits_read = lists.submit(kubernetes.volume_limits)
    services_read = lists.submit(kubernetes.services)
    cron_jobs_read = lists.submit(kubernetes.cron_jobs)
    judges_read = lists.submit(kubernetes.judges_of_evictions)
    version_read = lists.submit(kubernetes.server_version)
    found = aws.groups(request.groups)
    left_out = {g.name: why for g in found if (why := clients.settings.groups.left_out_by(g.tags))}
    groups = [g for g in found if g.name not in left_out]
    rollable = [g for g in groups if not g.managed]
    templates = [t.id for g in rollable for t in (g.template, *(t for _, t in g.overrides)) if t]
    versions = aws.template_versions(templates)
    data = _described(rollable, versions, clients)
    moving = by_parameter(data)
    of_moving = {i.id for g in rollable for i in g.instances if i.template in moving}
    states = as_their_groups_say(rollable, aws.instances([i.id for g in rollable for i in g.instances]))
    images_now = aws.images_now(moving) if moving else {}
    nodes, pods, workloads = nodes_read.result(), pods_read.result(), workloads_read.result()
    redis_groups, problems = declared(workloads)
    unseen = set[Unseen]()
    cron_jobs = _where_granted(cron_jobs_read.result, Unseen.CRON_JOBS, unseen)
    judges = _where_granted(judges_read.result, Unseen.JUDGES, unseen)
    clusters = any(g.is_cluster for g in redis_groups)
    policies = _where_granted(kubernetes.network_policies, Unseen.NETWORK_POLICIES, unseen) if clusters else ()
    missing = _where_granted(partial(aws.alarms_missing, clients.settings.alarms), Unseen.ALARMS, unseen)
    grants = Grants(clients)
    redis = _look_at_all(redis_groups, nodes, pods, grants, clients)
    ask_for_restarts(workloads, grants, clients)
    view = ClusterSnapshot(
        groups=tuple(groups),
        nodes=tuple(nodes),
        pods=tuple(pods),
        budgets=tuple(budgets_read.result()),
        workloads=tuple(workloads),
        volumes=tuple(volumes_read.result()),
        versions=versions,
        free_addresses={g.name: aws.free_addresses(g) for g in rollable},
        redis=redis,
        redis_problems=tuple(problems),
        left_out=left_out,
        other_groups=_other_groups(groups, clients) if clients.settings.roll_back.enabled else (),
        template_data=data,
        versions_gone=_launched(rollable, versions) - data.keys(),
        template_tags=aws.template_tags(templates) if clients.settings.roll_back.enabled else {},
        images={i: s.image for i, s in states.items() if i in of_moving},
        images_now=images_now,
        replacements=begun(rollable, states),
        images_gone=aws.images_gone(_images_in_use(data, images_now)),
        instance_types=aws.instance_types(_types_in_use(rollable, data)),
        volume_limits=limits_read.result(),
        quota=aws.vcpu_quota(),
        services=tuple(services_read.result()),
        network_policies=policies,
        not_granted=frozenset(grants.lacking),
        unproven=unproven_marks(nodes, clients),
        hooks=tuple(aws.lifecycle_hooks([g.name for g in rollable])),
        cron_jobs=cron_jobs,
        judges_of_evictions=judges,
        alarms_missing=missing,
        unseen=frozenset(unseen),
        server_version=version_read.result(),
        now=clients.now(),
    )
    leaving = candidates(view, resolve(view.groups, view.versions), request, clients.settings.max_age_days)
    strangers, not_asked = ask_strangers(view, moving_pods(view, leaving), clients)
    return replace(view, strangers=strangers, not_asked=not_asked)


def _where_granted(read: Callable[[], Iterable[T]], what: Unseen, unseen: set[Unseen]) -> tuple[T, ...]:
    """What `read` finds; none, and `what` added to `unseen`, where the caller may not look."""
    try:
        return tuple(read())
    except AccessDenied:
        unseen.add(what)
        return ()


def unproven_marks(nodes: Iterable[Node], clients: Clients) -> tuple[tuple[str, str], ...]:
    """Marks on nodes that no roll wrote. None are told where the caller may not see the lock, which proves them."""
    try:
        lease = clients.kubernetes.lease(lock_name(clients.settings.namespace))
    except AccessDenied:
        return ()
    return tuple(unproven(lease, nodes))


class Grants:
    """What annotations ask for, and the functions may not do in that namespace: `lacking`, of what was asked.

    Nothing where the caller may not ask, such as a person who plans locally: the roll's own plan asks again.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._answered: dict[Verb, bool] = {}
        self._may_ask = True
        self.lacking: set[Verb] = set()

    def lacks(self, verb: Verb) -> bool:
        """Asked once: what several groups of a namespace need is the same."""
        if self._may_ask and verb not in self._answered:
            try:
                self._answered[verb] = self._clients.kubernetes.group_may(verb)
            except AccessDenied:
                self._may_ask = False
                self.lacking.clear()
        if not self._may_ask or self._answered[verb]:
            return False
        self.lacking.add(verb)
        return True


def ask_for_restarts(workloads: Iterable[Workload], grants: Grants, clients: Clients) -> None:
    """Whether what asks for a restart may have one. What was not asked, as a tenant has thousands, may have none."""
    restarting = [
        w.owner
        for w in workloads
        if w.owner.kind == "Deployment" and w.strategy is Strategy.RESTART and (w.desired or w.current)
    ]
    for owner, in_time in in_turn(restarting, clients.now, REQUESTS_SECONDS):
        if in_time:
            grants.lacks(needed_to_restart(owner))
        else:
            grants.lacking.add(needed_to_restart(owner))


ASKED = 40
ASKING_SECONDS = 20.0
"""How many servers that nobody declared the plan asks, and for how long, at most: each may be silent for seconds."""

SILENT_ONES = 5
"""After so many that do not answer, no more of their namespace are asked."""


def ask_strangers(
    view: ClusterSnapshot, moving: Iterable[Pod], clients: Clients
) -> tuple[dict[str, Stranger], frozenset[str]]:
    """What servers that no group has say of themselves, by UID, and the UIDs of those whose turn did not come.

    Asked are those that move, and the others of their controllers, without a password. Namespaces take turns, and those
    with silent servers come last: no tenant uses up what is there for all, and none, whatever it answers, may fail the
    plan of everybody else.
    """
    waiting = _strangers(view, moving)
    until, asked, silent = clients.now() + ASKING_SECONDS, Counter[str](), Counter[str]()
    found = dict[str, Stranger]()
    while asked.total() < ASKED and clients.now() <= until:
        turns = [n for n, pods in waiting.items() if pods and silent[n] < SILENT_ONES]
        if not turns:
            break
        namespace = min(turns, key=lambda n: (silent[n], asked[n]))
        pod = waiting[namespace].popleft()
        asked[namespace] += 1
        endpoint = Endpoint(Address(pod.address, port_of(pod)), Login(namespace), str(pod))
        try:
            answer = clients.redis.stranger(endpoint)
        except AccessDenied:
            continue
        except RollError:
            answer = None
        if isinstance(answer, Stranger):
            found[pod.uid] = answer
        else:
            silent[namespace] += 1
    return found, frozenset(p.uid for pods in waiting.values() for p in pods)


def _strangers(view: ClusterSnapshot, moving: Iterable[Pod]) -> dict[str, deque[Pod]]:
    """Namespace -> the servers that findings may be about, controller by controller: one's pods are judged together."""
    caches = {w.owner for w in view.workloads if w.annotations.get(PART) == CACHE}
    found: defaultdict[str, deque[Pod]] = defaultdict(deque)
    unknown = [p for p in moving if p.owner not in caches and LABEL not in p.labels and not view.redis_set(p.owner)]
    for members in by_owner(p for p in unknown if redis_evidence(p)).values():
        servers = (p for p in view.siblings(members[0]) if p.address and not p.finished and redis_evidence(p))
        found[members[0].namespace].extend(servers)
    return found


def _launched(groups: Sequence[Group], versions: dict[str, tuple[int, int]]) -> frozenset[str]:
    """The launch template versions that new instances would get."""
    return frozenset(number for own in resolve(groups, versions).values() for number in own.values())


def _described(
    groups: Sequence[Group], versions: dict[str, tuple[int, int]], clients: Clients
) -> dict[str, dict[str, str]]:
    """What the versions say that instances run or would get. A version that somebody has just made, which is what this
    roll may be about, is not known everywhere at once (EC2 API guide, eventual consistency)."""
    launched = _launched(groups, versions)
    data = clients.aws.template_data(launched | {i.template for g in groups for i in g.instances if i.template})
    until = clients.now() + SPREADING
    while (missing := launched - data.keys()) and clients.now() < until:
        clients.sleep(SPREADING_LOOK)
        data |= clients.aws.template_data(missing)
    return data


def _types_in_use(groups: Sequence[Group], data: dict[str, dict[str, str]]) -> set[str]:
    named = {version.get("InstanceType", "") for version in data.values()}
    return (named | {i.type for g in groups for i in g.instances}) - {""}


def _images_in_use(data: Mapping[str, Mapping[str, str]], now: Mapping[str, str]) -> set[str]:
    """The images of launch template versions, those that parameters name as they are `now`."""
    moving = by_parameter(data)
    named = {said["ImageId"] for version, said in data.items() if version not in moving and "ImageId" in said}
    return named | set(now.values())


def _look_at_all(
    groups: Sequence[RedisGroup], nodes: list[Node], pods: list[Pod], grants: Grants, clients: Clients
) -> tuple[RedisView, ...]:
    """In the groups' order. One whose turn comes too late is not looked at: silent servers fail nobody else's plan."""
    found: dict[str, RedisView] = {}
    zones = {n.name: n.zone for n in nodes}
    members = defaultdict[Owner | None, list[Pod]](list)
    for pod in pods:
        members[pod.owner].append(pod)
    for group, in_time in in_turn(groups, clients.now):
        placed = tuple((p.name, zones.get(p.node, "")) for s in group.sets for p in members.get(s.owner, ()))
        late = RedisView(group, fault=NOT_ASKED, zones=placed)
        found[str(group)] = _look_at(group, placed, grants, clients) if in_time else late
    return tuple(found[str(group)] for group in groups)


def _look_at(group: RedisGroup, placed: tuple[tuple[str, str], ...], grants: Grants, clients: Clients) -> RedisView:
    if missing := sorted(verb for verb in needed_to_migrate(group) if grants.lacks(verb)):
        return RedisView(group, fault=f"the functions may not {', '.join(map(str, missing))}", zones=placed)
    try:
        lease = clients.kubernetes.lease(group.lease)
    except Permanent as error:
        return RedisView(group, fault=sentence(error), zones=placed)
    try:
        seen = look(group, "", clients).seen
    except (RollError, *MALFORMED) as error:
        # Also what may pass: one bad server of one tenant must not fail the plan of everybody else.
        return RedisView(group, fault=sentence(error), zones=placed)
    return RedisView(group, seen, begun_by=lease.holder if lease else "", zones=placed)


handler = handler_for(run, PlanTask, locked=False)
