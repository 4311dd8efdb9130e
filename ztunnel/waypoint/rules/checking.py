"""One question to an external authorizer, from the request that waits for it to the answer.

```
begun ── no body is shown ────────────────┐
  └── the body comes, held here ── enough ─┴─> asked ── answered, or lost, or too slow ──> told, once
                          └── too long ──> told: 413
```

The question is an exchange of its own, whose client is the waypoint: an endpoint of the authorizer's service
is chosen for it as for any other request, over the mesh where it is in the mesh, and its answer has a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from ztunnel.http1.head import Fields
from ztunnel.l7.chance import Rng
from ztunnel.l7.extauthz.outcome import Answer, Failed
from ztunnel.l7.extauthz.question import Question, http_answer, http_request
from ztunnel.l7.reply import OVERFLOW, Reply
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import Retries
from ztunnel.model.provider import Speech
from ztunnel.model.route_action import Destination
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.rpc.message import HEADER, push_header
from ztunnel.state.lookup import Authorizer
from ztunnel.waypoint.chain import http_version
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.reporting.observed import NO_FIELDS
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.way import Clock
from ztunnel.xds.ext_authz import PATH, parse_answer, render_check

MOST_OF_ONE: Final = 1024
"""Questions to one authorizer that are under way (Envoy's default of a cluster's requests)."""
MOST_HELD: Final = 64 * 1024 * 1024
"""Bytes of bodies that are held to be shown, of all requests of a waypoint together."""
MOST_ANSWER: Final = 256 * 1024
"""Bytes of an answer."""
TOO_LONG: Final = Reply(413, "-", "request_payload_too_large", "Payload Too Large")
_RETRY: Final = Retry(1, frozenset((RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM, RetryOn.RESET)))
"""What was lost without an answer is asked once more: to ask twice does no harm, and an authorizer may close
a connection that has been idle at any time."""

Connect = Callable[[Exchange, Terms, int], None]
"""Finds a server for an exchange; the number is the version of HTTP."""
Then = Callable[[Answer | Reply], None]
"""Hears the answer, or how the request is answered that cannot be asked about; once."""


class Checks:
    """Those of all requests.

    Attributes:
        live: how many are under way, by provider.
        held_bytes: of bodies that are shown, for as long as their requests go on.
        counted: is told of a provider, and of what came of a question.
    """

    def __init__(self, clock: Clock, connect: Connect, rng: Rng, wall_ns: Callable[[], int]) -> None:
        """`wall_ns` gives nanoseconds since the epoch."""
        self.clock = clock
        self.wall_ns = wall_ns
        self.connect = connect
        self.rng = rng
        self.live: dict[str, int] = {}
        self.held_bytes = 0
        self.counted: Callable[[str, str], None] | None = None

    @property
    def under_way(self) -> int:
        """All of them."""
        return sum(self.live.values())

    def count(self, provider: str, outcome: str) -> None:
        """Something came of a question."""
        if self.counted is not None:
            self.counted(provider, outcome)


class Asked(NamedTuple):
    """What a question is about, whom is asked, and in which terms: an address of the authorizer's service is
    chosen that is of the family that was called."""

    authorizer: Authorizer
    terms: Terms
    sought: Destination
    question: Question


class Check:
    """One question: the client's end of its exchange, and the way of that."""

    def __init__(self, checks: Checks, asked: Asked, then: Then) -> None:
        self._checks = checks
        self._authorizer, self._terms, self._sought, self._question = asked
        self._provider = self._authorizer.provider
        self._then: Then | None = then
        self._about: Exchange | None = None
        self._exchange: Exchange | None = None
        self._fields = NO_FIELDS
        self._answer = bytearray()
        self._seen = 0
        self._held = 0
        self._whole = False

    # The body of the request that it is about.

    def look_at(self, about: Exchange) -> None:
        """Ask about this request, once as much of its body has come as is shown."""
        shown = self._provider.body
        if shown is None or about.request.upgrade:
            self._ask()
            return
        self._about = about
        about.hear(self)
        if about.is_whole and not self._seen:
            self._about = None
            self._ask()
        elif about.is_whole:
            self._enough()

    def body(self, payload: memoryview) -> None:
        """Some of it has come."""
        about, shown = self._about, self._provider.body
        if about is None or shown is None:
            return
        count = len(payload)
        self._seen += count
        self._held += count
        self._checks.held_bytes += count
        if self._checks.held_bytes > MOST_HELD:
            self._about = None
            self._tell(OVERFLOW)
            return
        about.read_ahead()
        if self._seen > shown.most_bytes and not shown.partial:
            self._about = None
            self._tell(TOO_LONG)
        elif self._seen >= shown.most_bytes and shown.partial:
            self._enough()

    def end(self, trailers: Fields) -> None:
        """It is whole."""
        self._enough()

    def release(self) -> None:
        """The request that it was about is over: what was held of its body is not."""
        self._checks.held_bytes -= self._held
        self._held = 0

    def give_up(self) -> None:
        """It will not be: `cancel` follows."""

    def _enough(self) -> None:
        about, shown = self._about, self._provider.body
        if about is None or shown is None:
            return
        self._about = None
        partial = self._seen > shown.most_bytes or (self._seen == shown.most_bytes and not about.is_whole)
        body = about.body_begin(shown.most_bytes)
        self._question = replace(self._question, body=body, partial=partial)
        self._ask()

    # The question.

    def ask(self) -> None:
        """Ask about a connection, which has no body."""
        self._ask()

    def _ask(self) -> None:
        checks, name = self._checks, self._authorizer.name
        if checks.live.get(name, 0) >= MOST_OF_ONE:
            self._tell(Failed("too many questions to this authorizer are under way"))
            return
        checks.live[name] = checks.live.get(name, 0) + 1
        request, body = self._grpc() if self._provider.speech is Speech.GRPC else self._http()
        exchange = self._exchange = Exchange(self, self, request)
        exchange.start(not body)
        if body and not exchange.over:
            exchange.body(memoryview(body))
            exchange.end(())

    def _http(self) -> tuple[Request, bytes]:
        return http_request(self._provider, self._question), self._question.body or b""

    def _grpc(self) -> tuple[Request, bytes]:
        shown = self._provider.body
        message = render_check(self._question, shown is not None and shown.as_bytes)
        fields = [
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"grpc-timeout", b"%dm" % min(int(self._provider.timeout_seconds * 1000), 99_999_999)),
        ]
        authority = f"{self._authorizer.service.hostname}:{self._provider.service.port}"
        request = Request(b"POST", authority.encode(), PATH.encode(), fields)
        return request, push_header(len(message)) + message

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._then = self._about = None
        if self._exchange is not None:
            self._exchange.gone()

    def _tell(self, answer: Answer | Reply) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(answer)

    # The way of the exchange.

    @property
    def clock(self) -> Clock:
        """The engine."""
        return self._checks.clock

    def begin(self, exchange: Exchange) -> None:
        """It goes to the authorizer."""
        made = Plan("ext_authz", _RETRY)
        made.destination = self._sought
        made.timeout_seconds = self._provider.timeout_seconds
        exchange.proceed(made)

    def connect(self, exchange: Exchange) -> None:
        """Find one of its endpoints."""
        version = 2
        if self._provider.speech is Speech.HTTP:
            spoken = self._authorizer.service.protocol(self._provider.service.port)
            version = http_version(spoken, 1, grpc=False)
        self._terms.version = version
        self._checks.connect(exchange, self._terms, version)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """There are none."""
        return []

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""
        return self._checks.clock.after(seconds, callback)

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        """Take a retry."""
        wait = retries.next_wait(self._checks.rng)
        return 0.0 if at_once else wait

    def ended(self, exchange: Exchange) -> None:
        """It is over, however that came."""
        name = self._authorizer.name
        left = self._checks.live[name] - 1
        if left:
            self._checks.live[name] = left
        else:
            del self._checks.live[name]
        if self._then is not None:
            self._tell(self._read(exchange))

    def _read(self, exchange: Exchange) -> Answer:
        """What the authorizer has said."""
        if len(self._answer) > MOST_ANSWER:
            return Failed(f"{self._authorizer.name}: an answer of more than {MOST_ANSWER} bytes")
        if not exchange.answered_at or not self._whole:
            return Failed(f"{self._authorizer.name}: {exchange.failure or exchange.details}")
        if self._provider.speech is Speech.HTTP:
            return http_answer(self._provider, self._fields, bytes(self._answer))
        if self._fields[0][1] != b"200" or exchange.grpc_status != "0":
            said = exchange.grpc_status or "none"
            status = self._fields[0][1].decode()
            return Failed(f"{self._authorizer.name}: answered {status}, grpc-status {said}")
        return parse_answer(bytes(self._answer[HEADER.size :])) if self._is_one_message() else _NO_MESSAGE

    def _is_one_message(self) -> bool:
        answer = self._answer
        if len(answer) < HEADER.size:
            return False
        flag, length = HEADER.unpack_from(answer)
        return not flag and length == len(answer) - HEADER.size

    # The client's end of the exchange.

    def respond(self, fields: Fields, end: bool) -> None:
        """The head of an answer."""
        self._fields, self._whole = fields, end

    def inform(self, fields: Fields) -> None:
        """It is not waited for less."""

    def send(self, payload: memoryview) -> None:
        """Some of it."""
        if len(self._answer) <= MOST_ANSWER:
            self._answer += payload
            if len(self._answer) > MOST_ANSWER and self._exchange is not None:
                self._exchange.gone()

    def finish(self, trailers: Fields) -> None:
        """It is whole: `ended` follows."""
        self._whole = True

    def reset(self) -> None:
        """It is cut off: `ended` follows."""

    def taken(self, count: int) -> None:
        """Of what is asked nothing waits."""

    def unsent(self) -> int:
        """Nothing waits."""
        return 0


_NO_MESSAGE: Final = Failed("the authorizer's answer is not one message of gRPC")
