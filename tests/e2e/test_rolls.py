"""Whole rolls in the lab under traffic, judged by what clients saw."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eks_rolling.documents.report import Report
from eks_rolling.payloads import HoldKind
from lab import demo
from lab.operator import Operator
from lab.view import LineView
from tests.browser import PHONE, chromium, look, problems
from tests.e2e.conftest import MANAGED
from tests.e2e.demonstration import demonstrated
from tests.e2e.weather import WEATHER

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

FIRST, SECOND, THIRD = (pytest.mark.xdist_group(name) for name in ("first", "second", "third"))
"""Three labs, so that tests on them run side by side."""

SEEDS = [pytest.param(seed, marks=lab) for seed, lab in enumerate((FIRST, FIRST, FIRST, SECOND, SECOND), start=1)]


@pytest.mark.xdist_group("demo")
def test_the_demo_rolls_six_nodes_and_clients_see_nothing(tmp_path: Path) -> None:
    """N1 to N4 and R2, as the watch, the clients and the account tell."""
    code, result, said = demonstrated(tmp_path, "demo")
    # The plan, too, was printed.
    assert "state transitions" in said
    assert code == (0 if demo.succeeded(result) else 1)
    # How long a client waits depends on what else is on these cores: other tests' labs are. `make demo` judges it.
    assert demo.succeeded(result | {"http": result["http"] | {"longest_gap_seconds": 0}})
    assert result["nodes"] == {"outdated": 6, "replaced": 6, "zones_kept": True}
    assert result["http"]["failed"] == 0
    assert result["http"]["requests"] > 1000
    assert (result["jobs"]["lost"], result["jobs"]["twice"]) == (0, 0)
    assert result["jobs"]["done"] > 50
    assert result["max_unavailable_seen"]["web"] == 1
    assert result["max_unavailable_seen"]["singleton"] == 0
    assert (result["restored"], result["left_behind"]) == (True, [])
    cache, shards = result["redis"]
    assert (cache["group"], cache["kind"], cache["lost"], cache["failovers"]) == ("cache", "sentinel", 0, 2)
    assert (shards["group"], shards["kind"], shards["lost"], shards["failovers"]) == ("shards", "cluster", 0, 6)
    assert min(cache["acked"], shards["acked"]) > 1000
    assert shards["unserved"] == 0
    assert_the_report_is_worth_keeping(Path(result["report"]))


def assert_the_report_is_worth_keeping(page: Path) -> None:
    """The page in a browser, and the figures that it is to show: the real roll's own document has them."""
    report = Report.model_validate_json(page.with_suffix(".json").read_text())
    with chromium() as browser:
        seen = [look(browser, page, 1200, "light"), look(browser, page, PHONE, "dark")]
    assert [problems(each, width) for each, width in zip(seen, (1200, PHONE), strict=True)] == [[], []]
    text = " ".join(seen[0].text.split())
    told = ("6 of 6 nodes replaced", "never fewer Ready nodes than at the start", "8 Redis failovers")
    put_back = ("maximum size back to 3", "cluster-autoscaler", "scale-in protection lifted")
    assert [
        words for words in (*told, *put_back, *(n.node.partition(".")[0] for n in report.nodes)) if words not in text
    ] == []
    assert (report.planned, report.replaced, len(report.nodes), report.gaps) == (6, 6, 6, ())
    assert len([f for f in report.failovers if f.completed and f.stalled_ms is not None]) == 8
    assert {line.budget for line in report.budgets} >= {"shop/web", "shop/worker"}
    assert {w.kind for w in report.waits} >= {HoldKind.INSTANCE, HoldKind.REDIS, HoldKind.TRAFFIC, HoldKind.ENDING}
    calls = {call for each in report.calls for call in each.calls}
    assert calls >= {
        "create pods/eviction",
        "autoscaling:LaunchInstances",
        "patch nodes",
        "autoscaling:UpdateAutoScalingGroup",
    }


@SECOND
@pytest.mark.long  # the rolls over Redis are in it, too
def test_a_roll_in_awss_ordinary_weather_ends_the_same(small_lab: Operator, view: LineView) -> None:
    """R2, N3: functions sleep, instances are unknown at first, calls are throttled and refused, capacity is lacking."""
    # It takes two retries to wake one.
    small_lab.fault(WEATHER | {"asleep": {"waking_seconds": 3}})
    try:
        played = demo.play(small_lab, view, quiet_seconds=2)
        struck = small_lab.faults()
    finally:
        small_lab.fault({})
    assert (played.outcome.status, played.outcome.report["left_behind"]) == ("SUCCEEDED", [])
    assert min(struck[fault] for fault in ("asleep", "throttled", "refused", "no_capacity")) > 0
    old = {n.instance for n in played.before.nodes}
    assert not old & {n.instance for n in played.after.nodes}
    assert played.after.zones == played.before.zones
    assert played.after.restored(played.before), (played.before, played.after)
    assert (played.verdict.failed, played.verdict.errors) == (0, {})
    assert played.verdict.jobs["lost"] == 0
    assert played.verdict.max_unavailable_seen["web"] <= 1


@pytest.mark.long  # the rolls over Redis are killed at random, too
@pytest.mark.parametrize("seed", SEEDS)
def test_a_roll_whose_functions_are_killed_at_random_ends_the_same(
    small_lab: Operator, view: LineView, seed: int
) -> None:
    """R3, on real processes: a quarter of all invocations are to die, soon after they began."""
    small_lab.fault({"lambda_kill": {"seed": seed, "share": 0.25, "within_seconds": 0.15}})
    try:
        played = demo.play(small_lab, view, quiet_seconds=2)
        killed = small_lab.faults()["kills"]
    finally:
        small_lab.fault({})
    assert (played.outcome.status, played.outcome.report["left_behind"]) == ("SUCCEEDED", [])
    assert killed > 0
    old = {n.instance for n in played.before.nodes}
    assert not old & {n.instance for n in played.after.nodes}
    assert played.after.zones == played.before.zones
    assert played.after.restored(played.before), (played.before, played.after)
    assert (played.verdict.failed, played.verdict.errors) == (0, {})
    assert played.verdict.jobs["lost"] == 0
    assert played.verdict.max_unavailable_seen["web"] <= 1


@THIRD
@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (
            {"surge": 1, "grups": ["workers-a"]},
            "grups is not a known field (known: accept, approval, dry_run, force, groups",
        ),
        ({"groups": ["workers-z"]}, "group workers-z: there is no such Auto Scaling group"),
        ({"groups": [MANAGED]}, "it belongs to an EKS managed node group, whose nodes only EKS replaces"),
        ({"nodes": ["ip-1-2-3-4"]}, "node ip-1-2-3-4: neither a node of small nor an instance of its groups"),
    ],
)
def test_bad_input_is_one_clear_sentence_before_anything_is_changed(
    small_lab: Operator, view: LineView, request_: dict[str, object], sentence: str
) -> None:
    before = small_lab.settled_state()
    outcome = small_lab.follow(small_lab.rolls.start(request_), view.show, within_seconds=60)
    assert outcome.status == "FAILED"
    assert sentence in outcome.reason
    assert small_lab.settled_state() == before


@THIRD
def test_a_role_without_access_to_the_cluster_is_named_with_the_remedy(small_lab: Operator, view: LineView) -> None:
    before = small_lab.settled_state()
    # The API server remembers a token that it has let in for two minutes; another process has another token.
    small_lab.lab.run([sys.executable, "-c", KILL, "plan"], check=True)
    with access_taken_from(small_lab, "FunctionsPlan"):
        outcome = small_lab.follow(small_lab.rolls.start({}), view.show, within_seconds=60)
    assert outcome.status == "FAILED"
    assert "does not accept this role" in outcome.reason
    assert "give the function's role an EKS access entry" in outcome.reason
    assert small_lab.settled_state() == before


KILL = """
import os, pathlib, sys
for file in pathlib.Path("/proc").glob("[0-9]*/comm"):
    if file.read_text().strip() == sys.argv[1]:
        os.kill(int(file.parent.name), 9)
"""
"""Ends every process of a name, which is a step's for its Lambda environments."""


@contextmanager
def access_taken_from(operator: Operator, role: str) -> Iterator[None]:
    """The EKS access entry of a function's role is gone for the time of the block."""
    eks = operator.rolls.client("eks")
    cluster = operator.lab.spec.cluster
    (arn,) = [a for a in eks.list_access_entries(clusterName=cluster)["accessEntries"] if role in a]
    entry = eks.describe_access_entry(clusterName=cluster, principalArn=arn)["accessEntry"]
    eks.delete_access_entry(clusterName=cluster, principalArn=arn)
    try:
        yield
    finally:
        eks.create_access_entry(
            clusterName=cluster, principalArn=arn, kubernetesGroups=entry["kubernetesGroups"], type="STANDARD"
        )
