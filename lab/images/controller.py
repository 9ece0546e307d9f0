"""The image `controller`: an operator with a kind of its own, which keeps a resource's pods NAME-0, NAME-1, ... alive.

    controller NAME NAMESPACE REPLICAS

Makes the resource `caches.lab.example.com` NAME, whose definition somebody else has made, and a bare pod for each
replica, owned by it: what neither the disruption controller nor a ReplicaSet knows of.
"""

import json
import signal
import ssl
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROUND_SECONDS = 1.0
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_CONFLICT = 409


def call(path: str, body: Json | None = None) -> Json:
    """Reads from the Kubernetes API, or makes an object there. Raises OSError."""
    token = Path(_ACCOUNT, "token").read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    trust = ssl.create_default_context(cafile=f"{_ACCOUNT}/ca.crt")
    request = urllib.request.Request(f"https://10.96.0.1:443{path}", data, headers)
    with urllib.request.urlopen(request, timeout=10, context=trust) as answer:  # noqa: S310 (https)
        found: Json = json.load(answer)
    return found


def ensure(path: str, body: Json) -> None:
    """Makes an object unless it is there."""
    try:
        call(path, body)
    except urllib.error.HTTPError as error:
        if error.code != _CONFLICT:
            raise


def pod(name: str, namespace: str, owner: Json) -> Json:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": owner["metadata"]["name"], "cache": owner["metadata"]["name"]},
            "ownerReferences": [reference],
        },
        "spec": {"containers": [{"name": "cache", "image": "pause:1"}]},
    }


def reconcile(name: str, namespace: str, replicas: int) -> None:
    """Makes what is missing."""
    resources = f"/apis/lab.example.com/v1/namespaces/{namespace}/caches"
    ensure(
        resources,
        {
            "apiVersion": "lab.example.com/v1",
            "kind": "Cache",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas},
        },
    )
    owner = call(f"{resources}/{name}")
    pods = f"/api/v1/namespaces/{namespace}/pods"
    there = {item["metadata"]["name"] for item in call(f"{pods}?labelSelector=cache%3D{name}")["items"]}
    for number in range(replicas):
        if f"{name}-{number}" not in there:
            print(f"making {name}-{number}", flush=True)
            ensure(pods, pod(f"{name}-{number}", namespace, owner))


def main(name: str, namespace: str, replicas: int) -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: told.set())
    while not told.wait(ROUND_SECONDS):
        try:
            reconcile(name, namespace, replicas)
        except OSError as error:
            print(f"this round failed: {error}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
