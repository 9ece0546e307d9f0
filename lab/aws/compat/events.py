"""Corrections to moto's EventBridge: how patterns match."""

from typing import Any

from moto.events.models import UNDEFINED, EventPattern

from lab.aws.compat.registry import around, correction


@correction
def patterns_match_leaves() -> None:
    """AWS flattens an event to its leaves: `exists` and values match those alone, so a field that is an object does not
    exist for a pattern, and of a list every element counts, objects in it by their own fields; moto finds objects."""

    def flatten(node: Any, prefix: str = "", result: dict[str, Any] | None = None) -> dict[str, Any]:
        leaves: dict[str, Any] = {} if result is None else result
        if isinstance(node, dict):
            for name, value in node.items():
                flatten(value, f"{prefix}.{name}" if prefix else name, leaves)
        elif isinstance(node, list):
            for value in node:
                flatten(value, prefix, leaves)
        elif prefix in leaves:
            known = leaves[prefix]
            leaves[prefix] = [*(known if isinstance(known, list) else [known]), node]
        else:
            leaves[prefix] = node
        return leaves

    def matches(original: Any, item: Any, pattern: dict[str, Any]) -> bool:
        if pattern == {"exists": False}:
            return item is UNDEFINED
        return bool(original(item, pattern))

    EventPattern._flatten_dict = staticmethod(flatten)
    around(EventPattern, "_does_item_match_named_filter", matches)
