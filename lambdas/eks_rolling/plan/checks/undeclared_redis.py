"""Findings about pods that look like Redis and that no annotation names."""

import re
from collections.abc import Iterable, Iterator

from eks_rolling.documents.finding import Finding, blocks
from eks_rolling.observed.kubernetes import Pod
from eks_rolling.plan.snapshot import by_owner

REDIS_IMAGE = re.compile(r"redis|valkey|keydb")


def undeclared_redis(pods: Iterable[Pod]) -> Iterator[Finding]:
    alike = [p for p in pods if any(_is_redis(i) for i in p.images)]
    for subject, members in by_owner(alike).items():
        image = next(i for i in members[0].images if _is_redis(i))
        yield blocks(
            "redis",
            subject,
            f"it runs {image}, and an eviction would take its role and its data with it",
            "annotate its StatefulSet as README says, or accept an ordinary eviction with accept: redis",
        )


def _is_redis(image: str) -> bool:
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return bool(REDIS_IMAGE.search(name)) and "exporter" not in name
