"""Joins two sockets of one flow: what one sends the other gets, with half-close both ways and bounded memory.

Each direction is a `_Way`. Its states, by what it waits for:

```
reading ── source gave EOF ──> shut (target has had SHUT_WR)
   │ ^
   v │ the target took the rest
writing (the source is not read: its sender feels the window close)
```
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.buffer import Backlog
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts

READ_BYTES = 200_000
_RESET = struct.pack("ii", 1, 0)
_PARKED = 1 << 40

OnEnd = Callable[[ConnectionFailed | None], None]


def close_with_reset(sock: socket.socket) -> None:
    """Close so that the other end sees a reset instead of an orderly end: bytes may be missing."""
    # Not a TCP socket, or gone already: then a plain close has to do.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def _over(mask: int) -> None:
    """Nothing is to be done for an end."""


class _End:
    """One socket of the flow, with what still has to be written to it."""

    __slots__ = ("backlog", "events", "fd", "reading", "ready", "sock", "writable")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.backlog = Backlog()
        self.events = _PARKED
        self.reading = True
        self.writable = True
        self.ready: Callable[[int], None] = _over


class Splice:
    """A flow between two sockets; both belong to it until it has ended, and are closed then."""

    __slots__ = ("_counts", "_engine", "_inbox", "_on_end", "_opener", "_target")

    def __init__(self, engine: Engine, ends: tuple[_End, _End], counts: Counts, on_end: OnEnd) -> None:
        self._engine = engine
        self._opener, self._target = ends
        self._counts = counts
        self._on_end: OnEnd | None = on_end
        self._inbox = engine.inbox.view[:READ_BYTES]
        for near, far in ((self._opener, self._target), (self._target, self._opener)):
            near.ready = self._ready_of(near, far)
            self._interest(near, EPOLLIN)

    def abort(self, error: ConnectionFailed) -> None:
        """End now; both sides see a reset. Nothing happens if the flow has ended already."""
        self._finish(error, reset=True)

    def _abandon(self, bug: BaseException) -> None:
        self._finish(ConnectionFailed(f"internal error: {bug!r}"), reset=True)

    def _ready_of(self, near: _End, far: _End) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            if mask & EPOLLOUT and near.backlog:
                self._flush(near, far)
            if mask & ~EPOLLOUT and self._on_end is not None:
                if near.events & EPOLLIN:
                    self._pass_on(near, far)
                elif mask & EPOLLERR:
                    self._finish(None, reset=True)
                elif mask & EPOLLHUP:
                    self._park(near)

        return ready

    def _pass_on(self, near: _End, far: _End) -> None:
        """Read once, write at once; what `far` does not take stops the reading of `near`."""
        inbox = self._inbox
        try:
            count = near.sock.recv_into(inbox)
        except BlockingIOError:
            return
        except OSError:
            self._finish(None, reset=True)
            return
        if not count:
            near.reading = False
            self._interest(near, near.events & ~EPOLLIN)
            if not far.backlog:
                self._shut(near, far)
            return
        if near is self._opener:
            self._counts.up += count
        else:
            self._counts.down += count
        try:
            sent = far.sock.send(inbox[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._finish(None, reset=True)
            return
        if sent < count:
            far.backlog.append(inbox[sent:count])
            self._interest(near, near.events & ~EPOLLIN)
            self._interest(far, far.events | EPOLLOUT)

    def _flush(self, near: _End, far: _End) -> None:
        """`near` takes bytes again; when it has taken all, `far` is read again, or its end passed on."""
        backlog = near.backlog
        while backlog:
            try:
                with backlog.head() as head:
                    sent = near.sock.send(head)
            except BlockingIOError:
                return
            except OSError:
                self._finish(None, reset=True)
                return
            backlog.drop(sent)
        self._interest(near, near.events & ~EPOLLOUT)
        if far.reading:
            self._interest(far, far.events | EPOLLIN)
        else:
            self._shut(far, near)

    def _shut(self, near: _End, far: _End) -> None:
        """`near` has sent its last byte and `far` has taken it: pass the half-close on."""
        far.writable = False
        if not near.writable:
            self._finish(None, reset=False)
            return
        try:
            far.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._finish(None, reset=True)

    def _park(self, end: _End) -> None:
        """Both ways of the socket are shut, and it is not its turn to be read: EPOLLHUP would not stop
        coming."""
        end.events = _PARKED
        self._engine.unwatch(end.fd)

    def _interest(self, end: _End, events: int) -> None:
        if events == end.events:
            return
        if end.events == _PARKED:
            self._engine.watch(end.fd, events & ~_PARKED, end.ready, self._abandon)
        else:
            self._engine.rewatch(end.fd, events)
        end.events = events & ~_PARKED

    def _finish(self, error: ConnectionFailed | None, reset: bool) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        for end in (self._opener, self._target):
            end.ready = _over  # what it was holds the splice: a cycle, the garbage collector's to find
            if end.events != _PARKED:
                self._engine.forget(end.fd)
            if reset:
                close_with_reset(end.sock)
            else:
                end.sock.close()
        on_end(error)


def splice(
    engine: Engine, opener: socket.socket, target: socket.socket, counts: Counts, on_end: OnEnd
) -> Splice:
    """Take over both nonblocking sockets and carry bytes between them until both ways have ended.

    `on_end(None)` after an orderly end and after a reset by either side (Istio's ztunnel counts those as
    success); `on_end(error)` after `abort(error)`.
    """
    return Splice(engine, (_End(opener), _End(target)), counts, on_end)
