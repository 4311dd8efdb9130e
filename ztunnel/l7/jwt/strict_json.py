"""JSON of strangers, read so that no two readers can take it for different things.

Refused, beside what is no JSON: a name that stands twice in an object, numbers that JSON has not (NaN), what
is no UTF-8, what is nested too deeply, and what is no object."""

from __future__ import annotations

import json
from typing import Any


def read_object(untrusted: bytes) -> dict[str, Any]:
    """The object that it is.

    Raises:
        ValueError: it is none, or one of those above.
    """
    try:
        found = json.loads(
            untrusted.decode(), object_pairs_hook=_once, parse_constant=_refused, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:32]} is too large")
    return value
