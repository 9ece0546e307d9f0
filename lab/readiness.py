"""Whether a part answers: the smallest HTTP client that can tell."""

import asyncio
import ssl
from urllib.parse import urlsplit

_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.025


async def wait_until_ready(url: str) -> None:
    """Returns once a GET of `url` answers 200. Certificates are not checked."""
    while True:
        if await _answers(url):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _answers(url: str) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await _status(url) == 200
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _status(url: str) -> int:
    target = urlsplit(url)
    context: ssl.SSLContext | None = None
    if target.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(target.hostname, target.port, ssl=context)
    try:
        path = target.path or "/"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {target.netloc}\r\nConnection: close\r\n\r\n".encode())
        _, code, _ = (await reader.readuntil(b"\r\n")).decode().split(" ", 2)
        return int(code)
    finally:
        writer.close()
