"""Connects a socket within the engine: no Trio task, and where the far end is on this machine, no wait
either."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from select import EPOLLOUT
from typing import Any, Final

from ztunnel.flow.engine import Engine
from ztunnel.flow.timers import Timer
from ztunnel.kernel.dial import Source, connect_from

_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY)
_EALREADY: Final = errno.EALREADY
_ECONNABORTED: Final = errno.ECONNABORTED
_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_INFO: Final = int(socket.TCP_INFO)
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_ERROR: Final = int(socket.SO_ERROR)
_UNDER_WAY_STATES: Final = (2, 3)  # include/net/tcp_states.h: TCP_SYN_SENT, TCP_SYN_RECV
_CLOSE: Final = 7
_DONE: Final = (0, errno.EISCONN)


class Connecting:
    """A connect under way. It watches the socket, and never closes it: the socket stays the caller's."""

    __slots__ = ("_engine", "_fd", "_on_done", "_sock", "_timer", "_watched")

    def __init__(
        self, engine: Engine, sock: socket.socket, on_done: Callable[[OSError | None], None]
    ) -> None:
        self._engine = engine
        self._sock = sock
        self._fd = sock.fileno()
        self._on_done: Callable[[OSError | None], None] | None = on_done
        self._timer: Timer | None = None
        self._watched = False

    def start(self, address: tuple[Any, ...], seconds: float, source: Source | None = None) -> None:
        """Begin, from an address and port that are told or from what the socket has; the outcome always comes
        from the engine, never from within this call."""
        sock = self._sock
        code = sock.connect_ex(address) if source is None else connect_from(sock, address, source)
        if code in _UNDER_WAY:
            code = _progress(sock)
        if code in _UNDER_WAY:
            self._engine.watch(self._fd, EPOLLOUT, self._ready, self._abandon)
            self._watched = True
            self._timer = self._engine.after(seconds, self._expired)
        else:
            error = None if code in _DONE else OSError(code, os.strerror(code))
            self._engine.post(lambda: self._finish(error))

    def cancel(self) -> None:
        """`on_done` will not be called; the socket is the caller's to close."""
        self._on_done = None
        self._release()

    def _ready(self, mask: int) -> None:
        code = self._sock.getsockopt(_SOL_SOCKET, _SO_ERROR)
        self._finish(OSError(code, os.strerror(code)) if code else None)

    def _expired(self) -> None:
        self._timer = None
        self._finish(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _abandon(self, bug: BaseException) -> None:
        self._release()

    def _release(self) -> None:
        if self._watched:
            self._engine.unwatch(self._fd)
            self._watched = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, error: OSError | None) -> None:
        self._release()
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(error)


def _progress(sock: socket.socket) -> int:
    """How far a connect is, as it would say itself if it was asked again. Between sockets of one machine the
    handshake is over when connect returns."""
    state = sock.getsockopt(_TCP, _TCP_INFO, 1)[0]
    if state in _UNDER_WAY_STATES:
        return _EALREADY
    return 0 if state != _CLOSE else sock.getsockopt(_SOL_SOCKET, _SO_ERROR) or _ECONNABORTED


def connect(
    engine: Engine,
    sock: socket.socket,
    address: tuple[Any, ...],
    seconds: float,
    on_done: Callable[[OSError | None], None],
) -> Connecting:
    """Connect a nonblocking socket; `on_done(None)` when it stands, `on_done(error)` when not.

    The socket stays the caller's, also after an error. `cancel()` of what is returned withdraws the question.
    """
    connecting = Connecting(engine, sock, on_done)
    connecting.start(address, seconds)
    return connecting
