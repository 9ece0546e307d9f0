"""Every finding of the plan: named exactly, with a remedy, and none on a clean cluster."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.documents.finding import Finding, Severity
from eks_rolling.documents.plan_text import plan_text
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState, InstanceType, LaunchTemplate, VcpuQuota
from eks_rolling.observed.kubernetes import (
    ACCEPT,
    STRATEGY_ANNOTATION,
    Budget,
    Container,
    Node,
    Owner,
    Pod,
    Selector,
    Toleration,
    Volume,
    Workload,
)
from eks_rolling.observed.marks import (
    AUTOSCALER_REPLICAS,
    GROUP_MAXIMUM,
    INSTANCE_REPLACES,
    NODE_LAUNCH,
    NODE_TARGETS,
    NODE_UNFIT,
    outdated,
)
from eks_rolling.payloads import RollRequest
from eks_rolling.plan.build import write
from eks_rolling.plan.checks import ACCEPTABLE, ClusterSnapshot, candidates, findings, resolve
from eks_rolling.plan.checks.groups import capacity_findings
from eks_rolling.plan.checks.scheduling import vcpus_needed
from eks_rolling.plan.permissions import needed_to_restart
from eks_rolling.plan.snapshot import Candidate, Unseen, begun
from eks_rolling.redis.groups import CACHE, PART
from eks_rolling.settings import Autoscaler, AutoscalerMode, RollBack, Settings
from eks_rolling.steps.plan import PlanOutcome, decide

SETTINGS = Settings(cluster="demo", autoscaler=Autoscaler(mode=AutoscalerMode.PAUSE))
WEB = Owner("Deployment", "shop", "web")
AUTOSCALER = Workload(Owner("Deployment", "kube-system", "cluster-autoscaler"), desired=2, ready=2)
NODE = Node("node-1", instance="i-1", zone="a")
WEB_POD = Pod("shop", "web-1", uid="u1", node="node-1", owner=WEB, labels={"app": "web"})
WEB_BUDGET = Budget("shop", "web", "b1", Selector((("app", "web"),)), 1, 3, 2, 3, max_unavailable="1")
GROUP = Group(
    "ng",
    maximum=5,
    desired=1,
    zones=("a",),
    instances=(GroupInstance("i-1", "a", template="lt-1:1", type="m6i.large"),),
    template=LaunchTemplate("lt-1", "$Latest"),
    tags={"kubernetes.io/cluster/demo": "owned"},
)
CLEAN = ClusterSnapshot(
    groups=(GROUP,),
    nodes=(NODE,),
    pods=(WEB_POD,),
    budgets=(WEB_BUDGET,),
    workloads=(Workload(WEB, desired=3, ready=3), AUTOSCALER),
    versions={"lt-1": (2, 1)},
    free_addresses={"ng": {"a": 10}},
)

Change = Callable[[ClusterSnapshot], ClusterSnapshot]


def found(view: ClusterSnapshot, request: RollRequest | None = None, settings: Settings = SETTINGS) -> list[Finding]:
    request = request or RollRequest()
    return findings(view, request, settings, candidates(view, resolve(view.groups, view.versions), request))


def group(**more: Any) -> Change:
    return lambda view: replace(view, groups=(replace(GROUP, **more),))


def pod(**more: Any) -> Change:
    return lambda view: replace(view, pods=(replace(WEB_POD, **more),))


def budget(**more: Any) -> Change:
    return lambda view: replace(view, budgets=(replace(WEB_BUDGET, **more),))


def workload(**more: Any) -> Change:
    return lambda view: replace(view, workloads=(replace(CLEAN.workloads[0], **more), AUTOSCALER))


def with_volume(**more: Any) -> Change:
    volume = replace(Volume("shop/data", "pv-1", ("a",)), **more)
    return lambda view: replace(pod(claims=("data",))(view), volumes=(volume,))


REDIS = (Container("registry:5000/library/redis:8@sha256:1"),)


def redis_with(annotations: dict[str, str], **more: Any) -> Change:
    return lambda view: pod(containers=REDIS, **more)(workload(annotations=annotations)(view))


def test_an_alarm_that_is_gone_keeps_nobody_from_going_back_nor_from_having_nothing_to_do() -> None:
    """A rollback's first wave is replaced before its gate; and a roll without nodes passes none."""
    gone = replace(CLEAN, alarms_missing=("shop-errors",))
    told = {f.code: f.severity for f in found(gone, RollRequest(rolls_back="roll-1"))}
    assert told["no-such-alarm"] == HOLDS
    assert found(group(instances=())(gone)) == []


@pytest.mark.parametrize(
    ("unseen", "remedy"),
    [
        ({Unseen.CRON_JOBS}, "apply deploy/rbac.yaml again;"),
        ({Unseen.ALARMS}, "deploy again;"),
        ({Unseen.ALARMS, Unseen.JUDGES}, "apply deploy/rbac.yaml again, and deploy again;"),
    ],
)
def test_what_the_plan_may_not_look_at_has_the_remedy_of_who_forbids_it(unseen: set[Unseen], remedy: str) -> None:
    """Alarms are AWS's: no Kubernetes manifest grants a look at them."""
    (finding,) = found(replace(CLEAN, unseen=frozenset(unseen)))
    assert (finding.code, finding.severity) == ("not-looked-at", NOTE)
    assert finding.remedy.startswith(remedy)
    assert all(what in finding.reason for what in unseen)


def test_a_clean_cluster_has_no_findings() -> None:
    assert found(CLEAN) == []


def beside_a_new_node(kubelet: str) -> Change:
    """A node of the new version is there already; the control plane is 1.31."""
    new = GroupInstance("i-2", "a", template="lt-1:2", type="m6i.large")
    return lambda view: replace(
        view,
        groups=(replace(GROUP, instances=(*GROUP.instances, new)),),
        nodes=(replace(NODE, kubelet="v1.30.0"), Node("node-2", instance="i-2", zone="a", kubelet=kubelet)),
        server_version="v1.31.4-eks-1",
    )


def test_a_node_of_the_new_version_whose_kubelet_fits_is_no_finding() -> None:
    assert found(beside_a_new_node("v1.31.0-eks-1")(CLEAN)) == []
    assert found(beside_a_new_node("")(CLEAN)) == []


def tags_of_theirs(count: int) -> dict[str, str]:
    return {f"team-{number}": "" for number in range(count)} | {"aws:cloudformation:stack-name": "shop"}


FULL_OF_TAGS = group(tags=GROUP.tags | tags_of_theirs(48), kept_tags=frozenset(tags_of_theirs(48)))


def test_a_roll_has_room_for_its_own_tags_on_groups_and_instances() -> None:
    """AWS takes 50 of each; the group has one more, the cluster's."""
    kept = frozenset(tags_of_theirs(60))
    of_template = {f"TagSpecifications[0].Tags[{n}].Key": f"of-the-template-{n}" for n in range(40)}
    template = {"lt-1:2": {"TagSpecifications[0].ResourceType": "instance", **of_template}}

    def codes(count: int, *, roll_back: bool = False, **more: Any) -> list[str]:
        view = group(tags=GROUP.tags | tags_of_theirs(count), **more)(CLEAN)
        view = replace(view, template_data=template if "kept_tags" not in more else {})
        settings = SETTINGS.model_copy(update={"roll_back": RollBack(enabled=roll_back)})
        return [f.reason for f in found(view, settings=settings) if f.code == "no-room-for-tags"]

    assert codes(47, kept_tags=kept) == []
    assert codes(47, kept_tags=kept, roll_back=True) == ["it has 48 tags, AWS allows 50, and a roll writes 3"]
    assert codes(48, kept_tags=kept) == ["it has 49 tags, AWS allows 50, and a roll writes 2"]
    assert codes(7) == []
    assert codes(8) == ["its new instances get 49 tags, AWS allows 50, and a roll writes 2"]
    already = group(tags=GROUP.tags | tags_of_theirs(47) | {GROUP_MAXIMUM: "5 to 7"}, kept_tags=kept | {GROUP_MAXIMUM})
    codes_then = {f.code for f in found(already(CLEAN))}
    assert "no-room-for-tags" not in codes_then, "what a dead roll left is not counted twice"


def image(named: str, *, gone: str) -> Change:
    """What the version to launch names as its image, and an image from which nothing launches."""
    return lambda view: replace(view, template_data={"lt-1:2": {"ImageId": named}}, images_gone=frozenset({gone}))


@pytest.mark.parametrize(
    ("lifecycle", "remedy"),
    [
        (
            "Standby",
            "put it back into service: `aws autoscaling exit-standby --instance-ids i-2 --auto-scaling-group-name ng`; "
            "if it is not wanted, terminate it by hand after that",
        ),
        ("Detaching", "wait until it has left the group"),
    ],
    ids=lambda word: word.split()[0],
)
def test_an_instance_out_of_service_is_not_to_be_terminated_as_it_is(lifecycle: str, remedy: str) -> None:
    """Its group may have been asked to go with one less already, and would be asked again."""
    instances = (*GROUP.instances, GroupInstance("i-2", "a", lifecycle))
    found_there = found(replace(CLEAN, groups=(replace(GROUP, instances=instances),)))
    assert [f.remedy for f in found_there if f.code == "standby"] == [remedy]


def test_an_image_that_is_there_is_no_finding_whichever_else_is_gone() -> None:
    assert found(image("ami-2", gone="ami-1")(CLEAN)) == []
    assert found(replace(CLEAN, images_gone=frozenset({"ami-2"}))) == []


BLOCKS, HOLDS, NOTE = Severity.BLOCKS, Severity.HOLDS, Severity.NOTE


@pytest.mark.parametrize(
    ("code", "severity", "subject", "change"),
    [
        ("managed-node-group", NOTE, "group ng", group(tags=GROUP.tags | {"eks:nodegroup-name": "workers"})),
        ("foreign-group", BLOCKS, "group ng", group(tags={})),
        ("foreign-group", BLOCKS, "group ng", group(tags={"kubernetes.io/cluster/demo": "no"})),
        ("tag-not-propagated", BLOCKS, "group ng", group(kept_tags=frozenset(GROUP.tags))),
        ("no-room-for-tags", BLOCKS, "group ng", FULL_OF_TAGS),
        ("launch-configuration", NOTE, "group ng", group(template=None, configuration="lc-2")),
        ("group-feature", BLOCKS, "group ng", group(unhandled=("weighted capacity",))),
        ("several-types", NOTE, "group ng", group(types=("m6i.large", "m7i.large"))),
        ("several-types", NOTE, "group ng", group(types=("*0",))),
        ("instance-lifetime", NOTE, "group ng", group(longest_life=7 * 86400.0)),
        ("capacity-rebalance", NOTE, "group ng", group(rebalances_spot=True)),
        (
            "idle-group",
            NOTE,
            "group idle",
            lambda v: replace(v, groups=(GROUP, replace(GROUP, name="idle", desired=0, instances=()))),
        ),
        ("launch-suspended", BLOCKS, "group ng", group(suspended=frozenset({"Launch"}))),
        ("terminate-suspended", BLOCKS, "group ng", group(suspended=frozenset({"Terminate"}))),
        ("instance-refresh", BLOCKS, "group ng", group(refresh_running=True)),
        ("warm-pool", BLOCKS, "group ng", group(warm_pool=True)),
        ("mixed-purchasing", NOTE, "group ng", group(mixed_purchasing=True)),
        ("maximum-raised", NOTE, "group ng", group(maximum=1)),
        ("zone-not-served", BLOCKS, "node node-1", group(zones=("b",))),
        ("standby", BLOCKS, "instance i-2", group(instances=(*GROUP.instances, GroupInstance("i-2", "a", "Standby")))),
        ("no-addresses", BLOCKS, "group ng", lambda v: replace(v, free_addresses={"ng": {"a": 0}})),
        ("not-joined", BLOCKS, "instance i-1", lambda v: replace(v, nodes=())),
        ("node-not-ready", BLOCKS, "node node-1", lambda v: replace(v, nodes=(replace(NODE, ready=False),))),
        (
            "image-unknown",
            NOTE,
            "group ng",
            lambda v: replace(v, template_data={"lt-1:2": {"ImageId": "resolve:ssm:/image"}}),
        ),
        ("version-gone", BLOCKS, "group ng", lambda v: replace(v, versions_gone=frozenset({"lt-1:2"}))),
        ("image-gone", BLOCKS, "group ng", image("ami-2", gone="ami-2")),
        (
            "image-gone",
            BLOCKS,
            "group ng",
            lambda v: replace(image("resolve:ssm:/image", gone="ami-9")(v), images_now={"lt-1:2": "ami-9"}),
        ),
        ("kubelet-newer", BLOCKS, "group ng", beside_a_new_node("v1.32.0-eks-1")),
        ("kubelet-too-old", NOTE, "group ng", beside_a_new_node("v1.27.0-eks-1")),
        (
            "karpenter-node",
            BLOCKS,
            "node node-1",
            lambda v: replace(v, nodes=(replace(NODE, labels={"karpenter.sh/nodepool": "x"}),)),
        ),
        ("bare-pod", BLOCKS, "pod shop/web-1", pod(owner=None)),
        ("tolerates-everything", HOLDS, str(WEB), pod(tolerations=(Toleration(operator="Exists"),))),
        ("local-storage", NOTE, str(WEB), pod(local_volumes=("cache",))),
        ("local-volume", BLOCKS, "pod shop/web-1", with_volume(local=True)),
        ("redis-in-memory", BLOCKS, str(WEB), pod(containers=REDIS)),
        ("redis", BLOCKS, str(WEB), pod(containers=REDIS, claims=("data",))),
        ("redis-cache", NOTE, str(WEB), redis_with({PART: CACHE})),
        (
            "two-budgets",
            BLOCKS,
            "pod shop/web-1",
            lambda v: replace(v, budgets=(WEB_BUDGET, replace(WEB_BUDGET, name="b"))),
        ),
        ("budget-never-allows", BLOCKS, "budget shop/web", budget(desired_healthy=3, allowed=0, max_unavailable="0")),
        ("budget-not-counted", HOLDS, "budget shop/web", budget(allowed=0, fault="jobs.batch does not implement it")),
        ("budget-not-counted", HOLDS, "budget shop/web", budget(allowed=0, desired_healthy=3, fault="no")),
        ("budget-exhausted", HOLDS, "budget shop/web", budget(allowed=0, healthy=2)),
        ("single-replica", NOTE, str(WEB), workload(desired=1, ready=1)),
        ("not-ready", HOLDS, str(WEB), workload(ready=2)),
        ("unknown-strategy", BLOCKS, str(WEB), workload(annotations={STRATEGY_ANNOTATION: "recreate"})),
        (
            "restart-without-surge",
            BLOCKS,
            str(WEB),
            workload(annotations={STRATEGY_ANNOTATION: "restart"}, surges=False),
        ),
        (
            "restart-paused",
            BLOCKS,
            str(WEB),
            workload(annotations={STRATEGY_ANNOTATION: "restart"}, paused=True),
        ),
        ("no-autoscaler", NOTE, str(AUTOSCALER.owner), lambda v: replace(v, workloads=v.workloads[:1])),
        (
            "autoscaler-at-zero",
            NOTE,
            str(AUTOSCALER.owner),
            lambda v: replace(v, workloads=(v.workloads[0], replace(AUTOSCALER, desired=0, ready=0))),
        ),
        ("few-addresses", NOTE, "group ng", lambda v: replace(v, free_addresses={"ng": {"a": 1}})),
        ("protected", NOTE, "group ng", group(instances=(replace(GROUP.instances[0], protected=True),))),
        (
            "unbalanced-zones",
            NOTE,
            "group ng",
            group(
                zones=("a", "b"),
                instances=(*GROUP.instances, *(GroupInstance(f"i-{n}", "a", template="lt-1:2") for n in (2, 3))),
            ),
        ),
        ("forged-mark", NOTE, "node node-1", lambda v: replace(v, unproven=(("node-1", NODE_TARGETS),))),
        ("forged-mark", NOTE, "group ng", group(tags=GROUP.tags | {GROUP_MAXIMUM: "many"})),
        (
            "forged-mark",
            NOTE,
            str(AUTOSCALER.owner),
            lambda v: replace(
                v, workloads=(v.workloads[0], replace(AUTOSCALER, annotations={AUTOSCALER_REPLICAS: "-1"}))
            ),
        ),
        (
            "instance-claimed-twice",
            BLOCKS,
            "instance i-1",
            lambda v: replace(v, nodes=(NODE, replace(NODE, name="liar"))),
        ),
        ("unknown-annotation", NOTE, str(WEB), workload(annotations={"eks-rolling.io/stategy": "restart"})),
        ("unknown-annotation", NOTE, str(WEB), workload(annotations={AUTOSCALER_REPLICAS: "9"})),
        (
            "restart-not-permitted",
            NOTE,
            str(WEB),
            lambda v: replace(
                workload(annotations={STRATEGY_ANNOTATION: "restart"})(v),
                not_granted=frozenset({needed_to_restart(WEB)}),
            ),
        ),
        ("cordoned", NOTE, "node node-1", lambda v: replace(v, nodes=(replace(NODE, unschedulable=True),))),
        ("no-such-alarm", BLOCKS, "alarm shop-errors", lambda v: replace(v, alarms_missing=("shop-errors",))),
        (
            "quota",
            HOLDS,
            "quota L-1216C47A",
            lambda v: replace(
                v, quota=VcpuQuota(10, 9), instance_types={"m6i.large": InstanceType("m6i.large", 2, 8 << 30)}
            ),
        ),
        (
            "already-pending",
            NOTE,
            "pod shop/late",
            lambda v: replace(
                v, pods=(*v.pods, replace(WEB_POD, name="late", node="", unschedulable_because="no room"))
            ),
        ),
        ("stuck-ending", HOLDS, "pod shop/web-1", lambda v: replace(pod(deleting_until=100.0)(v), now=161.0)),
        ("long-grace", BLOCKS, "pod shop/web-1", pod(grace_seconds=3600.0)),
        (
            "other-node-actor",
            NOTE,
            "DaemonSet kube-system/kured",
            lambda v: replace(v, workloads=(*v.workloads, Workload(Owner("DaemonSet", "kube-system", "kured")))),
        ),
    ],
)
def test_each_finding_is_named_exactly_with_its_object_and_a_remedy(
    code: str, severity: Severity, subject: str, change: Change
) -> None:
    (finding,) = found(change(CLEAN))
    assert (finding.code, finding.severity, finding.object) == (code, severity, subject)
    assert finding.remedy


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (RollRequest(groups=("ng-z",)), "unknown-group"),
        (RollRequest(nodes=("node-z",)), "unknown-node"),
        (RollRequest(accept=("anything",)), "unknown-code"),
        (RollRequest(accept=("anything:Deployment shop/web",)), "unknown-code"),
        (RollRequest(accept=("redis",)), "accept-for-all"),
    ],
)
def test_a_request_that_names_something_unknown_is_blocked(request_: RollRequest, code: str) -> None:
    assert [f.code for f in found(CLEAN, request_)] == [code]


def test_a_launch_template_may_give_instances_the_tag_instead_of_the_group() -> None:
    tag = {"TagSpecifications[0].Tags[0].Key": "kubernetes.io/cluster/demo"}
    for what, codes in ({"instance": [], "volume": ["tag-not-propagated"]}).items():
        data = {"lt-1:2": {"TagSpecifications[0].ResourceType": what, **tag}}
        view = replace(group(kept_tags=frozenset(GROUP.tags))(CLEAN), template_data=data)
        assert [f.code for f in found(view)] == codes


@pytest.mark.parametrize("how", [{"paused": True}, {"surges": False}, {"surges": False, "paused": True}])
def test_how_a_workload_would_restart_matters_only_where_a_roll_may_restart_it(how: dict[str, bool]) -> None:
    """Without the Role its pods are evicted like any other's."""
    view = workload(annotations={STRATEGY_ANNOTATION: "restart"}, **how)(CLEAN)
    assert [f.severity for f in found(view)] == [BLOCKS]
    evicted = found(replace(view, not_granted=frozenset({needed_to_restart(WEB)})))
    assert [(f.code, f.severity) for f in evicted] == [("restart-not-permitted", NOTE)]


def test_a_restart_excuses_a_budget_that_never_allows() -> None:
    view = workload(annotations={STRATEGY_ANNOTATION: "restart"}, desired=1, ready=1)(
        budget(desired_healthy=3, allowed=0)(CLEAN)
    )
    assert found(view) == []


def test_what_may_be_accepted_becomes_a_note_and_what_may_not_stays_a_blocker() -> None:
    (accepted,) = found(pod(owner=None)(CLEAN), RollRequest(accept=("bare-pod",)))
    assert (accepted.severity, accepted.code) == (NOTE, "bare-pod")
    assert "warm-pool" not in ACCEPTABLE


def test_what_one_node_says_of_its_kubelet_is_accepted_for_its_group_and_for_no_other() -> None:
    claimed = beside_a_new_node("v9.99.0")(CLEAN)
    assert [f.severity for f in found(claimed, RollRequest(accept=("kubelet-newer:group ng",)))] == [NOTE]
    assert [f.severity for f in found(claimed, RollRequest(accept=("kubelet-newer:group other",)))] == [BLOCKS]
    assert BLOCKS in [f.severity for f in found(claimed, RollRequest(accept=("kubelet-newer",)))]


@pytest.mark.parametrize(
    "image",
    [
        "redis:7", "registry:5000/library/redis", "localhost/valkey:8", "bitnami/redis-cluster:7.2",
        "ghcr.io/redis/docker",
        "redis/redis-stack-server", "eqalpha/keydb", "docker.dragonflydb.io/dragonflydb/dragonfly:v1", "apache/kvrocks",
        "ghcr.io/microsoft/garnet",
        "rhel9/redis-6:1", "corp/redis7:latest", "corp/prod-valkey:1", "redislabs/redismod", "redict/redict:7",
        "redislabs/rebloom", "pikadb/pika:v3", "corp/redis-swarm:1", "corp/redis-warm-standby", "corp/redis-latest",
        "corp/web-redis:1", "corp/app-valkey", "corp/api-redis7:2",
    ],
)  # fmt: skip
def test_servers_are_found_by_their_image(image: str) -> None:
    assert [f.code for f in found(pod(containers=(Container(image),))(CLEAN))] == ["redis-in-memory"]


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (Container("platform/kv:1", ("redis-server", "--port", "7000")), "it runs redis-server"),
        (Container("platform/kv:1", ("sh", "-c", "exec /usr/bin/valkey-server /etc/kv.conf")), "it runs valkey-server"),
        (Container("platform/kv:1", ("dragonfly", "--logtostderr")), "it runs dragonfly"),
        (
            Container("platform/kv:1", ("tini", "--", "gosu", "kv", "redis-server", "/etc/kv.conf")),
            "it runs redis-server",
        ),
        (Container("platform/kv:1", ("sh", "-c", "set -e\ncp a b\nexec keydb-server /b")), "it runs keydb-server"),
        (Container("platform/kv:1", ("bash", "-c", "redis-server --save '' & wait")), "it runs redis-server"),
        (Container("platform/kv:1", ("/launcher", "redis-server")), "it runs redis-server"),
        (Container("platform/kv:1", ports=(8080, 6379)), "it listens on port 6379"),
        (Container("platform/kv:1", ports=(7000,), port_names=("tcp-redis",)), "its port is called tcp-redis"),
        (Container("platform/kv:1", ("--dir", "/data", "--appendonly", "yes")), "it is started with --appendonly"),
        (Container("platform/kv:1", ("dumb-init", "--single-child", "redis-server")), "it runs redis-server"),
        (Container("platform/kv:1", ("setpriv", "--reuid", "999", "--nnp", "redis-server")), "it runs redis-server"),
        (Container("platform/kv:1", ("sudo", "-H", "valkey-server")), "it runs valkey-server"),
        (Container("platform/kv:1", ("dotnet", "GarnetServer.dll")), "it runs GarnetServer.dll"),
        (
            Container("bitnami/redis:8", ("bash", "-c", "redis-cli -h m ping; exec /start.sh")),
            "its image is bitnami/redis:8",
        ),
        (Container("platform/watch:1", ports=(26379,)), "it listens on port 26379"),
    ],
)
def test_servers_are_found_by_command_and_port_where_the_image_is_a_mirrors(container: Container, words: str) -> None:
    """S1: whatever it is called, an eviction would take its data."""
    (finding,) = found(pod(containers=(container,))(CLEAN))
    assert finding.reason.startswith(words)


@pytest.mark.parametrize(
    "container",
    [
        Container("redis-exporter:1"),
        Container("oliver006/redis_exporter", ports=(9121,)),
        Container("shop/web:redis"),
        Container("myco/predis-worker"),
        Container("quay.io/opstree/redis-operator:v0.26"),
        Container("redis/redisinsight:2", ports=(5540,)),
        Container("dragonflydb/operator", ports=(6379,)),
        Container("redis.example.com/shop/web"),
        Container("shop/web", ("web", "--cache", "redis://redis-server.shop:6379")),
        Container("shop/web", ("web", "--cache", "redis://redis-server:6379")),
        Container("shop/web", ("web", "--cache", "redis://dragonfly:6379/0")),
        Container("rayproject/ray:2.9", ("ray", "start"), (6379,)),
        Container("envoyproxy/envoy:v1.31", (), (6379,)),
        Container("shop/web", ("python", "-m", "redis_server_probe")),
        Container("shop/web", ("web", "--host", "redis-server")),
        Container("shop/web", ("entrypoint.sh", "--cache", "valkey-server")),
        Container("shop/web", ("sh", "-c", "until nc -z redis-server 6379; do sleep 1; done; exec web")),
        Container("shop/job", ("redis-cli", "-h", "redis-server", "ping")),
        Container("shop/job", ("timeout", "5", "redis-cli", "-h", "dragonfly")),
        Container("shop/web", ("wait-for-it", "redis-server", "--", "web")),
        Container("shop/web", ("tini", "--", "web", "--host", "redis-server")),
        Container("shop/web", ("web", "-addr", "redis-server")),
        Container("shop/web", ("sh", "-c", "pgrep redis-server || for h in redis-server other; do web $h; done")),
        Container("shop/job", ("kubectl", "rollout", "restart", "redis-server")),
        Container("redis:7", ("redis-cli", "-h", "redis-server", "BGSAVE")),
        Container("redis:7", ("sh", "-c", "redis-cli -h store --rdb /tmp/dump && aws s3 cp /tmp/dump s3://kept")),
        Container("corp/redis-backup:1"),
        Container("ghcr.io/joeferner/redis-commander", ports=(8081,)),
        Container("redislabs/k8s-controller:7"),
        Container("myco/redis-cache-warmer"),
        Container("myco/redis-prewarming"),
        Container("myco/redis-warm-up"),
        Container("myco/redis-loadtest"),
        Container("myco/redis-web"),
        Container("myco/redis-app-cache"),
        Container("redis/riot"),
        Container("corp/pika-publisher"),
        Container("shop/web", ports=(9121,), port_names=("redis-exporter",)),
    ],
)
def test_what_only_works_with_redis_is_not_taken_for_it(container: Container) -> None:
    assert found(pod(containers=(container,))(CLEAN)) == []


def test_what_an_eviction_of_an_undeclared_server_would_cost_is_said() -> None:
    """S1."""
    (memory,) = found(pod(containers=REDIS)(CLEAN))
    assert "(3 pods, no volume): an eviction would lose every write that no other server has" in memory.reason
    (volume,) = found(pod(containers=REDIS, claims=("data",))(CLEAN))
    assert "after an outage only what it has saved comes back" in volume.reason
    appends = Container("redis:7", ("redis-server", "--appendonly", "yes"))
    (appended,) = found(pod(containers=(appends,), claims=("data",))(CLEAN))
    assert "what its append-only file holds comes back" in appended.reason


def test_a_volume_to_which_nothing_is_saved_keeps_nothing() -> None:
    """S1."""
    never = Container("redis:7", ("redis-server", "--save", "", "--appendonly", "no"))
    (finding,) = found(pod(containers=(never,), claims=("data",))(CLEAN))
    assert (finding.code, finding.severity) == ("redis-in-memory", BLOCKS)
    assert "saves nothing to its volume" in finding.reason


@pytest.mark.parametrize(
    "container",
    [
        Container("bitnami/valkey-sentinel@sha256:1"),
        Container("redis:7", ("redis-server", "/etc/s.conf", "--sentinel")),
        Container("platform/watch:1", ("redis-sentinel", "/etc/s.conf")),
        Container("platform/watch:1", ("sh", "-c", "exec redis-server /etc/s.conf --sentinel")),
        Container("platform/watch:1", ports=(26379,)),
    ],
)
def test_a_sentinel_has_no_data_and_a_vote(container: Container) -> None:
    (finding,) = found(pod(containers=(container,))(CLEAN))
    assert (finding.code, finding.severity) == ("redis", BLOCKS)
    assert "would take its vote" in finding.reason
    beside = found(pod(containers=(*REDIS, container))(CLEAN))
    assert [f.code for f in beside] == ["redis-in-memory"]


def test_a_sentinel_beside_a_server_in_one_container_has_data() -> None:
    both = Container("redis:7", ("sh", "-c", "redis-sentinel /s.conf & exec redis-server /r.conf"))
    assert [f.code for f in found(pod(containers=(both,))(CLEAN))] == ["redis-in-memory"]


def test_a_server_is_found_by_the_operator_that_owns_it() -> None:
    def owned(kind: str) -> list[str]:
        return [f.reason for f in found(pod(containers=(Container("corp/kv"),), owner=Owner(kind, "shop", "s"))(CLEAN))]

    assert any(reason.startswith("a RedisReplication owns it") for reason in owned("RedisReplication"))
    assert not any("owns it" in reason for reason in owned("RedisExporter"))


def test_an_undeclared_server_is_accepted_by_name_or_by_its_own_annotation() -> None:
    kept = pod(containers=REDIS, claims=("data",))(CLEAN)
    (finding,) = found(kept, RollRequest(accept=(f"redis:{WEB}",)))
    assert (finding.code, finding.severity) == ("redis", NOTE)
    assert found(kept, RollRequest(accept=("redis:Deployment shop/other",)))[0].severity is BLOCKS
    (annotated,) = found(redis_with({ACCEPT: "redis, tolerates-everything"}, claims=("data",))(CLEAN))
    assert annotated.severity is NOTE


def test_a_server_that_would_lose_its_writes_is_refused_unless_it_is_declared_a_cache() -> None:
    """S1: accepted wholesale, one roll lost most of what had been acknowledged."""
    (finding,) = found(redis_with({ACCEPT: "redis, redis-in-memory"})(CLEAN))
    assert (finding.code, finding.severity) == ("redis-in-memory", BLOCKS)
    codes = {f.code: f.severity for f in found(pod(containers=REDIS)(CLEAN), RollRequest(accept=("redis-in-memory",)))}
    assert codes == {"redis-in-memory": BLOCKS, "unknown-code": BLOCKS}


def test_pods_of_a_controller_that_nobody_reads_are_declared_a_cache_by_themselves() -> None:
    clone_set = Owner("CloneSet", "shop", "c")
    (finding,) = found(pod(containers=REDIS, owner=clone_set, annotations={PART: CACHE})(CLEAN))
    assert (finding.code, finding.severity) == ("redis-cache", NOTE)


def test_an_exhausted_budget_says_of_its_pods_what_not_ready_would() -> None:
    view = workload(ready=2)(budget(allowed=0, healthy=2)(CLEAN))
    assert [f.code for f in found(view)] == ["budget-exhausted"]


def test_a_roll_may_pause_a_single_cluster_autoscaler() -> None:
    alone = replace(AUTOSCALER, desired=1, ready=1)
    its = replace(WEB_POD, namespace="kube-system", name="ca-1", owner=alone.owner, labels={})
    view = replace(CLEAN, pods=(WEB_POD, its), workloads=(CLEAN.workloads[0], alone))
    assert found(view) == []
    ignored = Settings(cluster="demo", autoscaler=Autoscaler(mode=AutoscalerMode.IGNORE))
    assert [f.code for f in found(view, settings=ignored)] == ["single-replica"]


def test_pods_on_nodes_that_stay_are_nobodys_concern() -> None:
    assert found(replace(CLEAN, pods=(WEB_POD, replace(WEB_POD, name="bare", owner=None, node="node-9")))) == []


class TestOutdated:
    TARGETS = {"": "lt-1:2", "m6g.large": "lt-2:7"}

    @pytest.mark.parametrize(
        ("template", "kind", "is_outdated"),
        [
            ("lt-1:2", "m6i.large", False),
            ("lt-1:1", "m6i.large", True),
            ("lt-9:2", "m6i.large", True),
            ("lt-2:7", "m6g.large", False),
            ("lt-1:2", "m6g.large", True),
            ("", "m6i.large", True),
        ],
    )
    def test_template_id_and_number_are_compared_and_an_override_concerns_its_own_type_only(
        self, template: str, kind: str, is_outdated: bool
    ) -> None:
        assert outdated(GroupInstance("i", "a", template=template, type=kind), self.TARGETS) is is_outdated

    @pytest.mark.parametrize(("version", "number"), [("$Latest", 2), ("$Default", 1), ("5", 5)])
    def test_latest_and_default_are_resolved_to_numbers(self, version: str, number: int) -> None:
        view = replace(GROUP, template=LaunchTemplate("lt-1", version))
        assert resolve([view], {"lt-1": (2, 1)}) == {"ng": {"": f"lt-1:{number}"}}


class TestReasons:
    """Why a node is replaced; an outdated one needs no other reason."""

    CURRENT = replace(group(instances=(replace(GROUP.instances[0], template="lt-1:2"),))(CLEAN), now=10 * 86400.0)

    def reasons(self, created: float, request: RollRequest, days: int = 0) -> list[str]:
        view = replace(self.CURRENT, nodes=(replace(NODE, created=created),))
        return [c.reason for c in candidates(view, resolve(view.groups, view.versions), request, days)]

    @pytest.mark.parametrize(
        ("created", "days", "reasons"),
        [
            (5 * 86400.0, 0, []),
            (5 * 86400.0, 5, []),
            (5 * 86400.0 - 1, 5, ["it is 5 days old (max_age_days 5)"]),
            (1.0, 3, ["it is 9 days old (max_age_days 3)"]),
            (0.0, 3, []),
            (11 * 86400.0, 3, []),
        ],
    )
    def test_an_age_beyond_the_limit_is_one(self, created: float, days: int, reasons: list[str]) -> None:
        """A node of unknown age has none, nor has one from the future."""
        assert self.reasons(created, RollRequest(), days) == reasons

    @pytest.mark.parametrize(
        ("has", "now", "reasons"),
        [
            ("ami-1", "ami-2", ["its image is ami-1, and its launch template's parameter names ami-2 now"]),
            ("ami-2", "ami-2", []),
            ("", "ami-2", []),
            ("ami-1", "", []),
        ],
    )
    def test_an_image_that_its_parameter_no_longer_names_is_one(self, has: str, now: str, reasons: list[str]) -> None:
        """What is not known is none."""
        images = {"lt-1:2": now} if now else {}
        view = replace(self.CURRENT, images={"i-1": has}, images_now=images)
        found = candidates(view, resolve(view.groups, view.versions), RollRequest())
        assert [c.reason for c in found] == reasons

    def test_force_is_one_for_the_nodes_that_are_asked_for(self) -> None:
        assert self.reasons(1.0, RollRequest(force=True)) == ["the request forces it"]
        assert self.reasons(1.0, RollRequest(force=True, nodes=("node-9",))) == []
        assert self.reasons(1.0, RollRequest(nodes=("node-1",))) == []

    PAIR = replace(
        GROUP,
        instances=tuple(replace(GROUP.instances[0], id=i, template="lt-1:2") for i in ("i-1", "i-2")),
    )
    NEW_NODE = replace(NODE, name="node-2", instance="i-2")
    LAUNCHED = "an earlier roll has launched its replacement i-2"

    def half_done(self, request: RollRequest, days: int = 0, **more: Any) -> dict[str, str]:
        """Instance -> reason where an earlier roll launched i-2 to replace i-1, and left both."""
        given: dict[str, Any] = {
            "groups": (self.PAIR,),
            "nodes": (replace(NODE, created=1.0), replace(self.NEW_NODE, created=9 * 86400.0)),
            "replacements": {"i-1": ("i-2",)},
        }
        view = replace(self.CURRENT, **given | more)
        return {c.instance.id: c.reason for c in candidates(view, resolve(view.groups, view.versions), request, days)}

    def test_that_its_replacement_was_launched_is_one(self) -> None:
        """R2: nothing is half done for ever, whatever the reason was that the earlier roll had."""
        assert self.half_done(RollRequest()) == {"i-1": self.LAUNCHED}
        assert self.half_done(RollRequest(nodes=("node-1",))) == {"i-1": self.LAUNCHED}
        assert self.half_done(RollRequest(nodes=("node-2",))) == {}
        assert self.half_done(RollRequest(), replacements={}) == {}
        assert self.half_done(RollRequest(), groups=(replace(self.PAIR, tags={"eks:nodegroup-name": "ng"}),)) == {}

    def test_an_own_reason_comes_before_that(self) -> None:
        assert self.half_done(RollRequest(), 5) == {"i-1": "it is 9 days old (max_age_days 5)"}
        behind = replace(
            self.PAIR, instances=(replace(self.PAIR.instances[0], template="lt-1:1"), self.PAIR.instances[1])
        )
        assert self.half_done(RollRequest(), groups=(behind,)) == {"i-1": ""}

    def test_a_forced_roll_replaces_no_replacement_that_a_node_of_its_plan_goes_onto(self) -> None:
        """R2: the group would have one instance too many, for good."""
        assert self.half_done(RollRequest(force=True)) == {"i-1": self.LAUNCHED}
        assert self.half_done(RollRequest(force=True, nodes=("i-2",))) == {"i-2": "the request forces it"}

    def test_a_node_whose_replacement_is_the_one_to_be_replaced_stays(self) -> None:
        """Its version was taken back, or its image: the spare instance goes."""
        back = replace(
            self.PAIR, instances=(self.PAIR.instances[0], replace(self.PAIR.instances[1], template="lt-1:3"))
        )
        assert self.half_done(RollRequest(), groups=(back,)) == {"i-2": ""}
        assert self.half_done(RollRequest(nodes=("node-1",)), groups=(back,)) == {}
        images, now = {"i-1": "ami-1", "i-2": "ami-2"}, {"lt-1:2": "ami-1"}
        assert list(self.half_done(RollRequest(), images=images, images_now=now)) == ["i-2"]

    @pytest.mark.parametrize(("old", "new"), [("i-1", "i-2"), ("i-2", "i-1")])
    def test_where_a_third_version_outdates_both_the_spare_one_goes_last(self, old: str, new: str) -> None:
        """R2: nothing is launched for it, which the plan says."""
        third = replace(self.PAIR, instances=tuple(replace(i, template="lt-1:0") for i in self.PAIR.instances))
        both = replace(self.CURRENT, groups=(third,), nodes=(NODE, self.NEW_NODE), replacements={old: (new,)})
        plan = decide(both, RollRequest(), SETTINGS)
        assert [(c.instance.id, c.place) for c in plan.chosen] == [(old, ""), (new, old)]
        text = plan_text(write(plan, both, RollRequest(), SETTINGS))
        assert text.count(f"a spare replacement for {old}: it goes, and none comes") == 1
        assert "Replacements: 1 in " in text

    def test_what_only_ends_a_spare_one_needs_no_address_no_vcpu_and_no_room(self) -> None:
        """R2: with no address left, the plan that would give one back must not be blocked."""
        third = replace(self.PAIR, instances=tuple(replace(i, template="lt-1:0") for i in self.PAIR.instances))
        both = replace(self.CURRENT, groups=(third,), nodes=(NODE, self.NEW_NODE), replacements={"i-1": ("i-2",)})
        full = replace(
            both,
            free_addresses={third.name: {i.zone: 0 for i in third.instances}},
            instance_types={i.type: InstanceType(i.type, 2, 8 << 30) for i in third.instances},
        )
        chosen = decide(both, RollRequest(), SETTINGS).chosen
        spare = [c for c in chosen if c.place]
        assert [len(chosen), len(spare)] == [2, 1]
        found = {n: [f.code for f in capacity_findings(full, some, 1)] for n, some in ((2, chosen), (1, spare))}
        assert ["no-addresses" in found[n] for n in (2, 1)] == [True, False]
        assert [vcpus_needed(full, some, 2) for some in (chosen, spare)] == [2, 0]
        plan = replace(decide(both, RollRequest(), SETTINGS), chosen=tuple(spare))
        document = write(plan, full, RollRequest(), SETTINGS)
        assert document.zones == ()
        assert [(g.at_once, q.needed) for g, q in zip(document.groups, document.quotas, strict=True)] == [(0, 0)]

    def test_what_may_come_in_another_zone_needs_vcpus_too(self) -> None:
        """Of a group whose zone AWS chooses: two instances beside the replacement, each as large as its largest."""
        kinds = {
            "m6i.large": InstanceType("m6i.large", 2, 8 << 30),
            "m6i.xlarge": InstanceType("m6i.xlarge", 4, 1 << 34),
        }
        members = tuple(
            GroupInstance(f"i-{zone}", zone, type=kind, template="lt-1:1")
            for zone, kind in (("a", "m6i.large"), ("b", "m6i.xlarge"), ("c", "m6i.large"))
        )
        spread = replace(GROUP, zones=("a", "b", "c"), instances=members)
        seen = replace(CLEAN, instance_types=kinds)

        def needed(group: Group) -> int:
            return vcpus_needed(seen, [Candidate(i, group, None) for i in group.instances], 1)

        assert needed(spread) == 4
        assert needed(replace(spread, mixed_purchasing=True)) == 4 + 2 * 4

    def test_a_node_whose_replacement_is_unfit_stays(self) -> None:
        """A person drains that one."""
        unfit = replace(self.NEW_NODE, unschedulable=True, annotations={NODE_UNFIT: "true"})
        assert self.half_done(RollRequest(), nodes=(NODE, unfit)) == {}
        assert self.half_done(RollRequest(force=True), nodes=(NODE, unfit)).keys() == {"i-1", "i-2"}

    @pytest.mark.parametrize(
        ("mark", "asked"),
        [
            ("desired:3:raised@90", True),
            ("desired:3@90", False),
            (f"{'0' * 20}-{'1' * 20}-1@90", False),
            ("desired:3:raised@90 ", False),
        ],
    )
    def test_that_an_instance_is_owed_for_it_is_one(self, mark: str, *, asked: bool) -> None:
        """R2: a restore keeps such a request on record for the next roll. T1: only one that a roll made."""
        nodes, reason = (
            (replace(NODE, annotations={NODE_LAUNCH: mark}),),
            "an earlier roll has asked for its replacement",
        )
        said = self.half_done(RollRequest(), nodes=nodes, replacements={})
        assert said == ({"i-1": reason} if asked else {})
        forged = ((NODE.name, NODE_LAUNCH),)
        assert self.half_done(RollRequest(), nodes=nodes, replacements={}, unproven=forged) == {}

    @pytest.mark.parametrize(
        ("old", "new", "tag", "state", "found"),
        [
            ("InService", "InService", "i-1", "running", True),
            ("InService", "Pending", "i-1", "pending", True),
            ("InService", "InService", "i-1", "shutting-down", False),
            ("InService", "Terminating:Wait", "i-1", "running", False),
            ("Terminating", "InService", "i-1", "running", False),
            ("InService", "InService", "i-9", "running", False),
            ("InService", "InService", "i-2", "running", False),
            ("InService", "InService", "surplus", "running", False),
            ("InService", "InService", "", "running", False),
        ],
    )
    def test_both_live_in_one_group_while_a_replacement_is_half_done(
        self, old: str, new: str, tag: str, state: str, *, found: bool
    ) -> None:
        members = tuple(replace(i, lifecycle=said) for i, said in zip(self.PAIR.instances, (old, new), strict=True))
        states = {
            "i-1": InstanceState("i-1", "running"),
            "i-2": InstanceState("i-2", state, {INSTANCE_REPLACES: tag} if tag else {}),
        }
        assert begun([replace(self.PAIR, instances=members)], states) == ({"i-1": ("i-2",)} if found else {})
        apart = [replace(self.PAIR, name=m.id, instances=(m,)) for m in members]
        assert begun(apart, states) == {}

    def test_instances_that_ec2_does_not_show_are_no_pair(self) -> None:
        known = {"i-2": InstanceState("i-2", "running", {INSTANCE_REPLACES: "i-1"})}
        assert begun([self.PAIR], known) == {}

    def test_an_outdated_node_has_none_beside_its_version(self) -> None:
        asked = RollRequest(force=True)
        assert [c.reason for c in candidates(CLEAN, resolve(CLEAN.groups, CLEAN.versions), asked, 1)] == [""]


class TestPlan:
    def test_all_blockers_are_answered_at_once(self) -> None:
        view = replace(pod(owner=None)(CLEAN), groups=(replace(GROUP, warm_pool=True, refresh_running=True),))
        plan = decide(view, RollRequest(), SETTINGS)
        assert plan.outcome is PlanOutcome.BLOCKED
        assert {f.code for f in plan.findings} == {"bare-pod", "instance-refresh", "warm-pool"}
        assert all(str(f) in plan.reason for f in plan.findings)

    def test_nothing_outdated_is_nothing_to_do(self) -> None:
        plan = decide(replace(CLEAN, versions={"lt-1": (1, 1)}), RollRequest(), SETTINGS)
        assert (plan.outcome, plan.reason) == (PlanOutcome.NOTHING, "no node is outdated")

    def test_a_dry_run_says_what_would_be_replaced(self) -> None:
        plan = decide(CLEAN, RollRequest(dry_run=True), SETTINGS)
        assert (plan.outcome, plan.reason) == (PlanOutcome.DRY_RUN, "1 outdated node would be replaced")

    def test_instances_on_their_way_out_are_not_planned(self) -> None:
        leaving = (replace(GROUP.instances[0], lifecycle="Terminating"),)
        assert decide(group(instances=leaving)(CLEAN), RollRequest(), SETTINGS).chosen == ()
