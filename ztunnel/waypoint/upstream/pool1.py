"""Connections of HTTP/1.1 with servers: each carries one request at a time, and is spare in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.errors import ConnectionFailed
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.upstream.line import Line, begin
from ztunnel.waypoint.upstream.spot import Cancellable, Failed, Key, Spot, Stands, Stream
from ztunnel.waypoint.upstream.upstream1 import Http1Client
from ztunnel.waypoint.way import Clock

_SPARES: Final = 64
"""Spare connections with one endpoint; more are closed."""

Call = Callable[[Spot, Stands, Failed], Cancellable]


class _Lane:
    """Those with one endpoint: `count` are there or being made, `opening` of them are being made."""

    __slots__ = ("count", "line", "opening", "spares", "spot")

    def __init__(self, spot: Spot) -> None:
        cluster = spot.key.cluster
        self.spot = spot
        self.line = Line(cluster.circuit if cluster is not None else None)
        self.spares: list[Http1Client] = []
        self.count = 0
        self.opening = 0


class Http1Pools:
    """Those of all endpoints."""

    def __init__(self, clock: Clock, call: Call) -> None:
        """`call` makes a connection: one of what it is given is called, once, perhaps at once."""
        self._clock = clock
        self._call = call
        self._lanes: dict[Key, _Lane] = {}
        self._of: dict[Http1Client, _Lane] = {}

    def connect(self, exchange: Exchange, spot: Spot) -> None:
        """Find a connection for it: one that is spare, or a new one, or the next that will be spare."""
        lane = self._lane(spot)
        while lane.spares:
            client = lane.spares.pop()
            now = self._clock.now
            if spot.is_late(client.born, client.idle_since, now) or client.is_late(now):
                client.close("idle")
                lane = self._lane(spot)  # it may have gone with its last connection
                continue
            if begin(exchange):
                client.carry(exchange)
            else:
                lane.spares.append(client)
            return
        if lane.line.join(exchange):
            self._open(lane)

    def _lane(self, spot: Spot) -> _Lane:
        lane = self._lanes.get(spot.key)
        if lane is None:
            lane = self._lanes[spot.key] = _Lane(spot)
        lane.spot = spot
        return lane

    def _open(self, lane: _Lane) -> None:
        """Make a connection, if more wait than are being made and there may be one more. Where there is none
        there may always be one."""
        if len(lane.line) <= lane.opening:
            return
        if not lane.spot.take_connection(first=not lane.count):
            return
        lane.count += 1
        lane.opening += 1

        def stands(stream: Stream) -> None:
            lane.opening -= 1
            client = Http1Client(self, self._clock, stream, str(lane.spot.key.endpoint))
            self._of[client] = lane
            stream.attach(client)
            if client in self._of:
                self.spare(client)

        def failed(error: ConnectionFailed) -> None:
            lane.opening -= 1
            self._less(lane)
            lane.line.fail(error, only_first=lane.count > 0)
            self._forget(lane)

        self._call(lane.spot, stands, failed)

    def spare(self, connection: Http1Client) -> None:
        """It can carry another request."""
        lane = self._of[connection]
        limits = lane.spot.limits
        if limits.requests_per_connection and connection.carried >= limits.requests_per_connection:
            connection.close("it has carried as many requests as it may")
            return
        if lane.spot.is_old(connection.born, self._clock.now):
            connection.close("it is as old as it may become")
            return
        if connection.leaving:
            connection.close("what carries it is about to end")
            return
        while (exchange := lane.line.next()) is not None:
            if begin(exchange):
                connection.carry(exchange)
                return
        if len(lane.spares) < _SPARES:
            lane.spares.append(connection)
        else:
            connection.close("there are enough")

    def gone(self, connection: Http1Client) -> None:
        """It carries no more."""
        lane = self._of.pop(connection, None)
        if lane is None:
            return
        if connection in lane.spares:
            lane.spares.remove(connection)
        self._less(lane)
        self._open(lane)
        self._forget(lane)

    def _less(self, lane: _Lane) -> None:
        lane.count -= 1
        lane.spot.give_connection()

    def _forget(self, lane: _Lane) -> None:
        if not lane.count and not lane.line and self._lanes.get(lane.spot.key) is lane:
            del self._lanes[lane.spot.key]

    def shed(self) -> None:
        """Close all that is spare."""
        for lane in tuple(self._lanes.values()):
            for spare in tuple(lane.spares):
                spare.close("idle")
            lane.line.tidy()

    def look(self, now: float, idle_seconds: float) -> None:
        """Close what has been spare for so long, unless its cluster says another time, and what is on a
        session that is drained: that ends when all has left it, and cuts what is late."""
        for lane in tuple(self._lanes.values()):
            spot = lane.spot
            idle = spot.idle_seconds(idle_seconds)
            for spare in tuple(lane.spares):
                late = now - spare.idle_since > idle or spare.is_late(now)
                if late or spare.leaving or spot.is_old(spare.born, now):
                    spare.close("idle")
            lane.line.tidy()
