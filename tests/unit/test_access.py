"""What is looked at before a roll is what the files that ship grant."""

from dataclasses import replace

from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.redis import Login
from eks_rolling.plan.permissions import Verb, needed, needed_for_notes, needed_to_migrate, needed_to_restart
from eks_rolling.redis.groups import Part, PartSet, RedisGroup
from eks_rolling.settings import Settings
from eks_rolling.steps.check_permissions import decide
from tests.permissions.granted import CLUSTER_FILE, rules

CACHE = RedisGroup(
    "default",
    "cache",
    "mymaster",
    (PartSet(Owner("StatefulSet", "default", "redis"), Part.MASTER, ("redis-0",), 6379, Login("default")),),
)
WEB = Owner("Deployment", "default", "web")
RESTART = "eks-rolling-restart"
ASKED_BY_THEMSELVES = {"eks-rolling-check", "eks-rolling-redis-look"}
"""Groups that the check and the plan are in, which need all that these may."""


def test_what_is_needed_is_what_the_files_grant_with_their_example_names() -> None:
    granted = {Verb(r.group, r.verb, r.api_group, r.resource, r.namespace, r.name) for r in rules()}
    granted = {verb for verb in granted if verb.group not in ASKED_BY_THEMSELVES}
    asked = {
        *needed(Settings(cluster="demo")),
        *needed_for_notes(),
        *needed_to_migrate(CACHE),
        replace(needed_to_restart(WEB), name=""),
    }
    assert not granted - asked, (
        f"lambdas/eks_rolling/plan/permissions.py lacks {', '.join(map(repr, sorted(granted - asked)))}"
    )
    assert not asked - granted, (
        f"lambdas/eks_rolling/plan/permissions.py has, and no file grants, {', '.join(map(repr, asked - granted))}"
    )


def test_without_a_redis_group_only_the_clusters_file_counts() -> None:
    of_cluster = {(r.group, r.verb, r.resource) for r in rules() if r.file == CLUSTER_FILE}
    assert {(v.group, v.verb, v.resource) for v in needed(Settings(cluster="demo"))} < of_cluster


def test_settings_say_where_the_lock_and_cluster_autoscaler_are() -> None:
    settings = Settings.parse(
        {"cluster": "demo", "namespace": "locks", "autoscaler": {"namespace": "scaling", "deployment": "scaler"}}
    )
    verbs = set(map(str, needed(settings)))
    assert {"update leases eks-rolling in locks", "patch deployments scaler in scaling"} <= verbs


def test_all_that_is_missing_is_said_at_once_by_group_with_the_remedy() -> None:
    missing = [
        Verb("eks-rolling-nodes", "patch", "", "nodes"),
        Verb("eks-rolling-lock", "get", "coordination.k8s.io", "leases", "kube-system", "eks-rolling"),
        Verb("eks-rolling-lock", "create", "coordination.k8s.io", "leases", "kube-system"),
    ]
    assert decide(missing) == (
        "Permissions are missing: eks-rolling-lock may not get leases eks-rolling in kube-system, create leases in "
        "kube-system; eks-rolling-nodes may not patch nodes. Apply deploy/rbac.yaml."
    )
    assert decide([]) == ""


def test_nothing_writes_workloads_in_all_namespaces_and_in_the_locks_only_cluster_autoscaler() -> None:
    kinds = {"daemonsets", "deployments", "jobs", "pods", "replicasets", "statefulsets"}
    writes = [r for r in rules() if r.file == CLUSTER_FILE and r.verb not in {"get", "list", "watch"}]
    assert [(r.resource, r.verb, r.namespace, r.name) for r in writes if r.resource in kinds] == [
        ("deployments", "patch", "kube-system", "cluster-autoscaler")
    ]
    assert all("*" not in {r.verb, r.resource, r.api_group} for r in rules())
