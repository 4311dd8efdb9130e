"""Turns: of what many want done, a little is done in each round of the engine, fairly.

Fair first between pods, then between the sources of a pod; and one source gets no more than a rate, however
many turns are free. So whoever wants much waits for itself, and a round stays short for everybody else. What
nothing stands before is done at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from ztunnel.flow.rate import Bucket, Rate, Recent

PER_ROUND: Final = 1
"""Opening a connection takes a few tenths of a millisecond."""

_SOURCES: Final = 4096
_PAUSED_FOR: Final = 4
"""A source that has used up its rate is paused until it has so many turns again: a timer for each would cost
more."""

Piece = Callable[[], None]


class Rounds(Protocol):
    """The engine, as far as it concerns this."""

    now: float
    number: int

    def next_round(self, callback: Callable[[], None], /) -> None:
        """Call back in the next round, after what is ready then."""

    def after(self, seconds: float, callback: Callable[[], None], /) -> object:
        """Call back in `seconds`."""


class Turns:
    """What is waiting, by pod and source; the first of each is next."""

    __slots__ = ("_buckets", "_done", "_paused", "_ready", "_round", "_rounds", "_scheduled", "_waiting")

    def __init__(self, rounds: Rounds, rate: Rate) -> None:
        """`rate` is that of each source."""
        self._rounds = rounds
        self._buckets: Recent[Hashable, Bucket] = Recent(_SOURCES, lambda: Bucket(rate, rounds.now))
        self._waiting = 0
        self._ready: dict[Hashable, dict[Hashable, deque[Piece]]] = {}
        self._paused: dict[Hashable, dict[Hashable, deque[Piece]]] = {}
        self._scheduled = False
        self._round = -1
        self._done = 0

    def __len__(self) -> int:
        return self._waiting

    def enter(self, pod: Hashable, source: Hashable, piece: Piece) -> None:
        """Do a piece for `source` when it is its turn, which may be now."""
        rounds = self._rounds
        if rounds.number != self._round:
            self._round, self._done = rounds.number, 0
        if not self._ready and self._done < PER_ROUND:
            bucket = self._buckets.of(source)
            if bucket.level(rounds.now) >= 1:
                bucket.take(1, rounds.now)
                self._done += 1
                piece()
                return
        paused = self._paused.get(pod)
        queue = paused.get(source) if paused is not None else None
        if queue is None:
            queue = self._ready.setdefault(pod, {}).setdefault(source, deque())
        queue.append(piece)
        self._waiting += 1
        self._schedule()

    def _schedule(self) -> None:
        if self._ready and not self._scheduled:
            self._scheduled = True
            self._rounds.next_round(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._rounds.number != self._round:
            self._round, self._done = self._rounds.number, 0
        try:
            while self._ready and self._done < PER_ROUND:
                self._next()
        finally:
            self._schedule()

    def _next(self) -> None:
        """One piece of the source whose turn it is, which goes to the end then; or it is paused."""
        pod = next(iter(self._ready))
        sources = self._ready.pop(pod)
        source = next(iter(sources))
        queue = sources.pop(source)
        piece = self._pull(pod, source, queue)
        if piece is not None and queue:
            sources[source] = queue
        if sources:
            self._ready[pod] = sources
        if piece is not None:
            self._waiting -= 1
            self._done += 1
            piece()

    def _pull(self, pod: Hashable, source: Hashable, queue: deque[Piece]) -> Piece | None:
        """The first of a source's; None where it has used up its rate."""
        now, bucket = self._rounds.now, self._buckets.of(source)
        if bucket.level(now) < 1:
            self._paused.setdefault(pod, {})[source] = queue
            self._rounds.after(bucket.seconds_until(_PAUSED_FOR, now), lambda: self._resume(pod, source))
            return None
        bucket.take(1, now)
        return queue.popleft()

    def _resume(self, pod: Hashable, source: Hashable) -> None:
        sources = self._paused[pod]
        queue = sources.pop(source)
        if not sources:
            del self._paused[pod]
        self._ready.setdefault(pod, {})[source] = queue
        self._schedule()
