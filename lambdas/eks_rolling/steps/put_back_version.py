"""Put the former version back: after a canary that failed, or a gate that did not open, where the settings want it.

Each group of the roll launches again what its nodes had before, those too that the roll had not come to. The second
roll, which replaces the new nodes, is started once this one has restored. On every group it is written first what was
put back [R1], so that whoever comes after a crash finishes it, and so that nothing is rolled back twice. What somebody
else has set meanwhile stays.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.failure import error_of
from eks_rolling.errors import (
    Aborted,
    ChecksFailed,
    DeadlineExceeded,
    Interfered,
    LockLost,
    NotBegun,
    OldNodeHeld,
    Permanent,
    Refused,
    sentence,
)
from eks_rolling.migration.polling import within
from eks_rolling.observed.aws import CONFIGURATION, IMAGE_BY_PARAMETER, Group
from eks_rolling.observed.marks import GROUP_PUT_BACK, VersionPutBack
from eks_rolling.payloads import NodeFailure, PutBackTask, StepResult, Targets
from eks_rolling.plan.checks.rollback import DEFAULT, closed_way, nothing_launches, sharing
from eks_rolling.plan.snapshot import resolve
from eks_rolling.roll import lock
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for

SPREADING, SPREADING_LOOK = 20.0, 2.0
"""For how many seconds it is looked whether AWS describes what was changed, and the seconds between two looks. The
function has a minute, and a look at many groups takes seconds of its own."""


SILENT = frozenset({Aborted.__name__, NotBegun.__name__})
"""Errors that say nothing of the version."""


@dataclass(frozen=True, slots=True)
class Stays:
    """The version is not put back, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class IsBack:
    """This roll has put it back already."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """It is to be put back: `record` is written first."""

    record: VersionPutBack


def reason_to_stay(failure: str, waves: int, of_nodes: Collection[str] = ()) -> str:
    """Why a roll that ended with this error goes back nowhere; "" where it does. `of_nodes`: its nodes' errors.

    After the first wave other nodes have got on with the version: only what the settings judge it by speaks against it
    then. A workload that is not Ready may be so for its owner's sake.
    """
    if failure == ChecksFailed.__name__:
        return ""
    if failure == Interfered.__name__:
        return "somebody's change of what the roll had arranged held the gate, which says nothing about the version"
    if failure == DeadlineExceeded.__name__:
        return "" if waves <= 1 else "neither alarms nor checks held the gate, and earlier waves passed it"
    if failure == Refused.__name__:
        if waves > 1:
            return "nodes of earlier waves got on with the new version"
        elsewhere = bool(of_nodes) and {OldNodeHeld.__name__, Interfered.__name__}.issuperset(of_nodes)
        return "what held was not on the new node, and says nothing about the version" if elsewhere else ""
    return "a person ended the roll" if failure == Aborted.__name__ else "the roll did not fail at its canary or gate"


def errors_of(failures: Iterable[NodeFailure]) -> list[str]:
    """The errors of those nodes that say something of the version: not of one that another, or a person, kept from
    being replaced."""
    return [error for f in failures if (error := error_of(f.failure)) not in SILENT]


def decide(
    group: Group, former: str, targets: dict[str, str], versions: dict[str, tuple[int, int]], roll: str
) -> Stays | IsBack | PutBack:
    """What to do about a group; `targets` is what it was to launch, `versions` latest and default of its template."""
    now, failed = resolve([group], versions).get(group.name, {}).get("", ""), targets.get("", "")
    record = VersionPutBack(failed, former, roll)
    ours = VersionPutBack.on(group) == record
    if now == former and ours:
        return IsBack()
    if now != failed:
        return Stays(f"it launches {now or 'nothing that is known'} now, which somebody set during the roll")
    if closed := closed_way(group):
        return Stays(f"{closed[0]}, which somebody set during the roll")
    return PutBack(record)


def tried(groups: Iterable[Group], targets: Targets) -> bool:
    """Whether any instance has what the roll was to bring. If none has, the roll failed for want of capacity, and not
    for what is new."""
    return any(i.alive and i.template == targets.get(g.name, {}).get("", "") for g in groups for i in g.instances)


def run(task: PutBackTask, clients: Clients) -> StepResult:
    """`output.groups` launch their former version again; `output.said` tells what was done about each, as sentences."""
    if why := reason_to_stay(error_of(task.failure), task.waves, errors_of(task.failures)):
        return StepResult.done(f"no version is put back: {why}", groups=[], said=[])
    if not task.former:
        return StepResult.done("no version can be put back; the plan says why", groups=[], said=[])
    groups = {g.name: g for g in clients.aws.groups(sorted(task.former))}
    if not tried(groups.values(), task.targets):
        return StepResult.done("no version is put back: no node has a new one", groups=[], said=[])
    # Whichever groups there are by now: a default version is every user's.
    everyone = clients.aws.groups()
    decided = _decide_all(groups, everyone, task, clients)
    begun = any(isinstance(decision, IsBack) for decision in decided.values())
    if not begun and lock.ABORT in lock.confirm(clients, task.roll).annotations:
        return StepResult.done("no version is put back: a person ended the roll", groups=[], said=[])
    # All records before the first change: groups may share a launch template, whose default is changed once.
    decided = {name: _recorded(name, decision, clients) for name, decision in decided.items()}
    # One that stays may keep those from going back that share a template with it.
    going = task.model_copy(
        update={"former": {n: task.former[n] for n, d in decided.items() if not isinstance(d, Stays)}}
    )
    back, said = [], []
    for name, decision in decided.items():
        outcome = decision if isinstance(decision, Stays) else _put_back(name, everyone, going, clients)
        if isinstance(outcome, Stays):
            said.append(f"group {name}: the version stays: {outcome.reason}")
        else:
            back.append(name)
            said.append(f"group {name}: back from {task.targets[name]['']} to {task.former[name]}")
    _let_spread({name: task.former[name] for name in back}, clients)
    said += [f"group {g}: the version stays: the plan says why" for g in sorted(task.targets.keys() - task.former)]
    return StepResult.done("; ".join(said), groups=back, said=said)


def _recorded(name: str, decision: Stays | IsBack | PutBack, clients: Clients) -> Stays | IsBack | PutBack:
    """The decision, once it is written on the group what it is. Raises LockLost, Transient."""
    if not isinstance(decision, PutBack):
        return decision
    try:
        clients.aws.tag_group(name, {GROUP_PUT_BACK: str(decision.record)})
    except LockLost:
        raise
    except Permanent as error:
        return Stays(sentence(error))
    return decision


def _decide_all(
    groups: Mapping[str, Group], everyone: Sequence[Group], task: PutBackTask, clients: Clients
) -> dict[str, Stays | IsBack | PutBack]:
    gone = Stays("the group is gone")
    return {
        name: _decide(groups[name], everyone, task, clients) if name in groups else gone for name in sorted(task.former)
    }  # fmt: skip


def _decide(group: Group, everyone: Sequence[Group], task: PutBackTask, clients: Clients) -> Stays | IsBack | PutBack:
    versions = clients.aws.template_versions([group.template.id] if group.template else [])
    decision = decide(group, task.former[group.name], task.targets.get(group.name, {}), versions, task.roll)
    if isinstance(decision, PutBack) and (image := _gone_image(decision.record.former, clients)):
        return Stays(nothing_launches(decision.record.former, image))
    if isinstance(decision, PutBack) and group.template is not None and group.template.version == DEFAULT:
        goes = {name: (former, task.targets.get(name, {}).get("", "")) for name, former in task.former.items()}
        if others := sharing(group, goes, everyone):
            return Stays(f"{group.template.id}'s default version is also that of {' and '.join(others)}")
    return decision


def _gone_image(version: str, clients: Clients) -> str:
    """The version's image if it is gone by now; "" where it is there, or where the version names it in another way."""
    image = clients.aws.template_data([version]).get(version, {}).get("ImageId", "")
    if not image or image.startswith(IMAGE_BY_PARAMETER):
        return ""
    return image if image in clients.aws.images_gone([image]) else ""


def _put_back(name: str, everyone: Sequence[Group], task: PutBackTask, clients: Clients) -> Stays | IsBack:
    """Looked at again right before it is changed: AWS takes no precondition."""
    group = next(iter(clients.aws.groups([name])), None)
    if group is None:
        return Stays("the group is gone")
    decision = _decide(group, everyone, task, clients)
    if not isinstance(decision, PutBack):
        return decision
    try:
        _launch_again(group, task.former[name], clients)
    except LockLost:
        raise
    except Permanent as error:
        return Stays(sentence(error))
    return IsBack()


def _let_spread(back: Mapping[str, str], clients: Clients) -> None:
    """Waits until AWS describes the groups (name -> version) as they were made: the second roll would take what is
    described late for what somebody has set since (EC2 API guide, eventual consistency)."""

    def described() -> bool:
        groups = clients.aws.groups(sorted(back))
        versions = clients.aws.template_versions([g.template.id for g in groups if g.template])
        now = resolve(groups, versions)
        return all(now.get(name, {}).get("") == version for name, version in back.items())

    if back:
        within(SPREADING, described, clients, every=SPREADING_LOOK)


def _launch_again(group: Group, former: str, clients: Clients) -> None:
    template, _, number = former.partition(":")
    if former.startswith(CONFIGURATION):
        clients.aws.set_configuration(group.name, former.removeprefix(CONFIGURATION))
    elif group.template is not None and group.template.version == DEFAULT:
        clients.aws.set_default_version(template, number)
    else:
        clients.aws.set_template_version(group.name, template, number)


handler = handler_for(run, PutBackTask, honors=Honors.NOTHING)
