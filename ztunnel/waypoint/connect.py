"""Connects requests and connections with servers: over tunnels to the endpoints of what was called, and as
they are with those that are not in the mesh, as the node proxies do.

An endpoint is chosen for each request. HTTP/1.1 takes a spare connection to it, or a new one; HTTP/2 shares
one. Connections are kept by endpoint and identity, and never used for another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ztunnel.errors import Busy, ConnectionFailed, HandshakeFailed, NoDestination, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import HeldBytes
from ztunnel.flow.transport import Receiver, Transport
from ztunnel.hbone.carry import Session
from ztunnel.hbone.originate import OriginatedTunnel
from ztunnel.hbone.pool import PoolKey
from ztunnel.l7.reply import CONNECT_FAILED, NO_HEALTHY_UPSTREAM
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.outbound.find import Tunnels, Wanted
from ztunnel.waypoint.dial import Dialling
from ztunnel.waypoint.exchange import Exchange
from ztunnel.waypoint.find import Here, Target
from ztunnel.waypoint.upstream1 import Http1Client
from ztunnel.waypoint.upstream2 import Http2Client

_SPARES = 64
"""Spare HTTP/1.1 connections to one endpoint; more are closed."""

_UNAVAILABLE = 503


class Stream(Transport, Protocol):
    """A transport that somebody is attached to."""

    def attach(self, receiver: Receiver) -> None:
        """Give it what comes."""


Stands = Callable[[Stream], None]


class Cancellable(Protocol):
    """What is under way."""

    def cancel(self) -> None:
        """It is not wanted any more."""


class Calling(Wanted):
    """A tunnel to an endpoint that is wanted. One of `stands` and `failed` is called, once."""

    __slots__ = ("_block", "_failed", "_retries", "_stands", "_tunnel", "_tunnels")

    def __init__(
        self,
        tunnels: Tunnels,
        here: Here,
        target: Target,
        stands: Stands,
        failed: Callable[[ConnectionFailed], None],
    ) -> None:
        assert target.key is not None
        super().__init__(target.key, here.network)
        self._tunnels = tunnels
        self._block = here.block(target)
        self._stands: Stands | None = stands
        self._failed: Callable[[ConnectionFailed], None] | None = failed
        self._tunnel: OriginatedTunnel | None = None
        self._retries = 0

    @property
    def live(self) -> bool:
        return self._stands is not None

    def still_wants(self) -> bool:
        return self._stands is not None

    def count_retry(self) -> int:
        self._retries += 1
        return self._retries - 1

    def begin(self, session: Session, answer_seconds: float) -> None:
        self._tunnel = session.originate(self._block, self, answer_seconds)

    def fail(self, error: ConnectionFailed) -> None:
        failed, self._failed, self._stands = self._failed, None, None
        if failed is not None:
            failed(error)

    def cancel(self) -> None:
        """It is not wanted any more."""
        self._failed = self._stands = None
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.abort(Unreachable("it is not wanted any more"))

    # What becomes of the tunnel.

    def established(self) -> None:
        stands, self._failed, self._stands = self._stands, None, None
        tunnel, self._tunnel = self._tunnel, None
        assert tunnel is not None
        if stands is not None:
            stands(tunnel)
        else:
            tunnel.abort(Unreachable("it is not wanted any more"))

    def refused(self, status: int) -> None:
        self._tunnel = None
        error = HandshakeFailed(f"http status: {status}")
        error.elsewhere = status == _UNAVAILABLE
        self.fail(error)

    def lost(self, error: ConnectionFailed) -> None:
        self._tunnel = None
        if isinstance(error, Busy) and self.live:
            self._tunnels.again(self, error)
        elif error.retryable and not self._retries and self.live:
            self._retries += 1
            self._tunnels.open(self)
        else:
            self.fail(error)


Key = tuple[PoolKey | None, Endpoint]


class _Nothing:
    """Stands for what is being begun."""

    def cancel(self) -> None:
        """There is nothing yet."""


_NOTHING = _Nothing()


class Servers:
    """The connections to servers, of all that is called through this waypoint."""

    def __init__(
        self, engine: Engine, tunnels: Tunnels, here: Here, held: HeldBytes, connect_seconds: float = 10.0
    ) -> None:
        self._engine = engine
        self._tunnels = tunnels
        self._here = here
        self._held = held
        self._connect_seconds = connect_seconds
        self._spares: dict[Key, list[Http1Client]] = {}
        self._keys: dict[Http1Client, Key] = {}
        self._shared: dict[Key, list[Http2Client]] = {}
        self._waiting: dict[Key, deque[Exchange]] = {}
        self._opening: dict[Key, Cancellable] = {}

    def call(self, target: Target, stands: Stands, failed: Callable[[ConnectionFailed], None]) -> Cancellable:
        """A connection with an endpoint: one of `stands` and `failed` is called, perhaps at once."""
        if target.head is None:
            network, ip = self._here.network, target.endpoint.ip
            share = self._held.share(network.cookie, ip)
            dialling = Dialling(self._engine, share, stands, failed)
            dialling.start(network.netns, target.endpoint, self._connect_seconds)
            return dialling
        calling = Calling(self._tunnels, self._here, target, stands, failed)
        self._tunnels.open(calling)
        return calling

    def connect(self, exchange: Exchange, destination: OriginalDestination, version: int) -> None:
        """Find a server for an exchange, that speaks this version of HTTP."""
        sought = exchange.plan.destination if exchange.plan is not None else None
        avoid = exchange.avoid if exchange.attempts.retries.elsewhere else None
        try:
            if sought is None:
                target = self._here.choose(destination, avoid)
            else:
                target = self._here.choose_of(sought, destination, avoid)
        except NoDestination as error:
            exchange.unreachable(NO_HEALTHY_UPSTREAM, str(error))
            return
        exchange.avoid = target.endpoint
        exchange.destination = target.destination
        exchange.host = str(target.endpoint)
        if version == 1:
            self._connect1(exchange, target)
        else:
            self._connect2(exchange, target)

    def look(self, now: float, idle_seconds: float) -> None:
        """Close what has been spare for so long."""
        for spares in tuple(self._spares.values()):
            for spare in tuple(spares):
                if now - spare.idle_since > idle_seconds:
                    spare.close("idle")
        for shared in tuple(self._shared.values()):
            for each in tuple(shared):
                if each.idle_since is not None and now - each.idle_since > idle_seconds:
                    each.close()

    # HTTP/1.1.

    def _connect1(self, exchange: Exchange, target: Target) -> None:
        key = target.key, target.endpoint
        spares = self._spares.get(key)
        if spares:
            spares.pop().carry(exchange)
            return

        def stands(tunnel: Stream) -> None:
            client = Http1Client(self, self._engine, tunnel, exchange.host)
            self._keys[client] = key
            tunnel.attach(client)
            client.carry(exchange)

        self.call(target, stands, _fails(exchange))

    def spare(self, connection: Http1Client) -> None:
        """It can carry another request."""
        spares = self._spares.setdefault(self._keys[connection], [])
        if len(spares) < _SPARES:
            spares.append(connection)
        else:
            connection.close("there are enough")

    def gone(self, connection: Http1Client) -> None:
        """It carries no more."""
        key = self._keys.pop(connection, None)
        spares = self._spares.get(key, []) if key is not None else []
        if connection in spares:
            spares.remove(connection)
        if key is not None and not spares:
            self._spares.pop(key, None)

    # HTTP/2.

    def _connect2(self, exchange: Exchange, target: Target) -> None:
        key = target.key, target.endpoint
        for client in self._shared.get(key, ()):
            if client.can_take():
                client.carry(exchange)
                return
        self._waiting.setdefault(key, deque()).append(exchange)
        if key not in self._opening:
            self._open2(key, target)

    def _open2(self, key: Key, target: Target) -> None:
        def stands(tunnel: Stream) -> None:
            self._opening.pop(key, None)
            client = Http2Client(self, self._engine, tunnel, key, str(target.endpoint))
            self._shared.setdefault(key, []).append(client)
            tunnel.attach(client)
            self.room(client)
            if self._waiting.get(key) and key not in self._opening:
                self._open2(key, target)

        def failed(error: ConnectionFailed) -> None:
            self._opening.pop(key, None)
            for exchange in self._waiting.pop(key, ()):
                _fails(exchange)(error)

        self._opening[key] = _NOTHING
        calling = self.call(target, stands, failed)
        if self._opening.get(key) is _NOTHING:
            self._opening[key] = calling

    def room(self, connection: Http2Client) -> None:
        """It takes another request."""
        waiting = self._waiting.get(connection.key)
        while waiting and connection.can_take():
            exchange = waiting.popleft()
            if not exchange.over:
                connection.carry(exchange)
        if waiting is not None and not waiting:
            self._waiting.pop(connection.key, None)

    def left(self, connection: Http2Client) -> None:
        """It takes no more."""
        shared = self._shared.get(connection.key, [])
        if connection in shared:
            shared.remove(connection)
        if shared:
            return
        self._shared.pop(connection.key, None)
        if connection.key not in self._opening:
            for exchange in self._waiting.pop(connection.key, ()):
                _fails(exchange)(Unreachable("the server closed the connection"))


def _fails(exchange: Exchange) -> Callable[[ConnectionFailed], None]:
    def failed(error: ConnectionFailed) -> None:
        exchange.unreachable(CONNECT_FAILED, str(error), unsent=error.elsewhere or error.retryable)

    return failed
