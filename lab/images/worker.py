"""The image `worker`: takes jobs from a broker, one at a time, and never drops one.

What it asks of the broker at $BROKER_URL:

    POST /take  {"worker": name, "wait_seconds": 1}
        200 {"id": "...", "work_ms": 250}   a job, leased to this worker
        204                                 none came within wait_seconds (the broker holds the request that long,
                                            5 seconds at most)
    POST /done  {"id": "...", "worker": name}
        2xx                                 counted; the same answer when it is said twice
        409                                 the lease had expired: the job is somebody else's again

A lease expires at the broker's discretion, but not before work_ms is over by a good margin; the job is then handed
out again. Whatever else the broker answers, or no answer at all, is tried again with back-off.

On SIGTERM the worker lets an open /take come back, since closing it could strand a job already handed over until its
lease ends; it finishes the job in hand, reports it, exits 0.
Environment: BROKER_URL (http://broker:8080), POD_NAME.
"""

import http.client
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from types import FrameType

_WAIT_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0
_BACKOFF_SECONDS = (0.1, 2.0)


class Worker:
    """One worker process."""

    def __init__(self, broker: str, name: str) -> None:
        self.broker = broker.rstrip("/")
        self.name = name
        self.leaving = False
        self._backoff = _BACKOFF_SECONDS[0]

    def leave(self, _signal: int, _frame: FrameType | None) -> None:
        """Take no job after this one."""
        self.leaving = True

    def run(self) -> int:
        """Works until told to leave; answers how many jobs it did."""
        done = 0
        while not self.leaving:
            code, job = self._ask("/take", {"worker": self.name, "wait_seconds": _WAIT_SECONDS})
            if code != http.HTTPStatus.OK:
                continue
            time.sleep(float(job["work_ms"]) / 1000)
            if self._report(job["id"]):
                done += 1
        return done

    def _report(self, job: str) -> bool:
        """Says that a job is done, until the broker has understood. False if it was somebody else's by then."""
        while True:
            code, _ = self._ask("/done", {"id": job, "worker": self.name})
            if code is not None and code < http.HTTPStatus.MULTIPLE_CHOICES:
                return True
            if code == http.HTTPStatus.CONFLICT:
                print(f"job {job}: the lease had expired")
                return False

    def _ask(self, path: str, body: dict[str, object]) -> tuple[int | None, dict[str, str]]:
        """Status and answer of one request; None after a pause where there was no useful answer."""
        request = urllib.request.Request(  # noqa: S310 (http, to the broker)
            self.broker + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 (http, to the broker)
                self._backoff = _BACKOFF_SECONDS[0]
                content = response.read()
                return response.status, json.loads(content) if content else {}
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.CONFLICT:
                return error.code, {}
            said: object = error
        except (OSError, http.client.HTTPException) as error:
            said = error
        print(f"{path}: {said}", file=sys.stderr)
        time.sleep(self._backoff)
        self._backoff = min(self._backoff * 2, _BACKOFF_SECONDS[1])
        return None, {}


def main() -> None:
    name = os.environ.get("POD_NAME", os.environ.get("HOSTNAME", "worker"))
    worker = Worker(os.environ.get("BROKER_URL", "http://broker:8080"), name)
    signal.signal(signal.SIGTERM, worker.leave)
    print(f"taking jobs from {worker.broker}")
    print(f"left after {worker.run()} jobs")


if __name__ == "__main__":
    main()
