"""A cluster as they grow, rolled once under traffic and judged; the plan names what is in it [N1 to N5]."""

import json
from pathlib import Path

import pytest

from lab import demo
from tests.e2e.demonstration import demonstrated

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("real")]

NAMED = {
    ("batch-pod", "Job shop/closing"),
    ("cron-job", "CronJob shop/tick"),
    ("eviction-admission", "ValidatingAdmissionPolicy evictions"),
    ("idle-group", "group spare"),
    ("ip-targets", "DaemonSet shop/edge"),
    ("launch-configuration", "group legacy"),
    ("lifecycle-hook", "lifecycle hook drain of workers-b"),
    ("may-preempt", "Deployment shop/burst"),
    ("placeholder", "Deployment shop/placeholder"),
    ("redis-no-persistence", "Redis group shop/cache"),
    ("several-types", "group workers-a"),
    ("serving-daemonset", "DaemonSet shop/edge"),
    ("serving-daemonset", "DaemonSet shop/ingress"),
    ("single-replica", "Deployment kube-system/cluster-autoscaler"),
    ("single-replica", "Deployment shop/cache-operator"),
    ("single-replica", "StatefulSet shop/db"),
    ("uncounted-controller", "Cache shop/sessions"),
}
"""What the plan has to tell, each once, of what is in the way or special there; and nothing else."""


@pytest.mark.long
def test_a_cluster_as_they_grow_is_rolled_and_clients_and_jobs_lose_nothing(tmp_path: Path) -> None:
    code, result, said = demonstrated(tmp_path, "real")
    assert code == (0 if demo.succeeded(result) else 1)
    # How long a client waits depends on what else is on these cores.
    assert demo.succeeded(result | {"http": result["http"] | {"longest_gap_seconds": 0}})
    assert (result["http"]["failed"], result["failed_jobs"], result["meanwhile"]["missed"]) == (0, [], [])
    plan = json.loads((tmp_path / "real" / "plan.json").read_text())
    assert all(finding["severity"] != "blocks" and finding["remedy"] for finding in plan["findings"])
    told = [(finding["code"], finding["object"]) for finding in plan["findings"]]
    assert len(told) == len(set(told))
    # One of the CronJob's may be at work, too.
    assert {each for each in told if not each[1].startswith("Job shop/tick-")} == NAMED
    # Whoever watches has read it, too.
    for finding in plan["findings"]:
        assert said.count(f"{finding['object']}: {finding['reason']}  {finding['code']}") == 1
        assert finding["remedy"] in said
    assert any("cluster-autoscaler raised spare" in each for each in result["meanwhile"]["happened"])
    # Of the operator's pods, which no controller of Kubernetes counts, one was away at a time.
    assert result["max_unavailable_seen"]["sessions"] == 1
