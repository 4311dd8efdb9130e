"""What operators and functions of CEL make of values. What there is no value for is `Unknown`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from ztunnel.l7.telemetry.attribute import Get, Subject, Unknown, Value

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_LONGEST: Final = 64 * 1024
"""Of a text that is put together; each part stands there once, so it is never far from what came in."""


def text_in(value: Value) -> str:
    if isinstance(value, str):
        return value
    raise Unknown


def _flag(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    raise Unknown


def choose(get: Get, one: Get, other: Get) -> Get:
    return lambda subject: one(subject) if _flag(get(subject)) else other(subject)


def negate(get: Get, turned: bool) -> Get:
    return lambda subject: _flag(get(subject)) is not turned


def decided(one: Get, other: Get, by: bool) -> Get:
    """`||` (`by` True) and `&&`: the side that decides counts, whatever the other is."""

    def get(subject: Subject) -> Value:
        try:
            first = _flag(one(subject))
        except Unknown:
            if _flag(other(subject)) is by:
                return by
            raise
        return by if first is by else _flag(other(subject))

    return get


def _equal(one: Value, other: Value) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def is_among(value: Value, within: list[Get], subject: Subject) -> bool:
    return any(_equal(value, each(subject)) for each in within)


def compare(sign: str, one: Get, other: Get) -> Get:
    if sign == "==":
        return lambda subject: _equal(one(subject), other(subject))
    if sign == "!=":
        return lambda subject: not _equal(one(subject), other(subject))
    less, same = sign[0] == "<", len(sign) == 2

    def get(subject: Subject) -> Value:
        order = _order(one(subject), other(subject))
        return same if order == 0 else (order < 0) is less

    return get


def _order(one: Value, other: Value) -> int:
    """Negative, zero or positive. Raises Unknown: they are not of one kind."""
    if isinstance(one, str) and isinstance(other, str):
        return (one > other) - (one < other)
    if isinstance(one, timedelta) and isinstance(other, timedelta):
        return (one > other) - (one < other)
    if isinstance(one, bool) or isinstance(other, bool):
        raise Unknown
    if isinstance(one, int | float) and isinstance(other, int | float):
        return (one > other) - (one < other)
    raise Unknown


def calculate(sign: str, one: Get, other: Get, negative: bool = False) -> Get:
    def get(subject: Subject) -> Value:
        left, right = one(subject), other(subject)
        if negative and isinstance(right, float):
            return -right
        return _calculated(sign, left, right)

    return get


def _calculated(sign: str, left: Value, right: Value) -> Value:
    if isinstance(left, str) and isinstance(right, str) and sign == "+":
        if len(left) + len(right) > _LONGEST:
            raise Unknown
        return left + right
    if isinstance(left, bool) or isinstance(right, bool):
        raise Unknown
    if isinstance(left, int) and isinstance(right, int):
        return _whole(sign, left, right)
    if isinstance(left, float) and isinstance(right, float):
        return _real(sign, left, right)
    raise Unknown


def _whole(sign: str, left: int, right: int) -> int:
    """Of 64 bits; division is towards zero. Raises Unknown: more than these, or by zero."""
    if sign == "+":
        value = left + right
    elif sign == "-":
        value = left - right
    elif sign == "*":
        value = left * right
    else:
        if not right:
            raise Unknown
        value = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        if sign == "%":
            value = left - value * right
    if not _LEAST <= value <= _MOST:
        raise Unknown
    return value


def _real(sign: str, left: float, right: float) -> float:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    if sign == "/" and right:
        return left / right
    raise Unknown


def is_there(get: Get, subject: Subject) -> bool:
    try:
        get(subject)
    except Unknown:
        return False
    return True


def as_text(value: Value) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.9f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _to_text(value: Value) -> Value:
    found = as_text(value)
    if found is None:
        raise Unknown
    return found


def _to_int(value: Value) -> Value:
    try:
        if isinstance(value, str) and len(value) <= 20:
            return int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST:
            return int(value)
    except ValueError as error:
        raise Unknown from error
    raise Unknown


def _to_double(value: Value) -> Value:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value)
    except ValueError as error:
        raise Unknown from error
    raise Unknown


FUNCTIONS: Final[dict[str, Callable[[Value], Value]]] = {
    "size": lambda value: len(text_in(value)),
    "string": _to_text,
    "int": _to_int,
    "double": _to_double,
}
METHODS: Final[dict[str, Callable[[str, str], Value]]] = {
    "startsWith": lambda text, other: text.startswith(other),
    "endsWith": lambda text, other: text.endswith(other),
    "contains": lambda text, other: other in text,
    "matches": lambda text, other: False,
    "lowerAscii": lambda text, other: text.lower() if text.isascii() else text,
    "upperAscii": lambda text, other: text.upper() if text.isascii() else text,
    "size": lambda text, other: len(text),
}
WITHOUT: Final = frozenset(("lowerAscii", "upperAscii", "size"))
