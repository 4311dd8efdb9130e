"""Joins two sockets of one flow: what one sends the other gets, with half-close both ways and bounded memory.

Each direction is a `_Way`. Its states, by what it waits for:

```
reading ── source gave EOF ──> shut (target has had SHUT_WR)
   │ ^
   v │ the target took the rest
writing (the source is not read: its sender feels the window close)
```

A side that was reset takes nothing more. What it had sent before is read to its end and delivered, and then
the other side is reset as well.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI

from ztunnel.errors import NOT_TAKEN, ConnectionFailed, Exhausted
from ztunnel.flow.buffer import Backlog
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.held import Share
from ztunnel.flow.linger import close_with_reset, reset_when_sent

__all__ = ["READ_BYTES", "OnEnd", "Splice", "close_with_reset", "splice"]

READ_BYTES = 192_900
"""Just under three of the pieces that the kernel sends at once (`hbone/bulk.py`), on paths of 1,450 bytes and
more."""

_PARKED = 1 << 40
_READ = EPOLLIN | EPOLLPRI
_SIOCATMARK = 0x8905  # linux/sockios.h: whether the next byte is the urgent one
_FLAG = struct.Struct("=i")
_CLOSE, _RESET, _RESET_NOW = range(3)
"""How a flow ends: in order; with a reset behind all that was sent; with a reset."""

OnEnd = Callable[[ConnectionFailed | None], None]


def _over(mask: int) -> None:
    """Nothing is to be done for an end."""


class _End:
    """One socket of the flow, with what still has to be written to it.

    Attributes:
        reading: it has not given its last byte.
        writable: it has not had its last byte.
        broken: it was reset, and takes nothing any more.
    """

    __slots__ = ("backlog", "broken", "events", "fd", "reading", "ready", "sock", "writable")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.backlog = Backlog()
        self.events = _PARKED
        self.reading = True
        self.writable = True
        self.broken = False
        self.ready: Callable[[int], None] = _over


class Splice:
    """A flow between two sockets; both belong to it until it has ended, and are closed then."""

    __slots__ = ("_counts", "_engine", "_inbox", "_on_end", "_opener", "_share", "_target", "opened_at")

    def __init__(
        self, engine: Engine, ends: tuple[_End, _End], counts: Counts, on_end: OnEnd, share: Share | None
    ) -> None:
        self._engine = engine
        self._share = share
        self.opened_at = engine.now
        self._opener, self._target = ends
        self._counts = counts
        self._on_end: OnEnd | None = on_end
        self._inbox = engine.inbox.view[:READ_BYTES]
        for near, far in ((self._opener, self._target), (self._target, self._opener)):
            near.ready = self._ready_of(near, far)
            self._interest(near, _READ)

    def abort(self, error: ConnectionFailed) -> None:
        """End now; both sides see a reset. Nothing happens if the flow has ended already."""
        self._finish(error, _RESET_NOW)

    @property
    def held_bytes(self) -> int:
        """What either side has not taken."""
        return self._opener.backlog.held_bytes + self._target.backlog.held_bytes

    def give_way(self) -> None:
        """Too much is held, most of it for this pod and peer."""
        self.abort(Exhausted(NOT_TAKEN))

    def _abandon(self, bug: BaseException) -> None:
        self._finish(ConnectionFailed(f"internal error: {bug!r}"), _RESET_NOW)

    def _ready_of(self, near: _End, far: _End) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            if mask & EPOLLOUT and near.backlog:
                self._flush(near, far)
            if mask & ~EPOLLOUT and self._on_end is not None:
                if near.events & EPOLLIN:
                    self._pass_on(near, far, mask & EPOLLPRI != 0)
                elif mask & EPOLLERR and not near.reading:
                    self._lose(near, far)
                elif mask & (EPOLLERR | EPOLLHUP):
                    if mask & EPOLLERR:
                        self._break(near)
                    self._park(near)

        return ready

    def _pass_on(self, near: _End, far: _End, urgent: bool) -> None:
        """Read once, write at once; what `far` does not take stops the reading of `near`."""
        inbox = self._inbox
        # A read ends before an urgent byte: that one goes alone, to be urgent again.
        alone = urgent and _at_mark(near.sock)
        try:
            count = _read_urgent(near.sock, inbox) if alone else near.sock.recv_into(inbox)
        except BlockingIOError:
            return
        except OSError:
            near.reading = False
            self._lose(near, far)
            return
        if not count:
            self._at_end(near, far)
            return
        if near is self._opener:
            self._counts.up += count
        else:
            self._counts.down += count
        if far.broken:
            return
        try:
            sent = far.sock.send(inbox[:count], socket.MSG_OOB if alone else 0)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(far, near)
            return
        if sent < count:
            self._keep(far, inbox[sent:count])
            self._interest(near, near.events & ~_READ)
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
                self._lose(near, far)
                return
            backlog.drop(sent)
            if self._share is not None:
                self._share.drop(self, sent)
        self._interest(near, near.events & ~EPOLLOUT)
        if far.reading:
            self._interest(far, far.events | _READ)
        elif far.broken:
            self._finish(None, _RESET)
        else:
            self._shut(far, near)

    def _at_end(self, near: _End, far: _End) -> None:
        """`near` has given its last byte."""
        near.reading = False
        if near.broken:
            self._lose(near, far)
            return
        self._interest(near, near.events & ~_READ)
        self._engine.half_closed.add(near.sock)
        if not far.backlog:
            self._shut(near, far)

    def _lose(self, near: _End, far: _End) -> None:
        """`near` was reset. The flow ends when `far` has what `near` had sent before."""
        self._break(near)
        self._clear(near)
        if near.reading and not far.broken:
            self._interest(near, near.events & ~EPOLLOUT)
            self._interest(far, far.events & ~_READ)
        elif far.backlog:
            self._park(near)
        else:
            self._finish(None, _RESET)

    def _keep(self, end: _End, part: memoryview) -> None:
        """What it does not take now."""
        end.backlog.append(part)
        if self._share is not None:
            self._share.hold(self, len(part), self._engine)

    def _clear(self, end: _End) -> None:
        """What it has not taken goes nowhere."""
        lost = end.backlog.clear()
        if lost and self._share is not None:
            self._share.drop(self, lost)

    def _break(self, end: _End) -> None:
        if not end.broken:
            end.broken = True
            give_up = partial(self._finish, None, _RESET_NOW)
            self._engine.last_words.watch(end.sock, self._moved, give_up)

    def _moved(self) -> int:
        """How many bytes have found their way."""
        return self._counts.up + self._counts.down - self.held_bytes

    def _shut(self, near: _End, far: _End) -> None:
        """`near` has sent its last byte and `far` has taken it: pass the half-close on."""
        far.writable = False
        if not near.writable or near.broken or far.broken:
            self._finish(None, _RESET if near.broken or far.broken else _CLOSE)
            return
        self._engine.time_wait.shuts(far.sock)
        try:
            far.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose(far, near)

    def _park(self, end: _End) -> None:
        """It is over, and it is not its turn to be read: EPOLLHUP would not stop coming."""
        if end.events != _PARKED:
            end.events = _PARKED
            self._engine.unwatch(end.fd)

    def _interest(self, end: _End, events: int) -> None:
        if events == end.events:
            return
        if end.events == _PARKED:
            self._engine.watch(end.fd, events & ~_PARKED, end.ready, self._abandon, self._share)
        else:
            self._engine.rewatch(end.fd, events)
        end.events = events & ~_PARKED

    def _finish(self, error: ConnectionFailed | None, how: int) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        for end in (self._opener, self._target):
            self._clear(end)
            end.ready = _over  # what it was holds the splice: a cycle, the garbage collector's to find
            if how == _CLOSE:
                self._engine.time_wait.ended(end.sock)
            self._engine.let_go(end.sock)
            if end.events != _PARKED:
                self._engine.unwatch(end.fd) if how == _RESET else self._engine.forget(end.fd)
            if how == _CLOSE:
                end.sock.close()
            elif how == _RESET and not end.broken:
                reset_when_sent(self._engine, end.sock)
            else:
                close_with_reset(end.sock)
        on_end(error)


def _read_urgent(sock: socket.socket, inbox: memoryview) -> int:
    """Read the urgent byte, in its place."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return sock.recv_into(inbox, 1)


def _at_mark(sock: socket.socket) -> bool:
    return bool(_FLAG.unpack(fcntl.ioctl(sock.fileno(), _SIOCATMARK, bytes(_FLAG.size)))[0])


def splice(  # noqa: PLR0913 (that of tests comes last)
    engine: Engine,
    opener: socket.socket,
    target: socket.socket,
    counts: Counts,
    on_end: OnEnd,
    share: Share | None = None,
) -> Splice:
    """Take over both nonblocking sockets and carry bytes between them until both ways have ended. `share` is
    told of what either side does not take.

    `on_end(None)` after an orderly end and after a reset by either side (Istio's ztunnel counts those as
    success); `on_end(error)` after `abort(error)`.
    """
    return Splice(engine, (_End(opener), _End(target)), counts, on_end, share)
