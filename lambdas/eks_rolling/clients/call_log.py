"""What a step's invocation called, by the names that permissions have: for the report."""

from typing import Any, Protocol
from urllib.parse import urlsplit

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

_RESOURCES_BEGIN = {"api": 2, "apis": 3}
"""First part of a path -> how many parts stand before the resource: /api/v1/..., /apis/GROUP/VERSION/..."""

_PREFIXES = {"monitoring": "cloudwatch"}
"""Signing name -> the prefix of its actions in IAM policies, where they differ."""

_ACTIONS = {"s3:ListObjectsV2": "s3:ListBucket", "lambda:Invoke": "lambda:InvokeFunction"}
"""Operation -> action, where the two have different names (Service Authorization Reference)."""


class Emitter(Protocol):
    """A boto3 session's events."""

    def register(self, event_name: str, handler: Any) -> None: ...


class Calls:
    """Collects until it is asked. A function's environment serves one invocation at a time."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def follow(self, events: Emitter) -> None:
        """Notes every AWS call of clients that are made from the session after this."""
        events.register("before-call", self._note_aws)

    def note_kubernetes(self, method: str, url: str) -> None:
        self._made.add(kubernetes_call(method, url))

    def taken(self) -> tuple[str, ...]:
        """What was called since it was last asked, sorted."""
        made, self._made = self._made, set()
        return tuple(sorted(made))

    def _note_aws(self, model: Any, **_: Any) -> None:
        prefix = model.service_model.signing_name
        action = f"{_PREFIXES.get(prefix, prefix)}:{model.name}"
        self._made.add(_ACTIONS.get(action, action))


def kubernetes_call(method: str, url: str) -> str:
    """Verb and resource as RBAC has them: "list nodes", "create pods/eviction".

    What is no resource is named by its whole path, as nonResourceURLs has it: "get /version".
    """
    path = urlsplit(url).path
    parts = path.strip("/").split("/")
    rest = parts[_RESOURCES_BEGIN.get(parts[0], len(parts)) :]
    if not rest:
        return f"{_VERBS.get(method, method.lower())} /{path.strip('/')}"
    # Perhaps namespaces/NAME, then RESOURCE[/NAME[/SUBRESOURCE]].
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:]])
    if method == "GET":
        return f"{'get' if len(rest) > 1 else 'list'} {resource}"
    return f"{_VERBS.get(method, method.lower())} {resource}"


CALLS = Calls()
"""Of this process."""
