"""Kubernetes, through the official client's ApiClient with raw JSON answers.

The package's model classes cost 0.7 s and 70 MB at a cold start; its configuration, TLS and authentication do not.
Nothing outside this module knows that.
"""

import base64
import gc
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode

from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from urllib3.exceptions import HTTPError

from eks_rolling.clients.call_log import CALLS
from eks_rolling.clients.manifests import needs_of, quantity, read_selector, requests_of
from eks_rolling.clients.network_policies import read_network_policy
from eks_rolling.clients.protocols import Eviction, EvictionStatus
from eks_rolling.errors import AccessDenied, BadRequest, Conflict, NotFound, Permanent, Transient
from eks_rolling.legible import short
from eks_rolling.names import is_label_value, is_object_name
from eks_rolling.observed.kubernetes import (
    RESTARTED_FOR,
    Budget,
    Container,
    CronJob,
    Lease,
    Node,
    Owner,
    Pod,
    Selector,
    Service,
    Taint,
    Toleration,
    Volume,
    Workload,
    epoch,
)
from eks_rolling.observed.network import NetworkPolicy
from eks_rolling.plan.permissions import Verb
from eks_rolling.redis.groups import GROUP, stand_in_labels
from eks_rolling.redis.stand_in import LABEL, manifest

Json = dict[str, Any]

PAGE = 500
"""Objects per list request: at 10,000 pods a page costs 28 ms and 2.75 MB, the whole list 55 MB at once."""

TOKEN_SECONDS = 600
"""A token is good for 15 minutes after its signature; a new one is made well before."""

SIGN_IN_TRIES = 3
"""How often a new token is made when the server does not accept it: its authenticator may be down for a moment."""

TIMEOUT = (5, 30)
"""Connect and read timeout of a request, in seconds."""

DENIAL = re.compile(
    r'admission webhook ".*?" denied the request'
    r"|ValidatingAdmissionPolicy .* denied request"
    r'|failed calling webhook "',
    re.DOTALL,
)
"""How the API server tells of webhooks and policies that said no, and of a webhook that could not be asked (apiserver,
pkg/admission/plugin)."""

NOT_ALLOWED = re.compile(r'User ".*?" cannot create resource "(pods|pods/eviction|poddisruptionbudgets)"')
"""How it tells of a missing permission (apiserver, endpoints/handlers/responsewriters/errors.go)."""

LONGEST_WORDS = 300
"""Characters of a webhook's text that are passed on."""

INSTANCE_ID = re.compile(r"i-[0-9a-zA-Z]{1,32}")

LEASE_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

OURS = {"app.kubernetes.io/managed-by": "eks-rolling"}
"""Label of every object that a roll creates."""

_WORKLOADS = {
    "Deployment": "deployments",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
    "ReplicaSet": "replicasets",
}

APPS, POLICY, STORAGE = "apis/apps/v1", "apis/policy/v1", "apis/storage.k8s.io/v1"
CORE, LEASES = "api/v1", "apis/coordination.k8s.io/v1"
NETWORKING = "apis/networking.k8s.io/v1"
BATCH, ADMISSION = "apis/batch/v1", "apis/admissionregistration.k8s.io/v1"

JUDGES = (
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
)
"""Kind and resource of what may deny a request that its rules cover."""


def path_of(api: str, resource: str, name: str | None = None, *, namespace: str | None = None, part: str = "") -> str:
    """The one place where names become a URL: /API/namespaces/NAMESPACE/RESOURCE/NAME/PART.

    Names come from annotations and other objects, and `..` in one would lead to another object than was granted. Raises
    BadRequest for what no object can be called.
    """
    named = [*(["namespaces", _checked(namespace, resource)] if namespace is not None else []), resource]
    if name is not None:
        named.append(_checked(name, resource))
    return "/".join(["", api, *named, *([part] if part else [])])


def _checked(name: str, resource: str) -> str:
    if not is_object_name(name):
        raise BadRequest(f"{name!r} is no name that Kubernetes objects have ({resource}): correct what names it.")
    return quote(name, safe="")


@dataclass(frozen=True, slots=True)
class Remedies:
    """What to do about an API server that does not let its caller in: the end of a sentence each."""

    unreachable: str
    unknown: str
    forbidden: str


FOR_FUNCTIONS = Remedies(
    unreachable="Check that the cluster is up and that its security group admits the functions.",
    unknown="give the function's role an EKS access entry, as deploy/README.md says.",
    forbidden="Apply deploy/rbac.yaml to the cluster.",
)

FOR_PEOPLE = Remedies(
    unreachable="Check that the cluster is up and that it can be reached from here: network, tunnel, endpoint access.",
    unknown="sign in to AWS again, check --profile and --context, or ask for an EKS access entry.",
    forbidden="Ask for this permission; docs/command.md lists what each command needs.",
)


class KubernetesClient:
    """The cluster's API server. `token` is called for a bearer token whenever the last one is about to expire.

    `configuration` is how to get there, where the certificate authority's certificate does not say it all: proxies,
    client certificates.
    """

    def __init__(
        self,
        server: str,
        ca_certificate: str,
        token: Callable[[], str],
        *,
        configuration: Configuration | None = None,
        remedies: Remedies = FOR_FUNCTIONS,
    ) -> None:
        if configuration is None:
            configuration = Configuration(host=server)
            configuration.ca_cert_data = ca_certificate
        configuration.retries = False
        self._server = server
        self._remedies = remedies
        self._api = ApiClient(configuration)
        self._make_token = token
        self._signing_in = Lock()
        self._token = ""
        self._token_made = 0.0

    def server_version(self) -> str:
        try:
            answer = self._get("/version")
        except Permanent:
            # RBAC lets every user see it (system:public-info-viewer); some clusters take that away.
            return ""
        version = answer.get("gitVersion") if isinstance(answer, dict) else None
        return version if isinstance(version, str) else ""

    # Nodes

    def nodes(self) -> list[Node]:
        return [_node(item) for item in self._list(path_of(CORE, "nodes"))]

    def node(self, name: str) -> Node | None:
        item = self._get(path_of(CORE, "nodes", name))
        return _node(item) if item else None

    def update_node(
        self,
        node: Node,
        *,
        taints: Sequence[Taint] | None = None,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        unschedulable: bool | None = None,
    ) -> Node:
        metadata: Json = {"resourceVersion": node.resource_version, "uid": node.uid}
        spec: Json = {}
        if annotations:
            metadata["annotations"] = dict(annotations)
        if labels:
            metadata["labels"] = dict(labels)
        if taints is not None:
            spec["taints"] = [
                {"key": t.key, "effect": t.effect} | ({"value": t.value} if t.value else {}) for t in taints
            ] or None
        if unschedulable is not None:
            spec["unschedulable"] = unschedulable or None
        body: Json = {"metadata": metadata} | ({"spec": spec} if spec else {})
        return _node(self._patch(path_of(CORE, "nodes", node.name), body, f"node {node.name}"))

    # Pods

    def pods(self) -> list[Pod]:
        return [_pod(item) for item in self._list(path_of(CORE, "pods"))]

    def pods_on(self, node: str) -> list[Pod]:
        return [
            _pod(item)
            for item in self._list(path_of(CORE, "pods"), fieldSelector=f"spec.nodeName={_checked(node, 'nodes')}")
        ]

    def pods_of(self, workload: Workload) -> list[Pod]:
        path = path_of(CORE, "pods", namespace=workload.owner.namespace)
        selector = _selector_text(workload.selector or Selector())
        return [_pod(item) for item in self._list(path, labelSelector=selector)]

    def evict(self, pod: Pod) -> Eviction:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        status, answer, headers = self._request(
            "POST", path_of(CORE, "pods", pod.name, namespace=pod.namespace, part="eviction"), body
        )
        return read_eviction(status, answer, headers, self._fault)

    def delete_pod(self, pod: Pod) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}}
        status, answer, _ = self._request("DELETE", path_of(CORE, "pods", pod.name, namespace=pod.namespace), body)
        if status not in {200, 202, 404, 409}:
            raise self._fault(status, answer, f"delete pod {pod}")

    def stand_ins(self, namespace: str, group: str) -> list[Pod]:
        if not is_label_value(group):
            raise BadRequest(f"{group!r} is no name that a Redis group can have: correct its annotation {GROUP}.")
        found = self._list(path_of(CORE, "pods", namespace=namespace), labelSelector=f"{LABEL}={group}")
        # Any kubelet may create a mirror pod in any namespace; who connects to one tells it the group's password.
        return [pod for pod in map(_pod, found) if not pod.mirror]

    def create_stand_in(self, workload: Workload, pod: Pod, zone: str, marks: Mapping[str, str]) -> str:
        owner = workload.owner
        item = self._get(_workload_path(owner.kind, owner.namespace, owner.name))
        if item is None:
            raise NotFound(f"{owner} is gone.")
        if item["metadata"]["uid"] != workload.uid:
            raise Conflict(f"{owner} has been replaced by another of the same name.")
        group = workload.annotations[GROUP]
        body = manifest(item, group, pod.name, zone, marks, stand_in_labels(workload.annotations))
        status, answer, _ = self._request("POST", path_of(CORE, "pods", namespace=owner.namespace), body)
        name = body["metadata"]["name"]
        if status not in {201, 409}:
            return read_denial(status, answer, self._fault, f"create the pod {owner.namespace}/{name}")
        if status == 409 and name not in {p.name for p in self.stand_ins(owner.namespace, group)}:
            raise Permanent(f"Pod {owner.namespace}/{name} has the name of a stand-in and is none: delete it.")
        return ""

    def annotate_pod(self, pod: Pod, annotations: Mapping[str, str | None]) -> Pod:
        metadata = {"resourceVersion": pod.resource_version, "uid": pod.uid, "annotations": dict(annotations)}
        path = path_of(CORE, "pods", pod.name, namespace=pod.namespace)
        return _pod(self._patch(path, {"metadata": metadata}, f"pod {pod}"))

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        status, answer, _ = self._request("GET", path_of(CORE, "secrets", name, namespace=namespace))
        if status == 403:
            raise AccessDenied(
                f"The Secret {namespace}/{name} may not be read: name it in a Role as deploy/redis-rbac.yaml shows."
            )
        if status != 200:
            raise self._fault(status, answer, f"read the Secret {namespace}/{name}")
        return {key: text for key, value in (answer.get("data") or {}).items() if (text := _text(value)) is not None}

    # Disruption budgets

    def budgets(self) -> list[Budget]:
        return [_budget(item) for item in self._list(path_of(POLICY, "poddisruptionbudgets"))]

    def create_budget(
        self, workload: Workload, name: str, annotations: Mapping[str, str], *, min_available: int | None = None
    ) -> str:
        namespace = workload.owner.namespace
        body = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": namespace, "labels": OURS, "annotations": dict(annotations)},
            "spec": {
                **({"maxUnavailable": 1} if min_available is None else {"minAvailable": min_available}),
                "selector": _selector_json(workload.selector or Selector()),
                # A pod that is not Ready anyway must not hold a roll up.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
        status, answer, _ = self._request("POST", path_of(POLICY, "poddisruptionbudgets", namespace=namespace), body)
        if status in {200, 201} or (status == 409 and answer.get("reason") == "AlreadyExists"):
            return ""
        return read_denial(status, answer, self._fault, f"create disruption budget {namespace}/{name}")

    def delete_budget(self, budget: Budget) -> None:
        path = path_of(POLICY, "poddisruptionbudgets", budget.name, namespace=budget.namespace)
        status, answer, _ = self._request("DELETE", path, {"preconditions": {"uid": budget.uid}})
        if status not in {200, 202, 404, 409}:
            raise self._fault(status, answer, f"delete disruption budget {budget}")

    # Workloads

    def workload(self, owner: Owner) -> Workload | None:
        if owner.kind not in _WORKLOADS:
            return None
        item = self._get(_workload_path(owner.kind, owner.namespace, owner.name))
        return _workload(owner.kind, item) if item else None

    def workloads(self) -> list[Workload]:
        kinds = ("Deployment", "StatefulSet", "DaemonSet")
        return [_workload(kind, item) for kind in kinds for item in self._list(_workload_path(kind))]

    def stateful_sets(self, namespace: str) -> list[Workload]:
        return [_workload("StatefulSet", item) for item in self._list(_workload_path("StatefulSet", namespace))]

    def update_workload(
        self,
        workload: Workload,
        *,
        replicas: int | None = None,
        annotations: Mapping[str, str | None] | None = None,
        template_annotations: Mapping[str, str | None] | None = None,
    ) -> None:
        owner = workload.owner
        metadata: Json = {"resourceVersion": workload.resource_version, "uid": workload.uid}
        spec: Json = {}
        if annotations:
            metadata["annotations"] = dict(annotations)
        if replicas is not None:
            spec["replicas"] = replicas
        if template_annotations:
            spec["template"] = {"metadata": {"annotations": dict(template_annotations)}}
        body: Json = {"metadata": metadata} | ({"spec": spec} if spec else {})
        self._patch(_workload_path(owner.kind, owner.namespace, owner.name), body, str(owner))

    def cron_jobs(self) -> list[CronJob]:
        items = self._list_where_served(path_of(BATCH, "cronjobs"))
        return [
            CronJob(item["metadata"]["namespace"], item["metadata"]["name"], item["spec"].get("schedule", ""))
            for item in items
            if not item["spec"].get("suspend")
        ]

    def judges_of_evictions(self) -> list[str]:
        return [
            f"{kind} {item['metadata']['name']}"
            for kind, resource in JUDGES
            for item in self._list_where_served(path_of(ADMISSION, resource))
            if any(map(_covers_evictions, _rules_of(item)))
        ]

    # Volumes and services

    def volumes(self) -> list[Volume]:
        return [
            _volume(item) for item in self._list(path_of(CORE, "persistentvolumes")) if item["spec"].get("claimRef")
        ]

    def services(self) -> list[Service]:
        return [_service(item) for item in self._list(path_of(CORE, "services"))]

    def network_policies(self) -> list[NetworkPolicy]:
        listed = self._list_where_served(path_of(NETWORKING, "networkpolicies"))
        return [read_network_policy(item) for item in listed]

    def csi_drivers(self, node: str) -> frozenset[str] | None:
        item = self._get(path_of(STORAGE, "csinodes", node))
        return frozenset(d["name"] for d in item["spec"].get("drivers") or ()) if item else None

    def volume_limits(self) -> dict[str, dict[str, int]]:
        return {
            item["metadata"]["name"]: {
                d["name"]: d["allocatable"]["count"]
                for d in item["spec"].get("drivers") or ()
                if (d.get("allocatable") or {}).get("count") is not None
            }
            for item in self._list(path_of(STORAGE, "csinodes"))
        }

    def attachments(self, node: str) -> list[str]:
        return sorted(
            item["spec"]["source"].get("persistentVolumeName") or item["metadata"]["name"]
            for item in self._list(path_of(STORAGE, "volumeattachments"))
            if item["spec"]["nodeName"] == node
        )

    # Leases

    def lease(self, name: str) -> Lease | None:
        item = self._get(_lease_path(name))
        return _lease(item) if item else None

    def put_lease(self, lease: Lease) -> Lease:
        namespace, _, name = lease.name.partition("/")
        metadata: Json = {
            "name": name,
            "namespace": namespace,
            "labels": OURS,
            "annotations": dict(lease.annotations),
        }
        renewed = datetime.fromtimestamp(lease.renewed, UTC).strftime(LEASE_TIME)
        body: Json = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": lease.holder or None,
                "leaseDurationSeconds": max(1, round(lease.duration)),
                "renewTime": renewed,
            },
        }
        if lease.resource_version:
            metadata["resourceVersion"] = lease.resource_version
            status, answer, _ = self._request("PUT", _lease_path(lease.name), body)
        else:
            status, answer, _ = self._request("POST", _lease_path(lease.name, new=True), body)
        if status == 404 and lease.resource_version:
            raise Conflict(f"The Lease {lease.name} was deleted meanwhile.")
        if status not in {200, 201}:
            raise self._fault(status, answer, f"write Lease {lease.name}")
        return _lease(answer)

    # Access

    def may(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        resource, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name}
        review: Json = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes | ({"subresource": subresource} if subresource else {})},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        status, answer, _ = self._request("POST", path, review)
        if status not in {200, 201}:
            raise self._fault(status, answer, "ask what you may do")
        return bool((answer.get("status") or {}).get("allowed"))

    def group_may(self, verb: Verb) -> bool:
        resource, _, subresource = verb.resource.partition("/")
        about = {
            "verb": verb.verb,
            "group": verb.api_group,
            "resource": resource,
            "subresource": subresource,
            "namespace": verb.namespace,
            "name": verb.name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            # Only the group matters; a review wants a user too.
            "spec": {"user": verb.group, "groups": [verb.group], "resourceAttributes": about},
        }
        status, answer, _ = self._request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        if status not in {200, 201}:
            raise self._fault(status, answer, "ask what the functions may do")
        return bool(answer["status"]["allowed"])

    # Requests

    def _list(self, path: str, **query: str) -> Iterator[Json]:
        """Every object, page by page. While one page is read the server makes the next one, whose token stands at the
        head of the answer."""
        ask = partial(self._page, path, query)
        with ThreadPoolExecutor(1, thread_name_prefix="next-page") as ahead:
            status, content = ask("")
            while True:
                expected = token_at_head(content) if status == 200 else ""
                asked = ahead.submit(ask, expected) if expected else None
                answer = parsed(content)
                if status != 200:
                    raise self._fault(status, answer, f"list {path}")
                yield from answer["items"]
                token = answer["metadata"].get("continue", "")
                if not token:
                    return
                status, content = asked.result() if asked and token == expected else ask(token)

    def _list_where_served(self, path: str) -> Iterator[Json]:
        """Every object; none where the server does not have that API. ValidatingAdmissionPolicy is v1 from Kubernetes
        1.30 on, and cluster administrators may turn APIs off."""
        with suppress(NotFound):
            yield from self._list(path)

    def _page(self, path: str, query: Mapping[str, str], token: str) -> tuple[int, bytes]:
        page = {"limit": str(PAGE), **query} | ({"continue": token} if token else {})
        status, content, _ = self._signed_in("GET", f"{path}?{urlencode(page)}", None)
        return status, content

    def _get(self, path: str) -> Json | None:
        status, answer, _ = self._request("GET", path)
        if status == 404:
            return None
        if status != 200:
            raise self._fault(status, answer, f"get {path}")
        return answer

    def _patch(self, path: str, body: Json, what: str) -> Json:
        status, answer, _ = self._request("PATCH", path, body)
        if status != 200:
            raise self._fault(status, answer, f"change {what}")
        return answer

    def _request(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json, Mapping[str, str]]:
        status, content, headers = self._signed_in(method, path, body)
        return status, parsed(content), headers

    def _signed_in(self, method: str, path: str, body: Json | None) -> tuple[int, bytes, Mapping[str, str]]:
        token = self._bearer()
        answer = self._request_once(method, path, body, token)
        for attempt in range(1, SIGN_IN_TRIES):
            if answer[0] != 401:
                break
            self._drop(token)
            time.sleep(attempt / 2)
            token = self._bearer()
            answer = self._request_once(method, path, body, token)
        return answer

    def _request_once(
        self, method: str, path: str, body: Json | None, token: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        CALLS.note_kubernetes(method, path)
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            response = self._api.call_api(
                method, self._server + path, header_params=headers, body=body, _request_timeout=TIMEOUT
            )
            content = response.read()
        except HTTPError as error:
            raise Transient(
                f"The API server {self._server} cannot be reached: {error}. {self._remedies.unreachable}"
            ) from error
        return response.status, content, response.headers

    def _bearer(self) -> str:
        """The token that all threads sign in with; a new one where there is none, or it is about to expire."""
        with self._signing_in:
            if time.monotonic() - self._token_made > TOKEN_SECONDS or not self._token_made:
                self._token = self._make_token()
                self._token_made = time.monotonic()
            return self._token

    def _drop(self, refused: str) -> None:
        """Has another token made, unless another thread has done that since `refused` was sent."""
        with self._signing_in:
            if self._token == refused:
                self._token_made = 0.0

    def _fault(self, status: int, answer: Json, doing: str) -> Transient | Permanent:
        message = answer.get("message") or answer.get("reason") or f"HTTP {status}"
        match status:
            case 401:
                return AccessDenied(
                    f"The API server {self._server} does not accept this role ({message}): {self._remedies.unknown}"
                )
            case 403:
                return AccessDenied(f"Cannot {doing}: {message}. {self._remedies.forbidden}")
            case 404:
                return NotFound(f"Cannot {doing}: {message}.")
            case 409:
                return Conflict(f"Cannot {doing}: {message}.")
            case 429 | 500 | 502 | 503 | 504:
                return Transient(f"Cannot {doing} now: {message}.")
            case _:
                return Permanent(f"Cannot {doing}: {message} (HTTP {status}).")


NEXT_PAGE = re.compile(rb'"continue":\s*"([A-Za-z0-9+/=_.-]+)"')

HEAD = 2000
"""Bytes in which a list's own metadata stands, before its items (apimachinery, ListMeta)."""


def token_at_head(content: bytes) -> str:
    """The token of the next page, "" where it is not found before the first item."""
    found = NEXT_PAGE.search(content[:HEAD].partition(b'"items"')[0])
    return found.group(1).decode() if found else ""


def parsed(content: bytes) -> Json:
    """An answer's JSON, or what it says instead.

    Without the search for cyclic garbage, of which JSON makes none: that took two thirds of the time of a long list.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        answer: Json = json.loads(content or b"{}")
    except ValueError:
        return {"message": content[:300].decode(errors="replace")}
    finally:
        if searching:
            gc.enable()
    return answer


def read_eviction(
    status: int, answer: Json, headers: Mapping[str, str], fault: Callable[[int, Json, str], Exception]
) -> Eviction:
    """What an answer of the Eviction API means (pkg/registry/core/pod/storage/eviction.go).

    Admission is looked for first: a webhook chooses the status that its denial is answered with. 404, and 409 for
    another UID: the pod is gone. 429 with causes: a budget refuses, and says why; Retry-After comes only while the
    budget has not been processed by its controller yet. 429 without: the API server's protection from load. 500 "more
    than one PodDisruptionBudget": can never succeed. Raises `fault` for the rest: about the caller or the server.
    """
    message = answer.get("message", "")
    details = answer.get("details") or {}
    causes = [c.get("message", "") for c in details.get("causes") or () if c.get("reason") == "DisruptionBudget"]
    hint = float(headers.get("Retry-After") or details.get("retryAfterSeconds") or 0)
    if status in {200, 201}:
        return Eviction(EvictionStatus.EVICTED)
    if _denied(status, message):
        return Eviction(EvictionStatus.DENIED, " ".join(message.split())[:LONGEST_WORDS])
    if status == 404 or (status == 409 and "precondition" in message and "UID" in message):
        return Eviction(EvictionStatus.GONE)
    if status == 409 or (status == 429 and (causes or "disruption budget" in message)):
        return Eviction(EvictionStatus.REFUSED, "; ".join(filter(None, causes)) or message, hint)
    if status == 429:
        return Eviction(EvictionStatus.BUSY, message, hint)
    if status == 500 and "more than one PodDisruptionBudget" in message:
        return Eviction(EvictionStatus.FORBIDDEN_BY_TWO_BUDGETS, message)
    raise fault(status, answer, "evict a pod")


def read_denial(status: int, answer: Json, fault: Callable[[int, Json, str], Exception], doing: str = "create") -> str:
    """The words with which admission, a quota or an ending namespace denies an object. Raises `fault` for the rest."""
    message = str(answer.get("message") or answer.get("reason") or f"HTTP {status}")
    if not _denied(status, message):
        raise fault(status, answer, doing)
    return " ".join(message.split())[:LONGEST_WORDS]


def _denied(status: int, message: str) -> bool:
    """Whether admission said no: any 403 but one of an authorizer, which names the user and what it cannot do."""
    if DENIAL.search(message):
        return True
    return status == 403 and not NOT_ALLOWED.search(message)


def _lease_path(name: str, *, new: bool = False) -> str:
    namespace, _, lease = name.partition("/")
    path_of(LEASES, "leases", lease, namespace=namespace)
    return path_of(LEASES, "leases", None if new else lease, namespace=namespace)


def _workload_path(kind: str, namespace: str | None = None, name: str | None = None) -> str:
    return path_of(APPS, _WORKLOADS[kind], name, namespace=namespace)


def _text(value: str) -> str | None:
    """A Secret's value; None where it is no text, which none that a roll needs is."""
    try:
        return base64.b64decode(value).decode()
    except ValueError:
        return None


def instance_of(provider_id: str) -> str:
    """The EC2 instance id in a node's spec.providerID (aws:///ZONE/ID); "" for anything else."""
    last = provider_id.rpartition("/")[2]
    return last if provider_id.startswith("aws://") and INSTANCE_ID.fullmatch(last) else ""


def _node(item: Json) -> Node:
    metadata, spec = item["metadata"], item.get("spec") or {}
    conditions = {c["type"]: c for c in (item.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    labels = metadata.get("labels") or {}
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        instance=instance_of(spec.get("providerID", "")),
        zone=labels.get("topology.kubernetes.io/zone", ""),
        ready=ready.get("status") == "True",
        # Unknown is what the node lifecycle controller makes of a kubelet that does not report; a sick one says False.
        silent_since=epoch(ready.get("lastTransitionTime")) if ready.get("status") == "Unknown" else 0.0,
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple(Taint(t["key"], t["effect"], t.get("value", "")) for t in spec.get("taints") or ()),
        labels=labels,
        annotations=metadata.get("annotations") or {},
        created=epoch(metadata.get("creationTimestamp")),
        allocatable={
            name: quantity(name, str(value))
            for name, value in ((item.get("status") or {}).get("allocatable") or {}).items()
        },
        kubelet=str(((item.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")),
    )


def _pod(item: Json) -> Pod:
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    annotations = metadata.get("annotations") or {}
    volumes = spec.get("volumes") or ()
    # An initial container that is always started again runs beside the others (a native sidecar).
    sidecars = (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    containers = (*(spec.get("containers") or ()), *sidecars)
    scheduled = conditions.get("PodScheduled") or {}
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName", ""),
        owner=_owner(metadata),
        phase=status.get("phase", "Pending"),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting_until=epoch(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
        mirror="kubernetes.io/config.mirror" in annotations,
        labels=metadata.get("labels") or {},
        annotations=annotations,
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        claims=tuple(v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim")),
        local_volumes=tuple(
            v["name"] for v in volumes if "emptyDir" in v and (v["emptyDir"] or {}).get("medium") != "Memory"
        ),
        host_paths=tuple(v["hostPath"]["path"] for v in volumes if v.get("hostPath")),
        host_ports=tuple(p["hostPort"] for c in containers for p in c.get("ports") or () if p.get("hostPort")),
        containers=tuple(_container(c) for c in containers),
        unschedulable_because=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        address=status.get("podIP", ""),
        resource_version=metadata.get("resourceVersion", ""),
        requests=requests_of(spec),
        needs=needs_of(spec, metadata["namespace"]),
        grace_seconds=float(spec.get("terminationGracePeriodSeconds", 30)),
        node_critical=spec.get("priorityClassName") == "system-node-critical",
        priority=spec.get("priority") or 0,
        preempts=spec.get("preemptionPolicy") != "Never",
        gated_by_balancer=any(
            str(gate.get("conditionType", "")).startswith(BALANCERS_GATE) for gate in spec.get("readinessGates") or ()
        ),
        ends=spec.get("restartPolicy", "Always") != "Always",
    )


BALANCERS_GATE = "target-health.elbv2.k8s.aws/"
"""Beginning of the readiness gates that AWS Load Balancer Controller gives to pods that are targets."""

BY_ADDRESS = (
    ("service.beta.kubernetes.io/aws-load-balancer-nlb-target-type", "ip"),
    ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb-ip"),
    ("alb.ingress.kubernetes.io/target-type", "ip"),
)
"""Annotations of a Service whose pods' addresses are targets (AWS Load Balancer Controller)."""


def _container(item: Json) -> Container:
    ports = tuple(p["containerPort"] for p in item.get("ports") or () if "containerPort" in p)
    names = tuple(p["name"] for p in item.get("ports") or () if p.get("name"))
    command = (*(item.get("command") or ()), *(item.get("args") or ()))
    hook = (item.get("lifecycle") or {}).get("preStop") or {}
    by = tuple((hook.get("exec") or {}).get("command") or ())
    return Container(item.get("image", ""), command, ports, names, bool(hook), by)


GROUPS_OF_KINDS = dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet"), ("apps", "extensions")) | {
    "Job": ("batch",)
}
"""Kinds of Kubernetes' own, after which others have named kinds of theirs (OpenKruise's StatefulSet, Volcano's Job)."""


def _owner(metadata: Json) -> Owner | None:
    """A pod's controller. Its kind is KIND.GROUP where it only bears the name of one of Kubernetes' own."""
    controller = next((r for r in metadata.get("ownerReferences") or () if r.get("controller")), None)
    if controller is None:
        return None
    kind, name = controller["kind"], controller["name"]
    group = controller.get("apiVersion", "").rpartition("/")[0]
    template_hash = (metadata.get("labels") or {}).get("pod-template-hash")
    if group and kind in GROUPS_OF_KINDS and group not in GROUPS_OF_KINDS[kind]:
        kind = f"{kind}.{group}"
    elif kind == "ReplicaSet" and template_hash and name.endswith(f"-{template_hash}"):
        # The Deployment controller names its ReplicaSets so, and labels their pods with the hash.
        kind, name = "Deployment", name.removesuffix(f"-{template_hash}")
    # Of a controller that cannot be there the pod counts as one without: nothing would make it anew.
    return Owner.named(kind, metadata["namespace"], name)


def _selector_json(selector: Selector) -> Json:
    expressions = [
        {"key": e.key, "operator": e.operator} | ({"values": list(e.values)} if e.values else {})
        for e in selector.expressions
    ]
    return {"matchLabels": dict(selector.labels)} | ({"matchExpressions": expressions} if expressions else {})


def _selector_text(selector: Selector) -> str:
    """A selector as list requests take it."""
    terms = [f"{key}={value}" for key, value in selector.labels]
    for expression in selector.expressions:
        key, values = expression.key, f"({','.join(expression.values)})"
        match expression.operator:
            case "In":
                terms.append(f"{key} in {values}")
            case "NotIn":
                terms.append(f"{key} notin {values}")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
    return ",".join(terms)


def _budget(item: Json) -> Budget:
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    labels = metadata.get("labels") or {}
    return Budget(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        selector=read_selector(spec.get("selector")),
        allowed=status.get("disruptionsAllowed", 0),
        healthy=status.get("currentHealthy", 0),
        desired_healthy=status.get("desiredHealthy", 0),
        expected=status.get("expectedPods", 0),
        observed=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        max_unavailable=str(spec.get("maxUnavailable", "")),
        min_available=str(spec.get("minAvailable", "")),
        ours=all(labels.get(k) == v for k, v in OURS.items()) and _made_by_a_roll(spec),
        fault=_condition_says(status, "DisruptionAllowed", "False", "SyncFailed"),
    )


def _made_by_a_roll(spec: Json) -> bool:
    """Whether it says what `create_budget` does. Our label alone may be on anybody's budget."""
    return spec.get("maxUnavailable") == 1 or isinstance(spec.get("minAvailable"), int)


FAULT_CHARACTERS = 300
"""Of what a controller says of its object: it names pods, quotas and webhooks."""


def _condition_says(status: Json, kind: str, value: str, reason: str = "") -> str:
    """What a condition of that type and status says; "" where there is none, or where it has another reason."""
    for condition in status.get("conditions") or ():
        if (condition.get("type"), condition.get("status")) == (kind, value) and reason in {
            "",
            condition.get("reason"),
        }:
            return str(condition.get("message") or condition.get("reason") or kind)[:FAULT_CHARACTERS]
    return ""


def _workload(kind: str, item: Json) -> Workload:
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    settled = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    if kind == "DaemonSet":
        desired, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        current = status.get("currentNumberScheduled", 0)
    else:
        desired, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
        current = status.get("replicas", 0)
    template = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    return Workload(
        owner=Owner(kind, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        desired=desired,
        ready=ready,
        current=current,
        selector=read_selector(spec.get("selector")),
        annotations=metadata.get("annotations") or {},
        restarted_for=template.get(RESTARTED_FOR, ""),
        surges=_surges(kind, spec),
        settled=settled,
        service=spec.get("serviceName") or "",
        first=(spec.get("ordinals") or {}).get("start", 0),
        pending=_is_pending(status),
        paused=bool(spec.get("paused")),
        fault=_condition_says(status, "ReplicaFailure", "True"),
    )


def _is_pending(status: Json) -> bool:
    """With OnDelete a StatefulSet's current revision never becomes the one that it was updated to: its pods tell."""
    revisions = status.get("currentRevision"), status.get("updateRevision")
    return revisions[0] != revisions[1] and status.get("updatedReplicas", 0) < status.get("replicas", 0)


def _surges(kind: str, spec: Json) -> bool:
    """Whether a restart starts the new pod before it stops the old one (apps/v1 defaults are 25 % and 25 %)."""
    strategy = spec.get("strategy") or {}
    if kind != "Deployment" or strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return False
    rolling = strategy.get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    surge = _share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    return surge is not None and surge >= 1 and unavailable == 0


def _share(value: int | str, of: int, *, up: bool) -> int | None:
    """An IntOrString as Deployments read it: percentages are rounded up for maxSurge, down for maxUnavailable.

    None where it has more digits than the Deployment controller reads either: the API server takes any number of them.
    """
    if isinstance(value, int):
        return value
    read = PERCENTAGE.fullmatch(value)
    if read is None:
        return None
    hundredths = int(read[1]) * of
    return -(-hundredths // 100) if up else hundredths // 100


PERCENTAGE = re.compile(r"([0-9]{1,18})%")


NODE_KEYS = frozenset({"hostname", "node", "node-id", "node-name", "nodeid", "nodename"})
"""How topology keys end, in lower case, that stand for a single node."""


def _volume(item: Json) -> Volume:
    spec = item["spec"]
    reached = [
        (expression["key"].rpartition("/")[2].lower(), value)
        for term in ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
        for expression in term.get("matchExpressions") or ()
        if expression["operator"] == "In"
        for value in expression["values"]
    ]
    # A driver names nodes by a key of its own: topology.topolvm.io/node, openebs.io/nodename, ...
    nodes = {value for key, value in reached if key in NODE_KEYS}
    reference = spec["claimRef"]
    return Volume(
        claim=f"{reference['namespace']}/{reference['name']}",
        name=item["metadata"]["name"],
        zones=tuple(value for key, value in reached if key == "zone"),
        local="local" in spec or "hostPath" in spec or len(nodes) == 1,
        driver=(spec.get("csi") or {}).get("driver", ""),
        shared=bool({"ReadWriteMany", "ReadOnlyMany"}.intersection(spec.get("accessModes") or ())),
    )


def _service(item: Json) -> Service:
    metadata, spec = item["metadata"], item["spec"]
    ports = [p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return Service(
        namespace=metadata["namespace"],
        name=metadata["name"],
        node_ports=tuple(ports),
        local_traffic=spec.get("externalTrafficPolicy") == "Local",
        selector=Selector(tuple(sorted(spec["selector"].items()))) if spec.get("selector") else None,
        headless=spec.get("clusterIP") == "None",
        for_its_node=spec.get("internalTrafficPolicy") == "Local" and not ports,
        by_address=any((metadata.get("annotations") or {}).get(key) == value for key, value in BY_ADDRESS),
    )


def _rules_of(item: Json) -> list[Json]:
    """The rules of a webhook configuration, or of an admission policy."""
    constraints = (item.get("spec") or {}).get("matchConstraints") or {}
    of_webhooks = [rule for hook in item.get("webhooks") or () for rule in hook.get("rules") or ()]
    return [*of_webhooks, *(constraints.get("resourceRules") or ())]


def _covers_evictions(rule: Json) -> bool:
    """Whether an admission rule is about evictions: "*" stands for no subresource (apiserver, admission rules)."""
    return (
        not {"CREATE", "*"}.isdisjoint(rule.get("operations") or ())
        and not {"", "*"}.isdisjoint(rule.get("apiGroups") or ())
        and not {"pods/eviction", "pods/*", "*/eviction", "*/*"}.isdisjoint(rule.get("resources") or ())
    )


LONGEST_HOLDER = 400
"""Characters: a roll's name and a node's. A tenant may write a Lease of its own, with a holder that fills it."""


def _lease(item: Json) -> Lease:
    metadata, spec = item["metadata"], item["spec"]
    return Lease(
        name=f"{metadata['namespace']}/{metadata['name']}",
        holder=short(spec.get("holderIdentity") or "", LONGEST_HOLDER),
        renewed=epoch(spec.get("renewTime")),
        duration=float(spec.get("leaseDurationSeconds") or 0),
        resource_version=metadata["resourceVersion"],
        annotations=metadata.get("annotations") or {},
    )
