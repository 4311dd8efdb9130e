"""Closes a socket that has had its goodbye, without taking the goodbye from the peer."""

from __future__ import annotations

import socket
from select import EPOLLIN

from ztunnel.flow.engine import Engine

_DISCARD_BYTES = 4 * 1024 * 1024


class Lingering:
    """Reads and drops until the peer closes, for a time and an amount. Closing at once, with bytes of the
    peer unread, would reset the connection and could take the goodbye from it (RFC 9112 section 9.6)."""

    def __init__(self, engine: Engine, sock: socket.socket, seconds: float) -> None:
        self._engine = engine
        self._sock = sock
        self._left = _DISCARD_BYTES
        self._timer = engine.after(seconds, self._close)
        engine.watch(sock.fileno(), EPOLLIN, self._ready, self._abandon)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()

    def _ready(self, mask: int) -> None:
        try:
            count = self._sock.recv_into(self._engine.inbox.view)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._left -= count
        if not count or self._left < 0:
            self._close()

    def _abandon(self, bug: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        self._timer.cancel()
        self._engine.forget(self._sock.fileno())
        self._sock.close()
