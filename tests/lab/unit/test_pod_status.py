"""Pod status from container states: what a kubelet would report."""

import datetime as dt
from dataclasses import replace

import pytest

from lab.kube import Json
from lab.node.status import ContainerState, ContainerView, PodView, Running, Terminated, Waiting, is_ready, pod_status

BEFORE = dt.datetime(2026, 1, 31, 12, 0, 0, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 1, 31, 12, 0, 30, tzinfo=dt.UTC)
RUNNING = Running(BEFORE)
DONE = Terminated(0, "Completed", BEFORE, NOW)
FAILED = Terminated(3, "Error", BEFORE, NOW)
WAITING = Waiting("ContainerCreating")
BACKING_OFF = Waiting("CrashLoopBackOff", "back-off 2s")


def pod(policy: str = "Always", init: list[Json] | None = None, **status: object) -> Json:
    return {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"restartPolicy": policy, "containers": [{"name": "main"}], "initContainers": init or []},
        "status": status,
    }


def container(
    state: ContainerState,
    last: Terminated | None = None,
    name: str = "main",
    *,
    ready: bool = False,
    started: bool = False,
) -> ContainerView:
    return ContainerView(name, "web:1", state, last, ready=ready, started=started)


def view(*containers: ContainerView, init: tuple[ContainerView, ...] = (), ended: bool = False) -> PodView:
    return PodView("10.0.0.10", "10.244.0.5", BEFORE, True, containers, init, ended)


def conditions(status: Json) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status["conditions"]}


@pytest.mark.parametrize(
    ("policy", "state", "last", "ended", "phase"),
    [
        ("Always", WAITING, None, False, "Pending"),
        ("Always", RUNNING, None, False, "Running"),
        ("Always", FAILED, None, False, "Running"),
        ("Always", BACKING_OFF, FAILED, False, "Running"),
        ("Always", DONE, None, True, "Succeeded"),
        ("Always", FAILED, None, True, "Failed"),
        ("Always", WAITING, None, True, "Failed"),
        ("OnFailure", DONE, None, False, "Succeeded"),
        ("OnFailure", FAILED, None, False, "Running"),
        ("Never", DONE, None, False, "Succeeded"),
        ("Never", FAILED, None, False, "Failed"),
    ],
)
def test_the_phase_follows_from_the_containers_and_the_restart_policy(
    policy: str, state: ContainerState, last: Terminated | None, ended: bool, phase: str
) -> None:
    assert pod_status(pod(policy), view(container(state, last), ended=ended), NOW)["phase"] == phase


def test_a_pod_is_ready_when_every_container_is() -> None:
    two = pod()
    ready, unready = container(RUNNING, ready=True, started=True), container(RUNNING, name="slow", started=True)
    status = pod_status(two, view(ready, unready), NOW)
    assert not is_ready(status)
    (condition,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    assert condition["message"] == "containers with unready status: [slow]"

    status = pod_status(two, view(ready, replace(unready, ready=True)), NOW)
    assert is_ready(status)
    assert conditions(status)["ContainersReady"] == "True"


def test_a_readiness_gate_holds_back_ready_alone() -> None:
    gated = pod()
    gated["spec"]["readinessGates"] = [{"conditionType": "example.com/load-balanced"}]
    serving = view(container(RUNNING, ready=True, started=True))
    held = conditions(pod_status(gated, serving, NOW))
    assert (held["Ready"], held["ContainersReady"]) == ("False", "True")

    gated["status"] = {"conditions": [{"type": "example.com/load-balanced", "status": "True"}]}
    assert is_ready(pod_status(gated, serving, NOW))


def test_a_finished_pod_is_not_ready_for_the_reason_that_it_has_finished() -> None:
    status = pod_status(pod("Never"), view(container(DONE)), NOW)
    reasons = {c["type"]: c["reason"] for c in status["conditions"] if c["reason"]}
    assert reasons == {"Initialized": "PodCompleted", "Ready": "PodCompleted", "ContainersReady": "PodCompleted"}


def test_a_condition_keeps_its_transition_time_until_it_changes() -> None:
    first = pod_status(pod(), view(container(RUNNING, started=True)), BEFORE)
    second = pod_status(pod(**first), view(container(RUNNING, started=True, ready=True)), NOW)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["Initialized"] == "2026-01-31T12:00:00Z"
    assert times["Ready"] == "2026-01-31T12:00:30Z"


def test_the_status_says_which_generation_it_is_about() -> None:
    status = pod_status(pod(), view(container(RUNNING)), NOW)
    assert status["observedGeneration"] == 1
    assert all(c["observedGeneration"] == 1 for c in status["conditions"])


def test_a_pod_waits_for_its_init_containers() -> None:
    waiting = pod(init=[{"name": "first"}, {"name": "second"}])
    init = (container(DONE, name="first"), container(WAITING, name="second"))
    status = pod_status(waiting, view(container(Waiting("PodInitializing")), init=init), NOW)
    assert status["phase"] == "Pending"
    (condition,) = [c for c in status["conditions"] if c["type"] == "Initialized"]
    assert condition["message"] == "containers with incomplete status: [second]"


def test_an_init_container_that_fails_for_good_fails_the_pod() -> None:
    failing = pod("Never", init=[{"name": "first"}])
    status = pod_status(failing, view(container(WAITING), init=(container(FAILED, name="first"),)), NOW)
    assert status["phase"] == "Failed"


def test_a_sidecar_counts_for_readiness_and_keeps_the_pod_running() -> None:
    with_sidecar = pod("Never", init=[{"name": "proxy", "restartPolicy": "Always"}])
    sidecar = container(RUNNING, name="proxy", started=True)
    assert not is_ready(pod_status(with_sidecar, view(container(RUNNING, ready=True), init=(sidecar,)), NOW))
    assert pod_status(with_sidecar, view(container(DONE), init=(sidecar,)), NOW)["phase"] == "Running"
    ended = container(FAILED, name="proxy")
    assert pod_status(with_sidecar, view(container(DONE), init=(ended,)), NOW)["phase"] == "Succeeded"


def test_container_statuses_tell_the_present_and_the_former_run() -> None:
    crashed = ContainerView("main", "web:1", BACKING_OFF, FAILED, restarts=4, container_id="lab://p")
    (status,) = pod_status(pod(), view(crashed), NOW)["containerStatuses"]
    assert status["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2s"}}
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert (status["restartCount"], status["ready"]) == (4, False)
