from pathlib import Path

import pytest

from lab import prerequisites
from lab.prerequisites import Program, advice, missing


@pytest.fixture(autouse=True)
def only_ip_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ip").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prerequisites, "SYSTEM_PROGRAMS", "/nowhere")


IP = Program("ip", "iproute2")
UNSHARE = Program("unshare", "util-linux")
BWRAP = Program("bwrap", "bubblewrap", needed_by="node-agent")


def test_what_is_missing_is_named_with_its_packages() -> None:
    absent = missing(["node-agent"], [IP, UNSHARE, BWRAP])

    assert absent == [UNSHARE, BWRAP]
    assert advice(absent) == "this machine lacks unshare, bwrap: `apt-get install bubblewrap util-linux`"


def test_a_lab_without_a_part_does_not_need_the_parts_programs() -> None:
    assert missing(["etcd"], [IP, BWRAP]) == []
