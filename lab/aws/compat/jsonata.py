"""JSONata as Step Functions evaluates it, on the jsonata-python package.

moto's interpreter has no JSONata engine, and writes variables into the text of the expression; here they are bound as
values, so no value can break an expression, and each expression is parsed once.
"""

import copy
import functools
import hashlib
import json
import random
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from jsonata.utils import Utils

UNDEFINED = object()
"""What `evaluate` answers where JSONata has no value at all (`null` is a value: None)."""

_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_NAMES = re.compile(r"\$([A-Za-z0-9_]+)")
_parsing = threading.Lock()


class JsonataError(Exception):
    """An expression that does not parse, does not evaluate, or gives something that is not JSON."""


def names_in(expression: str) -> frozenset[str]:
    """Every variable name that `expression` could mean, without the dollar sign; too many does no harm."""
    return frozenset(_NAMES.findall(expression))


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """The value of `expression`, as plain JSON values that share nothing with `variables`; or UNDEFINED.

    Step Functions' own functions ($partition, $range, $hash, $random, $uuid, $parse) are there, $eval is not.
    Raises JsonataError.
    """
    try:
        program = copy.copy(_parse(expression))
        program.environment = program.create_frame(_functions())
        # The library keeps the running expression per thread, and takes $now() and $millis() from there.
        Jsonata.CURRENT.jsonata = program
        result = program.evaluate(None, {name: to_jsonata(value) for name, value in variables.items()})
        return UNDEFINED if result is None else _to_json(result)
    except JsonataError:
        raise
    except Exception as error:  # the library raises JException, and whatever Python raises inside it
        raise JsonataError(str(error) or type(error).__name__) from error


def aws_timestamp(moment: datetime) -> str:
    """UTC with milliseconds and `Z`, as Step Functions writes times."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_jsonata(value: Any) -> Any:
    """A copy of a JSON value in which null is the library's own null (None would be undefined to it)."""
    match value:
        case None:
            return Utils.NULL_VALUE
        case dict():
            return {key: to_jsonata(member) for key, member in value.items()}
        case list() | tuple():
            return [to_jsonata(member) for member in value]
        case datetime():
            return aws_timestamp(value)
        case _:
            return value


def _to_json(value: Any) -> Any:
    if value is Utils.NULL_VALUE:
        return None
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {key: _to_json(member) for key, member in value.items()}
    if isinstance(value, list):
        # By index: iterating the library's ranges leaves out their last member.
        return [_to_json(value[index]) for index in range(len(value))]
    raise JsonataError("returned an unsupported result type")


@functools.lru_cache(maxsize=4096)
def _parse(expression: str) -> Any:
    with _parsing:
        program = Jsonata(expression)
    program.set_output_convert_nulls(False)
    program.set_validate_input(False)
    return program


@functools.lru_cache(maxsize=1)
def _functions() -> Any:
    frame = Jsonata.Frame(Jsonata.static_frame)
    functions: dict[str, Callable[..., Any]] = {
        "partition": _partition,
        "range": _range,
        "hash": _hash,
        "random": _random,
        "uuid": lambda: str(uuid.uuid4()),
        "parse": lambda text: to_jsonata(json.loads(text)),
        "eval": _no_eval,
    }
    for name, function in functions.items():
        frame.bind(name, Jsonata.JLambda(function))
    return frame


def _partition(array: list[Any], size: int) -> list[list[Any]]:
    if size < 1:
        raise JsonataError("$partition needs a size of one or more")
    return [array[start : start + size] for start in range(0, len(array), size)]


def _range(first: int, last: int, step: int) -> list[int]:
    if not step:
        raise JsonataError("$range needs a step other than zero")
    return list(range(first, last + (1 if step > 0 else -1), step))


def _hash(text: str, algorithm: str) -> str:
    if algorithm not in _HASHES:
        raise JsonataError(f"$hash knows {sorted(_HASHES)}, not {algorithm}")
    return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()


def _random(seed: float | None = None) -> float:
    return (random.Random(seed) if seed is not None else random).random()  # noqa: S311 (JSONata's $random, which makes no secrets)


def _no_eval(*_: Any) -> Any:
    raise JException("Step Functions has no $eval")
