"""Lambda: runs the functions that a deployment has made, each invocation in an environment that is free or new.

The configuration is what moto's Lambda API was given. The code is the function's own zip file, unpacked; what a layer
would bring is taken from the interpreter that the lab runs on, since layers are built for Lambda's machines.
"""

import contextlib
import hashlib
import io
import logging
import os
import sys
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.aws.account import Account
from lab.aws.environment import Environment, Function, Result
from lab.aws.faults import Faults
from lab.aws.nursery import Nursery
from lab.paths import LabPaths, cache_directory

LOG = logging.getLogger(__name__)
_ASYNC_RETRIES = 2
_RETRY_SECONDS = 1.0


class FunctionNotFoundError(Exception):
    """There is no function of that name."""


class TooManyRequestsError(Exception):
    """The function's reserved concurrency is used up."""


class NotReadyError(Exception):
    """The function was not called for long, and its network is not there yet."""


class Lambdas:
    """The functions' environments.

    At most `capacity` processes live at once: an invocation beyond that waits, where Lambda has room for a thousand. An
    environment that had nothing to do for `idle_seconds` ends.
    """

    def __init__(
        self,
        account: Account,
        paths: LabPaths,
        faults: Faults,
        *,
        port: int,
        capacity: int = 40,
        idle_seconds: float = 120,
    ) -> None:
        self._account = account
        self._paths = paths
        self._faults = faults
        self._port = port
        self._capacity = capacity
        self._idle_seconds = idle_seconds
        self._idle: dict[Function, list[Environment]] = defaultdict(list)
        self._busy: dict[Function, int] = defaultdict(int)
        self._at_work: set[Environment] = set()
        self._changed = threading.Condition()
        self._nursery = Nursery()
        self._later = ThreadPoolExecutor(capacity, "lambda-later")
        threading.Thread(target=self._reap, name="lambda-reaper", daemon=True).start()

    def invoke(self, name: str, payload: bytes) -> Result:
        """Runs a function, by name or ARN, and waits for its answer.

        Raises FunctionNotFoundError, TooManyRequestsError and NotReadyError.
        """
        function, reserved = self._function(name)
        if self._faults.is_asleep(function.name):
            raise NotReadyError(
                "The operation cannot be performed at this time. The function is inactive and its VPC connection is no "
                "longer available. Wait for the VPC connection to reestablish and try again."
            )
        environment = self._acquire(function, reserved)
        self._at_work.add(environment)
        try:
            result, killed = environment.invoke(payload or b"{}", self._faults.kill_after(function.name))
        finally:
            self._at_work.discard(environment)
            self._release(environment)
        if killed:
            self._faults.killed()
        return result

    def freeze(self, name: str, seconds: float) -> Callable[[], bool]:
        """Lets all that a function is at work on stand still for so long.

        What is answered waits for the end of that, and says whether any of it goes on: the function's timeout may have
        ended it by then.
        """
        frozen = [environment for environment in list(self._at_work) if environment.function.name == name]
        until = time.monotonic() + seconds
        for environment in frozen:
            environment.stand_still()

        def thaw() -> bool:
            while (left := until - time.monotonic()) > 0 and not all(environment.dead for environment in frozen):
                time.sleep(min(left, 0.1))
            for environment in frozen:
                environment.go_on()
            return not all(environment.dead for environment in frozen)

        thawed = self._later.submit(thaw)
        return thawed.result

    def invoke_later(self, name: str, payload: bytes) -> None:
        """Takes an event for a function; a failed one is tried twice more, as Lambda does (though it waits longer)."""
        self._function(name)
        self._later.submit(self._invoke_with_retries, name, payload)

    def processes(self) -> list[int]:
        """The environments that wait for work, by process id."""
        with self._changed:
            return [environment.pid for idle in self._idle.values() for environment in idle]

    def close(self) -> None:
        """Ends every environment that has nothing to do."""
        self._retire(lambda _environment: True)

    def _invoke_with_retries(self, name: str, payload: bytes) -> None:
        failures = 0
        while failures <= _ASYNC_RETRIES:
            with contextlib.suppress(FunctionNotFoundError, TooManyRequestsError):
                try:
                    if not self.invoke(name, payload).failed:
                        return
                except NotReadyError:
                    # Lambda keeps such an event for hours.
                    time.sleep(_RETRY_SECONDS)
                    continue
            failures += 1
            time.sleep(_RETRY_SECONDS * failures)
        LOG.warning("an event for %s failed %s times", name, _ASYNC_RETRIES + 1)

    def _function(self, name: str) -> tuple[Function, int | None]:
        try:
            described = self._account.functions.get_function(name.removesuffix(":$LATEST"))
        except Exception as error:  # moto's own, which is a response
            raise FunctionNotFoundError(f"Function not found: {name}") from error
        function = Function(
            name=described.function_name,
            arn=described.function_arn,
            handler=described.handler,
            role=described.role,
            memory_mib=int(described.memory_size),
            timeout_seconds=float(described.timeout),
            code=self._code(described),
            variables=tuple(sorted(described.environment_vars.items())),
            log=self._paths.logs / "lambda" / f"{described.function_name}.log",
        )
        reserved = described.reserved_concurrency
        return function, None if reserved is None else int(reserved)

    def _code(self, described: Any) -> Path:
        """Where the function's code is unpacked; functions with the same code share it."""
        digest = hashlib.sha256(described.code_sha_256.encode()).hexdigest()[:16]
        directory = self._paths.root / "lambda" / digest
        with self._changed:
            if not directory.exists():
                unpacking = directory.with_name(f"{directory.name}.new")
                zipfile.ZipFile(io.BytesIO(described.code_bytes)).extractall(unpacking)
                unpacking.rename(directory)
        return directory

    def _acquire(self, function: Function, reserved: int | None) -> Environment:
        with self._changed:
            if reserved is not None and self._busy[function] >= reserved:
                raise TooManyRequestsError("Rate Exceeded.")
            while (free := self._take_idle(function)) is None and self._full() and not self._make_room():
                self._changed.wait()
            self._busy[function] += 1
        if free is not None:
            return free
        try:
            return Environment(function, self._variables(function), self._nursery)
        except BaseException:
            with self._changed:
                self._busy[function] -= 1
                self._changed.notify_all()
            raise

    def _release(self, environment: Environment) -> None:
        with self._changed:
            self._busy[environment.function] -= 1
            if not environment.dead:
                environment.idle_since = time.monotonic()
                self._idle[environment.function].append(environment)
            self._changed.notify_all()

    def _take_idle(self, function: Function) -> Environment | None:
        idle = self._idle[function]
        while idle:
            environment = idle.pop()
            if not environment.dead:
                return environment
        return None

    def _full(self) -> bool:
        return sum(self._busy.values()) + sum(len(idle) for idle in self._idle.values()) >= self._capacity

    def _make_room(self) -> bool:
        """Ends the environment that has been idle longest; False if all are busy."""
        waiting = [environment for idle in self._idle.values() for environment in idle]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda environment: environment.idle_since)
        self._idle[oldest.function].remove(oldest)
        oldest.kill()
        return True

    def _reap(self) -> None:
        while True:
            time.sleep(min(self._idle_seconds, 5.0))
            limit = time.monotonic() - self._idle_seconds
            self._retire(lambda environment, limit=limit: environment.dead or environment.idle_since < limit)

    def _retire(self, retired: Any) -> None:
        with self._changed:
            for function, idle in self._idle.items():
                for environment in [environment for environment in idle if retired(environment)]:
                    idle.remove(environment)
                    environment.kill()
                self._idle[function] = idle

    def _variables(self, function: Function) -> dict[str, str]:
        """The process's environment: what Lambda sets, the lab's endpoint, then the function's own variables."""
        session = self._account.sts.assume_role(
            region_name=self._account.region,
            role_session_name=function.name,
            role_arn=function.role,
            policy=None,
            duration=43_200,
            external_id=None,
        )
        return {
            "AWS_ACCESS_KEY_ID": session.access_key_id,
            "AWS_SECRET_ACCESS_KEY": session.secret_access_key,
            "AWS_SESSION_TOKEN": session.session_token,
            "AWS_REGION": self._account.region,
            "AWS_DEFAULT_REGION": self._account.region,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mib),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": function.log.name,
            "HOME": str(function.code),  # no configuration of whoever runs the lab
            "LAMBDA_TASK_ROOT": str(function.code),
            "LANG": "en_US.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPYCACHEPREFIX": str(cache_directory() / "bytecode"),
            "TZ": ":UTC",
            "_HANDLER": function.handler,
            **dict(function.variables),
        }
