"""A container's environment, command and the downward API. Pure: the objects referred to are handed in."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lab.addresses import KUBERNETES_SERVICE_ADDRESS
from lab.kube import Json
from lab.node.quantity import in_units_of, parse_quantity

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$(\$|\([-._a-zA-Z][-._a-zA-Z0-9]*\))")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class ConfigurationError(Exception):
    """The container cannot be started as its manifest says; the message says why, as a kubelet would."""


@dataclass(frozen=True)
class Reference:
    """A ConfigMap or Secret of the pod's namespace."""

    kind: Literal["ConfigMap", "Secret"]
    name: str


Objects = Mapping[Reference, Json | None]
"""What references lead to; None where there is nothing."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces $(NAME) where it is known, and $$ by $; what is not known stays as it is."""

    def value(match: re.Match[str]) -> str:
        inner = match.group(1)
        return "$" if inner == "$" else variables.get(inner[1:-1], match.group(0))

    return _REFERENCE.sub(value, text)


def references(container: Json) -> set[Reference]:
    """The ConfigMaps and Secrets that the container's environment is made of."""
    found: set[Reference] = set()
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found.add(Reference("ConfigMap", source["configMapRef"]["name"]))
        if "secretRef" in source:
            found.add(Reference("Secret", source["secretRef"]["name"]))
    for variable in container.get("env", ()):
        origin = variable.get("valueFrom", {})
        if "configMapKeyRef" in origin:
            found.add(Reference("ConfigMap", origin["configMapKeyRef"]["name"]))
        if "secretKeyRef" in origin:
            found.add(Reference("Secret", origin["secretKeyRef"]["name"]))
    return found


def texts(reference: Reference, found: Json) -> dict[str, str]:
    """A ConfigMap's or Secret's data as text."""
    return {key: value.decode(errors="replace") for key, value in contents(reference, found).items()}


def contents(reference: Reference, found: Json) -> dict[str, bytes]:
    """A ConfigMap's or Secret's data."""
    if reference.kind == "Secret":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


def environment(container: Json, pod: Json, objects: Objects, allocatable: Mapping[str, str]) -> dict[str, str]:
    """The container's environment: what every container has, then envFrom, then env in its order.

    `pod` carries its address in status; `allocatable` are the node's resources, which stand in for absent limits.
    Raises ConfigurationError.
    """
    variables = {
        "PATH": _PATH,
        "HOME": "/root",
        "HOSTNAME": hostname(pod),
        "KUBERNETES_SERVICE_HOST": KUBERNETES_SERVICE_ADDRESS,
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    }
    for source in container.get("envFrom", ()):
        variables |= _all_of(source, objects)
    for variable in container.get("env", ()):
        if "valueFrom" in variable:
            value = _value_from(variable["valueFrom"], container, pod, objects, allocatable)
            if value is not None:
                variables[variable["name"]] = value
        else:
            variables[variable["name"]] = expand(variable.get("value", ""), variables)
    return variables


def hostname(pod: Json) -> str:
    """What the pod's machines are called inside."""
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return pod["spec"].get("nodeName", name) if pod["spec"].get("hostNetwork") else name[:63].rstrip("-.")


def field_value(pod: Json, path: str) -> str:
    """What a fieldRef names. Raises ConfigurationError for a path that the downward API does not have."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    if keyed := _KEYED_FIELD.fullmatch(path):
        return str((metadata.get(keyed.group(1)) or {}).get(keyed.group(2), ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.partition(".")[2]])
        case "metadata.labels" | "metadata.annotations":
            return _quoted_lines((metadata.get(path.partition(".")[2]) or {}).items())
        case "spec.nodeName" | "spec.serviceAccountName":
            return str(spec.get(path.partition(".")[2], ""))
        case "status.hostIP" | "status.podIP":
            return str(status.get(path.partition(".")[2], ""))
        case "status.hostIPs" | "status.podIPs":
            return ",".join(entry["ip"] for entry in status.get(path.partition(".")[2], ()))
        case _:
            raise ConfigurationError(f"unsupported fieldPath: {path}")


def resource_value(container: Json, selector: Json, allocatable: Mapping[str, str]) -> str:
    """What a resourceFieldRef names, in units of its divisor. Raises ConfigurationError."""
    section, _, resource = selector["resource"].partition(".")
    if section not in ("limits", "requests") or resource not in ("cpu", "memory", "ephemeral-storage"):
        raise ConfigurationError(f"unsupported container resource: {selector['resource']}")
    amount = container.get("resources", {}).get(section, {}).get(resource)
    if amount is None:
        amount = allocatable.get(resource, "0") if section == "limits" else "0"
    return str(in_units_of(parse_quantity(amount), parse_quantity(str(selector.get("divisor") or "1"))))


def _quoted_lines(items: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{key}={json.dumps(value)}" for key, value in sorted(items))


def _all_of(source: Json, objects: Objects) -> dict[str, str]:
    ref = source.get("configMapRef") or source["secretRef"]
    reference = Reference("ConfigMap" if "configMapRef" in source else "Secret", ref["name"])
    found = objects.get(reference)
    if found is None:
        if ref.get("optional"):
            return {}
        raise ConfigurationError(f'{reference.kind.lower()} "{reference.name}" not found')
    return {source.get("prefix", "") + key: value for key, value in texts(reference, found).items()}


def _value_from(
    origin: Json, container: Json, pod: Json, objects: Objects, allocatable: Mapping[str, str]
) -> str | None:
    if "fieldRef" in origin:
        return field_value(pod, origin["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in origin:
        return resource_value(container, origin["resourceFieldRef"], allocatable)
    ref = origin.get("configMapKeyRef") or origin.get("secretKeyRef")
    if ref is None:
        raise ConfigurationError(f"unsupported valueFrom: {', '.join(origin)}")
    reference = Reference("ConfigMap" if "configMapKeyRef" in origin else "Secret", ref["name"])
    found = objects.get(reference)
    if found is None:
        if ref.get("optional"):
            return None
        raise ConfigurationError(f'{reference.kind.lower()} "{reference.name}" not found')
    value = texts(reference, found).get(ref["key"])
    if value is None and not ref.get("optional"):
        namespace = pod["metadata"]["namespace"]
        raise ConfigurationError(f"couldn't find key {ref['key']} in {reference.kind} {namespace}/{reference.name}")
    return value
