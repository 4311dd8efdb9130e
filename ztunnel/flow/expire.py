"""Gives up flows that are over but for last bytes which nobody takes."""

from __future__ import annotations

import socket
from collections.abc import Callable

_SWEEP_SECONDS = 5.0
STALLED_SECONDS = 60.0
"""Without a byte taken for so long, the rest is given up: tcp_fin_timeout's default, after which a kernel
forgets a socket that nobody has."""


class _Wait:
    __slots__ = ("before", "give_up", "moved", "seconds")

    def __init__(self, moved: Callable[[], int], give_up: Callable[[], None]) -> None:
        self.moved = moved
        self.give_up = give_up
        self.before = moved()
        self.seconds = 0.0


class LastWords:
    """Sockets of flows that are over but for last bytes, which wait for somebody who may never take them."""

    __slots__ = ("_after", "_swept", "_waits")

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        """`after` is that of the engine."""
        self._after = after
        self._swept = True
        self._waits: dict[socket.socket, _Wait] = {}

    def __len__(self) -> int:
        return len(self._waits)

    def watch(
        self, sock: socket.socket | None, moved: Callable[[], int], give_up: Callable[[], None]
    ) -> None:
        """Call `give_up` once `moved()`, how many bytes have found their way, stands still for a minute."""
        if sock is None:
            return
        if sock not in self._waits:
            self._waits[sock] = _Wait(moved, give_up)
        if self._swept:
            self._swept = False
            self._after(_SWEEP_SECONDS, self._sweep)

    def discard(self, sock: socket.socket | None) -> None:
        """Its flow has ended; harmless for any other socket."""
        if sock is not None:
            self._waits.pop(sock, None)

    def _sweep(self) -> None:
        self._swept = not self._waits
        if self._waits:
            self._after(_SWEEP_SECONDS, self._sweep)
        for wait in list(self._waits.values()):
            now = wait.moved()
            if now != wait.before:
                wait.before, wait.seconds = now, 0.0
                continue
            wait.seconds += _SWEEP_SECONDS
            if wait.seconds >= STALLED_SECONDS:
                wait.give_up()
