"""The commands as people type them: what they print, what they change, their exit codes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import Result

from eks_rolling.errors import AccessDenied, BadRequest, Transient
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.observed.marks import GROUP_MAXIMUM
from eks_rolling.roll import lock
from eks_rolling.settings import ENVIRONMENT_VARIABLE, Settings
from eks_rolling_cli import cli_context as frame
from eks_rolling_cli import control, planning
from eks_rolling_cli.executions import Execution
from eks_rolling_cli.exits import MEANINGS, CommandError, Exit
from eks_rolling_cli.roll_state import left_behind
from tests.model.situations import shop
from tests.unit.cli.conftest import Run
from tests.unit.cli.histories import History, begun, planned
from tests.unit.cli.targets import NODE, RESTORE, ROLL, FakeTarget

LOCK = lock.lock_name("kube-system")

PLACE = "demo (account 123456789012, eu-central-1)"

NOON = "2026-11-27 12:00 UTC"


def hold_lock(target: FakeTarget, roll: str, **annotations: str) -> None:
    keys = {"pause": lock.PAUSE, "abort": lock.ABORT}
    wished = {keys[what]: why for what, why in annotations.items()}
    target.world.put_lease(Lease(LOCK, roll, 0.0, 180.0, annotations=wished))


def signed(reason: str) -> str:
    """How a reason is kept: with who gave it, and when."""
    return f"{reason} (ann, {NOON})"


@pytest.fixture(autouse=True)
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eks_rolling_cli.control.moment", lambda _: NOON)


def answering(answers: str, asked: list[str]) -> Callable[..., bool]:
    """Somebody who answers y or n, one letter a question; the questions are kept."""
    given = iter(answers)

    def confirmed(question: str, *, yes: bool) -> bool:
        asked.append(question)
        return yes or next(given) == "y"

    return confirmed


def asks_approval(token: str) -> History:
    history = planned("i-1").enter("Task", "Wait for approval")
    given = json.dumps({"Payload": {"token": token}})
    return history.add("TaskScheduled", taskScheduledEventDetails={"parameters": given})


# Help


def test_help_names_every_exit_code(run: Run) -> None:
    said = " ".join(run("--help").output.split())
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in said


@pytest.mark.parametrize(
    "command",
    ["init", "plan", "start", "doctor", "explain", "watch", "approve", "refuse", "pause", "resume", "abort", "report",
     "rolls", "orphans", "restore"],
)  # fmt: skip
def test_every_command_has_help_and_says_where_it_looks(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == Exit.FINE
    for option in ("--cluster", "--region", "--profile", "--kubeconfig", "--context", "--endpoint-url"):
        assert option in done.output
    assert "<str>" not in done.output
    assert "<bool>" not in done.output


def test_an_unknown_option_is_a_usage_error(run: Run) -> None:
    assert run("plan", "--grup", "a").exit_code == Exit.USAGE


# Plan


def test_a_plan_names_every_node_in_order_with_what_moves_and_what_to_do_next(run: Run, target: FakeTarget) -> None:
    done = run("plan")
    assert done.exit_code == Exit.FINE
    assert "6 outdated nodes will be replaced" in done.output
    for node in target.world.nodes():
        assert node.name in done.output
    assert "1 → 2" in done.output
    assert done.output.rstrip().endswith("Start it with `eks-rolling start --cluster demo`.")


def test_a_forced_plan_says_why_current_nodes_are_in_it(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    target = FakeTarget(shop(new_version=False))
    monkeypatch.setattr(frame, "Target", lambda _: target)
    name = target.world.nodes()[0].name
    assert "No node is outdated" in run("plan").output
    said = run("plan", "--force", "--node", name).output
    assert "1 node will be replaced" in said
    assert "replaced because the request forces it" in said


def test_a_plan_changes_nothing(run: Run, target: FakeTarget) -> None:
    before = target.world.snapshot()
    run("plan")
    assert target.world.snapshot() == before


def test_a_plan_needs_nothing_deployed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    bare = FakeTarget(shop(), deployed=False)
    monkeypatch.setattr(frame, "Target", lambda _: bare)
    done = run("plan")
    assert done.exit_code == Exit.FINE
    assert "Deploy eks-rolling for this cluster" in done.output


def settings_file(directory: Path, cluster: str = "demo") -> Path:
    file = directory / "eks-rolling.yaml"
    file.write_text(f"clusters:\n  - cluster: {cluster}\n    surge: 5\n    canary: false\n")
    return file


def surge_of(done: Result) -> int:
    return int(json.loads(done.stdout)["surge"])


def test_a_plan_before_deployment_takes_the_settings_file_that_is_here(
    monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path
) -> None:
    monkeypatch.setattr(frame, "Target", lambda _: FakeTarget(shop(), deployed=False))
    monkeypatch.chdir(tmp_path)
    settings_file(tmp_path)
    done = run("plan", "--json")
    assert surge_of(done) == 5
    assert "those of eks-rolling.yaml, since nothing is deployed" in done.stderr
    settings_file(tmp_path, "other")
    done = run("plan", "--json")
    assert surge_of(done) == Settings(cluster="demo").surge
    assert "eks-rolling.yaml does not describe demo" in done.stderr


def test_a_plan_with_a_settings_file_shows_what_a_deployment_of_it_would_do(run: Run, tmp_path: Path) -> None:
    file = settings_file(tmp_path)
    assert surge_of(run("plan", "--json")) == Settings(cluster="demo").surge
    assert surge_of(run("plan", "--json", "--settings", str(file))) == 5
    assert run("plan", "--settings", str(file), "--deployed").exit_code == Exit.USAGE
    missing = run("plan", "--settings", str(tmp_path / "missing.yaml"))
    assert missing.exit_code == Exit.USAGE
    assert "does not exist" in " ".join(missing.stderr.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters:\n  - cluster: demo\n    surg: 5\n", "line 3: clusters[0].surg: there is no such setting"),
        ("clusters:\n  - cluster: other\n", "does not describe demo; it describes other"),
    ],
)
def test_a_settings_file_that_cannot_serve_is_told_as_by_synth(run: Run, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    done = run("plan", "--settings", str(file))
    assert done.exit_code == Exit.USAGE
    assert said in " ".join(done.stderr.split())


def test_a_blocked_plan_is_exit_code_3_and_names_the_remedy(run: Run) -> None:
    done = run("plan", "--group", "ng-z")
    assert done.exit_code == Exit.BLOCKED
    assert "group ng-z: there is no such Auto Scaling group" in done.output
    assert "→ correct the name" in done.output


def test_a_plan_in_json_is_the_document_and_nothing_else(run: Run) -> None:
    document = json.loads(run("plan", "--json").stdout)
    assert document["outcome"] == "roll"
    assert len(document["nodes"]) == 6


def test_up_to_date_nodes_need_no_roll(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    current = FakeTarget(shop(new_version=False))
    monkeypatch.setattr(frame, "Target", lambda _: current)
    assert run("plan").output.rstrip().endswith("There is nothing to do.")
    done = run("start", "--yes")
    assert (done.exit_code, current.fake.started) == (Exit.FINE, [])


def test_a_start_with_nothing_to_roll_puts_back_a_lock_that_a_dead_roll_left(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """R2: `start` is what is printed wherever something is left behind."""
    current = FakeTarget(shop(new_version=False))
    monkeypatch.setattr(frame, "Target", lambda _: current)
    hold_lock(current, "dead")
    assert (run("start").exit_code, current.fake.started) == (Exit.USAGE, [])
    assert run("start", "--yes", "--detach").exit_code == Exit.FINE
    assert [(machine, given) for machine, _, given in current.fake.started] == [(RESTORE, {"roll": "dead"})]


def test_a_plan_during_a_roll_points_to_it(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    assert "A roll is running: `eks-rolling watch roll-1 --cluster demo` shows it." in run("plan").output


# Start


def test_start_shows_the_plan_and_asks(run: Run, target: FakeTarget) -> None:
    done = run("start", "--detach")
    assert done.exit_code == Exit.USAGE
    assert "6 outdated nodes" in done.output
    assert "add --yes" in done.output
    assert target.fake.started == []


def test_start_asks_by_number_place_and_time(run: Run, monkeypatch: pytest.MonkeyPatch, target: FakeTarget) -> None:
    asked: list[str] = []
    monkeypatch.setattr(planning, "confirmed", answering("n", asked))
    done = run("start")
    assert (done.exit_code, target.fake.started) == (Exit.INTERRUPTED, [])
    assert done.stderr.rstrip().endswith("Nothing was started.")
    assert "error" not in done.stderr
    assert [re.sub(r"about [\d]+ \w+( \d+ s)?", "about TIME", q) for q in asked] == [
        f"Replace 6 nodes of {PLACE}, about TIME?"
    ]


def test_what_is_left_behind_has_a_question_of_its_own() -> None:
    assert planning.question(PLACE, {"nodes": []}) == f"Put back what earlier rolls left behind in {PLACE}?"


def test_start_passes_on_what_was_asked_for_and_by_whom(run: Run, target: FakeTarget) -> None:
    done = run("start", "--yes", "--detach", "--group", "ng-a", "--surge", "3", "--no-approval")
    assert done.exit_code == Exit.FINE
    ((machine, _, given),) = target.fake.started
    assert machine == ROLL
    assert given == {"groups": ["ng-a"], "surge": 3, "approval": False, "trigger": "ann"}


def test_a_blocked_plan_starts_nothing(run: Run, target: FakeTarget) -> None:
    assert run("start", "--yes", "--node", "no-such-node").exit_code == Exit.BLOCKED
    assert target.fake.started == []


def test_where_redis_is_out_of_reach_the_deployed_workflow_plans(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = {"group": "shop/cache", "servers": [{"pod": "redis-0", "role": "unknown", "reason": "does not answer"}]}
    blocked = {"outcome": "blocked", "reason": "blocked", "nodes": [], "redis": [silent]}
    monkeypatch.setattr(
        "eks_rolling_cli.plan_locally.plan_here", lambda *_: ({"output": {"outcome": "blocked"}}, blocked)
    )
    assert "eks-rolling plan --deployed" in " ".join(run("plan").output.split())

    dry = History().done("Plan the roll", "1 outdated node would be replaced", outcome="dry-run", nodes=["i-1"])

    def start(machine: str, name: str, given: dict[str, object]) -> str:
        target.fake.started.append((machine, name, dict(given)))
        target.documents[name, "plan.json"] = {"outcome": "dry-run", "reason": "1 outdated node would be replaced"}
        return target.fake.add(ROLL, name, dry, "SUCCEEDED").arn

    monkeypatch.setattr(target.fake, "start", start)
    assert run("start", "--yes", "--detach").exit_code == Exit.FINE
    (_, _, asked), (_, _, started) = target.fake.started
    assert (asked["dry_run"], "dry_run" in started) == (True, False)


def test_without_a_deployment_nothing_can_be_started(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(frame, "Target", lambda _: FakeTarget(shop(), deployed=False))
    done = run("start", "--yes")
    assert done.exit_code == Exit.NOT_FOUND
    assert "eks-rolling is not deployed for demo (account 123456789012, eu-central-1)" in done.stderr


# Approval


def test_the_token_of_the_waiting_roll_is_found_and_answered(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", asks_approval("t"))
    assert run("approve").exit_code == Exit.USAGE
    assert run("approve", "--yes").exit_code == Exit.FINE
    assert run("refuse", "--reason", "not today").exit_code == Exit.FINE
    assert target.fake.answered == [
        ("approved", "t", {"approved_by": "ann"}),
        ("refused", "t", "refused by ann: not today"),
    ]


def test_a_roll_that_does_not_wait_cannot_be_approved(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1").wait("Take the lock", "another roll holds it"))
    done = run("approve")
    assert (done.exit_code, target.fake.answered) == (Exit.NOT_FOUND, [])
    assert "roll-1 is running and does not wait for approval" in done.stderr


def test_who_approves_is_told_what(run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    target.fake.add(ROLL, "roll-1", asks_approval("one"))
    target.fake.add(ROLL, "roll-2", asks_approval("two"))
    several = run("approve", "--yes")
    assert (several.exit_code, target.fake.answered) == (Exit.USAGE, [])
    assert "roll-1" in several.stderr
    assert "roll-2" in several.stderr

    estimate = {"seconds": 1560, "waves": 3}
    target.documents["roll-1", "plan.json"] = {
        "outcome": "roll", "reason": "6 outdated nodes will be replaced", "estimate": estimate,
        "request": {"trigger": "bob"},
    }  # fmt: skip
    asked: list[str] = []
    monkeypatch.setattr(control, "confirmed", answering("ny", asked))
    said = run("approve", "roll-1")
    assert (said.exit_code, target.fake.answered) == (Exit.INTERRUPTED, [])
    for fact in ("roll-1", PLACE, "6 outdated nodes will be replaced", "About 26 min in 3 waves", "bob"):
        assert fact in " ".join(said.stderr.split())
    assert "error" not in said.stderr
    assert run("approve", "roll-1").exit_code == Exit.FINE
    assert asked == [f"Approve the roll roll-1 of {PLACE}?"] * 2
    assert [token for _, token, _ in target.fake.answered] == ["one"]


# Pause, resume, abort

WAITING = History().wait("Wait for the change to settle", "outside the windows; the next opens Sat 28 Nov 22:00 UTC")


def test_pause_and_resume_write_what_steps_read_and_leave_the_rest(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1")
    assert run("pause", "--reason", "lunch").exit_code == Exit.FINE
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert (lease.holder, lease.annotations) == ("roll-1", {lock.PAUSE: signed("lunch")})
    assert run("resume").exit_code == Exit.FINE
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert lease.annotations == {}


def test_of_several_that_run_the_one_with_the_lock_is_meant_even_if_another_waits_for_longer(
    run: Run, target: FakeTarget
) -> None:
    target.fake.add(ROLL, "waits", WAITING)
    target.fake.add(ROLL, "at-work", planned("i-1"))
    hold_lock(target, "at-work")
    assert run("abort", "--yes", "--reason", "wrong image").exit_code == Exit.FINE
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert (lease.annotations, target.fake.stopped) == ({lock.ABORT: signed("wrong image")}, [])


def test_the_last_roll_is_none_that_was_left_to_another(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"), "SUCCEEDED")
    left = History().done("Wait for the change to settle", "e-2: joined to roll-1", next="end")
    target.fake.add(ROLL, "joined", left, "SUCCEEDED")
    assert "roll roll-1" in run("watch", "--no-tty").output


def test_a_change_that_waits_says_so_among_the_rolls(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "waits", WAITING)
    assert "outside the windows; the next opens Sat" in " ".join(run("rolls", "--json").output.split())


def test_a_lock_that_is_renewed_meanwhile_is_written_again(
    monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1")
    read, renewals = target.world.lease, [1, 1]

    def lease(name: str) -> Lease | None:
        seen = read(name)
        if renewals and seen is not None:
            renewals.pop()
            target.world.put_lease(replace(seen, renewed=seen.renewed + 1))
        return seen

    monkeypatch.setattr(target.world, "lease", lease)
    assert run("pause", "--reason", "lunch").exit_code == Exit.FINE
    seen = read(LOCK)
    assert seen is not None
    assert (seen.annotations, seen.renewed) == ({lock.PAUSE: signed("lunch")}, 2.0)


def test_a_roll_without_the_lock_cannot_be_paused(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "another")
    done = run("pause")
    assert done.exit_code == Exit.BLOCKED
    assert "has not begun to change anything" in done.stderr


def test_abort_asks_first(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1")
    assert run("abort").exit_code == Exit.USAGE
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert lease.annotations == {}
    assert run("abort", "--yes", "--reason", "wrong image").exit_code == Exit.FINE
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert lease.annotations == {lock.ABORT: signed("wrong image")}


def test_a_roll_that_has_changed_nothing_yet_is_stopped(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1").wait("Take the lock", "another roll holds it"))
    hold_lock(target, "another")
    assert run("abort", "--yes", "--reason", "wrong image").exit_code == Exit.FINE
    assert target.fake.stopped == [("arn:roll-1", f"aborted: {signed('wrong image')}")]


def test_a_second_pause_keeps_the_reason_of_the_first(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1", pause="the shop is slow (bob, 02:31 UTC)")
    done = run("pause", "--reason", "lunch")
    assert "is already paused: the shop is slow (bob, 02:31 UTC)" in done.stderr
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert lease.annotations == {lock.PAUSE: "the shop is slow (bob, 02:31 UTC)"}


def test_a_queued_roll_is_cancelled_by_its_name_and_the_one_at_work_goes_on(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "at-work", planned("i-1"))
    target.fake.add(ROLL, "queued", planned("i-1").wait("Take the lock", "at-work holds it"))
    hold_lock(target, "at-work")
    assert run("abort", "queued", "--yes", "--reason", "not needed").exit_code == Exit.FINE
    lease = target.world.lease(LOCK)
    assert lease is not None
    assert (lease.annotations, [arn for arn, _ in target.fake.stopped]) == ({}, ["arn:queued"])


def test_of_several_that_only_wait_one_has_to_be_named(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", WAITING)
    target.fake.add(ROLL, "roll-2", WAITING)
    done = run("abort", "--yes")
    assert (done.exit_code, target.fake.stopped) == (Exit.USAGE, [])
    assert "roll-1" in done.stderr
    assert "roll-2" in done.stderr


def deployed_by_another_version(target: FakeTarget) -> None:
    """The deployed settings, as the account tells them, are none that this version accepts."""
    target.__dict__.pop("settings")
    own = {"cluster": "demo", "namespace": "operations", "wave": 100, "of_another_version": True}
    target.__dict__["definition"] = {"Comment": json.dumps(own)}
    known = {"bucket": "reports", "topic": "arn:aws:sns:eu-central-1:123456789012:messages"}
    target.__dict__["function"] = {"Environment": {"Variables": {ENVIRONMENT_VARIABLE: json.dumps(known)}}}


def test_a_roll_of_another_version_with_settings_that_this_one_refuses_is_paused_and_aborted(
    run: Run, target: FakeTarget
) -> None:
    """R4: who has updated the command first still stops what runs."""
    deployed_by_another_version(target)
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    name = lock.lock_name("operations")
    target.world.put_lease(Lease(name, "roll-1", 0.0, 180.0))

    def asked() -> dict[str, str]:
        lease = target.world.lease(name)
        assert lease is not None
        return dict(lease.annotations)

    assert run("pause", "--reason", "lunch").exit_code == Exit.FINE
    assert asked() == {lock.PAUSE: signed("lunch")}
    assert run("resume").exit_code == Exit.FINE
    assert asked() == {}
    assert run("watch", "--once").exit_code == Exit.FINE
    assert run("restore").exit_code == Exit.BLOCKED
    assert run("abort", "--yes", "--reason", "wrong image").exit_code == Exit.FINE
    assert (asked(), target.fake.stopped) == ({lock.ABORT: signed("wrong image")}, [])


def test_a_dead_roll_of_another_version_is_listed_and_restored(run: Run, target: FakeTarget) -> None:
    deployed_by_another_version(target)
    finished(target, "FAILED")
    target.documents["roll-1", "report.json"] = {"roll": "roll-1", "cluster": "demo", "outcome": "failed"}
    target.world.put_lease(Lease(lock.lock_name("operations"), "roll-1", 0.0, 180.0))
    (told,) = json.loads(run("rolls", "--json").stdout)
    assert "/s3/object/reports?" in told["report"]
    assert run("restore", "--detach").exit_code == Exit.FINE
    assert [given for _, _, given in target.fake.started] == [{"roll": "roll-1"}]


@pytest.mark.parametrize("comment", ['{"cluster": "demo", "namespace": "../default"}', "", "cut off: {"])
def test_a_lock_is_sought_nowhere_else_where_the_deployed_namespace_cannot_be_read(
    run: Run, target: FakeTarget, comment: str
) -> None:
    """R4: a roll whose lock is not found would be stopped as one that has changed nothing."""
    deployed_by_another_version(target)
    target.__dict__["definition"] = {"Comment": comment}
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    done = run("abort", "--yes")
    assert (done.exit_code, target.fake.stopped) == (Exit.USAGE, [])
    assert "The settings have" in done.stderr


def test_settings_that_this_version_refuses_are_not_taken_for_others(target: FakeTarget) -> None:
    deployed_by_another_version(target)
    with pytest.raises(BadRequest, match="wave"):
        _ = target.settings


def test_a_report_is_read_in_the_bucket_of_another_version(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr("eks_rolling.clients.aws.AwsClient", lambda *given: made.append(given[:3]))
    deployed_by_another_version(target)
    _ = target.aws
    assert made == [("demo", "reports", "arn:aws:sns:eu-central-1:123456789012:messages")]


def test_a_roll_that_has_ended_cannot_be_aborted(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"), "SUCCEEDED")
    done = run("abort", "roll-1", "--yes")
    assert done.exit_code == Exit.NOT_FOUND
    assert "The roll roll-1 has ended" in done.stderr


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["abort", "--yes"], ["approve"], ["refuse"]])
def test_without_a_running_roll_there_is_nothing_to_ask_for(run: Run, target: FakeTarget, command: list[str]) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"), "SUCCEEDED")
    done = run(*command)
    assert done.exit_code == Exit.NOT_FOUND
    assert done.stderr.startswith("error: No roll of demo")


# Watch


def finished(target: FakeTarget, status: str = "SUCCEEDED", **more: str) -> None:
    history = begun(planned("i-1"), {"i-1": "node-1"})
    child = History().done("Launch the replacement", replacement="i-9").done("Wait for the replacement")
    child.done("Evict pods", "the node is empty").later(40)
    target.fake.add(NODE, "i-1-roll-1", child, "SUCCEEDED")
    target.fake.add(ROLL, "roll-1", history, status, **more)


def test_watch_tells_a_roll_that_is_over_and_exits_as_it_did(run: Run, target: FakeTarget) -> None:
    finished(target)
    done = run("watch")
    assert done.exit_code == Exit.FINE
    assert "node-1: replaced by i-9 in 42 s" in done.output


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        ("FAILED", "DeadlineExceeded", 1),
        ("ABORTED", "", 1),
        ("TIMED_OUT", "", 1),
        ("FAILED", "Blocked", 3),
        ("FAILED", "NotApproved", 3),
    ],
)
def test_the_exit_code_is_the_rolls(run: Run, target: FakeTarget, status: str, error: str, code: int) -> None:
    finished(target, status, error=error, cause="why")
    assert run("watch").exit_code == code


def test_watch_in_json_is_a_document_a_line(run: Run, target: FakeTarget) -> None:
    finished(target)
    (line,) = run("watch", "--json").stdout.splitlines()
    seen = json.loads(line)
    assert (seen["roll"], seen["status"], seen["replaced"]) == ("roll-1", "SUCCEEDED", 1)
    assert [n["stage"] for n in seen["nodes"]] == ["replaced"]


def test_watch_outlives_a_lost_connection(monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget) -> None:
    finished(target)
    describe, faults = target.fake.describe, [Transient("the endpoint cannot be reached."), Transient("again.")]

    def failing(arn: str) -> object:
        if faults:
            raise faults.pop(0)
        return describe(arn)

    monkeypatch.setattr(target.fake, "describe", failing)
    done = run("watch")
    assert done.exit_code == Exit.FINE
    assert "no connection: the endpoint cannot be reached. Trying again" in done.output
    assert "connected again" in done.output


def test_a_dry_run_of_which_aws_tells_nothing_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget
) -> None:
    clock = SimpleNamespace(now=0.0)

    def sleep(_: float) -> None:
        clock.now += 100.0
        assert clock.now < 1000.0

    monkeypatch.setattr("eks_rolling_cli.executions.time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock.now))

    def unreachable(_: str) -> object:
        raise Transient("the endpoint cannot be reached.")

    monkeypatch.setattr(target.fake, "describe", unreachable)
    monkeypatch.setattr(target.fake, "start", lambda *_: "arn")
    done = run("plan", "--deployed")
    assert done.exit_code == Exit.NOT_FOUND
    assert (done.output.count("Trying again"), clock.now) == (3, 300.0)


def test_interrupting_a_watcher_says_that_the_roll_goes_on(
    monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))

    def interrupted(_: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(target.fake, "describe", interrupted)
    done = run("watch")
    assert done.exit_code == Exit.INTERRUPTED
    assert "the roll roll-1 continues" in done.stderr
    assert target.fake.stopped == []


def test_a_roll_is_known_by_the_beginning_of_its_name(run: Run, target: FakeTarget) -> None:
    finished(target)
    assert run("watch", "roll").exit_code == Exit.FINE
    assert run("watch", "nothing").exit_code == Exit.NOT_FOUND


# After a roll


def test_a_report_that_left_something_behind_is_exit_code_1(run: Run, target: FakeTarget) -> None:
    finished(target)
    report = {"roll": "roll-1", "cluster": "demo", "outcome": "replaced", "reason": "1 of 1 nodes were replaced"}
    target.documents["roll-1", "report.json"] = report
    assert run("report").exit_code == Exit.FINE
    target.documents["roll-1", "report.json"] = report | {"left_behind": ["group ng-a keeps its maximum"]}
    done = run("report")
    assert done.exit_code == Exit.FAILED
    assert "left behind  group ng-a keeps its maximum" in done.output
    remedy = "`eks-rolling restore --cluster demo` puts it back"
    orphan = {"kind": "taint on node", "object": "node-1", "remedy": remedy}
    target.documents["roll-1", "report.json"] = report | {"orphans": [orphan]}
    done = run("report")
    assert (done.exit_code, done.output.count("eks-rolling ")) == (Exit.FAILED, 1)


def test_a_roll_without_a_report_says_why(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    done = run("report")
    assert done.exit_code == Exit.NOT_FOUND
    assert "it is still running" in done.stderr


def test_rolls_are_listed_with_what_came_of_them(run: Run, target: FakeTarget) -> None:
    finished(target, "FAILED", error="Refused", cause="node-1 was not replaced")
    (told,) = json.loads(run("rolls", "--json").stdout)
    assert (told["roll"], told["status"], told["reason"]) == ("roll-1", "FAILED", "node-1 was not replaced")


def test_rolls_are_a_page_that_links_reports_and_says_what_is_left(
    run: Run, target: FakeTarget, tmp_path: Path
) -> None:
    finished(target, "FAILED", error="Refused", cause="<b>node-1</b> was not replaced")
    target.__dict__["settings"] = Settings(
        cluster="demo", bucket="reports", topic="arn:aws:sns:eu-central-1:123456789012:messages"
    )
    target.documents["roll-1", "report.json"] = {
        "roll": "roll-1", "cluster": "demo", "outcome": "failed", "planned": 6, "replaced": 2,
        "left_behind": ["group ng-a keeps its maximum"],
        "failovers": [{"at": 1.0, "group": "shop/cache", "stalled_ms": 240}],
    }  # fmt: skip
    file = tmp_path / "rolls.html"
    assert run("rolls", "--html", str(file)).exit_code == Exit.FINE
    page = file.read_text()
    for said in (
        f"Rolls of {PLACE}", "2 of 6 nodes replaced", "longest stall of writes 240 ms", "failed",
        "left behind: group ng-a keeps its maximum", "eks-rolling start --cluster demo", 'name="viewport"',
        "prefix=rolls/roll-1/report.html",
    ):  # fmt: skip
        assert said in page
    assert "<b>" not in page


def test_a_restore_follows_the_dead_roll_and_says_what_it_put_back(
    monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget
) -> None:
    hold_lock(target, "dead")
    history = History().done("Restore", restored=["cluster-autoscaler: back at 1"], left_behind=[])

    def start(machine: str, name: str, given: dict[str, object]) -> str:
        target.fake.started.append((machine, name, dict(given)))
        return target.fake.add(RESTORE, name, history, "SUCCEEDED").arn

    # The restore goes on whether it can be seen or not.
    faults = [Transient("Cannot describe it now: ThrottlingException: slow down.")]
    describe = target.fake.describe

    def throttled(arn: str) -> Execution:
        if faults:
            raise faults.pop()
        return describe(arn)

    monkeypatch.setattr(target.fake, "start", start)
    monkeypatch.setattr(target.fake, "describe", throttled)
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = run("restore")
    assert (done.exit_code, faults) == (Exit.FINE, [])
    assert target.fake.started[0][2] == {"roll": "dead"}
    assert "restored: cluster-autoscaler: back at 1" in done.output


@pytest.mark.parametrize("last", [[], ["group ng-a keeps its maximum"]])
def test_what_an_earlier_look_had_to_leave_is_told_at_the_end(
    last: list[str], monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget
) -> None:
    """R2: the mark goes in the look that tells of it, and no later one finds it."""
    hold_lock(target, "dead")
    forged = "The annotation of node-1 was written by no roll"
    history = History().wait("Restore", "node-2 leaves its load balancers", restored=[], left_behind=[forged])
    history.done("Restore", restored=[], left_behind=last)

    def start(machine: str, name: str, given: dict[str, object]) -> str:
        return target.fake.add(RESTORE, name, history, "SUCCEEDED").arn

    monkeypatch.setattr(target.fake, "start", start)
    done = run("restore")
    assert done.exit_code == Exit.FAILED
    assert [line for line in done.output.splitlines() if line.startswith("left behind: ")] == [
        f"left behind: {said}" for said in [forged, *last]
    ]
    assert left_behind(history.events, {}) == (forged, *last)


def test_a_change_that_waits_for_a_window_keeps_nobody_from_restoring(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "waits", WAITING)
    hold_lock(target, "dead")
    run("restore", "--detach")
    assert [given for _, _, given in target.fake.started] == [{"roll": "dead"}]


def test_nothing_is_restored_under_a_living_roll(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1")
    assert (run("restore").exit_code, target.fake.started) == (Exit.BLOCKED, [])


def test_a_blocked_start_says_how_to_put_back_what_an_earlier_roll_left(run: Run, target: FakeTarget) -> None:
    """R2: the remedy of a roll's end is `start`."""
    assert "eks-rolling restore" not in run("start", "--node", "node-x").output
    target.world.tag_group("ng-a", {GROUP_MAXIMUM: "3"})
    done = run("start", "--node", "node-x")
    assert (done.exit_code, target.fake.started) == (Exit.BLOCKED, [])
    assert "`eks-rolling restore --cluster demo` puts back what an earlier roll left" in " ".join(done.stderr.split())


def test_what_a_roll_left_is_named_as_soon_as_it_has_ended_whatever_its_lock_says(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    now = target.world.time
    target.world.put_lease(Lease(LOCK, "roll-1", now, 180.0))
    target.world.tag_group("ng-a", {GROUP_MAXIMUM: "3"})
    assert run("orphans").exit_code == Exit.FINE
    target.world.put_lease(replace(target.world.leases[LOCK], holder="roll-0"))
    done = run("orphans")
    assert done.exit_code == Exit.FAILED
    assert "`eks-rolling restore --cluster demo` puts it back" in done.output


def test_a_roll_that_left_no_report_is_listed_with_the_command_that_tells_what_it_left(
    run: Run, target: FakeTarget
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1").done("Take the lock"), "ABORTED")
    assert "`eks-rolling orphans --cluster demo` lists what it left" in run("rolls").output


def test_orphans_are_named_with_what_to_do(run: Run, target: FakeTarget) -> None:
    assert run("orphans").exit_code == Exit.FINE
    target.world.tag_group("ng-a", {GROUP_MAXIMUM: "3"})
    done = run("orphans")
    assert done.exit_code == Exit.FAILED
    assert "ng-a" in done.output
    assert "→" in done.output


# Explain


def test_a_node_is_explained_by_version_pods_and_budgets(run: Run, target: FakeTarget) -> None:
    node = next(p.node for p in target.world.pods() if p.name.startswith("web"))
    found = json.loads(run("explain", node, "--json").stdout)
    assert (found["kind"], found["node"]["outdated"]) == ("node", True)
    assert "default/web" in {b["budget"] for p in found["pods"] for b in p["budgets"]}


def test_a_pod_is_explained_with_its_findings_alone(run: Run, target: FakeTarget) -> None:
    done = run("explain", "default/db-0")
    assert done.exit_code == Exit.FINE
    assert "StatefulSet default/db" in done.output
    assert "on node" in done.output


def test_a_node_in_a_running_roll_is_explained_by_what_holds_it(run: Run, target: FakeTarget) -> None:
    node = target.world.nodes()[0]
    target.fake.add(
        NODE, f"{node.instance}-roll-1", History().wait("Evict pods", "budget shop/web needs 5 healthy pods")
    )
    target.fake.add(ROLL, "roll-1", begun(planned(node.instance), {node.instance: node.name}))
    said = " ".join(run("explain", node.name).output.split())
    assert "in the running roll: replacing, at: Evict pods" in said
    assert ": budget shop/web needs 5 healthy pods" in said


def test_a_node_that_has_replaced_another_is_not_told_to_be_at_it(run: Run, target: FakeTarget) -> None:
    old, new = target.world.nodes()[:2]
    history = History().done("Launch the replacement", replacement=new.instance)
    history.done("Wait for the replacement", replacement_node=new.name).done("Terminate the instance")
    target.fake.add(NODE, f"{old.instance}-roll-1", history, "SUCCEEDED")
    target.fake.add(ROLL, "roll-1", begun(planned(old.instance), {old.instance: old.name}))
    said = " ".join(run("explain", new.name).output.split())
    assert f"it has replaced {old.name} in the running roll" in said
    assert "Terminate" not in said


def test_what_is_not_there_cannot_be_explained(run: Run) -> None:
    assert run("explain", "nobody").exit_code == Exit.NOT_FOUND


# What goes wrong


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccessDenied("Cannot list nodes: forbidden."), Exit.DENIED),
        (Transient("The API server cannot be reached."), Exit.NOT_FOUND),
        (CommandError("Which cluster?", Exit.USAGE), Exit.USAGE),
        (ValueError("a bug"), Exit.FAILED),
    ],
)
def test_whatever_goes_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, run: Run, target: FakeTarget, error: Exception, code: Exit
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr(target.world, "nodes", failing)
    done = run("plan")
    assert done.exit_code == code
    assert done.stderr.startswith("error: ")
    assert str(error) in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
