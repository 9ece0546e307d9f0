"""A target whose cluster and account are in memory, and whose executions are histories made by hand."""

from collections.abc import Iterator
from typing import Any

from eks_rolling.clients.protocols import Clients
from eks_rolling.settings import Settings
from eks_rolling_cli.executions import Execution
from eks_rolling_cli.target import Options, Target
from tests.unit.cli.histories import History
from tests.world import World

Json = dict[str, Any]

ROLL, NODE, RESTORE = "machine:roll", "machine:node", "machine:restore"


class FakeExecutions:
    """Executions by machine, the newest first; what is done to them is kept."""

    def __init__(self) -> None:
        self.rolls: dict[str, list[tuple[Execution, History]]] = {ROLL: [], NODE: [], RESTORE: []}
        self.answered: list[tuple[str, str, Any]] = []
        self.started: list[tuple[str, str, Json]] = []
        self.stopped: list[tuple[str, str]] = []

    def add(self, machine: str, name: str, history: History, status: str = "RUNNING", **more: Any) -> Execution:
        ended = None if status == "RUNNING" else history.at
        execution = Execution(f"arn:{name}", name, status, history.events[0]["timestamp"], ended, **more)
        self.rolls[machine].insert(0, (execution, history))
        return execution

    def of(self, machine: str, status: str | None = None, **_: Any) -> Iterator[Execution]:
        return (e for e, _ in self.rolls[machine] if status in {None, e.status})

    def describe(self, arn: str) -> Execution:
        return next(e for listed in self.rolls.values() for e, _ in listed if e.arn == arn)

    def history(self, arn: str) -> list[Json]:
        return next(list(h.events) for listed in self.rolls.values() for e, h in listed if e.arn == arn)

    def approve(self, token: str, output: Json) -> None:
        self.answered.append(("approved", token, output))

    def refuse(self, token: str, cause: str) -> None:
        self.answered.append(("refused", token, cause))

    def start(self, machine: str, name: str, given: Json) -> str:
        self.started.append((machine, name, given))
        return f"arn:{name}"

    def stop(self, arn: str, cause: str) -> None:
        self.stopped.append((arn, cause))


class FakeTarget(Target):
    """What `Target` answers, without AWS. `documents` are those of rolls: (roll, name) -> JSON."""

    def __init__(self, world: World, *, deployed: bool = True) -> None:
        super().__init__(Options(cluster="demo"))
        machines = {"roll": ROLL, "node": NODE, "restore": RESTORE} if deployed else {}
        self.world = world
        self.fake = FakeExecutions()
        self.documents: dict[tuple[str, str], Json] = {}
        self.__dict__ |= {
            "session": None,
            "machines": machines,
            "executions": self.fake,
            "kubernetes": world,
            "missing_functions": [],
            "machine_roles": set(),
            "identity": {"Arn": "arn:aws:sts::123456789012:assumed-role/operator/ann", "Account": "123456789012"},
        }
        if deployed:
            self.__dict__["settings"] = Settings(cluster="demo")

    @property
    def region(self) -> str:
        return "eu-central-1"

    def clients(self, settings: Settings) -> Clients:
        return self.world.clients(settings)

    def document(self, roll: str, name: str) -> Json:
        return self.documents.get((roll, name), {})
