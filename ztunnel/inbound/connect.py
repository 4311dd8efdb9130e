"""Connects a pod's application and shows it the client's address instead of ours.

The socket is bound to the client's address (IP_TRANSPARENT), its 4-tuple is admitted, then it connects. A port that
the client itself uses towards the same application would hang both connections: ports chosen by bind are odd where
those of connect are even, so that is rare, and a first attempt that stays unanswered is followed by one on another
port.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Protocol

from ztunnel.flow.connect import Connecting, connect
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import dial_socket, spoof
from ztunnel.model.address import Endpoint
from ztunnel.redirect.attach import PodNetwork

FIRST_SECONDS = 1.5
SECOND_SECONDS = 8.5
"""Together ztunnel's 10 s for a connect."""

_ANOTHER_PORT = (errno.ETIMEDOUT, errno.EADDRNOTAVAIL, errno.EADDRINUSE)

Reached = Callable[[socket.socket | None, OSError | None], None]


class Admissions(Protocol):
    """What lets our own SYN through to the application."""

    def admit(self, source: Endpoint, destination: Endpoint) -> None: ...

    def dismiss(self, source: Endpoint, destination: Endpoint) -> None: ...


class AppDial:
    """One connection being made to an application; `reached(socket, None)` or `reached(None, error)` follows once,
    from the engine, unless it is cancelled. The socket is the callee's."""

    __slots__ = (
        "_admissions",
        "_app",
        "_connecting",
        "_engine",
        "_network",
        "_reached",
        "_sock",
        "_source",
        "_spoofed",
    )

    def __init__(
        self, engine: Engine, admissions: Admissions, network: PodNetwork, source: Endpoint, app: Endpoint
    ) -> None:
        self._engine = engine
        self._admissions = admissions
        self._network = network
        self._source = source
        self._app = app
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None
        self._spoofed: Endpoint | None = None
        self._reached: Reached | None = None

    def start(self, reached: Reached) -> None:
        """Begin."""
        self._reached = reached
        self._attempt(FIRST_SECONDS, self._first_done)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._reached = None
        if self._connecting is not None:
            self._connecting.cancel()
            self._drop()

    def _attempt(self, seconds: float, done: Callable[[OSError | None], None]) -> None:
        app = self._app
        try:
            self._sock = sock = dial_socket(
                self._network.netns, socket.AF_INET if app.ip.version == 4 else socket.AF_INET6
            )
            if self._source.ip.version == app.ip.version and self._source.ip not in self._network.addresses:
                self._spoofed = spoof(sock, self._source.ip)
                self._admissions.admit(self._spoofed, app)
            self._connecting = connect(self._engine, sock, (str(app.ip), app.port), seconds, done)
        except OSError as error:
            failed = error
            self._engine.post(lambda: done(failed))

    def _first_done(self, error: OSError | None) -> None:
        if error is not None and error.errno in _ANOTHER_PORT and self._reached is not None:
            self._drop()
            self._attempt(SECOND_SECONDS, self._done)
        else:
            self._done(error)

    def _done(self, error: OSError | None) -> None:
        self._connecting = None
        if error is not None:
            self._drop()
        sock, self._sock = self._sock, None
        reached, self._reached = self._reached, None
        if reached is not None:
            reached(sock, error)
        elif sock is not None:
            sock.close()

    def _drop(self) -> None:
        if self._spoofed is not None:
            self._admissions.dismiss(self._spoofed, self._app)
            self._spoofed = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._connecting = None
