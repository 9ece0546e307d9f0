"""Which pods are servers of Redis' kind, whatever anybody declared: by command, image and ports. Pure."""

import re
from collections.abc import Sequence

from eks_rolling.observed.kubernetes import Container, Pod

KINDS = r"(redis|valkey|keydb|dragonfly|kvrocks|garnet)"

IMAGE = re.compile(rf"{KINDS}(-(server|sentinel|cluster|stack|ha|enterprise|alpine|debian))*")
"""A part of an image's path that names a server: `redis`, `bitnami/redis-cluster`, `ghcr.io/redis/docker`."""

COMPANION = re.compile(r"exporter|metrics|insight|operator|commander|benchmark|proxy|envoy|^ray$|browser|worker|client")
"""The last part of an image's path that only works with one."""

PROGRAM = re.compile(
    r"(?:redis|valkey|keydb|garnet)-server|(?:redis|valkey)-sentinel|redis-stack-server|dragonfly|kvrocks|GarnetServer"
)

TALKS_TO_ONE = re.compile(
    r"(redis|valkey|keydb)-(cli|benchmark)|nc|ncat|netcat|socat|telnet|ping|curl|wget|dig|nslookup|getent|echo|printf|cp|cat|"
    r"wait.*|.*exporter.*|.*proxy.*|python[\d.]*|node|java|ruby|php|celery|bundle|npm|until|while|if|test|\["
)
"""A word that a command begins with and whose arguments may name a server without running one."""

TAKES_A_VALUE = re.compile(r"-[hrHu]|--[\w-]+")
"""An option whose value follows it: `--host redis-server` runs nothing."""

PORTS = {6379, 26379}


def redis_evidence(pod: Pod) -> str:
    """Why the pod is taken for a server of Redis' kind: its command, its image or its ports; "" if it is not."""
    return next(filter(None, map(_evidence, pod.containers)), "")


def _evidence(container: Container) -> str:
    if program := _program(container.command):
        return f"it runs {program}"
    if _is_companion(container.image):
        return ""
    if any(IMAGE.fullmatch(part) for part in _parts(container.image)):
        return f"its image is {container.image}"
    if ports := sorted(PORTS.intersection(container.ports)):
        return f"it listens on port {ports[0]}"
    return ""


def _program(command: Sequence[str]) -> str:
    """The server that a container's command runs: by itself, behind wrappers, or in a shell's script; "" if none."""
    argv = [word for word in command if not _is_script(word)]
    scripts = (re.split(r"[;&|\n()`]+", text) for text in command if _is_script(text))
    simple = [argv, *(part.split() for script in scripts for part in script)]
    return next(filter(None, map(_run_by, simple)), "")


def _is_script(word: str) -> bool:
    return len(word.split()) > 1


def _run_by(words: Sequence[str]) -> str:
    """The server that one simple command runs."""
    before = ""
    for number, word in enumerate(words):
        name = word.strip("\"'").rpartition("/")[2]
        if PROGRAM.fullmatch(name) and (number == 0 or not TAKES_A_VALUE.fullmatch(before)):
            return name
        if TALKS_TO_ONE.fullmatch(name):
            return ""
        before = word
    return ""


def _parts(image: str) -> list[str]:
    """The path without registry, tag and digest."""
    first, *rest = image.partition("@")[0].split("/")
    parts = rest if rest and re.search(r"[.:]|^localhost$", first) else [first, *rest]
    return [*parts[:-1], parts[-1].partition(":")[0]]


def _is_companion(image: str) -> bool:
    return bool(COMPANION.search(_parts(image)[-1]))
