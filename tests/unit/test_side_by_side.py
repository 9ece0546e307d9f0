"""The parts of `make test` run side by side: what they print does not mix, one that fails fails all, none is left."""

import io
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.side_by_side import INTERRUPTED, Part, parts, run, with_seed
from tests.waiting import until

HELPERS = """
import pathlib, sys, time
def until(file):
    while not pathlib.Path(file).exists():
        time.sleep(0.01)
def say(line):
    print(line, flush=True)
"""


def part(name: str, script: str) -> Part:
    return Part(name, (sys.executable, "-c", HELPERS + textwrap.dedent(script)))


def ran(*wanted: Part) -> tuple[int, list[str]]:
    """The exit code, and what was printed but for commands and the verdict."""
    to = io.BytesIO()
    code = run(wanted, to)
    return code, [line for line in to.getvalue().decode().splitlines() if line.startswith("said ")]


def test_they_run_at_once_and_print_one_after_the_other(tmp_path: Path) -> None:
    """Each goes on only once the other one has begun."""
    one, other = tmp_path / "one", tmp_path / "other"
    first = part("one", f"say('said one'); open({str(one)!r}, 'w'); until({str(other)!r}); say('said one more')")
    second = part("other", f"until({str(one)!r}); say('said other'); open({str(other)!r}, 'w'); say('said it')")
    assert ran(first, second) == (0, ["said one", "said one more", "said other", "said it"])


def test_one_that_follows_begins_once_any_other_has_ended_although_that_failed(tmp_path: Path) -> None:
    """The first cannot end before it, and the last not before the first has begun."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    wanted = [
        part("1", f"open({str(first)!r}, 'w'); until({str(second)!r}); say('said 1')"),
        replace(
            part("2", f"say('said 2' + ' late' * pathlib.Path({str(third)!r}).exists()); open({str(second)!r}, 'w')"),
            follows=True,
        ),
        part("3", f"until({str(first)!r}); say('said 3'); open({str(third)!r}, 'w'); sys.exit(1)"),
    ]
    assert ran(*wanted) == (1, ["said 1", "said 2 late", "said 3"])


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_one_that_fails_fails_them_all_and_the_others_are_finished(failing: int) -> None:
    wanted = [part(str(n), f"say('said {n}'); sys.exit({int(n == failing)})") for n in range(3)]
    assert ran(*wanted) == (1, ["said 0", "said 1", "said 2"])


def test_one_that_is_killed_fails_them_all() -> None:
    assert ran(part("dies", "import os; os.kill(os.getpid(), 9)"))[0] == 1


ENDLESS = """
from pathlib import Path
from scripts import side_by_side
from tests.unit.test_side_by_side import part
side_by_side.hear_interruptions()
ends = '''
try:
    open("{}", "w")
    time.sleep(600)
except KeyboardInterrupt:
    say("said at the end")
    open("{}", "w")
'''
wanted = [part(name, ends.format(Path(name).absolute(), Path(name + "-ended").absolute())) for name in ("one", "other")]
import sys
sys.exit(side_by_side.run(wanted, sys.stdout.buffer))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_lets_each_end_what_it_began(tmp_path: Path, sent: signal.Signals) -> None:
    """Labs are ended by the tests that started them: Ctrl-C, or a job that is cancelled."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    # As in the background of a script, where Ctrl-C is ignored.
    command = ["env", "--ignore-signal=INT", sys.executable, "-c", ENDLESS]
    environment = os.environ | {"PYTHONPATH": root}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as process:
        try:
            until(lambda: (tmp_path / "one").exists() and (tmp_path / "other").exists(), "both have begun")
            process.send_signal(sent)
            said, _ = process.communicate()
        finally:
            process.kill()
    assert (process.returncode, said.splitlines().count(b"said at the end")) == (INTERRUPTED, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other", "one-ended", "other-ended"}


AT_ONCE = """
import os, signal, subprocess, sys
from scripts import side_by_side
from tests.unit.test_side_by_side import part
side_by_side.hear_interruptions()
started = []
class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        started.append(self)
        os.kill(os.getpid(), signal.{})
subprocess.Popen = Interrupted
code = side_by_side.run([part("one", "time.sleep(600)"), part("other", "")], sys.stdout.buffer)
left = [process for process in started if process.poll() is None]
for process in left:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
print(f"said {{len(left)}} of {{len(started)}} left")
sys.exit(code)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_while_one_is_started_leaves_it_not(tmp_path: Path, sent: signal.Signals) -> None:
    """It is in a session of its own: nobody else would end it."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    command = [sys.executable, "-c", AT_ONCE.format(sent.name)]
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith("said ")] == ["said 0 of 1 left"]
    assert done.returncode == INTERRUPTED


def test_a_part_hears_every_signal_that_its_starter_hears() -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    script = "import signal; say(f'said {sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))}')"
    assert ran(part("one", script)) == (0, [f"said {sorted(mask)}"])


def test_every_test_of_the_product_is_in_one_part() -> None:
    """What is not is another target's."""
    folders = {argument for each in parts(2, 16, []) for argument in each.command if argument.startswith("tests/")}
    tests = Path(__file__).resolve().parent.parent
    there = {f"tests/{file.relative_to(tests).parts[0]}" for file in tests.rglob("test_*.py")}
    assert there - folders == {f"tests/{name}" for name in ("lab", "large", "permissions", "versions")}
    assert len(parts(2, 16, [])) == 3


@pytest.mark.parametrize(
    ("cores", "gigabytes", "workers"), [(2, 24, [3, 6, 2]), (8, 64, [9, 24, 8]), (2, 3, [1, 1, 2])]
)
def test_the_machines_size_says_how_many_processes_run(cores: int, gigabytes: float, workers: list[int]) -> None:
    found = parts(cores, gigabytes, ["--scope=test"])
    assert [int(each.command[each.command.index("-n") + 1]) for each in found] == workers
    assert all("--scope=test" in each.command for each in found)


def test_one_seed_draws_all_samples() -> None:
    assert with_seed(["--sample-seed=7"]) == ["--sample-seed=7"]
    (drawn,) = with_seed([])
    assert drawn.removeprefix("--sample-seed=").isdigit()
