"""Remembers the connections that were made to applications, to have their kernel forget them when they have
ended in order.

For a minute TIME_WAIT would keep their ports from the pod, which without a mesh no client's call does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ztunnel.kernel.forget import forget
from ztunnel.kernel.netns import NetworkNamespace

GATHER_SECONDS: Final = 1.0
"""Until they are forgotten, many at once. By then the other end has had the last ACK."""

_AT_ONCE: Final = 200
_NEXT_SECONDS: Final = 0.01


class TimeWait:
    """Connections to applications that live, and those that have ended and are to be forgotten."""

    __slots__ = ("_after", "_ended", "_known")

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        """`after` is that of the engine."""
        self._after = after
        self._known: dict[socket.socket, tuple[NetworkNamespace, bytes]] = {}
        self._ended: list[tuple[NetworkNamespace, bytes]] = []

    def __len__(self) -> int:
        return len(self._known) + len(self._ended)

    def know(self, sock: socket.socket, namespace: NetworkNamespace, request: bytes) -> None:
        """This connection is to be forgotten by that request (`kernel.forget`) when it has ended."""
        self._known[sock] = namespace, request

    def ended(self, sock: socket.socket | None) -> None:
        """Both ways have ended in order; harmless for a socket that is not known."""
        known = self._known.pop(sock, None) if sock is not None else None
        if known is not None:
            if not self._ended:
                self._after(GATHER_SECONDS, self._forget)
            self._ended.append(known)

    def drop(self, sock: socket.socket | None) -> None:
        """It has ended in any other way: then there is no TIME_WAIT, or bytes are still under way."""
        if sock is not None:
            self._known.pop(sock, None)

    def _forget(self) -> None:
        now, self._ended = self._ended[:_AT_ONCE], self._ended[_AT_ONCE:]
        requests: dict[NetworkNamespace, list[bytes]] = {}
        for namespace, request in now:
            requests.setdefault(namespace, []).append(request)
        for namespace, group in requests.items():
            with suppress(OSError):  # the pod is gone, and its connections with it
                forget(namespace, group)
        if self._ended:
            self._after(_NEXT_SECONDS, self._forget)
