"""The way into a lab's network, without a lab: the gate leads wherever its process can go."""

import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.gate import Forwarder, serve_gate
from lab.loop_thread import LoopThread


@pytest.fixture
def forwarder(tmp_path: Path) -> Iterator[Forwarder]:
    deep = tmp_path / ("directory" * 15)
    deep.mkdir()
    with LoopThread() as inside, LoopThread() as outside:
        gate = inside.run(serve_gate(deep / "gate"))
        forwarder = Forwarder(deep / "gate", outside)
        yield forwarder
        forwarder.close()
        inside.loop.call_soon_threadsafe(gate.close)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


def connect(forwarder: Forwarder, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection through the gate."""
    client = socket.create_connection(("127.0.0.1", forwarder.port_for(*listener.getsockname())), timeout=10)
    served, _ = listener.accept()
    served.settimeout(10)
    return client, served


def test_what_either_side_sends_arrives_whole(forwarder: Forwarder, listener: socket.socket) -> None:
    sent = bytes(range(256)) * 20_000
    client, served = connect(forwarder, listener)
    with client, served:
        threading.Thread(target=send_all, args=(client, sent)).start()
        assert b"".join(iter(lambda: served.recv(1 << 16), b"")) == sent

        # Half closed, the other direction still works, however long nobody says anything.
        gc.collect()
        served.sendall(b"and back")
        served.close()
        assert b"".join(iter(lambda: client.recv(1 << 16), b"")) == b"and back"


def test_an_address_where_nobody_listens_ends_the_connection(forwarder: Forwarder, listener: socket.socket) -> None:
    address = listener.getsockname()
    listener.close()
    with socket.create_connection(("127.0.0.1", forwarder.port_for(*address)), timeout=10) as client:
        assert ended(client)


def test_a_side_that_breaks_off_ends_the_other(forwarder: Forwarder, listener: socket.socket) -> None:
    client, served = connect(forwarder, listener)
    with client, served:
        # Lingering for no time at all turns a close into a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert ended(served)


def send_all(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
