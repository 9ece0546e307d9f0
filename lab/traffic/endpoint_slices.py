"""The EndpointSlices of one Service, kept up with: whoever asks the Service learns from them where it is."""

from collections.abc import Callable

from lab.kube import Json, Kube


class EndpointSlices:
    """The slices as they are now."""

    def __init__(self) -> None:
        self._slices: dict[str, Json] = {}

    @property
    def now(self) -> list[Json]:
        return list(self._slices.values())

    async def follow(
        self, kube: Kube, namespace: str, service: str, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Until cancelled; `changed` is called after every event."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        async for event in kube.watch(path, labelSelector=f"kubernetes.io/service-name={service}"):
            if event.type == "DELETED":
                self._slices.pop(event.object["metadata"]["name"], None)
            elif event.type != "SYNCED":
                self._slices[event.object["metadata"]["name"]] = event.object
            changed()
