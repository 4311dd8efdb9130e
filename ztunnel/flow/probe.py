"""Probes sockets whose application has closed its side, so that it is noticed when nobody is there any more.

A kernel forgets a connection that was closed and not answered (FIN_WAIT2) after `net.ipv4.tcp_fin_timeout`,
60 s; from then on it answers with a reset, to whoever says something. We say something: a keepalive probe.
An application that has shut its sending side alone answers it, and goes on receiving for as long as it likes.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import suppress

from ztunnel.kernel.sockets import Keepalive

SWEEP_SECONDS = 5.0
_AT_ONCE = 200
_NEXT_SECONDS = 0.01
_INTERVAL_SECONDS, _RETRIES = 10, 3


class HalfClosed:
    """Sockets that have given their last byte while the other direction of their flow lives. Most are closed
    within a moment: only those that stay for a sweep are probed.

    Attributes:
        seconds: of silence until the first probe; longer than kernels remember what is closed.
    """

    __slots__ = ("_after", "_due", "_fresh", "_swept", "seconds")

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        """`after` is that of the engine."""
        self.seconds = 65.0
        self._after = after
        self._fresh: set[socket.socket] = set()
        self._due: set[socket.socket] = set()
        self._swept = True

    def __len__(self) -> int:
        return len(self._fresh) + len(self._due)

    def add(self, sock: socket.socket) -> None:
        """It has given its last byte. It stays its flow's, which says when it has ended."""
        self._fresh.add(sock)
        if self._swept:
            self._swept = False
            self._after(SWEEP_SECONDS, self._sweep)

    def discard(self, sock: socket.socket | None) -> None:
        """Its flow has ended; harmless for any other socket."""
        if sock is not None:
            self._fresh.discard(sock)
            self._due.discard(sock)

    def _sweep(self) -> None:
        keepalive = Keepalive(max(1, math.ceil(self.seconds)), _INTERVAL_SECONDS, _RETRIES)
        for _ in range(min(len(self._due), _AT_ONCE)):
            with suppress(OSError):
                keepalive.apply(self._due.pop())
        if self._due:
            self._after(_NEXT_SECONDS, self._sweep)
            return
        self._due, self._fresh = self._fresh, self._due
        self._swept = not self._due
        if self._due:
            self._after(SWEEP_SECONDS, self._sweep)
