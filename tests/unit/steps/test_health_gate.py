"""What the gate's checks say of an answer."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.observed.kubernetes import (
    Owner,
    Pod,
    Selector,
    Workload,
    as_their_pods_are,
    on_nodes_that_are,
)
from eks_rolling.payloads import Hold
from eks_rolling.settings import PageCheck
from eks_rolling.steps.health_gate import Open, decide, judge, without_lost

URL = "https://shop.example/health"


@pytest.mark.parametrize(
    ("check", "answer", "wrong"),
    [
        (PageCheck(url=URL), HttpAnswer(200, "fine"), ""),
        (PageCheck(url=URL), HttpAnswer(503, "fine"), f"{URL} answers 503, not 200"),
        (PageCheck(url=URL, status=204), HttpAnswer(200), f"{URL} answers 200, not 204"),
        (PageCheck(url=URL, contains="fine"), HttpAnswer(200, "all fine"), ""),
        (PageCheck(url=URL, contains="fine"), HttpAnswer(200, "so so"), f"{URL} answers without the text 'fine'"),
        (PageCheck(url=URL), HttpAnswer(fault="timed out"), f"{URL} does not answer: timed out"),
    ],
)
def test_a_check_says_what_is_wrong(check: PageCheck, answer: HttpAnswer, wrong: str) -> None:
    assert judge(check, answer) == wrong


def test_a_check_that_does_not_pass_holds_the_gate() -> None:
    held = decide([], [], (), 100.0, 60.0, unanswered=["a is down", "b is down"])
    assert isinstance(held, Hold)
    assert held.reason == "checks do not pass: a is down; b is down"


def test_a_workload_that_was_not_ready_before_excuses_no_other_one() -> None:
    """T1: two names whose SHA-256 have the first 32 bits in common are found within a second."""
    broken, whole = (Owner("Deployment", n, a) for n, a in (("tenant-x", "x-30816"), ("shop", "web-11818")))
    assert isinstance(decide([], [Workload(broken, ready=0)], (broken.digest,), 100.0, 60.0), Open)
    held = decide([], [Workload(whole, ready=0)], (broken.digest,), 100.0, 60.0)
    assert isinstance(held, Hold)
    assert str(whole) in held.reason


def test_what_the_plan_of_an_earlier_version_excused_is_excused() -> None:
    """An update of this stack in mid-roll changes the gate, and not the plan that was made."""
    assert isinstance(decide([], [Workload(WEB, ready=0)], (str(WEB),), 100.0, 60.0), Open)
    assert isinstance(decide([], [Workload(WEB, ready=0)], (f"{WEB}-2",), 100.0, 60.0), Hold)


EDGE = Owner("DaemonSet", "shop", "edge")


def pod_on(node: str, *, ready: bool = True, owner: Owner = EDGE, ending: bool = False) -> Pod:
    return Pod("shop", f"edge-{node}", node=node, owner=owner, ready=ready, deleting_until=9.0 if ending else None)


@pytest.mark.parametrize(
    ("counted", "pods", "whole"),
    [
        # Its controller still counts the node that is gone, whose pod is not collected yet.
        ((3, 2, 3), [pod_on("a"), pod_on("b"), pod_on("gone", ready=False)], True),
        # It has counted again: what is missing is on a node that there is.
        ((2, 1, 1), [pod_on("a"), pod_on("gone", ready=False)], False),
        # Nothing is gone.
        ((2, 1, 2), [pod_on("a"), pod_on("b", ready=False)], False),
        ((2, 1, 2), [pod_on("a"), pod_on("b", ending=True)], False),
        # One node is gone, and on another its pod is not Ready, or not there.
        ((3, 1, 3), [pod_on("a"), pod_on("b", ready=False), pod_on("gone", ready=False)], False),
        ((3, 1, 3), [pod_on("a"), pod_on("gone", ready=False)], False),
        # Two pods of one node that is gone count once; another one's pods count nothing.
        ((3, 1, 3), [pod_on("a"), pod_on("gone", ready=False), pod_on("gone", ending=True)], False),
        ((2, 1, 2), [pod_on("a"), pod_on("gone", owner=Owner("DaemonSet", "shop", "other"))], False),
    ],
)
def test_a_daemonset_is_counted_on_nodes_that_there_are(
    counted: tuple[int, int, int], pods: list[Pod], whole: bool
) -> None:
    desired, ready, current = counted
    daemons = Workload(EDGE, desired=desired, ready=ready, current=current)
    seen = on_nodes_that_are(daemons, pods, {"a", "b"})
    assert seen.all_ready is whole
    held = decide([], [seen], (), 100.0, 60.0)
    assert isinstance(held, Hold) is not whole


WEB = Owner("Deployment", "shop", "web")
ON_WEB = {"app": "web"}


def web_pod(**more: Any) -> Pod:
    return replace(Pod("shop", "web-1", owner=WEB, labels=ON_WEB), **more)


@pytest.mark.parametrize(
    ("pods", "ready"),
    [
        ([web_pod(), web_pod()], 2),
        # Its status has it still.
        ([web_pod(), web_pod(deleting_until=9.0)], 1),
        ([web_pod()], 1),
        ([web_pod(), web_pod(ready=False)], 1),
        ([web_pod(), web_pod(phase="Succeeded")], 1),
        # Of another with the same labels, and of a ReplicaSet that it has adopted.
        ([web_pod(), web_pod(owner=Owner("Deployment", "shop", "twin"))], 1),
        ([web_pod(), web_pod(owner=Owner("ReplicaSet", "shop", "former"))], 2),
        ([web_pod(), web_pod(owner=Owner("ReplicaSet", "shop", "former"), labels={})], 1),
        ([web_pod(), web_pod(owner=Owner("ReplicaSet", "else", "former"), namespace="else")], 1),
        # Its status does not have it yet.
        ([web_pod()] * 3, 3),
    ],
)
def test_the_ready_pods_of_a_workload_are_counted_whatever_its_status_says(pods: list[Pod], ready: int) -> None:
    told = Workload(WEB, desired=2, ready=2, selector=Selector(tuple(ON_WEB.items())))
    (seen,) = as_their_pods_are([told], pods)
    assert (seen.ready, seen.all_ready) == (ready, ready >= 2)
    assert not as_their_pods_are([replace(told, settled=False)], pods)[0].all_ready


FORMER = Owner("Deployment", "shop", "former")


@pytest.mark.parametrize(
    ("pod", "known", "ready"),
    [
        (web_pod(owner=FORMER), {WEB}, 1),
        (web_pod(owner=FORMER), {WEB, FORMER}, 0),
        (web_pod(owner=FORMER), None, 0),
        (web_pod(owner=FORMER, labels={}), {WEB}, 0),
        (web_pod(owner=Owner("Deployment", "else", "former"), namespace="else"), {WEB}, 0),
        (web_pod(owner=Owner("StatefulSet", "shop", "former")), {WEB}, 0),
        (web_pod(), {WEB}, 1),
    ],
)
def test_the_pods_of_a_replicaset_that_was_left_behind_and_adopted_count(
    pod: Pod, known: set[Owner] | None, ready: int
) -> None:
    """`kubectl delete deployment former --cascade=orphan`, and web with the same labels instead."""
    told = Workload(WEB, desired=1, ready=1, selector=Selector(tuple(ON_WEB.items())))
    assert [w.ready for w in as_their_pods_are([told], [pod], known)] == [ready]


def test_a_daemonset_is_not_counted_so() -> None:
    told = Workload(EDGE, desired=2, ready=2)
    assert as_their_pods_are([told], []) == [told]


DB = Owner("StatefulSet", "shop", "db")
FROM_DEAD, LEFT = web_pod(node="dead", ready=False), web_pod(node="dead", ready=False, deleting_until=9.0)
NO_ROOM = web_pod(node="", ready=False, unschedulable_because="0/3 nodes are available")


@pytest.mark.parametrize(
    ("owner", "fault", "lost", "others", "awaited"),
    [
        # Not deleted yet: nobody makes another one.
        (WEB, "", [FROM_DEAD], [], 2),
        # Deleted, and replaced elsewhere, or about to be.
        (WEB, "", [LEFT], [web_pod(node="a", ready=False)], 3),
        (WEB, "", [LEFT], [], 3),
        (Owner("ReplicaSet", "shop", "web"), "", [LEFT], [], 3),
        (WEB, "", [LEFT, FROM_DEAD], [web_pod(node="a", ready=False)], 2),
        # The successor waits for the dead node's room, or cannot be made; one of another's, or an ending one, is none.
        (WEB, "", [LEFT], [NO_ROOM], 2),
        (WEB, "", [LEFT], [NO_ROOM, NO_ROOM], 2),
        (WEB, "", [LEFT, LEFT], [NO_ROOM], 2),
        (WEB, "exceeded quota", [LEFT], [], 2),
        (WEB, "", [LEFT], [replace(NO_ROOM, owner=Owner("Deployment", "shop", "twin"))], 3),
        (WEB, "", [LEFT], [replace(NO_ROOM, deleting_until=9.0)], 3),
        # Its successor has the same name, and is not made before this one has ended.
        (DB, "", [LEFT], [], 2),
    ],
)
def test_what_a_dead_node_holds_is_not_waited_for_unless_it_was_made_elsewhere(
    owner: Owner, fault: str, lost: list[Pod], others: list[Pod], awaited: int
) -> None:
    """N3."""
    seen = without_lost(Workload(owner, desired=3, ready=2, fault=fault), lost, [*lost, *others])
    assert seen.desired == awaited
