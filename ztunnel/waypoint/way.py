"""What the connections of one waypoint have in common, and what those through one tunnel have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from ztunnel.l7.chance import Rng
from ztunnel.l7.path import Spelling
from ztunnel.l7.request import Request
from ztunnel.l7.routing.retry import Budget, Retries
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.reporting.scope import Scope

_UNTRACED = Scope()


class Patience(NamedTuple):
    """How long clients and servers may take.

    Attributes:
        head_seconds: for a request's head, from its first byte on.
        idle_seconds: without a byte in either direction, of a request under way that waits for one of both
            sides (`Exchange.stalls`). One that is only quiet goes on, as with Istio, which switches Envoy's
            stream_idle_timeout of 5 min off: websockets and calls of gRPC may be silent for hours.
        upstream_idle_seconds: of a server's connection without a request.
        client_idle_seconds: of a client's connection without one (Envoy's idle_timeout).
    """

    head_seconds: float = 10.0
    idle_seconds: float = 300.0
    upstream_idle_seconds: float = 60.0
    client_idle_seconds: float = 3600.0


class Clock(Protocol):
    """The engine, as far as it concerns this."""

    now: float
    number: int

    def next_round(self, callback: Callable[[], None], /) -> None:
        """Call back in the next round."""

    def post(self, callback: Callable[[], None], /) -> None:
        """Call back in this round, behind what is ready in it."""

    def after(self, seconds: float, callback: Callable[[], None], /) -> Timer:
        """Call back once in so many seconds."""


class Watched(Protocol):
    """A connection that is looked after."""

    def look(self, now: float) -> None:
        """Time has passed."""

    def drain(self) -> None:
        """The waypoint is to end: take nothing new."""


class Upstreams(Protocol):
    """Whoever decides about requests and finds servers."""

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it: `proceed` or `reply` follows."""

    def connect(self, exchange: Exchange) -> None:
        """Find a server for it: `connected` or `unreachable` follows."""

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """Send the copies that its plan has; with `end` nothing follows the request's head."""


class Reports(Protocol):
    """Whoever is told of what is over."""

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""


class _Even:
    """What is drawn where nothing is to be by chance."""

    def random(self) -> float:
        """The middle."""
        return 0.5


def _nobody(reason: str) -> None:
    """Who is told where nobody counts."""


class Common(NamedTuple):
    """What all connections of a waypoint share.

    Attributes:
        clock: the engine.
        live: the connections that are looked after.
        new_id: makes an `x-request-id`.
        patience: how long is waited.
        refused: is told why a request or a connection was refused for how it was written, or how slowly, in
            Envoy's words (its response_code_details).
        spelling: what is done with a path beyond bringing it to one spelling.
        rng: for shares of requests, and for waits.
        budget: what the retries of all requests have in common; None: they have no limit.
    """

    clock: Clock
    live: set[Watched]
    new_id: Callable[[], bytes]
    patience: Patience = Patience()
    refused: Callable[[str], None] = _nobody
    spelling: Spelling = Spelling()
    rng: Rng = _Even()
    budget: Budget | None = None


class HttpWay:
    """Where the requests through one tunnel go.

    Attributes:
        context: of the tunnel, where there is to be a span of it (W3C traceparent): its first request is
            below that, unless it says itself where it is. Empty: of none.
    """

    def __init__(
        self,
        common: Common,
        upstreams: Upstreams,
        reports: Reports,
        forwarded: bytes = b"",
        scope: Scope | None = None,
    ) -> None:
        """`forwarded` is what servers are told of who calls (`x-forwarded-client-cert`); empty: nothing.
        `scope` says whether requests have spans; None: they have none."""
        self.clock, self.live, self.new_id, self.patience, self.refused = common[:5]
        self._spelling = common.spelling
        self._scope = _UNTRACED if scope is None else scope
        self._rng, self._budget = common.rng, common.budget
        self._forwarded = forwarded
        self.context = b""
        self._upstreams = upstreams
        self._reports = reports

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock.now

    def admit(self, request: Request) -> Request:
        """A request goes on: add what the waypoint says of it."""
        respell = self._spelling.respell
        if respell is not None:
            request.path = respell(request.path)
        if self._forwarded:
            request.fields.append((b"x-forwarded-client-cert", self._forwarded))
        enter = self._scope.enter
        if enter is not None:
            below, self.context = self.context, b""
            request.trace = enter(request.fields, below)
        return request

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it."""
        self._upstreams.begin(exchange)

    def connect(self, exchange: Exchange) -> None:
        """Find an upstream for it."""
        self._upstreams.connect(exchange)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """Send its copies."""
        return self._upstreams.copies(exchange, end)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""
        return self.clock.after(seconds, callback)

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        """Take a retry; those that wait hold a place of the budget until their request is over."""
        if at_once:
            retries.next_wait(self._rng)
            return 0.0
        if self._budget is not None and not retries.held:
            if not self._budget.take():
                return -1.0
            retries.held = True
        return retries.next_wait(self._rng)

    def ended(self, exchange: Exchange) -> None:
        """It is over."""
        if exchange.attempts.retries.held and self._budget is not None:
            self._budget.give()
        self._reports.ended(exchange)
