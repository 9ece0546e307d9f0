"""What `make lint` says of code that nobody uses."""

from pathlib import Path

from scripts.dead_code import UNSEEN, problems, unused


def test_a_function_that_nobody_calls_is_named(tmp_path: Path) -> None:
    package = tmp_path / "lambdas" / "eks_rolling"
    package.mkdir(parents=True)
    (package / "gate.py").write_text("def used():\n    return 1\n\n\ndef dead():\n    return used()\n")
    said = [line for line in problems(unused(tmp_path), tmp_path) if "needs no excuse" not in line]
    assert said == ["lambdas/eks_rolling/gate.py:5: function dead is used by nobody"]


def test_an_excuse_that_nothing_needs_is_named() -> None:
    said = list(problems([]))
    assert len(said) == sum(len(names) for names in UNSEEN.values())
    assert "scripts/dead_code.py: model_config is used, or gone: it needs no excuse" in said
