"""HTTPS requests to what users name: the gate's checks."""

import urllib3
from urllib3.exceptions import HTTPError

from lambdas.clients import HttpAnswer

MOST = 256 * 1024
"""Bytes of an answer that are read."""


class HttpClient:
    """Each request is made once, on a certificate that the system trusts. A redirect is an answer, and not followed."""

    def __init__(self) -> None:
        self._pool = urllib3.PoolManager(retries=False)

    def get(self, url: str, timeout_seconds: float) -> HttpAnswer:
        try:
            answer = self._pool.request(
                "GET", url, timeout=urllib3.Timeout(total=timeout_seconds), preload_content=False, redirect=False
            )
            body = answer.read(MOST, decode_content=True)
            answer.close()
        except (HTTPError, OSError) as error:
            return HttpAnswer(fault=" ".join(str(error).split()) or type(error).__name__)
        return HttpAnswer(answer.status, body.decode(errors="replace"))
