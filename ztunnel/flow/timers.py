"""Timers: callbacks at a time, in a heap from which cancelled ones are swept."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable
from typing import Protocol

_SWEEP_ABOVE = 256


def _nothing() -> None:
    """What a timer that is over calls."""


class Timer:
    """One callback at one time (monotonic seconds). `cancel` may be called at any time, twice as well."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], None]) -> None:
        self._timers: Timers | None = timers
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        """The callback will not be called any more, and what it holds is let go of: the heap may keep the
        timer for long."""
        timers, self._timers = self._timers, None
        self.callback = _nothing
        if timers is not None:
            timers.cancelled()

    @property
    def live(self) -> bool:
        """Whether the callback is still to come."""
        return self._timers is not None

    def spend(self) -> Callable[[], None]:
        """The heap gives this timer out: cancelling it means nothing from now on. Returns what to call."""
        self._timers = None
        callback, self.callback = self.callback, _nothing
        return callback


class Timers:
    """A heap of timers. Most deadlines are cancelled long before they come, so the heap is swept when more
    than half of it is dead."""

    __slots__ = ("_dead", "_heap", "_sequence", "next_at")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._dead = 0
        self.next_at = math.inf

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once at `when`, or as soon after as somebody asks for what is due."""
        timer = Timer(self, when, callback)
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, timer))
        if when < self.next_at:
            self.next_at = when
        return timer

    def cancelled(self) -> None:
        """One of the heap's timers died."""
        self._dead += 1
        if self._dead > _SWEEP_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].live]
            heapq.heapify(self._heap)
            self._dead = 0
            self.next_at = self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[Callable[[], None]]:
        """The callbacks whose time has come, earliest first; they leave the heap."""
        ready = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            if timer.live:
                ready.append(timer.spend())
            else:
                self._dead -= 1
        self.next_at = heap[0][0] if heap else math.inf
        return ready


class Rounds(Protocol):
    """The engine, as far as it concerns `Deadlines`."""

    clock: Callable[[], float]

    def after(self, seconds: float, callback: Callable[[], None], /) -> Timer:
        """Call back in `seconds`."""

    def post(self, callback: Callable[[], None], /) -> None:
        """Call back soon."""


class Deadlines:
    """Deadlines that nearly all are taken back, with one timer for all of them: it looks at them when the
    first would be due, and a timer for each would stand in the heap until that is swept."""

    __slots__ = ("_rounds", "_timer", "_waiting")

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._waiting: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def set(self, owner: Hashable, seconds: float, callback: Callable[[], None]) -> None:
        """Call back in `seconds`, unless `owner` takes it back before."""
        when = self._rounds.clock() + seconds
        self._waiting[owner] = when, callback
        timer = self._timer
        if timer is None or when < timer.when:
            if timer is not None:
                timer.cancel()
            self._timer = self._rounds.after(seconds, self._look)

    def drop(self, owner: Hashable) -> None:
        """Its callback will not be called; harmless where there is none."""
        self._waiting.pop(owner, None)

    def _look(self) -> None:
        self._timer = None
        now, first = self._rounds.clock(), math.inf
        for owner, (when, callback) in tuple(self._waiting.items()):
            if when <= now:
                del self._waiting[owner]
                # Each by itself: a bug in one is none of the others'.
                self._rounds.post(callback)
            elif when < first:
                first = when
        if first < math.inf:
            self._timer = self._rounds.after(first - now, self._look)
