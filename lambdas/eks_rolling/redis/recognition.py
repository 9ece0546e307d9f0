"""Which pods are servers of Redis' kind, whatever anybody declared: by command, image and ports. Pure."""

import re

from eks_rolling.observed.kubernetes import Container, Pod

KINDS = r"(redis|valkey|keydb|dragonfly|kvrocks|garnet)"

IMAGE = re.compile(rf"{KINDS}(-(server|sentinel|cluster|stack|ha|enterprise|alpine|debian))*")
"""A part of an image's path that names a server: `redis`, `bitnami/redis-cluster`, `ghcr.io/redis/docker`."""

COMPANION = re.compile(r"exporter|metrics|insight|operator|commander|benchmark|proxy|envoy|^ray$|browser|worker|client")
"""The last part of an image's path that only works with one."""

PROGRAM = re.compile(
    r"(?:^|[\s/;&|(])((?:redis|valkey|keydb|garnet)-server|(?:redis|valkey)-sentinel|dragonfly|kvrocks|GarnetServer)(?![\w.:-])"
)

PORTS = {6379, 26379}


def redis_evidence(pod: Pod) -> str:
    """Why the pod is taken for a server of Redis' kind: its command, its image or its ports; "" if it is not."""
    return next(filter(None, map(_evidence, pod.containers)), "")


def _evidence(container: Container) -> str:
    if found := PROGRAM.search(" ".join(container.command)):
        return f"it runs {found[1]}"
    if _is_companion(container.image):
        return ""
    if any(IMAGE.fullmatch(part) for part in _parts(container.image)):
        return f"its image is {container.image}"
    if ports := sorted(PORTS.intersection(container.ports)):
        return f"it listens on port {ports[0]}"
    return ""


def _parts(image: str) -> list[str]:
    """The path without registry, tag and digest."""
    first, *rest = image.partition("@")[0].split("/")
    parts = rest if rest and re.search(r"[.:]|^localhost$", first) else [first, *rest]
    return [*parts[:-1], parts[-1].partition(":")[0]]


def _is_companion(image: str) -> bool:
    return bool(COMPANION.search(_parts(image)[-1]))
