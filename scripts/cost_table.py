"""Writes docs/costs.md: what a roll costs, counted along the synthesized state machines.

A roll in memory shows which states an undisturbed roll goes through; how often each is looked at follows from how long
it takes and from the waits that the steps ask for.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eks_rolling import state_names
from eks_rolling.payloads import backoff
from eks_rolling.settings import Settings
from tests.asl import Engine, Execution
from tests.assembly import synthesize
from tests.model.situations import settings as tried_settings
from tests.model.situations import shop

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "costs.md"
BEGIN, END = "<!-- costs -->", "<!-- end of costs -->"

NODES = (10, 100, 1000)

SECONDS = {
    state_names.PAUSE: 30,
    state_names.AWAIT_READY: 120,
    state_names.LEAVE_LOAD_BALANCERS: 10,
    state_names.EVICT: 180,
    state_names.AWAIT_LOAD_BALANCERS: 300,
    state_names.AWAIT_VOLUMES: 20,
    state_names.TERMINATE: 120,
    state_names.GATE: 90,
}
"""How long a step is assumed to take on an account; all others are done when they are looked at first."""

WAVE = (state_names.SELECT_WAVE, state_names.ANY_LEFT, state_names.REPLACE_NODES, state_names.GATE)
EACH_NODE = (state_names.REPLACE_NODE,)

TRANSITION_DOLLARS = 0.025 / 1000
REQUEST_DOLLARS = 0.20 / 1_000_000
GIGABYTE_SECOND_DOLLARS = 0.0000133334
MEMORY_GIGABYTES = 0.5
CALL_SECONDS = 0.5


@dataclass(frozen=True)
class Count:
    """State transitions and calls of functions."""

    transitions: int = 0
    calls: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.transitions + other.transitions, self.calls + other.calls)

    def __mul__(self, times: int) -> "Count":
        return Count(self.transitions * times, self.calls * times)

    @property
    def dollars(self) -> float:
        call = REQUEST_DOLLARS + CALL_SECONDS * MEMORY_GIGABYTES * GIGABYTE_SECOND_DOLLARS
        return self.transitions * TRANSITION_DOLLARS + self.calls * call


def looks(seconds: float) -> int:
    """How often a step that takes so long is called, with the waits that steps ask for while nothing happens."""
    passed, count = 0.0, 1
    while passed < seconds:
        passed += math.ceil(backoff(passed))
        count += 1
    return count


def counted(execution: Execution, tasks: set[str]) -> dict[str, Count]:
    """State -> what it costs each time that it is gone through: its looks, with the question and the wait of each."""
    costs = {}
    for name in dict.fromkeys(execution.visited):
        if name != state_names.step_of(name):
            continue
        times = looks(SECONDS[name]) if name in SECONDS else 1
        waits = state_names.question(name) in execution.visited
        costs[name] = Count(3 * times - 1 if waits else times, times if name in tasks else 0)
    return costs


def costs(nodes: int, wave: int) -> Count:
    """What a roll over so many nodes costs, in waves of `wave` after a canary."""
    world = shop((2, 1))
    engine = Engine(synthesize(), world, world.clients(tried_settings()))
    roll = engine.run("roll", "roll-1", {})
    node = next(e for e in engine.executions if e.machine == "node")
    parts = counted(roll, _tasks("roll") - set(EACH_NODE))
    waves = 1 + math.ceil((nodes - 1) / wave)
    each_node = _sum(counted(node, _tasks("node")).values()) + _sum(parts[name] for name in EACH_NODE)
    each_wave = _sum(parts[name] for name in WAVE)
    # The last pick finds nobody left.
    once = _sum(c for name, c in parts.items() if name not in {*WAVE, *EACH_NODE}) + parts[WAVE[0]] + parts[WAVE[1]]
    return once + each_wave * waves + each_node * nodes


def _tasks(machine: str) -> set[str]:
    states = dict(synthesize().definition(machine)["States"])
    for state in list(states.values()):
        states |= state.get("ItemProcessor", {}).get("States", {})
    return {name for name, state in states.items() if state["Type"] == "Task"}


def _sum(counts: Iterable[Count]) -> Count:
    return sum(counts, Count())


def table() -> str:
    """The costs as a table."""
    wave = int(Settings.model_fields["wave"].default)
    rows = ["| nodes | state transitions | calls of functions | dollars |", "|---|---|---|---|"]
    for nodes in NODES:
        count = costs(nodes, wave)
        rows.append(f"| {nodes:,} | {count.transitions:,} | {count.calls:,} | {count.dollars:.2f} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """The document with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
