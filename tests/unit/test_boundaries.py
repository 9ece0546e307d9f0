"""Settings, requests, events and answers: what crosses the application's edge."""

import json
from pathlib import Path
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import _pod, _surges, _workload, instance_of, read_eviction
from eks_rolling.clients.protocols import EvictionStatus
from eks_rolling.documents.failure import explain
from eks_rolling.documents.report import HoldRecord, NodePage, StepRecord
from eks_rolling.errors import AccessDenied, BadRequest, Transient
from eks_rolling.observed.kubernetes import Container, Lease, Owner
from eks_rolling.payloads import LONGEST_BACKOFF, NodeOutcomeTask, ReportTask, RollRequest, StepResult, backoff
from eks_rolling.report.page import page
from eks_rolling.report.timeline import steps_of
from eks_rolling.roll import fence
from eks_rolling.roll.lock import Held, decide
from eks_rolling.runtime import connected_clients
from eks_rolling.settings import ENVIRONMENT_VARIABLE, LONGEST_SILENCE, SHORTEST_LEASE, Settings
from eks_rolling.steps import record_node, report
from eks_rolling_config.file import check


class TestSettings:
    def test_every_problem_is_reported_at_once_with_what_is_known_there(self) -> None:
        document = {"surge": 0, "autoscaler": {"mode": "sleep"}, "deadlines": {"evct": 1}}
        with pytest.raises(BadRequest) as raised:
            Settings.parse(document)
        message = str(raised.value)
        assert "4 problems" in message
        assert "cluster is missing" in message
        assert "surge: input should be greater than or equal to 1, not 0" in message
        assert "autoscaler.mode: input should be 'pause', 'annotate' or 'ignore', not 'sleep'" in message
        assert "deadlines.evct is not a known field (known: approval, attach_master, await_load" in message

    def test_checks_are_asked_by_https_and_fit_a_look(self) -> None:
        page = {"url": "https://shop.example/health", "timeout_seconds": 20}
        assert Settings.parse({"cluster": "demo", "checks": [page] * 3}).checks[0].status == 200
        with pytest.raises(BadRequest, match=r"together \(80 s\) must be 60 s at most"):
            Settings.parse({"cluster": "demo", "checks": [page] * 4})
        with pytest.raises(BadRequest, match=r"checks.0.url: string should match pattern"):
            Settings.parse({"cluster": "demo", "checks": [{"url": "http://shop.example/health"}]})

    def test_a_gate_that_ends_before_the_bake_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="must be longer than bake_seconds"):
            Settings.parse({"cluster": "demo", "bake_seconds": 100, "deadlines": {"health_gate": 100}})

    @pytest.mark.parametrize("step", ["replace_unjoined", "evict"])
    def test_a_step_that_ends_before_a_node_counts_as_dead_is_refused(self, step: str) -> None:
        document = {"cluster": "demo", "dead_nodes": {"replace": True, "silent_seconds": 3000}, "batch_seconds": 60}
        longer = {"replace_unjoined": 3001, "evict": 3001}
        assert Settings.parse({**document, "deadlines": longer}).dead_nodes.silent_seconds == 3000
        with pytest.raises(
            BadRequest, match=rf"deadlines.{step} \(3000\) must be longer than dead_nodes.silent_seconds"
        ):
            Settings.parse({**document, "deadlines": longer | {step: 3000}})
        unused = document | {"dead_nodes": {"silent_seconds": 3000}, "deadlines": longer | {step: 3000}}
        assert not Settings.parse(unused).dead_nodes.replace

    def test_they_survive_the_way_through_a_functions_environment(self) -> None:
        settings = Settings(cluster="demo", alarms=("a", "b"))
        environment = {ENVIRONMENT_VARIABLE: settings.model_dump_json()}
        assert Settings.from_environment(environment) == settings

    def test_what_a_deployment_knows_joins_what_lies_beside_the_code(self, tmp_path: Path) -> None:
        file = tmp_path / "settings.json"
        file.write_text(json.dumps({"cluster": "demo", "surge": 3, "bucket": ""}))
        environment = {ENVIRONMENT_VARIABLE: json.dumps({"bucket": "reports-1"})}
        assert Settings.from_environment(environment, file) == Settings(cluster="demo", surge=3, bucket="reports-1")

    def test_a_function_without_them_says_what_to_do(self) -> None:
        with pytest.raises(BadRequest, match="EKS_ROLLING_SETTINGS is not set; deploy the stack again"):
            Settings.from_environment({})


class TestRequest:
    def test_an_event_asks_for_everything_and_says_who_it_was(self) -> None:
        event = {
            "id": "e-1",
            "detail-type": "AWS API Call via CloudTrail",
            "source": "aws.ec2",
            "detail": {"eventName": "CreateLaunchTemplateVersion"},
        }
        assert RollRequest.from_input(event) == RollRequest(trigger="CreateLaunchTemplateVersion (e-1)")

    @pytest.mark.parametrize("raw", [None, [], "roll", 7])
    def test_anything_but_an_object_is_refused(self, raw: Any) -> None:
        with pytest.raises(BadRequest, match="must be a JSON object"):
            RollRequest.from_input(raw)


class TestAnswers:
    @pytest.mark.parametrize(("seconds", "whole"), [(0.1, 1), (1, 1), (1.2, 2), (5000, 900)])
    def test_waits_are_whole_seconds_that_a_wait_state_takes(self, seconds: float, whole: int) -> None:
        assert StepResult.wait("why", seconds).wait_seconds == whole

    @pytest.mark.parametrize(("waited", "seconds"), [(0, 1), (5, 1), (60, 6), (3600, 15), (7200, 30), (100_000, 60)])
    def test_looks_become_rarer_the_longer_nothing_happens(self, waited: float, seconds: float) -> None:
        assert backoff(waited) == seconds

    def test_a_lease_that_a_deployment_may_have_outlasts_the_longest_wait_and_a_function_after_it(self) -> None:
        """R4: the look before a wait leaves a lock alone of which a quarter has passed."""
        assert LONGEST_SILENCE == LONGEST_BACKOFF + fence.USUAL_SECONDS
        told = check(f"clusters: [{{cluster: a, lease_seconds: {SHORTEST_LEASE}}}]")[1]
        assert told == []
        name, duration = "kube-system/eks-rolling", float(SHORTEST_LEASE)
        lease = Lease(name, "roll-1", 0.0, duration)
        now = duration / 4 - 1
        assert isinstance(decide(lease, "roll-1", now, name, duration), Held)
        assert not lease.expired(now + LONGEST_SILENCE)
        (problem,) = check(f"clusters: [{{cluster: a, lease_seconds: {SHORTEST_LEASE - 1}}}]")[1]
        assert problem.where == "clusters[0].lease_seconds"


class TestEviction:
    """The answers as a real API server gives them (contract tests see them there)."""

    @staticmethod
    def read(status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        return read_eviction(status, answer, headers or {}, lambda *_: Transient("a fault"))

    def test_a_refusal_carries_the_budgets_own_words(self) -> None:
        causes = [{"reason": "DisruptionBudget", "message": "needs 2 healthy pods and has 2 currently"}]
        answer = {"message": "Cannot evict pod", "details": {"causes": causes}}
        eviction = self.read(429, answer)
        assert (eviction.status, eviction.reason) == (EvictionStatus.REFUSED, causes[0]["message"])
        assert eviction.retry_after == 0

    def test_retry_after_is_kept_in_seconds(self) -> None:
        assert self.read(429, {"message": "being processed"}, {"Retry-After": "10"}).retry_after == 10

    def test_a_pod_that_is_none_is_gone(self) -> None:
        """One of another UID: tests/unit/test_eviction_answers.py."""
        assert self.read(404, {}).status is EvictionStatus.GONE

    def test_two_budgets_are_told_from_a_broken_server(self) -> None:
        two = {"message": "This pod has more than one PodDisruptionBudget, which the eviction subresource ..."}
        assert self.read(500, two).status is EvictionStatus.FORBIDDEN_BY_TWO_BUDGETS
        with pytest.raises(Transient):
            self.read(500, {"message": "etcd is away"})


class TestReading:
    @pytest.mark.parametrize(
        ("provider_id", "instance"),
        [("aws:///eu-central-1a/i-0abc", "i-0abc"), ("kind://docker/x", ""), ("", ""), ("aws:///a/fargate-1", "")],
    )
    def test_nodes_are_told_by_their_provider_id(self, provider_id: str, instance: str) -> None:
        assert instance_of(provider_id) == instance

    def test_a_replica_sets_pod_belongs_to_its_deployment(self) -> None:
        reference = {"kind": "ReplicaSet", "name": "web-7d4b9", "controller": True}
        metadata = {"namespace": "shop", "name": "web-7d4b9-x", "uid": "u", "ownerReferences": [reference]}
        labelled = metadata | {"labels": {"pod-template-hash": "7d4b9"}}
        assert _pod({"metadata": labelled, "spec": {}}).owner == Owner("Deployment", "shop", "web")
        assert _pod({"metadata": metadata, "spec": {}}).owner == Owner("ReplicaSet", "shop", "web-7d4b9")

    @pytest.mark.parametrize(
        ("kind", "version", "read_as"),
        [
            ("StatefulSet", "apps/v1", "StatefulSet"),
            ("StatefulSet", "apps.kruise.io/v1beta1", "StatefulSet.apps.kruise.io"),
            ("ReplicaSet", "extensions/v1beta1", "ReplicaSet"),
            ("Job", "batch/v1", "Job"),
            ("Job", "batch.volcano.sh/v1alpha1", "Job.batch.volcano.sh"),
            ("CloneSet", "apps.kruise.io/v1alpha1", "CloneSet"),
            ("DaemonSet", "apps.kruise.io/v1alpha1", "DaemonSet"),
            ("ReplicationController", "v1", "ReplicationController"),
        ],
    )
    def test_a_kind_that_only_bears_the_name_of_one_of_kubernetes_own_is_told_apart(
        self, kind: str, version: str, read_as: str
    ) -> None:
        """N1: its object and its size are not to be had from apps/v1, so its pods are counted."""
        reference = {"kind": kind, "apiVersion": version, "name": "db", "controller": True}
        metadata = {"namespace": "shop", "name": "db-0", "uid": "u", "ownerReferences": [reference]}
        owner = _pod({"metadata": metadata, "spec": {}}).owner
        assert owner == Owner(read_as, "shop", "db")
        assert Owner.parse(str(owner)) == owner

    @pytest.mark.parametrize(
        "odd",
        [
            {"name": "../../nodes"},
            {"name": "DB"},
            {"name": "n" * 254},
            {"kind": "a b"},
            {"kind": "K" * 64},
            {"apiVersion": "a b/v1"},
        ],
    )
    def test_a_controller_that_no_object_can_be_is_none(self, odd: dict[str, str]) -> None:
        """T1: the API server takes any text for it."""
        reference = {"kind": "Deployment", "apiVersion": "apps/v1", "name": "db", "controller": True} | odd
        metadata = {"namespace": "shop", "name": "db-0", "uid": "u", "ownerReferences": [reference]}
        assert _pod({"metadata": metadata, "spec": {}}).owner is None

    def test_a_native_sidecar_is_one_of_a_pods_containers_and_what_only_runs_first_is_not(self) -> None:
        """S1: a server in one has data."""
        port = {"name": "redis", "containerPort": 6379}
        sidecar = {"image": "redis:7", "args": ["--save", ""], "ports": [port], "restartPolicy": "Always"}
        spec = {"containers": [{"image": "web"}], "initContainers": [{"image": "redis:6"}, sidecar]}
        metadata = {"namespace": "shop", "name": "web", "uid": "u"}
        web, server = _pod({"metadata": metadata, "spec": spec}).containers
        assert web.image == "web"
        assert server == Container("redis:7", ("--save", ""), (6379,), ("redis",))

    @pytest.mark.parametrize(
        ("replicas", "rolling", "surges"),
        [(1, {}, True), (4, {}, False), (4, {"maxUnavailable": 0}, True), (1, {"maxSurge": 0}, False)],
    )
    def test_whether_a_restart_surges_follows_the_deployments_rounding(
        self, replicas: int, rolling: dict[str, int], surges: bool
    ) -> None:
        assert _surges("Deployment", {"replicas": replicas, "strategy": {"rollingUpdate": rolling}}) is surges
        assert not _surges("Deployment", {"replicas": replicas, "strategy": {"type": "Recreate"}})

    def test_a_status_that_lags_behind_the_spec_is_not_settled(self) -> None:
        metadata = {"namespace": "s", "name": "w", "uid": "u", "resourceVersion": "1", "generation": 2}
        item = {"metadata": metadata, "spec": {"replicas": 1}, "status": {"observedGeneration": 1, "readyReplicas": 1}}
        assert not _workload("Deployment", item).all_ready

    @pytest.mark.parametrize(
        ("revisions", "updated", "pending"),
        [(("a", "a"), 0, False), (("a", "b"), 1, True), (("a", "b"), 3, False), ((None, None), 0, False)],
    )
    def test_a_stateful_set_is_pending_until_all_pods_have_its_template(
        self, revisions: tuple[str, str], updated: int, *, pending: bool
    ) -> None:
        """With OnDelete the two revisions stay apart for ever."""
        metadata = {"namespace": "s", "name": "w", "uid": "u", "resourceVersion": "1"}
        status = {"currentRevision": revisions[0], "updateRevision": revisions[1], "updatedReplicas": updated}
        item = {"metadata": metadata, "spec": {"replicas": 3}, "status": {**status, "replicas": 3}}
        assert _workload("StatefulSet", item).pending is pending

    @pytest.mark.parametrize(("ordinals", "first"), [({}, 0), ({"ordinals": {}}, 0), ({"ordinals": {"start": 3}}, 3)])
    def test_a_stateful_sets_pods_are_counted_from_where_it_says(self, ordinals: dict[str, Any], first: int) -> None:
        metadata = {"namespace": "s", "name": "w", "uid": "u", "resourceVersion": "1"}
        assert _workload("StatefulSet", {"metadata": metadata, "spec": {"replicas": 2, **ordinals}}).first == first


def entered(name: str, when: float) -> dict[str, Any]:
    return {"type": "TaskStateEntered", "timestamp": when, "stateEnteredEventDetails": {"name": name}}


def exited(name: str, when: float, **answer: Any) -> dict[str, Any]:
    details = {"name": name, "output": json.dumps(answer)}
    return {"type": "TaskStateExited", "timestamp": when, "stateExitedEventDetails": details}


HISTORY = [
    entered("Evict pods", 10),
    exited("Evict pods", 11, status="wait", reason="budget", output={"refused": 1}),
    entered("Evict pods", 14),
    exited("Evict pods", 15, status="wait", reason="budget"),
    entered("Evict pods", 20),
    exited("Evict pods", 21, status="wait", reason="ending", output={"evicted": 2}),
    entered("Evict pods", 23),
    exited("Evict pods", 24, status="done", reason="empty"),
    entered("Terminate the instance", 24),
    exited("Terminate the instance", 30, status="done", reason="gone"),
]


class TestReport:
    def test_looks_of_one_step_are_folded_into_holds_by_reason(self) -> None:
        evict, terminate = steps_of(HISTORY)
        assert (evict.started, evict.ended, len(evict.answers)) == (10, 24, 4)
        assert [(h.reason, h.since, h.seconds) for h in evict.holds] == [("budget", 11, 9), ("ending", 21, 2)]
        assert terminate.last == "gone"

    @pytest.mark.parametrize(
        ("failure", "text"),
        [
            (None, ""),
            ({"Error": "Refused", "Cause": json.dumps({"errorType": "Refused", "errorMessage": "No."})}, "No."),
            (
                {"Error": "KeyError", "Cause": json.dumps({"errorType": "KeyError", "errorMessage": "'x'"})},
                "KeyError: 'x'",
            ),
            ({"Error": "States.TaskFailed", "Cause": json.dumps({"Error": "Refused", "Cause": "No."})}, "No."),
            ({"Error": "States.Timeout", "Cause": ""}, "States.Timeout"),
            ({"Error": "Lambda.Unknown", "Cause": "it broke"}, "Lambda.Unknown: it broke"),
        ],
    )
    def test_failures_are_explained_in_the_words_of_whoever_raised_them(
        self, failure: dict[str, Any] | None, text: str
    ) -> None:
        assert explain(failure) == text

    def test_a_nodes_page_counts_what_was_evicted_and_refused(self) -> None:
        task = NodeOutcomeTask(
            roll="r", instance="i-1", node="n", group="g", replacement="i-2", replacement_node="n2", execution="arn"
        )
        page = record_node.record(task, steps_of(HISTORY))
        assert (page.outcome, page.evicted, page.refused) == ("replaced", 2, 1)

    def test_what_was_done_to_redis_is_told_in_order_over_all_nodes(self) -> None:
        def node(name: str, group: str, *holds: tuple[str, float]) -> NodePage:
            said = tuple(HoldRecord(reason=reason, since=since, seconds=1.0) for reason, since in holds)
            moving = StepRecord(
                name="Move the replica", started=0, ended=9, redis=group, holds=said, result=said[-1].reason
            )
            switch = StepRecord(
                name="Fail over to a replica", started=9, ended=9.5, redis=group, result="n-1 is master"
            )
            quiet = StepRecord(
                name="Evict pods", started=0, ended=9, holds=(HoldRecord(reason="budget", since=0, seconds=1),)
            )
            return NodePage(node=name, instance="i-1", group="g", steps=(moving, quiet, switch))

        nodes = [node("n1", "shop/cache", ("moves", 5.0), ("synchronizes, 7 bytes left", 9.0))]
        nodes.append(node("n2", "shop/cache", ("moves", 7.0)))
        told = [(each.node, each.step, each.reason) for each in report.redis_timeline(nodes)]
        assert told == [
            ("n1", "Move the replica", "moves"),
            ("n2", "Move the replica", "moves"),
            ("n1", "Move the replica", "synchronizes, 7 bytes left"),
            ("n1", "Fail over to a replica", "n-1 is master"),
            ("n2", "Fail over to a replica", "n-1 is master"),
        ]

    def test_the_page_is_self_contained_and_escapes_what_it_shows(self) -> None:
        task = NodeOutcomeTask(
            roll="r", instance="i-1", node="<b>n", group="g", replacement="i-2", replacement_node="n2", execution="arn"
        )
        node = record_node.record(task, steps_of(HISTORY))
        plan = {"output": {"outcome": "roll"}}
        summary = report.summary(
            ReportTask(roll="r", plan=plan, left_behind=("group g keeps 4",), started="2026-01-01"),
            [node],
            {"nodes": [{"node": "<b>n"}], "findings": []},
            "demo",
        )
        html = page(summary)
        assert summary.reason == "1 of 1 nodes were replaced"
        assert "&lt;b&gt;n" in html
        assert "<b>n" not in html
        assert "group g keeps 4" in html
        assert "http" not in html.replace("http-equiv", "")


class TestClients:
    def test_a_step_that_asks_nothing_of_the_cluster_needs_no_way_into_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The roles of approval and report have none."""
        asked: list[str] = []

        def connect(cluster: str) -> None:
            asked.append(cluster)
            raise AccessDenied("no way in")

        monkeypatch.setattr("eks_rolling.clients.eks.connect", connect)
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, Settings(cluster="demo").model_dump_json())
        connected_clients.cache_clear()
        try:
            clients = connected_clients()
            assert asked == []
            with pytest.raises(AccessDenied, match="no way in"):
                clients.kubernetes.nodes()
            assert asked == ["demo"]
        finally:
            connected_clients.cache_clear()
