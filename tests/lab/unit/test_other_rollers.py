import os
import subprocess
from pathlib import Path

import pytest

from lab import other_rollers
from lab.lifecycle import LabError


def test_its_kubectl_is_the_labs_with_the_flag_that_was_renamed(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    kubectl.chmod(0o755)
    path = f"{other_rollers.FOLDER}:{tmp_path}:{os.defpath}"

    done = subprocess.run(
        ["kubectl", "drain", "a node", "--ignore-daemonsets", "--delete-local-data", "--timeout=180s"],
        env={"PATH": path},
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines() == [
        "drain",
        "a node",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=180s",
    ]


def test_packages_that_cannot_be_had_are_told_with_the_way_to_compare_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "eks-rolling-update.txt"
    requirements.write_text(f"absent @ file://{tmp_path}/absent-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(other_rollers, "REPOSITORY", tmp_path)

    with pytest.raises(LabError, match=r'eks-rolling-update cannot be installed .*ROLLERS="drain eks-rolling"') as told:
        other_rollers.install(requirements)

    assert "absent" in str(told.value.details)
