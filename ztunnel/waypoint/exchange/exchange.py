"""One request and its response, on their way from a client's connection to a server's and back.

```
asked ── planned ── an upstream stands ──> forwarded ── response ──> answered ── both have ended ─> over
            │         │ none can be reached   │ it is lost, or a failure: again, or a reply of our own
            └─────────┴──── a reply ──────────┴──────── the client goes: cancelled ───────────────> over
```

What becomes of the bytes is in `bodies`, how servers are found and given up in `tries`; here is what the
client asks and what it gets.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from ztunnel.http1.head import Fields
from ztunnel.l7 import reply as replies
from ztunnel.l7.field import passed_trailers
from ztunnel.l7.flags import joined
from ztunnel.l7.reply import Reply
from ztunnel.l7.request import Request
from ztunnel.l7.response import interim_passed_back, passed_back
from ztunnel.l7.routing.plan import Plan
from ztunnel.waypoint.exchange.attempts import Time
from ztunnel.waypoint.exchange.held import Held
from ztunnel.waypoint.exchange.sides import Copy, Downstream
from ztunnel.waypoint.upstream.asking import Clock


class Way(Time, Protocol):
    """Where an exchange goes, and who hears of it."""

    @property
    def clock(self) -> Clock:
        """The engine."""

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it: `proceed` or `reply` follows."""

    def connect(self, exchange: Exchange) -> None:
        """Find an upstream: `connected` or `unreachable` follows, perhaps before this returns."""

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """Send the copies that its plan has; with `end` nothing follows the request's head."""

    def ended(self, exchange: Exchange) -> None:
        """It is over."""


class Exchange(Held):
    """One of them."""

    __slots__ = ("_way",)

    def __init__(self, way: Way, down: Downstream, request: Request) -> None:
        super().__init__(way.clock, way, down, request)
        self._way = way

    # What the client does.

    def start(self, end: bool) -> None:
        """The request's head has come; with `end` that is all of it."""
        self._ended = end
        self._way.begin(self)

    def end(self, trailers: Fields) -> None:
        """The request is whole."""
        self._ended = True
        self._trailers = passed_trailers(trailers)
        if self.over:
            return
        self._copies.end(self._trailers)
        if self._up is not None:
            self._up.finish(self._trailers)
        self._begin_time()

    def gone(self) -> None:
        """The client has gone."""
        self._cancel(replies.CLIENT_GONE)

    # What was decided.

    def proceed(self, plan: Plan) -> None:
        """This becomes of it."""
        self.plan = plan
        if self.over:
            return
        if plan.request is not None:
            self.request = plan.request
        if plan.delay_seconds:
            self.attempts.delay(plan.delay_seconds, partial(self._go, plan))
        else:
            self._go(plan)

    def _go(self, plan: Plan) -> None:
        if self.over:
            return
        self.active = self._clock.now
        if plan.reply is not None:
            self.reply(plan.reply)
            return
        body = self._body
        if self.attempts.allow(plan):
            body.keep()
        if plan.mirrors and not self.request.upgrade:
            copies = self._way.copies(self, self._ended and not body.waits)
            self._copies.begin(copies, body.waiting(), self._ended, self._trailers)
        self._connect()

    def _seek(self) -> None:
        self._way.connect(self)

    # What the server does.

    def informed(self, fields: Fields) -> None:
        """An interim response."""
        if self.over:
            return
        up = self._up
        if not self.note_interim() and up is not None:
            up.cancel()
            self.failed(replies.UPSTREAM_PROTOCOL_ERROR, "interim responses without end")
            return
        self.active = self._clock.now
        self._down.inform(interim_passed_back(fields))

    def responded(self, fields: Fields, end: bool) -> None:
        """The response's head has come; with `end` that is all of it."""
        if self.over:
            return
        self.attempts.responded(fields, self.is_grpc, end)
        if self._is_tried_again(fields, end):
            return
        self._body.forget()
        now = self._clock.now
        self.answered_at = self.active = now
        self._responded = True
        self.status = int(fields[0][1])
        if self.attempts.flags:
            self.flag = joined(self.attempts.flags)
        self.note_grpc(fields)
        passed = self.attempts.stick(passed_back(fields, int((now - self.began) * 1000)))
        self.response = self._edit(passed, self.host)
        self._down.respond(self.response, end)
        if end:
            self._answered()

    def whole(self, trailers: Fields) -> None:
        """The response is whole."""
        if self.over:
            return
        self.note_grpc(trailers)
        self.attempts.whole(trailers)
        self.trailers = passed_trailers(trailers)
        self._down.finish(self.trailers)
        self._answered()

    # What we do.

    def reply(self, reply: Reply) -> None:
        """Answer it here."""
        if self.over:
            return
        if self._responded or not reply.status:
            self._cancel(reply)
            self._down.reset()
            return
        fields, body = replies.render(reply, self.is_grpc)
        self.status = int(fields[0][1])
        self.attempts.end_try(reply.flag)
        self.note_end(reply, self.attempts.flags)
        self.note_grpc(fields)
        fields = self._edit(fields)
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
        if self.over or not self._responded or not self.is_grpc:
            self.reply(reply)
            return
        fields, _ = replies.render(reply, grpc=True)
        trailers = tuple(field for field in fields if field[0].startswith(b"grpc-"))
        self.note_grpc(trailers)
        self._down.finish(trailers)
        self._cancel(reply)

    def _answered(self) -> None:
        """The response is whole. Where the request is not, nobody is interested in the rest of it."""
        up = self._let_go()
        if up is not None and not self._ended:
            up.cancel()
        self._complete()

    def _cancel(self, reply: Reply) -> None:
        if self.over:
            return
        self.note_end(reply, self.attempts.flags)
        up = self._let_go()
        if up is not None:
            up.cancel()
        self._complete()

    def _complete(self) -> None:
        if self.over:
            return
        self.over = True
        self.attempts.end()
        self._copies.leave(self._ended)
        lost = self._forget_bodies()
        self._way.ended(self)
        if lost:
            self._down.taken(lost)
