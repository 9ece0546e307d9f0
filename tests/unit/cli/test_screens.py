"""What the command shows at the widths of real terminals, and in a pipe: compared with what was looked at and kept.

`EKS_ROLLING_KEEP_SCREENS=1 pytest tests/unit/cli/test_screens.py` keeps them anew; look at each before you commit it.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from eks_rolling.documents.remedies import typed
from eks_rolling_cli import cli_context, explaining, history, plan_view, report_view, watch_view
from eks_rolling_cli.checks import Check, Health, drawn
from eks_rolling_cli.roll_state import RollState, Stage, assemble
from tests.unit.cli.histories import History, begun, planned
from tests.unit.cli.test_rolling import child, execution, replaced

KEPT = Path(__file__).parent / "screens"
KEEP = "EKS_ROLLING_KEEP_SCREENS"
WIDTHS = (60, 80, 100, 200)

DOMAIN = "eu-central-1.compute.internal"
ARN = "arn:aws:iam::123456789012:role/eks-rolling-platform-production-FunctionsEvictRole-1A2B3C4D5E6F"
BUDGET = (
    "pod shop/checkout-6d4f9c7b8d-x2x4z: budget shop/checkout allows no disruption: 5 of 6 pods are healthy, 6 needed"
)
LEFT = "group production-workers-blue keeps the maximum size 13 (was 12) while its desired capacity is 13"
DENIED = f"{ARN} may not call autoscaling:LaunchInstances on group production-workers-blue"
START = "eks-rolling start --cluster platform-production"
NAMES = [f"ip-10-120-{i}-{100 + i}.{DOMAIN}" for i in range(1, 5)]
INSTANCES = [f"i-0{i}a1b2c3d4e5f6a7" for i in range(1, 5)]


def plan() -> RenderableType:
    nodes = [
        {
            "node": name, "instance": instance, "group": "production-workers-blue",
            "zone": f"eu-central-1{'ab'[n % 2]}", "wave": 1 if n == 0 else 2, "age_seconds": 86400.0 * 41,
            "from": "lt-0a1b2c3d4e5f:3", "to": "lt-0a1b2c3d4e5f:4",
            "changes": [{"what": "ImageId", "before": "ami-0aaaaaaaaaaaaaaaa", "after": "ami-0bbbbbbbbbbbbbbbb"}],
            "moves": [
                {"pod": "shop/checkout-6d4f9c7b8d-x2x4z", "budget": "shop/checkout", "allowed": 1},
                {"pod": "shop/cart-0", "volumes": [{"name": "pvc-1", "zones": ["eu-central-1a"]}]},
                {"pod": "shop/cache-0", "way": "migrate", "redis": "shop/cache", "role": "master"},
            ],
        }
        for n, (name, instance) in enumerate(zip(NAMES, INSTANCES, strict=True))
    ]  # fmt: skip
    document = {
        "cluster": "platform-production", "outcome": "roll", "reason": "4 outdated nodes will be replaced",
        "nodes": nodes, "surge": 2, "estimate": {"seconds": 1560, "waves": 2, "transitions": 1240},
        "zones": [{"group": "production-workers-blue", "zone": "eu-central-1a", "nodes": 2, "at_once": 1,
                   "free_addresses": 3201}],
        "groups": [{"group": "production-workers-blue", "desired": 12, "maximum": 12, "at_once": 2, "raised_to": 14}],
        "findings": [{"code": "single-replica", "severity": "holds", "object": "Deployment shop/cart",
                      "reason": "it has one replica, so that it is gone while its pod moves",
                      "remedy": "run two replicas, or annotate it with eks-rolling.io/strategy: restart"}],
    }  # fmt: skip
    return plan_view.rendered(document, "Start it with `eks-rolling start`.")


def rolling(asked: dict[str, str] | None = None, *, paused: bool = False) -> RollState:
    names = dict(zip(INSTANCES, NAMES, strict=True))
    waves = ({INSTANCES[0]: NAMES[0]}, {i: names[i] for i in INSTANCES[1:3]}, {INSTANCES[3]: NAMES[3]})
    history = begun(planned(*INSTANCES), *waves[:2])
    said = f"the roll is paused: {(asked or {}).get('pause', '')}" if paused else BUDGET
    held = History(1080)
    for _ in range(4):
        held.wait("Evict pods", said, seconds=20)
    held.events.insert(0, {**held.events[0]})
    launched = History(1085).done("Launch the replacement", replacement="i-0f9e8d7c6b5a4f3e2")
    launched.wait("Wait for the last connections", said if paused else "2 targets of web drain", seconds=20)
    document = {
        "nodes": [
            {"instance": i, "node": n, "zone": "eu-central-1a", "group": "production-workers-blue"}
            for i, n in names.items()
        ],
        "estimate": {"seconds": 1560},
    }
    return assemble(
        replace(execution("roll-20261126-021400-1a2b", 1000.0), input={"trigger": "ann"}),
        history.events,
        {INSTANCES[0]: replaced(1010, 60), INSTANCES[1]: child(held), INSTANCES[2]: child(launched)},
        plan=document, asked=asked or {}, looked=1200.0,
    )  # fmt: skip


def ended(status: str, error: str, cause: str) -> RollState:
    seen = rolling()
    return assemble(
        execution("roll-20261126-021400-1a2b", 1000.0, status, 1400.0, error=error, cause=cause),
        begun(planned(*INSTANCES), {INSTANCES[0]: NAMES[0]}).events,
        {INSTANCES[0]: replaced(1010, 60), INSTANCES[1]: child(
            History(1080).wait("Evict pods", BUDGET), "FAILED", error=error, cause=cause)},
        plan={"nodes": [{"instance": n.instance, "node": n.node, "zone": n.zone} for n in seen.nodes]},
        asked={}, looked=1500.0, report={"left_behind": [LEFT]},
    )  # fmt: skip


def watched(seen: RollState) -> RenderableType:
    return watch_view.picture(seen, "platform-production")


def rolls() -> RenderableType:
    told = {
        "roll": "roll-20261126-021400-1a2b", "execution": "arn", "status": "FAILED", "began": 1000.0, "ended": 1400.0,
        "reason": DENIED, "held_lock": True, "left_behind": [LEFT], "replaced": 1, "planned": 4, "outcome": "",
    }  # fmt: skip
    left_to_another = {**told, "status": "SUCCEEDED", "held_lock": False, "left_behind": []}
    return history.listed([told, left_to_another], partial(typed, cluster="platform-production"))


def report() -> RenderableType:
    document = {
        "roll": "roll-20261126-021400-1a2b", "cluster": "platform-production", "outcome": "aborted", "planned": 4,
        "reason": "The roll was aborted: wrong image.", "began": 1000.0, "ended": 1400.0, "trigger": "ann",
        "replaced": 1, "nodes": [
            {"node": NAMES[0], "instance": INSTANCES[0], "group": "b", "replacement_node": f"ip-10-120-9-9.{DOMAIN}",
             "started": 1010.0, "ended": 1070.0},
            {"node": NAMES[1], "instance": INSTANCES[1], "group": "b", "outcome": "failed", "failure": BUDGET,
             "started": 1080.0, "ended": 1300.0},
        ],
        "restored": ["cluster-autoscaler: back at 1"], "left_behind": [LEFT],
    }  # fmt: skip
    return report_view.rendered(document, START)


def explained() -> RenderableType:
    pod = {
        "pod": "shop/checkout-6d4f9c7b8d-x2x4z", "owner": "Deployment shop/checkout", "node": NAMES[0], "ready": False,
        "not_ready_because": "container checkout: readiness probe failed: HTTP probe failed with statuscode: 503",
        "budgets": [{"budget": "shop/checkout", "allowed": 0, "healthy": 5, "needed": 6}],
        "move": {"pod": "shop/checkout-6d4f9c7b8d-x2x4z", "budget": "shop/checkout", "allowed": 0},
    }  # fmt: skip
    node = {
        "name": NAMES[0], "instance": INSTANCES[0], "zone": "eu-central-1a", "ready": True, "closed": True, "taint": "",
        "outdated": True, "from": "lt-0a1b2c3d4e5f:3", "to": "lt-0a1b2c3d4e5f:4",
    }  # fmt: skip
    roll = {"stage": "replacing", "wave": 1, "step": "Evict pods", "reason": BUDGET, "held_since": None,
            "replaces": NAMES[0], "replacement": "i-0f9e8d7c6b5a4f3e2"}  # fmt: skip
    return explaining.rendered(
        {"object": NAMES[0], "kind": "node", "node": node, "roll": roll, "pods": [pod], "findings": []}
    )


SCREENS: dict[str, Callable[[], RenderableType]] = {
    "plan": plan,
    "watch": lambda: watched(rolling()),
    "watch-paused": lambda: watched(rolling({"pause": "the shop is slow (ann, 02:31 UTC)"}, paused=True)),
    "watch-aborting": lambda: watched(rolling({"abort": "wrong image (ann, 02:31 UTC)"})),
    "watch-left-behind": lambda: watched(ended("FAILED", "Aborted", "The roll was aborted: wrong image.")),
    "watch-failed": lambda: watched(ended("FAILED", "AccessDenied", f"{DENIED}.")),
    "rolls": rolls,
    "report": report,
    "explain": explained,
}

SAID: dict[str, tuple[str, ...]] = {
    "plan": ("about 26 min", "single-replica", "Start it with"),
    "watch": ("Evict pods", "replacing", BUDGET, "left"),
    "watch-paused": ("PAUSED", "the shop is slow", "once it continues"),
    "watch-aborting": ("ABORTING", "wrong image", BUDGET),
    "watch-left-behind": ("Aborted", "LEFT BEHIND", LEFT, "eks-rolling start --cluster platform-production"),
    "watch-failed": ("Failed", DENIED, "LEFT BEHIND", LEFT),
    "rolls": (DENIED, LEFT, "failed", "eks-rolling start --cluster platform-production"),
    "report": (BUDGET, LEFT, "eks-rolling start --cluster platform-production"),
    "explain": ("readiness probe failed", "budget shop/checkout allows 0", BUDGET),
}
"""What each has to say whatever its width: the step, the reason, the time left, the way out."""


def at(width: int, content: RenderableType) -> str:
    console = Console(width=width, file=StringIO(), record=True, force_terminal=True, highlight=False)
    console.print(content, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())


def piped(content: RenderableType, monkeypatch: pytest.MonkeyPatch) -> str:
    """As the command prints what is no terminal."""
    out = StringIO()
    monkeypatch.setattr("sys.stdout", out)
    cli_context.show(content)
    return out.getvalue()


def compare(name: str, text: str) -> None:
    file = KEPT / f"{name}.txt"
    if os.environ.get(KEEP):
        file.write_text(text)
    assert text == file.read_text()


def one_line(text: str) -> str:
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def unfolded(text: str) -> str:
    """Without spaces: what is longer than the terminal is broken somewhere."""
    return one_line(text).replace(" ", "").lower()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_it_was_looked_at(name: str, width: int) -> None:
    text = at(width, SCREENS[name]())
    assert max(len(line) for line in text.splitlines()) <= width
    for said in SAID[name]:
        assert unfolded(said) in unfolded(text)
    assert "…" not in text
    compare(f"{name}-{width}", text)


@pytest.mark.parametrize("name", SCREENS)
def test_in_a_pipe_nothing_is_folded_or_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = piped(SCREENS[name](), monkeypatch)
    for said in SAID[name]:
        assert any(said.lower() in line.lower() for line in text.splitlines()), said
    assert not any(line.endswith(" ") for line in text.splitlines())
    compare(f"{name}-piped", text)


LONG_CLUSTER = "c" + "luster-" * 14 + "x"
LONG_NODE = "n" + "ode-" * 15 + "xy"
LONG_GROUP = "グループ🚚" + "g" * 240 + "مجموعة"
"""The longest that there can be: a cluster's name has 100 characters at most, a label of a node's name 63, a group's
name 255, of any script."""


def longest(*, left: bool) -> RollState:
    seen = ended("FAILED", "Refused", f"group {LONG_GROUP} is at its maximum") if left else rolling()
    nodes = tuple(replace(n, node=f"{LONG_NODE[:-2]}{i:02}", group=LONG_GROUP) for i, n in enumerate(seen.nodes))
    return replace(seen, nodes=nodes, left_behind=(f"group {LONG_GROUP} keeps its maximum",) if left else ())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("left", [True, False])
def test_the_longest_names_are_neither_cut_nor_do_they_break_a_frame(left: bool, width: int) -> None:
    seen = longest(left=left)
    text = at(width, watch_view.picture(seen, LONG_CLUSTER))
    command = f"eks-rolling start --cluster {LONG_CLUSTER}"
    for said in (LONG_CLUSTER, seen.roll, *(n.node for n in seen.nodes), *((LONG_GROUP,) if left else ())):
        assert unfolded(said) in unfolded(text), said
    assert any(command in line for line in text.splitlines()) is left
    wide = [line for line in text.splitlines() if cell_len(line) > width]
    assert [line for line in wide if command not in line] == []
    assert "…" not in text
    assert len({cell_len(line) for line in text.splitlines() if line.startswith("│")}) <= 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_command_is_never_broken_by_the_edge(width: int) -> None:
    """Two lines that are copied are typed as two commands."""
    start = f"eks-rolling start --cluster {LONG_CLUSTER}"
    orphans = [
        {"kind": "lock", "object": "kube-system/eks-rolling, held by roll-1", "remedy": f"`{start}` finishes it"}
    ]
    check = Check("lock", Health.FAIL, "roll-1 died holding the lock " + "and so on " * 12, f"run `{start}`")
    told = {
        "roll": "roll-1", "status": "FAILED", "outcome": "failed", "began": 1000.0, "ended": 1400.0, "reason": "",
        "held_lock": True, "left_behind": [LEFT],
    }  # fmt: skip
    report_ = {"roll": "roll-1", "cluster": LONG_CLUSTER, "outcome": "failed", "orphans": orphans}
    findings = [{"code": "x", "object": "y", "reason": "z", "remedy": f"type `{start}`"}]
    document = {"cluster": LONG_CLUSTER, "outcome": "blocked", "reason": "blocked", "findings": findings}
    for content in (
        drawn([check]),
        history.listed([told], partial(typed, cluster=LONG_CLUSTER)),
        report_view.rendered(report_, start),
        plan_view.rendered(document, f"Start it with `{start}`."),
    ):
        lines = at(width, content).splitlines()
        assert any(f"`{start}`" in line for line in lines)
        assert not any(line.rstrip().endswith("`eks-rolling start --cluster") for line in lines)


def test_a_clock_that_is_behind_makes_no_time_negative() -> None:
    """A minute, as machines drift: the looks are before what they look at."""
    seen = replace(rolling({"pause": "lunch"}, paused=True), looked=960.0)
    text = one_line(at(100, watched(seen)))
    assert not re.search(r"(?<![\w.])-\d", text)
    assert "0 s so far" in text
    assert seen.seconds_left is None or seen.seconds_left >= 0


@pytest.mark.parametrize("width", WIDTHS)
def test_every_node_of_a_plan_stands_with_what_becomes_of_it(width: int) -> None:
    text = one_line(at(width, plan()))
    for name in NAMES:
        assert name.partition(".")[0] in text
    assert text.count("3 → 4") == 4
    assert text.count("redis shop/cache (master)") == 4


def test_a_pause_is_no_part_of_the_pace_nor_of_what_is_left() -> None:
    """A node took 60 s; half of the time since then was a pause."""
    seen = rolling()
    pause: Any = (1090.0, 1170.0)
    held = replace(seen, pauses=(pause,))
    assert (held.worked(1080.0, 1200.0), seen.worked(1080.0, 1200.0)) == (40.0, 120.0)
    assert seen.nodes_per_hour is not None
    assert held.nodes_per_hour is not None
    assert round(held.nodes_per_hour / seen.nodes_per_hour, 2) == round(190 / 110, 2)
    assert held.seconds_left != seen.seconds_left
    later = replace(held, pauses=((1090.0, 1170.0), (1200.0, 4800.0)), looked=4800.0)
    assert later.seconds_left == held.seconds_left


def test_before_a_node_is_replaced_the_plan_says_how_long_it_takes() -> None:
    seen = rolling()
    fresh = replace(seen, nodes=tuple(replace(n, stage=Stage.WAITING, began=None, ended=None) for n in seen.nodes))
    assert fresh.seconds_left == 1560
    begun_ = replace(fresh, nodes=(replace(fresh.nodes[0], stage=Stage.REPLACING, began=1000.0), *fresh.nodes[1:]))
    assert begun_.seconds_left == 1360
    late = replace(begun_, looked=5000.0)
    assert late.seconds_left is None
    assert "longer than the 26 min that were planned" in one_line(at(100, watched(late)))
