"""Remembers the connections that were made to applications, to have their kernel forget them when they have
ended in order.

For a minute TIME_WAIT would keep their ports from the pod, which without a mesh no client's call does. Who
ends first has it: where the application does, there is nothing to forget.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ztunnel.kernel.forget import Forgettable, forget
from ztunnel.kernel.netns import NetworkNamespace

GATHER_SECONDS: Final = 1.0
"""Until they are forgotten, many at once. By then the other end has had the last ACK."""

_AT_ONCE: Final = 200
_NEXT_SECONDS: Final = 0.01


class TimeWait:
    """Connections to applications that live, and those that have ended and are to be forgotten."""

    __slots__ = ("_after", "_ended", "_known", "_shut")

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        """`after` is that of the engine."""
        self._after = after
        self._known: dict[socket.socket, tuple[NetworkNamespace, Forgettable, int]] = {}
        self._shut: dict[socket.socket, tuple[NetworkNamespace, bytes]] = {}
        self._ended: list[tuple[NetworkNamespace, bytes]] = []

    def __len__(self) -> int:
        return len(self._known) + len(self._shut) + len(self._ended)

    def know(self, sock: socket.socket, namespace: NetworkNamespace, traces: Forgettable, port: int) -> None:
        """This connection, from `port`, is to be forgotten when it has ended."""
        self._known[sock] = namespace, traces, port

    def shuts(self, sock: socket.socket | None) -> None:
        """Our side is about to end, before the application's; harmless for a socket that is not known. Its
        cookie is made now: TIME_WAIT takes over what there is by then."""
        known = self._known.pop(sock, None) if sock is not None else None
        if sock is not None and known is not None:
            namespace, traces, port = known
            with suppress(OSError):  # it is gone
                self._shut[sock] = namespace, traces.request(sock, port)

    def ended(self, sock: socket.socket | None) -> None:
        """Both ways have ended in order; harmless for a socket that is not known."""
        if sock is None:
            return
        self._known.pop(sock, None)
        shut = self._shut.pop(sock, None)
        if shut is not None:
            if not self._ended:
                self._after(GATHER_SECONDS, self._forget)
            self._ended.append(shut)

    def drop(self, sock: socket.socket | None) -> None:
        """It has ended in any other way: then there is no TIME_WAIT, or bytes are still under way."""
        if sock is not None:
            self._known.pop(sock, None)
            self._shut.pop(sock, None)

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
