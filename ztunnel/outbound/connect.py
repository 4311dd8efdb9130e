"""Starts a call the way that was decided: out of the mesh as plain TCP, or on a tunnel. `Call` is one such connection.

A call holds the application's socket until somebody who carries bytes takes it over: a splice, or a tunnel. Whatever
goes wrong before that, the application sees a reset, and its account is closed with the reason.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Protocol

from ztunnel.errors import ConnectionFailed, Denied, HandshakeFailed, Unreachable
from ztunnel.flow.connect import Connecting, connect
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.splice import Splice, close_with_reset, splice
from ztunnel.hbone.fields import Fields
from ztunnel.hbone.join import Tunnel
from ztunnel.hbone.pool import PoolKey
from ztunnel.kernel.sockets import dial_socket
from ztunnel.model.address import Endpoint
from ztunnel.redirect.attach import PodNetwork
from ztunnel.telemetry.report import Account, Report

_DENIED_STATUSES = (401, 403)
_TUNNEL_ATTEMPTS = 2
"""A pooled session may have died unseen: no byte was sent on it, so another one is tried, once."""


@dataclass(slots=True)
class Call:
    """One connection that an application made. `opener` is its socket, None once somebody else owns it."""

    opener: socket.socket | None
    account: Account
    counts: Counts
    report: Report

    def fail(self, error: ConnectionFailed) -> None:
        """The application gets a reset, the log the reason."""
        opener, self.opener = self.opener, None
        if opener is not None:
            close_with_reset(opener)
        self.report.close(self.account, error)

    def ended(self, error: ConnectionFailed | None) -> None:
        """Whoever carried it says that it is over."""
        self.report.close(self.account, error)

    def hand_over(self) -> socket.socket:
        """The application's socket, from now on the caller's."""
        opener, self.opener = self.opener, None
        assert opener is not None
        return opener


def unreachable(endpoint: Endpoint, error: OSError) -> ConnectionFailed:
    """What to tell about a TCP connection that could not be made."""
    if error.errno == errno.ETIMEDOUT:
        return Unreachable(f"connection timed out: {endpoint}")
    return Unreachable(f"connection failed: {endpoint}: {error.strerror or error}")


class PlainCall:
    """A call that goes to `endpoint` as plain TCP, from the pod's own namespace and address."""

    def __init__(self, engine: Engine, call: Call, endpoint: Endpoint) -> None:
        self._engine = engine
        self._call = call
        self._endpoint = endpoint
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None
        self._splice: Splice | None = None

    def start(self, network: PodNetwork, seconds: float) -> None:
        """Connect, then carry."""
        ip = self._endpoint.ip
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        try:
            self._sock = sock = dial_socket(network.netns, family)
            self._connecting = connect(
                self._engine, sock, (str(ip), self._endpoint.port), seconds, self._connected
            )
        except OSError as error:
            self._fail(error)

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset."""
        if self._splice is not None:
            self._splice.abort(error)
            return
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._drop()
        self._call.fail(error)

    def _connected(self, error: OSError | None) -> None:
        self._connecting = None
        if error is not None:
            self._fail(error)
            return
        sock, self._sock = self._sock, None
        assert sock is not None
        call = self._call
        self._splice = splice(self._engine, call.hand_over(), sock, call.counts, call.ended)

    def _fail(self, error: OSError) -> None:
        self._drop()
        self._call.fail(unreachable(self._endpoint, error))

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class Reopen(Protocol):
    """Whoever finds a session for a call: `dial.Tunnels`."""

    def open(self, call: TunnelCall) -> None: ...


class TunnelCall:
    """A call that asks for a tunnel; the session that takes it tells it what becomes of it (`hbone.ask`)."""

    def __init__(
        self, tunnels: Reopen, call: Call, key: PoolKey, network: PodNetwork, fields: Fields
    ) -> None:
        """`key` says which sessions may carry it, `network` from where one is dialled, `fields` are the CONNECT."""
        self._tunnels = tunnels
        self._attempts = 0
        self._tunnel: Tunnel | None = None
        self.call = call
        self.key = key
        self.network = network
        self.fields = fields

    def start(self, tunnel: Tunnel) -> None:
        """A session has taken it."""
        self._tunnel = tunnel
        self._attempts += 1

    def abort(self, error: ConnectionFailed) -> None:
        """End it now."""
        if self._tunnel is not None:
            self._tunnel.abort(error)
        else:
            self.call.fail(error)

    def established(self, untrusted: Fields) -> None:
        """The other end answered 200: from now on bytes flow."""

    def refused(self, status: int, untrusted: Fields, app: socket.socket) -> None:
        """The other end answered otherwise."""
        self._tunnel = None
        self.call.opener = app
        kind = Denied if status in _DENIED_STATUSES else HandshakeFailed
        self.call.fail(kind(f"http status: {status}"))

    def lost(self, app: socket.socket, error: ConnectionFailed) -> None:
        """The session went before it answered, and no byte was lost with it."""
        self._tunnel = None
        self.call.opener = app
        if error.retryable and self._attempts < _TUNNEL_ATTEMPTS:
            self._tunnels.open(self)
        else:
            self.call.fail(error)

    def ended(self, error: ConnectionFailed | None) -> None:
        """The tunnel is over."""
        self.call.ended(error)
