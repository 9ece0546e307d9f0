"""Look for orphans: what rolls that died have left behind, for the report, and by the clock. Changes nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.report import Orphan
from eks_rolling.errors import Permanent, sentence
from eks_rolling.legible import short
from eks_rolling.migration.asking import REQUESTS_SECONDS, in_turn, too_many
from eks_rolling.observed.aws import as_their_groups_say
from eks_rolling.observed.kubernetes import Lease, Owner
from eks_rolling.payloads import OrphansTask, StepResult
from eks_rolling.redis.groups import BrokenGroup, RedisGroup, broken, declared
from eks_rolling.roll import lock
from eks_rolling.roll import pending_change as changes
from eks_rolling.roll.orphans import OrphanScan, autoscaler_paused_seconds, orphans
from eks_rolling.runtime import handler_for
from eks_rolling.wording import counted

MOST = 100
"""Orphans in an answer, which has to fit between two states."""

MOST_OF_A_KIND = 30
"""Of which so many of one kind: what a tenant makes in our name hides nothing of the roll's."""

LONGEST_NAME = 500
"""Characters of what an orphan is called: annotations and holders of tenants are among them."""


def run(task: OrphansTask, clients: Clients) -> StepResult:
    """`output.dead` is the roll that died with the lock in its hands, if any: its restore has yet to be done."""
    view, unseen = observe(task, clients)
    found = orphans(view)
    reason = counted(len(found), "orphan") if found else "nothing is left behind"
    return StepResult.done(
        "; ".join([reason, *unseen]),
        orphans=[o.model_dump(mode="json") for o in told(found)],
        orphans_found=len(found),
        unseen=unseen_told(unseen),
        autoscaler_paused_seconds=autoscaler_paused_seconds(view),
        dead=view.dead,
    )


def told(found: Iterable[Orphan]) -> list[Orphan]:
    """Those that an answer has room for, each with as much of its name."""
    kinds, listed = Counter[str](), []
    for orphan in found:
        kinds[orphan.kind] += 1
        if kinds[orphan.kind] <= MOST_OF_A_KIND:
            listed.append(orphan.model_copy(update={"object": short(orphan.object, LONGEST_NAME)}))
    return listed[:MOST]


def unseen_told(unseen: Sequence[str]) -> list[str]:
    """Those that an answer has room for: a tenant may declare Redis groups by the thousand."""
    rest = [f"and {len(unseen) - MOST_OF_A_KIND} more"] if len(unseen) > MOST_OF_A_KIND else []
    return [short(each, LONGEST_NAME) for each in unseen[:MOST_OF_A_KIND]] + rest


def observe(task: OrphansTask, clients: Clients) -> tuple[OrphanScan, list[str]]:
    """What orphans are found in, and what could not be read, as sentences."""
    settings, kubernetes = clients.settings, clients.kubernetes
    groups, nodes, workloads = clients.aws.groups(), kubernetes.nodes(), kubernetes.workloads()
    instances = {i.id for g in groups for i in g.instances} | {n.instance for n in nodes if n.instance}
    leases, unseen = [], []
    ours = (
        lock.lock_name(settings.namespace),
        changes.lease_name(settings.namespace),
        lock.launch_name(settings.namespace),
    )
    redis, problems = declared(workloads)
    meant: list[RedisGroup | BrokenGroup] = [*redis, *broken(problems)]
    late = []

    def read(name: str) -> None:
        try:
            leases.append(kubernetes.lease(name) or Lease(name))
        except Permanent as error:
            unseen.append(f"the Lease {name} could not be read: {sentence(error)}")

    for name in ours:
        read(name)
    for group, in_time in in_turn(meant, clients.now, REQUESTS_SECONDS):
        if in_time:
            read(group.lease)
        else:
            late.append(group)
    unseen += too_many(late, "Redis group")
    autoscaler = Owner("Deployment", settings.autoscaler.namespace, settings.autoscaler.deployment)
    view = OrphanScan(
        cluster=settings.cluster,
        now=clients.now(),
        groups=tuple(groups),
        states=as_their_groups_say(groups, clients.aws.instances(sorted(instances))),
        nodes=tuple(nodes),
        pods=tuple(kubernetes.pods()),
        budgets=tuple(kubernetes.budgets()),
        autoscaler=next((w for w in workloads if w.owner == autoscaler), None),
        leases=tuple(leases),
        ended=task.roll if task.ended else "",
    )
    return view, unseen


handler = handler_for(run, OrphansTask, locked=False)
