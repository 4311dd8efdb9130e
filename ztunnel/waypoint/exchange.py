"""One request and its response, on their way from a client's connection to a server's and back.

```
asked ── planned ── an upstream stands ──> forwarded ── response ──> answered ── both have ended ─> over
            │         │ none can be reached   │ it is lost, or a failure: again, or a reply of our own
            └─────────┴──── a reply ──────────┴──────── the client goes: cancelled ───────────────> over
```

Bodies pass through; what of a request is kept for another try is bounded (`kept`). What cannot leave on one
side is not asked for on the other: bytes are told to their side as taken only while the other side has less
than 64 KiB that waits.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from ztunnel.flow.transport import HIGH_BYTES
from ztunnel.http1.head import Fields
from ztunnel.l7 import reply as replies
from ztunnel.l7.field import passed_trailers
from ztunnel.l7.flags import joined
from ztunnel.l7.reply import Reply
from ztunnel.l7.request import Request
from ztunnel.l7.response import interim_passed_back, passed_back
from ztunnel.l7.routing.plan import NO_PLAN, Plan
from ztunnel.model.address import Endpoint
from ztunnel.waypoint.attempts import IDEMPOTENT, Attempts, Time
from ztunnel.waypoint.copies import Copies
from ztunnel.waypoint.kept import KeptBody
from ztunnel.waypoint.observed import Observed
from ztunnel.waypoint.sides import Copy, Downstream, Upstream


class Way(Time, Protocol):
    """Where an exchange goes, and who hears of it."""

    @property
    def now(self) -> float:
        """Monotonic seconds."""

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it: `proceed` or `reply` follows."""

    def connect(self, exchange: Exchange) -> None:
        """Find an upstream: `connected` or `unreachable` follows, perhaps before this returns."""

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """Send the copies that its plan has; with `end` nothing follows the request's head."""

    def ended(self, exchange: Exchange) -> None:
        """It is over."""


class Exchange(Observed):
    """One of them.

    Attributes:
        plan: what was decided of it.
        attempts: how often and how long it is tried.
        active: when something last moved.
        avoid: the endpoint that was tried last.
    """

    __slots__ = (
        "_body", "_copies", "_down", "_ended", "_owed_down", "_owed_up", "_pending", "_responded",
        "_trailers", "_up", "_wanted", "_way", "active", "attempts", "avoid", "plan",
    )  # fmt: skip

    def __init__(self, way: Way, down: Downstream, request: Request) -> None:
        super().__init__(request, way.now)
        self._way = way
        self._down = down
        self._up: Upstream | None = None
        self._body = KeptBody()
        self._copies = Copies()
        self._trailers: Fields = ()
        self._ended = False
        self._responded = False
        self._wanted = False
        self._pending = 0
        self._owed_down = 0
        self._owed_up = 0
        self.plan = NO_PLAN
        self.attempts = Attempts(way)
        self.active = self.began
        self.avoid: Endpoint | None = None

    # What the client does.

    def start(self, end: bool) -> None:
        """The request's head has come; with `end` that is all of it."""
        self._ended = end
        self._way.begin(self)

    def body(self, payload: memoryview) -> None:
        """Some of the request's body has come."""
        count = len(payload)
        self.note_received(payload)
        self.active = self._way.now
        up = self._up
        if self.over:
            self._down.taken(count)
            return
        self._copies.body(payload)
        if up is None:
            self._body.wait(payload)
            return
        up.send(payload)
        self._body.sent(payload)
        if up.unsent() > HIGH_BYTES:
            self._owed_down += count
        else:
            self._down.taken(count)

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

    def down_writable(self) -> None:
        """What waited for the client has left."""
        owed, self._owed_up = self._owed_up, 0
        if owed and self._up is not None:
            self._up.taken(owed)

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
        self.active = self._way.now
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

    # What the server does.

    def connected(self, up: Upstream) -> None:
        """An upstream stands; it is the exchange's until the response is whole."""
        self._pending -= 1
        if self.over or not self._wanted:
            up.cancel()
            return
        self._wanted = False
        self._up = up
        self.host = up.host
        body = self._body
        whole = self._ended and not body.waits and not self._trailers
        up.ask(self.request, whole)
        while body.waits and self._up is up:
            part, untold = body.next()
            up.send(memoryview(part))
            if untold:
                self._down.taken(untold)
        if self._up is up and self._ended and not whole:
            up.finish(self._trailers)

    def unreachable(self, reply: Reply, reason: str = "", unsent: bool = False) -> None:
        """There is no upstream. `unsent`: another one may be tried at once."""
        self._pending -= 1
        if self.over or not self._wanted or self._pending > 0:
            return
        self._wanted = False
        self._lost(reply, reason, unsent)

    def failed(self, reply: Reply, reason: str = "", unsent: bool = False) -> None:
        """The upstream was lost. `unsent`: the request cannot have had an effect there. What was not answered
        is tried again where that is safe, or its rule says so."""
        up, self._up = self._up, None
        if self.over:
            return
        if up is None:
            self.unreachable(reply, reason, unsent)
            return
        self._lost(reply, reason, unsent, stale=up.reused and self.request.method in IDEMPOTENT)

    def _lost(self, reply: Reply, reason: str, unsent: bool, stale: bool = False) -> None:
        """A try has come to nothing, or the response to no end."""
        self.failure = reason
        self.attempts.end_try(reply.flag)
        reply = reply.because(reason) if reason else reply
        if self._body.whole and not self._responded:
            wait = self.attempts.after_loss(reply, unsent, stale)
            if wait >= 0:
                self._try_again(wait)
                return
        self.reply(reply)

    def informed(self, fields: Fields) -> None:
        """An interim response."""
        if self.over:
            return
        up = self._up
        if not self.note_interim() and up is not None:
            up.cancel()
            self.failed(replies.UPSTREAM_PROTOCOL_ERROR, "interim responses without end")
            return
        self.active = self._way.now
        self._down.inform(interim_passed_back(fields))

    def responded(self, fields: Fields, end: bool) -> None:
        """The response's head has come; with `end` that is all of it."""
        if self.over:
            return
        self.attempts.responded(fields, self.request.is_grpc, end)
        if self._is_tried_again(fields, end):
            return
        self._body.forget()
        now = self._way.now
        self.answered_at = self.active = now
        self._responded = True
        self.status = int(fields[0][1])
        if self.attempts.flags:
            self.flag = joined(self.attempts.flags)
        self.note_grpc(fields)
        passed = self.attempts.stick(passed_back(fields, int((now - self.began) * 1000)))
        self.response = self.plan.edit(passed + self.added, self.host)
        self._down.respond(self.response, end)
        if end:
            self._answered()

    def _is_tried_again(self, fields: Fields, end: bool) -> bool:
        """Whether the response is a failure, and another one is asked for."""
        up = self._up
        if up is None or not self._body.whole or (wait := self.attempts.after_response(fields)) < 0:
            return False
        self._up = None
        self.attempts.end_try()
        if not end:
            up.cancel()
        self._try_again(wait)
        return True

    def payload(self, payload: memoryview) -> None:
        """Some of the response's body has come."""
        up, count = self._up, len(payload)
        if self.over or up is None:
            return
        self.note_sent(payload)
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
        self.note_grpc(trailers)
        self.attempts.whole(trailers)
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
        fields, body = replies.render(reply, self.request.is_grpc)
        self.status = int(fields[0][1])
        self.attempts.end_try(reply.flag)
        self.note_end(reply, self.attempts.flags)
        self.note_grpc(fields)
        fields = self.plan.edit(fields + self.added)
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
        fields, _ = replies.render(reply, grpc=True)
        trailers = tuple(field for field in fields if field[0].startswith(b"grpc-"))
        self.note_grpc(trailers)
        self._down.finish(trailers)
        self._cancel(reply)

    def _connect(self) -> None:
        if self.over:
            return
        self.attempts.count += 1
        self._wanted = True
        self._pending += 1
        self._begin_time()
        self._way.connect(self)

    def _try_again(self, wait: float) -> None:
        self._body.rewind()
        if wait:
            self.attempts.wait(wait, self._connect)
        else:
            self._connect()

    def _begin_time(self) -> None:
        """Once the request is whole. Where protocols were switched it has no end, nor its response."""
        tried = self._up is not None or self._wanted
        if self._ended and tried and self.attempts.timed and not self.switched:
            self.attempts.begin(partial(self.reply, replies.TIMEOUT), self._try_over)

    def _try_over(self) -> None:
        if self.over or self._responded:
            return
        up, self._up = self._up, None
        self._wanted = False
        if up is not None:
            up.cancel()
        self._lost(replies.TRY_TIMEOUT, "", unsent=False)

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
        self.attempts.end()
        self._copies.leave(self._ended)
        lost = self._body.clear() + self._owed_down
        self._owed_down = 0
        self._way.ended(self)
        if lost:
            self._down.taken(lost)
