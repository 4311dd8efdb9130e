"""Connects a pod's application and shows it the client's address instead of ours.

The socket is bound to the client's address (IP_TRANSPARENT), its 4-tuple is admitted, then it connects. A
port that the client itself uses towards the same application would hang both connections: ports chosen by
bind are odd where those of connect are even, so that is rare, and a first attempt that stays unanswered is
followed by one on another port.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Protocol

from ztunnel.errors import Unreachable
from ztunnel.flow.connect import Connecting, connect
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import dial_socket, spoof
from ztunnel.model.address import Endpoint, IPAddress, ip_text
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


class Approach:
    """How a pod's application is connected for one client: made once for all of the client's connections.

    1. The client is the pod itself: the kernel gives an address of the pod, which passes by itself.
    2. The client's address is of the other family, and cannot be shown: likewise.
    3. Everybody else's is shown.

    Attributes:
        namespace: the pod's.
        app: the application.
        address: the same as a socket wants it.
        shown: the address that it is to see, None in the cases 1 and 2.
    """

    __slots__ = ("address", "app", "namespace", "shown")

    def __init__(self, network: PodNetwork, client: IPAddress, app: Endpoint) -> None:
        shows = client.version == app.ip.version and client not in network.addresses
        self.namespace = network.netns
        self.app = app
        self.address = ip_text(app.ip), app.port
        self.shown: IPAddress | None = client if shows else None


class AppDial:
    """One connection being made to an application.

    `reached(socket, None)` or `reached(None, error)` follows once, from the engine and never from within
    `start`; after `cancel` neither does. The socket is the callee's. Its admission dies with it in the
    kernel; that of an attempt that failed is dismissed here.
    """

    __slots__ = (
        "_admissions",
        "_approach",
        "_connecting",
        "_engine",
        "_reached",
        "_retried",
        "_sock",
        "_spoofed",
    )

    def __init__(self, engine: Engine, admissions: Admissions, approach: Approach) -> None:
        self._engine = engine
        self._admissions = admissions
        self._approach = approach
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None
        self._spoofed: Endpoint | None = None
        self._reached: Reached | None = None
        self._retried = False

    def start(self, reached: Reached) -> None:
        """Begin."""
        self._reached = reached
        self._attempt(FIRST_SECONDS)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._reached = None
        self._drop()

    def _attempt(self, seconds: float) -> None:
        approach = self._approach
        try:
            self._sock = sock = dial_socket(approach.namespace, approach.app.ip)
            if approach.shown is not None:
                self._spoofed = spoof(sock, approach.shown)
                self._admissions.admit(self._spoofed, approach.app)
            self._connecting = connect(self._engine, sock, approach.address, seconds, self._done)
        except OSError as error:
            failed = error
            self._engine.post(lambda: self._done(failed))

    def _done(self, error: OSError | None) -> None:
        reached = self._reached
        if reached is None:
            return
        if error is None:
            sock, self._sock = self._sock, None
            self._connecting = self._reached = None
            reached(sock, None)
            return
        self._drop()
        if error.errno in _ANOTHER_PORT and not self._retried:
            self._retried = True
            self._attempt(SECOND_SECONDS)
        else:
            self._reached = None
            reached(None, error)

    def _drop(self) -> None:
        """Whatever there is of the attempt. The admission goes first: while the socket lives, nobody else has
        its port."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._spoofed is not None:
            self._admissions.dismiss(self._spoofed, self._approach.app)
            self._spoofed = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def unreachable(app: Endpoint, error: OSError | None) -> Unreachable:
    """What to tell about an application that could not be connected."""
    if error is not None and error.errno == errno.ETIMEDOUT:
        return Unreachable(f"connection timed out: {app}")
    return Unreachable(f"connection failed: {app}: {(error and error.strerror) or error}")
