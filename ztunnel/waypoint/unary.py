"""Calls of gRPC that a waypoint makes itself, one message each way: to a service of the mesh, over the
connections that carry requests to it.

```
called ── a server stands ── asked ── the answer is whole ──> its message
             │ none can be reached, or it takes too long, or its status is another than OK ──> a reason
```

A call is an exchange whose client is nobody: endpoints, limits and outliers are as for requests, and nothing
waits in a task of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from ztunnel.http1.head import Fields
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import DEFAULT, Retries
from ztunnel.model.address import OriginalDestination
from ztunnel.model.route_action import Destination
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import service_named
from ztunnel.state.world import World
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.way import Clock

MOST: Final = 4096
"""Calls of a waypoint that are under way; others are answered at once that there are too many."""
MOST_BYTES: Final = 64 * 1024
"""Of an answer."""

_PREFIX_BYTES: Final = 5
_HTTP2: Final = 2

Then = Callable[[bytes | None, str], None]
"""Is told the answer's message, or None and why there is none."""


class Called(NamedTuple):
    """What is called.

    Attributes:
        host, port: of a service, by its hostname in the mesh.
        namespace: whose service is meant where several have that name.
        method: as gRPC has it: `/package.Service/Method`.
        seconds: that it may take.
    """

    host: str
    port: int
    namespace: str
    method: bytes
    seconds: float


class Connects(Protocol):
    """Whoever finds servers (`connect.Servers`)."""

    def connect(self, exchange: Exchange, terms: Terms, version: int) -> None:
        """Find one for an exchange."""


class UnaryCalls:
    """Those of a waypoint.

    Attributes:
        live: how many are under way.
    """

    def __init__(
        self, clock: Clock, servers: Connects, current: Callable[[], tuple[World, Workload | None]]
    ) -> None:
        """`current` gives the world of the moment, and the waypoint in it."""
        self.clock = clock
        self.servers = servers
        self._current = current
        self.live = 0

    def call(self, called: Called, message: bytes, then: Then) -> None:
        """Make a call; `then` is called once, perhaps before this returns."""
        world, here = self._current()
        service = service_named(world, called.host, called.namespace)
        if here is None or service is None:
            then(None, f"{called.host} is no service of the mesh")
            return
        if self.live >= MOST:
            then(None, f"{MOST} calls are under way already")
            return
        self.live += 1
        plan = Plan("", DEFAULT)
        plan.destination = Destination(service.key, called.port)
        plan.timeout_seconds = called.seconds
        own = here.addresses[0]
        way = _Way(self, plan, Terms(OriginalDestination(own, called.port), own, _HTTP2))
        answer = _Answer(then)
        way.exchange = Exchange(way, answer, _request(called, message))
        way.answer = answer
        way.exchange.start(False)
        way.exchange.body(memoryview(len(message).to_bytes(_PREFIX_BYTES, "big") + message))
        way.exchange.end(())


def _request(called: Called, message: bytes) -> Request:
    fields = [
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"%dm" % max(1, int(called.seconds * 1000))),
    ]
    made = Request(b"POST", f"{called.host}:{called.port}".encode(), called.method, fields)
    made.length = -1
    return made


class _Answer:
    """The client's end of a call: its answer, as it comes."""

    __slots__ = ("_body", "_then", "_why")

    def __init__(self, then: Then) -> None:
        self._then: Then | None = then
        self._body = bytearray()
        self._why = ""

    def respond(self, fields: Fields, end: bool) -> None:
        """Its head."""
        found = dict(fields)
        if found[b":status"] != b"200":
            self._why = f"HTTP status {found[b':status'].decode()}"
        if end:
            self.finish(fields)

    def inform(self, fields: Fields) -> None:
        """Nothing of interest."""

    def send(self, payload: memoryview) -> None:
        """Some of its message."""
        if len(self._body) + len(payload) > MOST_BYTES:
            self._why = f"an answer of more than {MOST_BYTES} bytes"
            self._body.clear()
        elif not self._why:
            self._body += payload

    def finish(self, trailers: Fields) -> None:
        """It is whole."""
        found = dict(trailers)
        status = found.get(b"grpc-status", b"")
        why = self._why
        if not why and status != b"0":
            text = found.get(b"grpc-message", b"no reason")[:200].decode("utf-8", "replace")
            why = f"gRPC status {status[:3].decode('ascii', 'replace') or 'missing'}: {text}"
        message = bytes(self._body)
        if not why and (len(message) < _PREFIX_BYTES or message[0]):
            why = "an answer without a message, or with one that is compressed"
        if not why and int.from_bytes(message[1:_PREFIX_BYTES], "big") != len(message) - _PREFIX_BYTES:
            why = "an answer that is not one message"
        self.tell(None if why else message[_PREFIX_BYTES:], why)

    def reset(self) -> None:
        """It will never be whole."""
        self.tell(None, "the answer was cut off")

    def tell(self, message: bytes | None, why: str) -> None:
        """Once."""
        then, self._then = self._then, None
        if then is not None:
            then(message, why)

    def taken(self, count: int) -> None:
        """Nobody waits for that."""

    def unsent(self) -> int:
        """Nothing waits."""
        return 0


class _Way:
    """Where one call goes."""

    def __init__(self, calls: UnaryCalls, plan: Plan, terms: Terms) -> None:
        self._calls = calls
        self._plan = plan
        self._terms = terms
        self.exchange: Exchange | None = None
        self.answer: _Answer | None = None

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._calls.clock.now

    @property
    def clock(self) -> Clock:
        """The engine."""
        return self._calls.clock

    def begin(self, exchange: Exchange) -> None:
        """It was decided with its request."""
        exchange.proceed(self._plan)

    def connect(self, exchange: Exchange) -> None:
        """Find a server for it."""
        self._calls.servers.connect(exchange, self._terms, _HTTP2)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """There are none."""
        return []

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""
        return self._calls.clock.after(seconds, callback)

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        """What no server has seen is tried again at once, or not at all."""
        if not at_once:
            return -1.0
        retries.left -= 1
        return 0.0

    def ended(self, exchange: Exchange) -> None:
        """It is over."""
        self._calls.live -= 1
        if self.answer is not None:
            self.answer.tell(None, exchange.failure or exchange.details)
