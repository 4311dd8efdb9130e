"""Whole numbers in manifests that count something."""

from __future__ import annotations

from ztunnel.state.field import Field

_MOST = 1 << 32


def read_count(parent: Field | None, name: str, default: int = 0) -> int:
    """A number that is not negative and fits 32 bits; `default` where it is absent, or `parent` is."""
    place = parent.sub(name) if parent is not None else None
    number = place.as_number() if place is not None else default
    if place is not None and number is not None and not 0 <= number < _MOST:
        place.fault("must be a number from 0 to 4294967295")
        return default
    return default if number is None else number


def read_share(parent: Field, name: str, default: float) -> float:
    """A percentage with decimals: a number from 0 to 100."""
    place = parent.sub(name)
    number = place.as_decimal() if place is not None else default
    if place is not None and number is not None and not 0 <= number <= 100:
        place.fault("a percentage is from 0 to 100")
        return default
    return default if number is None else number


def read_percent(parent: Field, name: str, default: int) -> int:
    """A number from 0 to 100."""
    place, number = parent.sub(name), read_count(parent, name, default)
    if place is not None and number > 100:
        place.fault("a percentage is from 0 to 100")
        return default
    return number
