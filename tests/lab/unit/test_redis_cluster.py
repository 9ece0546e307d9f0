"""The lab's Redis groups are let to the functions by the file that ships."""

import pytest

from lab.paths import REPOSITORY

GROUPS = {
    "sentinel": {"[redis-auth, redis-tls]": "[redis-auth]"},
    "shards": {
        "[redis-auth, redis-tls]": "[redis-cluster-auth]",
        "eks-rolling-redis-cache": "eks-rolling-redis-shards",
    },
}
"""The shipped file says for the group `cache` what each says for its own."""


@pytest.mark.parametrize("group", GROUPS)
def test_the_labs_permissions_are_the_shipped_ones_with_its_own_names(group: str) -> None:
    named = (REPOSITORY / "deploy" / "redis-rbac.yaml").read_text().replace("namespace: default", "namespace: shop")
    for shipped, own in GROUPS[group].items():
        named = named.replace(shipped, own)
    written = (REPOSITORY / "lab" / "clusters" / group / "rbac.yaml").read_text()
    assert written.partition("apiVersion")[2] == named.partition("apiVersion")[2]
