"""Findings about what pods would leave behind on their node."""

from collections.abc import Iterator, Sequence

from eks_rolling.documents.finding import Finding, blocks, note
from eks_rolling.observed.kubernetes import Pod
from eks_rolling.plan.snapshot import ClusterSnapshot, by_owner


def storage_findings(view: ClusterSnapshot, pods: Sequence[Pod]) -> Iterator[Finding]:
    for pod in pods:
        for claim in pod.claims:
            volume = view.volume(pod.namespace, claim)
            if volume and volume.local:
                yield blocks(
                    "local-volume",
                    f"pod {pod}",
                    f"its volume {volume.name} exists on its node only",
                    "move the data, or accept its loss with accept: local-volume",
                )
    for subject, alike in by_owner(p for p in pods if p.local_volumes or p.host_paths).items():
        names = sorted({name for p in alike for name in (*p.local_volumes, *p.host_paths)})
        yield note(
            "local-storage",
            subject,
            f"what it keeps in {', '.join(names)} is lost with the old node",
            "nothing, if its pods can lose it",
        )
