"""Servers that speak RESP and lie, or drip, or never end: always a sentence about that pod, in bounded time [T1]."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from socket import SHUT_RDWR, create_server, socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eks_rolling import runtime
from eks_rolling.clients import redis
from eks_rolling.errors import LONGEST_SENTENCE, Refused, RollError, sentence
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, Login, Sentinel, Server, Silent, Stranger
from eks_rolling.payloads import LONGEST_REASON, OrphansTask, StepResult
from eks_rolling.roll.operator_requests import Honors
from tests.asl import PAYLOAD_LIMIT
from tests.model.situations import settings as model_settings
from tests.redis_client import ClosingClient
from tests.world import World

INFO = "redis_version:7.2.0\r\nredis_mode:cluster\r\nrun_id:abc\r\nrole:master\r\nmaster_repl_offset:1\r\n"
STATE = "cluster_state:ok\r\ncluster_slots_ok:16384\r\n"
TABLE = "aaaa 127.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-16383\n"


def bulk(text: str) -> bytes:
    data = text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


HONEST = {"INFO": bulk(INFO), "CLUSTER INFO": bulk(STATE), "CLUSTER NODES": bulk(TABLE)}


class Liar:
    """A server that answers each command as it is told; others with an error. `drip`: seconds for each byte."""

    def __init__(self, answers: Mapping[str, bytes], drip: float = 0.0) -> None:
        self._answers = answers
        self._drip = drip
        self._listener = create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def tell(self, answers: Mapping[str, bytes]) -> None:
        """What it answers from now on."""
        self._answers = answers
        self._open = [peer for peer in self._open if peer.fileno() >= 0]

    def close(self) -> None:
        self._over.set()
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(SHUT_RDWR)
            each.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket) -> None:
        buffer = b""
        try:
            while data := peer.recv(65536):
                buffer += data
                while buffer.startswith(b"*"):
                    parts = buffer.split(b"\r\n")
                    count = int(parts[0][1:])
                    if len(parts) <= 1 + 2 * count:
                        break
                    words = [part.decode() for part in parts[2 : 2 + 2 * count : 2]]
                    buffer = b"\r\n".join(parts[1 + 2 * count :])
                    self._say(peer, self._answer(" ".join(words).upper()))
        except OSError:
            return

    def _answer(self, command: str) -> bytes:
        # Read once: meanwhile it may be told to answer otherwise.
        answers = self._answers
        known = sorted((key for key in answers if command.startswith(key)), key=len)
        return answers[known[-1]] if known else b"-ERR unknown command\r\n"

    def _say(self, peer: socket, answer: bytes) -> None:
        if not self._drip:
            peer.sendall(answer)
            return
        for byte in answer:
            peer.sendall(bytes([byte]))
            if self._over.wait(self._drip):
                return


@pytest.fixture
def liars() -> Iterator[list[Liar]]:
    made: list[Liar] = []
    yield made
    for liar in made:
        liar.close()


def ask(liar: Liar, method: str = "cluster_node") -> object:
    """What the client makes of it: an answer, or a sentence of ours."""
    client = ClosingClient(lambda *_: {})
    endpoint = Endpoint(Address("127.0.0.1", liar.port), Login("tenant"), "tenant/evil-0")
    more = ("mymaster",) if method in {"sentinel", "current_master"} else ()
    try:
        return getattr(client, method)(endpoint, *more)
    except RollError as error:
        return error
    finally:
        client.hang_up(endpoint)


LIES = {
    "CLUSTER NODES without itself": {"CLUSTER NODES": bulk("aaaa 1.2.3.4:1@1 master - 0 0 1 connected\n")},
    "CLUSTER NODES that are none": {"CLUSTER NODES": bulk("x\n")},
    "slots that are none": {"CLUSTER NODES": bulk(TABLE.replace("0-16383", "zz"))},
    "INFO without a run id": {"INFO": bulk("redis_version:7.2.0\r\nrole:master\r\n")},
    "an offset that is no number": {"INFO": bulk(INFO.replace("offset:1", "offset:x"))},
    "a master without a port": {"INFO": bulk(INFO.replace("role:master", "role:slave") + "master_host:h\r\n")},
    "a follower that is none": {"INFO": bulk(INFO + "slave0:foo\r\n")},
    "a priority that is no number": {"CONFIG GET": b"*2\r\n" + bulk("replica-priority") + bulk("x")},
    "an integer for a text": {"INFO": b":7\r\n"},
    "answers in answers": {"INFO": b"*1\r\n" * 5000 + b":1\r\n"},
    "no RESP at all": {"INFO": b"HTTP/1.1 400 Bad\r\n\r\n"},
    "a length that is none": {"INFO": b"$many\r\n"},
    "a length below none": {"INFO": b"$-7\r\n"},
    "numbers that no server counts to": {"INFO": bulk(INFO.replace("offset:1", "offset:" + "9" * 4000))},
    "numbers without end": {"INFO": bulk(INFO.replace("offset:1", "offset:" + "9" * 5000))},
    "a version that is none": {"INFO": bulk(INFO.replace("7.2.0", "seven"))},
}


@pytest.mark.parametrize("method", ["cluster_node", "stranger"])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_a_sentence_about_that_pod(lie: str, method: str, liars: list[Liar]) -> None:
    """T1."""
    liars.append(Liar(HONEST | LIES[lie]))
    said = ask(liars[0], method)
    assert isinstance(said, RollError | Silent | ClusterNode | Stranger)
    if isinstance(said, RollError):
        assert "tenant/evil-0" in str(said)


@pytest.mark.parametrize("method", ["server", "cluster_node", "stranger"])
def test_an_honest_server_is_understood(method: str, liars: list[Liar]) -> None:
    liars.append(Liar(HONEST))
    assert isinstance(ask(liars[0], method), Server | ClusterNode | Stranger)


@pytest.mark.parametrize("number", ["9" * 4000, "-5"])
def test_numbers_of_a_stranger_can_be_told(number: str, liars: list[Liar]) -> None:
    """T1: a plan makes sentences of them."""
    info = f"role:master\r\nused_memory:{number}\r\nrdb_changes_since_last_save:{number}\r\ndb0:keys={number}\r\n"
    liars.append(Liar({"INFO": bulk(info)}))
    told = ask(liars[0], "stranger")
    assert isinstance(told, Stranger)
    assert all(0 <= each <= redis.MOST for each in (told.keys, told.used_bytes, told.unsaved or 0))


VAST = "x" * 1_000_000
TOLD = bulk("ip") + bulk("10.0.0.1") + bulk("port") + bulk("6379") + bulk("flags") + bulk("master") + bulk("quorum") + (
    bulk("2") + bulk("down-after-milliseconds") + bulk("5000") + bulk("failover-timeout") + bulk("9000")
    + bulk("config-epoch") + bulk("1")
)  # fmt: skip


def test_words_without_end_are_cut_where_they_come_in(liars: list[Liar]) -> None:
    """R5: a reason that does not fit between two states ends the roll, and its restore, past every Catch."""
    answers = {
        "SENTINEL MASTER": b"*14\r\n" + TOLD,
        "SENTINEL GET-MASTER-ADDR-BY-NAME": b"*2\r\n" + bulk("10.0.0.1") + bulk("6379"),
        "SENTINEL REPLICAS": b"*0\r\n",
        "SENTINEL SENTINELS": b"*0\r\n",
        "SENTINEL CKQUORUM": b"-NOQUORUM " + VAST.encode() + b"\r\n",
        "SENTINEL MYID": bulk("id"),
    }
    liars.append(Liar(answers))
    said = ask(liars[0], "sentinel")
    assert isinstance(said, Sentinel)
    assert len(said.quorum_says) <= redis.LONGEST_WORDS


def test_whatever_a_step_says_fits_between_two_states() -> None:
    """R5."""
    assert len(StepResult.wait(VAST, 1).reason) <= LONGEST_REASON
    assert len(sentence(Refused(VAST))) <= LONGEST_SENTENCE
    assert 4 * LONGEST_REASON < PAYLOAD_LIMIT / 2


def test_a_step_that_fails_with_words_without_end_fails_with_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: its error crosses as well."""

    def vast(*_: object) -> StepResult:
        raise Refused(VAST)

    monkeypatch.setattr(runtime, "connected_clients", lambda: World().clients(model_settings()))
    handler = runtime.Handler(vast, OrphansTask, locked=False, honors=Honors.NOTHING)
    with pytest.raises(Refused) as raised:
        handler({"roll": "roll-1"}, None)
    assert len(str(raised.value)) <= LONGEST_SENTENCE


def test_a_sentinel_with_an_odd_list_is_a_sentence(liars: list[Liar]) -> None:
    """T1."""
    liars.append(Liar({"SENTINEL MASTER": b"*1\r\n" + bulk("ip"), "SENTINEL": b"*0\r\n"}))
    assert isinstance(ask(liars[0], "sentinel"), RollError)


def test_an_answer_that_drips_is_given_up(liars: list[Liar], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, and the whole never."""
    monkeypatch.setattr(redis, "EXCHANGE_SECONDS", 0.5)
    liars.append(Liar({"INFO": bulk(INFO * 100)}, drip=0.02))
    assert isinstance(ask(liars[0], "server"), Silent | RollError)


@pytest.mark.parametrize("flood", [b"$100000000\r\n" + b"x" * 200_000, b"*100000000\r\n" + b":1\r\n" * 50_000])
def test_an_answer_without_an_end_is_given_up(flood: bytes, liars: list[Liar], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it fill the memory."""
    monkeypatch.setattr(redis, "EXCHANGE_BYTES", 100_000)
    liars.append(Liar({"INFO": flood}))
    said = ask(liars[0], "server")
    assert isinstance(said, RollError)
    assert "does not answer as a Redis server does" in str(said)


def test_a_look_is_bounded_in_the_first_place() -> None:
    """A function has 60 s, and looks at several pods."""
    assert redis.EXCHANGE_SECONDS <= 10
    assert redis.EXCHANGE_BYTES <= 16 << 20
    assert time.monotonic() > 0


WORDS = st.sampled_from(["role:master", "role:slave", "slave0:ip=h,port=x", "master_port:-1", "db0:keys=", "run_id:"])
TEXTS = st.lists(WORDS | st.text(max_size=12), max_size=8).map("\r\n".join)
FIELDS = st.lists(st.sampled_from(["aaaa", "myself", "1:2@3", "-", "0-", "[1->-x]", "connected"]) | st.text(max_size=6))


@given(info=TEXTS, table=st.lists(FIELDS.map(" ".join), max_size=4).map("\n".join), raw=st.binary(max_size=40))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_answered_is_an_answer_or_a_sentence(info: str, table: str, raw: bytes) -> None:
    """T1, fuzzed: texts in good RESP, and bytes in none."""
    for answers in ({"INFO": bulk(INFO + info), "CLUSTER NODES": bulk(TABLE + table)}, {"INFO": raw + b"\r\n"}):
        liar = Liar(HONEST | answers)
        try:
            assert isinstance(ask(liar), RollError | Silent | ClusterNode)
        finally:
            liar.close()
