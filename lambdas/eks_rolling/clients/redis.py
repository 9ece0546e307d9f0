"""Redis servers and sentinels, through the official client's Connection: one connection, plain replies, no retries.

The package's client classes repeat commands by themselves; what a roll writes must never be done twice unasked.
Nothing outside this module knows that, and no message, repr or exception of it holds a password.
"""

import functools
import re
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from socket import socket
from typing import Any, NoReturn, TypeVar, cast

from redis._parsers.resp2 import _RESP2Parser
from redis.connection import Connection
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import TimeoutError as TimedOut

from eks_rolling.errors import AccessDenied, BadRequest, Conflict, NotFound, Permanent, Transient
from eks_rolling.legible import short
from eks_rolling.observed.redis import (
    Address,
    ClusterNode,
    Endpoint,
    Follower,
    KnownNode,
    KnownReplica,
    KnownSentinel,
    Login,
    Role,
    Sentinel,
    Server,
    Silent,
    Stranger,
)

Secrets = Callable[[str, str], Mapping[str, str]]
"""Answers the decoded keys of the Secret of that namespace and name."""

Command = tuple[str | int, ...]
Reply = Any
"""What RESP2 has: str, int, list, None; a ResponseError where the server refused the command."""

CONNECT_SECONDS = 1.0
"""Within a cluster a connection takes a millisecond; one lost SYN is sent again after a second. A pod that is gone
answers nothing at all, and a look at a group must not wait long for each of its dead."""

READ_SECONDS = 2.0
"""Every command here is answered at once unless the server is stuck (fork, slow script); a write pause lasts 3 s, and
a switch must be able to undo it within that."""

PASSWORD_KEYS = ("password", "redis-password", "valkey-password", "auth")
"""The Secret's keys of a server's password: ours; those of the charts bitnami/redis, bitnami/valkey and redis-ha."""

NO_PASSWORD_KEYS = frozenset({"username", "sentinel-username", "sentinel-password"})
"""Keys whose values are never sent to a server as its password."""

EXCHANGE_SECONDS = 6.0
"""All answers to one pipeline together. A server that drips them byte by byte would keep a step for ever."""

EXCHANGE_BYTES = 4 << 20
"""More than any of these answers has: CLUSTER NODES of a thousand nodes is 150 KB."""

LONGEST_WORDS = 300
"""Characters of what a server says that are passed on."""

MOST = 10**15
"""Bytes or keys: more than any server has."""

STRANGE = (ArithmeticError, AttributeError, LookupError, RecursionError, StopIteration, TypeError, ValueError)
"""What reading an answer raises that is not what a Redis server answers."""

IDLE_SECONDS = 60.0
"""AWS's network drops a connection that was silent for 350 s without informing either side."""

CONFIGURATION = (
    "replica-priority",
    "replica-announce-ip",
    "replica-announce-port",
    "replica-read-only",
    "min-replicas-to-write",
    "save",
    "appendonly",
    "masterauth",
    "requirepass",
)
"""CONFIG GET of each alone: several at once came with Redis 7."""

HELLO = "__sentinel__:hello"
"""The channel on which sentinels tell each other of masters; a sentinel takes a PUBLISH on it directly."""

SERVER_WRITES: Mapping[str, Command] = {
    "REPLICAOF": ("REPLICAOF", "NO", "ONE"),
    "CLIENT PAUSE": ("CLIENT", "PAUSE", "1", "WRITE"),
    "CLIENT UNPAUSE": ("CLIENT", "UNPAUSE"),
    "CLIENT KILL": ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
}
"""What a roll may have to write on a server, as it is asked after (ACL DRYRUN), never executed."""

NO_FAILOVER = "cluster-replica-no-failover"

CLUSTER_CONFIGURATION = (
    "cluster-announce-ip",
    "cluster-require-full-coverage",
    "cluster-node-timeout",
    "cluster-allow-replica-migration",
    "cluster-announce-bus-port",
    "cluster-preferred-endpoint-type",
    NO_FAILOVER,
)

CLUSTER_WRITES: Mapping[str, Command] = {
    "CLUSTER MEET": ("CLUSTER", "MEET", "127.0.0.1", "6379"),
    "CLUSTER REPLICATE": ("CLUSTER", "REPLICATE", "id"),
    "CLUSTER FAILOVER": ("CLUSTER", "FAILOVER"),
    "CLUSTER FORGET": ("CLUSTER", "FORGET", "id"),
    "CLUSTER RESET": ("CLUSTER", "RESET", "HARD"),
}

SENTINEL_WRITES: Mapping[str, Command] = {
    "PUBLISH": ("PUBLISH", HELLO, "hello"),
    "SENTINEL RESET": ("SENTINEL", "RESET", "name"),
}

_UNKNOWN = ("unknown command", "unknown subcommand", "unknown sentinel subcommand")
"""How the errors begin of servers that do not know a command; a cluster has unknown nodes as well."""

_NO_PASSWORD_WANTED = ("without any password configured", "no password is set")
"""AUTH's answers, of Redis 6 and before it, where the default user needs no password."""


class _Kind(StrEnum):
    SERVER = "server"
    SENTINEL = "sentinel"


class _Bounded:
    """A connection's socket, with an end to what one pipeline may take in time and bytes."""

    def __init__(self, plain: socket) -> None:
        self._plain = plain
        self.begin()

    def begin(self) -> None:
        """A new pipeline."""
        self._until = time.monotonic() + EXCHANGE_SECONDS
        self._left = EXCHANGE_BYTES

    def recv(self, size: int) -> bytes:
        if time.monotonic() > self._until:
            raise TimeoutError(f"the answer has not ended after {EXCHANGE_SECONDS:.0f} s")
        if self._left <= 0:
            raise ValueError(f"the answer has more than {EXCHANGE_BYTES} bytes")
        read = self._plain.recv(min(size, self._left))
        self._left -= len(read)
        return read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


class _PlainConnection(Connection):
    """The package's, on a socket that is bounded. Its pure Python parser reads by `recv` alone."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(parser_class=_RESP2Parser, **arguments)  # type: ignore[no-untyped-call]  # redis-py has no type there

    def _connect(self) -> _Bounded:
        return _Bounded(self._wrapped(super()._connect()))  # type: ignore[no-untyped-call]  # redis-py has no type there

    def _wrapped(self, plain: socket) -> socket:
        """The socket that is spoken through. Raises OSError."""
        return plain

    def begin(self) -> None:
        """A new pipeline."""
        bounded: Any = self._sock
        if bounded is not None:
            bounded.begin()


class _TlsConnection(_PlainConnection):
    """TLS with a context of our own: the package's trusts the system's authorities beside the given one."""

    def __init__(self, context: ssl.SSLContext, **arguments: Any) -> None:
        self._context = context
        super().__init__(**arguments)

    def _wrapped(self, plain: socket) -> socket:
        try:
            return self._context.wrap_socket(plain)
        except OSError:
            plain.close()
            raise


Method = TypeVar("Method", bound=Callable[..., Any])


def _read_with_care(method: Method) -> Method:
    """An answer that makes no sense is a sentence about that pod; what else it may still send is not waited for."""

    @functools.wraps(method)
    def careful(client: "RedisClient", endpoint: Endpoint, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(client, endpoint, *args, **kwargs)
        except (InvalidResponse, *STRANGE) as error:
            client.hang_up(endpoint)
            raise Permanent(
                f"{endpoint} does not answer as a Redis server does ({type(error).__name__}): look what listens there, "
                "and correct its annotations."
            ) from None

    return cast(Method, careful)


class RedisClient:
    """Servers and sentinels at the endpoints that are handed in. Connections are kept, one for each; not for threads.

    `secrets` is asked when a connection is made, and again when what it answered before is not accepted any more.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._known_secrets: dict[tuple[str, str], Mapping[str, str]] = {}
        self._connections: dict[tuple[Endpoint, _Kind], Connection] = {}
        self._used: dict[tuple[Endpoint, _Kind], float] = {}
        self._refused: set[tuple[Endpoint, str]] = set()
        """What a sentinel's user may not ask: asked at each look, it would note each refusal in its ACL LOG."""

    # Reads

    @_read_with_care
    def server(self, endpoint: Endpoint) -> Server | Silent:
        commands = self._questions(endpoint, CONFIGURATION, SERVER_WRITES)
        try:
            replies = self._read(endpoint, _Kind.SERVER, *commands)
        except (Unreachable, TimedOut) as error:
            return _silence(endpoint, error)
        return self._server(endpoint, replies, CONFIGURATION, SERVER_WRITES)

    @_read_with_care
    def cluster_node(self, endpoint: Endpoint) -> ClusterNode | Silent:
        configuration = (*CONFIGURATION, *CLUSTER_CONFIGURATION)
        questions = self._questions(endpoint, configuration, CLUSTER_WRITES)
        try:
            state, table, *replies = self._read(
                endpoint, _Kind.SERVER, ("CLUSTER", "INFO"), ("CLUSTER", "NODES"), *questions
            )
        except (Unreachable, TimedOut) as error:
            return _silence(endpoint, error)
        server = self._server(endpoint, replies, configuration, CLUSTER_WRITES)
        if isinstance(state, ResponseError) and "cluster support disabled" in str(state):
            raise Permanent(f"{endpoint} is no node of a Redis Cluster: correct its annotations or cluster-enabled.")
        info, nodes = self._text(endpoint, "CLUSTER INFO", state), self._text(endpoint, "CLUSTER NODES", table)
        return read_cluster_node(server, info, nodes, _settings(replies[1 : 1 + len(configuration)]))

    def _questions(
        self, endpoint: Endpoint, configuration: Sequence[str], writes: Mapping[str, Command]
    ) -> list[Command]:
        return [
            ("INFO",),
            *(("CONFIG", "GET", setting) for setting in configuration),
            ("ACL", "GETUSER", "default"),
            *self._probes(endpoint, _Kind.SERVER, writes),
        ]

    def _server(
        self,
        endpoint: Endpoint,
        replies: Sequence[Reply],
        configuration: Sequence[str],
        writes: Mapping[str, Command],
    ) -> Server:
        """From the answers to `_questions`."""
        info = self._text(endpoint, "INFO", replies[0])
        settings = replies[1 : 1 + len(configuration)]
        default_user, *probes = replies[1 + len(configuration) :]
        denied = {*_denied_writes(writes, probes), *_not_permitted({"ACL GETUSER": default_user})}
        if any(_is_denial(reply) for reply in settings):
            denied.add("CONFIG GET")
        return read_server(endpoint, info, _settings(settings), _is_open(default_user), denied)

    @_read_with_care
    def sentinel(self, endpoint: Endpoint, name: str) -> Sentinel | Silent:
        commands: list[Command] = [
            ("SENTINEL", "MASTER", name),
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
            ("SENTINEL", "REPLICAS", name),
            ("SENTINEL", "SENTINELS", name),
            ("SENTINEL", "CKQUORUM", name),
            ("SENTINEL", "MYID"),
            ("SENTINEL", "CONFIG", "GET", "*-hostnames"),
            *self._probes(endpoint, _Kind.SENTINEL, SENTINEL_WRITES),
        ]
        try:
            replies = self._read(endpoint, _Kind.SENTINEL, *commands)
            periods = self._if_permitted(endpoint, "DEBUG")
            masters = self._if_permitted(endpoint, "MASTERS")
        except (Unreachable, TimedOut) as error:
            return _silence(endpoint, error)
        master, current, replicas, sentinels, quorum, own_id, names, *probes = replies
        denied = set(_denied_writes(SENTINEL_WRITES, probes))
        optional = {"SENTINEL CKQUORUM": quorum, "SENTINEL MYID": own_id, "SENTINEL CONFIG": names}
        denied |= {command for command, reply in optional.items() if _is_denial(reply)}
        if _is_unknown_master(master):
            return Sentinel(endpoint.address, _word(own_id), known=False, denied=frozenset(denied))
        needed = {"MASTER": master, "GET-MASTER-ADDR-BY-NAME": current, "REPLICAS": replicas, "SENTINELS": sentinels}
        for command, reply in needed.items():
            if isinstance(reply, ResponseError):
                self._raise(endpoint, f"SENTINEL {command}", reply)
        return replace(read_sentinel(endpoint, [*replies[:7], periods], denied), beside=_others(masters, name))

    def _if_permitted(self, endpoint: Endpoint, subcommand: str) -> Reply:
        if (endpoint, subcommand) in self._refused:
            return None
        (reply,) = self._read(endpoint, _Kind.SENTINEL, ("SENTINEL", subcommand))
        if isinstance(reply, NoPermissionError):
            self._refused.add((endpoint, subcommand))
        return reply

    @_read_with_care
    def stranger(self, endpoint: Endpoint) -> Stranger | Silent:
        questions: list[Command] = [("INFO",), ("CONFIG", "GET", "save"), ("CONFIG", "GET", "appendonly")]
        try:
            info, *settings = self._read(endpoint, _Kind.SERVER, *questions)
        except (Unreachable, TimedOut) as error:
            return _silence(endpoint, error)
        return read_stranger(self._text(endpoint, "INFO", info), _settings(settings))

    @_read_with_care
    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        try:
            (reply,) = self._read(endpoint, _Kind.SERVER, ("INFO", "replication"))
        except (Unreachable, TimedOut) as error:
            raise _unreachable(endpoint, error) from error
        info = _fields(self._text(endpoint, "INFO", reply))
        role = Role(info["role"])
        return role, _offset(role, info)

    @_read_with_care
    def current_master(self, endpoint: Endpoint, name: str) -> Address | None:
        try:
            (reply,) = self._read(endpoint, _Kind.SENTINEL, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name))
        except (Unreachable, TimedOut) as error:
            raise _unreachable(endpoint, error) from error
        if isinstance(reply, ResponseError):
            self._raise(endpoint, "SENTINEL GET-MASTER-ADDR-BY-NAME", reply)
        return _address(reply)

    # Writes to servers

    def follow(self, endpoint: Endpoint, expected: Server, master: Address) -> None:
        self._write(endpoint, "REPLICAOF", ("REPLICAOF", master.host, master.port), expected)

    def promote(self, endpoint: Endpoint, expected: Server) -> None:
        self._write(endpoint, "REPLICAOF", ("REPLICAOF", "NO", "ONE"), expected)

    def pause_writes(self, endpoint: Endpoint, expected: Server, milliseconds: int) -> None:
        self._write(endpoint, "CLIENT PAUSE", ("CLIENT", "PAUSE", milliseconds, "WRITE"), expected)

    def unpause(self, endpoint: Endpoint) -> None:
        self._write(endpoint, "CLIENT UNPAUSE", ("CLIENT", "UNPAUSE"))

    def disconnect_clients(self, endpoint: Endpoint) -> None:
        self._write(endpoint, "CLIENT KILL", ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))

    # Writes to nodes of a cluster

    def meet(self, endpoint: Endpoint, expected: Server, newcomer: Address, bus_port: int | None = None) -> None:
        bus = () if bus_port is None else (bus_port,)
        self._write(endpoint, "CLUSTER MEET", ("CLUSTER", "MEET", newcomer.host, newcomer.port, *bus), expected)

    def replicate(self, endpoint: Endpoint, expected: Server, master_id: str) -> None:
        self._write(endpoint, "CLUSTER REPLICATE", ("CLUSTER", "REPLICATE", master_id), expected)

    def set_electable(self, endpoint: Endpoint, expected: Server, *, electable: bool) -> None:
        self._write(endpoint, "CONFIG SET", ("CONFIG", "SET", NO_FAILOVER, "no" if electable else "yes"), expected)

    def take_over(self, endpoint: Endpoint, expected: Server) -> None:
        self._write(endpoint, "CLUSTER FAILOVER", ("CLUSTER", "FAILOVER"), expected)

    def forget(self, endpoint: Endpoint, node_id: str) -> None:
        self._write(endpoint, "CLUSTER FORGET", ("CLUSTER", "FORGET", node_id), fine="unknown node")

    def leave_cluster(self, endpoint: Endpoint, expected: Server) -> None:
        self._write(endpoint, "CLUSTER RESET", ("CLUSTER", "RESET", "HARD"), expected)

    # Writes to sentinels

    def announce(self, endpoint: Endpoint, name: str, master: Address, epoch: int, by: KnownSentinel) -> None:
        speaker = f"{by.address.host},{by.address.port},{by.run_id},{epoch}"
        hello = f"{speaker},{name},{master.host},{master.port},{epoch}"
        reply = self._reply_to_write(endpoint, _Kind.SENTINEL, ("PUBLISH", HELLO, hello))
        if isinstance(reply, ResponseError):
            self._raise(endpoint, "PUBLISH", reply)

    def reset(self, endpoint: Endpoint, name: str) -> None:
        reply = self._reply_to_write(endpoint, _Kind.SENTINEL, ("SENTINEL", "RESET", _literally(name)))
        if isinstance(reply, ResponseError):
            self._raise(endpoint, "SENTINEL RESET", reply)
        if not reply:
            raise _unmonitored(endpoint, name)

    def ask_every(self, endpoint: Endpoint, seconds: float) -> None:
        period = str(round(seconds * 1000))
        reply = self._reply_to_write(endpoint, _Kind.SENTINEL, ("SENTINEL", "DEBUG", "INFO-PERIOD", period))
        if isinstance(reply, ResponseError):
            self._raise(endpoint, "SENTINEL DEBUG", reply)

    # Commands

    def hang_up(self, endpoint: Endpoint) -> None:
        """Drops the endpoint's connections: what was begun on them is not understood any more."""
        for key in [key for key in self._connections if key[0] == endpoint]:
            self._connections.pop(key).disconnect()

    def _read(self, endpoint: Endpoint, kind: _Kind, *commands: Command) -> list[Reply]:
        """One pipeline; once more on a new connection where a kept one turns out to be broken. Reads only.

        Raises Unreachable, TimedOut, AccessDenied.
        """
        connection, new = self._connected(endpoint, kind)
        try:
            replies = _exchange(connection, commands)
        except (AuthenticationError, AuthorizationError):
            raise self._not_accepted(endpoint) from None
        except (Unreachable, TimedOut) as error:
            self._check_tls(endpoint, error)
            if new or isinstance(error, BusyLoadingError | TimedOut):
                raise
            return self._read(endpoint, kind, *commands)
        if any(_is_busy(reply) for reply in replies):
            raise Unreachable("it is busy with a script that does not end")
        return replies

    def _write(
        self, endpoint: Endpoint, name: str, command: Command, expected: Server | None = None, fine: str = ""
    ) -> None:
        """`fine` is how an error begins that says that there is nothing to do."""
        reply = self._reply_to_write(endpoint, _Kind.SERVER, command, expected)
        if isinstance(reply, ResponseError) and not (fine and str(reply).lower().startswith(fine)):
            self._raise(endpoint, name, reply)

    @_read_with_care
    def _reply_to_write(
        self, endpoint: Endpoint, kind: _Kind, command: Command, expected: Server | None = None
    ) -> Reply:
        """Sent once. With `expected`, after a look on the same connection."""
        try:
            if expected is not None:
                self._check(endpoint, expected)
            connection, _ = self._connected(endpoint, kind)
            (reply,) = _exchange(connection, [command])
        except (AuthenticationError, AuthorizationError):
            raise self._not_accepted(endpoint) from None
        except (Unreachable, TimedOut) as error:
            self._check_tls(endpoint, error)
            raise _unreachable(endpoint, error) from error
        return reply

    def _check(self, endpoint: Endpoint, expected: Server) -> None:
        """Raises Conflict; leaves the connection open that it looked through."""
        server, replication = self._read(endpoint, _Kind.SERVER, ("INFO", "server"), ("INFO", "replication"))
        found = _fields(self._text(endpoint, "INFO", server)) | _fields(self._text(endpoint, "INFO", replication))
        if found.get("run_id") != expected.run_id:
            raise Conflict(f"{endpoint} has been restarted, or is another server now.")
        if found.get("role") != expected.role:
            raise Conflict(f"{endpoint} is {found.get('role')} now, and was {expected.role}.")

    def _probes(self, endpoint: Endpoint, kind: _Kind, writes: Mapping[str, Command]) -> list[Command]:
        """Whether each write would be allowed (Redis 7), and whether the commands exist (also before it)."""
        user = self._credentials(endpoint, kind)[0] or "default"
        names = sorted({str(command[0]).lower() for command in writes.values()})
        return [*(("ACL", "DRYRUN", user, *command) for command in writes.values()), ("COMMAND", "INFO", *names)]

    def _text(self, endpoint: Endpoint, command: str, reply: Reply) -> str:
        if isinstance(reply, ResponseError):
            self._raise(endpoint, command, reply)
        return str(reply)

    def _raise(self, endpoint: Endpoint, command: str, error: ResponseError) -> NoReturn:
        if isinstance(error, NoPermissionError):
            raise AccessDenied(
                f"{endpoint} does not permit {command}: grant it to the roll's user, as deploy/README.md says."
            ) from None
        if _is_denial(error):
            raise AccessDenied(
                f"{endpoint} does not know {command}: it is renamed, or its version is too old; the roll needs it."
            ) from None
        raise Transient(f"{endpoint} refused {command} ({_one_line(error)}).") from None

    # Connections

    def _connected(self, endpoint: Endpoint, kind: _Kind) -> tuple[Connection, bool]:
        """A connection that is signed in, and whether it is new. Raises Unreachable, TimedOut, AccessDenied."""
        kept = self._connections.get((endpoint, kind))
        used, self._used[endpoint, kind] = self._used.get((endpoint, kind), 0.0), time.monotonic()
        if kept is not None and kept.is_connected and time.monotonic() - used < IDLE_SECONDS and not _is_over(kept):
            return kept, False
        if kept is not None:
            kept.disconnect()
        try:
            connection = self._sign_in(endpoint, kind)
        except AuthenticationError:
            # The Secret may have been changed since it was read.
            self._known_secrets.clear()
            try:
                connection = self._sign_in(endpoint, kind)
            except AuthenticationError:
                # Not chained, and not quoted: a server without AUTH answers with the words it was given.
                raise self._not_accepted(endpoint) from None
        self._connections[endpoint, kind] = connection
        return connection, True

    def _sign_in(self, endpoint: Endpoint, kind: _Kind) -> Connection:
        username, password, borrowed = self._credentials(endpoint, kind)
        try:
            return self._open_with_any(endpoint, username, password)
        except AuthenticationError as error:
            # A server's password may be given to sentinels that want none.
            if not borrowed and not any(words in str(error) for words in _NO_PASSWORD_WANTED):
                raise
        return self._open(endpoint, "", "")

    def _open_with_any(self, endpoint: Endpoint, username: str, password: str) -> Connection:
        """As the Secret has it; else without the end of a line, which many have and charts' scripts drop."""
        try:
            return self._open(endpoint, username, password)
        except AuthenticationError:
            stripped = password.rstrip("\r\n")
            if stripped in {"", password}:
                raise
        return self._open(endpoint, username, stripped)

    def _open(self, endpoint: Endpoint, username: str, password: str) -> Connection:
        arguments: dict[str, Any] = {
            "host": endpoint.address.host,
            "port": endpoint.address.port,
            "username": username or None,
            "password": password or None,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": READ_SECONDS,
            "protocol": 2,
            "decode_responses": True,
            "encoding_errors": "replace",
            "driver_info": None,
        }
        login = endpoint.login
        connection: _PlainConnection
        connection = _TlsConnection(self._tls(login), **arguments) if login.tls else _PlainConnection(**arguments)
        with ExitStack() as unless_good:
            unless_good.callback(connection.disconnect)
            try:
                connection.connect()  # type: ignore[no-untyped-call]  # redis-py has no type there
                if login.tls and not password:
                    # With TLS 1.3 the server looks at our certificate only after the handshake has succeeded for us,
                    # so that the first words tell. With a password AUTH is them.
                    _exchange(connection, [("PING",)])
            except (AuthenticationError, AuthorizationError):
                raise
            except (Unreachable, TimedOut) as error:
                self._check_tls(endpoint, error)
                if login.tls and isinstance(error, Unreachable):
                    self._listen(endpoint, arguments)
                raise
            except ResponseError:
                # AUTH itself was refused, or is not known; the words that it was given are in the error.
                raise AuthenticationError("AUTH was refused") from None
            unless_good.pop_all()
        return connection

    def _listen(self, endpoint: Endpoint, arguments: Mapping[str, Any]) -> None:
        """Raises AccessDenied where the server says why it hung up; while we were writing that got lost."""
        listener: Connection = _TlsConnection(
            self._tls(endpoint.login), **{**arguments, "username": None, "password": None}
        )
        try:
            listener.connect()
            listener.read_response()
        except (RedisError, OSError) as error:
            self._check_tls(endpoint, error)
        finally:
            listener.disconnect()

    def _credentials(self, endpoint: Endpoint, kind: _Kind) -> tuple[str, str, bool]:
        """User name, password, and whether they are a server's that are tried on a sentinel."""
        login = endpoint.login
        if not login.auth:
            return "", "", False
        secret = self._secret(login.namespace, login.auth)
        username = secret.get("username", "")
        password = next((secret[key] for key in PASSWORD_KEYS if secret.get(key)), "")
        if not password and len(secret) == 1 and not NO_PASSWORD_KEYS & secret.keys():
            # Charts let people choose the key; what is alone in a Secret is meant, unless it is a file.
            password = next((value for value in secret.values() if "\n" not in value.strip()), "")
        if kind is _Kind.SENTINEL:
            own = "sentinel-password" in secret
            username = secret.get("sentinel-username", "" if own else username)
            return username, secret.get("sentinel-password", password), not own
        if not password:
            keys = " or ".join(PASSWORD_KEYS)
            raise NotFound(
                f"The Secret {login.namespace}/{login.auth} has no key {keys}, and not one alone; {endpoint} needs it."
            )
        return username, password, False

    def _tls(self, login: Login) -> ssl.SSLContext:
        secret = self._secret(login.namespace, login.tls)
        where = f"The Secret {login.namespace}/{login.tls}"
        if not secret.get("ca.crt"):
            raise NotFound(f"{where} has no key ca.crt; Redis over TLS needs it.")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Pods are addressed by IP, which is in no certificate. That the authority signed it is checked.
        context.check_hostname = False
        try:
            context.load_verify_locations(cadata=secret["ca.crt"])
            if secret.get("tls.crt") and secret.get("tls.key"):
                _load_client_certificate(context, secret["tls.crt"], secret["tls.key"])
        except (ssl.SSLError, ValueError):
            raise BadRequest(f"{where} holds no usable certificates: correct ca.crt, tls.crt and tls.key.") from None
        return context

    def _secret(self, namespace: str, name: str) -> Mapping[str, str]:
        if (namespace, name) not in self._known_secrets:
            self._known_secrets[namespace, name] = self._secrets(namespace, name)
        return self._known_secrets[namespace, name]

    def _not_accepted(self, endpoint: Endpoint) -> AccessDenied:
        login = endpoint.login
        if not login.auth:
            return AccessDenied(
                f"{endpoint} requires a password: name the Secret that holds it, as deploy/README.md says."
            )
        self._known_secrets.pop((login.namespace, login.auth), None)
        return AccessDenied(
            f"{endpoint} does not accept the credentials in Secret {login.namespace}/{login.auth}: correct its keys, "
            "as deploy/README.md says."
        )

    def _check_tls(self, endpoint: Endpoint, error: BaseException) -> None:
        """Raises AccessDenied where the two sides do not trust each other: such a server is not silent."""
        cause = error.__context__
        if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return
        login = endpoint.login
        self._known_secrets.pop((login.namespace, login.tls), None)
        raise AccessDenied(
            f"{endpoint} and the certificates in Secret {login.namespace}/{login.tls} do not trust each other "
            f"({cause.reason or 'TLS failed'}): correct its keys ca.crt, tls.crt and tls.key."
        ) from None


def read_server(
    endpoint: Endpoint, text: str, settings: Mapping[str, str], default_open: bool | None, denied: Iterable[str]
) -> Server:
    """What INFO and CONFIG GET tell. `default_open`: whether the default user needs no password, None if unknown."""
    info = _fields(text)
    if info.get("role") not in set(Role):
        raise Permanent(f"{endpoint} is a {info.get('redis_mode', 'stranger')}, not a Redis server: correct its port.")
    role = Role(info["role"])
    flavor = info.get("server_name", "redis")
    return Server(
        address=endpoint.address,
        version=_version(info.get(f"{flavor}_version") or info["redis_version"]),
        flavor=flavor,
        run_id=info["run_id"],
        role=role,
        offset=_offset(role, info),
        loading=info.get("loading", "0") != "0",
        followers=_followers(info),
        master=Address(info["master_host"], _number(info["master_port"])) if info.get("master_host") else None,
        link_up=info.get("master_link_status") == "up",
        syncing=info.get("master_sync_in_progress", "0") != "0",
        sync_left=_sync_left(info),
        sync_read=max(0, _number(info.get("master_sync_read_bytes", 0))),
        failover=info.get("master_failover_state", "no-failover"),
        keys=_keys(info),
        used_bytes=_number(info.get("used_memory", 0)),
        maxmemory=_number(info.get("maxmemory", 0)),
        priority=_number(settings.get("replica-priority") or info.get("slave_priority") or 100),
        announced=settings.get("replica-announce-ip", ""),
        announced_port=_number(settings.get("replica-announce-port") or 0),
        hidden=info.get("replica_announced") == "0",
        min_replicas_to_write=_number(settings["min-replicas-to-write"])
        if settings.get("min-replicas-to-write")
        else None,
        persists=_persists(settings),
        can_follow=_can_follow(settings, default_open),
        read_only=_yes(settings.get("replica-read-only")),
        paused=info.get("paused_reason") == "client_pause" and info.get("paused_actions") in {"write", "all"},
        denied=frozenset(denied),
        over_limit=_number(info.get("client_output_buffer_limit_disconnections", 0)),
        save_failed=info.get("rdb_last_bgsave_status") == "err",
    )


def read_stranger(text: str, settings: Mapping[str, str]) -> Stranger:
    """What INFO and CONFIG GET tell of a server of Redis' kind, none of which has all of it."""
    info = _fields(text)
    role = info.get("role")
    appends = settings.get("appendonly", {"1": "yes", "0": "no"}.get(info.get("aof_enabled", "")))
    unsaved = info.get("rdb_changes_since_last_save")
    return Stranger(
        role=Role(role) if role in set(Role) else None,
        sentinel=info.get("redis_mode") == "sentinel",
        clustered=info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster",
        in_sync=sum(f.online for f in _followers(info)),
        link_up=info.get("master_link_status") == "up" and info.get("master_sync_in_progress", "0") == "0",
        keys=_bounded(_keys(info)),
        used_bytes=_bounded(int(info.get("used_memory", 0))),
        appends=None if appends is None else appends == "yes",
        saves=bool(settings["save"]) if "save" in settings else None,
        unsaved=_bounded(int(unsaved)) if unsaved is not None else None,
    )


def _number(text: object) -> int:
    """A number in an answer. Raises ValueError for none, and for more than any server counts."""
    number = int(str(text))
    if abs(number) > 2**63:
        raise ValueError("no server counts so far")
    return number


def _bounded(number: int) -> int:
    """What anybody may have written, as a number that can be told."""
    return max(0, min(number, MOST))


def read_cluster_node(server: Server, state: str, table: str, settings: Mapping[str, str]) -> ClusterNode:
    """What CLUSTER INFO and CLUSTER NODES tell."""
    info, lines = _fields(state), [line.split() for line in table.splitlines() if line]
    itself = next(line for line in lines if "myself" in line[2].split(","))
    timeout = settings.get("cluster-node-timeout")
    return ClusterNode(
        server,
        id=itself[0],
        ok=info.get("cluster_state") == "ok",
        slots_ok=_number(info.get("cluster_slots_ok", 0)),
        table=tuple(_known_node(line) for line in lines),
        open_slots=sum(word.startswith("[") for word in itself[8:]),
        announced=settings.get("cluster-announce-ip", ""),
        full_coverage=_yes(settings.get("cluster-require-full-coverage")),
        node_timeout_ms=_number(timeout) if timeout else None,
        migrates_replicas=_yes(settings.get("cluster-allow-replica-migration")),
        bus_port=None if _number(settings.get("cluster-announce-bus-port") or 0) else _bus_port(itself),
        electable=None if (never := _yes(settings.get(NO_FAILOVER))) is None else not never,
        tells_names=settings.get("cluster-preferred-endpoint-type") == "hostname",
    )


def _bus_port(words: Sequence[str]) -> int | None:
    """Of a line of CLUSTER NODES: IP:PORT@BUS."""
    port = words[1].partition("@")[2].partition(",")[0]
    return _number(port) if port.isdecimal() and 0 < _number(port) < 65536 else None


def _known_node(words: Sequence[str]) -> KnownNode:
    """ID IP:PORT@BUS[,HOSTNAME[,...]] FLAGS MASTER PING PONG EPOCH LINK SLOT... (redis.io, CLUSTER NODES)."""
    node_id, where, flags, master, _, _, epoch, link, *slots = words
    host, _, port = where.partition("@")[0].rpartition(":")
    ranges = (slot.partition("-") for slot in slots if not slot.startswith("["))
    return KnownNode(
        node_id,
        Address(host, _number(port)) if host and port != "0" else None,
        frozenset(flags.split(",")),
        "" if master == "-" else master,
        _number(epoch),
        link == "connected",
        tuple((_number(first), _number(last or first)) for first, _, last in ranges),
    )


def _yes(value: str | None) -> bool | None:
    return None if value is None else value == "yes"


def read_sentinel(endpoint: Endpoint, replies: Sequence[Reply], denied: Iterable[str]) -> Sentinel:
    """What SENTINEL MASTER, GET-MASTER-ADDR-BY-NAME, REPLICAS, SENTINELS, CKQUORUM, MYID, CONFIG GET, DEBUG tell."""
    master, current, replicas, sentinels, quorum, own_id, names, periods = replies
    state, names = _pairs(master), _pairs(names)
    return Sentinel(
        address=endpoint.address,
        run_id=_word(own_id),
        current=_address(current),
        master=_address((state["ip"], state["port"])),
        flags=_flags(state),
        replicas=tuple(_known_replica(_pairs(item)) for item in replicas),
        sentinels=tuple(_known_sentinel(_pairs(item)) for item in sentinels),
        quorum=_number(state["quorum"]),
        quorum_ok=not isinstance(quorum, ResponseError),
        quorum_says=_one_line(quorum),
        down_after_ms=_number(state["down-after-milliseconds"]),
        failover_timeout_ms=_number(state["failover-timeout"]),
        epoch=_number(state["config-epoch"]),
        info_age=_number(state.get("info-refresh", 10_000)) / 1000,
        info_period=_info_period(periods),
        known_replicas=_number(state["num-slaves"]) if state.get("num-slaves") else None,
        resolves_names=names.get("resolve-hostnames") == "yes",
        announces_names=names.get("announce-hostnames") == "yes",
        denied=frozenset(denied),
    )


def _others(masters: Reply, name: str) -> tuple[str, ...]:
    """The other masters of SENTINEL MASTERS; none where not permitted."""
    known = {_word(_pairs(item).get("name")) for item in masters} if isinstance(masters, list) else set()
    return tuple(sorted(known - {name, ""}))


def _info_period(periods: Reply) -> float | None:
    """Seconds; None before Redis 7, where not permitted, and where it is told in another way than is known."""
    told = {str(name).lower(): str(value) for name, value in _pairs(periods).items()}
    milliseconds = told.get("info-period", "")
    return _number(milliseconds) / 1000 if milliseconds.isdecimal() else None


def _known_replica(item: Mapping[str, str]) -> KnownReplica:
    return KnownReplica(
        address=Address(item["ip"], _number(item["port"])),
        flags=_flags(item),
        priority=_number(item.get("slave-priority", 100)),
        master=_address((item.get("master-host"), item.get("master-port"))),
        link_ok=item.get("master-link-status") == "ok",
        silent_for=_number(item.get("last-ok-ping-reply", 0)) / 1000,
        name=_entry_name(item.get("name", "")),
    )


def _entry_name(text: str) -> str:
    """HOST:PORT as `Address` writes it: a sentinel that announces names leaves an IPv6 address as it was announced."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port):
        return text
    return str(Address(host.removeprefix("[").removesuffix("]"), int(port)))


def _known_sentinel(item: Mapping[str, str]) -> KnownSentinel:
    return KnownSentinel(
        Address(item["ip"], _number(item["port"])),
        item.get("runid", ""),
        _flags(item),
        silent_for=_number(item.get("last-ok-ping-reply", 0)) / 1000,
    )


def _flags(item: Mapping[str, str]) -> frozenset[str]:
    return frozenset(filter(None, item.get("flags", "").split(",")))


def _fields(text: str) -> dict[str, str]:
    """INFO's lines KEY:VALUE; a value may hold colons."""
    lines = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {key: value for key, colon, value in lines if colon}


def _offset(role: Role, info: Mapping[str, str]) -> int:
    return _number(info.get("master_repl_offset" if role is Role.MASTER else "slave_repl_offset") or 0)


def _followers(info: Mapping[str, str]) -> tuple[Follower, ...]:
    """slave0, slave1, ...: ip=...,port=...,state=...,offset=...,lag=...

    Valkey lists the channel that a data set is sent through beside its replica; it is none.
    """
    followers = []
    for key, value in info.items():
        if not (key.startswith("slave") and key[5:].isdigit()):
            continue
        item = dict(part.partition("=")[::2] for part in value.split(","))
        if item.get("type") != "rdb-channel":
            online = item.get("state") == "online"
            address = Address(item["ip"], _number(item["port"]))
            followers.append(Follower(address, online, _number(item.get("offset", 0)), _number(item.get("lag", 0))))
    return tuple(followers)


def _sync_left(info: Mapping[str, str]) -> int | None:
    """Negative where the master does not know the size (diskless): None."""
    left = _number(info.get("master_sync_left_bytes", -1))
    return left if info.get("master_sync_in_progress", "0") != "0" and left >= 0 else None


def _keys(info: Mapping[str, str]) -> int:
    """db0:keys=12,expires=0,avg_ttl=0"""
    databases = (value for key, value in info.items() if key.startswith("db") and key[2:].isdigit())
    return sum(_bounded(int(value.partition("keys=")[2].partition(",")[0] or 0)) for value in databases)


def _version(text: str) -> tuple[int, ...]:
    parts = (part for part in text.partition("-")[0].split("."))
    return tuple(_number(part) for part in parts if part.isdigit())


def _persists(settings: Mapping[str, str]) -> bool | None:
    if "save" not in settings and "appendonly" not in settings:
        return None
    return bool(settings.get("save")) or settings.get("appendonly") == "yes"


def _can_follow(settings: Mapping[str, str], default_open: bool | None) -> bool | None:
    if "masterauth" not in settings:
        return None
    if settings["masterauth"]:
        return True
    # Without ACL the password is all there is.
    return not settings.get("requirepass") if default_open is None else default_open


def _settings(replies: Iterable[Reply]) -> dict[str, str]:
    return {key: value for reply in replies if isinstance(reply, list) for key, value in _pairs(reply).items()}


def _is_open(user: Reply) -> bool | None:
    """Whether ACL GETUSER default says that it is on and needs no password; None where it says nothing."""
    if not isinstance(user, list):
        return None
    flags = _pairs(user).get("flags") or ()
    return "on" in flags and "nopass" in flags


def _pairs(reply: Reply) -> dict[str, Any]:
    """A flat list of keys and values as a mapping."""
    return dict(zip(reply[::2], reply[1::2], strict=False)) if isinstance(reply, list) else {}


def _denied_writes(writes: Mapping[str, Command], probes: Sequence[Reply]) -> list[str]:
    """The writes that ACL DRYRUN says no to or COMMAND INFO does not know, and those two where not permitted."""
    *trials, existing = probes
    known = {str(item[0]) for item in existing if item} if isinstance(existing, list) else None
    return [
        *_not_permitted({"ACL DRYRUN": trials[0], "COMMAND INFO": existing}),
        *(
            name
            for (name, command), trial in zip(writes.items(), trials, strict=True)
            if (known is not None and str(command[0]).lower() not in known) or _says_no(trial)
        ),
    ]


def _not_permitted(asked: Mapping[str, Reply]) -> list[str]:
    """Of commands that older versions lack and that are not needed: those that a user has to be granted."""
    return [command for command, reply in asked.items() if isinstance(reply, NoPermissionError)]


def _says_no(trial: Reply) -> bool:
    """OK, "This user has no permissions to run the '...' command", or the error "Command '...' not found"."""
    if isinstance(trial, ResponseError):
        return str(trial).startswith("Command ") and str(trial).endswith("not found")
    return "has no permissions" in str(trial)


def _is_denial(reply: Reply) -> bool:
    """Not permitted, or not known: renamed, or of another version."""
    return isinstance(reply, ResponseError) and (
        isinstance(reply, NoPermissionError) or str(reply).lower().startswith(_UNKNOWN)
    )


def _is_busy(reply: Reply) -> bool:
    """What a server answers to nearly everything once a script or function has run for busy-reply-threshold."""
    return isinstance(reply, ResponseError) and str(reply).startswith("BUSY ")


def _is_unknown_master(reply: Reply) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("No such master")


def _unmonitored(endpoint: Endpoint, name: str) -> NotFound:
    return NotFound(f"{endpoint} monitors no master called {name}.")


def _literally(name: str) -> str:
    """SENTINEL RESET takes a pattern; this one matches the name alone."""
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in name)


def _address(pair: Reply) -> Address | None:
    """A sentinel's host and port; it writes ? and 0 for what it does not know yet."""
    if not pair or not pair[0] or pair[0] == "?":
        return None
    return Address(pair[0], _number(pair[1]))


def _word(reply: Reply) -> str:
    return reply if isinstance(reply, str) else ""


def _one_line(what: object) -> str:
    return short(" ".join(str(what).split()), LONGEST_WORDS).rstrip(".")


def _is_over(connection: Connection) -> bool:
    """Whether the server has closed it; nothing else can be there to read between two commands."""
    try:
        return connection.can_read(0)
    except (Unreachable, TimedOut):
        return True


def _exchange(connection: Connection, commands: Iterable[Command]) -> list[Reply]:
    """One pipeline. A refused command is a ResponseError among the replies. Raises Unreachable, TimedOut."""
    if isinstance(connection, _PlainConnection):
        connection.begin()
    connection.send_packed_command(connection.pack_commands(list(commands)), check_health=False)
    replies: list[Reply] = []
    for _ in commands:
        try:
            replies.append(connection.read_response())
        except ResponseError as error:
            # With its traceback it would keep this frame, and with that the connection, until garbage is collected.
            replies.append(error.with_traceback(None))
    return replies


def _silence(endpoint: Endpoint, error: BaseException) -> Silent:
    return Silent(endpoint.address, _one_line(error))


def _unreachable(endpoint: Endpoint, error: BaseException) -> Transient:
    return Transient(f"{endpoint} does not answer: {_one_line(error)}.")


def _load_client_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """The ssl module reads these from files only: a private one that is gone when this returns."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{certificate}\n{key}\n")
        file.flush()
        context.load_cert_chain(file.name)
