"""An operator's machine outside a lab: the AWS side, the Kubernetes side, and the clients' records."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab import judge
from lab.addresses import APISERVER_PORT, AWS_PORT
from lab.cluster_state import ClusterState, lock_holders, look
from lab.judge import Phase, Verdict
from lab.kube import Access, Json, Kube
from lab.lifecycle import Lab, LabError, outside_ports
from lab.loop_thread import LoopThread
from lab.paths import REPOSITORY
from lab.priority import going_first
from lab.rolls import Outcome, Rolls
from lab.view import LOOK_SECONDS, LabLooker, Snapshot

TRAFFIC_BEGIN_SECONDS = 90.0
TRAFFIC_END_SECONDS = 150.0
"""How long the clients may take to end: workers finish their jobs first."""


LOCK_SECONDS = 150.0
"""How long a lock may stay after a roll: the watchdog's restore waits until the roll's functions have run out, which
takes up to 70 s, and then takes some ten seconds itself."""


@dataclass
class Operator:
    """Somebody who works with a lab from outside."""

    lab: Lab
    aws_url: str
    """The AWS server, from here."""
    rolls: Rolls
    kube: Kube
    loop: LoopThread

    def state(self) -> ClusterState:
        """What the cluster looks like now."""
        return self.loop.run(look(self.kube, self.rolls))

    def settled_state(self) -> ClusterState:
        """What the cluster looks like once no roll and no restore holds its lock.

        After a roll that fails the watchdog restores, which for a moment holds the lock anew. A lock that stays is in
        what is returned.
        """
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            while time.monotonic() < deadline and self.loop.run(lock_holders(self.kube)):
                time.sleep(0.5)
            state = self.state()
            if time.monotonic() > deadline or not any(mark.startswith("lock") for mark in state.marks):
                return state

    def wait_for_workloads(self, *, within_seconds: float = 60.0) -> None:
        """Until every workload has all its pods. Raises LabError naming those that lack some."""
        deadline = time.monotonic() + within_seconds
        while lacking := self.loop.run(_lacking(self.kube)):
            if time.monotonic() > deadline:
                raise LabError(f"not Ready within {within_seconds:.0f} s: {', '.join(lacking)}")
            time.sleep(0.3)

    def follow(self, execution: str, show: Callable[[Snapshot], None], *, within_seconds: float) -> Outcome:
        """Shows a roll until it has ended. Raises LabError if it does not end in time."""
        looker = LabLooker(self.lab, self.rolls, self.kube, self.loop)
        deadline = time.monotonic() + within_seconds
        while True:
            snapshot = looker.look(execution)
            show(snapshot)
            if snapshot.roll is not None and not snapshot.roll.running:
                return self.rolls.outcome(execution)
            if time.monotonic() > deadline:
                raise LabError(f"the roll did not end within {within_seconds:.0f} s; it is at {snapshot.roll}")
            time.sleep(LOOK_SECONDS)

    def newest_version(self) -> str:
        """The latest version of the first group's launch template."""
        template = self.lab.spec.groups[0].template
        answer = self.rolls.ec2.describe_launch_templates(LaunchTemplateNames=[template])
        return str(answer["LaunchTemplates"][0]["LatestVersionNumber"])

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Clients ask and jobs are made for the time of the block, which begins once they do; afterwards `record` has
        what they saw.

        Raises LabError if they fail, which is not the same as their requests failing.
        """
        (self.lab.paths.traffic / "live.json").unlink(missing_ok=True)
        log = (self.lab.paths.logs / "traffic.log").open("w")
        with log:
            inside = self.lab.command([sys.executable, "-m", "lab.traffic", str(self.lab.paths.root)])
            process = subprocess.Popen(
                going_first(inside),
                env=self.lab.environment,
                text=True,
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A kernel that shares its processors between sessions gives the clients a share of their own.
                start_new_session=True,
            )
            try:
                self._wait_for_clients(process)
                yield
            finally:
                assert process.stdin is not None  # noqa: S101  (asked for above)
                process.stdin.close()
                try:
                    code = process.wait(TRAFFIC_END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = process.wait()
        if code != 0:
            said = (self.lab.paths.logs / "traffic.log").read_text()
            raise LabError(f"the clients ended with exit code {code}", details=said[-2000:])

    def _wait_for_clients(self, process: "subprocess.Popen[str]") -> None:
        """Until they ask; or until they have ended, which is told at the end."""
        deadline = time.monotonic() + TRAFFIC_BEGIN_SECONDS
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if json.loads((self.lab.paths.traffic / "live.json").read_text())["requests"]:
                    return
            if time.monotonic() > deadline:
                raise LabError(f"the clients do not ask within {TRAFFIC_BEGIN_SECONDS:.0f} s")
            time.sleep(0.1)

    def record(self) -> Json:
        """What the clients of the last run saw. Raises LabError if there was none."""
        try:
            record: Json = json.loads((self.lab.paths.traffic / "record.json").read_text())
        except FileNotFoundError as error:
            raise LabError("there is no record of clients; `python -m lab traffic` makes one") from error
        return record

    def judge(self, execution: str | None) -> Verdict:
        """The verdict on the last run of clients, by the phases of a roll (None: one phase)."""
        record = self.record()
        return judge.judge(record, phases(record, self.rolls.phases(execution) if execution else []))

    def fault(self, faults: Json) -> None:
        """Puts faults into force in the AWS server (docs/lab.md lists them); {} takes them away.

        Raises LabError saying what is wrong with them.
        """
        request = urllib.request.Request(  # noqa: S310  (http, to the lab)
            f"{self.aws_url}/_lab/faults",
            json.dumps(faults).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        try:
            urllib.request.urlopen(request).close()  # noqa: S310 (http, to the lab)
        except urllib.error.HTTPError as error:
            raise LabError("the lab knows no such faults", details=error.read().decode()) from error

    def faults(self) -> Json:
        """The faults in force, and how often they struck."""
        with urllib.request.urlopen(f"{self.aws_url}/_lab/faults") as answer:  # noqa: S310 (http, to the lab)
            faults: Json = json.load(answer)
        return faults


@contextmanager
def operator_of(lab: Lab) -> Iterator[Operator]:
    """An operator of a running lab."""
    with outside_ports(lab) as port_for, LoopThread() as loop:
        inside = Access.from_kubeconfig(lab.paths.kubeconfig)
        server = f"https://127.0.0.1:{port_for('127.0.0.1', APISERVER_PORT)}"
        kube = Kube(Access(server, inside.token, inside.authority))
        loop.run(kube.__aenter__())
        try:
            aws_url = f"http://127.0.0.1:{port_for('127.0.0.1', AWS_PORT)}"
            yield Operator(lab, aws_url, Rolls(lab.spec, aws_url), kube, loop)
        finally:
            loop.run(kube.__aexit__(None, None, None))


def phases(record: Json, entered: list[tuple[str, float]]) -> list[Phase]:
    """A record's time, cut where the roll went from one phase to the next."""
    times = [r["at"] for r in record["requests"]]
    if not times:
        return []
    cuts = [("before", min(times)), *entered, ("", max(times) + 1e-3)]
    found = [Phase(name, begins, cuts[i + 1][1]) for i, (name, begins) in enumerate(cuts[:-1])]
    return [p for p in found if p.ends > p.begins]


async def _lacking(kube: Kube) -> list[str]:
    """Workloads that have not all their pods Ready."""
    lacking = []
    for kind in ("deployments", "statefulsets", "daemonsets"):
        for item in await kube.list(f"/apis/apps/v1/{kind}"):
            status = item.get("status", {})
            wanted = status.get("desiredNumberScheduled") if kind == "daemonsets" else item["spec"]["replicas"]
            ready = status.get("numberReady" if kind == "daemonsets" else "readyReplicas", 0)
            settled = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
            if wanted is None or ready < wanted or not settled:
                lacking.append(f"{item['metadata']['namespace']}/{item['metadata']['name']} ({ready} of {wanted})")
    return lacking
