"""What goes wrong around a command at night: a key that is pressed at a question, two operators at once, credentials
that expire, a terminal that cannot draw, a folder that is not there; and every printed command leads back here."""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer
from rich.console import Console

from eks_rolling.errors import AccessDenied, NotFound
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.observed.marks import GROUP_MAXIMUM
from eks_rolling.roll import lock
from eks_rolling_cli import __main__ as entry
from eks_rolling_cli import cli_context, control, watching
from eks_rolling_cli.executions import Executions
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import beginning
from eks_rolling_cli.target import Options
from tests.unit.cli.conftest import Run
from tests.unit.cli.histories import History, planned
from tests.unit.cli.targets import RESTORE, ROLL, FakeTarget
from tests.unit.cli.test_screens import INSTANCES, rolling

LOCK = lock.lock_name("kube-system")

COMMAND = re.compile(r"`(eks-rolling [^`]*)`")


def hold_lock(target: FakeTarget, roll: str, **annotations: str) -> None:
    keys = {"pause": lock.PAUSE, "abort": lock.ABORT}
    target.world.put_lease(Lease(LOCK, roll, 0.0, 180.0, annotations={keys[k]: v for k, v in annotations.items()}))


def asked(target: FakeTarget) -> dict[str, str]:
    lease = target.world.lease(LOCK)
    assert lease is not None
    return dict(lease.annotations)


# Every command that is printed


@pytest.mark.parametrize(
    "words",
    [
        "plan", "plan --node node-x", "start --yes --detach", "start --node node-x --yes", "watch", "watch --once",
        "pause", "abort --yes", "rolls", "report", "orphans", "restore", "doctor",
    ],
)  # fmt: skip
def test_a_printed_command_has_the_options_that_led_here(
    run: Run, target: FakeTarget, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another profile there may be a cluster of the same name."""
    target.options = Options(cluster="demo", profile="prod eu")
    target.fake.add(ROLL, "roll-1", planned("i-1").wait("Evict pods", "budget"))
    hold_lock(target, "roll-1")
    if words in {"watch", "watch --once", "rolls", "report", "orphans"}:
        execution, history = target.fake.rolls[ROLL].pop()
        target.fake.rolls[ROLL].append((replace(execution, status="FAILED", ended=2000.0), history))
        target.world.tag_group("ng-a", {GROUP_MAXIMUM: "3"})
        target.documents["roll-1", "report.json"] = {
            "roll": "roll-1", "cluster": "demo", "outcome": "failed", "left_behind": ["group ng-a keeps its maximum"],
        }  # fmt: skip
    said = " ".join(run(*words.split()).output.split())
    printed = COMMAND.findall(said)
    assert printed or words in {"start --yes --detach", "doctor"}, said
    for command in printed:
        assert command.endswith("--cluster demo --profile 'prod eu'"), command


def test_a_plan_of_one_node_starts_a_roll_of_one_node(run: Run, target: FakeTarget) -> None:
    name = target.world.nodes()[0].name
    said = run("plan", "--node", name, "--surge", "3", "--accept", "batch-pod:Job shop/import").output
    start = f"eks-rolling start --node {name} --accept 'batch-pod:Job shop/import' --surge 3 --cluster demo"
    assert f"Start it with `{start}`." in said
    assert "eks-rolling start --force --cluster demo" in run("plan", "--force").output


def test_settings_that_are_tried_are_deployed_before_they_are_rolled_with(
    run: Run, target: FakeTarget, tmp_path: Path
) -> None:
    file = tmp_path / "eks-rolling.yaml"
    file.write_text("clusters: [{cluster: demo, surge: 5}]")
    assert "Deploy these settings (`npx cdk deploy`), then start it" in run("plan", "--settings", str(file)).output


def test_a_rollback_is_known_by_the_name_of_what_it_rolls_back() -> None:
    given = "rollback-33bacbeb-71ec-4965-a6fe-92d75f39063c_b72a8c6c-f600-4dfc-9307-051c2b36"
    assert beginning(given) == "rollback-33bacbeb"


# Questions


def test_ctrl_c_and_ctrl_d_at_a_question_are_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """Click's own word for it would be "Aborted!", which is no answer to "Abort the roll?"."""

    def pressed(*_: object, **__: object) -> bool:
        raise typer.Abort

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "confirm", pressed)
    assert cli_context.confirmed("Abort the roll?", yes=False) is False
    assert cli_context.confirmed("Abort the roll?", yes=True) is True


def test_a_closed_standard_input_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CommandError, match="add --yes") as raised:
        cli_context.confirmed("Abort the roll?", yes=False)
    assert raised.value.code is Exit.USAGE


def meanwhile(happens: Callable[[], None]) -> Callable[..., bool]:
    """Somebody who says yes, while something else happens."""

    def confirmed(_: str, *, yes: bool) -> bool:
        happens()
        return True

    return confirmed


def test_a_roll_that_somebody_approves_while_another_cancels_it_is_aborted_and_not_stopped(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: to stop a roll that has begun would leave its step half done."""
    target.fake.add(ROLL, "roll-1", planned("i-1").enter("Task", "Wait for approval"))
    monkeypatch.setattr(control, "confirmed", meanwhile(lambda: hold_lock(target, "roll-1")))
    done = run("abort", "--reason", "wrong image")
    assert (done.exit_code, target.fake.stopped) == (Exit.FINE, [])
    assert asked(target)[lock.ABORT].startswith("wrong image (ann, ")
    assert "cancelled" not in done.stderr


def test_a_roll_that_ends_while_its_end_is_asked_for_is_not_told_as_cancelled(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = target.fake.add(ROLL, "roll-1", planned("i-1"))

    def ends() -> None:
        target.fake.rolls[ROLL] = [(replace(execution, status="SUCCEEDED", ended=2000.0), History())]

    monkeypatch.setattr(control, "confirmed", meanwhile(ends))
    done = run("abort")
    assert (done.exit_code, target.fake.stopped) == (Exit.NOT_FOUND, [])
    assert "The roll roll-1 has ended meanwhile: succeeded" in done.stderr


def test_a_roll_that_took_the_lock_as_it_was_stopped_is_not_told_to_have_changed_nothing(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    stop = target.fake.stop

    def stopped(arn: str, cause: str) -> None:
        stop(arn, cause)
        hold_lock(target, "roll-1")

    monkeypatch.setattr(target.fake, "stop", stopped)
    said = " ".join(run("abort", "--yes").stderr.split())
    assert "stopped just as it began; a restore puts back what it may have changed" in said
    assert "changed nothing" not in said


def test_a_roll_that_is_about_to_end_is_neither_stopped_nor_told_to_have_changed_nothing(
    run: Run, target: FakeTarget
) -> None:
    """It gives the lock back before it reports."""
    history = planned("i-1").done("Take the lock", "the lock is held").done("Restore").enter("Task", "Report")
    target.fake.add(ROLL, "roll-1", history)
    for command, code in (("abort --yes", Exit.FINE), ("pause", Exit.NOT_FOUND), ("resume", Exit.NOT_FOUND)):
        done = run(*command.split())
        assert (done.exit_code, target.fake.stopped) == (code, [])
        assert "only reports" in " ".join(done.stderr.split())


@pytest.mark.parametrize(("left", "code"), [((), Exit.FINE), (("group ng-a keeps its maximum",), Exit.FAILED)])
def test_who_waits_for_a_roll_that_only_reports_waits_for_its_end(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...], code: Exit
) -> None:
    """With --wait the exit code says whether everything is restored."""
    history = planned("i-1").done("Take the lock", "the lock is held")
    history.done("Restore", restored=[], left_behind=list(left))
    target.fake.add(ROLL, "roll-1", history.enter("Task", "Report"))
    looks = 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            ((execution, told),) = target.fake.rolls[ROLL]
            target.fake.rolls[ROLL] = [(replace(execution, status="FAILED", error="Refused", ended=2000.0), told)]

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep, time=lambda: 2000.0))
    done = run("abort", "--yes", "--wait")
    assert (done.exit_code, looks, target.fake.stopped) == (code, 2, [])
    assert "There is nothing to abort" in done.stderr


def test_who_aborts_a_roll_does_not_wait_for_its_whole_history(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A roll of hundreds of nodes has many pages of events, and its plan says it all."""
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1")
    target.documents["roll-1", "plan.json"] = {
        "outcome": "roll", "reason": "6 outdated nodes will be replaced", "estimate": {"seconds": 1560, "waves": 3},
    }  # fmt: skip

    def read(_: str) -> list[dict[str, Any]]:
        raise AssertionError("the history was read")

    monkeypatch.setattr(target.fake, "history", read)
    done = run("abort", "--yes")
    assert (done.exit_code, lock.ABORT in asked(target), "6 outdated nodes" in done.stderr) == (Exit.FINE, True, True)


def test_who_aborts_is_told_what_and_need_not_be_able_to_read_it(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1")
    target.documents["roll-1", "plan.json"] = {
        "outcome": "roll", "reason": "6 outdated nodes will be replaced", "request": {"trigger": "bob"},
        "estimate": {"seconds": 1560, "waves": 3},
    }  # fmt: skip
    said = " ".join(run("abort").stderr.split())
    assert all(fact in said for fact in ("roll-1", "6 outdated nodes", "About 26 min", "bob", "account 123456789012"))

    def denied(*_: object) -> dict[str, Any]:
        raise AccessDenied("You may not read the bucket.")

    monkeypatch.setattr(target, "document", denied)
    assert run("abort", "--yes").exit_code == Exit.FINE
    assert lock.ABORT in asked(target)


def test_a_second_abort_keeps_the_reason_of_the_first_and_an_ending_roll_is_not_paused(
    run: Run, target: FakeTarget
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1", abort="wrong image (bob, 02:31 UTC)")
    done = run("abort", "--yes", "--reason", "me too")
    assert (done.exit_code, "is already being aborted: wrong image (bob" in done.stderr) == (Exit.FINE, True)
    paused = run("pause", "--reason", "lunch")
    assert (paused.exit_code, "it is being aborted: wrong image (bob" in paused.stderr) == (Exit.BLOCKED, True)
    assert asked(target) == {lock.ABORT: "wrong image (bob, 02:31 UTC)"}


def test_a_roll_that_is_being_aborted_is_not_told_to_go_on(run: Run, target: FakeTarget) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1", abort="wrong image (bob, 02:31 UTC)", pause="lunch")
    done = run("resume")
    assert (done.exit_code, "it is being aborted: wrong image (bob" in done.stderr) == (Exit.BLOCKED, True)


def test_who_starts_beside_a_change_that_waits_is_not_told_to_wait_for_it(run: Run, target: FakeTarget) -> None:
    """It waits for a window, and holds no lock."""
    target.fake.add(ROLL, "change-1", History().enter("Task", "Wait for the change to settle"))
    said = " ".join(run("start", "--yes", "--detach").stderr.split())
    assert "The roll change-1 waits, and has changed nothing yet" in said
    assert "`eks-rolling abort change-1 --cluster demo` cancels that one" in said
    hold_lock(target, "change-1")
    assert "this one would wait until it has ended" in " ".join(run("start", "--yes", "--detach").stderr.split())


@pytest.mark.parametrize(("holder", "code"), [("", Exit.FINE), ("another", Exit.BLOCKED)])
def test_a_restore_that_restored_nothing_does_not_say_that_all_is_as_it_was(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, holder: str, code: Exit
) -> None:
    hold_lock(target, holder)
    history = History().done("Restore", "the reason", restored=[], left_behind=[], ours=False)
    monkeypatch.setattr(
        target.fake, "start", lambda _, name, __: target.fake.add(RESTORE, name, history, "SUCCEEDED").arn
    )
    done = run("restore", "--roll", "dead")
    assert (done.exit_code, "Nothing was restored: the reason." in done.stderr) == (code, True)
    assert "Everything is as it was" not in done.output


@pytest.mark.parametrize("fault", ["TaskTimedOut", "TaskDoesNotExist"])
def test_of_two_that_answer_the_later_is_told_so(fault: str) -> None:
    kinds = {name: type(name, (Exception,), {}) for name in ("TaskTimedOut", "TaskDoesNotExist")}

    def answer(**_: object) -> None:
        raise kinds[fault]

    client = SimpleNamespace(
        send_task_success=answer, send_task_failure=answer, exceptions=SimpleNamespace(**kinds)
    )  # fmt: skip
    executions = Executions(cast(Any, client))
    with pytest.raises(NotFound, match="somebody else has given one, or it has ended"):
        executions.approve("t", {})
    with pytest.raises(NotFound, match="somebody else has given one, or it has ended"):
        executions.refuse("t", "why")


# While something is watched


def test_who_watches_when_their_credentials_expire_is_told_that_the_roll_goes_on(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    history, looks = target.fake.history, iter([True, True])

    def until_they_expire(arn: str) -> list[dict[str, Any]]:
        if next(looks, False):
            return history(arn)
        raise AccessDenied("AWS does not accept the credentials (ExpiredToken). Sign in again.")

    monkeypatch.setattr(target.fake, "history", until_they_expire)
    done = run("watch", "roll-1")
    assert done.exit_code == Exit.DENIED
    said = " ".join(done.stderr.split())
    assert "the roll roll-1 continues. `eks-rolling watch roll-1 --cluster demo` returns to it" in said
    assert said.endswith("Sign in again.")


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"abort": "wrong image"}, "the roll roll-1 ends all the same"),
        ({"pause": "lunch"}, "the roll roll-1 stays paused. `eks-rolling watch roll-1 --cluster demo` returns to it, "
         "`eks-rolling resume roll-1 --cluster demo` lets it go on"),
    ],
)  # fmt: skip
def test_who_stops_watching_is_told_what_becomes_of_the_roll(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, annotations: dict[str, str], said: str
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    hold_lock(target, "roll-1", **annotations)

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=interrupted, time=lambda: 2000.0))
    done = run("watch")
    assert done.exit_code == Exit.INTERRUPTED
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_closed_pipe_is_no_success_of_the_roll_that_is_followed(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    """`eks-rolling start --yes | head` would let a pipeline go on while the roll runs, or fails."""
    arn = target.fake.add(ROLL, "roll-1", planned("i-1")).arn
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(typer.Exit) as ended, cli_context.errors_as_sentences():
            watching.follow(cast(Any, target), arn, as_json=as_json)
    assert ended.value.exit_code == Exit.INTERRUPTED
    assert "the roll roll-1 continues" in capsys.readouterr().err


def test_who_stops_waiting_for_a_restore_is_told_that_it_goes_on(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_lock(target, "dead")

    def start(_: str, name: str, __: dict[str, object]) -> str:
        return target.fake.add(RESTORE, name, History().enter("Task", "Restore")).arn

    def interrupted(_: str) -> list[dict[str, Any]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(target.fake, "start", start)
    monkeypatch.setattr(target.fake, "history", interrupted)
    done = run("restore")
    assert done.exit_code == Exit.INTERRUPTED
    assert re.search(r"Detached: the restore restore-\S+ continues", done.stderr)


def test_what_cannot_move_its_cursor_gets_lines(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    for term, drawn in (("dumb", False), ("xterm", True)):
        console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": term})
        monkeypatch.setattr(watching, "output", console)
        shower = watching._shower(target, as_json=False, lines=False)
        assert isinstance(shower, watching._Drawn) is drawn


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (80, 50), (200, 24)])
def test_a_picture_is_no_higher_than_the_terminal(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    """Many nodes in work, each with a reason of several lines: fewer are drawn, and the rest are counted."""
    written = io.StringIO()
    console = Console(file=written, width=width, height=height, force_terminal=True)
    monkeypatch.setattr(watching, "output", console)
    seen = rolling()
    (working,) = [n for n in seen.nodes if n.instance == INSTANCES[1]]
    nodes = tuple(replace(working, instance=f"i-{i}", node=f"node-{i}.internal") for i in range(20))
    shower = watching._Drawn("platform-production", "eks-rolling start")
    lines = console.render_lines(shower._fitted(replace(seen, nodes=nodes)), pad=False)
    text = "".join(segment.text for line in lines for segment in line)
    assert len(lines) <= height
    assert "Evict pods" in text
    assert f"and {20 - text.count('internal') - text.count('node-')} replacing" in text


# Files and documents


@pytest.mark.parametrize("words", ["plan --save", "rolls --html", "report --output", "init --output"])
def test_a_file_that_cannot_be_written_is_one_sentence(
    run: Run, target: FakeTarget, tmp_path: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.fake.add(ROLL, "roll-1", planned("i-1"), "SUCCEEDED")
    target.documents["roll-1", "report.json"] = {"roll": "roll-1", "cluster": "demo", "outcome": "replaced"}
    monkeypatch.setattr(target, "text", lambda *_: "the page")
    monkeypatch.setattr("eks_rolling_cli.init.discover", lambda _: found())
    file = tmp_path / "nowhere" / "file.html"
    done = run(*words.split(), str(file))
    assert (done.exit_code, done.stderr.splitlines()[-1].startswith("error: ")) == (Exit.USAGE, True)
    assert f"{file} cannot be written: No such file or directory." in done.stderr


def found() -> Any:
    from eks_rolling_cli.finding_settings import Discovery

    return Discovery(cluster="demo")


def test_a_report_outlives_its_execution(run: Run, target: FakeTarget) -> None:
    """Step Functions forgets executions after 90 days; the bucket keeps reports."""
    target.documents["roll-1", "report.json"] = {
        "roll": "roll-1", "cluster": "demo", "outcome": "replaced", "reason": "1 of 1 nodes were replaced",
    }  # fmt: skip
    assert json.loads(run("report", "roll-1", "--json").stdout)["outcome"] == "replaced"
    gone = run("report", "roll-2")
    assert (gone.exit_code, "no roll has that name" in gone.stderr) == (Exit.NOT_FOUND, True)


def test_a_roll_that_is_forgotten_while_rolls_are_listed_keeps_no_other_from_it(
    run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.fake.add(ROLL, "old", planned("i-1"), "SUCCEEDED")
    target.fake.add(ROLL, "new", planned("i-1"), "SUCCEEDED")
    describe = target.fake.describe

    def forgotten(arn: str) -> object:
        if arn == "arn:old":
            raise NotFound("Cannot describe execution arn:old: ExecutionDoesNotExist.")
        return describe(arn)

    monkeypatch.setattr(target.fake, "describe", forgotten)
    assert [told["roll"] for told in json.loads(run("rolls", "--json").stdout)] == ["new", "old"]


def test_without_a_browser_the_page_is_named(run: Run, target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    target.documents["roll-1", "report.json"] = {"roll": "roll-1", "cluster": "demo", "outcome": "replaced"}
    monkeypatch.setattr(target, "text", lambda *_: "the page")
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    done = run("report", "roll-1", "--open")
    (page,) = re.findall(r"the page is (\S+)\.$", done.stderr, re.MULTILINE)
    assert Path(page).read_text() == "the page"


def test_what_an_encoding_lacks_is_replaced_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="latin-1")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("eks_rolling_cli.app.app", lambda: print("→ Jürgen"))
    entry.main()
    out.flush()
    assert written.getvalue().decode("latin-1") == "? Jürgen\n"


def test_completion_knows_the_commands(run: Run) -> None:
    done = run(
        env={"_EKS_ROLLING_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "eks-rolling re"}, prog_name="eks-rolling"
    )
    assert all(command in done.output for command in ("refuse", "report", "restore", "resume"))
    assert "watch" not in done.output
