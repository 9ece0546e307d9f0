"""What every answer of the Eviction API means: refusals by budgets and by admission, load, and faults."""

from collections.abc import Mapping

import pytest

from eks_rolling.clients.kubernetes import read_denial, read_eviction
from eks_rolling.clients.protocols import Eviction, EvictionStatus
from eks_rolling.errors import AccessDenied, Permanent, Transient

WEBHOOK = 'admission webhook "drain.example" denied the request: the primary is being moved'
POLICY = "pods \"db-0\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding 'guard' denied request: not now"
BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."
NUMBERS = "The disruption budget web needs 2 healthy pods and has 2 currently"
CAUSES = {"causes": [{"reason": "DisruptionBudget", "message": NUMBERS}]}
RBAC = (
    'pods "db-0" is forbidden: User "role" cannot create resource "pods/eviction" in API group "" in the namespace "x"'
)


def fault(status: int, answer: dict[str, object], doing: str) -> Exception:
    kinds = {403: AccessDenied, 500: Transient, 503: Transient}
    return kinds.get(status, Permanent)(f"{doing}: {answer}")


def read(status: int, message: str, details: Mapping[str, object] | None = None, **headers: str) -> Eviction:
    return read_eviction(status, {"message": message, "details": details or {}}, headers, fault)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("message", [WEBHOOK, POLICY])
def test_a_denial_by_admission_is_a_refusal_with_its_words_whatever_its_status(status: int, message: str) -> None:
    """A webhook chooses the status that its denial is answered with."""
    assert read(status, message) == Eviction(EvictionStatus.DENIED, message)


def test_a_denial_without_a_pattern_is_told_apart_from_a_missing_permission() -> None:
    words = 'pods "db-0" is forbidden: this namespace is frozen'
    assert read(403, words) == Eviction(EvictionStatus.DENIED, words)
    with pytest.raises(AccessDenied):
        read(403, RBAC)


def test_a_webhook_that_cannot_be_asked_refuses_with_what_is_wrong_with_it() -> None:
    words = 'Internal error occurred: failed calling webhook "drain.example": failed to call webhook: no endpoints'
    assert read(500, words) == Eviction(EvictionStatus.DENIED, words)


def test_long_words_are_cut_to_one_line() -> None:
    told = read(403, 'admission webhook "w" denied the request: ' + "very\n" * 500).reason
    assert len(told) <= 300
    assert "\n" not in told


NO_BUDGET = (
    'poddisruptionbudgets.policy "eks-rolling-deployment-web" is forbidden: exceeded quota: none, requested: '
    "count/poddisruptionbudgets.policy=1, used: count/poddisruptionbudgets.policy=0, limited: "
    "count/poddisruptionbudgets.policy=0"
)
ENDING = (
    'poddisruptionbudgets.policy "b" is forbidden: unable to create new content in namespace shop because it is ending'
)
MAY_NOT = (
    'poddisruptionbudgets.policy is forbidden: User "roll" cannot create resource "poddisruptionbudgets" in API group '
    '"policy" in the namespace "shop"'
)


NO_POD = 'pods "redis-0-stand-in" is forbidden: exceeded quota: small, requested: pods=1, used: pods=6, limited: pods=6'
RESTRICTED = (
    'pods "redis-0-stand-in" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or '
    'container "redis" must set securityContext.runAsNonRoot=true)'
)
MAY_MAKE_NO_POD = 'pods is forbidden: User "roll" cannot create resource "pods" in API group "" in the namespace "shop"'


@pytest.mark.parametrize(("status", "message"), [(403, NO_POD), (403, RESTRICTED), (400, WEBHOOK)])
def test_a_stand_in_that_a_namespace_does_not_take_is_denied_with_its_words(status: int, message: str) -> None:
    assert read_denial(status, {"message": message}, fault) == message


@pytest.mark.parametrize(
    ("status", "message"), [(403, NO_BUDGET), (403, ENDING), (400, WEBHOOK), (422, POLICY), (403, POLICY)]
)
def test_a_budget_that_a_namespace_does_not_take_is_denied_with_its_words(status: int, message: str) -> None:
    assert read_denial(status, {"message": message}, fault) == message


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (403, MAY_NOT, AccessDenied),
        (403, MAY_MAKE_NO_POD, AccessDenied),
        (422, "invalid", Permanent),
        (500, "etcd", Transient),
    ],
)
def test_what_is_about_the_caller_or_the_server_is_a_fault(status: int, message: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_denial(status, {"message": message}, fault)


def test_a_budget_refuses_with_its_causes() -> None:
    assert read(429, BUDGET, CAUSES) == Eviction(EvictionStatus.REFUSED, NUMBERS)


def test_the_load_protection_of_the_api_server_is_no_budget() -> None:
    answer = read(429, "too many requests, please try again later", None, **{"Retry-After": "3"})
    assert (answer.status, answer.retry_after) == (EvictionStatus.BUSY, 3.0)


def test_a_pod_of_another_uid_is_gone_and_another_conflict_is_not() -> None:
    uid = 'Operation cannot be fulfilled on Pod "web-1": the UID in the precondition (a) does not match the UID (b)'
    assert read(409, uid).status is EvictionStatus.GONE
    assert read(404, 'pods "web-1" not found').status is EvictionStatus.GONE
    assert read(409, "the budget was modified; please try again").status is EvictionStatus.REFUSED


def test_other_faults_stay_faults() -> None:
    with pytest.raises(Transient):
        read(500, "etcdserver: leader changed")
    with pytest.raises(Permanent):
        read(400, "the body cannot be read")
