"""Requests that a waypoint makes itself (Envoy's AsyncClient): of an authorizer, a rate limit service or a
collector, over the connections that carry requests of clients.

```
begun ── a server stands ── asked ── the answer is whole ──> told: the answer
            │ none can be reached, cut off, too long, too slow ──> told: why there is none
            └──────────── nobody waits any more: cancelled ──────> told: that
```

Each is an exchange whose client is the waypoint: endpoints, TLS, limits and outliers are as for others, and
nothing waits in a task of its own. How many there are at once, whoever asks bounds (`Places`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

from ztunnel.http1.head import Fields
from ztunnel.l7.chance import Rng
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import Retries
from ztunnel.rpc.message import HEADER, push_header
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.reporting.observed import NO_FIELDS
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.way import Clock

HTTP2: Final = 2
_LONGEST_TIMEOUT: Final = 99_999_999
"""Eight digits are all that `grpc-timeout` may have."""

_CLOSED: Final = frozenset(("UC", "UR"))
"""By Envoy's flags, that a server closed the connection or the stream."""

Connect = Callable[[Exchange, Terms, int], None]
"""Finds a server for an exchange; the number is the version of HTTP."""


class Places:
    """How many of something are under way at once: `most` of one owner.

    Attributes:
        taken: by owner.
        most: of one.
    """

    __slots__ = ("most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return sum(self.taken.values())

    def take(self, owner: Hashable) -> bool:
        """Whether there is room for one more of this owner; if so it is taken, until `give`."""
        count = self.taken.get(owner, 0)
        if count >= self.most:
            return False
        self.taken[owner] = count + 1
        return True

    def give(self, owner: Hashable) -> None:
        """One of them is over."""
        left = self.taken[owner] - 1
        if left:
            self.taken[owner] = left
        else:
            del self.taken[owner]


class Client(NamedTuple):
    """What all of a waypoint's own requests share."""

    clock: Clock
    connect: Connect
    rng: Rng


class ClientCall:
    """One of them: both the client's end of its exchange, and the way of that.

    Attributes:
        fields: of the answer; empty until one has begun.
        trailers: of the answer.
        body: of the answer, as it comes.
        failure: once it is over, why there is no whole answer; empty: there is one.
        lost: once it is over, whether the server closed the connection before it said anything: one that was
            kept may be closed at any time.
    """

    __slots__ = (
        "_client", "_exchange", "_most_bytes", "_plan", "_terms", "_then", "_version", "_whole", "body",
        "failure", "fields", "lost", "trailers",
    )  # fmt: skip

    def __init__(
        self, client: Client, plan: Plan, terms: Terms, most_bytes: int, then: Callable[[ClientCall], None]
    ) -> None:
        """`plan` says where it goes and how long it may take, `most_bytes` how long an answer may be. `then`
        is called once it is over, whatever came of it: once, and perhaps before `start` returns."""
        self._client = client
        self._plan = plan
        self._terms = terms
        self._most_bytes = most_bytes
        self._then = then
        self._version = HTTP2
        self._exchange: Exchange | None = None
        self._whole = False
        self.fields = NO_FIELDS
        self.trailers = NO_FIELDS
        self.body = bytearray()
        self.failure = ""
        self.lost = False

    def start(self, request: Request, body: bytes, version: int = HTTP2) -> None:
        """Send it, in that version of HTTP."""
        self._version = version
        exchange = self._exchange = Exchange(self, self, request)
        exchange.start(not body)
        if body and not exchange.over:
            exchange.body(memoryview(body))
            exchange.end(())

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self._exchange is not None:
            self._exchange.gone()

    # The way of the exchange.

    @property
    def clock(self) -> Clock:
        """The engine."""
        return self._client.clock

    def begin(self, exchange: Exchange) -> None:
        """It was decided where it goes."""
        exchange.proceed(self._plan)

    def connect(self, exchange: Exchange) -> None:
        """Find a server for it."""
        self._terms.version = self._version
        self._client.connect(exchange, self._terms, self._version)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """There are none."""
        return []

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""
        return self._client.clock.after(seconds, callback)

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        """Take a retry."""
        wait = retries.next_wait(self._client.rng)
        return 0.0 if at_once else wait

    def ended(self, exchange: Exchange) -> None:
        """It is over, however that came."""
        if not self.failure and not (self._whole and exchange.answered_at):
            self.failure = exchange.failure or exchange.details
        self.lost = not exchange.answered_at and not _CLOSED.isdisjoint(exchange.flag.split(","))
        self._then(self)

    # The client's end of the exchange.

    def respond(self, fields: Fields, end: bool) -> None:
        """The head of an answer."""
        self.fields, self._whole = fields, end

    def inform(self, fields: Fields) -> None:
        """It is not waited for less."""

    def send(self, payload: memoryview) -> None:
        """Some of it."""
        if self.failure:
            return
        self.body += payload
        if len(self.body) > self._most_bytes:
            self.failure = f"an answer of more than {self._most_bytes} bytes"
            self.body.clear()
            self.cancel()

    def finish(self, trailers: Fields) -> None:
        """It is whole: `ended` follows."""
        self._whole, self.trailers = True, trailers

    def reset(self) -> None:
        """It is cut off: `ended` follows."""

    def taken(self, count: int) -> None:
        """Of what is asked nothing waits."""

    def unsent(self) -> int:
        """Nothing waits."""
        return 0


def grpc_request(authority: str, path: bytes, seconds: float, message: bytes) -> tuple[Request, bytes]:
    """A call of gRPC with one message, and its body; `path` is `/package.Service/Method`."""
    milliseconds = min(max(1, int(seconds * 1000)), _LONGEST_TIMEOUT)
    fields = [
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"%dm" % milliseconds),
    ]
    return Request(b"POST", authority.encode(), path, fields), push_header(len(message)) + message


def grpc_message(call: ClientCall) -> bytes | None:
    """The one message of an answer; None: there is none, and the call's `failure` says why."""
    if call.failure:
        return None
    status = call.fields[0][1]
    said = dict(call.trailers or call.fields)
    code = said.get(b"grpc-status", b"")
    if status != b"200":
        call.failure = f"HTTP status {status.decode()}"
    elif code != b"0":
        text = said.get(b"grpc-message", b"no reason")[:200].decode("utf-8", "replace")
        call.failure = f"gRPC status {code[:3].decode('ascii', 'replace') or 'missing'}: {text}"
    else:
        call.failure = _not_one_message(call.body)
    return None if call.failure else bytes(memoryview(call.body)[HEADER.size :])


def _not_one_message(body: bytearray) -> str:
    if len(body) < HEADER.size or body[0]:
        return "an answer without a message, or with one that is compressed"
    _, length = HEADER.unpack_from(body)
    return "" if length == len(body) - HEADER.size else "an answer that is not one message"
