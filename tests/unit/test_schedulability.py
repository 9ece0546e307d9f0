"""Whether pods fit on the new nodes: every reason why one would stay Pending, and none where it would not."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.aws import _architecture
from eks_rolling.clients.kubernetes import _volume
from eks_rolling.clients.manifests import needs_of, quantity, requests_of
from eks_rolling.observed.aws import Group, GroupInstance, InstanceType, LaunchTemplate
from eks_rolling.observed.kubernetes import (
    AntiAffinity,
    Expression,
    Needs,
    Node,
    Owner,
    Pod,
    Selector,
    Spread,
    Taint,
    Toleration,
    Volume,
    Workload,
)
from eks_rolling.payloads import RollRequest
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.plan.checks.scheduling import daemon_findings, pending_findings, schedulability_findings
from eks_rolling.plan.placement import Cause, Stuck, cramped_stand_ins, stuck_pods
from eks_rolling.plan.snapshot import ClusterSnapshot, candidates, resolve
from eks_rolling.redis.groups import GROUP, PART, Part, declared

WEB = Owner("Deployment", "shop", "web")
AGENT = Owner("DaemonSet", "kube-system", "agent")
ALIKE = Selector((("app", "web"),))
ROOM = {"cpu": 2000, "memory": 8 << 30, "pods": 29}


def node(number: int, zone: str = "a", **more: Any) -> Node:
    labels = {
        "kubernetes.io/hostname": f"node-{number}",
        "topology.kubernetes.io/zone": zone,
        "node.kubernetes.io/instance-type": "m6i.large",
        "pool": "general",
    }
    labels |= more.pop("labels", {})
    return Node(f"node-{number}", instance=f"i-{number}", zone=zone, labels=labels, allocatable=ROOM, **more)


def pod(name: str = "web-1", on: str = "node-1", **more: Any) -> Pod:
    given: dict[str, Any] = {"owner": WEB, "labels": {"app": "web"}, "requests": {"cpu": 1500, "memory": 1 << 30}}
    return Pod("shop", name, uid=name, node=on, **(given | more))


def group(count: int = 2, **more: Any) -> Group:
    instances = tuple(GroupInstance(f"i-{n}", "a", template="lt-1:1", type="m6i.large") for n in range(1, count + 1))
    given: dict[str, Any] = {"zones": ("a",), "instances": instances, "template": LaunchTemplate("lt-1", "2")}
    return Group("ng", maximum=9, desired=count, **(given | more))


def view(*pods: Pod, nodes: tuple[Node, ...] = (node(1), node(2)), **more: Any) -> ClusterSnapshot:
    given: dict[str, Any] = {"groups": (group(len(nodes)),), "nodes": nodes, "pods": pods}
    return ClusterSnapshot(**(given | more))


def stuck(seen: ClusterSnapshot, *only: str) -> list[Stuck]:
    targets = resolve(seen.groups, {})
    return stuck_pods(seen, candidates(seen, targets, RollRequest(nodes=only)), targets)


def reasons(seen: ClusterSnapshot, *only: str) -> list[tuple[Cause, str]]:
    return [(s.cause, s.reason) for s in stuck(seen, *only)]


def smaller(**more: Any) -> dict[str, Any]:
    """The new version is of another type."""
    data = {"lt-1:1": {"InstanceType": "m6i.large"}, "lt-1:2": {"InstanceType": "t3.small"}}
    return {"template_data": data} | more


class TestRoom:
    def test_what_a_node_holds_its_replacement_holds(self) -> None:
        full = [pod(f"web-{n}", requests={"cpu": 500, "memory": 2 << 30}) for n in range(4)]
        assert stuck(view(*full)) == []

    def test_a_smaller_type_has_no_room_and_the_reason_has_numbers(self) -> None:
        seen = view(pod(), **smaller(instance_types={"t3.small": InstanceType("t3.small", 1, 2 << 30)}))
        ((cause, reason),) = reasons(seen)
        assert cause is Cause.PENDING
        assert "requests 1.5 CPU, and the replacement of node-1 has 1 CPU left" in reason

    def test_a_type_that_a_present_node_has_is_as_large_as_that_node(self) -> None:
        small = replace(
            node(3, labels={"node.kubernetes.io/instance-type": "t3.small"}), instance="", allocatable={"cpu": 900}
        )
        seen = view(pod(), nodes=(node(1), node(2), small), groups=(group(2),), **smaller())
        assert ["has 0.9 CPU left" in r for _, r in reasons(seen)] == [True]

    def test_where_a_policy_chooses_types_the_versions_type_says_nothing(self) -> None:
        data = {"lt-1:1": {"InstanceType": "m5.large"}, "lt-1:2": {"InstanceType": "t3.small"}}
        types = {"t3.small": InstanceType("t3.small", 1, 2 << 30)}
        assert stuck(view(pod(), template_data=data, instance_types=types)) == []

    def test_room_on_a_node_that_stays_will_do(self) -> None:
        seen = view(pod(), **smaller(instance_types={"t3.small": InstanceType("t3.small", 1, 2 << 30)}))
        assert stuck(seen, "node-1") == []
        taken = replace(seen, pods=(pod(), pod("web-2", "node-2")))
        assert [s.pod.name for s in stuck(taken, "node-1")] == ["web-1"]

    def test_daemons_take_their_share_first(self) -> None:
        agent = pod("agent-1", owner=AGENT, requests={"cpu": 600})
        ((_, reason),) = reasons(view(agent, pod(requests={"cpu": 1500}), nodes=(node(1),)))
        assert "has 1.4 CPU left" in reason

    def test_a_node_takes_so_many_pods_and_so_many_volumes(self) -> None:
        few = replace(node(1), allocatable=ROOM | {"pods": 1})
        seen = view(pod("a", requests={}), pod("b", requests={}), nodes=(few,))
        assert [r for _, r in reasons(seen)] == [
            "the replacement of node-1 takes no more pods, and no other node takes it"
        ]
        volumes = tuple(Volume(f"shop/{n}", f"pv-{n}", ("a",), driver="ebs") for n in "ab")
        held = view(
            pod(requests={}, claims=("a", "b")), volumes=volumes, volume_limits={"node-1": {"ebs": 1}}, nodes=(node(1),)
        )
        assert ["takes no more volumes of ebs" in r for _, r in reasons(held)] == [True]

    def test_nodes_that_state_nothing_count_against_nobody(self) -> None:
        bare = tuple(replace(node(n), allocatable={}) for n in (1, 2))
        assert stuck(view(pod(requests={"cpu": 10**9, "gpu": 1}), nodes=bare)) == []

    def test_one_workload_is_not_tried_on_every_node_for_every_pod(self) -> None:
        pods = [pod(f"web-{n}", f"node-{1 + n % 2}") for n in range(20)]
        assert len(stuck(view(*pods))) == 18


class TestRules:
    def test_a_label_that_was_set_by_hand_does_not_come_back(self) -> None:
        seen = view(pod(needs=Needs(labels=(("disk", "fast"),))), nodes=(node(1, labels={"disk": "fast"}), node(2)))
        ((cause, reason),) = reasons(seen)
        assert cause is Cause.PENDING
        assert "label disk=fast, which its node has and the other nodes of the group do not" in reason

    def test_a_label_that_all_nodes_have_or_that_the_groups_tags_promise_comes_back(self) -> None:
        assert stuck(view(pod(needs=Needs(labels=(("pool", "general"),))))) == []
        tags = {"k8s.io/cluster-autoscaler/node-template/label/disk": "fast"}
        seen = view(pod(needs=Needs(labels=(("disk", "fast"),))), groups=(group(2, tags=tags),))
        assert stuck(seen) == []

    @pytest.mark.parametrize(("value", "count"), [("general", 0), ("special", 1)])
    def test_required_affinity_takes_any_of_its_terms(self, value: str, count: int) -> None:
        terms = ((Expression("pool", "In", ("none",)),), (Expression("pool", "In", (value,)),))
        assert len(stuck(view(pod(needs=Needs(affinity=terms))))) == count

    @pytest.mark.parametrize(("operator", "count"), [("Gt", 0), ("Lt", 1)])
    def test_affinity_compares_numbers(self, operator: str, count: int) -> None:
        nodes = tuple(node(n, labels={"cores": "4"}) for n in (1, 2))
        needs = Needs(affinity=((Expression("cores", operator, ("3",)),),))
        assert len(stuck(view(pod(needs=needs), nodes=nodes))) == count

    def test_a_taint_that_new_nodes_are_born_with_keeps_out_who_does_not_tolerate_it(self) -> None:
        gpu = Taint("gpu", "NoSchedule", "yes")
        nodes = (node(1, taints=(gpu,)), node(2, taints=(gpu,)))
        assert ["taint gpu" in r for _, r in reasons(view(pod(), nodes=nodes))] == [True]
        assert stuck(view(pod(tolerations=(Toleration("gpu", "Exists"),)), nodes=nodes)) == []

    def test_a_taint_of_one_node_alone_or_of_ours_is_not_born(self) -> None:
        ours = Taint("eks-rolling", "NoSchedule")
        one = (node(1, taints=(Taint("maintenance", "NoSchedule"), ours)), node(2, taints=(ours,)))
        assert stuck(view(pod(), nodes=one)) == []

    def test_a_volume_in_a_zone_that_gets_no_replacement_is_named_so(self) -> None:
        seen = view(
            pod(claims=("data",)),
            volumes=(Volume("shop/data", "pv-1", ("a",)),),
            nodes=(node(1), node(2, "b")),
            groups=(replace(group(1), zones=("b",)),),
        )
        ((cause, reason),) = reasons(seen, "node-1")
        assert cause is Cause.VOLUME_ZONE
        assert "its volume is in a, where group ng no longer launches" in reason

    def test_anti_affinity_counts_beside_the_own_replacement_only(self) -> None:
        apart = Needs(apart=(AntiAffinity("kubernetes.io/hostname", ALIKE, ("shop",)),))
        both = (pod("web-1", needs=apart), pod("web-2", "node-2", needs=apart))
        assert stuck(view(*both)) == []
        lost = view(*both, **smaller(instance_types={"t3.small": InstanceType("t3.small", 1, 2 << 30)}))
        roomy = replace(lost, nodes=(node(1), replace(node(2), allocatable=ROOM | {"cpu": 8000})))
        assert [s.pod.name for s in stuck(roomy, "node-1")] == ["web-1"]


class TestSpread:
    SPREAD = Spread("kubernetes.io/hostname", 1, ALIKE)

    def of(self, spread: Spread, counts: tuple[int, ...]) -> list[Stuck]:
        needs = Needs(spread=(spread,))
        pods = [
            pod(f"web-{n}-{i}", f"node-{n}", needs=needs, requests={})
            for n, count in enumerate(counts, start=1)
            for i in range(count)
        ]
        return stuck(view(*pods, nodes=tuple(node(n) for n in range(1, len(counts) + 1))))

    def test_two_pods_a_node_spread_by_one_cannot_leave_it(self) -> None:
        found = self.of(self.SPREAD, (2, 2))
        assert [(s.cause, s.pod.name) for s in found] == [(Cause.SPREAD, "web-1-0"), (Cause.SPREAD, "web-2-0")]

    @pytest.mark.parametrize(
        ("change", "counts"),
        [({}, (1, 1)), ({}, (2, 0)), ({"max_skew": 2}, (2, 2)), ({"honors_taints": True}, (2, 2))],
    )
    def test_these_can(self, change: dict[str, Any], counts: tuple[int, ...]) -> None:
        assert self.of(replace(self.SPREAD, **change), counts) == []


class TestManifests:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("cpu", "250m", 250),
            ("cpu", "2", 2000),
            ("cpu", "0.5", 500),
            ("memory", "64Mi", 64 << 20),
            ("memory", "1G", 10**9),
            ("memory", "1500m", 2),
            ("memory", "2500000000n", 3),
            ("memory", "1u", 0),
            ("cpu", "2500000u", 2500),
            ("pods", "29", 29),
        ],
    )
    def test_quantities(self, name: str, text: str, value: int) -> None:
        assert quantity(name, text) == value

    def test_init_containers_count_where_they_ask_for_more_and_sidecars_always(self) -> None:
        def asking(cpu: str, **more: str) -> dict[str, Any]:
            return {"resources": {"requests": {"cpu": cpu}}, **more}

        spec = {
            "containers": [asking("100m"), asking("100m")],
            "initContainers": [asking("50m", restartPolicy="Always"), asking("400m")],
            "overhead": {"cpu": "10m"},
        }
        assert requests_of(spec) == {"cpu": 460}
        assert requests_of({"containers": [{}]}) == {}

    def test_what_the_pod_as_a_whole_requests_counts_in_its_containers_stead(self) -> None:
        asking = {"resources": {"requests": {"cpu": "100m", "example.com/disk": "1"}}}
        spec = {"containers": [asking, asking], "resources": {"requests": {"cpu": "2"}}, "overhead": {"cpu": "10m"}}
        assert requests_of(spec) == {"cpu": 2010, "example.com/disk": 2}
        assert requests_of(spec | {"resources": {"limits": {"cpu": "2"}}}) == {"cpu": 210, "example.com/disk": 2}

    def test_what_is_only_preferred_is_not_needed(self) -> None:
        soft = {
            "affinity": {
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]},
            },
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
            ],
        }
        assert needs_of(soft, "shop") == Needs()
        assert needs_of({}, "shop") is None

    def test_what_is_required_is_read(self) -> None:
        labels = {"matchLabels": {"app": "web"}}
        spec = {
            "nodeSelector": {"pool": "general"},
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]
                    }
                },
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": labels}
                    ]
                },
            },
            "topologySpreadConstraints": [
                {
                    "topologyKey": "kubernetes.io/hostname",
                    "maxSkew": 1,
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": labels,
                    "nodeTaintsPolicy": "Honor",
                }
            ],
        }
        assert needs_of(spec, "shop") == Needs(
            labels=(("pool", "general"),),
            affinity=((Expression("x", "Exists"),),),
            apart=(AntiAffinity("kubernetes.io/hostname", ALIKE, ("shop",)),),
            spread=(Spread("kubernetes.io/hostname", 1, ALIKE, honors_taints=True),),
        )


class TestStandIns:
    """A pod of a Redis Cluster needs room for two like it, for as long as it moves."""

    SHARDS = Owner("StatefulSet", "shop", "redis-a")

    def shards(self, memory: int, *more: Pod, nodes: tuple[Node, ...]) -> ClusterSnapshot:
        said = {GROUP: "shards", PART: str(Part.CLUSTER)}
        workload = Workload(self.SHARDS, annotations=said)
        ((redis,), _) = declared([workload])
        asks = {"memory": memory << 30, "cpu": 100}
        member = pod("redis-a-0", owner=self.SHARDS, requests=asks, labels={}, claims=("data-redis-a-0",))
        return view(member, *more, nodes=nodes, workloads=(workload,), redis=(RedisView(redis),))

    def cramped(self, seen: ClusterSnapshot) -> list[str]:
        targets = resolve(seen.groups, {})
        return [s.reason for s in cramped_stand_ins(seen, candidates(seen, targets, RollRequest()), targets)]

    def test_a_replacement_with_room_for_two_is_enough(self) -> None:
        assert self.cramped(self.shards(4, nodes=(node(1),))) == []

    def test_one_with_room_for_one_is_not(self) -> None:
        assert self.cramped(self.shards(5, nodes=(node(1),))) == [
            "it requests 5 GiB of memory, and the replacement of node-1 has 3 GiB of memory left, "
            "and no other node in a takes it"
        ]

    def test_another_node_of_the_zone_may_take_it_an_old_one_too(self) -> None:
        assert self.cramped(self.shards(5, nodes=(node(1), node(2)))) == []

    def test_a_node_of_another_zone_or_a_full_one_may_not(self) -> None:
        full = pod("web-1", on="node-2", requests={"memory": 4 << 30})
        assert len(self.cramped(self.shards(5, full, nodes=(node(1), node(2), node(3, zone="b"))))) == 1

    def test_the_roll_holds_and_says_for_whom(self) -> None:
        seen = self.shards(5, nodes=(node(1),))
        targets = resolve(seen.groups, {})
        (found,) = schedulability_findings(cramped_stand_ins(seen, candidates(seen, targets, RollRequest()), targets))
        assert (found.code, found.severity, found.object) == ("redis-no-room", "holds", str(self.SHARDS))
        assert found.reason.startswith("a stand-in for redis-a-0 would find no room: it requests 5 GiB of memory")


class TestOtherArchitecture:
    """The new version is of another architecture: the old node's labels say nothing of it."""

    DATA = {"lt-1:1": {"InstanceType": "m6i.large"}, "lt-1:2": {"InstanceType": "m6g.large"}}
    AMD = {
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "m6i.large",
    }

    def stuck_with(self, label: str, value: str, architecture: str) -> list[Stuck]:
        kinds = {"m6g.large": InstanceType("m6g.large", 2, 8 << 30, architecture)}
        nodes = (node(1, labels=self.AMD), node(2, labels=self.AMD))
        asking = pod(needs=Needs(labels=((label, value),)))
        return stuck(view(asking, nodes=nodes, template_data=self.DATA, instance_types=kinds))

    @pytest.mark.parametrize("label", ["kubernetes.io/arch", "beta.kubernetes.io/arch"])
    def test_a_pod_that_asks_for_the_old_one_is_stuck(self, label: str) -> None:
        (found,) = self.stuck_with(label, "amd64", "arm64")
        assert f"it needs a node with the label {label}=amd64" in found.reason
        assert self.stuck_with(label, "arm64", "arm64") == []

    def test_a_pod_that_asks_for_the_old_type_is_stuck_by_either_label(self) -> None:
        for label in ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"):
            (found,) = self.stuck_with(label, "m6i.large", "arm64")
            assert f"{label}=m6i.large" in found.reason

    @pytest.mark.parametrize(("architecture", "codes"), [("arm64", ["daemonset-left-out"]), ("", []), ("amd64", [])])
    def test_a_daemonset_that_asks_for_the_old_one_is_named_once(self, architecture: str, codes: list[str]) -> None:
        kinds = {"m6g.large": InstanceType("m6g.large", 2, 8 << 30, architecture)}
        nodes = (node(1, labels=self.AMD), node(2, labels=self.AMD))
        needs = Needs(labels=(("kubernetes.io/arch", "amd64"),))
        agents = [pod(f"agent-{n}", f"node-{n}", owner=AGENT, needs=needs) for n in (1, 2)]
        seen = view(*agents, nodes=nodes, template_data=self.DATA, instance_types=kinds)
        targets = resolve(seen.groups, {})
        found = list(daemon_findings(seen, candidates(seen, targets, RollRequest()), targets))
        assert [f.code for f in found] == codes
        assert all(f.object == str(AGENT) and "kubernetes.io/arch=arm64" in f.reason for f in found)

    def test_an_unknown_architecture_is_never_held_against_a_pod(self) -> None:
        assert self.stuck_with("kubernetes.io/arch", "amd64", "") == []


@pytest.mark.parametrize(
    ("supported", "architecture"),
    [(["x86_64"], "amd64"), (["arm64"], "arm64"), (["i386", "x86_64"], "amd64"), (["x86_64_mac"], ""), ([], "")],
)
def test_an_instance_types_architecture_is_named_as_nodes_are_labelled(supported: list[str], architecture: str) -> None:
    assert _architecture({"ProcessorInfo": {"SupportedArchitectures": supported}}) == architecture
    assert _architecture({}) == ""


@pytest.mark.parametrize(
    ("key", "values", "local"),
    [
        ("topology.topolvm.io/node", ["n-1"], True),
        ("kubernetes.io/hostname", ["n-1"], True),
        ("openebs.io/nodename", ["n-1"], True),
        ("topology.linbit.com/hostname", ["n-1", "n-2"], False),
        ("topology.ebs.csi.aws.com/zone", ["a"], False),
        ("topology.kubernetes.io/region", ["eu-central-1"], False),
    ],
)
def test_a_volume_that_its_driver_binds_to_one_node_is_local(key: str, values: list[str], local: bool) -> None:
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": values}]}]
    reference = {"namespace": "shop", "name": "data"}
    affinity = {"required": {"nodeSelectorTerms": terms}}
    spec = {"claimRef": reference, "csi": {"driver": "x"}, "nodeAffinity": affinity}
    found = _volume({"metadata": {"name": "pv"}, "spec": spec})
    assert found.local is local
    assert found.zones == (("a",) if key.endswith("/zone") else ())


class TestPlaceholders:
    """Pods that only keep room for others."""

    ROOM = pod("room-1", "node-2", owner=Owner("Deployment", "shop", "room"), labels={}, priority=-10)

    def test_they_need_no_room_and_take_none(self) -> None:
        seen = view(pod(), self.ROOM, **smaller(instance_types={"t3.small": InstanceType("t3.small", 1, 2 << 30)}))
        assert stuck(seen, "node-1") == []
        assert stuck(seen, "node-2") == []
        (taken,) = stuck(replace(seen, pods=(pod(), replace(self.ROOM, priority=0))), "node-1")
        assert taken.pod.name == "web-1"

    def test_one_that_is_pending_is_no_finding(self) -> None:
        pending = replace(self.ROOM, node="", unschedulable_because="no room", ready=False)
        assert list(pending_findings([pending], {pending.uid})) == []
        assert [f.code for f in pending_findings([pending])] == ["already-pending"]


def test_a_taint_that_the_groups_tags_announce_keeps_off_what_does_not_tolerate_it() -> None:
    tags = {"k8s.io/cluster-autoscaler/node-template/taint/dedicated": "gpu:NoSchedule"}
    seen = view(pod(), groups=(group(tags=tags),))
    (found,) = stuck(seen)
    assert "it does not tolerate the taint dedicated" in found.reason
    tolerant = pod(tolerations=(Toleration(key="dedicated", operator="Exists"),))
    assert stuck(view(tolerant, groups=(group(tags=tags),))) == []
    agent = pod("agent-1", owner=AGENT)
    seen = view(agent, replace(agent, node="node-2"), groups=(group(tags=tags),))
    targets = resolve(seen.groups, {})
    (left_out,) = daemon_findings(seen, candidates(seen, targets, RollRequest()), targets)
    assert "which are tainted dedicated:NoSchedule" in left_out.reason
