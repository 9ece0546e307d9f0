"""Startup, readiness and liveness probes: looking, and deciding from what was seen."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Literal, Protocol

from lab.kube import Json
from lab.node.process import Outcome

ProbeKind = Literal["startup", "readiness", "liveness"]
_SHORTEST_PERIOD_SECONDS = 0.1


class Runner(Protocol):
    """Runs commands inside the container."""

    async def run(self, command: list[str], timeout_seconds: float) -> Outcome: ...


@dataclass(frozen=True)
class ProbeResult:
    """What one look found, and for a failure, how a kubelet would put it."""

    success: bool
    message: str = ""


@dataclass
class Verdict:
    """A probe's result so far: it changes after as many equal looks in a row as its threshold says."""

    success_threshold: int
    failure_threshold: int
    passing: bool | None = None
    _streak: int = 0
    _last: bool | None = None

    @classmethod
    def of(cls, probe: Json) -> "Verdict":
        return cls(probe.get("successThreshold", 1), probe.get("failureThreshold", 3))

    def note(self, success: bool) -> bool:
        """Counts one look. True if the result has changed by it."""
        self._streak = self._streak + 1 if success == self._last else 1
        self._last = success
        needed = self.success_threshold if success else self.failure_threshold
        if self._streak < needed or self.passing == success:
            return False
        self.passing = success
        return True

    @property
    def failures(self) -> int:
        """How many looks in a row have failed."""
        return self._streak if self._last is False else 0


def container_port(container: Json, port: int | str) -> int:
    """A probe's port, which may be the name of one of the container's. Raises ValueError if there is none such."""
    if isinstance(port, int):
        return port
    for declared in container.get("ports", ()):
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if port.isdigit():
        return int(port)
    raise ValueError(f"the container has no port named {port}")


async def look(probe: Json, container: Json, pod_ip: str, runner: Runner) -> ProbeResult:
    """One look, within the probe's timeout."""
    timeout = float(probe.get("timeoutSeconds", 1))
    try:
        if "exec" in probe:
            return _seen_of_exec(await runner.run(probe["exec"]["command"], timeout), timeout)
        if "httpGet" in probe:
            async with asyncio.timeout(timeout):
                return await _http_get(probe["httpGet"], container, pod_ip)
        if "tcpSocket" in probe:
            action = probe["tcpSocket"]
            async with asyncio.timeout(timeout):
                return await _tcp_connect(action.get("host") or pod_ip, container_port(container, action["port"]))
    except TimeoutError:
        return ProbeResult(False, f"no answer within {timeout:g} s")
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return ProbeResult(False, str(error))
    return ProbeResult(False, f"the lab has no such probe: {', '.join(probe.keys() & {'grpc'}) or 'no action'}")


async def http_get(action: Json, container: Json, pod_ip: str) -> int:
    """The status code that an httpGet action gets. Raises OSError, ValueError or asyncio.IncompleteReadError."""
    host = action.get("host") or pod_ip
    port = container_port(container, action["port"])
    context = _trusting() if action.get("scheme", "HTTP") == "HTTPS" else None
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/lab", "Accept": "*/*", "Connection": "close"}
    headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = action.get("path") or "/"
    # By hand: a probe is one short request, twenty times a second in a busy lab.
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        status_line = await reader.readuntil(b"\r\n")
        return int(status_line.split(b" ", 2)[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _http_get(action: Json, container: Json, pod_ip: str) -> ProbeResult:
    try:
        code = await http_get(action, container, pod_ip)
    except (ValueError, IndexError) as error:
        return ProbeResult(False, f"not an HTTP answer: {error}")
    if 200 <= code < 400:
        return ProbeResult(True)
    return ProbeResult(False, f"HTTP probe failed with statuscode: {code}")


async def _tcp_connect(host: str, port: int) -> ProbeResult:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return ProbeResult(True)


def _trusting() -> ssl.SSLContext:
    """Probes take any certificate, as a kubelet's do."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _seen_of_exec(outcome: Outcome, timeout: float) -> ProbeResult:
    if outcome.exit_code is None:
        return ProbeResult(False, f"command timed out after {timeout:g} s")
    return ProbeResult(outcome.exit_code == 0, outcome.output)


def period_seconds(probe: Json) -> float:
    return max(float(probe.get("periodSeconds", 10)), _SHORTEST_PERIOD_SECONDS)
