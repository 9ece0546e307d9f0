"""The manifests that are shipped, held against the API's own schemas: a field that is misspelt would be dropped."""

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes that the manifests are for."""

MANIFESTS = [
    (f"{file.name}: {document['kind']} {document['metadata']['name']}", document)
    for file in sorted(DEPLOY.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
    if document
]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(("name", "manifest"), MANIFESTS)
def test_a_manifest_is_what_the_schema_says(name: str, manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_caught() -> None:
    """The planted fault."""
    wrong = copy.deepcopy(next(document for _, document in MANIFESTS if document["kind"] == "ClusterRole"))
    wrong["rules"][0]["verb"] = wrong["rules"][0].pop("verbs")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)
