"""The lab's Redis group is let to the functions by the file that ships."""

from lab.paths import REPOSITORY


def test_the_labs_permissions_are_the_shipped_ones_with_its_own_names() -> None:
    shipped = (REPOSITORY / "deploy" / "redis-rbac.yaml").read_text()
    own = (REPOSITORY / "lab" / "clusters" / "sentinel" / "rbac.yaml").read_text()
    named = shipped.replace("namespace: default", "namespace: shop").replace("[redis-auth, redis-tls]", "[redis-auth]")
    assert own.partition("apiVersion")[2] == named.partition("apiVersion")[2]
