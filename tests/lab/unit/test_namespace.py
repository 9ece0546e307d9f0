from pathlib import Path

import pytest

from lab import namespace

APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        (APPARMOR, "0", "perhaps because a container confines it"),
    ],
)
def test_a_refusal_of_user_namespaces_comes_with_what_helps(tmp_path: Path, name: str, value: str, remedy: str) -> None:
    sysctl = tmp_path / name
    sysctl.parent.mkdir()
    sysctl.write_text(f"{value}\n")

    sentence = namespace.remedy(tmp_path)

    assert remedy in sentence
    assert "\n" not in sentence


def test_an_ordinary_user_without_user_namespaces_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "_works", lambda options: "--user" not in options)
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(namespace.NamespaceError, match="no user namespaces, which the lab needs"):
        namespace.create_command(["true"])


def test_root_does_without_user_namespaces_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "_works", lambda options: "--user" not in options)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    assert "--user" not in namespace.create_command(["true"])
