"""The apiserver's authorization webhook: refuses what a fault forbids, and has no opinion on anything else.

It is asked about users in the application's groups alone (lab.controlplane.start). A fault may also freeze the process
that asks.
"""

from collections.abc import Mapping
from typing import Any

from lab.aws.calls import Freezer
from lab.aws.faults import Faults

REASON = "the lab was told to refuse it"


def review(request: Mapping[str, Any], faults: Faults, freeze: Freezer) -> dict[str, Any]:
    """Answers a SubjectAccessReview (authorization.k8s.io/v1)."""
    spec = request.get("spec", {})
    asked, user = spec.get("resourceAttributes") or {}, str(spec.get("user", ""))
    verb = str(asked.get("verb", ""))
    resource = "/".join(part for part in (asked.get("resource"), asked.get("subresource")) if part)
    # The user of a role is named after it and its session, which is the function's name.
    seconds = faults.freeze_seconds(user, verb=verb, resource=resource)
    # A process that has ended meanwhile never asked.
    gone = bool(seconds) and not freeze(user.rpartition("/")[2], seconds)()
    status: dict[str, Any] = {"allowed": False}
    if gone or faults.forbids(verb, resource, user):
        status |= {"denied": True, "reason": REASON}
    return {"apiVersion": request.get("apiVersion"), "kind": "SubjectAccessReview", "status": status}
