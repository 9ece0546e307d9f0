"""A finding about the roll's own history: Step Functions ends an execution whose history is full."""

from collections.abc import Iterator

from eks_rolling.documents.finding import Finding, blocks
from eks_rolling.plan.estimates import HISTORY_KEPT, HISTORY_LIMIT, history_events, wave_count
from eks_rolling.settings import Settings


def history_findings(nodes: int, settings: Settings) -> Iterator[Finding]:
    """For a roll of so many nodes."""
    waves = wave_count(nodes, settings.wave, canary=settings.canary)
    events = history_events(nodes, waves, settings.bake_seconds) if nodes else 0
    if events > HISTORY_LIMIT - HISTORY_KEPT:
        yield blocks(
            "history-full",
            f"{nodes} nodes in {waves} waves",
            f"the roll's history would have about {events} of the {HISTORY_LIMIT} events that it may have, of "
            f"which {HISTORY_KEPT} are kept for pauses and holds",
            "raise the setting wave, or roll a part at a time by naming groups",
        )
