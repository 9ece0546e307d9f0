"""HTTPS requests to what users name: the gate's checks, and hooks."""

from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from eks_rolling.clients.protocols import HttpAnswer

MOST = 256 * 1024
"""Bytes of an answer that are read."""


class HttpClient:
    """Each request is made once, on a certificate that the system trusts. A redirect is an answer, and not followed."""

    def __init__(self) -> None:
        self._pool = urllib3.PoolManager(retries=False)

    def get(self, url: str, timeout_seconds: float) -> HttpAnswer:
        return self._answer("GET", url, timeout_seconds)

    def post(self, url: str, document: Mapping[str, Any], key: str, timeout_seconds: float) -> HttpAnswer:
        return self._answer("POST", url, timeout_seconds, json=dict(document), headers={"Idempotency-Key": key})

    def _answer(self, method: str, url: str, timeout_seconds: float, **sent: Any) -> HttpAnswer:
        if "json" in sent:
            sent["headers"] = {"Content-Type": "application/json", **sent["headers"]}
        timeout = urllib3.Timeout(total=timeout_seconds)
        try:
            answer = self._pool.request(method, url, timeout=timeout, preload_content=False, redirect=False, **sent)
            body = answer.read(MOST, decode_content=True)
            answer.close()
        except (HTTPError, OSError) as error:
            return HttpAnswer(fault=" ".join(str(error).split()) or type(error).__name__)
        return HttpAnswer(answer.status, body.decode(errors="replace"))
