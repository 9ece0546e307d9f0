"""Findings about the Auto Scaling groups: can they launch, in the right place, and does nothing else replace nodes."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from eks_rolling.documents.finding import Finding, Severity, blocks, holds, note
from eks_rolling.documents.remedies import back_in_service
from eks_rolling.names import CLUSTER_TAG_VALUES, cluster_tag
from eks_rolling.observed.aws import BY_ATTRIBUTES, CONFIGURATION, Group
from eks_rolling.observed.marks import (
    GROUP_MAXIMUM,
    GROUP_PUT_BACK,
    GROUP_RESUME,
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
    MOST_TAGS,
)
from eks_rolling.payloads import RollRequest, Targets
from eks_rolling.plan.snapshot import DAY, Candidate, ClusterSnapshot, by_parameter, resolve, unresolved
from eks_rolling.settings import Deadlines, Settings
from eks_rolling.wording import counted

NAMED_TYPES = 4

OUT_OF_SERVICE = frozenset({"Standby", "EnteringStandby", "Detaching", "Detached"})


def group_findings(
    view: ClusterSnapshot, request: RollRequest, settings: Settings, touched: Collection[str]
) -> Iterator[Finding]:
    """About every group that the roll looks at; what is wrong with those that it does not touch is worth a note."""
    for group in view.groups:
        if group.managed:
            yield Finding(
                code="managed-node-group",
                severity=Severity.BLOCKS if group.name in request.groups else Severity.NOTE,
                object=f"group {group.name}",
                reason="it belongs to an EKS managed node group, whose nodes only EKS replaces",
                remedy=f"update the node group {group.tags['eks:nodegroup-name']} in EKS, and leave it out here",
            )
        else:
            found = (
                *_ability(group, settings),
                *_tag_of_new_instances(view, group, settings),
                *_version_of_new_instances(view, group),
                *_image_of_new_instances(view, group),
                *_room_for_tags(view, group, settings),
                *_others_at_work(group),
            )
            yield from found if group.name in touched else map(_untouched, found)
            if not found and not group.instances and not group.desired:
                yield note(
                    "idle-group",
                    f"group {group.name}",
                    "it has no instance to replace; its next one comes as its launch template says then",
                    "nothing",
                )


def _untouched(finding: Finding) -> Finding:
    """What would block a roll of the group, where this one replaces none of its instances."""
    reason = f"{finding.reason} (this roll replaces none of its instances)"
    return note(finding.code, finding.object, reason, finding.remedy)


def _ability(group: Group, settings: Settings) -> Iterator[Finding]:
    subject = f"group {group.name}"
    if group.tags.get(cluster_tag(settings.cluster)) not in CLUSTER_TAG_VALUES:
        yield blocks(
            "foreign-group",
            subject,
            f"it is not tagged {cluster_tag(settings.cluster)}, with the value owned or shared",
            "tag it `owned` if its instances are nodes of this cluster, or leave it out",
        )
    for feature in group.unhandled:
        yield blocks(
            "group-feature", subject, f"a roll does not know {feature}", "leave the group out, or do without it"
        )
    for process in sorted(group.suspended & {"Launch", "Terminate"}):
        yield blocks(
            f"{process.lower()}-suspended",
            subject,
            f"its process {process} is suspended",
            "find out why it was suspended, and resume it",
        )


def _tag_of_new_instances(view: ClusterSnapshot, group: Group, settings: Settings) -> Iterator[Finding]:
    """Steps may act on an instance by the cluster's tag on it; one that comes without it could not be marked."""
    key = cluster_tag(settings.cluster)
    launches = resolve([group], view.versions).get(group.name, {}).values()
    if key in group.kept_tags and not all(key in _instance_tags(view.template_data.get(to, {})) for to in launches):
        yield blocks(
            "tag-not-propagated",
            f"group {group.name}",
            f"its tag {key} is not for its new instances, so no step may touch a replacement",
            "give the tag PropagateAtLaunch, or have the launch template tag instances",
        )


def _version_of_new_instances(view: ClusterSnapshot, group: Group) -> Iterator[Finding]:
    """Every launch would fail, and of a template without any version nobody can tell which nodes are outdated."""
    launches = resolve([group], view.versions).get(group.name, {}).values()
    gone = {v.removeprefix(CONFIGURATION) for v in launches if v in view.versions_gone}
    for what in (*unresolved(group, view.versions), *sorted(gone)):
        yield blocks(
            "version-gone",
            f"group {group.name}",
            f"what it launches does not exist any more: {what}",
            "point the group at a launch template and a version that exist",
        )


def _image_of_new_instances(view: ClusterSnapshot, group: Group) -> Iterator[Finding]:
    """Every launch would fail, and a roll would only find out once it has begun."""
    for version in sorted(set(resolve([group], view.versions).get(group.name, {}).values())):
        if (image := view.image_of(version)) in view.images_gone:
            yield blocks(
                "image-gone",
                f"group {group.name}",
                f"nothing can be launched from image {image} of {version}: it was deregistered or disabled, or is not "
                "shared with this account any more",
                "make a version with another image, or ask the image's owner to share it again",
            )


def _room_for_tags(view: ClusterSnapshot, group: Group, settings: Settings) -> Iterator[Finding]:
    """A roll writes what it has to put back as tags, on groups and on new instances; AWS takes a number of them."""
    launches = resolve([group], view.versions).get(group.name, {}).values()
    propagated = group.tags.keys() - group.kept_tags
    of_instances = [propagated | _instance_tags(view.template_data.get(version, {})) for version in launches]
    record = {GROUP_PUT_BACK} if settings.roll_back.enabled else set[str]()
    for whose, there, ours in (
        ("it has", [set(group.tags)], {GROUP_MAXIMUM, GROUP_RESUME} | record),
        ("its new instances get", of_instances, {INSTANCE_REPLACES, INSTANCE_PROTECTED}),
    ):
        theirs = max((sum(not key.startswith("aws:") for key in keys - ours) for keys in there), default=0)
        if theirs + len(ours) > MOST_TAGS:
            yield blocks(
                "no-room-for-tags",
                f"group {group.name}",
                f"{whose} {theirs} tags, AWS allows {MOST_TAGS}, and a roll writes {len(ours)}",
                "remove some",
            )


def _instance_tags(data: dict[str, str]) -> set[str]:
    """Keys of the tags that a launch template version, field by field, gives to instances."""
    of_instances = tuple(
        path.removesuffix("ResourceType") + "Tags["
        for path, value in data.items()
        if path.startswith("TagSpecifications[") and path.endswith("].ResourceType") and value == "instance"
    )
    return {value for path, value in data.items() if path.startswith(of_instances) and path.endswith("].Key")}


def _others_at_work(group: Group) -> Iterator[Finding]:
    subject = f"group {group.name}"
    if group.refresh_running:
        yield blocks(
            "instance-refresh",
            subject,
            "an instance refresh is replacing its instances",
            "wait for it to end, or cancel it",
        )
    if group.warm_pool:
        yield blocks(
            "warm-pool",
            subject,
            "it has a warm pool, whose instances would replace nodes with the old version",
            "delete the warm pool for the roll",
        )
    for instance in group.instances:
        if instance.lifecycle in OUT_OF_SERVICE:
            yield blocks(
                "standby",
                f"instance {instance.id}",
                f"it is {instance.lifecycle} in {group.name}",
                _back(instance.id, group) if "Standby" in instance.lifecycle else "wait until it has left the group",
            )


def _back(instance: str, group: Group) -> str:
    """Ended while it stands by, its group would be asked twice to go with one less: as a rule it was when the instance
    went to stand by."""
    return (
        f"put it back into service: {back_in_service(instance, group.name)}; if it is not wanted, terminate it by hand "
        "after that"
    )


def capacity_findings(view: ClusterSnapshot, chosen: Sequence[Candidate], surge: int) -> Iterator[Finding]:
    """About the groups that have instances to replace: room for `surge` replacements beside what is there."""
    by_group: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in chosen:
        by_group[candidate.group.name].append(candidate)
    for name, members in sorted(by_group.items()):
        yield from _addresses(view, name, members, surge)
        yield from _size(members[0].group)
        yield from _replaced_by_others(members[0].group)
        yield from _protection(members)
        yield from _balance(members[0].group)


def hook_findings(view: ClusterSnapshot, chosen: Sequence[Candidate], deadlines: Deadlines) -> Iterator[Finding]:
    """About lifecycle hooks of groups that have instances to replace, against the deadlines of the steps they hold."""
    touched = {c.group.name for c in chosen}
    for hook in (h for h in view.hooks if h.group in touched):
        what, step = ("goes", "terminate") if hook.terminating else ("comes", "await_ready")
        deadline = deadlines.terminate if hook.terminating else deadlines.await_ready
        subject = f"lifecycle hook {hook.name} of {hook.group}"
        if hook.seconds >= deadline:
            yield holds(
                "hook-outlasts-deadline",
                subject,
                f"it may hold each instance that {what} for {hook.seconds:.0f} s, and a roll fails after {deadline} s",
                f"raise deadlines.{step} above it, lower its heartbeat timeout, or have it completed sooner",
            )
        else:
            yield note(
                "lifecycle-hook",
                subject,
                f"it holds each instance that {what} until it is completed, for {hook.seconds:.0f} s at most",
                "nothing, if something completes it; else every node takes that much longer",
            )


def _addresses(view: ClusterSnapshot, group: str, members: list[Candidate], surge: int) -> Iterator[Finding]:
    members = [c for c in members if c.launches]
    for zone, count in sorted(Counter(c.instance.zone for c in members).items()):
        free = view.free_addresses.get(group, {}).get(zone)
        nodes = [c.node.name for c in members if c.node and c.instance.zone == zone]
        fullest = max((1 + len(view.pods_on(n)) for n in nodes), default=1)
        needed = min(surge, count) * fullest
        if free == 0:
            yield blocks(
                "no-addresses",
                f"group {group}",
                f"its subnets in {zone} have no free address for a replacement",
                "free addresses, or add a subnet",
            )
        elif free is not None and free < needed:
            yield note(
                "few-addresses",
                f"group {group}",
                f"its subnets in {zone} have few free addresses ({free}): replacements with their pods take up to "
                f"{needed} at a time",
                "free addresses, or add a subnet",
            )


def _size(group: Group) -> Iterator[Finding]:
    subject = f"group {group.name}"
    if len(group.types) > 1 or any(kind.startswith(BY_ATTRIBUTES) for kind in group.types):
        yield note(
            "several-types",
            subject,
            f"AWS chooses {_choice(group.types)} for each new node, and the plan takes it for one like the old node",
            "nothing, if every pod fits on each of them",
        )
    if group.configuration:
        yield note(
            "launch-configuration",
            subject,
            "it uses a launch configuration, so replacements come by raising its desired capacity, one at a time",
            "nothing; it is slower. AWS wants launch templates instead",
        )
    if group.mixed_purchasing:
        yield note(
            "mixed-purchasing",
            subject,
            "it mixes on-demand and spot, so replacements come by raising its desired capacity, one at a time",
            "nothing; it is slower",
        )
    if group.desired >= group.maximum:
        yield note(
            "maximum-raised",
            subject,
            f"its maximum size {group.maximum} leaves no room for replacements and is raised for the roll",
            "nothing; it is put back at the end",
        )


def _replaced_by_others(group: Group) -> Iterator[Finding]:
    """Features by which AWS itself terminates instances, during a roll too: no process can be suspended for them."""
    subject = f"group {group.name}"
    if group.longest_life:
        yield note(
            "instance-lifetime",
            subject,
            f"AWS replaces its instances, without a drain, once they are {group.longest_life / DAY:.0f} days old",
            "set its MaxInstanceLifetime to 0; the setting max_age_days does the same with a drain",
        )
    if group.rebalances_spot:
        yield note(
            "capacity-rebalance",
            subject,
            "AWS replaces its spot instances itself once they are at risk, without draining them",
            "turn off its capacity rebalancing, or run something that drains on the notice",
        )


def _choice(types: Sequence[str]) -> str:
    named = [kind for kind in types if not kind.startswith(BY_ATTRIBUTES)]
    more = f" and {len(named) - NAMED_TYPES} more" if len(named) > NAMED_TYPES else ""
    listed = f"one of {', '.join(named[:NAMED_TYPES])}{more}" if named else ""
    by_attributes = "a type by its attributes" if len(named) < len(types) else ""
    return " or ".join(filter(None, (listed, by_attributes)))


def _protection(members: list[Candidate]) -> Iterator[Finding]:
    protected = [c.instance.id for c in members if c.instance.protected]
    if protected:
        named = ", ".join(protected[:3]) + (" and others" if len(protected) > 3 else "")
        yield note(
            "protected",
            f"group {members[0].group.name}",
            f"{counted(len(protected), 'instance')} to replace ({named}) protected from scale-in, which does not "
            "keep a roll from terminating them",
            "to keep them, name only the other nodes in `nodes`",
        )


def _balance(group: Group) -> Iterator[Finding]:
    counts = Counter(dict.fromkeys(group.zones, 0))
    counts.update(i.zone for i in group.instances if i.alive)
    if len(counts) > 1 and max(counts.values()) - min(counts.values()) > 1 and "AZRebalance" not in group.suspended:
        told = ", ".join(f"{count} in {zone}" for zone, count in sorted(counts.items()))
        yield note(
            "unbalanced-zones",
            f"group {group.name}",
            f"it has {told}; every node is replaced in its zone, and AZRebalance, resumed at the end, may then "
            "terminate nodes without draining them",
            "keep AZRebalance suspended, or have one group for each zone",
        )


def image_findings(view: ClusterSnapshot, every: Targets) -> Iterator[Finding]:
    """Groups whose template names its image by a parameter that could not be looked up."""
    unknown = by_parameter(view.template_data) - view.images_now.keys()
    for name, targets in sorted(every.items()):
        if any(version in unknown for version in targets.values()):
            yield note(
                "image-unknown",
                f"group {name}",
                "its launch template names the image by a parameter, and which image that is now could not be found "
                "out: nodes with an older image are not recognized",
                "allow ssm:GetParameters for that parameter, or force those nodes",
            )
