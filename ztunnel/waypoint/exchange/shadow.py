"""A copy of a request that is sent to another service, whose response is nobody's (Envoy's ShadowWriter).

It costs the request nothing: what its server does not take as fast as the client sends it is held, and beyond
a limit the copy is given up. With less than a body of usual size there would be no copies of uploads, as
their servers are connected only when the request has come (istio/istio#58870: Envoy holds 1 MiB).
"""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.http1.head import Fields
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import Retries
from ztunnel.model.route_action import Destination
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.way import Clock

MOST = 1024
"""Copies of a waypoint that are under way; there are none beyond."""

MOST_BYTES = 16 * 1024 * 1024
"""That one copy may hold."""

ALL_BYTES = 64 * 1024 * 1024
"""That all copies of a waypoint may hold."""

SECONDS = 15.0
"""That one copy may take, where the rule gives its request no time (Envoy's default of routes)."""


def copied(request: Request) -> Request:
    """The copy: the host has `-shadow` behind its name, so that servers can tell."""
    host, colon, port = request.authority.rpartition(b":")
    if not colon or not port.isdigit():
        host, colon, port = request.authority, b"", b""
    made = request.copy()
    made.authority, made.trace = b"%b-shadow%b%b" % (host, colon, port), None
    return made


def plan_of(plan: Plan, destination: Destination) -> Plan:
    """The plan of a copy: it is tried once."""
    made = Plan(plan.name)
    made.destination = destination
    made.timeout_seconds = plan.timeout_seconds or SECONDS
    return made


class Nobody:
    """The client's end of a copy's exchange: what it is told is let go of."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0

    def respond(self, fields: Fields, end: bool) -> None:
        """Nobody hears it."""

    def inform(self, fields: Fields) -> None:
        """Nobody hears it."""

    def send(self, payload: memoryview) -> None:
        """Nobody hears it."""

    def finish(self, trailers: Fields) -> None:
        """Nobody hears it."""

    def reset(self) -> None:
        """Nobody hears it."""

    def taken(self, count: int) -> None:
        """So much less is held."""
        self.held -= count

    def unsent(self) -> int:
        """Nothing waits."""
        return 0


class _Unheard(Nobody):
    """That of one copy, whose bytes count among those of all."""

    __slots__ = ("_shadows",)

    def __init__(self, shadows: Shadows) -> None:
        super().__init__()
        self._shadows = shadows

    def taken(self, count: int) -> None:
        self.held -= count
        self._shadows.held_bytes -= count


class Shadow:
    """One copy."""

    __slots__ = ("_exchange", "_nobody", "_shadows")

    def __init__(self, shadows: Shadows, way: _ShadowWay, request: Request) -> None:
        self._shadows = shadows
        self._nobody = _Unheard(shadows)
        self._exchange = Exchange(way, self._nobody, copied(request))

    def start(self, end: bool) -> None:
        """Send it; with `end` there is no body."""
        self._exchange.start(end)

    def body(self, payload: memoryview) -> None:
        """Some of the request's body has come."""
        if self._exchange.over:
            return
        nobody, shadows = self._nobody, self._shadows
        nobody.held += len(payload)
        shadows.held_bytes += len(payload)
        self._exchange.body(payload)
        if nobody.held > MOST_BYTES or shadows.held_bytes > ALL_BYTES:
            shadows.dropped += 1
            self.give_up()

    def end(self, trailers: Fields) -> None:
        """The request is whole."""
        if not self._exchange.over:
            self._exchange.end(trailers)

    def give_up(self) -> None:
        """It will not be."""
        self._exchange.gone()


class Shadows:
    """The copies of all requests of a waypoint.

    Attributes:
        live: how many are under way.
        held_bytes: of their bodies.
        dropped: how many there was no room for; they are counted.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.live = 0
        self.held_bytes = 0
        self.dropped = 0

    def begin(self, exchange: Exchange, end: bool, connect: Callable[[Exchange], None]) -> list[Copy]:
        """Send the copies of a request; `connect` finds a server for each."""
        made: list[Copy] = []
        plan = exchange.plan
        for destination in plan.mirrors:
            if self.live >= MOST:
                self.dropped += 1
                continue
            self.live += 1
            way = _ShadowWay(self, plan_of(plan, destination), connect)
            shadow = Shadow(self, way, exchange.request)
            made.append(shadow)
            shadow.start(end)
        return made


class _ShadowWay:
    """Where one copy goes."""

    def __init__(self, shadows: Shadows, plan: Plan, connect: Callable[[Exchange], None]) -> None:
        self._shadows = shadows
        self._plan = plan
        self._connect = connect
        self.clock = shadows.clock

    def begin(self, exchange: Exchange) -> None:
        """It was decided with its request."""
        exchange.proceed(self._plan)

    def connect(self, exchange: Exchange) -> None:
        """Find a server for it."""
        self._connect(exchange)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """There are none of copies."""
        return []

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""
        return self.clock.after(seconds, callback)

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        """It is tried once."""
        return -1.0

    def ended(self, exchange: Exchange) -> None:
        """It is over."""
        self._shadows.live -= 1
