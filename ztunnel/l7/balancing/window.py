"""How many there were of something a short while ago, in constant memory (Envoy counts what its retry budget
is of in tenths of the interval, too)."""

from __future__ import annotations

from typing import Final

_SLOTS: Final = 10


class Window:
    """Those of the last so many seconds, give or take a tenth of them.

    Attributes:
        seconds: how far it looks back; more than nothing.
    """

    __slots__ = ("_counts", "_last", "_total", "_width", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._width = seconds / _SLOTS
        self._counts = [0] * _SLOTS
        self._total = 0
        self._last = 0

    def add(self, now: float) -> None:
        """One more."""
        self._move(now)
        self._counts[self._last % _SLOTS] += 1
        self._total += 1

    def count(self, now: float) -> int:
        """How many there were."""
        self._move(now)
        return self._total

    def _move(self, now: float) -> None:
        slot = int(now / self._width)
        for each in range(max(self._last, slot - _SLOTS) + 1, slot + 1):
            self._total -= self._counts[each % _SLOTS]
            self._counts[each % _SLOTS] = 0
        self._last = max(self._last, slot)
