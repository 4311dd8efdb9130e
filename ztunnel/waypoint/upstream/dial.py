"""Dials a server that is not in the mesh, as it is."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.flow.connect import Connecting, connect
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import Share
from ztunnel.kernel.dial import dial_socket
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Keepalive
from ztunnel.model.address import Endpoint, ip_text
from ztunnel.model.traffic import KeepAlive
from ztunnel.waypoint.upstream.carry import PlainStream


class Dialling:
    """A connection that is wanted. One of `stands` and `failed` is called, once, from the engine."""

    def __init__(
        self,
        engine: Engine,
        share: Share,
        stands: Callable[[PlainStream], None],
        failed: Callable[[ConnectionFailed], None],
    ) -> None:
        self._engine = engine
        self._share = share
        self._stands = stands
        self._failed = failed
        self._wanted = True
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None

    def start(
        self,
        namespace: NetworkNamespace,
        endpoint: Endpoint,
        seconds: float,
        alive: KeepAlive | None = None,
    ) -> None:
        """Connect, in at most so many seconds; `alive`: how the kernel is to ask whether the server is still
        there, by its defaults of tcp(7) where that says nothing."""
        try:
            sock = self._sock = dial_socket(namespace, endpoint.ip, _keepalive(alive))
            address = ip_text(endpoint.ip), endpoint.port
            self._connecting = connect(self._engine, sock, address, seconds, self._connected)
        except OSError as error:
            self._engine.post(partial(self._connected, error))

    def cancel(self) -> None:
        """It is not wanted any more."""
        self._wanted = False
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _connected(self, error: OSError | None) -> None:
        sock, self._sock, self._connecting = self._sock, None, None
        if error is None and sock is not None:
            self._stands(PlainStream(self._engine, sock, self._share))
            return
        if sock is not None:
            sock.close()
        if error is not None and self._wanted:
            self._failed(Unreachable(f"connection failed: {error.strerror or error}"))


def _keepalive(alive: KeepAlive | None) -> Keepalive | None:
    if alive is None:
        return None
    return Keepalive(
        max(int(alive.after_seconds), 1) if alive.after_seconds else 7200,
        max(int(alive.every_seconds), 1) if alive.every_seconds else 75,
        alive.probes or 9,
    )
