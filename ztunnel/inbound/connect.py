"""Connects a pod's application and shows it the client's address and port instead of ours.

The address is the one that was proved, or that the connection came from; the port may be what a peer says,
which is a number and no more. sockops admits the 4-tuple when its SYN leaves: who makes it is the proxy, and
the pod's own address is what it calls (`bpf/lib/admit.h`).

1. The client's own port: its calls have different ones, so ours have. It is not to be had where another
   connection of this address to the same application has it: behind a gateway many clients share one address,
   and a hostile peer may say anything.
2. Where it is not to be had and privileged, another privileged one.
3. Where that is not to be had, a spare one. So too where an attempt stays unanswered: a connection that the
   client has to the application without us takes our SYN for its own, and drops it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

from ztunnel.errors import Unreachable
from ztunnel.flow.connect import Connecting
from ztunnel.flow.engine import Engine
from ztunnel.inbound.port import SparePorts
from ztunnel.kernel.dial import Source, dial_socket, hold_little, receive_all, spoof
from ztunnel.kernel.forget import Forgettable
from ztunnel.kernel.way_back import MARK
from ztunnel.model.address import Endpoint, IPAddress, ip_text
from ztunnel.redirect.enroll import PodNetwork

FIRST_SECONDS: Final = 1.5
SECOND_SECONDS: Final = 8.5
"""Together ztunnel's 10 s for a connect."""

_ANOTHER_PORT: Final = (errno.ETIMEDOUT, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EACCES)
"""The last where a port is privileged, and we are not (CAP_NET_BIND_SERVICE)."""

_SPARES: Final = 8

Reached = Callable[[socket.socket | None, OSError | None], None]


class Approach:
    """How a pod's application is connected for one client: made once for all of the client's connections.

    Attributes:
        namespace: the pod's.
        app: the application.
        address: the same as a socket wants it.
        shown: the address that it is to see; "" where that is of the other family, or link-local: then one of
            the pod's own, which the kernel chooses.
        spoofed: the same where it is not the pod's own.
        mark: by which what comes back to that is the namespace's own.
        traces: what is to be forgotten of its connections.
    """

    __slots__ = ("address", "app", "mark", "namespace", "shown", "spoofed", "traces")

    def __init__(self, network: PodNetwork, client: IPAddress, app: Endpoint) -> None:
        scope = network.scope_of(app.ip)
        # What would come back to a link-local client leaves by the link: the way back is none for it.
        shows = client.version == app.ip.version and not scope
        self.namespace = network.netns
        self.mark = network.netns.mark or MARK
        self.app = app
        self.address: tuple[object, ...] = (ip_text(app.ip), app.port, *((0, scope) if scope else ()))
        self.shown = ip_text(client) if shows else ""
        self.spoofed: IPAddress | None = client if shows and client not in network.addresses else None
        self.traces = Forgettable(client, app) if shows else None


class AppDial:
    """One connection being made to an application.

    `reached(socket, None)` or `reached(None, error)` follows once, from the engine and never from within
    `start`; after `cancel` neither does. The socket is the callee's.
    """

    __slots__ = ("_approach", "_connecting", "_engine", "_others", "_port", "_reached", "_sock", "_spares")

    def __init__(self, engine: Engine, spares: SparePorts, approach: Approach) -> None:
        self._engine = engine
        self._spares = spares
        self._approach = approach
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None
        self._port = 0
        self._reached: Reached | None = None
        self._others: list[int] = []

    def start(self, ports: list[int], reached: Reached) -> None:
        """Begin, from the first of these ports of the client's; the others are tried in turn where it is not
        to be had, the last one where the first is not answered. 0 is a spare one. The list is ours."""
        self._reached = reached
        self._others = ports
        self._next()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._reached = None
        self._drop()

    def _next(self) -> None:
        self._port = port = self._others.pop(0)
        seconds = FIRST_SECONDS if self._others else SECOND_SECONDS
        self._attempt((port,) if port else self._spares.take(_SPARES), seconds)

    def _attempt(self, ports: tuple[int, ...], seconds: float) -> None:
        approach = self._approach
        try:
            self._sock = sock = dial_socket(approach.namespace, approach.app.ip)
            receive_all(sock)
            hold_little(sock)
            if approach.spoofed is not None:
                spoof(sock, approach.spoofed, approach.mark)
            source = None
            if approach.shown:
                source = Source(approach.shown, ports, approach.namespace.ephemeral_ports())
            self._connecting = connecting = Connecting(self._engine, sock, self._done)
            connecting.start(approach.address, seconds, source)
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
            self._remember(sock)
            reached(sock, None)
            return
        self._drop()
        if error.errno in _ANOTHER_PORT and self._others:
            if error.errno == errno.ETIMEDOUT:
                del self._others[:-1]
            self._next()
        else:
            self._reached = None
            reached(None, error)

    def _remember(self, sock: socket.socket | None) -> None:
        approach = self._approach
        if sock is not None and approach.traces is not None:
            try:
                port = self._port or sock.getsockname()[1]
            except OSError:
                return
            self._engine.time_wait.know(sock, approach.namespace, approach.traces, port)

    def _drop(self) -> None:
        """Whatever there is of the attempt."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def unreachable(app: Endpoint, error: OSError | None) -> Unreachable:
    """What to tell about an application that could not be connected."""
    if error is not None and error.errno == errno.ETIMEDOUT:
        return Unreachable(f"connection timed out: {app}")
    return Unreachable(f"connection failed: {app}: {(error and error.strerror) or error}")
