"""Every option of the settings file, read out of the models that check it: for messages and for the docs' table."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `path` is like `clusters[].windows[].start`; `default` is JSON, "" where it must be given."""

    path: str
    type: str
    default: str
    allowed: str
    meaning: str
    example: str = ""


def options(model: type[BaseModel]) -> list[Option]:
    """The model's options in their order, those of models in it after the field that holds them."""
    schema = model.model_json_schema()
    return list(_options(schema, schema.get("$defs", {}), ""))


def _options(schema: Json, models: dict[str, Json], prefix: str) -> Iterator[Option]:
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        path, kind = f"{prefix}{name}", _resolved(field, models)
        items = _resolved(kind.get("items", {}), models)
        default = "" if name in required else json.dumps(_default(field, kind))
        examples = kind.get("examples") or items.get("examples") or [""]
        meaning = field.get("description", "")
        yield Option(path, _type(kind, items), default, _allowed(kind, items), meaning, str(examples[0]))
        if "properties" in kind:
            yield from _options(kind, models, f"{path}.")
        elif "properties" in items:
            yield from _options(items, models, f"{path}[].")


def _resolved(field: Json, models: dict[str, Json]) -> Json:
    """What a field is, its reference followed and `null` left out; what is said beside the reference stays."""
    choices = [c for c in field.get("anyOf", ()) if c.get("type") != "null"]
    if choices:
        field = {**choices[0], **{k: v for k, v in field.items() if k != "anyOf"}}
    reference = field.get("$ref", "")
    return {**models[reference.rpartition("/")[2]], **field} if reference else field


def _default(field: Json, kind: Json) -> Any:
    """A default that is a whole model is described by its own options."""
    return {} if "properties" in kind and field.get("default") is not None else field.get("default")


def _type(kind: Json, items: Json) -> str:
    if "enum" in kind:
        return "text" if isinstance(kind["enum"][0], str) else "whole number"
    match kind.get("type"):
        case "array":
            return "list" if "properties" in items else f"list of {_type(items, {})}s"
        case "object":
            return "mapping"
        case other:
            return {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}[str(other)]


def _allowed(kind: Json, items: Json) -> str:
    if choices := kind.get("enum") or items.get("enum"):
        return "one of " + ", ".join(str(choice) for choice in choices)
    parts = []
    if (least := kind.get("minimum")) is not None:
        most = kind.get("maximum")
        parts.append(f"{least} to {most}" if most is not None else f"at least {least}")
    if kind.get("minLength") or kind.get("minItems"):
        parts.append("not empty")
    return ", ".join(parts)
