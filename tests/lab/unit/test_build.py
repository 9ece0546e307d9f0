import fcntl
import os
import re
import threading
from pathlib import Path

import pytest

from lab.controlplane import build, toolchain
from lab.controlplane.start import PROGRAMS


@pytest.fixture(autouse=True)
def no_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EKS_ROLLING_CONTROL_PLANE", raising=False)
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("EKS_ROLLING_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    directory = tmp_path / "module"
    directory.mkdir()
    for name in ("go.mod", "go.sum", "main.go"):
        (directory / name).write_text(name)
    return directory


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "main.go", "another.go"])
def test_the_key_changes_with_every_source(module: Path, changed: str) -> None:
    before = build.build_key(module, "go1.26.8")

    (module / changed).write_text("something else")

    assert build.build_key(module, "go1.26.8") != before


def test_the_key_changes_with_the_compiler_and_with_nothing_else(module: Path) -> None:
    before = build.build_key(module, "go1.26.8")
    (module / "build.py").write_text("not Go")

    assert build.build_key(module, "go1.26.8") == before
    assert build.build_key(module, "go1.26.9") != before


def test_all_of_kubernetes_is_of_one_version() -> None:
    version = build.kubernetes_version()
    found = re.fullmatch(r"v1\.(\d+)\.(\d+)", version)
    assert found is not None
    major, patch = found.groups()
    replaced = re.findall(r"k8s\.io/\S+ => k8s\.io/\S+ (\S+)", (toolchain.MODULE / "go.mod").read_text())

    assert set(replaced) == {f"v0.{major}.{patch}"}


def test_without_a_binary_the_programs_are_not_there() -> None:
    with pytest.raises(build.NotBuiltError, match=r"python -m lab\.controlplane\.build"):
        build.programs()


@pytest.mark.parametrize("variable", ["EKS_ROLLING_CONTROL_PLANE", "KUBEBUILDER_ASSETS"])
def test_ready_made_programs_are_used_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    directory = programs_in(tmp_path / "ready", PROGRAMS)
    monkeypatch.setenv(variable, str(directory))

    assert build.programs() == directory
    assert build.build() == directory


def test_a_directory_that_lacks_programs_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = programs_in(tmp_path / "half", ("etcd", "kube-apiserver", "kubectl"))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(directory))

    with pytest.raises(build.BuildError, match="lacks kube-controller-manager, kube-scheduler: add them or unset it"):
        build.programs()


def test_a_go_that_is_too_old_is_passed_over_for_the_pinned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_go(tmp_path, monkeypatch, "go1.19.8")
    pinned = toolchain.find_go()

    assert tmp_path / "cache" in pinned.executable.parents
    assert re.fullmatch(r"go1\.\d+\.\d+", pinned.version)


@pytest.mark.parametrize("version", ["go1.26.0", "go1.26.8", "go1.27rc1", "go2.0"])
def test_a_go_that_is_new_enough_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    executable = use_go(tmp_path, monkeypatch, version)

    assert toolchain.find_go() == toolchain.Go(executable, version)


FAKE_GO = """#!/bin/sh
case $1 in
env) echo go1.99.0 ;;
list) echo "go: downloading k8s.io/api v0.37.2" >&2; printf 'first\nmain\n' ;;
build) printf 'first\nmain\n' >&2; FATE; while [ "$1" != -o ]; do shift; done; echo binary > "$2" ;;
esac
"""


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (directory := tmp_path / "fake").mkdir()
    executable = directory / "go"
    executable.write_text(FAKE_GO.replace("FATE", ":"))
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return executable


def test_a_build_tells_how_far_it_is_and_leaves_every_program(fake_go: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    directory = build.build(lambda progress: seen.append((progress.stage, progress.done, progress.total)))

    assert seen == [
        ("fetching", 0, 0),
        ("fetching", 0, 0),
        ("compiling", 0, 2),
        ("compiling", 1, 2),
        ("linking", 2, 2),
    ]
    assert directory == build.programs()
    assert {(directory / name).read_text() for name in PROGRAMS} == {"binary\n"}


def test_what_is_built_is_not_built_again(fake_go: Path) -> None:
    build.build()
    seen: list[build.Progress] = []

    build.build(seen.append)

    assert seen == []


def test_a_failed_build_ends_with_the_compilers_words_and_leaves_nothing_to_be_taken_for_a_binary(
    fake_go: Path,
) -> None:
    fake_go.write_text(FAKE_GO.replace("FATE", "echo main.go:1: no such thing; exit 1"))

    with pytest.raises(build.BuildError, match=r"`go build` failed:\n(.*\n)*main.go:1: no such thing"):
        build.build()

    with pytest.raises(build.NotBuiltError):
        build.programs()


def test_a_second_build_waits_for_the_first_and_takes_what_it_made(fake_go: Path) -> None:
    first = build.build()
    cache, aside = first.parent, first.parent / "aside"
    first.rename(aside)
    waiting = threading.Event()
    results: list[Path] = []

    def second() -> None:
        results.append(build.build(lambda progress: waiting.set() if progress.stage == "waiting" else None))

    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        aside.rename(first)
    thread.join(30)

    assert results == [first]


def use_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> Path:
    """Puts a Go of that version, and nothing else, on PATH."""
    (executable,) = (programs_in(tmp_path / "bin", ["go"]) / name for name in ["go"])
    executable.write_text(f"#!/bin/sh\necho {version}\n")
    monkeypatch.setenv("PATH", str(executable.parent))
    return executable


def programs_in(directory: Path, names: "tuple[str, ...] | list[str]") -> Path:
    directory.mkdir()
    for name in names:
        (directory / name).touch(mode=0o755)
    return directory
