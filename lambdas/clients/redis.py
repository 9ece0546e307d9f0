"""Redis servers and sentinels, through redis-py's connections with plain answers.

Pods are addressed by their IP address, so certificates are checked against the CA alone, not against a host name.
"""

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NotInTime
from redis.retry import Retry

from lambdas.errors import AccessDenied, Conflict, Refused, Transient
from lambdas.redis_observed import (
    Address,
    Endpoint,
    Follower,
    KnownReplica,
    KnownSentinel,
    Login,
    Role,
    Sentinel,
    Server,
    Silent,
)

Json = dict[str, Any]

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""Pods are milliseconds away; a switch must learn of a dead one well before its pause ends."""

SETTINGS = (
    "replica-priority",
    "replica-announce-ip",
    "min-replicas-to-write",
    "masterauth",
    "requirepass",
    "save",
    "appendonly",
)

NEEDED: tuple[tuple[str, ...], ...] = (
    ("FAILOVER", "ABORT"),
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "PAUSE", "1", "WRITE"),
    ("CLIENT", "UNPAUSE"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CONFIG", "SET", "replica-priority", "100"),
)
"""What a migration will call on a server, as ACL DRYRUN is asked about it."""


class RedisClient:
    """`secrets` answers a Secret's decoded keys, by namespace and name. Connections are kept, one per server."""

    def __init__(self, secrets: Callable[[str, str], Mapping[str, str]]) -> None:
        self._secrets = secrets
        self._connections: dict[tuple[Endpoint, bool], redis.Redis] = {}
        self._directory: Path | None = None

    # Reads

    def server(self, endpoint: Endpoint) -> Server | Silent:
        commands = [
            ("INFO", "everything"),
            *(("CONFIG", "GET", name) for name in SETTINGS),
            ("COMMAND", "INFO", *sorted({c[0].lower() for c in NEEDED})),
            ("ACL", "WHOAMI"),
        ]
        try:
            info, *answers = self._ask(endpoint, commands)
            *values, known, user = answers
            denied = set(_unknown(known)) | {"CONFIG" for v in values[:1] if isinstance(v, Exception)}
            if isinstance(user, str):
                checks = [("ACL", "DRYRUN", user, *command) for command in NEEDED]
                denied |= set(_forbidden(self._ask(endpoint, checks)))
        except (NotConnected, NotInTime) as error:
            return Silent(endpoint.address, _plain(error))
        if isinstance(info, Exception):
            raise _denied(endpoint, info)
        return read_server(endpoint.address, info, _settings(values), frozenset(denied))

    def sentinel(self, endpoint: Endpoint, name: str) -> Sentinel | Silent:
        commands = [
            ("SENTINEL", "MASTER", name),
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
            ("SENTINEL", "REPLICAS", name),
            ("SENTINEL", "SENTINELS", name),
            ("SENTINEL", "CKQUORUM", name),
            ("SENTINEL", "MYID"),
            ("SENTINEL", "CONFIG", "GET", "*"),
        ]
        try:
            answers = self._ask(endpoint, commands, sentinel=True)
        except (NotConnected, NotInTime) as error:
            return Silent(endpoint.address, _plain(error))
        for answer in answers:
            if isinstance(answer, (NoPermissionError, AuthenticationError)):
                raise _denied(endpoint, answer)
        return read_sentinel(endpoint.address, answers)

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        info = self._read(endpoint, "INFO", "replication")
        return Role(info["role"]), _offset(info)

    def hand_over_state(self, endpoint: Endpoint) -> str:
        return str(self._read(endpoint, "INFO", "replication").get("master_failover_state", "no-failover"))

    def current_master(self, endpoint: Endpoint, name: str) -> Address | None:
        return _address(self._read(endpoint, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name, sentinel=True))

    # Writes

    def follow(self, endpoint: Endpoint, expected: Server, master: Address) -> None:
        self._confirm(endpoint, expected)
        self._one(endpoint, "REPLICAOF", master.host, str(master.port))

    def set_priority(self, endpoint: Endpoint, expected: Server, priority: int) -> None:
        self._confirm(endpoint, expected)
        self._one(endpoint, "CONFIG", "SET", "replica-priority", str(priority))

    def pause_writes(self, endpoint: Endpoint, expected: Server, milliseconds: int) -> None:
        self._confirm(endpoint, expected)
        self._one(endpoint, "CLIENT", "PAUSE", str(milliseconds), "WRITE")

    def unpause(self, endpoint: Endpoint) -> None:
        self._one(endpoint, "CLIENT", "UNPAUSE")

    def hand_over(self, endpoint: Endpoint, expected: Server, to: Address) -> None:
        self._confirm(endpoint, expected)
        self._one(endpoint, "FAILOVER", "TO", to.host, str(to.port), "FORCE", "TIMEOUT", "1")

    def abort_hand_over(self, endpoint: Endpoint) -> None:
        try:
            self._one(endpoint, "FAILOVER", "ABORT")
        except Transient as error:
            if "No failover in progress" not in str(error):
                raise

    def disconnect_clients(self, endpoint: Endpoint) -> None:
        self._one(endpoint, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def fail_over(self, endpoint: Endpoint, name: str) -> None:
        self._one(endpoint, "SENTINEL", "FAILOVER", name, sentinel=True)

    def reset(self, endpoint: Endpoint, name: str) -> None:
        self._one(endpoint, "SENTINEL", "RESET", name, sentinel=True)

    # Connections

    def _confirm(self, endpoint: Endpoint, expected: Server) -> None:
        """Raises Conflict where another process, or one of another role, answers now."""
        info = self._read(endpoint, "INFO", "server") | self._read(endpoint, "INFO", "replication")
        if str(info["run_id"]) != expected.run_id or info["role"] != expected.role:
            raise Conflict(f"Redis {endpoint} is not what it was: it restarted, or its role changed meanwhile.")

    def _one(self, endpoint: Endpoint, *command: str, sentinel: bool = False) -> Any:
        with _translated(endpoint):
            return self._raw(endpoint, *command, sentinel=sentinel)

    def _read(self, endpoint: Endpoint, *command: str, sentinel: bool = False) -> Any:
        """Asks again where the connection was closed meanwhile, as sentinels do to all clients in a failover."""
        with contextlib.suppress(NotConnected):
            return self._raw(endpoint, *command, sentinel=sentinel)
        return self._one(endpoint, *command, sentinel=sentinel)

    def _raw(self, endpoint: Endpoint, *command: str, sentinel: bool = False) -> Any:
        return self._connected(endpoint, sentinel=sentinel).execute_command(*command)  # type: ignore[no-untyped-call]

    def _ask(self, endpoint: Endpoint, commands: Sequence[tuple[str, ...]], *, sentinel: bool = False) -> list[Any]:
        """All at once. Errors of single commands are among the answers. Raises AccessDenied for refused credentials."""
        try:
            try:
                answers = self._pipeline(endpoint, commands, sentinel=sentinel)
            except NotConnected:
                answers = self._pipeline(endpoint, commands, sentinel=sentinel)
        except AuthenticationError as error:
            raise _denied(endpoint, error) from None
        refused = next((a for a in answers if isinstance(a, AuthenticationError)), None)
        if refused:
            raise _denied(endpoint, refused)
        return answers

    def _pipeline(self, endpoint: Endpoint, commands: Sequence[tuple[str, ...]], *, sentinel: bool) -> list[Any]:
        pipeline = self._connected(endpoint, sentinel=sentinel).pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def _connected(self, endpoint: Endpoint, *, sentinel: bool) -> redis.Redis:
        key = (endpoint, sentinel)
        if key not in self._connections:
            username, password = self._credentials(endpoint.login, sentinel=sentinel)
            try:
                self._connections[key] = self._connect(endpoint, username, password)
            except AuthenticationError as error:
                # Sentinels often have no password although their servers have one.
                if not (sentinel and "without any password" in str(error)):
                    raise
                self._connections[key] = self._connect(endpoint, None, None)
        return self._connections[key]

    def _connect(self, endpoint: Endpoint, username: str | None, password: str | None) -> redis.Redis:
        connected = redis.Redis(
            host=endpoint.address.host,
            port=endpoint.address.port,
            username=username,
            password=password,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            decode_responses=True,
            protocol=2,
            single_connection_client=True,
            # Nothing is sent twice: whoever decided looks again first.
            retry=Retry(NoBackoff(), 0),
            **self._tls(endpoint.login),
        )
        # Its reading of COMMAND INFO takes every command for one that exists.
        connected.response_callbacks.pop("COMMAND", None)
        return connected

    def _credentials(self, login: Login, *, sentinel: bool) -> tuple[str | None, str | None]:
        if not login.auth:
            return None, None
        secret = self._secrets(login.namespace, login.auth)
        if sentinel and "sentinel-password" in secret:
            return secret.get("sentinel-username"), secret["sentinel-password"]
        return secret.get("username"), secret.get("password")

    def _tls(self, login: Login) -> dict[str, Any]:
        if not login.tls:
            return {}
        secret = self._secrets(login.namespace, login.tls)
        options: dict[str, Any] = {"ssl": True, "ssl_check_hostname": False, "ssl_cert_reqs": "required"}
        if "ca.crt" in secret:
            options["ssl_ca_data"] = secret["ca.crt"]
        if "tls.crt" in secret and "tls.key" in secret:
            # Python's ssl module loads a client certificate from files only.
            directory = self._private_directory() / f"{login.namespace}.{login.tls}"
            directory.mkdir(exist_ok=True)
            for key in ("tls.crt", "tls.key"):
                (directory / key).write_text(secret[key])
            options |= {"ssl_certfile": str(directory / "tls.crt"), "ssl_keyfile": str(directory / "tls.key")}
        return options

    def _private_directory(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="redis-tls-"))
            atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
        return self._directory


def _plain(error: Exception) -> str:
    """An error in one line. redis-py's messages name host and reason, never credentials."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _denied(endpoint: Endpoint, error: Exception) -> AccessDenied:
    if isinstance(error, NoPermissionError) or "NOPERM" in str(error) or "unknown command" in str(error).lower():
        return AccessDenied(
            f"Redis {endpoint} does not permit a command ({_plain(error)}): grant what deploy/README.md lists."
        )
    secret = f"Secret {endpoint.login.namespace}/{endpoint.login.auth}" if endpoint.login.auth else "no Secret at all"
    return AccessDenied(
        f"Redis {endpoint} refuses the credentials ({_plain(error)}): they come from {secret}; correct it, or the "
        "annotation eks-rolling.io/redis-auth."
    )


@contextmanager
def _translated(endpoint: Endpoint) -> Iterator[None]:
    """redis-py's errors as ours. Raises Transient, AccessDenied, Refused."""
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise _denied(endpoint, error) from None
    except ResponseError as error:
        text = _plain(error)
        if text.startswith(("INPROG", "NOGOODSLAVE")):
            raise Refused(f"Sentinel {endpoint} does not fail over now: {text}.") from None
        if "unknown command" in text.lower():
            raise _denied(endpoint, error) from None
        raise Transient(f"Redis {endpoint} answers: {text}.") from None
    except RedisError as error:
        raise Transient(f"Redis {endpoint} does not answer: {_plain(error)}.") from None


def _settings(values: Sequence[Any]) -> dict[str, str]:
    """CONFIG GET's answers, those that were permitted."""
    pairs = [v for v in values if isinstance(v, list) and len(v) >= 2]
    return {str(v[0]): str(v[1]) for v in pairs}


def _unknown(known: Any) -> Iterator[str]:
    """Commands that COMMAND INFO knows nothing of: renamed ones."""
    names = sorted({c[0].lower() for c in NEEDED})
    if isinstance(known, Mapping):
        yield from (name.upper() for name in names if name not in known)
    elif isinstance(known, list):
        yield from (name.upper() for name, entry in zip(names, known, strict=False) if entry is None)


def _forbidden(answers: Sequence[Any]) -> Iterator[str]:
    """Commands that ACL DRYRUN says the user may not run; where it may not be asked, nothing is known."""
    for command, answer in zip(NEEDED, answers, strict=True):
        if isinstance(answer, str) and answer != "OK":
            yield " ".join(command[:2]) if command[0] in {"CLIENT", "CONFIG"} else command[0]


def _offset(info: Json) -> int:
    """A master's own, or what a replica has processed."""
    return int(info["master_repl_offset"] if info["role"] == Role.MASTER else info.get("slave_repl_offset", 0))


def _address(answer: Any) -> Address | None:
    return Address(str(answer[0]), int(answer[1])) if answer else None


def read_server(address: Address, info: Json, settings: Mapping[str, str], denied: frozenset[str]) -> Server:
    """INFO and CONFIG GET as a Server. Settings that were not told stay None."""
    role = Role(info["role"])
    followers = [v for k, v in info.items() if k.startswith("slave") and isinstance(v, Mapping) and "ip" in v]
    syncing = role is Role.REPLICA and bool(info.get("master_sync_in_progress"))
    left = info.get("master_sync_left_bytes", -1)
    password = settings.get("requirepass")
    persists = None
    if "save" in settings and "appendonly" in settings:
        persists = bool(settings["save"]) or settings["appendonly"] == "yes"
    version = info.get("valkey_version") or info["redis_version"]
    return Server(
        address,
        version=tuple(int(part) for part in str(version).split(".") if part.isdigit()),
        flavor="valkey" if "valkey_version" in info else "redis",
        run_id=str(info["run_id"]),
        role=role,
        offset=_offset(info),
        loading=bool(info.get("loading")),
        followers=tuple(
            Follower(
                Address(str(f["ip"]), int(f["port"])), f["state"] == "online", int(f["offset"]), int(f.get("lag", 0))
            )
            for f in followers
        ),
        master=Address(str(info["master_host"]), int(info["master_port"])) if role is Role.REPLICA else None,
        link_up=info.get("master_link_status") == "up",
        syncing=syncing,
        sync_left=int(left) if syncing and int(left) >= 0 else None,
        failover=str(info.get("master_failover_state", "no-failover")),
        keys=sum(v["keys"] for k, v in info.items() if k.startswith("db") and isinstance(v, Mapping) and "keys" in v),
        used_bytes=int(info.get("used_memory", 0)),
        priority=int(settings.get("replica-priority", info.get("slave_priority", 100))),
        announced=settings.get("replica-announce-ip", ""),
        min_replicas_to_write=int(m) if (m := settings.get("min-replicas-to-write")) is not None else None,
        persists=persists,
        can_follow=None if password is None else (not password or bool(settings.get("masterauth"))),
        paused=str(info.get("paused_reason", "none")) != "none",
        denied=denied,
    )


def read_sentinel(address: Address, answers: Sequence[Any]) -> Sentinel:
    """The answers to SENTINEL MASTER, GET-MASTER-ADDR-BY-NAME, REPLICAS, SENTINELS, CKQUORUM, MYID, CONFIG GET."""
    master, current, replicas, sentinels, quorum, run_id, config = answers
    own_id = str(run_id) if isinstance(run_id, str) else ""
    if isinstance(master, Exception):
        return Sentinel(address, own_id, known=False)
    about = _pairs(master)
    settings = _pairs(config) if isinstance(config, list) else {}
    return Sentinel(
        address,
        own_id,
        current=_address(current if isinstance(current, list) else None),
        master=Address(about["ip"], int(about["port"])),
        flags=_flags(about["flags"]),
        replicas=tuple(_replica(_pairs(r)) for r in replicas) if isinstance(replicas, list) else (),
        sentinels=tuple(_sentinel(_pairs(s)) for s in sentinels) if isinstance(sentinels, list) else (),
        quorum=int(about["quorum"]),
        quorum_ok=not isinstance(quorum, Exception),
        quorum_says=_plain(quorum) if isinstance(quorum, Exception) else str(quorum),
        down_after_ms=int(about["down-after-milliseconds"]),
        failover_timeout_ms=int(about["failover-timeout"]),
        epoch=int(about["config-epoch"]),
        resolves_names=settings.get("resolve-hostnames") == "yes",
        announces_names=settings.get("announce-hostnames") == "yes",
    )


def _pairs(answer: Any) -> dict[str, str]:
    """A flat list of names and values."""
    if isinstance(answer, Mapping):
        return {str(k): str(v) for k, v in answer.items()}
    return dict(zip(map(str, answer[::2]), map(str, answer[1::2]), strict=False))


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _replica(about: Mapping[str, str]) -> KnownReplica:
    host, port = about.get("master-host", "?"), about.get("master-port", "0")
    return KnownReplica(
        Address(about["ip"], int(about["port"])),
        _flags(about["flags"]),
        priority=int(about.get("slave-priority", 100)),
        master=None if host == "?" else Address(host, int(port)),
        link_ok=about.get("master-link-status") == "ok",
        info_age=int(about.get("info-refresh", 0)) / 1000,
        name=about.get("name", ""),
    )


def _sentinel(about: Mapping[str, str]) -> KnownSentinel:
    return KnownSentinel(Address(about["ip"], int(about["port"])), about.get("runid", ""), _flags(about["flags"]))
