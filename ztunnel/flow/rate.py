"""Rates: a bucket of points that time fills, and a bounded table of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar


class Rate(NamedTuple):
    """So many points at once, and so many a second; and how deep in debt one can be, so that what was done
    before is forgiven within a time."""

    capacity: float
    per_second: float
    most_debt: float


class Bucket:
    """Points of one spender. It may go into debt: the caller says what follows from that."""

    __slots__ = ("_at", "_capacity", "_least", "_level", "_per_second")

    def __init__(self, rate: Rate, now: float) -> None:
        self._capacity = rate.capacity
        self._per_second = rate.per_second
        self._least = -rate.most_debt
        self._level = rate.capacity
        self._at = now

    def level(self, now: float) -> float:
        """How many points there are; below zero in debt."""
        if now > self._at:
            self._level = min(self._level + (now - self._at) * self._per_second, self._capacity)
            self._at = now
        return self._level

    def take(self, points: float, now: float) -> float:
        """Take points, whether they are there or not; returns how many are left."""
        self._level = max(self.level(now) - points, self._least)
        return self._level

    def give(self, points: float) -> None:
        """Give points back."""
        self._level = min(self._level + points, self._capacity)

    def seconds_until(self, level: float, now: float) -> float:
        """How long until there are `level` points again, if none is taken."""
        return max(level - self.level(now), 0.0) / self._per_second


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, made when they are first asked for; of more than `most` the one goes that nobody has
    asked for longest. Whoever holds a value may keep it."""

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        self._most = most
        self._make = make
        self._values: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def of(self, key: K) -> V:
        """The key's value."""
        value = self._values.pop(key, None)
        if value is None:
            value = self._make()
            if len(self._values) >= self._most:
                del self._values[next(iter(self._values))]
        self._values[key] = value
        return value
