"""The timers of one exchange: a wait before a try, a time for each try, and one for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will be called."""

    def cancel(self) -> None:
        """It is not to be called any more."""


After = Callable[[float, Callable[[], None]], Timer]
"""Calls back in so many seconds."""


class Deadlines:
    """Those of one exchange."""

    __slots__ = ("_after", "_all", "_try", "_wait")

    def __init__(self, after: After) -> None:
        self._after = after
        self._all: Timer | None = None
        self._try: Timer | None = None
        self._wait: Timer | None = None

    def wait(self, seconds: float, then: Callable[[], None]) -> None:
        """Do something later."""
        self._wait = self._after(seconds, then)

    def begin(self, seconds: float, over: Callable[[], None]) -> None:
        """All tries together may take so long from now on; 0: as long as they like."""
        if seconds and self._all is None:
            self._all = self._after(seconds, over)

    def begin_try(self, seconds: float, over: Callable[[], None]) -> None:
        """This try may."""
        if seconds and self._try is None:
            self._try = self._after(seconds, over)

    def end_try(self) -> None:
        """It has been answered, or lost."""
        timer, self._try = self._try, None
        if timer is not None:
            timer.cancel()

    def end(self) -> None:
        """Nothing is waited for any more."""
        self.end_try()
        for timer in (self._all, self._wait):
            if timer is not None:
                timer.cancel()
        self._all = self._wait = None
