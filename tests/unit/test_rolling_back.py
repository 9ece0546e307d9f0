"""Which groups a failed roll could take back, and what the step does about each: tables of decisions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.observed.aws import Group, GroupInstance, LaunchTemplate
from eks_rolling.observed.kubernetes import Node, Taint
from eks_rolling.observed.marks import GROUP_PUT_BACK, VersionPutBack
from eks_rolling.payloads import NodeFailure, RollRequest
from eks_rolling.plan.checks import ClusterSnapshot, candidates, resolve
from eks_rolling.plan.checks.rollback import former_versions, goes_back_after, rollback_findings
from eks_rolling.settings import RollBack, Settings
from eks_rolling.steps.put_back_version import IsBack, PutBack, Stays, decide, errors_of, reason_to_stay, tried

TAG = "kubernetes.io/cluster/demo"
BY_DEFAULT = Settings(cluster="demo", roll_back=RollBack(enabled=True))
BY_NUMBER = Settings(
    cluster="demo", roll_back=RollBack(enabled=True, node_roles=("arn:aws:iam::123456789012:role/nodes",))
)
OLD = GroupInstance("i-1", "a", template="lt-1:1", type="m6i.large")
GROUP = Group("ng", maximum=5, desired=1, zones=("a",), instances=(OLD,), template=LaunchTemplate("lt-1", "$Default"))
VIEW = ClusterSnapshot(
    groups=(GROUP,),
    versions={"lt-1": (2, 2)},
    template_data={"lt-1:1": {}, "lt-1:2": {}},
    template_tags={"lt-1": {TAG: "owned"}},
)


def seen(view: ClusterSnapshot = VIEW, settings: Settings = BY_DEFAULT, **request: Any) -> tuple[list[str], list[str]]:
    """The sentences of what goes back, and the reasons of what does not."""
    asked = RollRequest(**request)
    targets = resolve(view.groups, view.versions)
    former, notes = former_versions(view, candidates(view, targets, asked), targets, asked, settings)
    return [f.sentence for f in former], [n.reason.partition(": ")[2] for n in notes]


def with_group(**more: Any) -> ClusterSnapshot:
    return replace(VIEW, groups=(replace(GROUP, **more),))


def test_a_group_at_the_default_version_goes_back_by_that() -> None:
    way = "its launch template's default version is changed back"
    said = f"ng goes back to 1 ({way}), and its new nodes are replaced again"
    assert seen() == ([said], [])


def test_a_group_at_a_number_goes_back_by_that_where_the_nodes_roles_are_named() -> None:
    at_number = with_group(template=LaunchTemplate("lt-1", "2"))
    goes_back = "ng goes back to 1 (its version number is changed back), and its new nodes are replaced again"
    assert seen(at_number, BY_NUMBER)[0] == [goes_back]
    stays = "it names its version by a number, which AWS lets set whoever may pass the nodes' role"
    assert seen(at_number)[1] == [stays]


def test_a_group_of_a_launch_configuration_goes_back_by_its_name() -> None:
    view = with_group(template=None, configuration="conf-2", instances=(replace(OLD, template="lc:conf-1"),))
    said = "ng goes back to conf-1 (its launch configuration is changed back), and its new nodes are replaced again"
    assert seen(view) == ([said], [])


def of_configurations(former: str, failed: str) -> ClusterSnapshot:
    return with_group(template=None, configuration=failed, instances=(replace(OLD, template=f"lc:{former}"),))


@pytest.mark.parametrize(
    ("former", "failed", "fits"),
    [("c" * 70, "d" * 70, True), ("c" * 90, "d" * 90, False), ("my nodes 1", "my nodes 2", False)],
)
def test_a_launch_configuration_is_gone_back_to_only_if_the_groups_tag_can_say_so(
    former: str, failed: str, *, fits: bool
) -> None:
    """A tag takes 256 characters; without the record nobody knows that it is a rollback (R1)."""
    goes_back, why = seen(of_configurations(former, failed))
    assert (len(goes_back), why) == (
        (1, []) if fits else (0, ["the names of its launch configurations do not fit into the tag that records it"])
    )


def test_a_launch_configuration_whose_image_is_gone_is_not_gone_back_to() -> None:
    data = {"lc:conf-1": {"ImageId": "ami-1"}, "lc:conf-2": {"ImageId": "ami-2"}}
    view = replace(of_configurations("conf-1", "conf-2"), template_data=data, images_gone=frozenset({"ami-1"}))
    assert seen(view) == ([], ["image ami-1 of lc:conf-1 is gone, so nothing could be launched"])


@pytest.mark.parametrize("roll", ["roll-1", "release-1.2", "x" * 80, "größer", "a+b=c@d!"])
def test_the_record_of_any_rolls_name_is_read_again(roll: str) -> None:
    """An execution may be called anything without spaces, brackets, wildcards and some signs (API reference)."""
    record = VersionPutBack("lt-1:2", "lt-1:1", roll)
    assert record.is_legible
    assert VersionPutBack.on(replace(GROUP, tags={GROUP_PUT_BACK: str(record)})) == record


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (
            replace(with_group(template=LaunchTemplate("lt-1", "$Latest"))),
            "it launches whatever version is the latest ($Latest)",
        ),
        (
            replace(
                with_group(instances=(OLD, replace(OLD, id="i-2", template="lt-1:0"))),
                template_data={"lt-1:0": {}, "lt-1:1": {}},
            ),
            "its nodes have lt-1:0 and lt-1:1, so it is not known which to go back to",
        ),
        (with_group(instances=(replace(OLD, template="lt-0:1"),)), "its nodes are of another launch template"),
        (with_group(instances=(replace(OLD, template=""),)), "its nodes are of another launch template"),
        (replace(VIEW, template_data={"lt-1:2": {}}), "lt-1:1 does not exist any more"),
        (
            replace(
                VIEW,
                template_data={"lt-1:1": {"ImageId": "ami-1"}, "lt-1:2": {"ImageId": "ami-2"}},
                images_gone=frozenset({"ami-1"}),
            ),
            "image ami-1 of lt-1:1 is gone, so nothing could be launched",
        ),
        (
            with_group(overrides=(("m6g.large", LaunchTemplate("lt-2", "1")),)),
            "its overrides have launch templates of their own",
        ),
        (replace(VIEW, template_tags={"lt-1": {TAG: "no"}}), f"launch template lt-1 is not tagged {TAG}"),
        (replace(VIEW, template_tags={}), f"launch template lt-1 is not tagged {TAG}"),
        (
            with_group(template=LaunchTemplate("lt-1", "2"), mixed=True),
            "its version number is part of its mixed instances policy",
        ),
        (
            with_group(template=None, configuration="conf-2", instances=(replace(OLD, template="lt-1:1"),)),
            "its nodes' launch configuration is gone, or was a launch template",
        ),
        (
            with_group(tags={GROUP_PUT_BACK: "lt-1:1 to lt-1:2 by roll-0"}),
            "this roll takes it back already, because roll-0 failed",
        ),
    ],
)
def test_what_cannot_go_back_is_named_with_its_reason(view: ClusterSnapshot, why: str) -> None:
    assert seen(view, BY_NUMBER) == ([], [why])


MANAGED = {"eks:nodegroup-name": "workers"}
SHARED = "its launch template's default version is also that of {}, which would not go back with it"


def of_version(number: int, name: str = "c", **more: Any) -> Group:
    """Another group of the same template, with one node of that version."""
    return replace(GROUP, name=name, instances=(replace(OLD, id=f"i-{name}", template=f"lt-1:{number}"),), **more)


@pytest.mark.parametrize(
    "other",
    [
        of_version(2),
        of_version(1, tags=MANAGED),
        of_version(1, tags={GROUP_PUT_BACK: "lt-1:1 to lt-1:2 by roll-0"}),
        of_version(0),
        of_version(
            2, template=LaunchTemplate("lt-2", "1"), overrides=(("m6g.large", LaunchTemplate("lt-1", "$Default")),)
        ),
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_a_default_version_that_a_group_shares_which_stays_is_not_put_back(other: Group, *, asked: bool) -> None:
    """Whether the roll looks at the other group or leaves it out."""
    data: dict[str, dict[str, str]] = {f"lt-1:{number}": {} for number in range(3)}
    seen_groups = (GROUP, other) if asked else (GROUP,)
    beside = () if asked else (other,)
    view = replace(VIEW, groups=seen_groups, other_groups=beside, template_data=data)
    former, reasons = seen(replace(view, versions={"lt-1": (2, 2), "lt-2": (1, 1)}))
    assert former == []
    assert SHARED.format("c") in reasons


def test_groups_that_share_a_default_version_go_back_together_or_not_at_all() -> None:
    together = replace(VIEW, groups=(GROUP, of_version(1)))
    assert (len(seen(together)[0]), seen(together)[1]) == (2, [])
    with_one_more = replace(together, other_groups=(of_version(2, "d"),))
    assert seen(with_one_more) == ([], [SHARED.format("d")] * 2)


@pytest.mark.parametrize("template", [LaunchTemplate("lt-1", "2"), LaunchTemplate("lt-2", "$Default")])
def test_a_group_at_another_template_or_a_number_keeps_nobody_from_going_back(template: LaunchTemplate) -> None:
    view = replace(VIEW, other_groups=(of_version(2, template=template),))
    assert (len(seen(view)[0]), seen(view)[1]) == (1, [])


@pytest.mark.parametrize(
    ("change", "serves"),
    [
        ({}, True),
        ({"ready": False}, False),
        ({"unschedulable": True}, False),
        ({"taints": (Taint("node.kubernetes.io/unreachable", "NoExecute"),)}, False),
    ],
)
def test_a_version_on_which_nodes_serve_before_the_roll_is_not_taken_from_them(
    change: dict[str, Any], *, serves: bool
) -> None:
    new = replace(OLD, id="i-2", template="lt-1:2")
    node = replace(Node(name="b", instance="i-2", zone="a", ready=True), **change)
    former, reasons = seen(replace(with_group(instances=(OLD, new)), nodes=(node,)))
    assert bool(former) != serves
    assert reasons == (["nodes of the new version serve already: 1 node of lt-1:2"] if serves else [])


def test_without_the_setting_and_in_a_rollback_nothing_goes_back() -> None:
    assert seen(settings=Settings(cluster="demo")) == ([], [])
    assert seen(rolls_back="roll-1") == ([], [])


def test_nodes_that_are_replaced_although_they_are_current_have_nothing_to_go_back_to() -> None:
    current = with_group(instances=(replace(OLD, template="lt-1:2"),))
    assert seen(current, force=True) == ([], [])


@pytest.mark.parametrize(
    ("tags", "latest", "codes"),
    [
        ({GROUP_PUT_BACK: "lt-1:2 to lt-1:1 by roll-1"}, 1, []),
        ({GROUP_PUT_BACK: "lt-1:2 to lt-1:1 by roll-1"}, 3, ["version-changed"]),
        ({GROUP_PUT_BACK: "lt-1:2 to lt-1:1 by roll-0"}, 1, ["not-put-back"]),
        ({GROUP_PUT_BACK: "whatever"}, 1, ["not-put-back"]),
        ({}, 1, ["not-put-back"]),
    ],
)
def test_a_rollback_begins_only_where_the_version_is_still_the_one_put_back(
    tags: dict[str, str], latest: int, codes: list[str]
) -> None:
    view = replace(with_group(tags=tags), versions={"lt-1": (3, latest)})
    targets = resolve(view.groups, view.versions)
    request = RollRequest(groups=("ng",), rolls_back="roll-1")
    assert [f.code for f in rollback_findings(view, request, targets)] == codes


@pytest.mark.parametrize(
    ("tag", "default", "roll"),
    [
        ("lt-1:1 to lt-1:2 by roll-0", 2, "roll-0"),
        ("lt-1:1 to lt-1:2 by roll-0", 3, ""),
        ("lt-1:3 to lt-1:2 by roll-0", 2, ""),
        ("", 2, ""),
    ],
)
def test_a_roll_that_a_change_has_started_is_told_as_the_rollback_that_it_is(tag: str, default: int, roll: str) -> None:
    view = replace(with_group(tags={GROUP_PUT_BACK: tag}), versions={"lt-1": (3, default)})
    targets = resolve(view.groups, view.versions)
    assert goes_back_after(candidates(view, targets, RollRequest()), targets) == roll
    assert goes_back_after([], targets) == ""


RECORD = VersionPutBack("lt-1:2", "lt-1:1", "roll-1")


@pytest.mark.parametrize(
    ("default", "record", "decision"),
    [
        (2, None, PutBack(RECORD)),
        (2, RECORD, PutBack(RECORD)),
        (1, RECORD, IsBack()),
        (1, None, Stays("it launches lt-1:1 now, which somebody set during the roll")),
        (1, replace(RECORD, roll="roll-0"), Stays("it launches lt-1:1 now, which somebody set during the roll")),
        (3, RECORD, Stays("it launches lt-1:3 now, which somebody set during the roll")),
    ],
)
def test_only_what_the_roll_brought_is_put_back(default: int, record: VersionPutBack | None, decision: object) -> None:
    group = replace(GROUP, tags={GROUP_PUT_BACK: str(record)} if record else {})
    assert decide(group, "lt-1:1", {"": "lt-1:2"}, {"lt-1": (3, default)}, "roll-1") == decision


def test_a_group_that_was_pointed_at_the_latest_version_meanwhile_stays_there() -> None:
    group = replace(GROUP, template=LaunchTemplate("lt-1", "$Latest"))
    decided = decide(group, "lt-1:1", {"": "lt-1:2"}, {"lt-1": (2, 1)}, "roll-1")
    assert isinstance(decided, Stays)


@pytest.mark.parametrize(
    ("failure", "waves", "stays"),
    [
        ("DeadlineExceeded", 1, False),
        ("DeadlineExceeded", 2, True),
        ("Interfered", 1, True),
        ("Interfered", 2, True),
        ("ChecksFailed", 1, False),
        ("ChecksFailed", 7, False),
        ("Refused", 1, False),
        ("Refused", 2, True),
        ("Aborted", 1, True),
        ("AccessDenied", 1, True),
        ("Transient", 1, True),
        ("States.Timeout", 1, True),
    ],
)
def test_only_a_canary_and_a_gate_take_the_version_back(failure: str, waves: int, *, stays: bool) -> None:
    assert bool(reason_to_stay(failure, waves)) == stays


@pytest.mark.parametrize(
    ("of_nodes", "stays"),
    [
        (["OldNodeHeld"], True),
        (["OldNodeHeld", "OldNodeHeld"], True),
        (["Interfered"], True),
        (["OldNodeHeld", "Interfered"], True),
        (["Interfered", "DeadlineExceeded"], False),
        (["OldNodeHeld", "DeadlineExceeded"], False),
        (["DeadlineExceeded"], False),
        ([], False),
    ],
)
def test_a_canary_whose_old_node_could_not_be_emptied_says_nothing_about_the_version(
    of_nodes: list[str], *, stays: bool
) -> None:
    assert bool(reason_to_stay("Refused", 1, of_nodes)) == stays


def test_a_node_that_was_not_begun_for_another_ones_sake_says_nothing_about_the_version() -> None:
    failures = [NodeFailure(node=f"n-{e}", failure={"Error": e}) for e in ("OldNodeHeld", "NotBegun", "Aborted")]
    assert errors_of(failures) == ["OldNodeHeld"]
    assert reason_to_stay("Refused", 1, errors_of(failures))


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (lambda i: i, False),
        (lambda i: replace(i, template="lt-1:2"), True),
        (lambda i: replace(i, template="lt-1:2", lifecycle="Pending"), True),
        (lambda i: replace(i, template="lt-1:2", lifecycle="Terminating:Wait"), False),
    ],
)
def test_the_version_was_tried_where_an_instance_of_it_is_there(
    change: Callable[[GroupInstance], GroupInstance], *, new: bool
) -> None:
    assert tried([replace(GROUP, instances=(change(OLD),))], {"ng": {"": "lt-1:2"}}) == new
