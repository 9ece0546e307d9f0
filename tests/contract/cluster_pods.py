"""What a Redis Cluster's migration needs around real servers: pretended pods with real volumes, writers, a sampler.

Deleting a pod ends its process; another one starts at another address, with the volume: the directory of nodes.conf.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.cluster import ClusterNode as StartupNode
from redis.cluster import RedisCluster

from eks_rolling.observed.kubernetes import Node, Owner, Pod, Selector, Workload
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, Login, Role
from eks_rolling.redis import stand_in
from eks_rolling.redis.groups import AUTH, GROUP, PART, TLS, Part
from tests.contract.redis_pods import NEW, OLD, unreplicated
from tests.contract.redis_sides import Processes, bound_to, granted
from tests.redis_client import ClosingClient
from tests.waiting import until

PASSWORD = "correct-horse"
LOGIN = Login("default", auth="redis-auth")
NODE_TIMEOUT_MS = 3000
GRACE_SECONDS = 15.0
"""A server waits up to 10 s for its replicas (shutdown-timeout)."""

RETURN_SECONDS = 0.5
"""From the end of a pod until its successor starts."""

_numbers = itertools.count(1)

ZONES = ("redis-a", "redis-b")
MASTERS = ("redis-a-0", "redis-b-1", "redis-a-2")
MASTERS_ALONE = ("redis-a-0", "redis-b-0", "redis-a-1")
REPLICA_OF = {"redis-b-0": "redis-a-0", "redis-a-1": "redis-b-1", "redis-b-2": "redis-a-2"}


@dataclass
class Process:
    """A server of the cluster; its directory is its volume."""

    host: str
    directory: Path
    popen: subprocess.Popen[bytes]


class Cluster:
    """Real nodes of one Redis Cluster behind pretended pods: the part of Kubernetes that a migration needs."""

    def __init__(
        self, *, replicas: bool = True, secured: bool = False, program: str = "redis-server", network: str = ""
    ) -> None:
        """`secured`: TLS only, with client certificates; the roll is an ACL user of its own. `network`: where the
        addresses are, with what separates it from the last part; "" for one of our own."""
        number = os.getpid() % 250 * 200 + next(_numbers)
        self._net = network or f"127.{10 + number // 250 % 200}.{number % 250}."
        self._hosts = itertools.count(1)
        self._root = Path(tempfile.mkdtemp(prefix="redis-cluster-"))
        self._program = program
        self._serial = itertools.count(1)
        self._later: list[threading.Timer] = []
        self._sent: list[subprocess.Popen[bytes]] = []
        self._lock = threading.RLock()
        self.secured = Processes(secured=True) if secured else None
        self.secrets = self.secured.secrets if self.secured else {"redis-auth": {"password": PASSWORD}}
        self.login = self.secured.login if self.secured else LOGIN
        self.client_options = self.secured.client_options if self.secured else {}
        self.client = ClosingClient(lambda _namespace, name: self.secrets[name])
        self._masters = MASTERS if replicas else MASTERS_ALONE
        self._replica_of = REPLICA_OF if replicas else {}
        self.more_lines: list[str] = []
        """Configuration of every server that is started from now on."""
        self.lost_volumes: set[str] = set()
        """Pods that come back with an empty one."""
        self.pods: dict[str, Pod] = {}
        self.processes: dict[str, Process] = {}
        self.created: list[str] = []
        """Stand-ins, in order."""
        self.deaths: list[float] = []
        """When masters died (monotonic seconds): what each may cost is said in `unreplicated`."""
        for name in sorted({*self._masters, *self._replica_of}):
            self.start(name, self._root / name)
            self.pods[name] = self._pod(name, OLD if name in {"redis-a-0", "redis-b-0"} else "other")

    # Building

    def start(self, name: str, directory: Path, host: str = "") -> None:
        host = host or f"{self._net}{next(self._hosts)}"
        directory.mkdir(exist_ok=True)
        lines = [
            *bound_to(host, self._program), f"dir {directory}", "cluster-enabled yes",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}", f"requirepass {PASSWORD}", f"masterauth {PASSWORD}",
            'save ""', "appendonly yes", "appendfsync no", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1",
        ]  # fmt: skip
        if self.secured:
            user = f"user roll on >{PASSWORD} resetchannels -@all {granted()[2]}"
            lines += [*self.secured.encrypted(6379), "tls-cluster yes", user]
        else:
            lines.append("port 6379")
        lines += self.more_lines
        (directory / "redis.conf").write_text("\n".join(lines) + "\n")
        with (directory / "log").open("ab") as log:
            popen = subprocess.Popen(
                [self._program, str(directory / "redis.conf")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.processes[name] = Process(host, directory, popen)

    def form(self) -> None:
        """Introduces everybody, gives each master its slots and each replica its master."""
        for name in self.pods:
            self.wait(lambda n=name: self.command(n, "ping") == "PONG", f"{name} answers")
        for name in list(self.pods)[1:]:
            self.command(next(iter(self.pods)), "cluster", "meet", self.processes[name].host, "6379")
        for number, name in enumerate(self._masters):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            self.command(name, "cluster", "addslots", *map(str, range(first, last + 1)))
            self.command(name, "cluster", "set-config-epoch", str(number + 1))
        everybody = len(self.pods)
        for name in self.pods:
            self.wait(partial(self._says, name, f"cluster_known_nodes:{everybody}"), f"{name} knows all")
        for name, master in self._replica_of.items():
            self.command(name, "cluster", "replicate", self.command(master, "cluster", "myid"))
        for name in self.pods:
            self.wait(partial(self._says, name, "cluster_state:ok"), f"{name} sees all slots served")

    def _says(self, name: str, line: str) -> bool:
        return line in self.command(name, "cluster", "info").split()

    def wait(self, condition: Any, what: str, seconds: float = 30) -> None:
        def holds() -> bool:
            with contextlib.suppress(subprocess.CalledProcessError):
                return bool(condition())
            return False

        until(holds, what, within_seconds=seconds, pause=0.1)

    def command(self, name: str, *command: str) -> str:
        """What redis-cli says at the pod."""
        line = self._line(name, *command)
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=5).stdout.strip()

    def send(self, name: str, *command: str) -> None:
        """A command whose answer nobody waits for."""
        line = self._line(name, *command)
        self._sent.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def _line(self, name: str, *command: str) -> list[str]:
        host = self.processes[name].host
        return ["redis-cli", "-h", host, "--no-auth-warning", "-a", PASSWORD, *self._tls(), *command]

    def _tls(self) -> list[str]:
        if not self.secured:
            return []
        options = self.client_options
        files = {"--cacert": "ssl_ca_certs", "--cert": "ssl_certfile", "--key": "ssl_keyfile"}
        return ["--tls", "--insecure", *(word for name, key in files.items() for word in (name, options[key]))]

    def tell(self) -> None:
        """Prints what the servers wrote, of which a failed test shows all."""
        for log in sorted(self._root.glob("*/log")):
            print(f"--- {log.parent.name}", log.read_text(errors="replace"), sep="\n")

    def close(self) -> None:
        for timer in self._later:
            timer.cancel()
        for sent in self._sent:
            sent.kill()
            sent.wait()
        with self._lock:
            for process in self.processes.values():
                process.popen.kill()
                process.popen.wait()
        shutil.rmtree(self._root, ignore_errors=True)
        if self.secured:
            self.secured.close()

    # What a migration sees of Kubernetes

    def _pod(self, name: str, node: str, annotations: Mapping[str, str] | None = None) -> Pod:
        serial = str(next(self._serial))
        standing_in = annotations is not None
        return Pod(
            "default",
            name,
            f"uid-{serial}",
            node,
            None if standing_in else Owner("StatefulSet", "default", name.rpartition("-")[0]),
            labels={stand_in.LABEL: "shards"} if standing_in else {},
            annotations=dict(annotations or {}),
            claims=() if standing_in else (f"data-{name}",),
            address=self.processes[name].host,
            resource_version=serial,
        )

    def stateful_sets(self, _namespace: str) -> list[Workload]:
        found = []
        for zone in ZONES:
            size = sum(n.startswith(zone) for n in (*self._masters, *self._replica_of))
            found.append(
                Workload(
                    Owner("StatefulSet", "default", zone),
                    desired=size,
                    selector=Selector(),
                    annotations={
                        GROUP: "shards",
                        PART: str(Part.CLUSTER),
                        AUTH: self.login.auth,
                        TLS: self.login.tls,
                    },
                )
            )
        return found

    def workload(self, owner: Owner) -> Workload:
        return next(w for w in self.stateful_sets("default") if w.owner == owner)

    def pods_of(self, workload: Workload) -> list[Pod]:
        with self._lock:
            return [p for p in self.pods.values() if p.owner == workload.owner]

    def stand_ins(self, _namespace: str, group: str) -> list[Pod]:
        with self._lock:
            return [p for p in self.pods.values() if p.labels.get(stand_in.LABEL) == group]

    def node(self, _name: str) -> Node | None:
        return None

    def create_stand_in(self, _workload: Workload, pod: Pod, _zone: str, marks: Mapping[str, str]) -> str:
        name = stand_in.name_for(pod.name)
        with self._lock:
            if name not in self.pods:
                self.created.append(name)
                self.start(name, self._root / f"{name}-{next(self._serial)}")
                self.pods[name] = self._pod(name, NEW, marks)
        return ""

    def delete_pod(self, pod: Pod) -> None:
        """A StatefulSet's comes back a moment later, elsewhere, with its volume."""
        with self._lock:
            if pod.name not in self.pods or self.pods[pod.name].uid != pod.uid:
                return
            self.pods.pop(pod.name)
            process = self.processes.pop(pod.name)
            process.popen.terminate()
            try:
                process.popen.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                # As a kubelet does, to one that stands still, say.
                process.popen.kill()
                process.popen.wait()
            if pod.owner is not None:
                self.after(RETURN_SECONDS, lambda: self.come_back(pod.name, process.directory))

    # What happens to pods

    def after(self, seconds: float, work: Any) -> None:
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()
        self._later.append(timer)

    def come_back(self, name: str, directory: Path, node: str = NEW) -> None:
        """With its volume, unless that is among the lost ones: then with a new, empty one, once."""
        with self._lock:
            if name in self.lost_volumes:
                self.lost_volumes.remove(name)
                directory = self._root / f"{name}-{next(self._serial)}"
            self.start(name, directory)
            self.pods[name] = self._pod(name, node)

    def volume(self, name: str) -> Path:
        return self._root / name

    def crash(self, name: str) -> Process:
        """The pod and its process are gone at once, as when its node dies."""
        # Before anything is asked: what a test wants to interrupt may be over a moment later.
        self.processes[name].popen.send_signal(signal.SIGKILL)
        died = time.monotonic()
        with self._lock:
            self.pods.pop(name)
            process = self.processes.pop(name)
            process.popen.wait()
            others = list(self.processes)
        known = [k for n in others for k in self.view(n).table if k.address and k.address.host == process.host]
        if known and all(k.slots for k in known):
            self.deaths.append(died)
        return process

    def freeze(self, name: str, seconds: float) -> None:
        """The pod's process stands still, and goes on later."""
        popen = self.processes[name].popen
        popen.send_signal(signal.SIGSTOP)
        self.after(seconds, lambda: popen.send_signal(signal.SIGCONT))

    def restart_container(self, name: str, seconds: float) -> None:
        """The process is killed; the same pod starts it again a moment later, with the same volume."""
        process = self.processes[name]
        if self.view(name).itself.role is Role.MASTER:
            self.deaths.append(time.monotonic())
        process.popen.kill()
        process.popen.wait()

        def again() -> None:
            with self._lock:
                if self.processes.get(name) is process:
                    self.start(name, process.directory, process.host)

        self.after(seconds, again)

    def settle(self) -> None:
        """Waits for what faults started for later."""
        for timer in self._later:
            timer.join()

    def is_whole_again(self) -> bool:
        """Whether all nodes see all slots served, agree on by whom, and every replica has its master's data."""
        found = [self.client.cluster_node(Endpoint(Address(p.host), self.login, n)) for n, p in self.processes.items()]
        views = [view for view in found if isinstance(view, ClusterNode)]
        tables = {frozenset((n.id, n.master, n.slots, n.trouble) for n in view.table) for view in views}
        linked = all(view.itself.role is Role.MASTER or view.server.link_up for view in views)
        return len(views) == len(found) and len(tables) == 1 and linked and all(view.ok for view in views)

    def view(self, name: str) -> ClusterNode:
        found = self.client.cluster_node(Endpoint(Address(self.processes[name].host), self.login, name))
        assert isinstance(found, ClusterNode), found
        return found


@contextmanager
def cluster(*, replicas: bool = True, secured: bool = False, network: str = "") -> Iterator[Cluster]:
    found = Cluster(replicas=replicas, secured=secured, network=network)
    try:
        found.form()
        yield found
    except AssertionError:
        found.tell()
        raise
    finally:
        found.close()


@dataclass
class Writer:
    """What a client had acknowledged: value by value, each in a list of its own slot."""

    acked: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    longest_stall: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)


KEYS = 128


def key_of(writer: int, value: int) -> str:
    return f"writer-{writer}:{value % KEYS}"


@contextmanager
def writers(side: Cluster, count: int = 2) -> Iterator[list[Writer]]:
    """Clients that know the cluster, write over all its slots, and try again when that fails."""
    stop = threading.Event()
    found = [Writer() for _ in range(count)]

    def write(number: int, writer: Writer) -> None:
        with contextlib.closing(connect(side)) as client:
            write_with(client, number, writer)

    def write_with(client: RedisCluster, number: int, writer: Writer) -> None:
        last = time.monotonic()
        for value in itertools.count(1):
            while not stop.is_set():
                try:
                    client.rpush(key_of(number, value), value)
                    break
                except (redis.RedisError, OSError) as error:
                    writer.errors[type(error).__name__] += 1
                    time.sleep(0.01)
            if stop.is_set():
                return
            now = time.monotonic()
            writer.longest_stall = max(writer.longest_stall, now - last)
            last = now
            writer.at.append(now)
            writer.acked.append(value)
            time.sleep(0.004)

    threads = [threading.Thread(target=write, args=each, daemon=True) for each in enumerate(found)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def connect(side: Cluster) -> RedisCluster:
    nodes = [StartupNode(p.host, 6379) for p in list(side.processes.values())]
    options = {"password": PASSWORD, "socket_timeout": 1.0, "socket_connect_timeout": 0.5, **side.client_options}
    return RedisCluster(startup_nodes=nodes, **options)


def lost(side: Cluster, written: list[Writer], deaths: Sequence[float] = ()) -> int:
    """Acknowledged writes that the cluster does not hold, but for what the deaths of masters may cost."""
    missing = 0
    with contextlib.closing(connect(side)) as client:
        for number, writer in enumerate(written):
            held = {int(v) for n in range(KEYS) for v in client.lrange(f"writer-{number}:{n}", 0, -1)}
            gone = set(writer.acked) - held
            allowed = unreplicated(writer, deaths, NODE_TIMEOUT_MS / 1000)
            print(f"writer {number} lost:", gone, "of masters that died:", allowed)
            missing += len(gone - allowed)
    return missing


@dataclass
class Sampled:
    """What every node said, ten times a second."""

    samples: int = 0
    unserved: list[str] = field(default_factory=list)
    fewest_copies: int = 100
    """In-sync copies of a shard, its master's among them."""


@contextmanager
def sampler(side: Cluster) -> Iterator[Sampled]:
    """Asks every pod's own view of the slots, and every master for its replicas in sync."""
    stop, found = threading.Event(), Sampled()
    connections: dict[str, redis.Redis] = {}
    joined: set[str] = set()

    def ask(host: str) -> tuple[dict[str, Any], dict[str, Any]]:
        client = connections.setdefault(
            host, redis.Redis(host=host, password=PASSWORD, socket_timeout=1, **side.client_options)
        )
        info: dict[str, Any] = client.execute_command("CLUSTER INFO")
        replication: dict[str, Any] = client.info("replication")
        return info, replication

    def sample() -> None:
        nonlocal joined
        while not stop.wait(0.1):
            with side._lock:
                hosts = {name: side.processes[name].host for name in side.pods if name in side.processes}
            found.samples += 1
            copies: defaultdict[str, int] = defaultdict(int)
            for name, host in hosts.items():
                with contextlib.suppress(redis.RedisError, OSError, KeyError):
                    info, replication = ask(host)
                    served = (info["cluster_state"], int(info["cluster_slots_ok"])) == ("ok", 16384)
                    # Who has just started, or stands in, may know of no majority; the others tell.
                    if not served and host in joined and not name.endswith("stand-in"):
                        now = datetime.now().strftime("%H:%M:%S.%f")  # noqa: DTZ005 (as the servers' logs have it)
                        found.unserved.append(
                            f"{now} {name}: {info['cluster_state']}, {info['cluster_slots_ok']} slots"
                        )
                    joined |= {host} if served else set()
                    online = [
                        v for k, v in replication.items()
                        if k.startswith("slave") and isinstance(v, dict) and v.get("state") == "online"
                    ]  # fmt: skip
                    if replication["role"] == "master" and online:
                        copies[name] = 1 + len(online)
            if copies:
                found.fewest_copies = min(found.fewest_copies, *copies.values())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join(10)
        for client in connections.values():
            client.close()
