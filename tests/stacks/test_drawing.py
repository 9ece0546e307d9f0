"""docs/workflow.md shows the machines as they are."""

from scripts.draw_workflow import PAGE, page


def test_the_drawing_is_current() -> None:
    assert page() == PAGE.read_text(), "run: make drawing"
