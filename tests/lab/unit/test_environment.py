"""Environment variables, command expansion and the downward API."""

import base64
from typing import Any

import pytest

from lab.kube import Json
from lab.node.environment import (
    ConfigurationError,
    Reference,
    environment,
    expand,
    field_value,
    references,
    resource_value,
)

POD: Json = {
    "metadata": {
        "name": "web-1", "namespace": "shop", "uid": "u-1",
        "labels": {"app": "web", "tier": 'a "b"'}, "annotations": {"example.com/note": "hi"},
    },
    "spec": {"nodeName": "n1", "serviceAccountName": "default"},
    "status": {"podIP": "10.244.0.5", "hostIP": "10.0.0.10", "podIPs": [{"ip": "10.244.0.5"}]},
}  # fmt: skip
SETTINGS = Reference("ConfigMap", "settings")
KEYS = Reference("Secret", "keys")
OBJECTS = {
    SETTINGS: {"data": {"colour": "blue"}},
    KEYS: {"data": {"password": base64.b64encode(b"geheim").decode()}},
}
ALLOCATABLE = {"cpu": "2", "memory": "8Gi"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("<$(A)$(B)>", "<12>"),
        ("$(NOPE)", "$(NOPE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A}", "$A ${A}"),
        ("$(A", "$(A"),
    ],
)
def test_known_variables_are_expanded_and_everything_else_is_left(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def made(container: Json, objects: Any = OBJECTS) -> dict[str, str]:
    return environment(container, POD, objects, ALLOCATABLE)


def test_later_variables_may_use_earlier_ones_and_override_env_from() -> None:
    variables = made({
        "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "K_", "secretRef": {"name": "keys"}}],
        "env": [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "GREETING", "value": "$(NAME) likes $(colour)"},
            {"name": "colour", "value": "red"},
        ],
    })  # fmt: skip
    assert variables["GREETING"] == "web-1 likes blue"
    assert variables["colour"] == "red"
    assert variables["K_password"] == "geheim"
    assert variables["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


def test_a_missing_object_or_key_is_named_as_a_kubelet_names_it() -> None:
    key = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "taste"}}}
    with pytest.raises(ConfigurationError, match="couldn't find key taste in ConfigMap shop/settings"):
        made({"env": [key]})
    with pytest.raises(ConfigurationError, match='secret "keys" not found'):
        made({"envFrom": [{"secretRef": {"name": "keys"}}]}, {KEYS: None})


def test_what_is_optional_may_be_missing() -> None:
    key = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "pin", "optional": True}}}
    assert "X" not in made({"env": [key]})
    assert "X" not in made({"env": [key]}, {KEYS: None})
    made({"envFrom": [{"configMapRef": {"name": "settings", "optional": True}}]}, {SETTINGS: None})


def test_references_are_those_of_env_and_env_from() -> None:
    found = references({
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "a"}}},
            {"name": "Y", "value": "1"},
        ],
    })  # fmt: skip
    assert found == {SETTINGS, KEYS}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['example.com/note']", "hi"),
        ("metadata.labels", 'app="web"\ntier="a \\"b\\""'),
        ("spec.nodeName", "n1"),
        ("status.podIP", "10.244.0.5"),
        ("status.podIPs", "10.244.0.5"),
        ("status.hostIP", "10.0.0.10"),
    ],
)
def test_the_downward_api_knows_the_pods_fields(path: str, value: str) -> None:
    assert field_value(POD, path) == value


def test_a_field_that_the_downward_api_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"unsupported fieldPath: spec\.tolerations"):
        field_value(POD, "spec.tolerations")


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", "0", "1"),
        ("limits.memory", "1Mi", "64"),
        ("limits.cpu", "1", "2"),
        ("requests.memory", "1", "0"),
    ],
)
def test_resources_are_in_units_of_the_divisor_and_absent_limits_are_the_nodes(
    resource: str, divisor: str, value: str
) -> None:
    container = {"resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}}
    assert resource_value(container, {"resource": resource, "divisor": divisor}, ALLOCATABLE) == value
