"""One pod on its node, from the moment it is bound until the API server has forgotten it."""

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lab.images.catalogue import find_image
from lab.kube import ConflictError, Json, Kube, KubeError, NotFoundError, UnreachableError
from lab.network.netns import NetworkError, NetworkNamespace, ZoneAddresses
from lab.node import times
from lab.node.container import Container, RestartPolicy, Surroundings
from lab.node.environment import ConfigurationError, environment, expand, hostname, references
from lab.node.events import Recorder
from lab.node.mounts import Mount
from lab.node.process import Launch
from lab.node.status import ContainerView, PodView, Terminated, Waiting, pod_status, restarts_always
from lab.node.volumes import ClaimedVolumes, Fetched, PodVolumes, VolumeError
from lab.paths import LabPaths
from lab.spec import RestartBackoff
from lab.waiting import Changes, Deadline

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_REFRESH_SECONDS = 60.0
_DNS_ADDRESS = "10.96.0.10"
_SHUT_DOWN: dict[str, Any] = {
    "failed": True,
    "reason": "Terminated",
    "message": "Pod was terminated in response to imminent node shutdown.",
}
_ROOT_FILES = ("hosts", "hostname", "resolv.conf")


class Host(Protocol):
    """What a pod needs to know of its node."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def zone_index(self) -> int: ...
    @property
    def allocatable(self) -> Mapping[str, str]: ...
    @property
    def silent(self) -> bool: ...


@dataclass(frozen=True)
class Services:
    """What every pod of the lab shares."""

    kube: Kube
    events: Recorder
    paths: LabPaths
    region: str
    backoff: RestartBackoff


class PodRunner:
    """Makes one pod so, and reports it. `run` ends when the pod is no more."""

    def __init__(
        self, pod: Json, host: Host, services: Services, claimed: ClaimedVolumes, addresses: ZoneAddresses
    ) -> None:
        self.pod = pod
        self._host = host
        self._services = services
        self._addresses = addresses
        metadata, spec = pod["metadata"], pod["spec"]
        self.uid: str = metadata["uid"]
        self.key = f"{metadata['namespace']}/{metadata['name']}"
        name = f"{metadata['namespace']}_{metadata['name']}_{self.uid}"
        self._directory = services.paths.pods / name
        self.logs = services.paths.pod_logs / name
        self._grace = float(spec.get("terminationGracePeriodSeconds", 30))
        self._start_time = times.now()
        self._volumes = PodVolumes(pod, self._directory, services.kube, claimed, host.allocatable)
        self._fetched = Fetched(services.kube, metadata["namespace"])
        self._network: NetworkNamespace | None = None
        self._address: str | None = host.address if spec.get("hostNetwork") else None
        self._sandbox_ready = False
        surroundings = Surroundings(
            name=self.key,
            grace_seconds=self._grace,
            directory=self._directory,
            logs=self.logs,
            pod_ip=lambda: self._address or "",
            launch=self._launch,
            changed=self._tell,
            normal=self._normal,
            warning=self._warning,
            backoff=services.backoff,
        )
        self._init = [Container(c, surroundings) for c in spec.get("initContainers", ())]
        self._main = [Container(c, surroundings) for c in spec["containers"]]
        self._setting_up = True
        self._initializing = True
        self._sidecars: list[asyncio.Task[None]] = []
        self._deadline: Deadline | None = None
        self._changes = Changes()
        self._reports = Changes()
        self._told = 1
        self._reported = 0
        self._written: Json = {}
        self._written_version = 0
        self._ended = False
        self._shut_down = False
        self._gone = False
        if metadata.get("deletionTimestamp"):
            self._terminate(pod)

    @property
    def containers(self) -> Sequence[Container]:
        """Init containers first, in the manifest's order."""
        return (*self._init, *self._main)

    def update(self, pod: Json) -> None:
        """Takes in a newer version of the pod."""
        if int(pod["metadata"]["resourceVersion"]) <= int(self.pod["metadata"]["resourceVersion"]):
            return
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._terminate(pod)
        # Somebody else's writing, the node controller's for instance, does not outlive the truth.
        if int(pod["metadata"]["resourceVersion"]) > self._written_version and self._differs(pod):
            self._tell()

    def remove(self, pod: Json) -> None:
        """Takes in that the API server has forgotten the pod: by its own wish, or by force."""
        self._gone = True
        self._terminate(pod)
        self._reports.tell()

    def shut_down(self, seconds: float) -> None:
        """Ends the pod because its node shuts down, within `seconds`. It stays in the API server, as Failed."""
        self._shut_down = "deletionTimestamp" not in self.pod["metadata"]
        self._end_within(min(self._grace, seconds))

    def kill(self) -> None:
        """SIGKILL to everything, as when an instance goes."""
        for container in self.containers:
            container.kill()

    async def run(self) -> None:
        """The pod's whole life. Cancelled, it leaves nothing behind, and tells nobody."""
        self._directory.mkdir(parents=True, exist_ok=True)
        reporting = asyncio.create_task(self._report())
        living = asyncio.create_task(self._live())
        refreshing = asyncio.create_task(self._refresh())
        try:
            await self._until_told_or(living)
            if self._deadline is not None:
                await self._stop(living, self._deadline)
            if not living.cancelled():
                await living
            refreshing.cancel()
            await self._release()
            self._ended = True
            self._tell()
            await self._changes.until(lambda: self._gone or "deletionTimestamp" in self.pod["metadata"])
            if not self._gone:
                await self._reports.until(lambda: self._reported == self._told or self._gone)
                await self._delete()
        finally:
            self.kill()
            for task in (living, refreshing, reporting, *self._sidecars):
                task.cancel()
            await asyncio.gather(living, refreshing, reporting, *self._sidecars, return_exceptions=True)
            await self._release()

    # Running

    async def _live(self) -> None:
        """Sets up, then runs the containers until they have ended for good."""
        await self._set_up()
        self._setting_up = False
        policy: RestartPolicy = self.pod["spec"].get("restartPolicy", "Always")
        if not await self._run_init_containers("OnFailure" if policy == "Always" else policy):
            return
        self._initializing = False
        if self._deadline is None:
            await asyncio.gather(*(container.supervise(policy) for container in self._main))
        for sidecar in reversed(self._running_sidecars()):
            await sidecar.stop(self._deadline or Deadline(self._grace))
        await asyncio.gather(*self._sidecars)

    async def _run_init_containers(self, policy: RestartPolicy) -> bool:
        """One after the other; sidecars stay. False if one failed for good or the pod is to end."""
        for container in self._init:
            if self._deadline is not None:
                break
            if restarts_always(container.declared):
                self._sidecars.append(asyncio.create_task(container.supervise("Always")))
                await container.until_started()
            else:
                await container.supervise(policy)
                state = container.view.state
                if not (isinstance(state, Terminated) and state.exit_code == 0):
                    break
        else:
            return True
        for sidecar in reversed(self._running_sidecars()):
            await sidecar.stop(self._deadline or Deadline(self._grace))
        await asyncio.gather(*self._sidecars)
        return False

    def _running_sidecars(self) -> list[Container]:
        return [c for c in self._init if restarts_always(c.declared)]

    async def _set_up(self) -> None:
        """Volumes, then the network; again and again until both are there."""
        while True:
            try:
                await self._volumes.set_up()
                break
            except VolumeError as error:
                self._warning("FailedMount", str(error))
                await asyncio.sleep(_RETRY_SECONDS)
        while self._address is None:
            address = self._addresses.take()
            try:
                self._network = await NetworkNamespace.create(
                    self._services.paths.network_namespaces, self._host.zone_index, address
                )
                self._address = address
            except BaseException as error:
                self._addresses.give_back(address)
                if not isinstance(error, NetworkError):
                    raise
                self._warning("FailedCreatePodSandBox", str(error))
                await asyncio.sleep(_RETRY_SECONDS)
        self._write_root_files()
        self._sandbox_ready = True
        self._tell()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            if self._sandbox_ready:
                await self._volumes.refresh()

    async def _launch(self, declared: Json) -> Launch:
        """How one of the containers is started now. Raises ConfigurationError or UnknownImageError."""
        image = find_image(declared["image"])
        pod = {**self.pod, "status": self._status()}
        try:
            objects = await self._fetched.objects(references(declared))
        except (KubeError, UnreachableError) as error:
            raise ConfigurationError(str(error)) from error
        variables = environment(declared, pod, objects, self._host.allocatable)
        if image.programs:
            variables["PATH"] = f"{image.programs}:{variables['PATH']}"
        command = [expand(part, variables) for part in declared.get("command", ())]
        args = [expand(part, variables) for part in declared.get("args", ())]
        root_files = [Mount(self._directory / "etc" / name, f"/etc/{name}") for name in _ROOT_FILES]
        return Launch(
            command=image.command_line(command, args),
            environment=variables,
            mounts=[*root_files, *self._volumes.mounts(declared, variables)],
            hostname=hostname(pod),
            working_directory=declared.get("workingDir") or image.working_directory,
            network=self._network.path if self._network else None,
        )

    def _write_root_files(self) -> None:
        """The files of /etc that a pod has of its own."""
        spec, namespace = self.pod["spec"], self.pod["metadata"]["namespace"]
        directory = self._directory / "etc"
        directory.mkdir(exist_ok=True)
        name = hostname(self.pod)
        full = f"{name}.{spec['subdomain']}.{namespace}.svc.cluster.local\t{name}" if "subdomain" in spec else name
        aliases = "".join(f"{a['ip']}\t{' '.join(a.get('hostnames', ()))}\n" for a in spec.get("hostAliases") or ())
        (directory / "hosts").write_text(f"127.0.0.1\tlocalhost\n{self._address}\t{full}\n{aliases}")
        (directory / "hostname").write_text(name + "\n")
        (directory / "resolv.conf").write_text(
            f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local "
            f"{self._services.region}.compute.internal\nnameserver {_DNS_ADDRESS}\noptions ndots:5\n"
        )

    # Ending

    def _terminate(self, pod: Json) -> None:
        """Notes that the pod is to end, or to end sooner than was asked before."""
        grace = pod["metadata"].get("deletionGracePeriodSeconds")
        self._end_within(max(float(self._grace if grace is None else grace), 1.0 if self._gone else 0.0))

    def _end_within(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = Deadline(seconds)
        else:
            self._deadline.bring_forward(seconds)
        self._changes.tell()

    async def _until_told_or(self, living: asyncio.Task[None]) -> None:
        told = asyncio.create_task(self._changes.until(lambda: self._deadline is not None))
        await asyncio.wait((told, living), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()

    async def _stop(self, living: asyncio.Task[None], deadline: Deadline) -> None:
        """Ends the containers: all at once, sidecars after the rest."""
        if self._setting_up:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
        elif not living.done():
            for container in self._main:
                if container.process:
                    self._normal("Killing", f"Stopping container {container.name}")
            first = (*self._init, *self._main) if self._initializing else self._main
            await asyncio.gather(*(container.stop(deadline) for container in first))

    async def _release(self) -> None:
        """Gives back what the pod held; may be called twice."""
        await self._volumes.tear_down()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        if self._network is not None:
            self._network.remove()
            if self._address:
                self._addresses.give_back(self._address)
            self._network = None
        self._sandbox_ready = False

    async def _delete(self) -> None:
        """Lets the API server forget the pod, if it is still this one."""
        metadata = self.pod["metadata"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while not self._gone:
            try:
                await self._services.kube.delete(
                    f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}", options
                )
            except (NotFoundError, ConflictError):
                return
            except (KubeError, UnreachableError) as error:
                _log.warning("%s: not deleted yet: %s", self.key, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    # Reporting

    def _view(self) -> PodView:
        return PodView(
            host_ip=self._host.address,
            pod_ip=self._address,
            start_time=self._start_time,
            sandbox_ready=self._sandbox_ready,
            containers=[self._container_view(c) for c in self._main],
            init_containers=[c.view for c in self._init],
            ended=self._ended,
            **(_SHUT_DOWN if self._ended and self._shut_down else {}),
        )

    def _container_view(self, container: Container) -> ContainerView:
        view = container.view
        if self._init and isinstance(view.state, Waiting) and container.attempt < 0 and not self._initialized():
            return ContainerView(view.name, view.image, Waiting("PodInitializing"))
        return view

    def _initialized(self) -> bool:
        return all(
            c.view.started if restarts_always(c.declared) else isinstance(c.view.state, Terminated) for c in self._init
        )

    def _status(self) -> Json:
        return pod_status(self.pod, self._view(), times.now())

    def _tell(self) -> None:
        """Has the status looked at again, and written where it has changed."""
        self._told += 1
        self._reports.tell()

    async def _report(self) -> None:
        """Writes the pod's status whenever it has changed, until the pod is gone."""
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        while True:
            await self._reports.until(lambda: self._reported < self._told)
            if self._host.silent:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            told, status = self._told, self._status()
            if status != self._written or self._differs(self.pod):
                patch = {"metadata": {"uid": self.uid}, "status": status}
                try:
                    answer = await self._services.kube.patch(path, patch, kind="strategic")
                except (NotFoundError, ConflictError):
                    self.remove(self.pod)
                    return
                except (KubeError, UnreachableError) as error:
                    _log.warning("%s: status not written yet: %s", self.key, error)
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                self._written = status
                self._written_version = int(answer["metadata"]["resourceVersion"])
                self.update(answer)
            self._reported = told
            self._reports.tell()

    def _differs(self, pod: Json) -> bool:
        """Whether the API server's status contradicts what was written last."""
        if not self._written:
            return False
        status = pod.get("status", {})
        there = {c["type"]: c["status"] for c in status.get("conditions", ())}
        written = {c["type"]: c["status"] for c in self._written["conditions"]}
        return status.get("phase") != self._written["phase"] or any(there.get(k) != v for k, v in written.items())

    def _normal(self, reason: str, message: str) -> None:
        self._services.events.normal(self.pod, reason, message, host=self._host.name)

    def _warning(self, reason: str, message: str) -> None:
        self._services.events.warning(self.pod, reason, message, host=self._host.name)
