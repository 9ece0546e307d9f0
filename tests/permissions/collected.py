"""What rolls in labs really called, out of the labs' records: the API server's audit log, and AWS's recorded calls."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.aws.authorize import REASON
from lab.aws.policies import FREE
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec

DIRECTORY = REPOSITORY / "build" / "permissions"
"""Where every end-to-end lab leaves a file, whichever process ran it."""

OURS = "eks-rolling"

FORBIDDEN = "forbidden"
"""The lab in which permissions are taken away: what it refuses is no finding."""

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}


@dataclass(frozen=True, order=True)
class Request:
    """A request to the API server. `role` is the IAM role's name, `resource` has its subresource behind a slash."""

    role: str
    groups: tuple[str, ...]
    verb: str
    api_group: str
    resource: str
    namespace: str
    name: str
    allowed: bool


@dataclass(frozen=True, order=True)
class Call:
    """An AWS call, its action written as in a policy."""

    role: str
    action: str
    allowed: bool


@dataclass(frozen=True)
class Uses:
    """What the application of one lab called, each once."""

    lab: str
    cluster: str
    requests: frozenset[Request]
    calls: frozenset[Call]


def collect(paths: LabPaths) -> Uses:
    """Reads the records of a lab, running or ended."""
    requests, calls = frozenset(_requests(paths)), frozenset(_calls(paths.calls))
    if paths.name == FORBIDDEN:
        requests, calls = frozenset(r for r in requests if r.allowed), frozenset(c for c in calls if c.allowed)
    return Uses(paths.name, LabSpec.load(paths.spec).cluster, requests, calls)


def save(uses: Uses, file: Path) -> None:
    """Keeps them for the walk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "lab": uses.lab,
        "cluster": uses.cluster,
        "requests": [asdict(r) for r in sorted(uses.requests)],
        "calls": [asdict(c) for c in sorted(uses.calls)],
    }
    file.write_text(json.dumps(document, indent=1))


def load(file: Path) -> Uses:
    document = json.loads(file.read_text())
    requests = frozenset(Request(**{**r, "groups": tuple(r["groups"])}) for r in document["requests"])
    return Uses(document["lab"], document["cluster"], requests, frozenset(Call(**c) for c in document["calls"]))


def _requests(paths: LabPaths) -> Iterator[Request]:
    for log in sorted(paths.logs.glob("audit*.jsonl")):
        for event in _lines(log):
            user = event.get("user", {})
            groups = tuple(sorted(g for g in user.get("groups", ()) if g.startswith(OURS)))
            if groups and "objectRef" in event and not _by_fault(event):
                yield _request(event, user, groups)


def _by_fault(event: dict[str, Any]) -> bool:
    """Whether the lab was told to refuse it: that says nothing of what the role may do."""
    return bool(event.get("annotations", {}).get("authorization.k8s.io/reason") == REASON)


def _request(event: dict[str, Any], user: dict[str, Any], groups: tuple[str, ...]) -> Request:
    about = event["objectRef"]
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    return Request(
        role=user["extra"]["canonicalArn"][0].rpartition("/")[2],
        groups=groups,
        verb=event["verb"],
        api_group=about.get("apiGroup", ""),
        resource=resource,
        namespace=about.get("namespace", ""),
        # Lists and creations are not authorized by name, and every pod's name is another.
        name=about.get("name", "") if resource in {"leases", "secrets", "deployments"} else "",
        allowed=event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
    )


def _calls(log: Path) -> Iterator[Call]:
    """A call that is refused first and granted later, word for word, was refused because AWS did not know the new
    instance's tags everywhere yet: it counts as granted."""
    granted: dict[tuple[str, str, str], bool] = {}
    for call in _lines(log):
        what = f"{call['service']}:{call['action']}"
        if what not in FREE and not call.get("fault"):
            key = (call["role"].rpartition("/")[2], what, json.dumps(call["parameters"], sort_keys=True))
            granted[key] = granted.get(key, False) or call["error"] not in DENIED
    yield from (Call(role, what, allowed) for (role, what, _), allowed in granted.items())


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    """The file's JSON lines; the last one may be cut off where its writer was killed."""
    with log.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)
