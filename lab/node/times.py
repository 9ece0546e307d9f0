"""Kubernetes timestamps."""

import datetime as dt


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def seconds(moment: dt.datetime) -> str:
    """A metav1.Time: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def micros(moment: dt.datetime) -> str:
    """A metav1.MicroTime."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> dt.datetime:
    """Reads either; fractions finer than microseconds are cut off. Raises ValueError."""
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    return dt.datetime.fromisoformat(f"{whole}{dot}{fraction[:6]}" if dot else whole).replace(tzinfo=dt.UTC)
