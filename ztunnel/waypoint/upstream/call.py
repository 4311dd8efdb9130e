"""Calls an endpoint: by a tunnel to it, or for a connection that is passed on and counts until its end."""

from __future__ import annotations

from functools import partial
from typing import Final, Protocol

from ztunnel.errors import (
    Busy,
    ConnectionFailed,
    Expired,
    HandshakeFailed,
    Unreachable,
)
from ztunnel.flow.engine import Engine
from ztunnel.hbone.carry import Session
from ztunnel.hbone.originate import OriginatedTunnel
from ztunnel.outbound.find import Tunnels, Wanted
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.tcp import Passage
from ztunnel.waypoint.upstream.asking import Asking
from ztunnel.waypoint.upstream.find import Here
from ztunnel.waypoint.upstream.spot import (
    Cancellable,
    Failed,
    Spot,
    Stands,
    Stream,
    Target,
)

_UNAVAILABLE: Final = 503


class Calling(Wanted):
    """A tunnel to an endpoint that is wanted. One of `stands` and `failed` is called, once."""

    __slots__ = ("_block", "_failed", "_retries", "_stands", "_tunnel", "_tunnels")

    def __init__(
        self,
        tunnels: Tunnels,
        here: Here,
        target: Target,
        stands: Stands,
        failed: Failed,
    ) -> None:
        assert target.key is not None
        super().__init__(target.key, here.network)
        self._tunnels = tunnels
        self._block = here.block(target)
        self._stands: Stands | None = stands
        self._failed: Failed | None = failed
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

    def too_slow(self) -> None:
        """There has been time enough."""
        if self.live:
            failed = self._failed
            self.cancel()
            if failed is not None:
                failed(Unreachable("connection timed out"))

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


class Calls(Protocol):
    """Whoever connects with endpoints."""

    @property
    def engine(self) -> Engine: ...

    def call(self, spot: Spot, stands: Stands, failed: Failed) -> Cancellable:
        """A connection with an endpoint: one of `stands` and `failed` is called, perhaps at once."""


class Call:
    """A connection that is passed on, and counts until its end.

    Attributes:
        target: where it goes.
        host: the same, for the log.
    """

    def __init__(self, servers: Calls, spot: Spot, asking: Asking | None) -> None:
        self._servers = servers
        self._spot = spot
        self._asking = asking
        self._age: Timer | None = None
        self._idle: Timer | None = None
        self.target = spot.target
        self.host = str(spot.target.endpoint)

    def start(self, stands: Stands, failed: Failed) -> Cancellable:
        """Connect: one of the two is called, perhaps at once."""

        def stood(stream: Stream) -> None:
            if self._asking is not None:
                self._asking.connected()
            stands(stream)

        def lost(error: ConnectionFailed) -> None:
            if self._asking is not None:
                self._asking.lost("UF")
            failed(error)

        return self._servers.call(self._spot, stood, lost)

    def watch(self, passage: Passage) -> None:
        """It carries this: cut what is idle for too long (tcp.idleTimeout, after once to twice that time), or
        as old as it may become (maxConnectionDuration)."""
        limits, after = self._spot.limits, self._servers.engine.after
        if limits.connection_seconds:
            why = "it is as old as it may become (maxConnectionDuration)"
            self._age = after(limits.connection_seconds, partial(_cut, passage, why))
        if limits.idle_seconds:
            self._idle = after(limits.idle_seconds, partial(self._look, passage, 0))

    def _look(self, passage: Passage, moves: int) -> None:
        if passage.moves == moves:
            _cut(passage, "nothing has moved for as long as it may be idle (idleTimeout)")
        elif not passage.is_over:
            look = partial(self._look, passage, passage.moves)
            self._idle = self._servers.engine.after(self._spot.limits.idle_seconds, look)

    def end(self) -> None:
        """It is over, or given up."""
        if self._asking is not None:
            self._asking.end()
        for timer in (self._age, self._idle):
            if timer is not None:
                timer.cancel()


def _cut(passage: Passage, why: str) -> None:
    if not passage.is_over:
        passage.abort(Expired(why))
