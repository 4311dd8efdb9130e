"""Connections of HTTP/2 with servers: each is shared by as many requests as it takes."""

from __future__ import annotations

from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.upstream.line import Line, begin
from ztunnel.waypoint.upstream.pool1 import Call
from ztunnel.waypoint.upstream.spot import Key, Spot, Stream
from ztunnel.waypoint.upstream.upstream2 import Http2Client
from ztunnel.waypoint.way import Clock


class _Lane:
    """Those with one endpoint; one at a time is being made."""

    __slots__ = ("clients", "line", "opening", "spot")

    def __init__(self, spot: Spot) -> None:
        cluster = spot.key.cluster
        self.spot = spot
        self.line = Line(cluster.circuit if cluster is not None else None)
        self.clients: list[Http2Client] = []
        self.opening = False


class Http2Pools:
    """Those of all endpoints."""

    def __init__(self, clock: Clock, call: Call) -> None:
        """`call` makes a connection: one of what it is given is called, once, perhaps at once."""
        self._clock = clock
        self._call = call
        self._lanes: dict[Key, _Lane] = {}

    def connect(self, exchange: Exchange, spot: Spot) -> None:
        """Find a connection for it: one with room, or a new one."""
        lane = self._lane(spot)
        for client in tuple(lane.clients):
            since = client.idle_since
            if since is not None and spot.is_late(client.born, since, self._clock.now):
                client.close()
                lane = self._lane(spot)  # it may have gone with its last connection
        for client in lane.clients:
            if self._takes(client, lane):
                if begin(exchange):
                    client.carry(exchange)
                return
        if lane.line.join(exchange):
            self._open(lane)

    def _lane(self, spot: Spot) -> _Lane:
        lane = self._lanes.get(spot.key)
        if lane is None:
            lane = self._lanes[spot.key] = _Lane(spot)
        lane.spot = spot
        return lane

    def _takes(self, client: Http2Client, lane: _Lane) -> bool:
        limits = lane.spot.limits
        if limits.requests_per_connection and client.carried >= limits.requests_per_connection:
            return False
        if limits.streams_per_connection and client.under_way >= limits.streams_per_connection:
            return False
        return not lane.spot.is_old(client.born, self._clock.now) and client.can_take()

    def _open(self, lane: _Lane) -> None:
        """Make another, where those that there are have no room; one whose server has not spoken yet may."""
        if lane.opening or not lane.line or not all(client.settled for client in lane.clients):
            return
        if not lane.spot.take_connection(first=not lane.clients):
            return
        lane.opening = True

        def stands(stream: Stream) -> None:
            lane.opening = False
            client = Http2Client(self, self._clock, stream, lane, str(lane.spot.key.endpoint))
            client.secure = lane.spot.key.tls is not None
            lane.clients.append(client)
            stream.attach(client)
            if (pings := lane.spot.limits.pings) is not None:
                client.keep_asking(pings)
            self.room(client)
            self._open(lane)

        def failed(error: ConnectionFailed) -> None:
            lane.opening = False
            lane.spot.give_connection()
            lane.line.fail(error, only_first=False)
            self._forget(lane)

        self._call(lane.spot, stands, failed)

    def waits_for(self, connection: Http2Client) -> bool:
        """Whether somebody waits for room, or it is to be closed for what it has carried."""
        lane: _Lane = connection.key
        return bool(lane.line) or lane.spot.limits.requests_per_connection > 0

    def room(self, connection: Http2Client) -> None:
        """It may take another request."""
        lane: _Lane = connection.key
        while lane.line and self._takes(connection, lane):
            exchange = lane.line.next()
            if exchange is not None and begin(exchange):
                connection.carry(exchange)
        if not connection.under_way and not connection.over and connection.carried:
            limits = lane.spot.limits
            if limits.requests_per_connection and connection.carried >= limits.requests_per_connection:
                connection.close()
        self._open(lane)

    def left(self, connection: Http2Client) -> None:
        """It takes no more."""
        lane: _Lane = connection.key
        if connection not in lane.clients:
            return
        lane.clients.remove(connection)
        lane.spot.give_connection()
        if not lane.clients and not lane.opening:
            lane.line.fail(Unreachable("the server closed the connection"), only_first=False)
        self._forget(lane)

    def _forget(self, lane: _Lane) -> None:
        empty = not lane.clients and not lane.opening and not lane.line
        if empty and self._lanes.get(lane.spot.key) is lane:
            del self._lanes[lane.spot.key]

    def shed(self) -> None:
        """Close all that is idle."""
        for lane in tuple(self._lanes.values()):
            for each in tuple(lane.clients):
                if each.idle_since is not None:
                    each.close()
            lane.line.tidy()

    def look(self, now: float, idle_seconds: float) -> None:
        """Close what has been idle for so long, unless its cluster says another time; what is on a session
        that is drained gets no more requests, and is closed when it has none."""
        for lane in tuple(self._lanes.values()):
            spot = lane.spot
            idle = spot.idle_seconds(idle_seconds)
            for each in tuple(lane.clients):
                since, leaving = each.idle_since, each.leaving
                if since is not None and (spot.is_old(each.born, now) or now - since > idle or leaving):
                    each.close()
                elif leaving:
                    each.retire()
            lane.line.tidy()
