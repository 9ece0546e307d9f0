"""Nodes, pods and volumes of the lab behave as a cluster's do: on a real control plane, with real processes."""

import json
import signal
import time
from typing import Any

import pytest

from lab.kube import Items, Json
from tests.cluster import condition, is_ready, taints
from tests.node_lab import ZONES, Nodes, node_is_ready, shell, web
from tests.waiting import until

pytestmark = pytest.mark.lab

UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"


def state(pod: Json, container: str = "main") -> Json:
    """What a pod's status says of a container."""
    found = pod.get("status", {}).get("containerStatuses", [])
    return next((c for c in found if c["name"] == container), {})


def has_ended(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


# Nodes


def test_a_launched_instance_becomes_a_ready_node_and_then_loses_its_startup_taint(nodes: Nodes) -> None:
    machine = nodes.launch(ZONES[1], wait=False)
    seen: list[tuple[bool, bool]] = []

    def note(found: Items) -> Json | None:
        if not found:
            return None
        tainted = any(taint["key"] == UNINITIALIZED for taint in found[0]["spec"].get("taints", []))
        seen.append((node_is_ready(found[0]), tainted))
        return found[0] if seen[-1] == (True, False) else None

    selector = f"metadata.name={machine.node}"
    node = nodes.kube.wait_for("the node", "/api/v1/nodes", note, fieldSelector=selector)

    assert list(dict.fromkeys(seen)) == [(False, True), (True, True), (True, False)]
    assert node["spec"]["providerID"] == f"aws:///{machine.zone}/{machine.id}"
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == ZONES[1]
    assert node["metadata"]["labels"]["tests/pool"] == nodes.name
    (driver,) = nodes.kube.get(f"/apis/storage.k8s.io/v1/csinodes/{machine.node}")["spec"]["drivers"]
    assert (driver["name"], driver["nodeID"], driver["allocatable"]) == ("ebs.csi.aws.com", machine.id, {"count": 25})


def test_a_kubelet_writes_as_itself_and_is_refused_nothing(nodes: Nodes) -> None:
    """Node, Lease, CSINode, pods, their tokens and what they mount: as a kubelet whom NodeRestriction binds."""
    machines = [nodes.launch(ZONES[0]), nodes.launch(ZONES[1])]
    nodes.create("v1/secrets", {"metadata": {"name": "key"}, "stringData": {"a": "b"}})
    nodes.add_deployment("web", 2, containers=[shell("sleep infinity", envFrom=[{"secretRef": {"name": "key"}}])])
    on = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in nodes.pods("web")}
    for name in on:
        nodes.kube.delete(nodes.path(f"v1/pods/{name}"))
        nodes.wait_until_gone(name)

    kubelets = {f"system:node:{m.node}": m.node for m in machines}
    records = [json.loads(line) for line in nodes.node_lab.lab.paths.audit_log.read_text().splitlines()]
    theirs = [r for r in records if r["user"]["username"] in kubelets and "objectRef" in r]
    refused = [r for r in theirs if r["responseStatus"]["code"] == 403 and r["verb"] not in {"get", "list"}]
    # A pod may be run before the authorizer has heard of it; its kubelet asks again.
    assert [r["objectRef"] for r in refused if r["objectRef"].get("subresource") != "token"] == []
    written = {
        (r["objectRef"]["resource"], r["objectRef"].get("subresource", ""), r["verb"])
        for r in theirs
        if r["verb"] not in {"get", "list", "watch"}
    }
    assert written >= {
        ("nodes", "", "create"), ("nodes", "status", "patch"), ("csinodes", "", "create"),
        ("pods", "status", "patch"), ("pods", "", "delete"), ("events", "", "create"),
    }  # fmt: skip
    for name, node in on.items():
        reports = {
            r["user"]["username"]
            for r in records
            if r.get("objectRef", {}).get("name") == name and r["objectRef"].get("subresource") == "status"
        }
        assert reports == {f"system:node:{node}"}


def test_a_node_renews_its_lease(nodes: Nodes) -> None:
    machine = nodes.launch()
    lease = nodes.kube.wait_for(
        "a lease",
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
        lambda leases: leases[0] if leases else None,
        fieldSelector=f"metadata.name={machine.node}",
    )
    assert lease["spec"]["holderIdentity"] == machine.node
    assert lease["metadata"]["ownerReferences"][0]["name"] == machine.node


def test_an_instance_that_goes_takes_its_processes_at_once_and_its_node_a_moment_later(nodes: Nodes) -> None:
    machine = nodes.launch()
    nodes.add_pod("doomed", containers=[shell("trap '' TERM; sleep 4242 & wait")])
    nodes.wait_for_pod("doomed", "ready", is_ready)
    assert any("sleep 4242" in process for process in nodes.node_lab.processes())

    nodes.node_lab.set_state(machine, "shutting-down")
    until(lambda: not any("sleep 4242" in p for p in nodes.node_lab.processes()), "the pod's processes are gone")

    nodes.kube.get(f"/api/v1/nodes/{machine.node}")
    nodes.node_lab.set_state(machine, "terminated")
    nodes.kube.wait_for("the node gone", "/api/v1/nodes", lambda found: None if found else True,
                        fieldSelector=f"metadata.name={machine.node}")  # fmt: skip


def test_a_kubelet_with_a_grace_period_for_shutdown_ends_its_pods_before_the_instance_goes(
    graceful_nodes: Nodes,
) -> None:
    nodes = graceful_nodes
    machine = nodes.launch()
    nodes.add_pod("polite", containers=[shell("trap 'echo told; exit 0' TERM; sleep infinity & wait")])
    nodes.add_pod("deaf", containers=[shell("trap '' TERM; sleep 4243 & wait")], terminationGracePeriodSeconds=600)
    for name in ("polite", "deaf"):
        nodes.wait_for_pod(name, "ready", is_ready)

    nodes.node_lab.set_state(machine, "shutting-down")
    ended = nodes.wait_for_pod("polite", "ended", has_ended)
    assert (ended["status"]["phase"], ended["status"]["reason"]) == ("Failed", "Terminated")
    assert "deletionTimestamp" not in ended["metadata"]
    assert nodes.kept_log("polite") == ["told"]
    nodes.kube.wait_for("the node is not Ready", "/api/v1/nodes",
                        lambda found: True if found and not node_is_ready(found[0]) else None,
                        fieldSelector=f"metadata.name={machine.node}")  # fmt: skip
    # What takes longer than the instance, is killed with it.
    assert any("sleep 4243" in process for process in nodes.node_lab.processes())
    nodes.node_lab.set_state(machine, "terminated")
    until(lambda: not any("sleep 4243" in p for p in nodes.node_lab.processes()), "the pod's processes are gone")


def test_an_instance_that_inherits_an_address_gets_a_node_of_its_own(nodes: Nodes) -> None:
    former = nodes.launch()
    old = nodes.kube.get(f"/api/v1/nodes/{former.node}")["metadata"]["uid"]
    nodes.node_lab.set_state(former, "terminated")
    heir = nodes.launch(address=former.address, wait=False)

    def inherited(found: Items) -> Json | None:
        fresh = found and found[0]["metadata"]["uid"] != old and node_is_ready(found[0]) and not taints(found[0])
        return found[0] if fresh else None

    node = nodes.kube.wait_for("a new node", "/api/v1/nodes", inherited, fieldSelector=f"metadata.name={heir.node}")
    assert node["spec"]["providerID"].endswith(heir.id)
    driver = nodes.kube.get(f"/apis/storage.k8s.io/v1/csinodes/{heir.node}")
    assert driver["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
    assert driver["spec"]["drivers"][0]["nodeID"] == heir.id
    nodes.add_pod("tenant", containers=[shell("sleep infinity")])
    nodes.wait_for_pod("tenant", "ready", is_ready)


def test_a_pod_that_something_else_called_unready_is_reported_ready_again(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("steady", containers=[shell("sleep infinity")])
    nodes.wait_for_pod("steady", "ready", is_ready)

    denial = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]}}
    denied = nodes.kube.patch(nodes.path("v1/pods/steady/status"), denial, kind="strategic")
    assert not is_ready(denied)

    nodes.wait_for_pod("steady", "ready again", is_ready)


# Containers


def test_a_deployments_pods_become_ready_with_addresses_of_their_zone(nodes: Nodes) -> None:
    nodes.launch(ZONES[0])
    nodes.launch(ZONES[1])
    nodes.add_deployment("web", 4, containers=[web()])
    for pod in nodes.pods("web"):
        in_second_zone = pod["spec"]["nodeName"] == nodes.machines[1].node
        third = int(pod["status"]["podIP"].split(".")[2])
        assert (third >= 64) == in_second_zone
        assert pod["status"]["hostIP"] == nodes.machines[int(in_second_zone)].address
        assert pod["status"]["phase"] == "Running"
        assert condition(pod, "PodReadyToStartContainers")["status"] == "True"
        answer = nodes.node_lab.get(pod["status"]["podIP"], 8080)
        assert (answer["pod"], answer["node"]) == (pod["metadata"]["name"], pod["spec"]["nodeName"])


def test_containers_see_the_environment_and_files_that_their_manifest_says(nodes: Nodes) -> None:
    machine = nodes.launch()
    nodes.create("v1/configmaps", {"metadata": {"name": "settings"}, "data": {"colour": "blue", "app.conf": "x = 1"}})
    nodes.create("v1/secrets", {"metadata": {"name": "keys"}, "stringData": {"password": "geheim"}})
    script = """
        echo "$GREETING" "$COLOUR" "$PASSWORD" "$CPU" "$P_colour" "$WHERE" "$(hostname)"
        cat /etc/app/app.conf; echo
        cat /secret/pw; echo
        grep ^app= /info/labels
        head -c 3 /var/run/secrets/kubernetes.io/serviceaccount/token; echo
        cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo
        touch /etc/app/app.conf 2>&1 | grep -c 'Read-only'
        echo shared > /scratch/file
        sleep infinity
    """
    nodes.add_pod(
        "reader",
        {"app": "reader"},
        containers=[
            shell(
                script,
                env=[
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "GREETING", "value": "hello-$(NAME)-$$(NAME)"},
                    {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
                    {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ],
                envFrom=[{"prefix": "P_", "configMapRef": {"name": "settings"}}],
                resources={"requests": {"cpu": "50m"}},
                volumeMounts=[
                    {"name": "conf", "mountPath": "/etc/app"},
                    {"name": "secret", "mountPath": "/secret"},
                    {"name": "info", "mountPath": "/info"},
                    {"name": "scratch", "mountPath": "/scratch", "subPath": "mine"},
                ],
            ),
            {
                **shell("until cat /all/mine/file 2>/dev/null; do sleep 0.05; done; sleep infinity"),
                "name": "other",
                "volumeMounts": [{"name": "scratch", "mountPath": "/all"}],
            },
        ],
        volumes=[
            {"name": "conf", "configMap": {"name": "settings"}},
            {"name": "secret", "secret": {"secretName": "keys", "items": [{"key": "password", "path": "pw"}]}},
            {"name": "info", "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "scratch", "emptyDir": {}},
        ],
    )  # fmt: skip
    nodes.wait_for_pod("reader", "ready", is_ready)
    lines = wait_for_lines(nodes, "reader", 7)
    assert lines == [
        f"hello-reader-$(NAME) blue geheim 50 blue {machine.node} reader",
        "x = 1",
        "geheim",
        'app="reader"',
        "eyJ",
        nodes.name,
        "1",
    ]
    assert wait_for_lines(nodes, "reader", 1, "-c", "other") == ["shared"]


def wait_for_lines(nodes: Nodes, pod: str, count: int, *options: str) -> list[str]:
    """The first lines of a pod's log, once there are so many."""
    lines: list[str] = until(
        lambda: said[:count] if len(said := nodes.logs(pod, *options).splitlines()) >= count else [],
        f"{pod} has said {count} lines",
    )
    return lines


def test_init_containers_run_in_order_and_sidecars_stay(nodes: Nodes) -> None:
    nodes.launch()
    note = {"name": "notes", "mountPath": "/notes"}
    nodes.add_pod(
        "ordered",
        restartPolicy="Never",
        initContainers=[
            {**shell("sleep 0.3; echo one >> /notes/log"), "name": "first", "volumeMounts": [note]},
            {**shell("echo sidecar >> /notes/log; trap 'exit 0' TERM; sleep infinity & wait"), "name": "sidecar",
             "restartPolicy": "Always", "volumeMounts": [note],
             "startupProbe": {"exec": {"command": ["grep", "sidecar", "/notes/log"]}, "periodSeconds": 1}},
            {**shell("echo two >> /notes/log"), "name": "second", "volumeMounts": [note]},
        ],
        containers=[shell("cat /notes/log", volumeMounts=[note])],
        volumes=[{"name": "notes", "emptyDir": {}}],
    )  # fmt: skip
    pod = nodes.wait_for_pod("ordered", "ended", has_ended)
    assert pod["status"]["phase"] == "Succeeded", pod["status"]
    assert nodes.kept_log("ordered") == ["one", "sidecar", "two"]
    reasons = {c["name"]: c["state"]["terminated"]["reason"] for c in pod["status"]["initContainerStatuses"]}
    assert reasons == {"first": "Completed", "sidecar": "Completed", "second": "Completed"}


def test_a_job_is_done_once_its_container_has_succeeded(nodes: Nodes) -> None:
    nodes.launch()
    count = "echo x >> /tries/log; test $(wc -l < /tries/log) -ge 3"
    nodes.create("batch/v1/jobs", {
        "metadata": {"name": "third-time-lucky"},
        "spec": {"template": {"spec": {
            "restartPolicy": "OnFailure",
            "nodeSelector": {"tests/pool": nodes.name},
            "containers": [shell(count, volumeMounts=[{"name": "tries", "mountPath": "/tries"}])],
            "volumes": [{"name": "tries", "emptyDir": {}}],
        }}},
    })  # fmt: skip
    nodes.kube.wait_for("the job done", nodes.path("batch/v1/jobs"),
                        lambda jobs: jobs[0]["status"].get("succeeded"))  # fmt: skip
    (pod,) = nodes.kube.list(nodes.path("v1/pods"))
    assert state(pod)["restartCount"] == 2


def test_a_container_that_fails_is_started_again_with_growing_pauses(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("flaky", containers=[shell("echo alas; exit 3")])
    pod = nodes.wait_for_pod(
        "flaky",
        "backing off",
        lambda p: (
            state(p).get("restartCount", 0) >= 2
            and state(p)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        ),
    )
    assert pod["status"]["phase"] == "Running"
    assert not is_ready(pod)
    ended = state(pod)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    # A container that is started meanwhile has its log moved.
    until(lambda: nodes.logs("flaky", "--previous") == "alas\n", "the former container's log is read")
    assert "back-off" in nodes.wait_for_event("BackOff")


def test_an_unknown_image_keeps_its_pod_waiting(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("typo", containers=[{"name": "main", "image": "wbe:1.0"}])
    reasons: list[str] = []

    def backing_off(pod: Json) -> bool:
        reasons.append(state(pod).get("state", {}).get("waiting", {}).get("reason", ""))
        return reasons[-1] == "ImagePullBackOff"

    pod = nodes.wait_for_pod("typo", "backing off", backing_off)
    assert "ErrImagePull" in reasons
    assert "no image 'wbe'" in state(pod)["state"]["waiting"]["message"]


def test_what_the_lab_cannot_mount_or_start_is_said_in_events(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("host", containers=[shell("true")], volumes=[{"name": "v", "hostPath": {"path": "/"}}])
    assert "no hostPath volumes" in nodes.wait_for_event("FailedMount")
    nodes.add_pod("unset", containers=[shell("true", envFrom=[{"configMapRef": {"name": "absent"}}])])
    assert 'configmap "absent" not found' in nodes.wait_for_event("Failed")
    nodes.add_pod("nothing", containers=[{"name": "main", "image": "busybox", "command": ["/no/such/program"]}])
    assert "/no/such/program" in nodes.wait_for_event("Failed", "execvp")


# Probes


def test_a_pod_is_ready_as_long_as_its_readiness_probe_says_so(nodes: Nodes) -> None:
    nodes.launch()
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}  # noqa: S108 (the pod's own)
    nodes.add_pod("choosy", containers=[shell("sleep infinity", readinessProbe=probe)])
    pod = nodes.wait_for_pod("choosy", "running", lambda p: "running" in state(p).get("state", {}))
    assert not is_ready(pod)
    assert condition(pod, "Ready")["message"] == "containers with unready status: [main]"

    nodes.run_inside("choosy", "touch", "/tmp/ready")  # noqa: S108 (the pod's own)
    nodes.wait_for_pod("choosy", "ready", is_ready)
    nodes.run_inside("choosy", "rm", "/tmp/ready")  # noqa: S108 (the pod's own)
    nodes.wait_for_pod("choosy", "unready", lambda p: not is_ready(p))


def test_a_failed_liveness_probe_restarts_the_container_gracefully(nodes: Nodes) -> None:
    nodes.launch()
    probe = {"tcpSocket": {"port": 9999}, "periodSeconds": 1, "failureThreshold": 2}
    script = "trap 'echo told; exit 0' TERM; echo begun; sleep infinity & wait"
    nodes.add_pod("deaf", containers=[shell(script, livenessProbe=probe)])
    nodes.wait_for_pod("deaf", "restarted", lambda p: state(p).get("restartCount", 0) >= 1)
    assert nodes.kept_log("deaf", attempt=0) == ["begun", "told"]
    assert "failed liveness probe" in nodes.wait_for_event("Killing")


def test_no_other_probe_looks_before_the_startup_probe_has_passed(nodes: Nodes) -> None:
    nodes.launch()
    container = web(
        env=[{"name": "START_SECONDS", "value": "2.5"}],
        startupProbe={"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 10},
        livenessProbe={"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1},
    )
    nodes.add_pod("slow", containers=[container])
    early = nodes.wait_for_pod("slow", "running", lambda p: "running" in state(p).get("state", {}))
    assert state(early)["started"] is False
    pod = nodes.wait_for_pod("slow", "ready", is_ready)
    assert state(pod)["started"] is True
    assert state(pod)["restartCount"] == 0


# Ending


def test_a_deleted_pod_has_its_hook_then_sigterm_then_its_grace_period(nodes: Nodes) -> None:
    nodes.launch()
    script = "trap 'echo told; sleep 0.5; echo leaving; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1; sleep 0.5"]}}}
    nodes.add_pod("polite", containers=[shell(script, lifecycle=hook)], terminationGracePeriodSeconds=10)
    nodes.wait_for_pod("polite", "ready", is_ready)
    began = time.monotonic()
    nodes.kube.delete(nodes.path("v1/pods/polite"))
    nodes.wait_until_gone("polite")
    assert nodes.kept_log("polite") == ["begun", "hook", "told", "leaving"]
    assert time.monotonic() - began >= 1.0


def test_a_container_that_ignores_sigterm_is_killed_after_its_grace_period(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("stubborn", containers=[shell("trap '' TERM; while :; do sleep 0.1; done")],
                  terminationGracePeriodSeconds=2)  # fmt: skip
    nodes.wait_for_pod("stubborn", "ready", is_ready)
    began = time.monotonic()
    nodes.kube.delete(nodes.path("v1/pods/stubborn"))
    last = nodes.wait_for_pod("stubborn", "ended", has_ended)
    assert time.monotonic() - began >= 2.0
    assert state(last)["state"]["terminated"]["exitCode"] == 137
    nodes.wait_until_gone("stubborn")


def test_a_pod_deleted_by_force_leaves_no_process(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("forced", containers=[shell("trap '' TERM; sleep 4343 & wait; sleep 4343")])
    nodes.wait_for_pod("forced", "ready", is_ready)
    nodes.kube.delete(nodes.path("v1/pods/forced"), {"gracePeriodSeconds": 0})
    nodes.wait_until_gone("forced")
    until(lambda: not any("sleep 4343" in p for p in nodes.node_lab.processes()), "the pod's processes are gone")


def test_a_pod_deleted_before_it_could_start_is_gone_at_once(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("early", containers=[shell("true")], terminationGracePeriodSeconds=30,
                  volumes=[{"name": "v", "configMap": {"name": "never"}}])  # fmt: skip
    nodes.wait_for_event("FailedMount")
    nodes.kube.delete(nodes.path("v1/pods/early"))
    nodes.wait_until_gone("early", seconds=3)


def test_kubectl_logs_reads_tails_follows_and_dates(nodes: Nodes) -> None:
    nodes.launch()
    script = "seq -f 'line %g' 5; echo oops >&2; until [ -e /told/to-end ]; do sleep 0.05; done; echo end"
    nodes.add_pod(
        "talker",
        containers=[shell(script, volumeMounts=[{"name": "told", "mountPath": "/told"}])],
        volumes=[{"name": "told", "emptyDir": {}}],
        restartPolicy="Never",
    )
    nodes.wait_for_pod("talker", "ready", is_ready)
    assert wait_for_lines(nodes, "talker", 6)[4:] == ["line 5", "oops"]
    assert nodes.logs("talker", "--tail=2") == "line 5\noops\n"
    assert nodes.logs("talker", "--tail=1", "--timestamps").startswith("20")
    assert nodes.logs("talker", "--limit-bytes=4") == "line"
    with nodes.following("talker", "--since=1h") as log:
        assert [next(log) for _ in range(6)][4:] == ["line 5\n", "oops\n"]
        nodes.run_inside("talker", "touch", "/told/to-end")
        assert list(log) == ["end\n"]


def ready_since(pod: dict[str, Any]) -> str:
    return str(condition(pod, "Ready")["lastTransitionTime"])


@pytest.mark.slow
def test_a_node_whose_heartbeats_come_back_is_ready_again_and_its_pods_with_it(nodes: Nodes) -> None:
    machine = nodes.launch()
    nodes.add_pod("steady", containers=[shell("sleep infinity")])
    began = ready_since(nodes.wait_for_pod("steady", "ready", is_ready))
    selector = f"metadata.name={machine.node}"
    nodes.node_lab.lab.signal("heartbeats", signal.SIGSTOP)
    try:
        nodes.kube.wait_for("NotReady", "/api/v1/nodes", lambda found: None if node_is_ready(found[0]) else True,
                            seconds=90, fieldSelector=selector)  # fmt: skip
        # The agent, which is well, soon says otherwise; what stays is the time of the change.
        nodes.wait_for_pod("steady", "declared unready", lambda p: ready_since(p) > began)
    finally:
        nodes.node_lab.lab.signal("heartbeats", signal.SIGCONT)
    nodes.kube.wait_for("Ready", "/api/v1/nodes", lambda found: node_is_ready(found[0]) or None,
                        seconds=60, fieldSelector=selector)  # fmt: skip
    nodes.wait_for_pod("steady", "ready again", is_ready)
