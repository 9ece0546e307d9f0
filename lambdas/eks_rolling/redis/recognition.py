"""Which pods are servers of Redis' kind, whatever anybody declared: by command, image, ports and controller. Pure."""

import re
from collections.abc import Sequence
from itertools import pairwise

from eks_rolling.observed.kubernetes import Container, Owner, Pod

KINDS = r"(redis|valkey|keydb|dragonfly|kvrocks|garnet|redict|falkordb)"

MODULES = (
    r"redismod|rejson|redisearch|redisgraph|redistimeseries|rebloom|redisbloom|redisai|redisgears|pika|dicedb|ssdb"
)
"""Redis' own images with a module loaded, and servers like it whose names are too short to be looked for in others."""

IMAGE = re.compile(rf"(.*[-_])?{KINDS}\d*([-_.].*)?|{MODULES}")
"""The last part of an image's path, where it names a server: `redis`, `bitnami/redis-cluster`, `rhel9/redis-6`."""

ORGANIZATION = re.compile(KINDS)
"""Another part of it: `ghcr.io/redis/docker`."""

COMPANION = re.compile(
    r"exporter|metrics|insight|operator|controller|rigger|commander|benchmark|prox(y|ies)|envoy|^ray$|browser|worker|client|"
    r"backup|restore|migrat|sync|shake|dump|tool|admin|scaler|webdis|adapter|consumer|producer|check|probe|(?<!la)test|"
    r"(^|[-_]|pre)warm-?(er|ing|up)|smoke|datasource|^riot|"
    rf"(^|[-_])((ui|web|app|api)(?![-_]{KINDS}\d*$)|cli|job|cron|init|django|celery|rails|rdb)([-_]|$)"
)
"""The last part of an image's path, or a controller's kind, that only works with one: `redis-web`, not `web-redis`."""

PROGRAM = re.compile(
    r"(?:redis|valkey|keydb|garnet|redict)-server|(?:redis|valkey|redict)-sentinel|redis-stack-server|dragonfly|kvrocks|"
    r"GarnetServer(?:\.dll)?"
)

ASKS_ONE = re.compile(r"(redis|valkey|keydb|redict)-(cli|benchmark)")

TALKS_TO_ONE = re.compile(
    rf"{ASKS_ONE.pattern}|nc|ncat|netcat|socat|telnet|ping|curl|wget|dig|nslookup|getent|echo|printf|cp|cat|"
    r"wait.*|.*exporter.*|.*proxy.*|python[\d.]*|node|java|ruby|php|celery|bundle|npm|until|while|if|test|\[|"
    r"for|case|export|which|type|pgrep|pkill|killall|pidof|grep|sed|awk|ps|apt|apt-get|apk|yum|dnf|pip\d?|kubectl|helm|"
    r"mkdir|chown|chmod|ls|mv|ln|rm|sleep"
)
"""A word that a command begins with and whose arguments may name a server without running one."""

WRAPPER = re.compile(
    r"exec|tini|dumb-init|catatonit|gosu|su-exec|su|sudo|doas|runuser|setpriv|setsid|env|nice|ionice|chrt|taskset|numactl|"
    r"nohup|stdbuf|timeout|time|chroot|unshare|prlimit|(ba|da|a|z)?sh|busybox"
)
"""A command that runs the one that follows its options: `dumb-init --single-child redis-server`."""

TAKES_A_VALUE = re.compile(r"-[hrHu]|-[a-z][\w-]{2,}|--[\w-]+")
"""An option whose value follows it: `--host redis-server` runs nothing."""

STARTS = re.compile(r"entrypoint|start|run|\.sh$")
"""In the name of a script that may run a server, as images' own do."""

SETTING = re.compile(
    r"--(appendonly|appendfsync|maxmemory-policy|replicaof|slaveof|masterauth|cluster-enabled|cluster-config-file|"
    r"(cluster|replica)-announce-[\w-]+)"
)
"""An argument that servers take, and what only works with them does not."""

PORT_NAME = re.compile(rf"(tcp-|tls-)?{KINDS}(-\w+)*")

PORTS = {6379, 26379}


def redis_evidence(pod: Pod) -> str:
    """Why the pod is taken for a server of Redis' kind: its command, its image, its ports or the kind of its
    controller, as operators make them; "" if it is not."""
    return next(filter(None, map(_evidence, pod.containers)), "") or _owned(pod.owner)


def only_watches(pod: Pod) -> bool:
    """Whether all in the pod that is of Redis' kind is a Sentinel, which has no data."""
    alike = [c for c in pod.containers if _evidence(c)]
    return bool(alike) and all(map(_is_sentinel, alike))


def port_of(pod: Pod) -> int:
    """Where the server that is in the pod may be asked: as its command says, as it declares, or as servers do."""
    for container in (c for c in pod.containers if _evidence(c)):
        words = [word for words in _commands(container.command) for word in words]
        said = [after for word, after in pairwise(words) if word == "--port" and re.fullmatch("[0-9]{1,5}", after)]
        if said and 0 < int(said[0]) < 65536:
            return int(said[0])
        if found := [*sorted(PORTS.intersection(container.ports)), *container.ports]:
            return found[0]
    return 26379 if only_watches(pod) else 6379


def _is_sentinel(container: Container) -> bool:
    running = [(program, words) for words in _commands(container.command) if (program := _run_by(words))]
    if running:
        return all(program.endswith("-sentinel") or "--sentinel" in words for program, words in running)
    return "sentinel" in _parts(container.image)[-1] or (
        26379 in container.ports and 6379 not in container.ports and "it listens" in _evidence(container)
    )


def _owned(owner: Owner | None) -> str:
    kind = owner.kind.lower() if owner else ""
    return f"a {owner.kind} owns it" if owner and re.match(KINDS, kind) and not COMPANION.search(kind) else ""


def _evidence(container: Container) -> str:
    simple = _commands(container.command)
    if program := next(filter(None, map(_run_by, simple)), ""):
        return f"it runs {program}"
    if _is_companion(container.image) or _only_asks(simple):
        return ""
    *organizations, last = _parts(container.image)
    if IMAGE.fullmatch(last) or any(map(ORGANIZATION.fullmatch, organizations)):
        return f"its image is {container.image}"
    if ports := sorted(PORTS.intersection(container.ports)):
        return f"it listens on port {ports[0]}"
    if name := next(filter(_names_one, container.port_names), ""):
        return f"its port is called {name}"
    if setting := next(filter(SETTING.fullmatch, (w for words in simple for w in words)), ""):
        return f"it is started with {setting}"
    return ""


def _names_one(port: str) -> bool:
    return bool(PORT_NAME.fullmatch(port)) and not COMPANION.search(port)


def _commands(command: Sequence[str]) -> list[list[str]]:
    """The simple commands of a container: its own words without scripts, and each command of a shell's script."""
    argv = [word for word in command if not _is_script(word)]
    scripts = (re.split(r"[;&|\n()`]+", text) for text in command if _is_script(text))
    return [words for words in [argv, *(part.split() for script in scripts for part in script)] if words]


def _is_script(word: str) -> bool:
    return len(word.split()) > 1


def _only_asks(simple: Sequence[Sequence[str]]) -> bool:
    """A job that runs a client out of a server's image."""
    names = [_name(next((w for w in words if w != "exec"), "")) for words in simple]
    return any(map(ASKS_ONE.fullmatch, names)) and not any(map(STARTS.search, names))


def _run_by(words: Sequence[str]) -> str:
    """The server that one simple command runs: by itself or behind wrappers."""
    before, wrapped = "", True
    for word in words:
        name, option = _name(word), before.startswith("-")
        if PROGRAM.fullmatch(name) and (wrapped or not TAKES_A_VALUE.fullmatch(before)):
            return name
        if TALKS_TO_ONE.fullmatch(name):
            return ""
        # What follows a wrapper's option may be its value.
        if not word.startswith("-") and not (wrapped and option and before != "--"):
            wrapped = bool(WRAPPER.fullmatch(name))
        before = word
    return ""


def _name(word: str) -> str:
    return word.strip("\"'").rpartition("/")[2]


def _parts(image: str) -> list[str]:
    """The path without registry, tag and digest."""
    first, *rest = image.partition("@")[0].split("/")
    parts = rest if rest and re.search(r"[.:]|^localhost$", first) else [first, *rest]
    return [*parts[:-1], parts[-1].partition(":")[0]]


def _is_companion(image: str) -> bool:
    return bool(COMPANION.search(_parts(image)[-1]))
