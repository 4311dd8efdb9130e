"""One question to an external authorizer, from the request that waits for it to the answer.

```
begun ── no body is shown ────────────────┐
  └── the body comes, held here ── enough ─┴─> asked ── answered, or lost, or too slow ──> told, once
                          └── too long ──> told: 413
```

The question is a request of the waypoint's own (`client`): an endpoint of the authorizer's service is chosen
for it as for any other request, over the mesh where it is in the mesh, and its answer has a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from ztunnel.http1.head import Fields
from ztunnel.l7.extauthz.outcome import Answer, Failed
from ztunnel.l7.extauthz.question import Question, http_answer, http_request
from ztunnel.l7.reply import OVERFLOW, Reply
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.provider import Speech
from ztunnel.model.route_action import Destination
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.state.lookup import Authorizer
from ztunnel.waypoint.chain import http_version
from ztunnel.waypoint.client import Client, ClientCall, Places, grpc_message, grpc_request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.aim import Terms
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

Then = Callable[[Answer | Reply], None]
"""Hears the answer, or how the request is answered that cannot be asked about; once."""


class Checks:
    """Those of all requests.

    Attributes:
        client: by which authorizers are asked.
        live: how many are under way, by provider.
        held_bytes: of bodies that are shown, for as long as their requests go on.
        counted: is told of a provider, and of what came of a question.
    """

    def __init__(self, client: Client, wall_ns: Callable[[], int]) -> None:
        """`wall_ns` gives nanoseconds since the epoch."""
        self.client = client
        self.wall_ns = wall_ns
        self.live = Places(MOST_OF_ONE)
        self.held_bytes = 0
        self.counted: Callable[[str, str], None] | None = None

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
    """One question."""

    def __init__(self, checks: Checks, asked: Asked, then: Then) -> None:
        self._checks = checks
        self._authorizer, self._terms, self._sought, self._question = asked
        self._provider = self._authorizer.provider
        self._then: Then | None = then
        self._about: Exchange | None = None
        self._call: ClientCall | None = None
        self._seen = 0
        self._held = 0

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
        checks, name, provider = self._checks, self._authorizer.name, self._provider
        if not checks.live.take(name):
            self._tell(Failed("too many questions to this authorizer are under way"))
            return
        plan = Plan("ext_authz", _RETRY)
        plan.destination = self._sought
        plan.timeout_seconds = provider.timeout_seconds
        call = self._call = ClientCall(checks.client, plan, self._terms, MOST_ANSWER, self._ended)
        if provider.speech is Speech.GRPC:
            call.start(*self._grpc())
        else:
            spoken = self._authorizer.service.protocol(provider.service.port)
            request = http_request(provider, self._question)
            call.start(request, self._question.body or b"", http_version(spoken, 1, grpc=False))

    def _grpc(self) -> tuple[Request, bytes]:
        provider, shown = self._provider, self._provider.body
        message = render_check(self._question, shown is not None and shown.as_bytes)
        authority = f"{self._authorizer.service.hostname}:{provider.service.port}"
        return grpc_request(authority, PATH.encode(), provider.timeout_seconds, message)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._then = self._about = None
        if self._call is not None:
            self._call.cancel()

    def _tell(self, answer: Answer | Reply) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(answer)

    def _ended(self, call: ClientCall) -> None:
        """It is over, however that came."""
        self._checks.live.give(self._authorizer.name)
        if self._then is not None:
            self._tell(self._read(call))

    def _read(self, call: ClientCall) -> Answer:
        """What the authorizer has said."""
        if self._provider.speech is Speech.HTTP:
            if not call.failure:
                return http_answer(self._provider, call.fields, bytes(call.body))
        else:
            message = grpc_message(call)
            if message is not None:
                return parse_answer(message)
        return Failed(f"{self._authorizer.name}: {call.failure}")
