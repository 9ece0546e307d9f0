"""A pod's volumes: made before its containers start, bound where they mount them, gone after them."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from lab.kube import Json, Kube, KubeError, NotFoundError, UnreachableError
from lab.node.environment import ConfigurationError, Objects, Reference, expand
from lab.node.mounts import Mount
from lab.node.payload import (
    MissingObjectError,
    TokenRequest,
    is_payload,
    payload,
    token_requests,
    volume_references,
    write_payload,
)

_TOKEN_LIFE_USED = 0.8
_PATHS = {"ConfigMap": "configmaps", "Secret": "secrets"}


class VolumeError(Exception):
    """A volume cannot be set up now; the message says why, as a kubelet's event would."""


@dataclass(frozen=True)
class PublishedVolume:
    """A persistent volume that is attached to a node and in use there."""

    handle: str
    path: Path


class ClaimedVolumes(Protocol):
    """Where the data of persistent volumes is, once they are attached to the pod's node."""

    async def publish(self, namespace: str, claim: str) -> PublishedVolume:
        """Waits until the claim's volume is attached, and marks it in use. Raises VolumeError."""

    async def unpublish(self, handle: str) -> None:
        """Says that the pod uses it no more."""


class Fetched:
    """Reads ConfigMaps and Secrets of one namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def objects(self, wanted: set[Reference]) -> Objects:
        """What each reference leads to. Raises KubeError or UnreachableError."""
        found = await asyncio.gather(*(self._one(reference) for reference in wanted))
        return dict(zip(wanted, found, strict=True))

    async def _one(self, reference: Reference) -> Json | None:
        try:
            return await self._kube.get(
                f"/api/v1/namespaces/{self._namespace}/{_PATHS[reference.kind]}/{reference.name}"
            )
        except NotFoundError:
            return None


class PodVolumes:
    """The volumes of one pod."""

    def __init__(
        self, pod: Json, directory: Path, kube: Kube, claimed: ClaimedVolumes, allocatable: Mapping[str, str]
    ) -> None:
        self._pod = pod
        self._directory = directory / "volumes"
        self._kube = kube
        self._claimed = claimed
        self._allocatable = allocatable
        self._fetched = Fetched(kube, pod["metadata"]["namespace"])
        self._tokens: dict[TokenRequest, tuple[str, float]] = {}
        self._places: dict[str, Path] = {}
        self._published: dict[str, PublishedVolume] = {}
        self._read_only_claims: set[str] = set()

    async def set_up(self) -> None:
        """Makes every volume. May be called again after it failed. Raises VolumeError."""
        for volume in self._pod["spec"].get("volumes", ()):
            try:
                self._places[volume["name"]] = await self._place(volume)
            except (MissingObjectError, ConfigurationError, VolumeError, KubeError, UnreachableError) as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error

    async def refresh(self) -> None:
        """Brings volumes made of API objects up to date, tokens included. What cannot be read stays as it is."""
        for volume in self._pod["spec"].get("volumes", ()):
            if is_payload(volume):
                try:
                    await self._write(volume)
                except (MissingObjectError, KubeError, UnreachableError):
                    continue

    def mounts(self, container: Json, environment: Mapping[str, str]) -> list[Mount]:
        """What the container mounts. Raises ConfigurationError."""
        return [self._mount(declared, environment) for declared in container.get("volumeMounts", ())]

    async def tear_down(self) -> None:
        """Lets persistent volumes go. The others go with the pod's directory."""
        while self._published:
            _, volume = self._published.popitem()
            await self._claimed.unpublish(volume.handle)

    async def _place(self, volume: Json) -> Path:
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            if volume["persistentVolumeClaim"].get("readOnly"):
                self._read_only_claims.add(volume["name"])
            if claim not in self._published:
                self._published[claim] = await self._claimed.publish(self._pod["metadata"]["namespace"], claim)
            return self._published[claim].path
        if "emptyDir" in volume:
            place = self._directory / str(volume["name"])
            place.mkdir(parents=True, exist_ok=True)
            return place
        if is_payload(volume):
            return await self._write(volume)
        kinds = ", ".join(key for key in volume if key != "name")
        raise ConfigurationError(f"the lab has no {kinds} volumes")

    async def _write(self, volume: Json) -> Path:
        objects = await self._fetched.objects(volume_references(volume))
        tokens = {request: await self._token(request) for request in token_requests(volume)}
        files = payload(volume, self._pod, objects, tokens, self._allocatable)
        place = self._directory / str(volume["name"])
        write_payload(place, files)
        return place

    async def _token(self, request: TokenRequest) -> str:
        token, renew_at = self._tokens.get(request, ("", 0.0))
        if time.monotonic() < renew_at:
            return token
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName", "default")
        answer = await self._kube.create(
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [request.audience] if request.audience else [],
                    "expirationSeconds": request.expiration_seconds,
                    "boundObjectRef": {
                        "kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"],
                    },
                },
            },
        )  # fmt: skip
        token = str(answer["status"]["token"])
        self._tokens[request] = (token, time.monotonic() + request.expiration_seconds * _TOKEN_LIFE_USED)
        return token

    def _mount(self, declared: Json, environment: Mapping[str, str]) -> Mount:
        name = declared["name"]
        source = self._places[name]
        inside = declared.get("subPath") or expand(declared.get("subPathExpr", ""), environment)
        if inside:
            source = self._within(source, inside)
        read_only = declared.get("readOnly", False) or name in self._read_only_claims
        return Mount(source, declared["mountPath"], read_only=read_only or self._is_payload(name))

    def _within(self, source: Path, inside: str) -> Path:
        if PurePosixPath(inside).is_absolute() or ".." in PurePosixPath(inside).parts:
            raise ConfigurationError(f"subPath {inside!r} leads out of its volume")
        place = source / inside
        if not place.exists():
            place.mkdir(parents=True)
        return place.resolve()

    def _is_payload(self, name: str) -> bool:
        return any(v["name"] == name and is_payload(v) for v in self._pod["spec"].get("volumes", ()))
