"""A pod's status from its containers' states, as a kubelet reports it. Pure."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from lab.kube import Json
from lab.node import times


@dataclass(frozen=True)
class Waiting:
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    started: dt.datetime


@dataclass(frozen=True)
class Terminated:
    exit_code: int
    reason: str
    started: dt.datetime
    finished: dt.datetime
    message: str = ""


ContainerState = Waiting | Running | Terminated


@dataclass(frozen=True)
class ContainerView:
    """One container as it is now."""

    name: str
    image: str
    state: ContainerState
    last: Terminated | None = None
    """How it ended before the present run."""
    restarts: int = 0
    ready: bool = False
    started: bool = False
    """Runs, and has passed its startup probe where it has one."""
    container_id: str = ""
    image_id: str = ""


@dataclass(frozen=True)
class PodView:
    """One pod as it is now on its node."""

    host_ip: str
    pod_ip: str | None
    start_time: dt.datetime
    sandbox_ready: bool
    containers: Sequence[ContainerView]
    init_containers: Sequence[ContainerView] = ()
    ended: bool = False
    """Terminating, and nothing of it runs any more."""
    reason: str = ""
    message: str = ""
    failed: bool = False
    """Ended by its node as that shut down: Failed whatever its containers did."""


def restarts_always(container: Json) -> bool:
    """Whether an init container is a sidecar."""
    return bool(container.get("restartPolicy") == "Always")


def pod_status(pod: Json, view: PodView, now: dt.datetime) -> Json:
    """The status to report. Conditions keep their transition time while they say what `pod` already says."""
    phase = _phase(pod["spec"], view)
    generation = pod["metadata"].get("generation")
    conditions = _conditions(pod, view, phase)
    status: Json = {
        "phase": phase,
        "conditions": [_dated(condition, pod, generation, now) for condition in conditions],
        "containerStatuses": [_container_status(c) for c in sorted(view.containers, key=lambda c: c.name)],
        "hostIP": view.host_ip,
        "hostIPs": [{"ip": view.host_ip}],
        "startTime": times.seconds(view.start_time),
    }
    if generation is not None:
        status["observedGeneration"] = generation
    if view.init_containers:
        status["initContainerStatuses"] = [_container_status(c) for c in view.init_containers]
    if view.pod_ip:
        status |= {"podIP": view.pod_ip, "podIPs": [{"ip": view.pod_ip}]}
    if view.reason:
        status |= {"reason": view.reason, "message": view.message}
    return status


def is_ready(status: Json) -> bool:
    """Whether a pod's status says Ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def is_ended(pod: Json) -> bool:
    """Whether a pod has reported that it will run no more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _phase(spec: Json, view: PodView) -> str:
    if view.failed:
        return "Failed"
    if not _initialized(spec, view):
        return _phase_before_initialization(spec, view)
    running = sum(isinstance(c.state, Running) for c in view.containers)
    stopped = [t for c in view.containers if (t := _outcome(c)) is not None]
    if running + len(stopped) < len(view.containers):
        return "Failed" if view.ended else "Pending"
    if running or any(isinstance(c.state, Running) for c in _sidecars(spec, view)):
        return "Running"
    succeeded = all(t.exit_code == 0 for t in stopped)
    policy = spec.get("restartPolicy", "Always")
    if view.ended:
        return "Succeeded" if succeeded else "Failed"
    if policy == "Always":
        return "Running"
    if succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _phase_before_initialization(spec: Json, view: PodView) -> str:
    if view.ended:
        return "Failed"
    failed = any(isinstance(c.state, Terminated) and c.state.exit_code for c in view.init_containers)
    return "Failed" if failed and spec.get("restartPolicy") == "Never" else "Pending"


def _outcome(container: ContainerView) -> Terminated | None:
    """How the container last ended, unless it runs or never has."""
    if isinstance(container.state, Terminated):
        return container.state
    return container.last if isinstance(container.state, Waiting) else None


def _incomplete(spec: Json, view: PodView) -> list[str]:
    """Init containers that have not yet done their part: ended well, or for a sidecar, started."""
    declared = {c["name"]: c for c in spec.get("initContainers", ())}
    return [c.name for c in view.init_containers if not _did_its_part(declared[c.name], c)]


def _did_its_part(declared: Json, container: ContainerView) -> bool:
    if restarts_always(declared):
        return container.started or container.last is not None or isinstance(container.state, Terminated)
    return isinstance(container.state, Terminated) and container.state.exit_code == 0


def _initialized(spec: Json, view: PodView) -> bool:
    # A main container that has run proves it, even if a sidecar is down at the moment.
    has_run = any(isinstance(c.state, Running | Terminated) or c.last for c in view.containers)
    return has_run or not _incomplete(spec, view)


def _conditions(pod: Json, view: PodView, phase: str) -> list[Json]:
    spec = pod["spec"]
    finished = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase)
    if _initialized(spec, view) or phase == "Succeeded":
        initialized: Json = {"type": "Initialized", "status": "True"}
        if phase == "Succeeded":
            initialized["reason"] = "PodCompleted"
    else:
        names = " ".join(_incomplete(spec, view))
        initialized = {
            "type": "Initialized",
            "status": "False",
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{names}]",
        }
    readiness = _readiness(spec, view, finished)
    ready = {"type": "Ready", **readiness}
    missing_gates = _missing_gates(pod)
    if readiness["status"] == "True" and missing_gates:
        ready = {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": missing_gates}
    return [
        {"type": "PodReadyToStartContainers", "status": _truth(view.sandbox_ready)},
        initialized,
        ready,
        {"type": "ContainersReady", **readiness},
        {"type": "PodScheduled", "status": "True"},
    ]


def _readiness(spec: Json, view: PodView, finished: str | None) -> Json:
    if finished:
        return {"status": "False", "reason": finished}
    unready = [c.name for c in (*_sidecars(spec, view), *view.containers) if not c.ready]
    if not unready:
        return {"status": "True"}
    message = f"containers with unready status: [{' '.join(unready)}]"
    return {"status": "False", "reason": "ContainersNotReady", "message": message}


def _sidecars(spec: Json, view: PodView) -> list[ContainerView]:
    declared = {c["name"]: c for c in spec.get("initContainers", ())}
    return [c for c in view.init_containers if restarts_always(declared[c.name])]


def _missing_gates(pod: Json) -> str:
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", ())}
    gates = [g["conditionType"] for g in pod["spec"].get("readinessGates", ())]
    lacking = [g for g in gates if conditions.get(g) != "True"]
    return "\n".join(f'corresponding condition of pod readiness gate "{gate}" is not "True".' for gate in lacking)


def _dated(condition: Json, pod: Json, generation: int | None, now: dt.datetime) -> Json:
    before = next((c for c in pod.get("status", {}).get("conditions", ()) if c["type"] == condition["type"]), None)
    unchanged = before is not None and before["status"] == condition["status"]
    since = before["lastTransitionTime"] if before and unchanged else None
    # Strategic merge keeps what a patch does not name, so a reason that is over is named, as null.
    dated = {"reason": None, "message": None, **condition, "lastProbeTime": None}
    dated["lastTransitionTime"] = since or times.seconds(now)
    if generation is not None:
        dated["observedGeneration"] = generation
    return dated


def _container_status(container: ContainerView) -> Json:
    status: Json = {
        "name": container.name,
        "image": container.image,
        "imageID": container.image_id,
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restarts,
        "state": _state(container.state, container.container_id),
        "lastState": _state(container.last, "") if container.last else {},
    }
    if container.container_id:
        status["containerID"] = container.container_id
    return status


def _state(state: ContainerState, container_id: str) -> Json:
    match state:
        case Waiting():
            waiting = {"reason": state.reason}
            if state.message:
                waiting["message"] = state.message
            return {"waiting": waiting}
        case Running():
            return {"running": {"startedAt": times.seconds(state.started)}}
        case Terminated():
            terminated: Json = {
                "exitCode": state.exit_code,
                "reason": state.reason,
                "startedAt": times.seconds(state.started),
                "finishedAt": times.seconds(state.finished),
            }
            if container_id:
                terminated["containerID"] = container_id
            if state.message:
                terminated["message"] = state.message
            return {"terminated": terminated}
        case _:
            assert_never(state)


def _truth(value: bool) -> str:
    return "True" if value else "False"
