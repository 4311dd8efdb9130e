"""The flow engine: one epoll set with plain callbacks, driven where Trio would sleep (`drive`).

```
round: every ready descriptor's callback; due timers; what was posted; what was put off to the round's end,
       which is where output leaves; what nobody waits for
```

Where many descriptors are ready at once they have their turns by source (`poll`), and the round is cut off
after a millisecond or two, or after half of one where others become ready beside a crowd: what is left is
ready in the next.

A callback that raises is a bug of its flow: the flow's `abandon` is called, `on_bug` hears of it, and the
engine goes on.

Everything here belongs to the thread that runs Trio. The engine owns each descriptor from `watch` to
`unwatch` or `forget`; the registered mask is level-triggered, and EPOLLERR and EPOLLHUP are always
reported.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sized
from os import sched_yield
from typing import Final

from ztunnel.flow.buffer import Block, Blocks
from ztunnel.flow.expire import LastWords
from ztunnel.flow.forget import TimeWait
from ztunnel.flow.held import Share
from ztunnel.flow.pieces import Pieces
from ztunnel.flow.poll import Poll
from ztunnel.flow.probe import HalfClosed
from ztunnel.flow.timers import Timer, Timers

IDLE_SECONDS: Final = 0.001
BREATH_SECONDS: Final = 0.008
"""How long flows may keep others waiting while they are busy."""

ROUND_SECONDS: Final = 0.001
"""How long what is ready may take of a round: the rest waits for the next."""

UNORDERED_SECONDS: Final = 0.002
"""The same where a few are ready, in the order of the kernel: to find out whose turn it is costs 2 %."""

LOOK_SECONDS: Final = 0.0005
"""How often a round in which a crowd has its turns looks whether others are ready."""

YIELD_SECONDS: Final = 0.001
"""After a round that took longer, and in which flows came or went, those run who wait for this CPU: mostly
whom it has woken up. Among flows that stay it would cost 4 % of 256 connections."""

Ready = Callable[[int], None]
Bug = Callable[[BaseException], None]


class Engine:
    """Callbacks for descriptors, timers, round ends and posts, all in one thread.

    Attributes:
        now: monotonic seconds at the start of this round; stale between rounds.
        number: of this round; they are counted.
        clock: monotonic seconds.
        interrupted: set by a callback to end `carry`.
        wake: ends the sleep of whoever drives the engine; None while it is awake.
        given_up: connections whose caller had gone before they were taken up; they are counted.
        blocks: spare blocks for whoever gathers output within a round.
        inbox, plain: memory for what a callback reads and decrypts; empty again when the callback returns.
        half_closed: sockets that flows only write to any more.
        time_wait: connections to applications, of which nothing is to stay.
        last_words: sockets of flows that are over but for last bytes.
        pieces: work of which a little is done in each round.
    """

    def __init__(self, on_bug: Bug, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_bug = on_bug
        self.clock = clock
        self._poll = Poll()
        self._ready: dict[int, Ready] = {}
        self._abandon: dict[int, Bug] = {}
        self._gone: set[int] = set()
        self._ends: list[Callable[[], None]] = []
        self._afterwards: list[Callable[[], None]] = []
        self._posted: list[Callable[[], None]] = []
        self._later: list[Callable[[], None]] = []
        self._timers = Timers()
        self.wake: Callable[[], None] | None = None
        self.interrupted = False
        self.now = clock()
        self.number = 0
        self.given_up = 0
        self.blocks = Blocks()
        self.inbox = Block()
        self.plain = Block()
        self.half_closed = HalfClosed(self.after)
        self.time_wait = TimeWait(self.after)
        self.last_words = LastWords(self.after)
        self.pieces = Pieces(self.next_round)

    def close(self) -> None:
        """Let go of the epoll set. Descriptors still watched stay open: they are their flows' to close."""
        self._poll.close()
        self._ready.clear()
        self._abandon.clear()

    def watch(self, fd: int, events: int, ready: Ready, abandon: Bug, share: Share | None = None) -> None:
        """Call `ready(mask)` whenever one of `events` (EPOLLIN, EPOLLOUT; 0 for errors only) holds.

        `abandon(bug)` is called when `ready` raised: it closes the flow, whatever state it is in. `share` is
        whose it is, beside whose others it waits for its turn; None: nobody else's.
        """
        self._poll.register(fd, events, share)
        self._ready[fd] = ready
        self._abandon[fd] = abandon

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for other events on a watched descriptor."""
        self._poll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Give the descriptor back: no callback after this, not even for what is ready in this round."""
        self._poll.unregister(fd)
        self._leave(fd)

    def forget(self, fd: int) -> None:
        """As `unwatch`, for a descriptor that the caller closes at once: then the kernel takes it out by
        itself."""
        self._poll.forget(fd)
        self._leave(fd)

    def _leave(self, fd: int) -> None:
        del self._ready[fd]
        del self._abandon[fd]
        self._gone.add(fd)

    def next_round(self, callback: Callable[[], None]) -> None:
        """Call back once in the next round, after what is ready then: for work that is done in parts, so
        that others have their turn between them."""
        self._later.append(callback)
        self._wake()

    def let_go(self, sock: socket.socket | None) -> None:
        """A flow has ended at this socket: nothing is to be done for it any more."""
        self.half_closed.discard(sock)
        self.time_wait.drop(sock)
        self.last_words.discard(sock)

    def at_round_end(self, callback: Callable[[], None]) -> None:
        """Call back once, when everything that is ready in this round has been handled."""
        self._ends.append(callback)
        self._wake()

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Call back once, when all that this round has to send has left: for what nobody waits for."""
        self._afterwards.append(callback)
        self._wake()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once in `seconds`; the timer can be cancelled."""
        when = self.clock() + seconds
        timer = self._timers.add(when, callback)
        if self._timers.next_at == when:
            self._wake()
        return timer

    def post(self, callback: Callable[[], None]) -> None:
        """Call back soon, from the engine: for code of Trio tasks, and for callbacks that must not nest."""
        self._posted.append(callback)
        self._wake()

    def _wake(self) -> None:
        if self.wake is not None:
            self.wake()

    @property
    def has_calls(self) -> bool:
        """Whether something is to be called without waiting for anything."""
        return bool(self._ends or self._posted or self._afterwards or self._later)

    @property
    def next_timer(self) -> float:
        """When the next timer is due, in monotonic seconds; infinity without one."""
        return self._timers.next_at

    def fileno(self) -> int:
        """The epoll set: readable when a descriptor is ready."""
        return self._poll.fileno()

    def carry(self, until: float, tasks: Sized) -> None:
        """Rounds, each of which waits until there is something to do, until one ends at `until` (monotonic
        seconds) or later, a callback sets `interrupted`, or callbacks have made `tasks`: these wait until
        nothing is ready for a millisecond, but only as long as flows may keep them waiting."""
        busy, since = True, 0.0
        while not self.interrupted:
            now = self.clock()
            if now >= until:
                return
            if len(tasks) == 0:
                since = 0.0
                busy = self.round(max(min(until, self._timers.next_at) - now, 0.0))
                continue
            since = since or now
            if not busy or now - since >= BREATH_SECONDS:
                return
            busy = self.round(IDLE_SECONDS)

    def rounds(self, wait_seconds: float, until: float) -> bool:
        """Rounds, of which the first waits up to `wait_seconds`, until nothing is ready for a millisecond.

        Returns:
            True if that has not come about when one ends at `until` (monotonic seconds) or later.
        """
        while self.round(wait_seconds) or not wait_seconds:
            wait_seconds = IDLE_SECONDS
            if self.now >= until:
                return True
        return False

    def round(self, wait_seconds: float = 0.0) -> bool:
        """One round; waits up to `wait_seconds` for something to be ready. Returns whether anything was done.

        For whoever drives the engine.
        """
        wait = 0.0 if self.has_calls else wait_seconds
        poll = self._poll
        events = poll.ready(wait)
        self.now = now = self.clock()
        self.number += 1
        later, self._later = self._later, []
        self._gone.clear()
        until = now + (ROUND_SECONDS if poll.busy else UNORDERED_SECONDS)
        look_at = now + LOOK_SECONDS
        for fd, mask in events:
            if poll.busy:
                poll.served(fd)
            self._handle(fd, mask)
            clock = self.clock()
            if clock < look_at:
                continue
            if clock >= until or poll.is_waited_for(events):
                poll.leave(events, fd)
                break
            look_at = min(clock + LOOK_SECONDS, until)
        busy = bool(events)
        if later:
            busy = self._call(later)
        if self._timers.next_at <= now:
            busy = self._call(self._timers.due(now)) or busy
        while self._posted or self._ends or self._afterwards:
            busy = True
            posted, self._posted = self._posted, []
            self._call(posted)
            ends, self._ends = self._ends, []
            self._call(ends)
            afterwards, self._afterwards = self._afterwards, []
            self._call(afterwards)
        if (later or self._gone) and self.clock() - now >= YIELD_SECONDS:
            sched_yield()
        return busy

    def _handle(self, fd: int, mask: int) -> None:
        callback = self._ready.get(fd)
        # A descriptor that was closed and opened anew within this round: the event is not its own.
        if callback is None or fd in self._gone:
            return
        try:
            callback(mask)
        except Exception as bug:  # noqa: BLE001 - the boundary for bugs of flows: one flow ends, not all
            self._bug(bug, self._abandon.get(fd))

    def _call(self, callbacks: list[Callable[[], None]]) -> bool:
        for callback in callbacks:
            try:
                callback()
            except Exception as bug:  # noqa: BLE001 - as above
                self._bug(bug, None)
        return bool(callbacks)

    def _bug(self, bug: BaseException, abandon: Bug | None) -> None:
        """A flow raised: end it, then tell. Ending it may raise as well, and must not end the others."""
        try:
            if abandon is not None:
                abandon(bug)
        except Exception as second:  # noqa: BLE001 - as above
            self._on_bug(second)
        self._on_bug(bug)
