"""The clients of checks and hooks against a real server with a certificate."""

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import boto3
import pytest

from eks_rolling.clients.aws import AwsClient
from eks_rolling.clients.http import MOST, HttpClient
from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.errors import Transient
from tests.contract.redis_certificates import Authority

FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function"


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"/health": b"all fine", "/large": b"x" * (MOST + 10)}.get(self.path, b"")
        self.send_response({"/moved": 302, "/down": 503}.get(self.path, 200))
        self.send_header("Location", "/health")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            # Who has read enough hangs up.
            self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("X-Amz-Function-Error" if "broken" in self.path else "X-None", "Unhandled")
        self.end_headers()
        self.wfile.write(body + str(self.headers["Idempotency-Key"]).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Tests' output is for failures."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; the system trusts its certificate."""
    authority = Authority()
    certificate, key = authority.issue("pages", "127.0.0.1")
    for name, text in (("cert", certificate), ("key", key), ("authority", authority.certificate)):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    pages = HTTPServer(("127.0.0.1", 0), Pages)
    pages.socket = context.wrap_socket(pages.socket, server_side=True)
    thread = threading.Thread(target=pages.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{pages.server_port}"
    pages.shutdown()
    pages.server_close()
    thread.join()


def test_an_answer_is_its_status_and_its_text(server: str) -> None:
    assert HttpClient().get(f"{server}/health", 5) == HttpAnswer(200, "all fine")
    assert HttpClient().get(f"{server}/down", 5) == HttpAnswer(503)


def test_a_hook_is_posted_its_question_with_the_key(server: str) -> None:
    answer = HttpClient().post(f"{server}/hook", {"key": "a/b"}, "a/b", 5)
    assert answer == HttpAnswer(200, '{"key":"a/b"}a/b')


def test_a_function_is_called_with_the_question_and_its_errors_are_no_answer(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "eu-central-1")):
        monkeypatch.setenv(name, value)
    aws = AwsClient("demo", "", "", boto3.session.Session(region_name="eu-central-1"))
    assert aws.invoke(f"{FUNCTION}:ask", {"key": "a"}, 5) == HttpAnswer(200, '{"key": "a"}None')
    assert "it failed" in aws.invoke(f"{FUNCTION}:broken", {"key": "a"}, 5).fault
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    unreachable = AwsClient("demo", "", "", boto3.session.Session(region_name="eu-central-1"))
    with pytest.raises(Transient, match="Cannot call the function"):
        unreachable.invoke(f"{FUNCTION}:ask", {}, 1)


def test_a_redirect_is_an_answer(server: str) -> None:
    assert HttpClient().get(f"{server}/moved", 5) == HttpAnswer(302)


def test_no_more_is_read_than_a_function_has_room_for(server: str) -> None:
    assert len(HttpClient().get(f"{server}/large", 5).body) == MOST


def test_a_certificate_that_the_system_does_not_trust_is_no_answer(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").write_text(Authority("somebody").certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other"))
    assert "certificate verify failed" in HttpClient().get(f"{server}/health", 5).fault


def test_what_does_not_answer_in_time_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = HttpClient().get(f"https://127.0.0.1:{silent.getsockname()[1]}/", 0.2)
    assert (answer.status, answer.body) == (0, "")
    assert "timed out" in answer.fault
