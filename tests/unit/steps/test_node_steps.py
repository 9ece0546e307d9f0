"""Decisions about one node: launch, ready, load balancers, terminate, restore."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import _node
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import (
    Expression,
    Needs,
    Node,
    Owner,
    Pod,
    Service,
    Taint,
    Toleration,
    Workload,
    declared_taints,
)
from eks_rolling.observed.marks import (
    EXCLUDE_LABEL,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    HARD_TAINT,
    INSTANCE_REPLACES,
    INTERFERING_PROCESSES,
    NODE_CORDONED,
    NODE_LAUNCH,
    NODE_ROLL,
    NODE_TARGETS,
    NODE_UNFIT,
    SOFT_TAINT,
    SURPLUS,
    LaunchMark,
    place_of,
    registrations_on,
    spares,
    strays,
    token_of,
    with_roll_taint,
)
from eks_rolling.payloads import Hold
from eks_rolling.roll import arrangements
from eks_rolling.settings import AutoscalerMode
from eks_rolling.steps import (
    await_load_balancers,
    await_ready,
    launch_replacement,
    leave_load_balancers,
    pause_interference,
    restore,
    terminate,
)

OLD, NEW = "i-0ld", "i-new"
ARN = "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/abc"
NODE = Node("old", uid="u", instance=OLD, zone="a", annotations={NODE_ROLL: "roll-1"})


def group(*instances: GroupInstance, **more: Any) -> Group:
    made = Group("ng", maximum=5, desired=3, zones=("a",), instances=(GroupInstance(OLD, "a"), *instances))
    return replace(made, **more)


def state(instance: str, **more: Any) -> InstanceState:
    return replace(InstanceState(instance, "running", zone="a", launched=50.0), **more)


class TestLaunch:
    def decide(self, group_: Group, *states: InstanceState, node: Node = NODE) -> launch_replacement.Decision:
        known = {s.id: s for s in (state(OLD), *states)}
        return launch_replacement.decide(group_, known, node, known[OLD], "roll-1", 100.0)

    def test_the_request_is_written_down_before_it_is_made(self) -> None:
        """R3: whoever comes after a crash asks with the same token, and gets the same instance."""
        first = self.decide(group())
        assert isinstance(first, launch_replacement.RecordLaunch)
        noted = replace(NODE, annotations=NODE.annotations | {NODE_LAUNCH: str(first.mark)})
        assert self.decide(group(), node=noted) == launch_replacement.Launch(first.mark.token)

    def test_a_group_without_room_holds_and_is_not_asked(self) -> None:
        noted = replace(NODE, annotations={NODE_LAUNCH: str(LaunchMark(90, token=token_of("roll-1", OLD, 1)))})
        assert isinstance(self.decide(group(maximum=3), node=noted), Hold)
        # What was granted before a crash has filled the group: asking with the token tells which instance it was.
        granted = group(GroupInstance(NEW, "a"), maximum=4, desired=4)
        assert self.decide(granted, state(NEW, launched=95), node=noted) == launch_replacement.Launch(
            token_of("roll-1", OLD, 1)
        )

    def test_a_replacement_that_exists_is_found_by_its_tag(self) -> None:
        known = state(NEW, tags={INSTANCE_REPLACES: OLD})
        assert self.decide(group(GroupInstance(NEW, "a")), known) == launch_replacement.Found(NEW)

    def test_an_instance_that_the_same_roll_replaces_is_nobodys_replacement(self) -> None:
        """N3: an aborted roll launched it, and a third version makes both outdated."""
        known, group_ = state(NEW, tags={INSTANCE_REPLACES: OLD}), group(GroupInstance(NEW, "a"))
        states = {OLD: state(OLD), NEW: known}
        earlier = str(LaunchMark(90, token=token_of("roll-0", OLD, 1)))
        for node in (NODE, replace(NODE, annotations={NODE_LAUNCH: earlier})):
            decision = launch_replacement.decide(group_, states, node, states[OLD], "roll-1", 100.0, frozenset({NEW}))
            # The earlier roll's token would be answered with that instance.
            assert isinstance(decision, launch_replacement.RecordLaunch)
            assert decision.mark.token == token_of("roll-1", OLD, 1)

    @pytest.mark.parametrize(
        ("replaces", "gone", "found"),
        [
            ({"i-b": "i-a"}, "", {"i-b": "i-a"}),
            ({"i-b": "i-a", "i-c": "i-a"}, "", {"i-b": "i-a", "i-c": "i-a"}),
            ({"i-b": "i-a", "i-c": "i-b"}, "", {"i-b": "i-a", "i-c": "i-b"}),
            # The newest has the place of one that is gone; alone it is no spare.
            ({"i-b": "i-a"}, "i-a", {}),
            ({"i-b": "i-a", "i-c": "i-a"}, "i-a", {"i-b": "i-c"}),
            ({"i-b": "i-a", "i-c": "i-b"}, "i-a", {"i-c": "i-b"}),
            ({"i-b": "i-a", "i-c": "i-a", "i-d": "i-c"}, "i-a", {"i-b": "i-c", "i-d": "i-c"}),
            ({"i-b": SURPLUS, "i-c": SURPLUS}, "", {}),
            ({"i-b": "i-b"}, "", {}),
        ],
    )
    def test_what_is_beyond_a_groups_own_size(self, replaces: dict[str, str], gone: str, found: dict[str, str]) -> None:
        """R2: whichever of them is ended first, one instance is left of those in one place."""
        ids = ("i-a", "i-b", "i-c", "i-d")
        members = (GroupInstance(i, "a", "Terminating" if i == gone else "InService") for i in ids)
        tags = {i: {INSTANCE_REPLACES: replaces[i]} if i in replaces else {} for i in ids}
        states = {i: state(i, launched=float(n), tags=tags[i]) for n, i in enumerate(ids)}
        assert spares(Group("ng", instances=tuple(members)), states) == found

    def test_what_came_in_a_zone_where_none_was_needed_can_replace_the_oldest_there(self) -> None:
        """R2: each another one; none that has a replacement already, or is one."""
        zones = {"i-a": "a", "i-b": "a", "i-c": "a", "i-d": "b", "i-e": "a", "i-f": "a"}
        tags = {"i-b": "i-a", "i-d": SURPLUS, "i-e": SURPLUS, "i-f": SURPLUS}
        group_ = Group("ng", instances=tuple(GroupInstance(i, zone) for i, zone in zones.items()))
        states = {
            i: state(i, zone=zone, launched=float(n), tags={INSTANCE_REPLACES: tags[i]} if i in tags else {})
            for n, (i, zone) in enumerate(zones.items())
        }
        assert strays(group_, states) == {"i-d": "", "i-e": "i-c", "i-f": ""}

    @pytest.mark.parametrize(
        ("zones", "instances", "room"),
        [
            ("abc", "abc", 2),
            ("abc", "a", 4),
            ("ab", "abb", 2),
            ("a", "aaa", 0),
            ("ab", "aab", 2),
            ("ab", "", 0),
            ("", "", 0),
        ],
    )
    def test_where_aws_chooses_the_zone_others_may_come_before_the_one_that_is_needed(
        self, zones: str, instances: str, room: int
    ) -> None:
        """Until the zone has fewer than every other one: where all have as many, AWS may choose any."""
        members = tuple(GroupInstance(f"i-{n}", zone) for n, zone in enumerate(instances))
        spread = Group("ng", zones=tuple(zones), instances=members)
        assert replace(spread, mixed_purchasing=True).strays == replace(spread, configuration="lc").strays == room
        assert spread.strays == 0

    def test_tags_that_form_a_circle_are_followed_once(self) -> None:
        """T1."""
        assert place_of("i-a", {"i-a": "i-b", "i-b": "i-a"}) in {"i-a", "i-b"}

    def test_a_replacement_that_has_ended_does_not_count(self) -> None:
        known = state(NEW, tags={INSTANCE_REPLACES: OLD})
        decision = self.decide(group(GroupInstance(NEW, "a", lifecycle="Terminating")), known)
        assert isinstance(decision, launch_replacement.RecordLaunch)

    def test_a_suspended_launch_holds(self) -> None:
        assert isinstance(self.decide(group(suspended=frozenset({"Launch"}))), Hold)

    def test_tokens_are_what_the_api_takes_and_differ_by_roll_node_and_attempt(self) -> None:
        tokens = {
            token_of(roll, instance, attempt)
            for roll in ("r" * 80, "s")
            for instance in (OLD, NEW)
            for attempt in (1, 2)
        }
        assert len(tokens) == 8
        assert all(len(t) <= 64 and t.replace("-", "").isalnum() for t in tokens)

    def test_a_mixed_group_is_raised_by_one_from_what_was_seen_never_set_lower(self) -> None:
        """N3: a stale write of a lower desired capacity would terminate nodes."""
        mark = LaunchMark(90, desired=3)
        noted = replace(NODE, annotations={NODE_LAUNCH: str(mark)})
        mixed = group(mixed_purchasing=True)
        assert self.decide(mixed, node=noted) == launch_replacement.RaiseDesired(4, mark)
        grown = replace(mixed, desired=4)
        assert isinstance(self.decide(grown, node=noted), Hold)

    def test_what_a_mixed_group_launches_elsewhere_is_left_for_whoever_needs_it_there(self) -> None:
        noted = replace(NODE, annotations={NODE_LAUNCH: str(LaunchMark(90, desired=1))})
        elsewhere = state(NEW, zone="b", launched=95.0)
        decision = self.decide(group(GroupInstance(NEW, "b"), mixed_purchasing=True, desired=2), elsewhere, node=noted)
        assert decision == launch_replacement.Claim(NEW, SURPLUS)

    def test_a_mixed_group_that_is_short_is_not_asked_for_one_more_and_what_comes_may_be_anothers(self) -> None:
        """N3, N4: whoever asked for what has not come; the request of an earlier roll counts on."""
        mark = LaunchMark(90, desired=2, raised=True)
        noted = replace(NODE, annotations={NODE_LAUNCH: str(mark)})
        came = state(NEW, launched=95.0)
        short = group(GroupInstance(NEW, "a"), mixed_purchasing=True, desired=3)
        for node in (NODE, noted):
            assert isinstance(self.decide(short, came, node=node), Hold)
        lowered = replace(short, desired=2)
        assert self.decide(lowered, came, node=noted) == launch_replacement.RaiseDesired(3, mark)

    @pytest.mark.parametrize("raised", [False, True])
    def test_a_request_outlasts_the_termination_of_another_node_of_the_mixed_group(self, *, raised: bool) -> None:
        """R2: the termination lowers the desired capacity; the request is made once all the same."""
        other, new = GroupInstance("i-2", "a"), GroupInstance("i-3", "a")
        states = (state("i-2"), state("i-3", tags={INSTANCE_REPLACES: "i-2"}))
        beside = group(other, new, mixed_purchasing=True, desired=3)
        first = self.decide(beside, *states)
        assert first == launch_replacement.RecordLaunch(LaunchMark(100.0, desired=2))
        mark = replace(first.mark, raised=raised)
        noted = replace(NODE, annotations={NODE_LAUNCH: str(mark)})
        if not raised:
            assert self.decide(beside, *states, node=noted) == launch_replacement.RaiseDesired(4, mark)
        assert isinstance(self.decide(replace(beside, desired=4), *states, node=noted), Hold)
        alone = group(replace(other, lifecycle="Terminating"), new, mixed_purchasing=True, desired=3)
        assert isinstance(self.decide(alone, *states, node=noted), Hold)
        came = replace(alone, instances=(*alone.instances, GroupInstance(NEW, "a")))
        claim = self.decide(came, *states, state(NEW, launched=101.0), node=noted)
        assert claim == launch_replacement.Claim(NEW, OLD)

    def test_a_mixed_group_that_was_lowered_below_what_was_noted_is_asked_for_one_more_than_it_has(self) -> None:
        """N3, R2: not for all that it had."""
        noted = replace(NODE, annotations={NODE_LAUNCH: str(LaunchMark(90, desired=3, raised=True))})
        lowered = group(mixed_purchasing=True, desired=1)
        again = self.decide(lowered, node=noted)
        assert again == launch_replacement.RecordLaunch(LaunchMark(100.0, desired=1))
        noted = replace(NODE, annotations={NODE_LAUNCH: str(again.mark)})
        assert self.decide(lowered, node=noted) == launch_replacement.RaiseDesired(2, again.mark)

    def test_an_instance_of_a_mixed_group_that_ec2_does_not_know_yet_is_waited_for(self) -> None:
        """R2: it may be the one that was asked for."""
        noted = replace(NODE, annotations={NODE_LAUNCH: str(LaunchMark(90, desired=1, raised=True))})
        listed = group(GroupInstance(NEW, "a"), mixed_purchasing=True, desired=2)
        decision = self.decide(listed, node=noted)
        assert isinstance(decision, Hold)
        assert NEW in decision.reason

    def test_a_mixed_group_at_its_maximum_is_not_raised_again_for_what_came_elsewhere(self) -> None:
        noted = replace(NODE, annotations={NODE_LAUNCH: str(LaunchMark(90, desired=1, raised=True))})
        elsewhere = state(NEW, zone="b", tags={INSTANCE_REPLACES: SURPLUS})
        full = group(GroupInstance(NEW, "b"), mixed_purchasing=True, desired=2, maximum=2)
        assert isinstance(self.decide(full, elsewhere, node=noted), Hold)


class TestReady:
    OLD_SIDE = await_ready.Side(
        NODE,
        frozenset({"ebs.csi.aws.com"}),
        (Pod("kube-system", "proxy-1", owner=Owner("DaemonSet", "kube-system", "proxy")),),
    )
    NEW_NODE = Node("new", instance=NEW, zone="a")

    def new_side(self, **more: Any) -> await_ready.Side:
        side = await_ready.Side(self.NEW_NODE, self.OLD_SIDE.drivers, self.OLD_SIDE.pods)
        return replace(side, **more)

    def hold(self, new: await_ready.Side | None, *targets: TargetRegistration) -> str:
        decision = await_ready.decide(NEW, state(NEW), self.OLD_SIDE, new, targets)
        assert isinstance(decision, Hold), decision
        return decision.reason

    def test_it_is_ready_when_it_can_do_what_the_old_node_does(self) -> None:
        assert await_ready.decide(NEW, state(NEW), self.OLD_SIDE, self.new_side(), ()) == await_ready.Ready("new")

    @pytest.mark.parametrize(
        ("old", "new", "server", "said"),
        [
            ("v1.31.9", "v1.32.0-eks-1", "v1.31.4-eks-2", "newer than the control plane (1.31)"),
            ("v1.32.0", "v1.32.0", "v1.31.4", "newer than the control plane (1.31)"),
            ("v1.31.0", "v1.27.9", "v1.31.4", "more than 3 minor versions older"),
            ("v1.27.0", "v1.27.9", "v1.31.4", ""),
            ("", "v1.28.9", "v1.31.4", ""),
            ("v1.31.9", "v1.31.9", "v1.31.0", ""),
            ("v1.9.9", "v1.10.0", "v1.10", ""),
            ("v1.31.0", "v1.32.0", "", ""),
            ("v1.31.0", "", "v1.31.0", ""),
            ("v1.31.0", "$(reboot) v1.99", "v1.31.0", ""),
        ],
    )
    def test_a_kubelet_that_does_not_fit_the_control_plane_fails_the_node(
        self, old: str, new: str, server: str, said: str
    ) -> None:
        """Of versions that cannot be read nothing is claimed."""
        before = replace(self.OLD_SIDE, node=replace(NODE, kubelet=old))
        after = self.new_side(node=replace(self.NEW_NODE, kubelet=new))
        decision = await_ready.decide(NEW, state(NEW), before, after, server_version=server)
        if said:
            assert isinstance(decision, await_ready.NeverReady)
            assert said in decision.reason
        else:
            assert decision == await_ready.Ready("new")

    def test_it_waits_in_turn_for_node_kubelet_taints_driver_daemons_and_targets(self) -> None:
        uninitialized = Taint("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule")
        assert "has not joined" in self.hold(None)
        assert "not Ready yet" in self.hold(self.new_side(node=replace(self.NEW_NODE, ready=False)))
        assert "startup taint node.cloudprovider" in self.hold(
            self.new_side(node=replace(self.NEW_NODE, taints=(uninitialized,)))
        )
        assert "ebs.csi.aws.com is not registered" in self.hold(self.new_side(drivers=None))
        assert "DaemonSet kube-system/proxy" in self.hold(self.new_side(pods=()))
        healthy_old, new_initial = (
            TargetRegistration(ARN, OLD, 80, "healthy"),
            TargetRegistration(ARN, NEW, 80, "initial"),
        )
        assert "not healthy in target group web" in self.hold(self.new_side(), healthy_old, new_initial)

    @pytest.mark.parametrize(
        ("needs", "waits"),
        [
            (Needs(labels=(("kubernetes.io/arch", "amd64"),)), False),
            (Needs(affinity=((Expression("node.kubernetes.io/instance-type", "In", ("m6i.large",)),),)), False),
            (Needs(affinity=((Expression("kubernetes.io/arch", "In", ("amd64", "arm64")),),)), True),
            (Needs(affinity=((Expression("metadata.name", "In", ("old",)),),)), True),
            # A label that a controller may yet put on the node.
            (Needs(labels=(("gpu", "present"),)), True),
            (None, True),
        ],
    )
    def test_a_daemonset_for_another_kind_of_machine_is_not_waited_for(self, needs: Needs | None, waits: bool) -> None:
        (daemon,) = self.OLD_SIDE.pods
        old = replace(self.OLD_SIDE, pods=(replace(daemon, needs=needs),))
        arm = {"kubernetes.io/arch": "arm64", "node.kubernetes.io/instance-type": "m6g.large"}
        new = self.new_side(node=replace(self.NEW_NODE, labels=arm), pods=())
        assert isinstance(await_ready.decide(NEW, state(NEW), old, new), Hold if waits else await_ready.Ready)
        # As long as the new node does not say what it is, it may still be what the DaemonSet is meant for.
        assert isinstance(await_ready.decide(NEW, state(NEW), old, self.new_side(pods=())), Hold)

    def test_a_target_that_needs_pods_of_its_own_is_not_waited_for(self) -> None:
        """It gets them only from the node that it replaces."""
        targets = (TargetRegistration(ARN, OLD, 30080, "healthy"), TargetRegistration(ARN, NEW, 30080, "unhealthy"))
        local = (Service("shop", "web", (30080,), local_traffic=True),)
        decide = await_ready.decide
        assert decide(NEW, state(NEW), self.OLD_SIDE, self.new_side(), targets, local) == await_ready.Ready("new")
        assert isinstance(decide(NEW, state(NEW), self.OLD_SIDE, self.new_side(), targets), Hold)

    def test_a_taint_that_the_group_carries_for_good_is_not_waited_for(self) -> None:
        dedicated = Taint("dedicated", "NoSchedule", "gpu")
        old = replace(self.OLD_SIDE, node=replace(NODE, taints=(dedicated, HARD_TAINT)))
        new = self.new_side(node=replace(self.NEW_NODE, taints=(dedicated,)))
        assert await_ready.decide(NEW, state(NEW), old, new, ()) == await_ready.Ready("new")

    @pytest.mark.parametrize(
        ("said", "waits"),
        [
            ("gpu:NoSchedule", False),
            (":NoSchedule", False),
            ("gpu:NoExecute", True),
            ("NoSchedule gpu", True),
            ("", True),
        ],
    )
    def test_a_taint_that_the_groups_tags_announce_is_not_waited_for(self, said: str, waits: bool) -> None:
        """The new version's user data sets it for good; the old nodes do not have it."""
        new = self.new_side(node=replace(self.NEW_NODE, taints=(Taint("dedicated", "NoSchedule", "gpu"),)))
        tags = {"k8s.io/cluster-autoscaler/node-template/taint/dedicated": said}
        decision = await_ready.decide(NEW, state(NEW), self.OLD_SIDE, new, lasting=declared_taints(tags))
        assert isinstance(decision, Hold if waits else await_ready.Ready)

    KEPT = Taint("dedicated", "NoSchedule", "gpu")
    GROUP = Group(
        "ng",
        instances=(
            GroupInstance(OLD, "a", template="lt-1:1"),
            GroupInstance(NEW, "a", template="lt-1:2"),
            GroupInstance("i-a", "a", template="lt-1:1"),
            GroupInstance("i-b", "a", template="lt-1:2"),
        ),
    )

    def peer(self, instance: str, *taints: Taint, age: float = 3600.0, **more: Any) -> Node:
        return Node(f"node-{instance}", instance=instance, taints=taints, created=10_000 - age, **more)

    WORKING = Pod(
        "shop", "web-1", owner=Owner("Deployment", "shop", "web"), tolerations=(Toleration("dedicated", "Exists"),)
    )

    def lasting(
        self,
        new: Node,
        nodes: Iterable[Node],
        pod: Pod | None = WORKING,
        *,
        replacements: tuple[str, ...] = (NEW,),
        **group: Any,
    ) -> tuple[Taint, ...]:
        """`pod` runs on every node."""
        tags = {i: {INSTANCE_REPLACES: "i-x"} for i in replacements}
        states = {i.id: state(i.id, tags=tags.get(i.id, {})) for i in self.GROUP.instances}
        pods = [pod] if pod else []
        return await_ready.lasting_taints(
            new, OLD, replace(self.GROUP, **group), [*nodes, new], states, lambda _: pods, 10_000
        )

    @pytest.mark.parametrize(
        ("peers", "lasts"),
        [
            # A node of the new version says it, whatever the old ones bear.
            ((("i-b", KEPT, {}), ("i-a", None, {})), True),
            ((("i-b", None, {}), ("i-a", KEPT, {})), False),
            # It has come up just now, or is not well: what it bears may be a startup taint of its own.
            ((("i-b", KEPT, {"age": 60.0}), ("i-a", None, {})), False),
            ((("i-b", KEPT, {"ready": False}), ("i-a", None, {})), False),
            # Without one, the group's other nodes do: the old one may have lost it.
            ((("i-a", KEPT, {}),), True),
            ((("i-a", Taint("dedicated", "NoExecute", "gpu"), {}),), False),
            # Another value is the same taint to what waits for its removal.
            ((("i-a", Taint("dedicated", "NoSchedule", "cpu"), {}),), True),
            ((), False),
        ],
    )
    def test_a_taint_that_every_settled_node_of_the_version_keeps_is_not_waited_for(
        self, peers: tuple[tuple[str, Taint | None, dict[str, Any]], ...], lasts: bool
    ) -> None:
        nodes = [self.peer(i, *((taint,) if taint else ()), **more) for i, taint, more in peers]
        new = self.new_side(node=self.peer(NEW, self.KEPT))
        lasting = self.lasting(new.node, [*nodes, self.peer(OLD)])
        decision = await_ready.decide(NEW, state(NEW), self.OLD_SIDE, new, lasting=lasting)
        assert isinstance(decision, await_ready.Ready if lasts else Hold)

    @pytest.mark.parametrize(
        "pod",
        [
            None,
            replace(WORKING, owner=Owner("DaemonSet", "shop", "web")),
            replace(WORKING, mirror=True),
            replace(WORKING, ready=False),
            replace(WORKING, deleting_until=10_000.0),
            # It goes anywhere, or was there before the taint was.
            replace(WORKING, tolerations=(Toleration(operator="Exists"),)),
            replace(WORKING, tolerations=()),
            replace(WORKING, tolerations=(Toleration("dedicated", "Equal", "cpu"),)),
        ],
    )
    def test_a_node_that_no_pod_is_seen_to_work_on_with_its_taint_proves_nothing(self, pod: Pod | None) -> None:
        """cluster-autoscaler scaled out a node of the new version, and it sticks as the replacement does [N3]."""
        nodes = [self.peer("i-b", self.KEPT), self.peer("i-a")]
        assert self.lasting(self.peer(NEW, self.KEPT), nodes, pod) == ()

    def test_replacements_that_stick_do_not_vouch_for_each_other(self) -> None:
        """N3."""
        nodes = [self.peer("i-b", self.KEPT), self.peer("i-a")]
        new = self.peer(NEW, self.KEPT)
        assert self.lasting(new, nodes, replacements=(NEW, "i-b")) == ()
        assert self.lasting(new, nodes) == (self.KEPT,)

    @pytest.mark.parametrize(
        "key",
        [
            "node.kubernetes.io/disk-pressure",
            "node.cloudprovider.kubernetes.io/uninitialized",
            "node.cilium.io/agent-not-ready",
            "ebs.csi.aws.com/agent-not-ready",
            "startup-taint.cluster-autoscaler.kubernetes.io/gpu",
            HARD_TAINT.key,
        ],
    )
    def test_what_the_state_of_nodes_sets_is_waited_for_however_many_have_it(self, key: str) -> None:
        """And whatever the group's tags say, or the old node bears: that one is not well either."""
        taint = Taint(key, "NoSchedule")
        nodes = [self.peer(i, taint) for i in ("i-a", "i-b")]
        pod = replace(self.WORKING, tolerations=(Toleration(key, "Exists"),))
        tags = {f"k8s.io/cluster-autoscaler/node-template/taint/{key}": ":NoSchedule"}
        assert self.lasting(self.peer(NEW, taint), nodes, pod, tags=tags) == ()
        if key != HARD_TAINT.key:
            old = replace(self.OLD_SIDE, node=replace(NODE, taints=(taint,)))
            held = await_ready.decide(NEW, state(NEW), old, self.new_side(node=self.peer(NEW, taint)))
            assert isinstance(held, Hold)
            assert held.reason.endswith(
                f"still carries the startup taint {key}, which something on the node has to remove"
            )

    def test_a_startup_taint_that_nobody_removes_is_named_with_what_to_do(self) -> None:
        new = self.new_side(node=replace(self.NEW_NODE, taints=(Taint("example.com/starting", "NoSchedule"),)))
        held = self.hold(new)
        assert "still carries the startup taint example.com/starting" in held
        assert "say so by the group's tag k8s.io/cluster-autoscaler/node-template/taint/KEY" in held

    @pytest.mark.parametrize(("tolerates", "waits"), [(False, False), (True, True)])
    def test_a_daemonset_that_an_announced_taint_keeps_off_is_not_waited_for(
        self, tolerates: bool, waits: bool
    ) -> None:
        dedicated = Taint("dedicated", "NoSchedule", "gpu")
        (daemon,) = self.OLD_SIDE.pods
        tolerations = (Toleration(operator="Exists"),) if tolerates else ()
        old = replace(self.OLD_SIDE, pods=(replace(daemon, tolerations=tolerations),))
        new = self.new_side(node=replace(self.NEW_NODE, taints=(dedicated,)), pods=())
        decision = await_ready.decide(NEW, state(NEW), old, new, lasting=(dedicated,))
        assert isinstance(decision, Hold if waits else await_ready.Ready)

    @pytest.mark.parametrize("ended", [None, state(NEW, state="terminated"), state(NEW, state="shutting-down")])
    def test_an_instance_that_ended_fails_the_node(self, ended: InstanceState | None) -> None:
        assert isinstance(await_ready.decide(NEW, ended, self.OLD_SIDE, None, ()), await_ready.NeverReady)


@pytest.mark.parametrize(
    ("status", "kubelet"), [({"nodeInfo": {"kubeletVersion": "v1.31.2-eks-1"}}, "v1.31.2-eks-1"), ({}, "")]
)
def test_the_version_of_a_kubelet_is_read(status: dict[str, object], kubelet: str) -> None:
    assert _node({"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}, "status": status}).kubelet == kubelet


class TestLoadBalancers:
    LOCAL = Service("shop", "web", (30080,), local_traffic=True)
    CLUSTER = Service("shop", "web", (30080,), local_traffic=False)
    RECORD = json.dumps([[ARN, 30080, False]])
    MARKED = replace(NODE, annotations=NODE.annotations | {NODE_TARGETS: RECORD}, labels={EXCLUDE_LABEL: "true"})

    def decide(
        self, *targets: TargetRegistration, services: tuple[Service, ...] = (), node: Node = MARKED, waited: float = 0.0
    ) -> leave_load_balancers.Decision:
        return leave_load_balancers.decide(node, list(targets), list(services), 1, waited)

    def test_registrations_are_recorded_before_the_node_leaves(self) -> None:
        """R1."""
        decision = self.decide(TargetRegistration(ARN, OLD, 30080, "healthy", 2), node=NODE)
        assert isinstance(decision, leave_load_balancers.RecordTargets)
        assert json.loads(decision.targets) == [[ARN, 30080, False]]

    def test_a_registration_that_came_later_is_recorded_with_the_others_before_the_node_leaves_it(self) -> None:
        """R1: an abort gives back what is on record."""
        later = ARN.replace("web", "api")
        known, new = (TargetRegistration(arn, OLD, 30080, "healthy", 2) for arn in (ARN, later))
        decision = self.decide(known, new)
        assert isinstance(decision, leave_load_balancers.RecordTargets)
        assert json.loads(decision.targets) == [[ARN, 30080, False], [later, 30080, False]]
        recorded = replace(self.MARKED, annotations={NODE_TARGETS: decision.targets})
        assert self.decide(known, new, node=recorded) == leave_load_balancers.Deregister((known, new))

    def test_it_leaves_while_others_are_healthy(self) -> None:
        target = TargetRegistration(ARN, OLD, 30080, "healthy", 2)
        assert self.decide(target) == leave_load_balancers.Deregister((target,))

    def test_it_stays_while_no_other_target_is_healthy(self) -> None:
        decision = self.decide(TargetRegistration(ARN, OLD, 30080, "healthy", 0))
        assert isinstance(decision, Hold)
        assert decision.reason == "target group web has 0 other healthy targets and must keep 1"

    def test_pods_that_serve_the_node_itself_wait_until_connections_have_drained(self) -> None:
        draining = TargetRegistration(ARN, OLD, 30080, "draining", 2, delay_seconds=40)
        decision = self.decide(draining, services=(self.LOCAL,), waited=32)
        assert isinstance(decision, Hold)
        assert decision.seconds == 8

    def test_pods_behind_cluster_wide_traffic_go_while_connections_drain(self) -> None:
        draining = TargetRegistration(ARN, OLD, 30080, "draining", 2, delay_seconds=40)
        assert isinstance(self.decide(draining, services=(self.CLUSTER,)), leave_load_balancers.Left)

    def test_a_port_that_no_service_explains_counts_as_local(self) -> None:
        draining = TargetRegistration(ARN, OLD, 8080, "draining", 2, delay_seconds=40)
        assert isinstance(self.decide(draining, services=(self.CLUSTER,)), Hold)

    def test_termination_waits_for_the_last_registration(self) -> None:
        """N2."""
        draining = TargetRegistration(ARN, OLD, 30080, "draining", 2, delay_seconds=40)
        assert await_load_balancers.decide([draining], 10).status == "wait"
        assert await_load_balancers.decide([replace(draining, state="unused")], 10).status == "done"


class TestTerminate:
    REPLACEMENT = Node("new", instance=NEW)
    EMPTY = replace(NODE, unschedulable=True)

    def seen(self, **more: Any) -> terminate.BeforeTermination:
        made = terminate.BeforeTermination(state(OLD), self.EMPTY, self.REPLACEMENT, group=group())
        return replace(made, **more)

    def test_an_empty_cordoned_node_of_the_plan_is_terminated(self) -> None:
        assert terminate.decide(self.seen(), OLD, "roll-1") == terminate.Terminate()

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"node": replace(EMPTY, annotations={})}, "is not in the plan"),
            ({"node": replace(EMPTY, annotations={NODE_ROLL: "roll-0"})}, "is not in the plan of roll-1"),
            ({"node": NODE}, "was uncordoned"),
            ({"replacement": None}, "the replacement has left"),
            ({"replacement": replace(REPLACEMENT, ready=False)}, "is no longer Ready"),
            ({"pods": (Pod("shop", "web-1"),)}, "pods are on it: shop/web-1"),
            ({"attachments": ("pv-1",)}, "volumes are attached: pv-1"),
            ({"targets": (TargetRegistration(ARN, OLD, 80, "draining"),)}, "target groups send it traffic: web"),
            ({"group": None}, "Auto Scaling group is gone"),
            ({"group": group(suspended=frozenset({"Terminate"}))}, "Terminate of group ng is suspended"),
            ({"group": group(minimum=3)}, "below its minimum size 3"),
            ({"node": None}, "left the cluster while the instance runs"),
        ],
    )
    def test_anything_of_value_on_it_or_missing_elsewhere_holds(self, change: dict[str, object], reason: str) -> None:
        """N2, N3, N4."""
        decision = terminate.decide(self.seen(**change), OLD, "roll-1")
        assert isinstance(decision, Hold)
        assert not isinstance(decision, terminate.Leaving)
        assert reason in decision.reason

    def test_what_is_on_its_way_out_is_not_terminated_again(self) -> None:
        """R3: a load balancer may still drain it while EC2 calls it running."""
        leaving = Group("ng", desired=2, instances=(GroupInstance(OLD, "a", "Terminating"),))
        for change in ({"group": leaving}, {"instance": state(OLD, state="shutting-down")}):
            decision = terminate.decide(self.seen(**change), OLD, "roll-1")
            assert isinstance(decision, terminate.Leaving)
            assert "is shutting down" in decision.reason

    def test_it_is_over_when_instance_and_node_are_gone(self) -> None:
        assert isinstance(terminate.decide(self.seen(instance=None), OLD, "roll-1"), terminate.Leaving)
        assert isinstance(terminate.decide(self.seen(instance=None, node=None), OLD, "roll-1"), terminate.Gone)


class TestPauseAndRestore:
    def test_only_what_the_roll_suspends_is_resumed_later(self) -> None:
        """R1, R2: a process that a person had suspended stays so."""
        pause = arrangements.pause_of(group(suspended=frozenset({"AZRebalance"})), surge=1)
        assert pause.suspend == INTERFERING_PROCESSES - {"AZRebalance"}
        assert "AZRebalance" not in pause.tags[GROUP_RESUME]

    def test_a_record_that_is_there_is_kept(self) -> None:
        """R1: a second roll's reading is not the original."""
        paused = group(
            suspended=INTERFERING_PROCESSES, maximum=4, tags={GROUP_RESUME: "AZRebalance", GROUP_MAXIMUM: "3"}
        )
        pause = arrangements.pause_of(paused, surge=2)
        assert (pause.tags, pause.suspend, pause.maximum) == ({GROUP_MAXIMUM: "3 to 5"}, frozenset(), 5)

    @pytest.mark.parametrize("suspended", [INTERFERING_PROCESSES, INTERFERING_PROCESSES - {"AZRebalance"}])
    def test_what_a_roll_suspended_is_resumed_although_its_record_was_removed(self, suspended: frozenset[str]) -> None:
        """R2: a tool that prunes tags which it does not know, in mid-roll."""
        bare = group(suspended=suspended, maximum=10)
        assert set(arrangements.pause_of(bare, surge=1, again=True).tags[GROUP_RESUME].split()) == INTERFERING_PROCESSES

    @pytest.mark.parametrize("raised", [False, True])
    def test_an_earlier_rolls_replacement_in_use_answers_no_later_request(self, *, raised: bool) -> None:
        """R2, R3: a roll launched another for the same node, and died before it tagged that."""
        mark = LaunchMark(90, desired=2, raised=True) if raised else LaunchMark(90, token=token_of("roll-2", OLD, 1))
        node = replace(NODE, annotations={NODE_LAUNCH: str(mark)})
        grown = group(GroupInstance("i-1st", "a"), GroupInstance(NEW, "a"), mixed_purchasing=raised)
        first = state("i-1st", launched=40.0, tags={INSTANCE_REPLACES: OLD})
        for tags in ({}, {INSTANCE_REPLACES: OLD}):
            states = {s.id: s for s in (state(OLD), first, state(NEW, launched=89.0, tags=tags))}
            found = restore.decide_orphan(node, grown, states, 100.0, 95.0, patient=True)
            claim = restore.Claim(NEW, OLD) if raised else restore.AskAgain(mark.token, "a")
            assert found == (None if tags else claim)

    @pytest.mark.parametrize("zone", ["a", "b"])
    def test_what_may_have_come_of_a_raised_capacity_is_named_in_whatever_zone(self, zone: str) -> None:
        """R2, N4: a step died between raising it and noting that, and AWS had chosen the zone."""
        node = replace(NODE, annotations={NODE_LAUNCH: str(LaunchMark(90, desired=2))})
        grown = group(GroupInstance(NEW, zone), mixed_purchasing=True)
        states = {s.id: s for s in (state(OLD), state(NEW, launched=95.0, tags={}))}
        found = restore.decide_orphan(node, grown, states, 100.0, 95.0, patient=True)
        assert isinstance(found, restore.Unproven)
        assert found.reason.startswith(f"{NEW} of group ")

    def test_a_maximum_that_somebody_set_since_is_the_one_to_put_back(self) -> None:
        """R1."""
        theirs = group(desired=5, maximum=6, tags={GROUP_RESUME: "-", GROUP_MAXIMUM: "3 to 4"})
        assert arrangements.pause_of(theirs, surge=2).tags[GROUP_MAXIMUM] == "6 to 7"

    def test_a_maximum_with_room_is_left_alone(self) -> None:
        assert arrangements.pause_of(group(maximum=10), surge=2).maximum is None

    def test_the_autoscaler_is_scaled_down_once_and_waited_for(self) -> None:
        owner = Owner("Deployment", "kube-system", "cluster-autoscaler")
        running = Workload(owner, desired=2, current=2)
        decide = pause_interference.decide_autoscaler
        assert decide(running, AutoscalerMode.PAUSE) == pause_interference.ScaleToZero()
        again = replace(running, annotations={"eks-rolling.io/original-replicas": "1"})
        assert decide(again, AutoscalerMode.PAUSE) == pause_interference.ScaleToZero()
        stopping = replace(running, desired=0)
        assert decide(stopping, AutoscalerMode.PAUSE) == pause_interference.AwaitStopped(2)
        told = replace(stopping, current=0)
        assert isinstance(decide(told, AutoscalerMode.PAUSE), pause_interference.Paused)
        # Its status leaves out what is to end.
        assert decide(told, AutoscalerMode.PAUSE, running=1) == pause_interference.AwaitStopped(1)
        assert isinstance(decide(running, AutoscalerMode.ANNOTATE), pause_interference.Paused)
        assert isinstance(decide(None, AutoscalerMode.PAUSE), pause_interference.Paused)

    def test_a_maximum_is_never_put_below_what_runs(self) -> None:
        """N2: AWS would terminate instances, undrained, to obey."""
        undo = restore.decide_size(group(desired=4, tags={GROUP_MAXIMUM: "3 to 5"}))
        assert undo.maximum is None
        assert not undo.forget
        assert "keeps the maximum size 5 (was 3)" in undo.left

    @pytest.mark.parametrize(
        ("extra", "then"), [(1, "the next roll finishes it"), (0, "a restore puts it back once that has fallen")]
    )
    def test_a_maximum_that_others_use_is_not_said_to_be_the_next_rolls(self, extra: int, then: str) -> None:
        """R2: a roll takes away what rolls launched, and nothing that cluster-autoscaler asked for."""
        undo = restore.decide_size(group(desired=4, tags={GROUP_MAXIMUM: "3 to 5"}), extra)
        assert undo.left.endswith(f"while its desired capacity is 4; {then}")

    def test_a_node_that_was_not_replaced_gets_everything_back(self) -> None:
        """R2."""
        marked = replace(
            NODE,
            unschedulable=True,
            taints=(Taint("other", "NoSchedule"), HARD_TAINT),
            annotations=NODE.annotations | {NODE_CORDONED: "true", NODE_TARGETS: json.dumps([[ARN, 80, False]])},
        )
        undo = restore.decide_node(marked, keep_taints=False)
        assert undo is not None
        assert undo.taints == (Taint("other", "NoSchedule"),)
        assert undo.uncordon
        assert [t.group for t in registrations_on(marked)] == [ARN]
        assert set(undo.annotations) == set(marked.annotations)

    def test_a_cordon_of_somebody_else_is_left_alone(self) -> None:
        undo = restore.decide_node(replace(NODE, unschedulable=True), keep_taints=False)
        assert undo is not None
        assert not undo.uncordon

    def test_the_cordon_of_an_unfit_node_stays_until_somebody_takes_it_away(self) -> None:
        """R2: nothing must run on it, whether its old node is there or not."""
        marked = replace(NODE, unschedulable=True, annotations={NODE_CORDONED: "true", NODE_UNFIT: "true"})
        undo = restore.decide_node(marked, keep_taints=False)
        assert undo is not None
        assert (undo.uncordon, undo.annotations) == (False, {NODE_CORDONED: None})
        opened = restore.decide_node(replace(marked, unschedulable=False), keep_taints=False)
        assert opened is not None
        assert opened.annotations == {NODE_CORDONED: None, NODE_UNFIT: None}

    def test_nothing_is_undone_on_a_node_without_marks(self) -> None:
        assert restore.decide_node(replace(NODE, annotations={}), keep_taints=False) is None

    @pytest.mark.parametrize(
        ("change", "verdict"),
        [
            ({}, "cordon"),
            ({"node": Node("new", unschedulable=True, annotations={NODE_CORDONED: "true"})}, "terminate"),
            ({"node": None}, "terminate"),
            ({"pods": (Pod("shop", "web-1"),)}, "keep"),
            (
                {
                    "pods": (Pod("shop", "web-1"),),
                    "node": Node("new", unschedulable=True, annotations={NODE_CORDONED: "true"}),
                },
                "uncordon",
            ),
            # Nothing must run on it, so it is opened for nobody.
            (
                {
                    "pods": (Pod("shop", "web-1"),),
                    "node": Node("new", unschedulable=True, annotations={NODE_CORDONED: "true", NODE_UNFIT: "true"}),
                },
                "keep",
            ),
            ({"node": Node("new", unschedulable=True, annotations={NODE_UNFIT: "true"})}, "terminate"),
            ({"node": None, "targets": (TargetRegistration(ARN, NEW, 80, "healthy", 2, others=2),)}, "deregister"),
            ({"node": None, "targets": (TargetRegistration(ARN, NEW, 80, "draining"),)}, "wait"),
            ({"group": group(minimum=3)}, "keep"),
            ({"instance": state(NEW, state="shutting-down")}, "gone"),
        ],
    )
    def test_a_replacement_that_was_not_needed_is_given_back_if_nothing_runs_on_it(
        self, change: dict[str, Any], verdict: str
    ) -> None:
        """N2."""
        seen = restore.Replacement(state(NEW), group(), Node("new"), (), ())
        assert restore.decide_replacement(replace(seen, **change), 1) == verdict

    @pytest.mark.parametrize(
        ("own", "theirs", "floor", "leaves"),
        [
            ({"state": "healthy", "others": 1, "others_healthy": 0}, "unhealthy", 1, False),
            ({"state": "healthy", "others": 1, "others_healthy": 1}, "healthy", 1, True),
            # Its own node is about to serve again: there are to be as many as before.
            ({"state": "healthy", "others": 3, "others_healthy": 2}, "initial", 1, False),
            ({"state": "healthy", "others": 3, "others_healthy": 2}, "healthy", 3, False),
            # No more than are there can be healthy, and with none nobody is served.
            ({"state": "healthy", "others": 2, "others_healthy": 2}, "healthy", 3, True),
            ({"state": "healthy", "others": 0, "others_healthy": 0}, "unused", 1, False),
            ({"state": "unhealthy", "others": 0, "others_healthy": 0}, "unused", 1, False),
            # What is not healthy takes no healthy one away.
            ({"state": "unhealthy", "others": 2, "others_healthy": 0}, "unhealthy", 1, True),
            ({"state": "initial", "others": 1, "others_healthy": 0}, "initial", 1, True),
        ],
    )
    def test_a_replacement_stays_in_its_target_groups_until_others_serve(
        self, own: dict[str, Any], theirs: str, floor: int, leaves: bool
    ) -> None:
        """N3: the nodes that come back are not healthy yet when they have just been registered."""
        target = TargetRegistration(ARN, NEW, 80, **own)
        free = TargetRegistration("arn:x:targetgroup/free/1", NEW, 80, "healthy", 5, others=5)
        place = TargetRegistration(ARN, OLD, 80, theirs)
        closed = Node("new", unschedulable=True)
        seen = restore.Replacement(state(NEW), group(), closed, (), (free, target), (), OLD, (place,))
        expected = "deregister" if leaves else restore.AwaitTargets(target.name)
        assert restore.decide_replacement(seen, floor) == expected

    def test_an_autoscaler_that_somebody_scaled_up_meanwhile_keeps_that_count(self) -> None:
        owner = Owner("Deployment", "kube-system", "cluster-autoscaler")
        paused = Workload(owner, desired=0, annotations={"eks-rolling.io/original-replicas": "2"})
        assert restore.decide_autoscaler(paused) == restore.ScaleTo(2)
        assert restore.decide_autoscaler(replace(paused, desired=1)) == restore.Theirs(1)
        assert restore.decide_autoscaler(replace(paused, annotations={})) is None


class TestTaints:
    def test_the_soft_taint_is_added_beside_the_taints_of_others(self) -> None:
        node = replace(NODE, annotations={}, taints=(Taint("other", "NoExecute"),))
        mark = arrangements.mark_of(node, "roll-1", AutoscalerMode.PAUSE)
        assert mark is not None
        assert mark.taints == (Taint("other", "NoExecute"), SOFT_TAINT)
        assert mark.annotations == {NODE_ROLL: "roll-1"}

    def test_a_hard_taint_of_an_earlier_run_stays_hard(self) -> None:
        mark = arrangements.mark_of(replace(NODE, taints=(HARD_TAINT,)), "roll-2", AutoscalerMode.PAUSE)
        assert mark is not None
        assert mark.taints is None

    def test_a_node_that_has_everything_is_left_alone(self) -> None:
        assert arrangements.mark_of(replace(NODE, taints=(SOFT_TAINT,)), "roll-1", AutoscalerMode.PAUSE) is None

    def test_the_roll_taint_replaces_its_own_kind_only(self) -> None:
        node = replace(NODE, taints=(Taint("a", "NoSchedule"), SOFT_TAINT, Taint("b", "NoSchedule")))
        assert with_roll_taint(node, HARD_TAINT) == (Taint("a", "NoSchedule"), Taint("b", "NoSchedule"), HARD_TAINT)
