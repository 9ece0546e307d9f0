"""Redis as people run it without declaring it, one workload a shape, and what a plan has to say of each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lab.kube import Json
from tests.e2e.seeds import Ground
from tests.waiting import until

IN_MEMORY = ("--save", "", "--appendonly", "no")
APPENDING = ("--appendonly", "yes")
HANDS_OVER = {"preStop": {"exec": {"command": ["sh", "-c", "redis-cli failover; sleep 1"]}}}
PASSWORD = ("--requirepass", "correct-horse")


@dataclass(frozen=True)
class Shape:
    """A workload of `pods` with these containers; "REPLICAOF" in arguments is the address of the pod of `follows`."""

    name: str
    code: str
    says: tuple[str, ...]
    """What is in the finding's reason and remedy."""
    containers: tuple[Json, ...]
    pods: int = 1
    volume: bool = False
    follows: str = ""
    cache: bool = False
    unsaid: str = ""
    """What is not."""

    @property
    def subject(self) -> str:
        return f"StatefulSet shop/{self.name}"


def server(*args: str, **more: Any) -> Json:
    """As its image's entrypoint starts it: open to all."""
    return {"name": "redis", "image": "redis:7", "args": ["--protected-mode", "no", *args], **more}


def script(text: str) -> Json:
    return {"name": "redis", "image": "redis:7", "command": ["sh", "-c", text]}


def quiet(**port: Any) -> Json:
    """Something that says nothing, under an image's name that says nothing."""
    return {"name": "kv", "image": "pause:1", "ports": [port]}


WATCHING = script("printf 'port 26379\\nprotected-mode no\\n' > /tmp/s.conf; exec redis-sentinel /tmp/s.conf")
SENTINEL = WATCHING | {"name": "sentinel"}

SHAPES = (
    # As charts' defaults have it for caches, and Argo CD.
    Shape(
        "lone-memory",
        "redis-in-memory",
        ("no volume", "it says that it is a master, with 0 replicas in sync", "keeps nothing on disk"),
        (server(*IN_MEMORY),),
    ),
    Shape("lone-disk", "redis", ("its append-only file", "appends to a file"), (server(*APPENDING),), volume=True),
    Shape("lone-snapshots", "redis", ("only what it has saved", "saves snapshots"), (server(),), volume=True),
    # Its command does not tell that it saves nothing: its file does.
    Shape(
        "lone-nothing",
        "redis-in-memory",
        ("saves nothing to its volume", "keeps nothing on disk"),
        (script("printf 'save \"\"\\nprotected-mode no\\n' > /tmp/r.conf; exec redis-server /tmp/r.conf"),),
        volume=True,
    ),
    Shape(
        "lone-secret",
        "redis",
        ("an eviction would take its role",),
        (server(*APPENDING, *PASSWORD),),
        volume=True,
        unsaid="says that",
    ),
    # Replication without sentinels: bitnami's default.
    Shape("pair", "redis-in-memory", ("a master, with 1 replica in sync",), (server(*IN_MEMORY),)),
    Shape(
        "pair-copies",
        "redis",
        ("a copy while it is away", "a replica, in sync"),
        (server(*IN_MEMORY, "--replicaof", "REPLICAOF", "6379"),),
        follows="pair",
    ),
    # Server and sentinel in one pod, with a hook: bitnami's sentinel, redis-ha.
    Shape(
        "bundle",
        "redis",
        ("appends to a file", "its preStop hook means to hand its role over first"),
        (server(*APPENDING, lifecycle=HANDS_OVER), SENTINEL),
        volume=True,
    ),
    Shape(
        "bundle-memory",
        "redis-in-memory",
        ("keeps nothing on disk", "its preStop hook means to hand its role over first"),
        (server(*IN_MEMORY, lifecycle=HANDS_OVER), SENTINEL),
    ),
    Shape("watchers", "redis", ("its vote", "says that it is a sentinel"), (WATCHING,)),
    # One StatefulSet of a Redis Cluster.
    Shape(
        "ring",
        "redis",
        ("ring-0 says that it is a master of a Redis Cluster", "eks-rolling.io/redis-role: cluster"),
        (server(*APPENDING, "--cluster-enabled", "yes"),),
        pods=2,
        volume=True,
    ),
    # Mirrors and kin, which answer nothing here.
    Shape("mirror", "redis-in-memory", ("it listens on port 6379",), (quiet(containerPort=6379),), unsaid="says that"),
    Shape(
        "dragon",
        "redis-in-memory",
        ("its port is called dragonfly",),
        (quiet(name="dragonfly", containerPort=7000),),
        unsaid="says that",
    ),
    Shape("declared", "redis-cache", ("whose data may go",), (server(*IN_MEMORY),), cache=True),
)


@contextmanager
def made(ground: Ground, shape: Shape, address: str) -> Iterator[None]:
    """The workload, all of whose pods are Ready."""
    labels = {"app": shape.name}
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]} if shape.volume else {}
    containers = []
    for container in shape.containers:
        args = [address if word == "REPLICAOF" else word for word in container.get("args", ())]
        containers.append({**container, **({"args": args} if args else {}), **mounts})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    pod = {"terminationGracePeriodSeconds": 1, "containers": containers}
    body: Json = {
        "replicas": shape.pods,
        "serviceName": shape.name,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}] if shape.volume else [],
    }
    annotations = {"eks-rolling.io/redis-role": "cache"} if shape.cache else {}
    with ground.made("StatefulSet", shape.name, metadata={"annotations": annotations}, spec=body):
        path = ground.path("StatefulSet", shape.name)
        until(
            lambda: ground.kube.get(path).get("status", {}).get("readyReplicas") == shape.pods, f"{shape.name} is Ready"
        )
        yield


@contextmanager
def all_shapes(ground: Ground) -> Iterator[None]:
    with ExitStack() as there:
        for shape in SHAPES:
            address = ground.pod_of(shape.follows)["status"]["podIP"] if shape.follows else ""
            there.enter_context(made(ground, shape, address))
        yield


def unlike(plan: Json) -> list[str]:
    """What the plan does not say of the shapes as it should."""
    found = {f["object"]: f for f in plan["findings"] if f["code"].startswith("redis")}
    wrong = [f"{subject}: not asked for" for subject in found.keys() - {s.subject for s in SHAPES}]
    for shape in SHAPES:
        finding = found.get(shape.subject)
        if finding is None:
            wrong.append(f"{shape.subject}: nothing is said of it")
            continue
        said = f"{finding['reason']}; {finding['remedy']}"
        severity = "note" if shape.cache else "blocks"
        if (finding["code"], finding["severity"]) != (shape.code, severity):
            wrong.append(f"{shape.subject}: {finding['code']} {finding['severity']}: {said}")
        wrong += [f"{shape.subject}: {words!r} is not in: {said}" for words in shape.says if words not in said]
        wrong += [f"{shape.subject}: {said}"] if shape.unsaid and shape.unsaid in said else []
    return wrong
