"""What a Lambda process answers is taken whole, or not at all."""

import queue
import socket
from collections.abc import Iterator

import pytest

from lab.aws.runtime_api import Kind, Outcome, RuntimeApi

pytestmark = pytest.mark.lab

RESPONSE = b"POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\r\nHost: lambda\r\n"
PLAIN = RESPONSE + b'Content-Length: 13\r\n\r\n{"status": 1}'
CHUNKED = RESPONSE + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"status\r\n5\r\n": 1}\r\n0\r\n\r\n'


@pytest.fixture(scope="module")
def api() -> Iterator[RuntimeApi]:
    api = RuntimeApi()
    yield api
    api.close()


def send(api: RuntimeApi, what: bytes) -> bytes:
    """Sends it as a process that is killed thereafter; what came back."""
    host, _, port = api.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(what)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize("whole", [PLAIN, CHUNKED], ids=["plain", "chunked"])
def test_a_whole_answer_is_taken_and_a_part_of_one_never(api: RuntimeApi, whole: bytes) -> None:
    """A process may be killed after any byte that it sends."""
    for length in range(len(whole)):
        assert b"202" not in send(api, whole[:length])
    with pytest.raises(queue.Empty):
        api.outcomes.get(block=False)
    assert b"202" in send(api, whole)
    assert api.outcomes.get(timeout=5) == Outcome(Kind.RESPONSE, b'{"status": 1}')
