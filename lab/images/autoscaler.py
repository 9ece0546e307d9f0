"""The image `cluster-autoscaler`: a stand-in that scales the groups named by `--nodes=MIN:MAX:GROUP`, and else nothing.

Of the real one it has what a roll meets. A pod that the scheduler calls unschedulable, unless its priority is below the
cutoff of -10, has one of the groups raised by one; the next only once that node is Ready. A node without pods but
DaemonSets' is terminated, and its group lowered, once it has been so for `--scale-down-unneeded-time` (seconds; 10),
unless the node is annotated `scale-down-disabled`. It removes no node that still has pods, so it moves none.
"""

import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROUND_SECONDS = 2.0
PRIORITY_CUTOFF = -10
"""`--expendable-pods-priority-cutoff`: pods below it are placeholders, for which nothing is scaled up."""

SCALE_DOWN_DISABLED = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_NAMESPACE = "{http://autoscaling.amazonaws.com/doc/2011-01-01/}"


@dataclass(frozen=True)
class Bounds:
    """One `--nodes`: the sizes between which the stand-in keeps a group."""

    group: str
    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> "Bounds":
        """Reads MIN:MAX:GROUP. Raises ValueError."""
        least, most, group = text.split(":", 2)
        return cls(group, int(least), int(most))


@dataclass(frozen=True)
class Group:
    """An Auto Scaling group as it is."""

    name: str
    desired: int
    instances: tuple[str, ...]


@dataclass(frozen=True)
class Raise:
    """A group gets one more instance."""

    group: str
    to: int


@dataclass(frozen=True)
class Remove:
    """An empty node's instance goes, and its group gets smaller."""

    group: str
    instance: str


def unschedulable(pods: Iterable[Json]) -> list[str]:
    """The pods for which there is no room, as the scheduler says."""
    return [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod["spec"].get("priority", 0) >= PRIORITY_CUTOFF
        and any(
            c["type"] == "PodScheduled" and c["status"] == "False" and c.get("reason") == "Unschedulable"
            for c in pod.get("status", {}).get("conditions", ())
        )
    ]


def empty(node: Json, pods: Iterable[Json]) -> bool:
    """Whether nothing but DaemonSets' pods is on a Ready node that may be removed."""
    if node["metadata"].get("annotations", {}).get(SCALE_DOWN_DISABLED) == "true" or not is_ready(node):
        return False
    return not any(
        pod["spec"].get("nodeName") == node["metadata"]["name"]
        and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        and not any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", ()))
        for pod in pods
    )


def is_ready(node: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))


def instance_of(node: Json) -> str:
    return str(node["spec"].get("providerID", "")).rpartition("/")[2]


def decide(
    bounds: Sequence[Bounds],
    groups: Mapping[str, Group],
    nodes: Sequence[Json],
    pods: Sequence[Json],
    unneeded: Mapping[str, float],
    now: float,
    unneeded_seconds: float,
) -> Raise | Remove | None:
    """What one round does; `unneeded` says of empty nodes' instances since when they are (seconds)."""
    ready = {instance_of(node) for node in nodes if is_ready(node)}
    waiting = unschedulable(pods)
    for bound in bounds if waiting else ():
        group = groups[bound.group]
        if group.desired > len(ready.intersection(group.instances)):
            return None
    for bound in bounds if waiting else ():
        group = groups[bound.group]
        if group.desired < bound.most:
            return Raise(group.name, group.desired + 1)
    for bound in bounds if not waiting else ():
        group = groups[bound.group]
        due = [i for i in group.instances if i in unneeded and now - unneeded[i] >= unneeded_seconds]
        if due and group.desired > bound.least:
            return Remove(group.name, due[0])
    return None


class Cluster:
    """The two APIs that the stand-in uses, by the pod's own account."""

    def __init__(self) -> None:
        self._aws = os.environ.get("AWS_URL", "http://10.0.255.1:4566")
        self._region = os.environ.get("AWS_REGION", "eu-central-1")

    def list(self, path: str) -> list[Json]:
        """The items at a path of the Kubernetes API. Raises OSError."""
        headers = {"Authorization": f"Bearer {Path(_ACCOUNT, 'token').read_text()}"}
        request = urllib.request.Request(f"https://10.96.0.1:443{path}", headers=headers)
        trust = ssl.create_default_context(cafile=f"{_ACCOUNT}/ca.crt")
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:  # noqa: S310 (https)
            items: list[Json] = json.load(answer)["items"]
        return items

    def groups(self) -> dict[str, Group]:
        """Every group of the account, by name. Raises OSError."""
        found = self._call("DescribeAutoScalingGroups").iter(f"{_NAMESPACE}AutoScalingGroups")
        groups = {}
        for member in (m for every in found for m in every.findall(f"{_NAMESPACE}member")):
            name = member.findtext(f"{_NAMESPACE}AutoScalingGroupName", "")
            instances = member.iterfind(f"{_NAMESPACE}Instances/{_NAMESPACE}member/{_NAMESPACE}InstanceId")
            desired = int(member.findtext(f"{_NAMESPACE}DesiredCapacity", "0"))
            groups[name] = Group(name, desired, tuple(i.text or "" for i in instances))
        return groups

    def do(self, action: Raise | Remove) -> None:
        """Raises OSError where it is refused."""
        if isinstance(action, Raise):
            self._call("SetDesiredCapacity", AutoScalingGroupName=action.group, DesiredCapacity=str(action.to))
        else:
            self._call(
                "TerminateInstanceInAutoScalingGroup",
                InstanceId=action.instance,
                ShouldDecrementDesiredCapacity="true",
            )

    def _call(self, action: str, **parameters: str) -> ElementTree.Element:
        body = urllib.parse.urlencode({"Action": action, "Version": "2011-01-01", **parameters}).encode()
        # The lab's account reads from it which service is meant, and believes any signature of its administrator.
        scope = f"lab/20260101/{self._region}/autoscaling/aws4_request"
        headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=any"}
        request = urllib.request.Request(self._aws, body, headers)  # noqa: S310 (http, to the lab)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (http, to the lab)
            return ElementTree.fromstring(answer.read())  # noqa: S314 (the lab's own)


def main(arguments: Sequence[str]) -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: told.set())
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments if not a.startswith("--nodes="))
    bounds = [Bounds.parse(a.partition("=")[2]) for a in arguments if a.startswith("--nodes=")]
    unneeded_seconds = float(options.get("scale-down-unneeded-time", "10"))
    print(f"cluster-autoscaler stand-in started: {' '.join(arguments)}", flush=True)
    cluster, unneeded = Cluster(), dict[str, float]()
    while not told.wait(ROUND_SECONDS if bounds else 10.0):
        try:
            if bounds:
                round_of(cluster, bounds, unneeded, unneeded_seconds)
        except (OSError, KeyError, ValueError) as error:
            print(f"this round failed: {error}", flush=True)
    print("told to leave")


def round_of(cluster: Cluster, bounds: Sequence[Bounds], unneeded: dict[str, float], unneeded_seconds: float) -> None:
    """Looks and acts once; keeps in `unneeded` since when which instance's node is empty."""
    pods, nodes, groups = cluster.list("/api/v1/pods"), cluster.list("/api/v1/nodes"), cluster.groups()
    now = time.monotonic()
    idle = {instance_of(node) for node in nodes if empty(node, pods)}
    for gone in unneeded.keys() - idle:
        del unneeded[gone]
    for instance in idle:
        unneeded.setdefault(instance, now)
    action = decide(bounds, groups, nodes, pods, unneeded, now, unneeded_seconds)
    if action is not None:
        print(f"{action}; unschedulable: {', '.join(unschedulable(pods)) or 'none'}", flush=True)
        cluster.do(action)


if __name__ == "__main__":
    main(sys.argv[1:])
