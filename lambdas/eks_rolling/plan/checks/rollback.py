"""Where a roll that fails could go back to: each group's former version, or why there is no way back. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from eks_rolling.documents.finding import Finding, blocks, note
from eks_rolling.documents.plan import FormerVersion
from eks_rolling.names import CLUSTER_TAG_VALUES, cluster_tag
from eks_rolling.observed.aws import CONFIGURATION, Group, LaunchTemplate, same_template
from eks_rolling.observed.kubernetes import ready_nodes
from eks_rolling.observed.marks import VersionPutBack
from eks_rolling.payloads import RollRequest, Targets
from eks_rolling.plan.snapshot import Candidate, ClusterSnapshot
from eks_rolling.settings import Settings
from eks_rolling.wording import counted

LATEST, DEFAULT = "$Latest", "$Default"

LONGEST_ROLL = "-" * 80
"""An execution's name has 80 characters at most."""


def former_versions(
    view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets, request: RollRequest, settings: Settings
) -> tuple[list[FormerVersion], list[Finding]]:
    """Of each group with outdated nodes: the version that a failed roll puts back, or a note why it puts back none.

    Nothing where the setting is off, and for a roll that goes back itself.
    """
    found: list[FormerVersion] = []
    findings: list[Finding] = []
    if not settings.roll_back.enabled or request.rolls_back:
        return found, findings
    for group, members in _by_group(c for c in chosen if not c.reason):
        failed, formers = targets[group.name].get("", ""), {c.instance.template for c in members}
        former = next(iter(formers))
        record = VersionPutBack.on(group)
        if record and (record.failed, record.former) == (former, failed):
            findings.append(_no_way(group, f"this roll takes it back already, because {record.roll} failed", "nothing"))
        elif why := _obstacle(group, formers, failed, view, settings):
            findings.append(_no_way(group, *why))
        else:
            found.append(FormerVersion(group=group.name, former=former, failed=failed, way=_way(group)))
    groups = {g.name: g for g in view.groups}
    # One that stays may keep others from going back, so that this is asked until all agree.
    while shared := {f.group: others for f in found if (others := _sharing(f, found, view))}:
        findings += [
            _no_way(
                groups[name],
                f"its launch template's default version is also that of {' and '.join(others)}, "
                "which would not go back with it",
                "roll all of them together, or give each a launch template of its own",
            )
            for name, others in shared.items()
        ]
        found = [f for f in found if f.group not in shared]
    return found, findings


def _sharing(one: FormerVersion, found: Sequence[FormerVersion], view: ClusterSnapshot) -> list[str]:
    groups = (*view.groups, *view.other_groups)
    goes = {f.group: (f.former, f.failed) for f in found}
    return sharing(next(g for g in view.groups if g.name == one.group), goes, groups)


def sharing(group: Group, goes: Mapping[str, tuple[str, str]], groups: Iterable[Group]) -> list[str]:
    """The other groups that a change of the default version of the group's launch template would move, and that do not
    go back with it. `goes`: group -> the former version, which it goes back to, and the failed one."""
    if group.template is None or group.template.version != DEFAULT:
        return []
    named = LaunchTemplate(group.template.id, DEFAULT)
    return sorted(
        g.name
        for g in groups
        if g.name != group.name
        and named in (g.template, *(template for _, template in g.overrides))
        and goes.get(g.name) != goes.get(group.name)
    )


def _by_group(chosen: Iterable[Candidate]) -> Iterator[tuple[Group, list[Candidate]]]:
    members: dict[str, list[Candidate]] = {}
    for candidate in chosen:
        members.setdefault(candidate.group.name, []).append(candidate)
    yield from ((found[0].group, found) for _, found in sorted(members.items()))


def _no_way(group: Group, reason: str, remedy: str) -> Finding:
    return note(
        "no-way-back", f"group {group.name}", f"if the roll fails, its version is not put back: {reason}", remedy
    )


def _way(group: Group) -> str:
    """How its version is put back, as a phrase."""
    if group.configuration:
        return "its launch configuration"
    by_default = group.template is not None and group.template.version == DEFAULT
    return "its launch template's default version" if by_default else "its version number"


def _obstacle(
    group: Group, formers: set[str], failed: str, view: ClusterSnapshot, settings: Settings
) -> tuple[str, str] | None:
    """Why the group cannot go back, and what to do about it; None where it can."""
    if len(formers) > 1:
        return (
            f"its nodes have {' and '.join(sorted(formers))}, so it is not known which to go back to",
            "nothing",
        )
    former = next(iter(formers))
    if serving := _serving(group, failed, view):
        return f"nodes of the new version serve already: {counted(serving, 'node')} of {failed}", "nothing"
    if group.configuration:
        return _configurations(failed, former, view)
    template = group.template
    if template is None or not same_template(former, failed):
        return "its nodes are of another launch template", "nothing"
    if gone := _gone(former, view):
        return gone
    if closed := closed_way(group):
        return closed
    if template.version == DEFAULT:
        return _untagged(template.id, view, settings)
    if not settings.roll_back.node_roles:
        return (
            "it names its version by a number, which AWS lets set whoever may pass the nodes' role",
            "set roll_back.node_roles, or point the group at $Default",
        )
    return _untagged(template.id, view, settings)


def _configurations(failed: str, former: str, view: ClusterSnapshot) -> tuple[str, str] | None:
    """The same where the group has launch configurations, whose names may be anything."""
    if not former.startswith(CONFIGURATION):
        return "its nodes' launch configuration is gone, or was a launch template", "nothing"
    if gone := _image_gone(former, view):
        return gone
    if VersionPutBack(failed, former, LONGEST_ROLL).is_legible:
        return None
    return (
        "the names of its launch configurations do not fit into the tag that records it",
        "give them short names without spaces",
    )


def _gone(former: str, view: ClusterSnapshot) -> tuple[str, str] | None:
    """What of the former version is not there any more, and what to do about it; None where all is."""
    if former not in view.template_data:
        return f"{former} does not exist any more", "keep versions for as long as nodes have them"
    return _image_gone(former, view)


def _image_gone(former: str, view: ClusterSnapshot) -> tuple[str, str] | None:
    if (image := view.image_of(former)) in view.images_gone:
        return nothing_launches(former, image), "keep images for as long as nodes have them"
    return None


def nothing_launches(version: str, image: str) -> str:
    """Why a version whose image is gone is not gone back to: its group could not launch a single instance."""
    return f"image {image} of {version} is gone, so nothing could be launched"


def closed_way(group: Group) -> tuple[str, str] | None:
    """Why no version of its launch template can be put back as the group is now, and what to do about it."""
    if group.template is None:
        return None
    if group.template.version == LATEST:
        return (
            "it launches whatever version is the latest ($Latest)",
            "point the group at $Default or at a number, if it is to be put back",
        )
    if group.overrides:
        return "its overrides have launch templates of their own", "nothing"
    if group.mixed and group.template.version != DEFAULT:
        return "its version number is part of its mixed instances policy", "point the policy at $Default"
    return None


def _serving(group: Group, failed: str, view: ClusterSnapshot) -> int:
    """How many nodes of the version that the roll brings serve before it, such as those that an earlier roll left: the
    waves of this one say nothing about them."""
    nodes = [view.node_of(i.id) for i in group.instances if i.template == failed and i.lifecycle == "InService"]
    return sum(ready_nodes(n for n in nodes if n is not None).values())


def _untagged(template: str, view: ClusterSnapshot, settings: Settings) -> tuple[str, str] | None:
    """No step may touch a launch template without the cluster's tag."""
    key = cluster_tag(settings.cluster)
    if view.template_tags.get(template, {}).get(key) in CLUSTER_TAG_VALUES:
        return None
    return f"launch template {template} is not tagged {key}", f"tag it {key}=owned"


def goes_back_after(chosen: Sequence[Candidate], targets: Targets) -> str:
    """The failed roll after which all of these go back to what it has put back, whoever starts that: the event of its
    own change may be quicker than its second roll. "" where there is none."""
    rolls: set[str] = set()
    for group, members in _by_group(chosen):
        record = VersionPutBack.on(group)
        went = {(c.instance.template, targets[group.name].get("", "")) for c in members}
        rolls.add(record.roll if record and went == {(record.failed, record.former)} else "")
    return rolls.pop() if len(rolls) == 1 else ""


def rollback_findings(view: ClusterSnapshot, request: RollRequest, targets: Targets) -> Iterator[Finding]:
    """About a roll that goes back: whether its groups still launch what the failed roll put back."""
    if not request.rolls_back:
        return
    for group in (g for g in view.groups if not request.groups or g.name in request.groups):
        record, now = VersionPutBack.on(group), targets.get(group.name, {}).get("", "")
        if record is None or record.roll != request.rolls_back:
            yield blocks(
                "not-put-back",
                f"group {group.name}",
                f"{request.rolls_back} put no version of it back",
                "start an ordinary roll",
            )
        elif now != record.former:
            yield blocks(
                "version-changed",
                f"group {group.name}",
                f"{request.rolls_back} put {record.former} back, and somebody has set {now} since",
                "nothing, if a roll to that is wanted: start it",
            )
