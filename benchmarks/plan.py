"""How long a large cluster's plan takes, and how much memory: `python -m benchmarks.plan`.

The lab's real control plane holds the nodes and pods, as objects only; the Auto Scaling groups are in memory. The plan
step runs in processes of its own, a few times; in turns with it kubectl lists the same objects, which is what a listing
takes on this machine at that time. Beside the time that passes there is that of the processor, which says on a busy
machine how much is the plan's own. The exit code is 1 if a median is above the target.
"""

import argparse
import asyncio
import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.addresses import APISERVER_PORT
from lab.controlplane.start import COMPONENTS
from lab.kube import Access, Json, Kube
from lab.lifecycle import Lab, outside_ports, running_lab
from lab.paths import REPOSITORY
from lab.spec import LabSpec
from tests.world import MachineState, World

ZONES = ("zone-a", "zone-b", "zone-c")
TARGET_SECONDS = 5.0
TARGET_MB = 256.0
LISTED = (
    "pods", "nodes", "deployments", "statefulsets", "daemonsets", "poddisruptionbudgets", "persistentvolumes",
    "csinodes", "services",
)  # fmt: skip
"""What the plan lists."""
NODES_IN_GROUP = 100
PODS_OF_OWNER = 20
WRITERS = 32


def node(number: int) -> Json:
    zone = ZONES[number % len(ZONES)]
    room = {"cpu": "4", "memory": "16Gi", "pods": "58", "ephemeral-storage": "100Gi"}
    labels = {
        "kubernetes.io/hostname": f"node-{number}",
        "topology.kubernetes.io/zone": zone,
        "node.kubernetes.io/instance-type": "m6i.xlarge",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    images = [{"names": [f"registry.example.com/team/image-{i}:1.{number}"], "sizeBytes": 10**8} for i in range(20)]
    status = {
        "capacity": room,
        "allocatable": room,
        "images": images,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "posting ready status"}
        ],
    }
    return {
        "metadata": {"name": f"node-{number}", "labels": labels},
        "spec": {"providerID": f"aws:///{zone}/{instance(number)}"},
        "status": status,
    }


def instance(number: int) -> str:
    return f"i-{number:017x}"


def pod(number: int, nodes: int) -> Json:
    """Pods with what real ones have: owner, probes, environment, resources, a token's volume."""
    app = f"app-{number // PODS_OF_OWNER}"
    container = {
        "name": "main",
        "image": f"registry.example.com/team/{app}:1.2.3",
        "env": [{"name": f"SETTING_{i}", "value": f"value-{i}"} for i in range(15)],
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{app}-5d4f8c7b9", "uid": f"uid-{app}"}
    spread = {
        "maxSkew": 2,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
    }
    return {
        "metadata": {
            "name": f"{app}-5d4f8c7b9-{number:05}",
            "labels": {"app": app, "pod-template-hash": "5d4f8c7b9", "team": f"team-{number % 17}"},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "nodeName": f"node-{number % nodes}",
            "containers": [container],
            "topologySpreadConstraints": [spread],
            "tolerations": [],
        },
    }


READY = {"status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]}}


def owned(number: int) -> tuple[Json, Json, Json, Json]:
    """A Deployment and its budget, each with its status."""
    app = f"app-{number}"
    selector = {"matchLabels": {"app": app}}
    template = {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}
    deployment = {
        "metadata": {"name": app},
        "spec": {"replicas": PODS_OF_OWNER, "selector": selector, "template": template},
    }
    full = {"observedGeneration": 1, "replicas": PODS_OF_OWNER, "readyReplicas": PODS_OF_OWNER}
    budget = {"metadata": {"name": app}, "spec": {"maxUnavailable": 1, "selector": selector}}
    allowed = {
        "observedGeneration": 1,
        "disruptionsAllowed": 1,
        "currentHealthy": PODS_OF_OWNER,
        "desiredHealthy": PODS_OF_OWNER - 1,
        "expectedPods": PODS_OF_OWNER,
    }
    return deployment, {"status": full}, budget, {"status": allowed}


async def fill(access: Access, nodes: int, pods: int) -> None:
    """Makes the objects, while no controller and no scheduler looks."""
    slots = asyncio.Semaphore(WRITERS)

    async def put(kube: Kube, path: str, body: Json, status: Json | None = None) -> None:
        async with slots:
            await kube.create(path, body)
            if status:
                await kube.patch(f"{path}/{body['metadata']['name']}/status", status)

    async with Kube(access, timeout_seconds=120) as kube, asyncio.TaskGroup() as group:
        for number in range(nodes):
            group.create_task(put(kube, "/api/v1/nodes", node(number)))
        for number in range(pods // PODS_OF_OWNER):
            deployment, full, budget, allowed = owned(number)
            group.create_task(put(kube, "/apis/apps/v1/namespaces/default/deployments", deployment, full))
            group.create_task(put(kube, "/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget, allowed))
        for number in range(pods):
            group.create_task(put(kube, "/api/v1/namespaces/default/pods", pod(number, nodes), READY))


def account(nodes: int) -> World:
    """Auto Scaling groups in memory, whose instances are all outdated."""
    world = World()
    for number in range(nodes):
        group, zone = f"group-{number // NODES_IN_GROUP}", ZONES[number % len(ZONES)]
        if group not in world.groups_by_name:
            world.group(group, ZONES, maximum=2 * NODES_IN_GROUP, version=2, desired=NODES_IN_GROUP)
        machine = MachineState(instance(number), group, zone, f"lt-{group}:1", state="running")
        world.machines[machine.id] = machine
    return world


def step(server: str, nodes: int) -> None:
    """One plan, in this process. Prints as JSON, by phase: seconds, those of the processor, and peak memory."""
    from eks_rolling.clients.kubernetes import KubernetesClient
    from eks_rolling.clients.protocols import Clients
    from eks_rolling.payloads import PlanTask
    from eks_rolling.settings import Settings
    from eks_rolling.steps import plan

    figures: dict[str, tuple[float, float, float]] = {}

    def measured(phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            began, worked = time.monotonic(), time.process_time()
            answer = work(*given, **named)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            figures[phase] = (time.monotonic() - began, time.process_time() - worked, peak)
            return answer

        return run

    step: Any = plan  # whose parts are replaced by measured ones
    step.observe = measured("list", step.observe)
    step.decide = measured("decide", step.decide)
    step.write = measured("document", step.write)
    access = json.load(sys.stdin)
    world = account(nodes)
    kubernetes = KubernetesClient(server, access["authority"], lambda: str(access["token"]))
    settings = Settings(cluster="demo", surge=10, wave=50)
    clients = Clients(kubernetes, world, world.redis, settings, time.time, time.sleep, world)
    result = measured("the whole step", plan.run)(PlanTask(roll="bench", input={"dry_run": True}), clients)
    document = world.documents["rolls/bench/plan.json"]
    codes = Counter(f["code"] for f in json.loads(document)["findings"])
    sizes = {"answer": len(result.model_dump_json()), "document": len(document)}
    print(json.dumps({"figures": figures, "findings": codes, "sizes": sizes, "reason": result.reason}))


def measure(server: str, access: Access, nodes: int) -> Json:
    """One plan in a process of its own."""
    given = json.dumps({"authority": access.authority, "token": access.token})
    command = [sys.executable, "-m", "benchmarks.plan", "--step", server, "--nodes", str(nodes)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    answer: Json = json.loads(done.stdout)
    return answer


def list_by_kubectl(lab: Lab) -> float:
    """Seconds in which kubectl lists, kind by kind, what the plan lists, and prints nothing but names."""
    began = time.monotonic()
    done = lab.run(["kubectl", "get", ",".join(LISTED), "--all-namespaces", "-o", "name"], capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.plan", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--step", metavar="SERVER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step(given.step, given.nodes)
        return
    console = Console()
    with running_lab(LabSpec(parts=COMPONENTS), "bench-plan") as lab, outside_ports(lab) as port_for:
        for part in ("kube-controller-manager", "kube-scheduler"):
            lab.signal(part, signal.SIGSTOP)
        inside = Access.from_kubeconfig(lab.paths.kubeconfig)
        access = replace(inside, server=f"https://127.0.0.1:{port_for('127.0.0.1', APISERVER_PORT)}")
        asyncio.run(fill(access, given.nodes, given.pods))
        runs, listings = [], []
        for _ in range(given.times):
            runs.append(measure(access.server, access, given.nodes))
            listings.append(list_by_kubectl(lab))
    title = f"{given.nodes:,} nodes, {given.pods:,} pods, {given.times} times, each in a process of its own"
    table = Table("phase", "seconds", "worst", "of the processor", "peak MB", title=title, title_justify="left")
    medians = {}
    for phase in ("list", "decide", "document", "the whole step"):
        seconds = [r["figures"][phase][0] for r in runs]
        worked, peak = (statistics.median(r["figures"][phase][i] for r in runs) for i in (1, 2))
        medians[phase] = (statistics.median(seconds), peak)
        table.add_row(phase, f"{medians[phase][0]:.2f}", f"{max(seconds):.2f}", f"{worked:.2f}", f"{peak:.0f}")
    listing = statistics.median(listings)
    table.add_row("kubectl get", f"{listing:.2f}", f"{max(listings):.2f}", "", "")
    console.print(table, soft_wrap=True)
    ratio = medians["the whole step"][0] / listing
    console.print(f"The plan takes {ratio:.2f} times as long as kubectl takes to list the same objects.")
    last = runs[-1]
    console.print(f"{last['reason']}; findings {last['findings']}; bytes {last['sizes']}")
    took, peak = medians["the whole step"]
    sys.exit(took > TARGET_SECONDS or peak > TARGET_MB)


if __name__ == "__main__":
    main()
