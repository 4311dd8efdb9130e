"""One request and its response, on their way from a client's connection to a server's and back.

```
asked ── an upstream stands ──> forwarded ── response ──> answered ── both ways have ended ──> over
  │ nothing can be reached         │ it is lost: again, or a reply of our own
  └────────── a reply ─────────────┴────────── the client goes: cancelled ─────────────────────> over
```

Bodies pass through without being kept. What cannot leave on one side is not asked for on the other: bytes are
told to their side as taken only while the other side has less than 64 KiB that waits.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from ztunnel.flow.buffer import Backlog
from ztunnel.flow.transport import HIGH_BYTES
from ztunnel.http1.head import Fields
from ztunnel.l7.field import passed_trailers
from ztunnel.l7.grpc import MessageCounter
from ztunnel.l7.reply import CLIENT_GONE, NO_FLAG, UPSTREAM_PROTOCOL_ERROR, Reply, render
from ztunnel.l7.request import Request
from ztunnel.l7.response import interim_passed_back, passed_back
from ztunnel.model.address import Endpoint
from ztunnel.model.workload import Workload
from ztunnel.waypoint.sides import Downstream, Upstream

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
_MOST_TRIES = 3
"""Istio's default: two retries of what was not sent."""


_BEFORE, _AFTER = "before_response_started", "after_response_started"
_MOST_INTERIMS = 100
"""Of one exchange: a server that says 102 (Processing) every few seconds needs some."""


class Way(Protocol):
    """Where an exchange goes, and who hears of it."""

    @property
    def now(self) -> float:
        """Monotonic seconds."""

    def connect(self, exchange: Exchange) -> None:
        """Find an upstream: `connected` or `failed` follows, perhaps before this returns."""

    def ended(self, exchange: Exchange) -> None:
        """It is over."""


class Exchange:
    """One of them.

    Attributes:
        request: as it is sent on.
        received_bytes, sent_bytes: of the request's body, of the response's.
        received_messages, sent_messages: in these; None where it is no call of gRPC.
        status: that the client got; 0 for none.
        flag, details: what the log says of it.
        failure: why the upstream could not be reached.
        response, trailers: what came back, as it goes to the client.
        began, answered_at: monotonic seconds; 0: no response has come.
        active: when something last moved.
        tries: how often it was sent on.
        asked: the request as the client has sent it, where there are rules about tokens and it has passed.
        until: when its token expires, in monotonic seconds.
        host: the server's address.
        avoid, destination: the endpoint that was tried last, and whose it is.
    """

    __slots__ = (
        "_down",
        "_early",
        "_ended",
        "_forwarded",
        "_interims",
        "_owed_down",
        "_owed_up",
        "_responded",
        "_trailers",
        "_up",
        "_way",
        "active",
        "answered_at",
        "asked",
        "avoid",
        "began",
        "destination",
        "details",
        "failure",
        "flag",
        "grpc_status",
        "host",
        "over",
        "received_bytes",
        "received_messages",
        "request",
        "response",
        "sent_bytes",
        "sent_messages",
        "status",
        "trailers",
        "tries",
        "until",
    )

    def __init__(self, way: Way, down: Downstream, request: Request) -> None:
        self._way = way
        self._down = down
        self._up: Upstream | None = None
        self._early = Backlog()
        self._trailers: Fields = ()
        self._ended = False
        self._forwarded = False
        self._responded = False
        self._interims = 0
        self._owed_down = 0
        self._owed_up = 0
        self.request = request
        self.over = False
        self.began = self.active = way.now
        self.answered_at = 0.0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.received_messages = MessageCounter() if request.is_grpc else None
        self.sent_messages = MessageCounter() if request.is_grpc else None
        self.status = 0
        self.flag = NO_FLAG
        self.details = "via_upstream"
        self.failure = ""
        self.response: Fields = ()
        self.trailers: Fields = ()
        self.grpc_status = ""
        self.host = ""
        self.tries = 0
        self.asked: Request | None = None
        self.until = inf
        self.avoid: Endpoint | None = None
        self.destination: Workload | None = None

    # What the client does.

    def start(self, end: bool) -> None:
        """The request's head has come; with `end` that is all of it."""
        self._ended = end
        self._connect()

    def body(self, payload: memoryview) -> None:
        """Some of the request's body has come."""
        count = len(payload)
        self.received_bytes += count
        if self.received_messages is not None:
            self.received_messages.feed(payload)
        self.active = self._way.now
        up = self._up
        if self.over:
            self._down.taken(count)
        elif up is None:
            self._early.append(payload)
        else:
            up.send(payload)
            self._forwarded = True
            if up.unsent() > HIGH_BYTES:
                self._owed_down += count
            else:
                self._down.taken(count)

    def end(self, trailers: Fields) -> None:
        """The request is whole."""
        self._ended = True
        self._trailers = passed_trailers(trailers)
        if self._up is not None and not self.over:
            self._up.finish(self._trailers)

    def gone(self) -> None:
        """The client has gone."""
        self._cancel(CLIENT_GONE)

    def down_writable(self) -> None:
        """What waited for the client has left."""
        owed, self._owed_up = self._owed_up, 0
        if owed and self._up is not None:
            self._up.taken(owed)

    # What the server does.

    def connected(self, up: Upstream) -> None:
        """An upstream stands; it is the exchange's until the response is whole."""
        if self.over:
            up.cancel()
            return
        self._up = up
        self.host = up.host
        early = self._early
        up.ask(self.request, self._ended and not early.held_bytes and not self._trailers)
        while early.held_bytes and self._up is up:
            with early.head() as head:
                part = bytes(head)
            early.drop(len(part))
            self._forwarded = True
            up.send(memoryview(part))
            self._down.taken(len(part))
        if self._up is up and self._ended and (self._forwarded or self._trailers):
            up.finish(self._trailers)

    def failed(self, reply: Reply, reason: str = "", unsent: bool = False) -> None:
        """There is no upstream, or it was lost. `unsent`: the request cannot have had an effect there.

        What was not answered is tried again where that is safe.
        """
        up, self._up = self._up, None
        if self.over:
            return
        self.failure = reason
        if self._responded:
            self.flag, self.details = reply.flag, reply.because(reason).details.replace(_BEFORE, _AFTER)
            self._complete()
            self._down.reset()
            return
        again = unsent or (up is not None and up.reused and self.request.method in _IDEMPOTENT)
        if again and not self._forwarded and self.tries < _MOST_TRIES:
            self._connect()
            return
        self.reply(reply.because(reason) if reason else reply)

    def informed(self, fields: Fields) -> None:
        """An interim response."""
        if self.over:
            return
        self._interims += 1
        up = self._up
        if self._interims > _MOST_INTERIMS and up is not None:
            up.cancel()
            self.failed(UPSTREAM_PROTOCOL_ERROR, "interim responses without end")
            return
        self.active = self._way.now
        self._down.inform(interim_passed_back(fields))

    def responded(self, fields: Fields, end: bool) -> None:
        """The response's head has come; with `end` that is all of it."""
        if self.over:
            return
        now = self._way.now
        self.answered_at = self.active = now
        self._responded = True
        self.status = int(fields[0][1])
        self._note_grpc(fields)
        self.response = passed_back(fields, int((now - self.began) * 1000))
        self._down.respond(self.response, end)
        if end:
            self._answered()

    def payload(self, payload: memoryview) -> None:
        """Some of the response's body has come."""
        up, count = self._up, len(payload)
        if self.over or up is None:
            return
        self.sent_bytes += count
        if self.sent_messages is not None:
            self.sent_messages.feed(payload)
        self.active = self._way.now
        self._down.send(payload)
        if self._down.unsent() > HIGH_BYTES:
            self._owed_up += count
        elif self._up is up:
            up.taken(count)

    def whole(self, trailers: Fields) -> None:
        """The response is whole."""
        if self.over:
            return
        self._note_grpc(trailers)
        self.trailers = passed_trailers(trailers)
        self._down.finish(self.trailers)
        self._answered()

    def up_writable(self) -> None:
        """What waited for the server has left."""
        owed, self._owed_down = self._owed_down, 0
        if owed:
            self._down.taken(owed)

    # What we do.

    def reply(self, reply: Reply) -> None:
        """Answer it here."""
        if self.over:
            return
        if self._responded or not reply.status:
            self._cancel(reply)
            self._down.reset()
            return
        fields, body = render(reply, self.request.is_grpc)
        self.status, self.flag, self.details = int(fields[0][1]), reply.flag, reply.details
        self._note_grpc(fields)
        up = self._let_go()
        if up is not None:
            up.cancel()
        if self.request.method == b"HEAD":
            body = b""
        self._responded = True
        self.response = fields
        self.sent_bytes = len(body)
        self._down.respond(fields, not body)
        if body:
            self._down.send(memoryview(body))
            self._down.finish(())
        self._complete()

    def revoke(self, reply: Reply) -> None:
        """Answer it here; a call of gRPC whose response has begun is told in its trailers why it ends."""
        if self.over or not self._responded or not self.request.is_grpc:
            self.reply(reply)
            return
        fields, _ = render(reply, grpc=True)
        trailers = tuple(field for field in fields if field[0].startswith(b"grpc-"))
        self._note_grpc(trailers)
        self._down.finish(trailers)
        self._cancel(reply)

    def _connect(self) -> None:
        self.tries += 1
        self._way.connect(self)

    def _note_grpc(self, fields: Fields) -> None:
        for name, value in fields:
            if name == b"grpc-status":
                self.grpc_status = value.decode("ascii", "replace")[:3]

    def _answered(self) -> None:
        """The response is whole. Where the request is not, nobody is interested in the rest of it."""
        up = self._let_go()
        if up is not None and not self._ended:
            up.cancel()
        self._complete()

    def _cancel(self, reply: Reply) -> None:
        if self.over:
            return
        self.flag, self.details = reply.flag, reply.details
        up = self._let_go()
        if up is not None:
            up.cancel()
        self._complete()

    def _let_go(self) -> Upstream | None:
        """The server is another's, or nobody's; what it has sent is ours to bring to an end."""
        up, self._up = self._up, None
        owed, self._owed_up = self._owed_up, 0
        if up is not None and owed:
            up.taken(owed)
        return up

    def _complete(self) -> None:
        if self.over:
            return
        self.over = True
        lost = self._early.clear() + self._owed_down
        self._owed_down = 0
        self._way.ended(self)
        if lost:
            self._down.taken(lost)
