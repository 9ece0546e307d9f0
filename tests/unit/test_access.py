"""What is looked at before a roll is what the files that ship grant."""

from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.redis import Login
from eks_rolling.plan.permissions import Verb, needed
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
ASKED_BY_THEMSELVES = {"eks-rolling-check", "eks-rolling-redis-look"}
"""Groups that the check and the plan are in, which need all that these may."""


def test_what_is_needed_is_what_the_files_grant_with_their_example_names() -> None:
    granted = {Verb(r.group, r.verb, r.api_group, r.resource, r.namespace, r.name) for r in rules()}
    granted = {verb for verb in granted if verb.group not in ASKED_BY_THEMSELVES}
    asked = set(needed(Settings(cluster="demo"), [CACHE]))
    assert not granted - asked, (
        f"lambdas/eks_rolling/plan/permissions.py lacks {', '.join(map(repr, sorted(granted - asked)))}"
    )
    assert not asked - granted, (
        f"lambdas/eks_rolling/plan/permissions.py has, and no file grants, {', '.join(map(repr, asked - granted))}"
    )


def test_without_a_redis_group_only_the_clusters_file_counts() -> None:
    of_cluster = {(r.group, r.verb, r.resource) for r in rules() if r.file == CLUSTER_FILE}
    assert {(v.group, v.verb, v.resource) for v in needed(Settings(cluster="demo"), [])} < of_cluster


def test_settings_say_where_the_lock_and_cluster_autoscaler_are() -> None:
    settings = Settings.parse(
        {"cluster": "demo", "namespace": "locks", "autoscaler": {"namespace": "scaling", "deployment": "scaler"}}
    )
    verbs = set(map(str, needed(settings, [])))
    assert {"update leases eks-rolling in locks", "patch deployments scaler in scaling"} <= verbs


def test_all_that_is_missing_is_said_at_once_by_group_with_the_remedy() -> None:
    missing = [
        Verb("eks-rolling-nodes", "patch", "", "nodes"),
        Verb("eks-rolling-lock", "get", "coordination.k8s.io", "leases", "kube-system", "eks-rolling"),
        Verb("eks-rolling-lock", "create", "coordination.k8s.io", "leases", "kube-system"),
    ]
    assert decide(missing) == (
        "Permissions are missing: eks-rolling-lock may not get leases eks-rolling in kube-system, create leases in "
        "kube-system; eks-rolling-nodes may not patch nodes. Apply deploy/rbac.yaml, and deploy/redis-rbac.yaml for "
        "each Redis group."
    )
    assert decide([]) == ""
