"""Resets a connection, at once or when what was sent on it has left.

A reset throws away what its sender's kernel has not sent yet. Where the bytes before it were somebody's
last words, such as the answer of a server that closes without having read all of the question, it has to wait
for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from typing import Final

from ztunnel.flow.engine import Engine
from ztunnel.flow.expire import STALLED_SECONDS
from ztunnel.flow.timers import Timer

_RESET: Final = struct.pack("ii", 1, 0)
_SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h: bytes that have not left
_COUNT: Final = struct.Struct("=i")
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.01, 0.5


def close_with_reset(sock: socket.socket) -> None:
    """Close so that the other end sees a reset instead of an orderly end: bytes may be missing."""
    # Not a TCP socket, or gone already: then a plain close has to do.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def reset_when_sent(engine: Engine, sock: socket.socket) -> None:
    """Take over an unwatched socket, and reset it behind all that was sent."""
    if _unsent_bytes(sock):
        _Leaving(engine, sock)
    else:
        close_with_reset(sock)


def _unsent_bytes(sock: socket.socket) -> int:
    try:
        return int(_COUNT.unpack(fcntl.ioctl(sock.fileno(), _SIOCOUTQNSD, bytes(_COUNT.size)))[0])
    except OSError:
        return 0


class _Leaving:
    """A socket with last words that wait for room at its peer. The kernel tells when the peer is gone, and
    has to be asked whether they have left."""

    __slots__ = ("_engine", "_left", "_look_seconds", "_sock", "_stalled_seconds", "_timer")

    def __init__(self, engine: Engine, sock: socket.socket) -> None:
        self._engine = engine
        self._sock = sock
        self._left = -1
        self._look_seconds = _FIRST_LOOK_SECONDS
        self._stalled_seconds = 0.0
        self._timer: Timer | None = None
        try:
            engine.watch(sock.fileno(), 0, self._gone, self._abandon)
        except OSError:
            close_with_reset(sock)
        else:
            self._look()

    def _look(self) -> None:
        left = _unsent_bytes(self._sock)
        if left == self._left:
            self._stalled_seconds += self._look_seconds
        else:
            self._left, self._stalled_seconds = left, 0.0
        if not left or self._stalled_seconds >= STALLED_SECONDS:
            self._close()
            return
        self._look_seconds = min(2 * self._look_seconds, _LAST_LOOK_SECONDS)
        self._timer = self._engine.after(self._look_seconds, self._look)

    def _gone(self, mask: int) -> None:
        self._close()

    def _abandon(self, bug: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._engine.forget(self._sock.fileno())
        close_with_reset(self._sock)
